//! Where a playground keeps its things, and the record of what it is made of.
//!
//! Everything lies below one directory, `D`. The record is written once by `up` and never changed; what runs right now
//! is known to the supervisor alone.

use std::path::{Path, PathBuf};

use ha_proto::codes;
use serde::{Deserialize, Serialize};

use crate::error::{CliError, file_error};
use crate::files;

/// The version of the record.
const VERSION: u32 = 1;

/// The directory of a playground.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place(PathBuf);

impl Place {
    /// This directory, or where playgrounds are kept: the user's state directory, `/var/tmp` for root, whose home is
    /// closed to the user that the daemons run as.
    ///
    /// # Errors
    /// `HA0002` if there is no such place.
    pub(super) fn find(dir: Option<&Path>, root: bool) -> Result<Self, CliError> {
        if let Some(dir) = dir {
            let absolute = std::path::absolute(dir).map_err(|e| file_error("use", dir, &e))?;
            return Ok(Self(absolute));
        }
        let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let state = if root {
            Some(PathBuf::from("/var/tmp/hactl-playground"))
        } else {
            let base = set("XDG_STATE_HOME").or_else(|| set("HOME").map(|h| h.join(".local").join("state")));
            base.map(|b| b.join("hactl").join("playground"))
        };
        state.map(Self).ok_or_else(|| {
            CliError::new(codes::BAD_FILE, "there is no place for the playground")
                .why("neither XDG_STATE_HOME nor a home directory is set")
                .next("hactl playground up --dir DIR", "")
        })
    }

    /// The directory itself.
    pub(super) fn dir(&self) -> &Path {
        &self.0
    }

    /// Programs that every user of the playground may run.
    pub(super) fn bin(&self) -> PathBuf {
        self.0.join("bin")
    }

    /// Held locked by whoever runs this playground.
    pub(super) fn lock(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// The supervisor listens here.
    pub(super) fn socket(&self) -> PathBuf {
        self.0.join(Self::SOCKET)
    }

    /// Name of the supervisor's socket in the directory.
    pub(super) const SOCKET: &str = "control";

    /// What runs, as the supervisor last wrote it: read only to clean up after a supervisor that was killed.
    pub(super) fn running(&self) -> PathBuf {
        self.0.join("running.json")
    }

    /// Where logs are.
    pub(super) fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    /// The log of this process.
    pub(super) fn log(&self, child: &str) -> PathBuf {
        self.logs().join(format!("{child}.log"))
    }

    /// What this process keeps.
    pub(super) fn data(&self, child: &str) -> PathBuf {
        self.0.join("data").join(child)
    }

    /// Where sockets of this node's databases are: a path that is as short as can be, for systems limit its length.
    pub(super) fn sockets(&self, node: &str) -> PathBuf {
        self.0.join("s").join(node)
    }

    /// The record.
    pub(super) fn record(&self) -> PathBuf {
        self.0.join("playground.toml")
    }

    /// How to name this playground to hactl: nothing for the usual place.
    pub(super) fn flag(&self, root: bool) -> String {
        match Self::find(None, root) {
            Ok(usual) if usual == *self => String::new(),
            _ => format!(" --dir {}", self.0.display()),
        }
    }
}

/// One node of the playground.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Node {
    /// Its name.
    pub(super) name: String,
    /// gRPC, host:port.
    pub(super) address: String,
    /// HTTP, host:port.
    pub(super) http: String,
    /// Port of PostgreSQL on its address.
    #[serde(default)]
    pub(super) postgres: u16,
    /// Ports of the proxy to the primary and to the standbys.
    #[serde(default)]
    pub(super) proxy: (u16, u16),
}

/// What a playground is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    version: u32,
    /// Name of the cluster and of the context.
    pub(super) cluster: String,
    /// Its id; tells the context of this playground from another of the same name.
    pub(super) cluster_id: String,
    /// Where the operator's contexts are.
    pub(super) contexts: PathBuf,
    /// The user that the processes run as.
    pub(super) user: String,
    /// The ZooKeeper server, host:port.
    pub(super) zookeeper: String,
    /// The nodes, in order.
    pub(super) nodes: Vec<Node>,
}

impl Record {
    /// A record of this version.
    pub(super) fn new(cluster: String, cluster_id: String, contexts: PathBuf, user: String, zookeeper: String) -> Self {
        Self {
            version: VERSION,
            cluster,
            cluster_id,
            contexts,
            user,
            zookeeper,
            nodes: Vec::new(),
        }
    }

    /// Writes the record.
    ///
    /// # Errors
    /// `HA0002` if it cannot be written.
    pub(super) fn save(&self, place: &Place) -> Result<(), CliError> {
        let text = toml::to_string(self)
            .map_err(|e| CliError::new(codes::INTERNAL, "cannot write the playground's record").why(e.to_string()))?;
        files::replace(&place.record(), &text)
    }

    /// Reads the record; `None` if there is none.
    ///
    /// # Errors
    /// `HA0002` if it is damaged.
    pub(super) fn load(place: &Place) -> Result<Option<Self>, CliError> {
        let path = place.record();
        if !path.exists() {
            return Ok(None);
        }
        let damaged = |why: String| {
            CliError::new(codes::BAD_FILE, format!("cannot read {}", path.display()))
                .why(why)
                .next(
                    format!("rm -r {}", place.dir().display()),
                    "nothing of value is in a playground",
                )
        };
        let record: Self = toml::from_str(&files::read(&path)?).map_err(|e| damaged(e.message().to_owned()))?;
        if record.version != VERSION {
            return Err(damaged(format!(
                "it has version {}, this program knows version {VERSION}",
                record.version
            )));
        }
        Ok(Some(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::find(Some(dir.path()), false).unwrap();
        assert_eq!(Record::load(&place).unwrap(), None);
        let mut record = Record::new(
            "a".into(),
            "id".into(),
            "/x".into(),
            "nobody".into(),
            "127.0.0.10:1".into(),
        );
        record.nodes.push(Node {
            name: "n1".into(),
            address: "127.0.0.11:1".into(),
            http: "127.0.0.11:2".into(),
            postgres: 5432,
            proxy: (5000, 5001),
        });
        record.save(&place).unwrap();
        assert_eq!(Record::load(&place).unwrap(), Some(record));
    }

    #[test]
    fn a_record_of_a_newer_program_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::find(Some(dir.path()), false).unwrap();
        let mut record = Record::new(
            "a".into(),
            "id".into(),
            "/x".into(),
            "nobody".into(),
            "127.0.0.10:1".into(),
        );
        record.version = 2;
        record.save(&place).unwrap();
        assert!(Record::load(&place).unwrap_err().is(codes::BAD_FILE));
    }
}
