//! How far this node has come in the change log: the node itself, and each hook. Kept in one file, so that they cannot
//! contradict each other.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::StateDir;
use crate::watch::Feed;

const FILE: &str = "changes.json";
/// How long the node's own cursor may lag behind on the disk: what it loses in a crash is only seen again.
const LAG: Duration = Duration::from_secs(2);

#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    /// The cluster whose log it is.
    cluster_id: String,
    /// Last change the node has applied.
    applied: Option<u64>,
    /// Last change each hook is done with.
    #[serde(default)]
    hooks: BTreeMap<String, u64>,
}

/// The cursors.
pub struct Cursors {
    state: StateDir,
    now: Mutex<Stored>,
}

impl Cursors {
    /// Reads them; another cluster's count for nothing.
    pub async fn load(state: StateDir, cluster_id: &str) -> Self {
        let reader = state.clone();
        let bytes = tokio::task::spawn_blocking(move || reader.read(FILE))
            .await
            .unwrap_or_default();
        let stored = bytes.and_then(|b| match serde_json::from_slice::<Stored>(&b) {
            Ok(stored) => Some(stored),
            Err(e) => {
                let file = state.path().join(FILE);
                tracing::warn!("{} is damaged ({e}); changes are followed from now on", file.display());
                None
            }
        });
        let fresh = Stored {
            cluster_id: cluster_id.to_owned(),
            ..Stored::default()
        };
        let stored = stored.filter(|s| s.cluster_id == cluster_id).unwrap_or(fresh);
        Self {
            state,
            now: Mutex::new(stored),
        }
    }

    /// Last change the node has applied.
    pub fn applied(&self) -> Option<u64> {
        self.now().applied
    }

    /// Last change a hook is done with.
    pub fn hook(&self, name: &str) -> Option<u64> {
        self.now().hooks.get(name).copied()
    }

    /// A hook is done with a change; durable when this returns, if the disk is willing.
    pub async fn hook_done(&self, name: &str, seq: u64) {
        self.now().hooks.insert(name.to_owned(), seq);
        self.flush().await;
    }

    /// A hook has passed over a change that it does not want: worth no write of its own.
    pub fn hook_passed(&self, name: &str, seq: u64) {
        self.now().hooks.insert(name.to_owned(), seq);
    }

    /// Writes them.
    pub async fn flush(&self) {
        let stored = self.now().clone();
        self.state
            .write(FILE, serde_json::to_vec(&stored).unwrap_or_default())
            .await;
    }

    /// Keeps the node's own cursor up with the feed.
    pub async fn follow(&self, feed: &Feed) {
        let mut written = None;
        loop {
            if let Some(cursor) = feed.moved(self.applied()).await {
                let mut now = self.now();
                if now.applied.is_some_and(|applied| cursor < applied) {
                    // The log was started over. Hooks that were further go back with it.
                    for hook in now.hooks.values_mut() {
                        *hook = cursor.min(*hook);
                    }
                }
                now.applied = Some(cursor);
            }
            let now = self.now().clone();
            if written.as_ref() != Some(&now) {
                written = Some(now);
                self.flush().await;
            }
            tokio::time::sleep(LAG).await;
        }
    }

    fn now(&self) -> MutexGuard<'_, Stored> {
        // Nothing panics under this lock.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn cursors_survive_and_belong_to_one_cluster() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let cursors = Cursors::load(state.clone(), "a").await;
        assert_eq!((cursors.applied(), cursors.hook("mail")), (None, None));
        cursors.hook_passed("log", 6);
        cursors.hook_done("mail", 7).await;
        let again = Cursors::load(state.clone(), "a").await;
        assert_eq!((again.hook("mail"), again.hook("log")), (Some(7), Some(6)));
        assert_eq!(Cursors::load(state.clone(), "b").await.hook("mail"), None);
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert_eq!(Cursors::load(state, "a").await.hook("mail"), None);
    }
}
