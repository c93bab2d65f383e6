//! ZooKeeper in memory, for tests: its semantics on Tokio's clock (which may be paused), and faults on demand.
//!
//! The server side depends on no client: sessions expire, delayed writes arrive and events go out by the server's own
//! task, while a client's heartbeats run only inside the futures of that client, so that a simulation can stop one
//! client whole. It must never be more lenient than the real one: what breaks a session there, breaks it here.

mod client;
mod faults;
mod server;
#[cfg(test)]
mod soak;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

pub use client::{MemoryConnector, Spawner};
pub use faults::{Fault, FaultPlan};

use super::Stat;
use server::State;

/// An in-memory ZooKeeper. A cheap handle: clones are the same server.
///
/// It has to be used inside a Tokio runtime with time enabled; the first session starts the server's task there.
#[derive(Clone)]
pub struct MemoryServer(Arc<Inner>);

/// A transaction, as an observer is told of it.
#[derive(Debug)]
pub struct Commit<'a> {
    /// The session whose request or end it was.
    pub session: i64,
    /// That session's client.
    pub client: &'a str,
    /// What was done.
    pub done: Done<'a>,
}

/// What a transaction did. Requests that fail make none.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Done<'a> {
    /// A node was created; `owner` is its session if it is ephemeral, otherwise 0.
    Created { path: &'a str, data: &'a [u8], owner: i64 },
    /// A value was replaced.
    Set { path: &'a str, data: &'a [u8] },
    /// A node was deleted by a request.
    Deleted { path: &'a str },
    /// A session ended, and these ephemerals with it.
    SessionEnded { gone: &'a [String] },
}

struct Inner {
    state: Mutex<State>,
    /// Wakes the server's task when something is due earlier than it knows.
    wake: Arc<Notify>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.wake.notify_one();
    }
}

impl Default for MemoryServer {
    fn default() -> Self {
        MemoryServer::new()
    }
}

impl std::fmt::Debug for MemoryServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryServer")
            .field("zxid", &self.zxid())
            .finish_non_exhaustive()
    }
}

impl MemoryServer {
    /// A server without faults or latency.
    pub fn new() -> MemoryServer {
        MemoryServer::with_faults(0, FaultPlan::default())
    }

    /// A server whose random faults follow from `seed`.
    pub fn with_faults(seed: u64, plan: FaultPlan) -> MemoryServer {
        let wake = Arc::new(Notify::new());
        MemoryServer(Arc::new(Inner {
            state: Mutex::new(State::new(seed, plan)),
            wake,
        }))
    }

    /// Replaces the plan of random faults; the generator goes on.
    pub fn set_plan(&self, plan: FaultPlan) {
        self.with(|s, _| s.set_plan(plan));
    }

    /// Orders one fault for the next write of `client` whose path contains `path` (heartbeats are writes too).
    pub fn inject(&self, client: &str, path: &str, fault: Fault) {
        self.with(|s, _| s.faults.inject(client, path, fault));
    }

    /// How many faults ordered for `client` wait for a request to befall.
    pub fn ordered(&self, client: &str) -> usize {
        self.with(|s, _| s.faults.ordered(client))
    }

    /// Expires the client's sessions now, as if their timeout had passed at the server.
    pub fn expire(&self, client: &str) {
        self.with(|s, now| s.expire_client(client, now));
    }

    /// Resets the client's connections and refuses new ones until [`MemoryServer::reconnect`]; the client notices at
    /// once.
    pub fn disconnect(&self, client: &str) {
        self.with(|s, _| s.disconnect(client));
    }

    /// Loses every packet from and to the client until [`MemoryServer::reconnect`]; the client notices by its time
    /// limits.
    pub fn partition(&self, client: &str) {
        self.with(|s, _| s.partition(client));
    }

    /// Ends what [`MemoryServer::disconnect`] or [`MemoryServer::partition`] began.
    pub fn reconnect(&self, client: &str) {
        self.with(|s, now| s.reconnect(client, now));
    }

    /// Stops the server as SIGSTOP does: nothing is answered and nothing expires until [`MemoryServer::thaw`].
    pub fn freeze(&self) {
        self.with(|s, _| s.frozen = true);
    }

    /// Continues a frozen server: what fell due meanwhile happens now, in order.
    pub fn thaw(&self) {
        self.with(|s, _| s.frozen = false);
    }

    /// Kills the server: connections break, requests on their way are lost. What was written stays.
    pub fn crash(&self) {
        self.with(|s, _| s.crash());
    }

    /// Starts a killed server again: every session that it knew has its whole timeout before it.
    pub fn recover(&self) {
        self.with(State::recover);
    }

    /// Every node: path inside the root, value and stat. For assertions.
    pub fn dump(&self) -> BTreeMap<String, (Vec<u8>, Stat)> {
        self.with(|s, _| s.tree.dump())
    }

    /// Has `observer` told of every transaction from now on, as it is made. It must not call the server.
    pub fn observe(&self, observer: impl FnMut(&Commit<'_>) + Send + 'static) {
        self.with(|s, _| s.observer = Some(Box::new(observer)));
    }

    /// The last transaction's number.
    pub fn zxid(&self) -> i64 {
        self.with(|s, _| s.tree.zxid())
    }

    /// The ids of the sessions alive at the server, with the names of their clients.
    pub fn sessions(&self) -> BTreeMap<i64, String> {
        self.with(|s, _| s.sessions())
    }

    /// Runs `f` on the state at the present time, with what was due before already done.
    fn with<T>(&self, f: impl FnOnce(&mut State, Instant) -> T) -> T {
        let now = Instant::now();
        let mut state = self.lock();
        state.run_due(now);
        let out = f(&mut state, now);
        state.run_due(now);
        let due = state.next_due();
        let earlier = due.is_some_and(|due| state.armed.is_none_or(|armed| due < armed));
        drop(state);
        if earlier {
            self.0.wake.notify_one();
        }
        out
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    /// Starts the server's task, once.
    fn serve(&self) {
        if std::mem::replace(&mut self.lock().served, true) {
            return;
        }
        let inner = Arc::downgrade(&self.0);
        let wake = self.0.wake.clone();
        tokio::spawn(async move {
            loop {
                let due = {
                    let Some(inner) = inner.upgrade() else { return };
                    let mut state = lock(&inner);
                    state.run_due(Instant::now());
                    state.armed = state.next_due();
                    state.armed
                };
                match due {
                    Some(due) => {
                        let _ = tokio::time::timeout_at(due, wake.notified()).await;
                    }
                    None => wake.notified().await,
                }
            }
        });
    }
}

fn lock(inner: &Inner) -> MutexGuard<'_, State> {
    // A panic of a test under the lock must not hide behind a poisoned mutex.
    inner.state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long a client waits for a reply before it takes the connection for broken.
fn limit(session_timeout: Duration) -> Duration {
    session_timeout / 3
}
