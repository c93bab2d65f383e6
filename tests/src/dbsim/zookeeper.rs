//! ZooKeeper as its clients meet it: sessions that expire, compare-and-set, followers that serve old values, answers that are
//! lost after the request was carried out.

use std::rc::Rc;

use ha_core::database::record::GroupState;

use super::daemon::{Reply, Wake};
use super::world::{Event, MS, N, Time, World};

/// Number of a session.
pub type SessionId = u32;

/// The record with what fences it.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Term of the master that wrote it.
    pub term: u64,
    /// Version, for compare-and-set.
    pub version: u64,
    /// The value.
    pub state: Rc<GroupState>,
}

#[derive(Debug)]
struct Session {
    owner: N,
    heard: Time,
    alive: bool,
    /// Its server lags so much behind the leader.
    lag: Time,
    /// Its server has applied everything up to here: it answered a write then.
    synced: Time,
}

/// What a request asks.
#[derive(Debug, Clone)]
pub enum Ask {
    /// A new session. What this machine registered before is deleted.
    Connect {
        /// The life of the daemon.
        life: u32,
    },
    /// The registration, in a session that has none yet.
    Register,
    /// The heartbeat: a write to the own lease.
    Heartbeat {
        /// When it was sent, on the sender's clock.
        sent: Time,
    },
    /// A read of everything a daemon looks at, by a server that may lag.
    Read,
    /// An acknowledged write, then a read (protocol R2).
    Fresh,
    /// Raise the term.
    RaiseTerm,
    /// Compare-and-set of the record.
    Set {
        /// Number by which the answer is told.
        number: u64,
        /// Expected version.
        version: u64,
        /// The writer's term.
        term: u64,
        /// The value.
        state: Rc<GroupState>,
    },
    /// The session is given up.
    Close,
}

/// A request on its way.
#[derive(Debug)]
pub struct Request {
    /// Who asks.
    pub from: N,
    /// The life of the daemon that asks.
    pub life: u32,
    /// In which session; 0 for a new one.
    pub session: SessionId,
    /// What.
    pub ask: Ask,
}

/// What a read sees.
#[derive(Debug, Clone)]
pub struct View {
    /// The record.
    pub record: Stored,
    /// Sessions that hold registrations, by machine.
    pub registered: Rc<Vec<Option<SessionId>>>,
    /// The first in the line of candidates.
    pub leader: Option<SessionId>,
    /// The term.
    pub term: u64,
}

/// The servers.
pub struct ZooKeeper {
    /// Reasons for which they answer nobody.
    pub down: u32,
    /// Reasons for which a machine does not reach them.
    pub unreachable: Vec<u32>,
    sessions: Vec<Session>,
    line: Vec<SessionId>,
    registered: Vec<Option<SessionId>>,
    term: u64,
    /// All values there ever were, with the time at which they came.
    past: Vec<(Time, View)>,
}

impl ZooKeeper {
    /// Empty servers; the group has been asked for.
    pub fn new(n: usize) -> Self {
        let view = View {
            record: Stored {
                term: 0,
                version: 0,
                state: Rc::default(),
            },
            registered: Rc::new(vec![None; n]),
            leader: None,
            term: 0,
        };
        Self {
            down: 0,
            unreachable: vec![0; n],
            sessions: Vec::new(),
            line: Vec::new(),
            registered: vec![None; n],
            term: 0,
            past: vec![(0, view)],
        }
    }

    /// The newest values.
    pub fn truth(&self) -> &View {
        &self.past[self.past.len() - 1].1
    }

    /// Machine of a session.
    pub fn owner(&self, session: SessionId) -> Option<N> {
        self.sessions.get(session as usize - 1).map(|s| s.owner)
    }

    /// Whether a machine is registered.
    pub fn is_registered(&self, n: N) -> bool {
        self.registered[n].is_some()
    }

    fn session(&mut self, id: SessionId) -> Option<&mut Session> {
        let at = usize::try_from(id).ok()?.checked_sub(1)?;
        self.sessions.get_mut(at).filter(|s| s.alive)
    }

    fn as_of(&self, at: Time) -> View {
        let past = self.past.iter().rev().find(|(t, _)| *t <= at);
        past.unwrap_or(&self.past[0]).1.clone()
    }

    fn changed(&mut self, now: Time, record: Stored) {
        let registered = if *self.truth().registered == self.registered {
            self.truth().registered.clone()
        } else {
            Rc::new(self.registered.clone())
        };
        let view = View {
            record,
            registered,
            leader: self.line.first().copied(),
            term: self.term,
        };
        self.past.push((now, view));
    }

    fn end_session(&mut self, id: SessionId, now: Time) {
        if let Some(session) = self.session(id) {
            session.alive = false;
        }
        self.line.retain(|s| *s != id);
        for slot in &mut self.registered {
            if *slot == Some(id) {
                *slot = None;
            }
        }
        let record = self.truth().record.clone();
        self.changed(now, record);
    }
}

impl World {
    /// Sends a request. Whether it arrives and whether the answer comes back is for the links to say.
    pub fn ask_zookeeper(&mut self, from: N, session: SessionId, ask: Ask) {
        let life = self.machines[from].lives;
        if self.zk.unreachable[from] > 0 || !self.machines[from].up {
            return;
        }
        let mut after = self.latency();
        // A write may hang on the way, and still be done after its sender has given it up.
        if matches!(ask, Ask::Set { .. }) && self.chance(self.traits.zk_unknown) {
            after += self.between(10 * MS, 3000 * MS);
        }
        let request = Request {
            from,
            life,
            session,
            ask,
        };
        self.after(after, Event::ZooKeeper(Box::new(request)));
    }

    /// A request arrives.
    pub fn zookeeper(&mut self, request: Request) {
        let Request {
            from,
            life,
            session,
            ask,
        } = request;
        if self.zk.down > 0 || self.zk.unreachable[from] > 0 {
            return;
        }
        let now = self.now;
        let session = if let Ask::Connect { .. } = ask {
            self.connect(from)
        } else {
            session
        };
        let Some(open) = self.zk.session(session) else {
            self.answer(from, life, Reply::Expired(session));
            return;
        };
        open.heard = now;
        let lag = open.lag;
        let reply = match ask {
            Ask::Connect { .. } => Reply::Connected(session),
            Ask::Register => {
                open.synced = now;
                self.register(from, session);
                return;
            }
            Ask::Heartbeat { sent } => {
                open.synced = now;
                Reply::Heartbeat { session, sent }
            }
            Ask::Read => {
                let at = open.synced.max(now.saturating_sub(lag));
                Reply::View {
                    session,
                    view: self.zk.as_of(at),
                    fresh: false,
                }
            }
            Ask::Fresh => {
                open.synced = now;
                Reply::View {
                    session,
                    view: self.zk.as_of(now),
                    fresh: true,
                }
            }
            Ask::RaiseTerm => {
                open.synced = now;
                if self.zk.line.first() == Some(&session) {
                    self.zk.term += 1;
                    let record = self.zk.truth().record.clone();
                    self.zk.changed(now, record);
                    Reply::Raised {
                        session,
                        term: self.zk.term,
                    }
                } else {
                    Reply::NotLeader(session)
                }
            }
            Ask::Set {
                number,
                version,
                term,
                state,
            } => {
                open.synced = now;
                let done = self.set(from, version, term, &state);
                Reply::Set { number, done }
            }
            Ask::Close => {
                self.zk.end_session(session, now);
                self.tell_watchers();
                return;
            }
        };
        let unknown = self.traits.zk_unknown;
        if self.chance(unknown) {
            return;
        }
        self.answer(from, life, reply);
    }

    fn set(&mut self, from: N, version: u64, term: u64, state: &Rc<GroupState>) -> bool {
        let current = &self.zk.truth().record;
        if current.version != version {
            return false;
        }
        let before = current.state.clone();
        let record = Stored {
            term,
            version: version + 1,
            state: state.clone(),
        };
        let now = self.now;
        self.zk.changed(now, record);
        self.record_set(from, term, &before, state);
        self.tell_watchers();
        if self.chance(self.traits.unseated) {
            self.unseat();
        }
        true
    }

    fn connect(&mut self, from: N) -> SessionId {
        let now = self.now;
        // A daemon that comes back ends what it left behind.
        if let Some(old) = self.zk.registered[from] {
            self.zk.end_session(old, now);
        }
        let most = self.traits.zk_lag;
        let lag = self.between(0, most + 1);
        self.zk.sessions.push(Session {
            owner: from,
            heard: now,
            alive: true,
            lag,
            // A session may be one that its server alone knows of until it writes: by itself it says nothing about how old
            // the values are that this server serves.
            synced: 0,
        });
        let id = SessionId::try_from(self.zk.sessions.len()).unwrap_or(SessionId::MAX);
        let timeout = self.traits.session;
        self.after(timeout, Event::Expiry(id));
        self.tell_watchers();
        id
    }

    fn register(&mut self, from: N, id: SessionId) {
        let now = self.now;
        if self.zk.registered[from].is_none() {
            self.zk.registered[from] = Some(id);
            self.zk.line.push(id);
            let record = self.zk.truth().record.clone();
            self.zk.changed(now, record);
            self.tell_watchers();
        }
    }

    /// A session expires when it was not heard for the session timeout, give or take the leader's rounding.
    pub fn expire(&mut self, id: SessionId) {
        let (now, timeout, up) = (self.now, self.traits.session, self.zk.down == 0);
        let early = timeout - timeout * 16 / 100;
        let at = self.between(early, timeout + timeout / 10);
        let Some(session) = self.zk.session(id) else { return };
        if !up {
            // Servers that come back give every session its whole timeout again.
            session.heard = now;
        }
        let due = session.heard + at;
        if due > now {
            self.after(due - now, Event::Expiry(id));
            return;
        }
        let owner = session.owner;
        self.zk.end_session(id, now);
        self.say(Some(owner), format_args!("session {id} expires"));
        self.tell_watchers();
    }

    /// The master's candidacy is deleted under it.
    pub fn unseat(&mut self) {
        if self.zk.line.len() > 1 {
            let first = self.zk.line.remove(0);
            self.zk.line.push(first);
            let (now, record) = (self.now, self.zk.truth().record.clone());
            self.zk.changed(now, record);
            self.tell_watchers();
        }
    }

    /// Whoever has a session hears that something changed; it then reads.
    fn tell_watchers(&mut self) {
        for n in 0..self.machines.len() {
            let Some(session) = self.zk.registered[n] else { continue };
            let lag = self.zk.session(session).map_or(0, |s| s.lag);
            let after = self.latency() + lag;
            if self.zk.unreachable[n] == 0 && self.zk.down == 0 {
                let life = self.machines[n].lives;
                self.after(after, Event::Daemon(n, life, Wake::Changed));
            }
        }
    }

    fn answer(&mut self, to: N, life: u32, reply: Reply) {
        if self.zk.unreachable[to] > 0 || !self.machines[to].up {
            return;
        }
        let after = self.latency().max(MS / 10);
        self.after(after, Event::Daemon(to, life, Wake::ZooKeeper(Box::new(reply))));
    }
}
