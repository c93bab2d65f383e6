//! One session on the client crate: its private runtime and thread, its heartbeat, and what follows when the connection
//! breaks.
//!
//! Nothing is live before its identity was sent and a write of its own was acknowledged on the present connection. It
//! must never continue on another session than it began with, and never let a callback of the crate panic: that kills
//! the crate's client for good.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Mutex, Notify, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use zookeeper_async::{WatchedEvent, WatchedEventType, ZkError, ZkResult, ZooKeeper};

use super::super::keeper::{Beat, HeartbeatPort, Keeper};
use super::super::session::{SessionCell, WatchKind};
use super::super::{CoordError, Result, Stat};
use super::relay::{Relay, RelayEvent};
use crate::platform::Clock;

/// Requests under way at a time. The crate's queue holds 64 and must never fill up: its own ping would wait for itself.
const IN_FLIGHT: usize = 60;

/// Stack of the session's thread.
const STACK: usize = 512 * 1024;

/// What a session is opened with.
pub(super) struct Setup {
    pub(super) hosts: Vec<String>,
    pub(super) first: usize,
    pub(super) root: String,
    pub(super) timeout: Duration,
    /// `user:password`.
    pub(super) identity: Vec<u8>,
    pub(super) clock: Arc<dyn Clock>,
}

pub(super) struct Session {
    pub(super) cell: Arc<SessionCell>,
    pub(super) id: i64,
    pub(super) root: String,
    pub(super) timeout: Duration,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) zk: ZooKeeper,
    pub(super) relay: Arc<Relay>,
    pub(super) keeper: Mutex<Option<Keeper>>,
    /// A lease was taken: heartbeats begin.
    pub(super) held: Notify,
    pub(super) stop: CancellationToken,
    permits: Semaphore,
    identity: Vec<u8>,
}

/// How long one request is waited for.
pub(super) fn limit(session_timeout: Duration) -> Duration {
    session_timeout / 3
}

/// Opens a session on a thread and runtime of its own.
///
/// # Errors
/// [`CoordError::Unavailable`] or [`CoordError::Misconfigured`], naming the servers.
pub(super) async fn open(setup: Setup) -> Result<Arc<Session>> {
    let bound = Duration::from_secs(2) * u32::try_from(setup.hosts.len()).unwrap_or(u32::MAX).min(15) + setup.timeout;
    let servers = setup.hosts.join(", ");
    let stop = CancellationToken::new();
    // Whoever gives up waiting ends the thread as well.
    let given_up = stop.clone().drop_guard();
    let (ready, opened) = oneshot::channel();
    let run = {
        let stop = stop.clone();
        move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(e) => {
                    let _ = ready.send(Err(CoordError::Unavailable(format!("no runtime for the session: {e}"))));
                    return;
                }
            };
            runtime.block_on(async {
                tokio::select! {
                    () = live(setup, stop.clone(), ready) => {}
                    () = stop.cancelled() => {}
                }
            });
            runtime.shutdown_background();
        }
    };
    std::thread::Builder::new()
        .name("zookeeper".into())
        .stack_size(STACK)
        .spawn(run)
        .map_err(|e| CoordError::Unavailable(format!("no thread for the session: {e}")))?;
    match timeout(bound, opened).await {
        Ok(Ok(Ok(session))) => {
            given_up.disarm();
            Ok(session)
        }
        Ok(Ok(Err(e))) => Err(e),
        Ok(Err(_)) => Err(CoordError::Unavailable(format!(
            "the session with {servers} ended while it was opened"
        ))),
        Err(_) => Err(CoordError::Unavailable(format!(
            "no session from {servers} within {} s",
            bound.as_secs()
        ))),
    }
}

/// The life of a session, from the first connection to its end.
async fn live(setup: Setup, stop: CancellationToken, ready: oneshot::Sender<Result<Arc<Session>>>) {
    match begin(setup, stop).await {
        Ok((session, events)) => {
            if ready.send(Ok(session.clone())).is_ok() {
                session.keep(events).await;
            }
        }
        Err(e) => {
            let _ = ready.send(Err(e));
        }
    }
}

async fn begin(setup: Setup, stop: CancellationToken) -> Result<(Arc<Session>, mpsc::UnboundedReceiver<RelayEvent>)> {
    let local = |e: std::io::Error| CoordError::Unavailable(format!("no loopback address for the client: {e}"));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(local)?;
    let address = listener.local_addr().map_err(local)?.to_string();
    let cell = Arc::new(SessionCell::new());
    let (relay, mut events) = Relay::new(setup.hosts, setup.first, setup.timeout, cell.clone());
    tokio::spawn(relay.clone().serve(listener));
    let watcher = {
        let (cell, root) = (cell.clone(), setup.root.clone());
        move |event: WatchedEvent| dispatch(&cell, &root, &event)
    };
    let retry = Duration::from_millis(200);
    let connecting = ZooKeeper::connect_with_retry_time(&address, setup.timeout, watcher, retry);
    let zk = match timeout(limit(setup.timeout), connecting).await {
        Ok(Ok(zk)) => zk,
        Ok(Err(e)) => return Err(CoordError::Unavailable(format!("{address}: {e}"))),
        Err(_) => {
            return Err(CoordError::Unavailable(format!(
                "{address} does not answer: is the loopback interface up?"
            )));
        }
    };
    match events.recv().await {
        Some(RelayEvent::Connected(_)) => {}
        Some(RelayEvent::NoServer(e)) => return Err(e),
        Some(RelayEvent::Over(why)) => return Err(CoordError::Unavailable(why)),
        Some(RelayEvent::Disconnected) | None => return Err(relay.complaint()),
    }
    let Some(id) = relay.session_id() else {
        return Err(relay.complaint());
    };
    let session = Session {
        cell,
        id,
        root: setup.root,
        timeout: setup.timeout,
        clock: setup.clock,
        zk,
        relay,
        keeper: Mutex::new(None),
        held: Notify::new(),
        stop,
        permits: Semaphore::new(IN_FLIGHT),
        identity: setup.identity,
    };
    session.identify().await?;
    tracing::info!(
        session = format!("0x{id:x}"),
        server = session.relay.host(),
        "ZooKeeper session opened"
    );
    Ok((Arc::new(session), events))
}

/// Fires what an event of the server is about.
fn dispatch(cell: &SessionCell, root: &str, event: &WatchedEvent) {
    let Some(path) = event.path.as_deref().and_then(|p| p.strip_prefix(root)) else {
        return;
    };
    match event.event_type {
        WatchedEventType::NodeCreated | WatchedEventType::NodeDataChanged => cell.fire(WatchKind::Node, path),
        WatchedEventType::NodeChildrenChanged => cell.fire(WatchKind::Children, path),
        WatchedEventType::NodeDeleted => {
            cell.fire(WatchKind::Node, path);
            cell.fire(WatchKind::Children, path);
        }
        _ => {}
    }
}

impl Session {
    /// The path at the server.
    pub(super) fn full(&self, path: &str) -> String {
        format!("{}{path}", self.root)
    }

    /// Tells the server who this is: on each connection before anything else.
    async fn identify(&self) -> Result<()> {
        match timeout(limit(self.timeout), self.zk.add_auth("digest", self.identity.clone())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(CoordError::Unavailable(format!(
                "the server did not take the identity: {e}"
            ))),
            Err(_) => Err(CoordError::Unavailable(
                "the server did not answer to the identity".into(),
            )),
        }
    }

    /// Keeps the session until it is lost or let go.
    async fn keep(&self, mut events: mpsc::UnboundedReceiver<RelayEvent>) {
        let mut next = Instant::now() + self.timeout / 5;
        while !self.cell.is_lost() {
            tokio::select! {
                event = events.recv() => match event {
                    Some(RelayEvent::Connected(n)) => self.verify(n).await,
                    Some(RelayEvent::Disconnected) => self.disconnected().await,
                    Some(RelayEvent::Over(why)) => self.lose(&why),
                    Some(RelayEvent::NoServer(e)) => self.lose(&e.to_string()),
                    None => self.lose("the connection's task ended"),
                },
                () = self.held.notified() => next = Instant::now() + self.timeout / 5,
                () = sleep_until(next) => {
                    next = Instant::now() + self.timeout / 5;
                    if self.cell.gate().is_ok() {
                        let n = self.relay.connection();
                        self.judge(self.beat().await, n);
                    }
                    self.check_overdue().await;
                }
            }
        }
        // Closing has the connection still; it cancels when it is done with it.
        if self.relay.is_closing() {
            self.stop.cancelled().await;
        }
    }

    async fn disconnected(&self) {
        tracing::warn!("the connection to ZooKeeper broke");
        if self.keeper.lock().await.is_none() {
            self.lose("the connection broke before the session held a lease");
        }
    }

    /// A new connection stands: the identity first, then a write that proves the session.
    async fn verify(&self, n: u64) {
        if let Err(e) = self.identify().await {
            tracing::info!(error = %e, "the new ZooKeeper connection did not hold");
            self.relay.cut(n);
            return;
        }
        let beat = self.beat().await;
        let proved = matches!(beat, Some(Beat::Acknowledged));
        self.judge(beat, n);
        if proved && self.relay.stands(n) && self.cell.is_suspended() {
            tracing::info!(server = self.relay.host(), "the ZooKeeper session continues");
            self.cell.resume();
        }
        self.check_overdue().await;
    }

    /// One heartbeat, if a lease is held.
    async fn beat(&self) -> Option<Beat> {
        let mut keeper = self.keeper.lock().await;
        match &mut *keeper {
            Some(keeper) => Some(keeper.beat(self).await),
            None => None,
        }
    }

    /// Draws the conclusion from a heartbeat sent on connection `n`.
    fn judge(&self, beat: Option<Beat>, n: u64) {
        match beat {
            None | Some(Beat::Acknowledged) => {}
            Some(Beat::Over(why)) => self.lose(&why),
            Some(Beat::Missed(e)) => {
                tracing::warn!(error = %e, "a heartbeat was not acknowledged: the next server is tried");
                self.relay.cut(n);
            }
        }
    }

    async fn check_overdue(&self) {
        let overdue = self.keeper.lock().await.as_ref().and_then(Keeper::overdue);
        if let Some(why) = overdue {
            self.lose(&why);
        }
    }

    pub(super) fn lose(&self, why: &str) {
        if !self.cell.is_lost() {
            tracing::warn!(why, "the ZooKeeper session is over");
        }
        self.cell.lose(why);
    }

    /// A request of a caller: refused while the session is not live, bounded in time and number.
    pub(super) async fn call<T>(
        &self,
        path: &str,
        write: bool,
        request: impl Future<Output = ZkResult<T>>,
    ) -> Result<T> {
        self.cell.gate()?;
        let Ok(Ok(_permit)) = timeout(limit(self.timeout), self.permits.acquire()).await else {
            return Err(self.cell.refused("too many requests are under way"));
        };
        self.cell.gate()?;
        self.raw(path, write, request).await
    }

    /// A request bounded in time, past the gate.
    async fn raw<T>(&self, path: &str, write: bool, request: impl Future<Output = ZkResult<T>>) -> Result<T> {
        match timeout(limit(self.timeout), request).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(e)) => Err(self.failed(path, write, e)),
            Err(_) => Err(self.lost(path, write)),
        }
    }

    /// The reply did not come.
    fn lost(&self, path: &str, write: bool) -> CoordError {
        if write {
            CoordError::Unknown(path.to_owned())
        } else {
            self.cell.refused(&format!("no reply for {path}"))
        }
    }

    fn failed(&self, path: &str, write: bool, e: ZkError) -> CoordError {
        let named = path.to_owned();
        match e {
            ZkError::NoNode => CoordError::NotFound(named),
            ZkError::NodeExists => CoordError::Exists(named),
            ZkError::BadVersion => CoordError::BadVersion(named),
            ZkError::NotEmpty => CoordError::NotEmpty(named),
            ZkError::NoAuth | ZkError::AuthFailed => CoordError::NoAuth(named),
            ZkError::NoChildrenForEphemerals | ZkError::BadArguments => CoordError::Invalid(named),
            // Only where the connection has no identity: such a create was refused.
            ZkError::InvalidACL | ZkError::NotReadOnly => self.cell.refused(&e.to_string()),
            ZkError::SessionExpired | ZkError::SessionMoved => {
                let why = if e == ZkError::SessionMoved {
                    "it moved to another server"
                } else {
                    "it expired"
                };
                self.lose(why);
                CoordError::SessionLost(why.into())
            }
            _ => self.lost(path, write),
        }
    }
}

impl HeartbeatPort for Session {
    async fn stat(&self, path: &str) -> Result<Stat> {
        let full = self.full(path);
        match self.raw(path, false, self.zk.exists(&full, false)).await? {
            Some(found) => Ok(stat(&found)),
            None => Err(CoordError::NotFound(path.to_owned())),
        }
    }

    async fn write(&self, path: &str, data: &[u8], version: i32) -> Result<Stat> {
        let full = self.full(path);
        let written = self
            .raw(path, true, self.zk.set_data(&full, data.to_vec(), Some(version)))
            .await?;
        Ok(stat(&written))
    }
}

/// The part of a node's stat that the coordinator's users see.
pub(super) fn stat(s: &zookeeper_async::Stat) -> Stat {
    Stat {
        version: s.version,
        created: s.czxid,
        modified: s.mzxid,
        owner: s.ephemeral_owner,
    }
}
