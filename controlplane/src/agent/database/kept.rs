//! What the driver must remember over its own end, beside PostgreSQL's marks: as what each incarnation was started, which
//! rebuild was carried out, and what it granted. Each is on disk, with its directory, before the step that it announces.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::platform::write_atomic;
use crate::postgres::{PgError, Result};

const FILE: &str = "driver.json";
const LIMIT: Duration = Duration::from_secs(10);
/// Incarnations remembered.
const KEPT: usize = 8;

/// As what an incarnation runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Role {
    /// It was started as a primary.
    #[serde(default)]
    pub(super) started_primary: bool,
    /// It ran as a primary, or may have: it was started as one, or its promotion was begun.
    #[serde(default)]
    pub(super) primary: bool,
}

/// A grant that was given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Granted {
    /// The boot of the machine in which it was.
    pub(super) boot: String,
    /// Up to when it lasts, milliseconds of CLOCK_BOOTTIME.
    pub(super) until_ms: u64,
    /// Whom.
    pub(super) to: String,
    /// In which epoch.
    pub(super) epoch: u64,
}

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Kept {
    /// By incarnation, the newest few.
    #[serde(default)]
    pub(super) roles: BTreeMap<u64, Role>,
    /// `since_ms` of the last order to rebuild that was carried out.
    #[serde(default)]
    pub(super) rebuilt: i64,
    /// The last grant.
    #[serde(default)]
    pub(super) granted: Option<Granted>,
    /// How the directory came to its data, for people.
    #[serde(default)]
    pub(super) recovery: String,
}

/// Reads and changes what is kept.
#[derive(Debug, Clone)]
pub(super) struct KeptStore {
    path: PathBuf,
    present: Arc<Mutex<Kept>>,
}

impl KeptStore {
    /// Opens it in an existing directory of the daemon's own.
    pub(super) async fn open(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let read = path.clone();
        let present = off_thread(move || match std::fs::read(&read) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Kept::default()),
            Err(e) => Err(files(&read, &e)),
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| PgError::Unreadable {
                what: read.display().to_string(),
                why: e.to_string(),
            }),
        })
        .await?;
        Ok(Self {
            path,
            present: Arc::new(Mutex::new(present)),
        })
    }

    /// What is on disk.
    pub(super) fn get(&self) -> Kept {
        self.present.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes it; on disk when this returns well.
    pub(super) async fn change(&self, change: impl FnOnce(&mut Kept) + Send + 'static) -> Result<()> {
        let this = self.clone();
        off_thread(move || {
            let mut present = this.present.lock().unwrap_or_else(PoisonError::into_inner);
            let mut next = present.clone();
            change(&mut next);
            while next.roles.len() > KEPT {
                next.roles.pop_first();
            }
            if next != *present {
                let text = serde_json::to_vec(&next).unwrap_or_default();
                write_atomic(&this.path, &text).map_err(|e| files(&this.path, &e))?;
                *present = next;
            }
            Ok(())
        })
        .await
    }
}

fn files(path: &Path, e: &std::io::Error) -> PgError {
    PgError::Files {
        what: path.display().to_string(),
        why: e.to_string(),
    }
}

/// Runs something that waits for a disk, within a limit.
pub(super) async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let what = "the instance's files";
    match tokio::time::timeout(LIMIT, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(done)) => done,
        Ok(Err(e)) => Err(PgError::Files {
            what: what.to_owned(),
            why: e.to_string(),
        }),
        Err(_) => Err(PgError::TimedOut {
            what: what.to_owned(),
            limit: LIMIT,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_outlives_the_daemon_and_is_never_guessed() {
        let dir = tempfile::tempdir().unwrap();
        let store = KeptStore::open(dir.path()).await.unwrap();
        for i in 1..=20 {
            let role = Role {
                started_primary: true,
                primary: true,
            };
            store
                .change(move |k| {
                    k.roles.insert(i, role);
                })
                .await
                .unwrap();
        }
        store.change(|k| k.rebuilt = 7).await.unwrap();
        let again = KeptStore::open(dir.path()).await.unwrap().get();
        assert_eq!((again.rebuilt, again.roles.len()), (7, KEPT));
        assert!(again.roles[&20].primary && !again.roles.contains_key(&1));
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(KeptStore::open(dir.path()).await.is_err());
    }
}
