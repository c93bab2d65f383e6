//! The state directory: what must outlive the daemon.
//!
//! A directory that cannot be written to never ends the daemon once it has its lock: what could not be written is kept in
//! memory, tried again, and told as a condition.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ha_proto::codes;

use super::Conditions;
use crate::error::ApiError;
use crate::platform::{DirLock, private_dir, write_atomic};

const CONDITION: &str = "state";
const TOKEN: &str = "token";
/// Pause between attempts to write what could not be written.
const RETRY: Duration = Duration::from_secs(5);

/// The daemon's state directory, locked. Clones are the same.
#[derive(Clone)]
pub struct StateDir(Arc<Inner>);

struct Inner {
    path: PathBuf,
    _lock: DirLock,
    conditions: Conditions,
    /// Newest content of files that are not on the disk as they should be.
    unwritten: Mutex<BTreeMap<String, Vec<u8>>>,
    /// One writer at a time: a later content must not be overtaken by an earlier one.
    writing: tokio::sync::Mutex<()>,
}

impl StateDir {
    /// Locks the directory, making it first if it does not exist.
    ///
    /// # Errors
    /// [`codes::STATE_LOCKED`]; [`codes::STATE_UNWRITABLE`] if there is no directory and none can be made.
    pub fn open(path: &Path) -> Result<Self, ApiError> {
        let unusable = |e: std::io::Error| {
            ApiError::new(
                &codes::STATE_UNWRITABLE,
                format!("the state directory {} cannot be used", path.display()),
            )
            .why(e.to_string())
            .next("give had's user the directory, or set state_dir in had.toml or --state-dir")
        };
        if !path.is_dir() {
            private_dir(path).map_err(unusable)?;
        }
        let Some(lock) = DirLock::acquire(path).map_err(unusable)? else {
            return Err(ApiError::new(
                &codes::STATE_LOCKED,
                format!("another had uses the state directory {}", path.display()),
            )
            .next("systemctl status had    shows the one that the service manager runs")
            .next("--state-dir DIR gives this one a directory of its own"));
        };
        Ok(Self(Arc::new(Inner {
            path: path.to_owned(),
            _lock: lock,
            conditions: Conditions::default(),
            unwritten: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
        })))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The node's conditions; the directory's own is among them.
    pub fn conditions(&self) -> Conditions {
        self.0.conditions.clone()
    }

    /// What tells this node's daemon, restarted, from another of the same name. Made at the first start.
    pub fn token(&self) -> String {
        if let Ok(text) = std::fs::read_to_string(self.0.path.join(TOKEN)) {
            if let Ok(token) = uuid::Uuid::try_parse(text.trim()) {
                return token.to_string();
            }
            tracing::warn!(
                "{} does not hold a token (a full disk may have cut it short); a new one is made, and the node may \
                 have to wait for its earlier session to end",
                self.0.path.join(TOKEN).display()
            );
        }
        let token = uuid::Uuid::new_v4().to_string();
        let done = self.write_now(TOKEN, format!("{token}\n").as_bytes());
        if !done {
            self.unwritten()
                .insert(TOKEN.to_owned(), format!("{token}\n").into_bytes());
        }
        token
    }

    /// Reads a file; none if there is none.
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        match std::fs::read(self.0.path.join(name)) {
            Ok(content) => Some(content),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => {
                tracing::warn!(
                    "{} cannot be read ({e}); going on without it",
                    self.0.path.join(name).display()
                );
                None
            }
        }
    }

    /// Writes a file, durably. If that fails it is tried again later, unless newer content comes first.
    pub async fn write(&self, name: &str, content: Vec<u8>) {
        let turn = self.0.writing.lock().await;
        self.unwritten().remove(name);
        if let Some(content) = self.attempt(name, content).await {
            self.unwritten().insert(name.to_owned(), content);
        }
        drop(turn);
    }

    /// Tries again and again what could not be written.
    pub async fn retry(&self) {
        loop {
            tokio::time::sleep(RETRY).await;
            self.rewrite().await;
        }
    }

    /// Finds out whether the directory can be written.
    pub async fn probe(&self) {
        let turn = self.0.writing.lock().await;
        if self.attempt("probe", vec![b'.'; 4096]).await.is_none() {
            let _ = std::fs::remove_file(self.0.path.join("probe"));
        }
        drop(turn);
        self.rewrite().await;
    }

    async fn rewrite(&self) {
        let turn = self.0.writing.lock().await;
        let waiting = std::mem::take(&mut *self.unwritten());
        for (name, content) in waiting {
            if let Some(content) = self.attempt(&name, content).await {
                self.unwritten().insert(name, content);
            }
        }
        drop(turn);
    }

    /// Writes off the runtime's threads: a disk may take its time. Gives the content back if that failed.
    async fn attempt(&self, name: &str, content: Vec<u8>) -> Option<Vec<u8>> {
        let (this, file) = (self.clone(), name.to_owned());
        let write = move || {
            if this.write_now(&file, &content) {
                None
            } else {
                Some(content)
            }
        };
        tokio::task::spawn_blocking(write).await.unwrap_or_default()
    }

    fn write_now(&self, name: &str, content: &[u8]) -> bool {
        match write_atomic(&self.0.path.join(name), content) {
            Ok(()) => {
                if self.0.conditions.clear(CONDITION) {
                    tracing::info!("the state directory {} can be written again", self.0.path.display());
                }
                true
            }
            Err(e) => {
                use std::io::ErrorKind::{QuotaExceeded, StorageFull};
                let full = matches!(e.kind(), StorageFull | QuotaExceeded);
                let what = if full { "disk full: " } else { "" };
                let line = format!(
                    "{what}state directory cannot be written ({}: {e})",
                    self.0.path.display()
                );
                if self.0.conditions.set(CONDITION, &line) {
                    tracing::error!(
                        code = codes::STATE_UNWRITABLE.id,
                        "{line}; had goes on, but a restart may repeat what hooks have done; make room or give had's \
                         user the directory"
                    );
                }
                false
            }
        }
    }

    fn unwritten(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        // Nothing panics under this lock.
        self.0.unwritten.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_stays_and_the_directory_is_locked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("had");
        let state = StateDir::open(&path).unwrap();
        let token = state.token();
        assert_eq!(StateDir::open(&path).err().unwrap().code.id, "HA0807");
        drop(state);
        let state = StateDir::open(&path).unwrap();
        assert_eq!(state.token(), token);
        std::fs::write(path.join(TOKEN), "").unwrap();
        assert_ne!(state.token(), token);
        assert_eq!(state.token(), state.token());
    }

    #[test]
    fn a_directory_that_cannot_be_made() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), "").unwrap();
        let e = StateDir::open(&dir.path().join("file/had")).err().unwrap();
        assert_eq!(e.code.id, "HA0808");
    }

    #[tokio::test]
    async fn a_lost_write_is_told_and_made_up_for() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        // In the way of the new file, for root as well.
        std::fs::create_dir(dir.path().join("x.new")).unwrap();
        state.write("x", b"one".to_vec()).await;
        state.write("x", b"two".to_vec()).await;
        let lines = state.conditions().lines();
        assert!(
            lines.len() == 1 && lines[0].contains("state directory cannot be written"),
            "{lines:?}"
        );
        assert_eq!(state.read("x"), None);
        state.rewrite().await;
        assert_eq!(state.read("x"), None);
        std::fs::remove_dir(dir.path().join("x.new")).unwrap();
        state.rewrite().await;
        assert_eq!(state.read("x").as_deref(), Some(&b"two"[..]));
        assert!(state.conditions().lines().is_empty());
    }
}
