//! The server's side: sessions, watches, requests on their way, and what of it is due when.
//!
//! It must never run anything of a client, and never iterate over anything without an order.

mod outages;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::super::session::SessionCell;
use super::super::{CoordError, Result};
use super::faults::{FaultPlan, Faults, Outcome};
use super::tree::{Event, Op, Reply, Tree};
use super::{Commit, Done};

/// A client's end of a session, as the server may touch it: it only tells that the connection broke or an event came.
pub(super) struct Peer {
    pub(super) cell: Arc<SessionCell>,
    /// Tells the client's driver that the connection broke.
    pub(super) broken: Arc<Notify>,
}

/// A request's reply to come (`None`: never), and how long it is on its way once sent.
pub(super) struct Ticket {
    pub(super) reply: Option<oneshot::Receiver<Result<Reply>>>,
    pub(super) after: Duration,
}

struct Session {
    client: String,
    timeout: Duration,
    heard: Instant,
    /// Number of the connection, if there is one.
    connection: Option<u64>,
    peer: Peer,
    /// Requests keep their order on a connection.
    last_due: Instant,
    /// How far its server lags behind, and the last transaction the client has certainly seen.
    lag: Duration,
    seen: i64,
    /// Events its server has not come to, or that cannot be delivered at the moment.
    events: VecDeque<(Instant, i64, Event)>,
}

struct Request {
    session: i64,
    /// The connection it was sent on; `None` for a delayed packet that outlives its connection.
    connection: Option<u64>,
    op: Op,
    reply: Option<oneshot::Sender<Result<Reply>>>,
}

pub(super) struct State {
    pub(super) tree: Tree,
    pub(super) faults: Faults,
    pub(super) frozen: bool,
    pub(super) served: bool,
    /// When the server's task wakes next.
    pub(super) armed: Option<Instant>,
    down: bool,
    refused: BTreeSet<String>,
    silent: BTreeSet<String>,
    sessions: BTreeMap<i64, Session>,
    counter: i64,
    watches: BTreeMap<Event, BTreeSet<i64>>,
    queue: BTreeMap<(Instant, i64), Request>,
    /// Requests of partitioned clients; they go on their way when the partition heals, if their connection lasts.
    held: Vec<Request>,
    /// When which transaction was committed, as far back as some reader may lag.
    commits: VecDeque<(Instant, i64)>,
    max_lag: Duration,
    /// Is told of every transaction.
    pub(super) observer: Option<Observer>,
}

/// Is told of every transaction as it is made.
pub(super) type Observer = Box<dyn FnMut(&Commit<'_>) + Send>;

impl State {
    pub(super) fn new(seed: u64, plan: FaultPlan) -> State {
        let mut state = State {
            tree: Tree::default(),
            faults: Faults::new(seed, FaultPlan::default()),
            frozen: false,
            served: false,
            armed: None,
            down: false,
            refused: BTreeSet::new(),
            silent: BTreeSet::new(),
            sessions: BTreeMap::new(),
            counter: 0,
            watches: BTreeMap::new(),
            queue: BTreeMap::new(),
            held: Vec::new(),
            commits: VecDeque::new(),
            max_lag: Duration::ZERO,
            observer: None,
        };
        state.set_plan(plan);
        state
    }

    pub(super) fn set_plan(&mut self, plan: FaultPlan) {
        self.max_lag = self.max_lag.max(plan.read_lag.end);
        if self.max_lag > Duration::ZERO {
            self.tree.keep_history();
        }
        self.faults.plan = plan;
    }

    pub(super) fn sessions(&self) -> BTreeMap<i64, String> {
        self.sessions.iter().map(|(id, s)| (*id, s.client.clone())).collect()
    }

    // --- connections -------------------------------------------------------------------------------------------------

    /// Why the client cannot reach the server at the moment; `None` where it hears nothing at all.
    fn unreachable(&self, client: &str) -> Option<&'static str> {
        if self.down {
            Some("connection refused")
        } else if self.refused.contains(client) {
            Some("connection reset")
        } else {
            None
        }
    }

    /// Whether packets of the client go nowhere.
    fn mute(&self, client: &str) -> bool {
        self.frozen || self.silent.contains(client)
    }

    /// Opens a session. `Ok(None)` where no answer comes at the moment.
    pub(super) fn open(&mut self, client: &str, timeout: Duration, peer: Peer, now: Instant) -> Result<Option<i64>> {
        if let Some(why) = self.unreachable(client) {
            return Err(CoordError::Unavailable(format!("memory: {why}")));
        }
        if self.mute(client) {
            return Ok(None);
        }
        let id = 0x1_0000 + self.next();
        let connection = Some(self.next().unsigned_abs());
        let session = Session {
            client: client.to_owned(),
            timeout,
            heard: now,
            connection,
            peer,
            last_due: now,
            lag: self.faults.lag(),
            seen: self.tree.zxid(),
            events: VecDeque::new(),
        };
        self.sessions.insert(id, session);
        Ok(Some(id))
    }

    /// Connects a session again. `Ok(false)` where no answer comes at the moment.
    pub(super) fn attach(&mut self, id: i64, client: &str, now: Instant) -> Result<bool> {
        if let Some(why) = self.unreachable(client) {
            return Err(CoordError::Unavailable(format!("memory: {why}")));
        }
        if self.mute(client) {
            return Ok(false);
        }
        let (connection, lag) = (self.next().unsigned_abs(), self.faults.lag());
        self.drop_replies(id);
        let Some(session) = self.sessions.get_mut(&id) else {
            return Err(CoordError::SessionLost("the session expired".into()));
        };
        session.connection = Some(connection);
        session.heard = now;
        session.last_due = now;
        session.lag = lag;
        session.events.clear();
        Ok(true)
    }

    /// Breaks a session's connection: replies and watches of it are lost.
    pub(super) fn detach(&mut self, id: i64) {
        self.drop_replies(id);
        for watchers in self.watches.values_mut() {
            watchers.remove(&id);
        }
        self.watches.retain(|_, watchers| !watchers.is_empty());
        if let Some(session) = self.sessions.get_mut(&id) {
            session.connection = None;
            session.events.clear();
            if !self.silent.contains(&session.client) {
                session.peer.cell.suspend();
                session.peer.broken.notify_one();
            }
        }
    }

    fn drop_replies(&mut self, id: i64) {
        for request in self.queue.values_mut().filter(|r| r.session == id) {
            request.reply = None;
        }
        self.held.retain(|r| r.session != id);
    }

    /// Ends a session: its ephemerals go.
    pub(super) fn end(&mut self, id: i64, now: Instant) {
        self.detach(id);
        if let Some(session) = self.sessions.remove(&id) {
            let mut events = Vec::new();
            let gone = self.tree.end_session(id, &mut events);
            self.observe(id, &session.client, Done::SessionEnded { gone: &gone });
            self.committed(events, None, now);
        }
    }

    /// Closes a session at its client's wish, if the wish gets through.
    pub(super) fn close(&mut self, id: i64, client: &str, now: Instant) {
        if self.unreachable(client).is_none() && !self.mute(client) {
            self.end(id, now);
        } else {
            self.detach(id);
        }
    }

    // --- requests ----------------------------------------------------------------------------------------------------

    /// Takes a request; `None` if the client's connection turns out to be broken.
    pub(super) fn submit(&mut self, id: i64, client: &str, op: Op, now: Instant) -> Option<Ticket> {
        let (tx, reply) = oneshot::channel();
        let reply = Some(reply);
        let Some((connection, last_due)) = self.sessions.get(&id).and_then(|s| Some((s.connection?, s.last_due)))
        else {
            // Cut off, the client cannot know that the server has given it up.
            return self.mute(client).then_some(Ticket {
                reply: None,
                after: Duration::ZERO,
            });
        };
        let fate = self.faults.draw(client, op.path(), op.is_write());
        let mut request = Request {
            session: id,
            connection: Some(connection),
            op,
            reply: Some(tx),
        };
        let mut due = last_due.max(now + fate.before);
        match fate.outcome {
            // A reply that is dropped is one that never came.
            Outcome::RequestLost => {
                return Some(Ticket {
                    reply,
                    after: fate.before,
                });
            }
            Outcome::ReplyLost => request.reply = None,
            Outcome::Late(by) => {
                request.reply = None;
                request.connection = None;
                due = now + by;
            }
            Outcome::Delivered => {}
        }
        if request.connection.is_some()
            && let Some(session) = self.sessions.get_mut(&id)
        {
            session.last_due = due;
        }
        if self.silent.contains(client) {
            self.held.push(request);
        } else {
            self.enqueue(due, request);
        }
        Some(Ticket {
            reply,
            after: fate.after,
        })
    }

    fn enqueue(&mut self, due: Instant, request: Request) {
        let n = self.next();
        self.queue.insert((due, n), request);
    }

    /// Does everything that is due, in the order of its time.
    pub(super) fn run_due(&mut self, now: Instant) {
        while !self.frozen && !self.down {
            let request = self.queue.first_key_value().map(|(key, _)| *key);
            let expiry = self.sessions.iter().map(|(id, s)| (s.heard + s.timeout, *id)).min();
            match (request, expiry) {
                (Some(key), _) if key.0 <= now && expiry.is_none_or(|(at, _)| key.0 <= at) => {
                    if let Some(request) = self.queue.remove(&key) {
                        self.execute(request, now);
                    }
                }
                (_, Some((at, id))) if at <= now => self.end(id, now),
                _ => break,
            }
        }
        if !self.frozen && !self.down {
            self.deliver(now);
        }
        self.forget(now);
    }

    /// When something is due next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        if self.frozen || self.down {
            return None;
        }
        let request = self.queue.keys().next().map(|(due, _)| *due);
        let sessions = self.sessions.values();
        let expiry = sessions.clone().map(|s| s.heard + s.timeout);
        let event = sessions
            .filter(|s| !self.silent.contains(&s.client))
            .filter_map(|s| s.events.front().map(|e| e.0));
        request.into_iter().chain(expiry).chain(event).min()
    }

    fn execute(&mut self, request: Request, now: Instant) {
        let Request {
            session: id,
            connection,
            op,
            reply,
        } = request;
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        if self.silent.contains(&session.client) && connection.is_some() {
            // The partition began while it was on its way.
            self.held.push(Request {
                session: id,
                connection,
                op,
                reply,
            });
            return;
        }
        let current = session.connection.is_some() && (connection.is_none() || session.connection == connection);
        if current {
            session.heard = now;
        }
        let result = if op.is_write() {
            let mut events = Vec::new();
            let client = session.client.clone();
            let result = self.tree.write(&op, id, &mut events);
            if let Ok(reply) = &result {
                let done = match (&op, reply) {
                    (Op::Create { data, .. }, Reply::Created(path, stat)) => Some(Done::Created {
                        path,
                        data,
                        owner: stat.owner,
                    }),
                    (Op::Set { path, data, .. }, _) => Some(Done::Set { path, data }),
                    (Op::Delete { path, .. }, _) => Some(Done::Deleted { path }),
                    _ => None,
                };
                if let Some(done) = done {
                    self.observe(id, &client, done);
                }
            }
            self.committed(events, Some(id), now);
            result
        } else {
            if current && let Some(kind) = op.watch() {
                self.watches.entry((kind, op.path().to_owned())).or_default().insert(id);
            }
            self.read(id, &op, now)
        };
        if let Some(reply) = reply {
            let _ = reply.send(result);
        }
    }

    fn observe(&mut self, session: i64, client: &str, done: Done<'_>) {
        if let Some(observer) = &mut self.observer {
            observer(&Commit { session, client, done });
        }
    }

    /// Answers a read from what the session's server has come to.
    fn read(&mut self, id: i64, op: &Op, now: Instant) -> Result<Reply> {
        let newest = self.tree.zxid();
        let Some(session) = self.sessions.get_mut(&id) else {
            return Err(CoordError::SessionLost("the session expired".into()));
        };
        let view = if session.lag.is_zero() {
            newest
        } else {
            let reached = self.commits.iter().rev().find(|(at, _)| *at + session.lag <= now);
            session.seen.max(reached.map_or(0, |(_, zxid)| *zxid))
        };
        session.seen = session.seen.max(view);
        // The watch sits on a server that has yet to come to these changes: they will fire it.
        if let Some(kind) = op.watch()
            && view < newest
            && session.connection.is_some()
        {
            let behind = self.commits.iter().find(|(_, zxid)| *zxid > view);
            let due = behind.map_or(now, |(at, _)| *at) + session.lag;
            session.events.push_back((due, view + 1, (kind, op.path().to_owned())));
        }
        self.deliver(now);
        self.tree.read(op, view)
    }

    // --- events ------------------------------------------------------------------------------------------------------

    /// Sends out the events of the transaction just made; its writer has seen everything up to it.
    fn committed(&mut self, events: Vec<Event>, writer: Option<i64>, now: Instant) {
        let zxid = self.tree.zxid();
        if self.max_lag > Duration::ZERO && self.commits.back().is_none_or(|(_, last)| *last < zxid) {
            self.commits.push_back((now, zxid));
        }
        for event in events {
            for id in self.watches.remove(&event).unwrap_or_default() {
                if let Some(session) = self.sessions.get_mut(&id).filter(|s| s.connection.is_some()) {
                    session.events.push_back((now + session.lag, zxid, event.clone()));
                }
            }
        }
        if let Some(session) = writer.and_then(|id| self.sessions.get_mut(&id)) {
            session.seen = session.seen.max(zxid);
        }
        self.deliver(now);
    }

    /// Hands over the events that have come, and those whose change the client has seen otherwise.
    fn deliver(&mut self, now: Instant) {
        for session in self.sessions.values_mut() {
            if session.events.is_empty() || self.silent.contains(&session.client) {
                continue;
            }
            for (due, zxid, event) in std::mem::take(&mut session.events) {
                if due <= now || zxid <= session.seen {
                    session.seen = session.seen.max(zxid);
                    session.peer.cell.fire(event.0, &event.1);
                } else {
                    session.events.push_back((due, zxid, event));
                }
            }
        }
    }

    /// Forgets the past that nobody can lag behind any more.
    fn forget(&mut self, now: Instant) {
        while self.commits.len() > 1 && self.commits.get(1).is_some_and(|(at, _)| *at + self.max_lag <= now) {
            self.commits.pop_front();
        }
        if self.commits.len() > 64
            && let Some((_, horizon)) = self.commits.front()
        {
            self.tree.forget(*horizon);
        }
    }

    fn next(&mut self) -> i64 {
        self.counter += 1;
        self.counter
    }
}
