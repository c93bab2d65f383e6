//! Coordination: the one door to ZooKeeper.
//!
//! Everything the cluster agrees on passes through [`Coordinator`]. One value of it is *one session*: when the session
//! ends the value is dead for good and every call on it fails with [`CoordError::SessionLost`], so nothing that was built
//! on it (a registration, a candidacy, mastership) can outlive it by accident. [`Connector`] opens the next session.
//!
//! This module must never retry a write whose outcome is unknown: see [`resolve`] for how such writes are settled.

mod keeper;
mod memory;
mod path;
pub mod resolve;
mod session;
mod zookeeper;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{oneshot, watch};

pub use memory::{Commit, Done, Fault, FaultPlan, MemoryConnector, MemoryServer, Spawner};
pub use path::MAX_VALUE;
pub use zookeeper::{ServerLook, ServerStatus, ZooKeeperConnector, ZooKeeperOptions, look_at_server, probe_server};

/// What a stored value is, beside its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Version of the value, raised by each successful compare-and-set; a new node has version 0.
    pub version: i32,
    /// Transaction that created the node. A node that was deleted and created again has a greater one.
    pub created: i64,
    /// Transaction that last changed the value.
    pub modified: i64,
    /// Session that owns the node, if it is ephemeral; 0 otherwise.
    pub owner: i64,
}

/// How long a node lives and how it is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateMode {
    /// Stays until it is deleted.
    Persistent,
    /// Goes with the session that created it.
    Ephemeral,
    /// Goes with the session; the server appends a ten-digit counter to the name.
    EphemeralSequential,
}

/// Why a call failed. Only [`CoordError::Unknown`] leaves open whether it was carried out.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum CoordError {
    /// The node does not exist.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The node exists already.
    #[error("{0} exists already")]
    Exists(String),
    /// The value was changed since it was read.
    #[error("{0} was changed meanwhile")]
    BadVersion(String),
    /// The node still has children.
    #[error("{0} still has children")]
    NotEmpty(String),
    /// The access list refuses the call: another cluster secret wrote it.
    #[error("no permission for {0}: the cluster secret does not open it")]
    NoAuth(String),
    /// The session is over; this value is dead.
    #[error("the ZooKeeper session is over: {0}")]
    SessionLost(String),
    /// The call was certainly not carried out: there is no connection at the moment.
    #[error("ZooKeeper cannot be reached: {0}")]
    Unavailable(String),
    /// The reply did not come: the call may have been carried out, or may still be.
    #[error("no reply from ZooKeeper for {0}: the outcome is unknown")]
    Unknown(String),
    /// The request itself is wrong (path, size).
    #[error("bad request for {0}")]
    Invalid(String),
    /// A server's settings make the session unsafe, for instance another session timeout than was asked for.
    #[error("{0}")]
    Misconfigured(String),
}

/// Result of a coordination call.
pub type Result<T> = std::result::Result<T, CoordError>;

/// The state of a session as its owner must see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionState {
    /// Connected, and verified by a write since.
    Live,
    /// The connection is broken or unverified; the session may still live. Nothing new may be begun.
    Suspended,
    /// Over, with the reason. Final.
    Lost(String),
}

/// A one-shot wake-up: the watched node may have changed.
///
/// It fires at the latest when the node changes, and also after every reconnect (ZooKeeper's client loses its watches
/// there) and when the session ends: whoever waits reads again and compares. It carries no content on purpose.
#[derive(Debug)]
pub struct Watch(pub(crate) oneshot::Receiver<()>);

impl Watch {
    /// Makes a watch and the trigger that fires it. Dropping the trigger fires it as well.
    pub fn pair() -> (oneshot::Sender<()>, Watch) {
        let (tx, rx) = oneshot::channel();
        (tx, Watch(rx))
    }

    /// Waits until the node may have changed.
    pub async fn fired(self) {
        let _ = self.0.await;
    }

    /// Whether it has fired already.
    pub fn has_fired(&mut self) -> bool {
        !matches!(self.0.try_recv(), Err(oneshot::error::TryRecvError::Empty))
    }
}

/// The time up to which this session's holder may act as an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lease {
    /// On the clock of [`crate::platform::Clock::boottime`]: send time of the last acknowledged heartbeat plus two
    /// thirds of the session timeout. `None` before the first acknowledgement.
    pub until: Option<Duration>,
}

impl Lease {
    /// Whether the lease still runs at `now` (same clock).
    pub fn holds(&self, now: Duration) -> bool {
        self.until.is_some_and(|until| now < until)
    }
}

/// Opens sessions.
#[async_trait]
pub trait Connector: Send + Sync + 'static {
    /// Opens a new session. Bounded in time; rotates over the servers from call to call.
    async fn connect(&self) -> Result<Arc<dyn Coordinator>>;
    /// The session timeout every session of this connector has.
    fn session_timeout(&self) -> Duration;
}

/// One session. Paths are absolute inside the cluster's root: `/members/n1` names `/ha/<cluster>/members/n1`, and the
/// empty path names the root itself.
#[async_trait]
pub trait Coordinator: Send + Sync + 'static {
    /// The state of the session, live.
    fn state(&self) -> watch::Receiver<SessionState>;

    /// The lease, live; it begins with [`Coordinator::hold_lease`].
    fn lease(&self) -> watch::Receiver<Lease>;

    /// The session's id, known once it owns an ephemeral node.
    fn session_id(&self) -> Option<i64>;

    /// Creates a node with the cluster's access list and returns its path (with the counter, if sequential) and stat.
    async fn create(&self, path: &str, data: &[u8], mode: CreateMode) -> Result<(String, Stat)>;

    /// Reads a node.
    async fn read(&self, path: &str) -> Result<(Vec<u8>, Stat)>;

    /// Reads a node and watches it; where it does not exist, watches for its creation and returns `None`.
    async fn read_and_watch(&self, path: &str) -> Result<(Option<(Vec<u8>, Stat)>, Watch)>;

    /// Replaces the value if its version is still `version`.
    async fn compare_and_set(&self, path: &str, data: &[u8], version: i32) -> Result<Stat>;

    /// Deletes a node if its version is still `version`.
    async fn delete(&self, path: &str, version: i32) -> Result<()>;

    /// The names of a node's children, sorted.
    async fn children(&self, path: &str) -> Result<Vec<String>>;

    /// The names of a node's children, sorted, with a watch for children that come and go.
    async fn children_and_watch(&self, path: &str) -> Result<(Vec<String>, Watch)>;

    /// From now on heartbeats the ephemeral node `path`, which this session has created, every fifth of the session
    /// timeout by a versioned write, and keeps [`Coordinator::lease`] from the acknowledgements. The first of them has
    /// come when this returns.
    ///
    /// A session that holds no lease cannot be verified after its connection broke: it is lost there and then. If the
    /// node is not this session's own, the session is lost as well.
    async fn hold_lease(&self, path: &str) -> Result<()>;

    /// Heartbeats the lease now. Once it is acknowledged, what this session reads is no older than this call: the write
    /// that a read which enables anything must follow (protocol R2).
    async fn confirm(&self) -> Result<()>;

    /// Ends the session on the server: its ephemerals go at once, if the server can be reached; the lease ends first.
    async fn close(&self);

    /// Lets go without telling the server: the ephemerals stay until the session times out there. For restarts.
    fn abandon(&self);
}
