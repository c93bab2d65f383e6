//! Rules broken on purpose, one at a time: a simulation that does not notice is not looking.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use controlplane::coordination::{
    Connector, CoordError, Coordinator, CreateMode, Lease, Result, SessionState, Stat, Watch,
};
use ha_core::election::position;
use serde::Deserialize;
use tokio::sync::watch;

/// A rule that every daemon of a run breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weaken {
    /// A lease never ends.
    EndlessLease,
    /// A new master does not write its term into what it takes over.
    SealSkipped,
    /// A new master does not complete the log of the one before.
    EntryLeftOut,
    /// A candidate deletes the candidacy before its own.
    CandidacyDeleted,
    /// A daemon deletes whatever registration it finds under its name.
    RegistrationTaken,
    /// A write without a reply is taken for done.
    UnknownIsDone,
    /// An acknowledged write is one that the servers forgot.
    EntryForgotten,
}

impl Weaken {
    /// Every one of them.
    pub const ALL: [Weaken; 7] = [
        Weaken::EndlessLease,
        Weaken::SealSkipped,
        Weaken::EntryLeftOut,
        Weaken::CandidacyDeleted,
        Weaken::RegistrationTaken,
        Weaken::UnknownIsDone,
        Weaken::EntryForgotten,
    ];
}

/// A connector whose sessions break a rule.
pub fn weakened(inner: Arc<dyn Connector>, weaken: Weaken) -> Arc<dyn Connector> {
    Arc::new(WeakConnector { inner, weaken })
}

struct WeakConnector {
    inner: Arc<dyn Connector>,
    weaken: Weaken,
}

#[async_trait]
impl Connector for WeakConnector {
    async fn connect(&self) -> Result<Arc<dyn Coordinator>> {
        Ok(Arc::new(Weak {
            inner: self.inner.connect().await?,
            weaken: self.weaken,
            endless: watch::Sender::new(Lease::default()),
            term: AtomicU64::new(0),
            creates: AtomicU64::new(0),
        }))
    }

    fn session_timeout(&self) -> Duration {
        self.inner.session_timeout()
    }
}

struct Weak {
    inner: Arc<dyn Coordinator>,
    weaken: Weaken,
    endless: watch::Sender<Lease>,
    /// The term that this session raised last.
    term: AtomicU64,
    /// Entries of the log that it created.
    creates: AtomicU64,
}

#[derive(Deserialize)]
struct Value {
    #[serde(default)]
    term: u64,
    #[serde(default)]
    write: String,
    #[serde(default)]
    change: Option<Change>,
}

#[derive(Deserialize)]
struct Change {
    write: String,
}

fn value(data: &[u8]) -> Option<Value> {
    serde_json::from_slice(data).ok()
}

/// A seal changes the term alone; a change is embedded under the id of its write.
fn is_seal(data: &[u8]) -> bool {
    value(data).is_some_and(|v| v.term > 0 && v.change.is_none_or(|c| c.write != v.write))
}

fn is_fenced(path: &str) -> bool {
    matches!(path, "/cluster" | "/access")
        || ["/nodes/", "/assignments/", "/ops/"]
            .iter()
            .any(|f| path.starts_with(f))
}

fn done(version: i32) -> Stat {
    Stat {
        version,
        created: 1,
        modified: 1,
        owner: 0,
    }
}

#[async_trait]
impl Coordinator for Weak {
    fn state(&self) -> watch::Receiver<SessionState> {
        self.inner.state()
    }

    fn lease(&self) -> watch::Receiver<Lease> {
        match self.weaken {
            Weaken::EndlessLease => self.endless.subscribe(),
            _ => self.inner.lease(),
        }
    }

    fn session_id(&self) -> Option<i64> {
        self.inner.session_id()
    }

    async fn create(&self, path: &str, data: &[u8], mode: CreateMode) -> Result<(String, Stat)> {
        let entry = path.starts_with("/changes/");
        let left_out = || value(data).is_some_and(|v| v.term < self.term.load(Ordering::Relaxed));
        let forgotten = || self.creates.fetch_add(1, Ordering::Relaxed) == 7;
        match self.weaken {
            Weaken::EntryLeftOut if entry && left_out() => return Ok((path.to_owned(), done(0))),
            Weaken::EntryForgotten if entry && forgotten() => return Ok((path.to_owned(), done(0))),
            _ => {}
        }
        let created = self.inner.create(path, data, mode).await;
        match (self.weaken, created) {
            (Weaken::RegistrationTaken, Err(CoordError::Exists(_))) if path.starts_with("/members/") => {
                let (_, stat) = self.inner.read(path).await?;
                self.inner.delete(path, stat.version).await?;
                self.inner.create(path, data, mode).await
            }
            (Weaken::UnknownIsDone, Err(CoordError::Unknown(_))) if entry => Ok((path.to_owned(), done(0))),
            (_, created) => created,
        }
    }

    async fn read(&self, path: &str) -> Result<(Vec<u8>, Stat)> {
        self.inner.read(path).await
    }

    async fn read_and_watch(&self, path: &str) -> Result<(Option<(Vec<u8>, Stat)>, Watch)> {
        self.inner.read_and_watch(path).await
    }

    async fn compare_and_set(&self, path: &str, data: &[u8], version: i32) -> Result<Stat> {
        if self.weaken == Weaken::SealSkipped && is_fenced(path) && is_seal(data) {
            return self.inner.read(path).await.map(|(_, stat)| stat);
        }
        let set = self.inner.compare_and_set(path, data, version).await;
        if path == "/master"
            && set.is_ok()
            && let Some(v) = value(data)
        {
            self.term.store(v.term, Ordering::Relaxed);
        }
        match (self.weaken, set) {
            (Weaken::UnknownIsDone, Err(CoordError::Unknown(_))) if is_fenced(path) => Ok(done(version + 1)),
            (_, set) => set,
        }
    }

    async fn delete(&self, path: &str, version: i32) -> Result<()> {
        self.inner.delete(path, version).await
    }

    async fn children(&self, path: &str) -> Result<Vec<String>> {
        let names = self.inner.children(path).await?;
        if self.weaken == Weaken::CandidacyDeleted
            && path == "/election"
            && names.len() > 2
            && let Some(first) = names.iter().min_by_key(|n| position(n))
        {
            let _ = self.inner.delete(&format!("/election/{first}"), 0).await;
        }
        Ok(names)
    }

    async fn children_and_watch(&self, path: &str) -> Result<(Vec<String>, Watch)> {
        self.inner.children_and_watch(path).await
    }

    async fn hold_lease(&self, path: &str) -> Result<()> {
        self.inner.hold_lease(path).await?;
        self.endless.send_replace(Lease {
            until: Some(Duration::MAX),
        });
        Ok(())
    }

    async fn confirm(&self) -> Result<()> {
        self.inner.confirm().await
    }

    async fn close(&self) {
        self.inner.close().await;
    }

    fn abandon(&self) {
        self.inner.abandon();
    }
}
