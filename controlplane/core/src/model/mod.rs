//! What is stored in ZooKeeper: versioned JSON, one envelope for everything a master writes.

mod names;
mod records;

pub use names::{NODE_NAME, NameError, valid_address, valid_label, valid_name, valid_node_name};
pub use records::*;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Version of the stored form. A reader refuses a greater one and leaves the value alone.
pub const FORMAT: u32 = 1;
/// Greatest size of a stored value, in bytes.
pub const MAX_VALUE: usize = 256 * 1024;

/// A stored value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoredError {
    /// Not the JSON that was expected.
    #[error("{path}: not readable: {why}")]
    Malformed {
        /// The node that holds it.
        path: String,
        /// What the parser said.
        why: String,
    },
    /// Written by a newer version of the program.
    #[error("{path}: format {found}, this version knows up to {FORMAT}")]
    Newer {
        /// The node that holds it.
        path: String,
        /// The format found.
        found: u32,
    },
}

/// The form of each fenced znode: the term that last wrote it, the id of that write, and the change it carried out.
///
/// The embedded change is what lets the next master finish the change log when its predecessor died between the change
/// and its entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Envelope<T> {
    /// Stored format.
    pub v: u32,
    /// Term of the master that wrote it; 0 when created empty.
    pub term: u64,
    /// Id of the write, by which an unknown outcome is settled.
    pub write: String,
    /// The last change made to the value.
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
    /// The value; none while created but not yet filled.
    #[serde(default = "Option::default")]
    pub value: Option<T>,
}

impl<T> Envelope<T> {
    /// The empty envelope that whoever adds an object creates, at term 0 (protocol R1).
    pub fn empty() -> Self {
        Self {
            v: FORMAT,
            term: 0,
            write: String::new(),
            change: None,
            value: None,
        }
    }

    /// Revision of the object: the number of its last change, 0 if it never had one.
    pub fn revision(&self) -> u64 {
        self.change.as_ref().map_or(0, |c| c.seq)
    }
}

/// Just enough of any stored value to know its format and its write id.
#[derive(Deserialize)]
struct Head {
    v: u32,
    #[serde(default)]
    write: String,
}

/// Encodes a stored value.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Serialising our own plain structs to memory cannot fail; an empty value would be refused by every reader.
    serde_json::to_vec(value).unwrap_or_default()
}

/// Decodes a stored value.
///
/// # Errors
/// [`StoredError`] if the bytes are not what this version can read.
pub fn decode<T: DeserializeOwned>(path: &str, bytes: &[u8]) -> Result<T, StoredError> {
    let malformed = |e: serde_json::Error| StoredError::Malformed {
        path: path.to_owned(),
        why: e.to_string(),
    };
    let head: Head = serde_json::from_slice(bytes).map_err(malformed)?;
    if head.v > FORMAT {
        return Err(StoredError::Newer {
            path: path.to_owned(),
            found: head.v,
        });
    }
    serde_json::from_slice(bytes).map_err(malformed)
}

/// Whether a stored value was written by the write with this id.
pub fn is_write(bytes: &[u8], id: &str) -> bool {
    serde_json::from_slice::<Head>(bytes).is_ok_and(|h| h.write == id)
}
