//! The client's side: the same rules as on real ZooKeeper (gate, time limits, heartbeat, verification after a
//! reconnect).
//!
//! Its driver runs in a future of the client, handed to the client's spawner; it must never be spawned elsewhere, or a
//! simulated client that is stopped would go on heartbeating.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use tokio::sync::{Mutex, Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::keeper::{Beat, HeartbeatPort, Keeper};
use super::super::path::{check_path, check_value, check_version};
use super::super::session::{SessionCell, WatchKind};
use super::super::{Connector, CoordError, Coordinator, CreateMode, Lease, Result, SessionState, Stat, Watch};
use super::server::Peer;
use super::tree::{Op, Reply};
use super::{MemoryServer, limit};
use crate::platform::Clock;

/// Runs a client's own tasks.
pub type Spawner = Arc<dyn Fn(BoxFuture<'static, ()>) + Send + Sync>;

/// How soon a broken connection is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// Opens sessions on a [`MemoryServer`] under a client's name.
pub struct MemoryConnector {
    server: MemoryServer,
    client: String,
    clock: Arc<dyn Clock>,
    timeout: Duration,
    spawner: Spawner,
}

impl MemoryConnector {
    /// A connector whose sessions' heartbeats run as Tokio tasks.
    pub fn new(server: &MemoryServer, client: &str, clock: Arc<dyn Clock>, session_timeout: Duration) -> Self {
        let spawner: Spawner = Arc::new(|task| {
            tokio::spawn(task);
        });
        MemoryConnector {
            server: server.clone(),
            client: client.to_owned(),
            clock,
            timeout: session_timeout,
            spawner,
        }
    }

    /// Runs the sessions' heartbeats with `spawner`, so that whoever stops the client's futures stops them too.
    #[must_use]
    pub fn with_spawner(self, spawner: Spawner) -> Self {
        MemoryConnector { spawner, ..self }
    }
}

#[async_trait]
impl Connector for MemoryConnector {
    async fn connect(&self) -> Result<Arc<dyn Coordinator>> {
        self.server.serve();
        let cell = Arc::new(SessionCell::new());
        let broken = Arc::new(Notify::new());
        let until = Instant::now() + limit(self.timeout);
        let id = loop {
            let peer = Peer {
                cell: cell.clone(),
                broken: broken.clone(),
            };
            match self
                .server
                .with(|s, now| s.open(&self.client, self.timeout, peer, now))?
            {
                Some(id) => break id,
                None if Instant::now() < until => tokio::time::sleep(RETRY).await,
                None => return Err(CoordError::Unavailable("memory: no answer".into())),
            }
        };
        let session = Arc::new(MemorySession {
            server: self.server.clone(),
            client: self.client.clone(),
            clock: self.clock.clone(),
            timeout: self.timeout,
            id,
            cell,
            broken,
            keeper: Mutex::new(None),
            stop: CancellationToken::new(),
        });
        (self.spawner)(Box::pin(session.clone().drive()));
        Ok(Arc::new(MemoryCoordinator(session)))
    }

    fn session_timeout(&self) -> Duration {
        self.timeout
    }
}

struct MemorySession {
    server: MemoryServer,
    client: String,
    clock: Arc<dyn Clock>,
    timeout: Duration,
    id: i64,
    cell: Arc<SessionCell>,
    broken: Arc<Notify>,
    keeper: Mutex<Option<Keeper>>,
    stop: CancellationToken,
}

impl MemorySession {
    /// Sends one request and waits for its reply, past the gate.
    async fn call(&self, op: Op) -> Result<Reply> {
        let (path, write) = (op.path().to_owned(), op.is_write());
        let lost = || {
            if write {
                CoordError::Unknown(path.clone())
            } else {
                self.cell.refused("memory: no reply")
            }
        };
        let answer = async {
            let Some(ticket) = self.server.with(|s, now| s.submit(self.id, &self.client, op, now)) else {
                self.broke();
                return Some(Err(self.cell.refused("memory: no connection")));
            };
            let Some(reply) = ticket.reply else {
                return std::future::pending().await;
            };
            let reply = reply.await;
            if !ticket.after.is_zero() {
                tokio::time::sleep(ticket.after).await;
            }
            reply.ok()
        };
        match tokio::time::timeout(limit(self.timeout), answer).await {
            Ok(Some(result)) => result,
            Ok(None) | Err(_) => Err(lost()),
        }
    }

    /// Keeps the session until it ends.
    async fn drive(self: Arc<Self>) {
        let mut next = Instant::now() + self.timeout / 5;
        loop {
            // Biased, here and below: a seed has to replay.
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                () = self.broken.notified() => {}
                () = tokio::time::sleep_until(next) => {}
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                wait = self.step() => next = Instant::now() + wait,
            }
            if self.cell.is_lost() {
                return;
            }
        }
    }

    /// One heartbeat, or one attempt to connect again; returns the time until the next.
    async fn step(&self) -> Duration {
        let state = self.cell.state().borrow().clone();
        match state {
            SessionState::Lost(_) => Duration::ZERO,
            SessionState::Live => {
                let missed = match self.beat().await {
                    Some(Beat::Over(why)) => return self.lose(&why),
                    Some(Beat::Acknowledged) => false,
                    Some(Beat::Missed(_)) => true,
                    None => self.call(Op::Ping).await.is_err(),
                };
                if missed {
                    self.broke();
                }
                self.timeout / 5
            }
            SessionState::Suspended => self.resume().await,
        }
    }

    async fn resume(&self) -> Duration {
        // The keeper is asked only between heartbeats; who holds the lock is verifying it or beginning to hold the
        // lease.
        {
            let keeper = self.keeper.lock().await;
            match &*keeper {
                None => return self.lose("the connection broke before the session held a lease"),
                Some(keeper) => {
                    if let Some(why) = keeper.overdue() {
                        return self.lose(&why);
                    }
                }
            }
        }
        match self.server.with(|s, now| s.attach(self.id, &self.client, now)) {
            Err(CoordError::SessionLost(why)) => return self.lose(&why),
            Err(_) | Ok(false) => return RETRY,
            Ok(true) => {}
        }
        match self.beat().await {
            Some(Beat::Over(why)) => self.lose(&why),
            Some(Beat::Acknowledged) => {
                self.cell.resume();
                self.timeout / 5
            }
            Some(Beat::Missed(_)) | None => {
                self.server.with(|s, _| s.detach(self.id));
                RETRY
            }
        }
    }

    async fn beat(&self) -> Option<Beat> {
        let mut keeper = self.keeper.lock().await;
        match &mut *keeper {
            Some(keeper) => Some(keeper.beat(self).await),
            None => None,
        }
    }

    /// The connection is broken, as far as this side can tell.
    fn broke(&self) {
        self.cell.suspend();
        self.broken.notify_one();
        self.server.with(|s, _| s.detach(self.id));
    }

    fn lose(&self, why: &str) -> Duration {
        self.cell.lose(why);
        self.server.with(|s, _| s.detach(self.id));
        Duration::ZERO
    }
}

impl HeartbeatPort for MemorySession {
    async fn stat(&self, path: &str) -> Result<Stat> {
        match self
            .call(Op::Read {
                path: path.to_owned(),
                watch: false,
            })
            .await?
        {
            Reply::Node(Some((_, stat))) => Ok(stat),
            _ => Err(CoordError::NotFound(path.to_owned())),
        }
    }

    async fn write(&self, path: &str, data: &[u8], version: i32) -> Result<Stat> {
        match self
            .call(Op::Set {
                path: path.to_owned(),
                data: data.to_vec(),
                version,
            })
            .await?
        {
            Reply::Stat(stat) => Ok(stat),
            _ => Err(CoordError::Invalid(path.to_owned())),
        }
    }
}

struct MemoryCoordinator(Arc<MemorySession>);

impl Drop for MemoryCoordinator {
    fn drop(&mut self) {
        self.abandon();
    }
}

impl MemoryCoordinator {
    async fn ask(&self, op: Op) -> Result<Reply> {
        check_path(op.path())?;
        self.0.cell.gate()?;
        self.0.call(op).await
    }
}

/// A reply of another kind than was asked for; the server does not send such.
fn odd<T>(path: &str) -> Result<T> {
    Err(CoordError::Invalid(path.to_owned()))
}

#[async_trait]
impl Coordinator for MemoryCoordinator {
    fn state(&self) -> watch::Receiver<SessionState> {
        self.0.cell.state()
    }

    fn lease(&self) -> watch::Receiver<Lease> {
        self.0.cell.lease()
    }

    fn session_id(&self) -> Option<i64> {
        Some(self.0.id)
    }

    async fn create(&self, path: &str, data: &[u8], mode: CreateMode) -> Result<(String, Stat)> {
        check_value(path, data)?;
        match self
            .ask(Op::Create {
                path: path.to_owned(),
                data: data.to_vec(),
                mode,
            })
            .await?
        {
            Reply::Created(path, stat) => Ok((path, stat)),
            _ => odd(path),
        }
    }

    async fn read(&self, path: &str) -> Result<(Vec<u8>, Stat)> {
        match self
            .ask(Op::Read {
                path: path.to_owned(),
                watch: false,
            })
            .await?
        {
            Reply::Node(Some(node)) => Ok(node),
            Reply::Node(None) => Err(CoordError::NotFound(path.to_owned())),
            _ => odd(path),
        }
    }

    async fn read_and_watch(&self, path: &str) -> Result<(Option<(Vec<u8>, Stat)>, Watch)> {
        check_path(path)?;
        let watch = self.0.cell.watch(WatchKind::Node, path);
        match self
            .ask(Op::Read {
                path: path.to_owned(),
                watch: true,
            })
            .await?
        {
            Reply::Node(node) => Ok((node, watch)),
            _ => odd(path),
        }
    }

    async fn compare_and_set(&self, path: &str, data: &[u8], version: i32) -> Result<Stat> {
        check_value(path, data)?;
        check_version(path, version)?;
        match self
            .ask(Op::Set {
                path: path.to_owned(),
                data: data.to_vec(),
                version,
            })
            .await?
        {
            Reply::Stat(stat) => Ok(stat),
            _ => odd(path),
        }
    }

    async fn delete(&self, path: &str, version: i32) -> Result<()> {
        check_version(path, version)?;
        self.ask(Op::Delete {
            path: path.to_owned(),
            version,
        })
        .await
        .map(drop)
    }

    async fn children(&self, path: &str) -> Result<Vec<String>> {
        match self
            .ask(Op::Children {
                path: path.to_owned(),
                watch: false,
            })
            .await?
        {
            Reply::Names(names) => Ok(names),
            _ => odd(path),
        }
    }

    async fn children_and_watch(&self, path: &str) -> Result<(Vec<String>, Watch)> {
        check_path(path)?;
        let watch = self.0.cell.watch(WatchKind::Children, path);
        match self
            .ask(Op::Children {
                path: path.to_owned(),
                watch: true,
            })
            .await?
        {
            Reply::Names(names) => Ok((names, watch)),
            _ => odd(path),
        }
    }

    async fn hold_lease(&self, path: &str) -> Result<()> {
        check_path(path)?;
        let session = &*self.0;
        let mut held = session.keeper.lock().await;
        session.cell.gate()?;
        if let Some(keeper) = &*held {
            let same = keeper.path() == path;
            return if same {
                Ok(())
            } else {
                Err(CoordError::Invalid(format!("{path}: a lease is held already")))
            };
        }
        let mut keeper = Keeper::new(
            session.cell.clone(),
            session.clock.clone(),
            session.id,
            session.timeout,
            path,
        );
        match keeper.beat(session).await {
            Beat::Acknowledged => {
                *held = Some(keeper);
                Ok(())
            }
            Beat::Missed(e) => Err(e),
            Beat::Over(why) => {
                session.lose(&why);
                Err(CoordError::SessionLost(why))
            }
        }
    }

    async fn confirm(&self) -> Result<()> {
        let session = &*self.0;
        let mut held = session.keeper.lock().await;
        session.cell.gate()?;
        let Some(keeper) = &mut *held else {
            return Err(CoordError::Invalid("a confirmation without a lease".to_owned()));
        };
        match keeper.beat(session).await {
            Beat::Acknowledged => Ok(()),
            Beat::Missed(e) => Err(e),
            Beat::Over(why) => {
                session.lose(&why);
                Err(CoordError::SessionLost(why))
            }
        }
    }

    async fn close(&self) {
        let session = &*self.0;
        session.stop.cancel();
        // The lease ends here before the server is told, whatever comes of that.
        session.cell.lose("closed");
        session.server.with(|s, now| s.close(session.id, &session.client, now));
    }

    fn abandon(&self) {
        self.0.stop.cancel();
        self.0.lose("abandoned");
    }
}
