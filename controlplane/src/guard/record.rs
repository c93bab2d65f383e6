//! What must outlive the guard: the newest incarnation, and what is known of its end.
//!
//! Written before anything is started, so that no guard started later takes an old order for a new one (protocol R10).

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::wire::Proof;
use crate::platform::write_atomic;

const FILE: &str = "record";

/// The record of one guard's directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Version of this file's form.
    pub(super) v: u32,
    /// That of the newest start, 0 before the first.
    pub(super) incarnation: u64,
    /// The boot of the machine in which that was.
    pub(super) boot: String,
    /// That nothing of it runs; none while it may.
    #[serde(default)]
    pub(super) proof: Option<Proof>,
}

impl Record {
    /// Reads it; one that never was is empty.
    ///
    /// # Errors
    /// If it cannot be read or makes no sense. Nothing may be started then: an old order could pass for a new one.
    pub(super) fn read(dir: &Path) -> io::Result<Record> {
        let path = Self::path(dir);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| {
                let why = format!(
                    "{} is damaged ({e}); it says which start was the last, so it must not be guessed: once nothing of \
                     this group runs here, remove it",
                    path.display()
                );
                io::Error::new(io::ErrorKind::InvalidData, why)
            }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Record::default()),
            Err(e) => Err(e),
        }
    }

    /// Writes it, durably.
    ///
    /// # Errors
    /// What the file system says; the old one stands then.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        write_atomic(&Self::path(dir), &serde_json::to_vec(self).map_err(io::Error::other)?)
    }

    fn path(dir: &Path) -> PathBuf {
        dir.join(FILE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_kept_and_never_guessed() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Record::read(dir.path()).unwrap(), Record::default());
        let record = Record {
            v: 1,
            incarnation: u64::MAX,
            boot: "b".into(),
            proof: None,
        };
        record.write(dir.path()).unwrap();
        assert_eq!(Record::read(dir.path()).unwrap(), record);
        std::fs::write(dir.path().join(FILE), "").unwrap();
        assert!(Record::read(dir.path()).unwrap_err().to_string().contains("damaged"));
    }
}
