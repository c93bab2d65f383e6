//! A daemon as the group sees it: a session with heartbeats, reads of the record, an agent that observes, lets the core
//! decide and acts, and reports to the master. It decides nothing itself; [`super::lead`] is its other half, where it leads.

use std::collections::BTreeMap;
use std::time::Duration;

use ha_core::database::local::{Marks, RecordRead, Report, Task};
use ha_core::database::member::{self, Action, Situation};
use ha_core::database::{Phase, grants};
use ha_core::lease;

use super::lead::Master;
use super::world::{Event, MS, N, Time, World};
use super::zookeeper::{Ask, SessionId, View};

/// How often an agent looks at its server without cause.
const LOOK_EVERY: Time = 250 * MS;
/// How often a report is sent without change.
const REPORT_EVERY: Time = 500 * MS;

/// What wakes a daemon.
#[derive(Debug)]
pub enum Wake {
    /// Time for a heartbeat.
    Heartbeat,
    /// Time to look, at the latest.
    Tick,
    /// Something changed on the machine, or a step was taken.
    Look,
    /// The next of the steps decided upon.
    Act(Box<Action>),
    /// A task may have come to its end.
    Task(u32),
    /// The end of the log of the incarnation that stopped was read from its files.
    LogRead(u32),
    /// An answer of ZooKeeper.
    ZooKeeper(Box<Reply>),
    /// A watch of ZooKeeper fired.
    Changed,
    /// Time for a read by R2.
    Fresh,
    /// The master's hint.
    Hint,
    /// The master's order to make a checkpoint.
    Checkpoint,
    /// To a master: a report, and its number: a stream hands nothing out of order, and a new one replaces the one before.
    Report(N, u64, Box<Report>),
    /// To a master: a report stream was reset.
    StreamBroken(N),
    /// To a giver: who asks for a grant, in which epoch, and when by its own clock.
    AskGrant(N, u64, Time),
    /// To a primary: who grants, in which epoch, and when it had been asked.
    Granted(N, u64, Time),
    /// Time for the master to decide.
    Lead,
    /// The answer to the write of this number is overdue.
    Overdue(u64),
}

/// An answer of ZooKeeper.
#[derive(Debug)]
pub enum Reply {
    /// A session.
    Connected(SessionId),
    /// It is no session any more.
    Expired(SessionId),
    /// A heartbeat was written.
    Heartbeat {
        /// In which session.
        session: SessionId,
        /// When it was sent.
        sent: Time,
    },
    /// Values.
    View {
        /// In which session.
        session: SessionId,
        /// The values.
        view: View,
        /// After an acknowledged write.
        fresh: bool,
    },
    /// The term is raised.
    Raised {
        /// In which session.
        session: SessionId,
        /// To this.
        term: u64,
    },
    /// Another one is first in the line.
    NotLeader(SessionId),
    /// What came of a compare-and-set.
    Set {
        /// Its number.
        number: u64,
        /// It was done.
        done: bool,
    },
}

/// What an agent keeps on disk beside the data directory.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    /// Marks.
    pub marks: Marks,
    /// The last incarnation ran as a primary.
    pub was_primary: bool,
    /// It has given grants.
    pub gave: bool,
}

/// A running daemon.
#[derive(Debug, Default)]
pub struct Daemon {
    /// Which life of it.
    pub life: u32,
    /// Its session.
    pub session: Option<SessionId>,
    asked_session: Option<Time>,
    /// Up to when its lease lasts, on its clock.
    pub lease_until: Option<Time>,
    /// When ZooKeeper was last heard, on its clock.
    pub zk_heard: Time,
    /// The record as last read.
    pub read: Option<RecordRead>,
    /// Whose session leads, as last read.
    pub leader: Option<SessionId>,
    /// What it is busy with, and the task's number.
    pub task: Option<(Task, u32)>,
    /// When the task began, in true time.
    pub task_since: Time,
    /// Number of the last task.
    pub tasks: u32,
    /// What failed since the record changed.
    pub failed: Option<(Task, String)>,
    /// Names and walsenders as last seen, and where the log was then.
    pub names_seen: Option<(super::postgres::Names, u64, u64)>,
    /// Grants that it holds, by giver, up to when on its clock.
    pub grants_held: BTreeMap<String, Duration>,
    /// Up to when it has granted, on its clock.
    pub granted_until: Option<Time>,
    /// Since when its commit probes fail, on its clock.
    pub probe_failing: Option<Time>,
    /// The incarnation of which the log's end was read from disk.
    pub log_read: Option<u32>,
    /// It is being read.
    pub log_reading: Option<u32>,
    acting: u32,
    looking: bool,
    reported: Option<(Time, Report)>,
    reports: u64,
    /// What its instance waits for.
    pub waits: Vec<String>,
    /// Where it leads.
    pub master: Option<Box<Master>>,
}

impl World {
    /// Starts a daemon, unless one runs.
    pub fn start_daemon(&mut self, n: N) {
        if !self.machines[n].up || self.daemons[n].is_some() {
            return;
        }
        self.machines[n].lives += 1;
        let life = self.machines[n].lives;
        let now = self.clock(n);
        self.guard_restarts(n);
        let now = Duration::from_micros(now);
        let bound = grants::after_restart(now, &self.scene.timing, &self.scene.weaken);
        let granted_until = bound.filter(|_| self.kept[n].gave).map(micros);
        self.daemons[n] = Some(Daemon {
            life,
            granted_until,
            ..Daemon::default()
        });
        self.say(Some(n), format_args!("daemon starts, life {life}"));
        self.wake(n, MS, Wake::Heartbeat);
        self.wake(n, 2 * MS, Wake::Tick);
    }

    /// Ends a daemon as SIGKILL does. Its task dies with it, its guard and server do not.
    pub fn kill_daemon(&mut self, n: N, resets: bool) {
        let Some(daemon) = self.daemons[n].take() else { return };
        self.say(Some(n), format_args!("daemon killed"));
        if let Some((task, _)) = daemon.task {
            self.task_dies(n, &task);
        }
        if !resets {
            return;
        }
        for other in 0..self.machines.len() {
            if other != n && !self.cut(n, other) {
                let after = self.latency();
                self.rpc_once(other, after, Wake::StreamBroken(n));
            }
        }
    }

    /// Wakes this life of a daemon later.
    pub fn wake(&mut self, n: N, after: Time, wake: Wake) {
        if let Some(daemon) = &self.daemons[n] {
            let life = daemon.life;
            self.after(after, Event::Daemon(n, life, wake));
        }
    }

    /// Something changed on the machine: the agent is told.
    pub fn kick_agent(&mut self, n: N) {
        let after = self.between(MS / 2, 6 * MS);
        if let Some(daemon) = self.daemons[n].as_mut()
            && !daemon.looking
        {
            daemon.looking = true;
            self.wake(n, after, Wake::Look);
        }
    }

    /// A remote call: late, lost or doubled as the run has it.
    pub fn rpc(&mut self, from: N, to: N, make: impl Fn() -> Wake) {
        let traits = self.traits;
        if from != to && (self.cut(from, to) || self.chance(traits.lossy)) {
            return;
        }
        let mut after = if from == to { MS / 20 } else { self.latency() };
        if from != to && self.chance(traits.delayed) {
            after += self.between(10 * MS, 1500 * MS);
        }
        self.rpc_once(to, after, make());
        if self.chance(traits.doubled) {
            let again = after + self.between(MS, 800 * MS);
            self.rpc_once(to, again, make());
        }
    }

    fn rpc_once(&mut self, to: N, after: Time, wake: Wake) {
        self.after(after, Event::Daemon(to, 0, wake));
    }

    /// A daemon is woken. Life 0 is whichever runs then.
    pub fn daemon_wakes(&mut self, n: N, life: u32, wake: Wake) {
        let Some(daemon) = self.daemons[n].as_mut() else { return };
        if life != 0 && daemon.life != life {
            return;
        }
        match wake {
            Wake::Heartbeat => self.heartbeat(n),
            Wake::Tick => {
                let settled = daemon
                    .read
                    .as_ref()
                    .is_some_and(|r| r.state.phase == Phase::Steady && !r.state.joint());
                let every = if settled { LOOK_EVERY } else { LOOK_EVERY / 5 };
                self.wake(n, every, Wake::Tick);
                self.look(n);
            }
            Wake::Look => {
                daemon.looking = false;
                self.look(n);
            }
            Wake::Act(action) => {
                daemon.acting = daemon.acting.saturating_sub(1);
                let last = daemon.acting == 0;
                self.act(n, *action);
                if last {
                    self.kick_agent(n);
                }
            }
            Wake::Task(number) => self.task_looks(n, number),
            Wake::LogRead(incarnation) => self.log_read(n, incarnation),
            Wake::ZooKeeper(reply) => self.zk_reply(n, *reply),
            Wake::Changed | Wake::Hint => self.read(n),
            Wake::Fresh => {
                if let Some(session) = daemon.session {
                    self.ask_zookeeper(n, session, Ask::Fresh);
                }
            }
            Wake::Checkpoint => self.pg_checkpoint(n),
            Wake::Report(from, number, report) => self.master_hears(n, from, number, *report),
            Wake::StreamBroken(from) => self.stream_broke(n, from),
            Wake::AskGrant(from, epoch, asked) => self.grant_asked(n, from, epoch, asked),
            Wake::Granted(from, epoch, asked) => self.granted(n, from, epoch, asked),
            Wake::Lead => self.lead(n),
            Wake::Overdue(number) => self.write_overdue(n, number),
        }
    }

    fn heartbeat(&mut self, n: N) {
        let every = micros(lease::heartbeat_interval(Duration::from_micros(self.traits.session)));
        self.wake(n, every, Wake::Heartbeat);
        let sent = self.clock(n);
        let Some(daemon) = self.daemons[n].as_mut() else { return };
        let life = daemon.life;
        match daemon.session {
            Some(session) => {
                self.ask_zookeeper(n, session, Ask::Heartbeat { sent });
                if !self.zk.is_registered(n) {
                    self.ask_zookeeper(n, session, Ask::Register);
                }
                // Watches are armed anew at times: nothing depends on one having fired.
                self.ask_zookeeper(n, session, Ask::Fresh);
            }
            None if daemon.asked_session.is_none_or(|at| sent > at + 500 * MS) => {
                daemon.asked_session = Some(sent);
                self.ask_zookeeper(n, 0, Ask::Connect { life });
            }
            None => {}
        }
    }

    fn read(&mut self, n: N) {
        let Some(session) = self.daemons[n].as_ref().and_then(|d| d.session) else {
            return;
        };
        self.ask_zookeeper(n, session, Ask::Read);
        if self.chance(self.traits.lazy_fresh) {
            let after = self.between(5 * MS, 500 * MS);
            self.wake(n, after, Wake::Fresh);
        } else {
            self.ask_zookeeper(n, session, Ask::Fresh);
        }
    }

    fn zk_reply(&mut self, n: N, reply: Reply) {
        let now = self.clock(n);
        let Some(daemon) = self.daemons[n].as_mut() else { return };
        daemon.zk_heard = now;
        match reply {
            Reply::Connected(session) => {
                if daemon.session.is_some() {
                    return;
                }
                daemon.session = Some(session);
                daemon.asked_session = None;
                self.ask_zookeeper(n, session, Ask::Register);
                self.ask_zookeeper(n, session, Ask::Heartbeat { sent: now });
                self.read(n);
            }
            Reply::Expired(session) => {
                if daemon.session == Some(session) {
                    daemon.session = None;
                    daemon.asked_session = None;
                    daemon.master = None;
                    if let Some(read) = daemon.read.as_mut() {
                        read.fresh = false;
                    }
                    self.wake(n, MS, Wake::Look);
                    let life = self.machines[n].lives;
                    self.ask_zookeeper(n, 0, Ask::Connect { life });
                }
            }
            Reply::Heartbeat { session, sent } => {
                if daemon.session == Some(session) {
                    let until = lease::until(Duration::from_micros(sent), Duration::from_micros(self.traits.session));
                    daemon.lease_until = daemon.lease_until.max(Some(micros(until)));
                    self.look_if_primary(n);
                }
            }
            Reply::View { session, view, fresh } => self.viewed(n, session, view, fresh),
            Reply::Raised { session, term } => self.raised(n, session, term),
            Reply::NotLeader(session) => {
                if daemon.session == Some(session) {
                    daemon.leader = None;
                    self.read(n);
                }
            }
            Reply::Set { number, done } => self.written(n, number, done),
        }
    }

    fn look_if_primary(&mut self, n: N) {
        if self.machines[n].guard.deadline.is_some() || self.kept[n].was_primary {
            self.kick_agent(n);
        }
    }

    fn viewed(&mut self, n: N, session: SessionId, view: View, fresh: bool) {
        let Some(daemon) = self.daemons[n].as_mut() else { return };
        if daemon.session != Some(session) {
            return;
        }
        let newer = daemon.read.as_ref().is_none_or(|r| r.revision < view.record.version);
        let same = daemon.read.as_ref().is_some_and(|r| r.revision == view.record.version);
        if newer {
            daemon.read = Some(RecordRead {
                state: (*view.record.state).clone(),
                revision: view.record.version,
                fresh,
            });
            daemon.failed = None;
        } else if same
            && fresh
            && let Some(read) = daemon.read.as_mut()
        {
            read.fresh = true;
        }
        daemon.leader = view.leader;
        self.master_views(n, session, &view, fresh);
        if newer || fresh {
            self.look(n);
        }
    }

    /// The agent looks at everything, lets the core decide, and begins to act.
    pub fn look(&mut self, n: N) {
        let Some(daemon) = self.daemons[n].as_ref() else { return };
        if daemon.acting > 0 {
            return;
        }
        self.read_log(n);
        let local = self.gather(n);
        let now = Duration::from_micros(self.clock(n));
        let Some(daemon) = self.daemons[n].as_mut() else { return };
        let situation = Situation {
            local: &local,
            record: daemon.read.as_ref(),
            spec: Some(&self.scene.spec),
            now,
            timing: &self.scene.timing,
            weaken: &self.scene.weaken,
        };
        let decision = member::decide(&situation);
        let report = member::report(&situation);
        daemon.acting = u32::try_from(decision.actions.len()).unwrap_or(0);
        daemon.waits = decision.waits;
        let deadline = decision.deadline.map(micros);
        self.guard_deadline(n, deadline);
        let mut after = 0;
        for action in decision.actions {
            after += self.between(MS / 5, 4 * MS);
            self.wake(n, after, Wake::Act(Box::new(action)));
        }
        if let Some(at) = decision.look_at {
            let after = self.true_span(n, micros(at.saturating_sub(now))) + MS / 10;
            if after < LOOK_EVERY {
                self.wake(n, after, Wake::Look);
            }
        }
        self.report(n, report);
    }

    fn report(&mut self, n: N, report: Report) {
        let now = self.clock(n);
        let Some(daemon) = self.daemons[n].as_mut() else { return };
        let due = match &daemon.reported {
            None => true,
            Some((at, last)) => {
                // Ages and positions change all the time; they go with the next beat, unless something waits for them.
                let settled = daemon
                    .read
                    .as_ref()
                    .is_some_and(|r| r.state.phase == Phase::Steady && !r.state.joint());
                *at + REPORT_EVERY <= now || differs(last, &report, settled)
            }
        };
        if !due {
            return;
        }
        let Some(leader) = daemon.leader.and_then(|s| self.zk.owner(s)) else {
            return;
        };
        daemon.reported = Some((now, report.clone()));
        daemon.reports += 1;
        let number = u64::from(daemon.life) << 32 | daemon.reports;
        self.rpc(n, leader, || Wake::Report(n, number, Box::new(report.clone())));
    }

    /// A task is begun; it ends after a while.
    pub fn begin(&mut self, n: N, task: Task, takes: Time) {
        let Some(daemon) = self.daemons[n].as_mut() else { return };
        daemon.tasks += 1;
        let number = daemon.tasks;
        daemon.task = Some((task, number));
        daemon.task_since = self.now;
        self.wake(n, takes, Wake::Task(number));
    }
}

/// Whether a report tells something that the last one did not.
fn differs(last: &Report, report: &Report, settled: bool) -> bool {
    let mut before = last.clone();
    before.heard.clone_from(&report.heard);
    before.replayed = report.replayed;
    if settled {
        before.log = report.log;
        if let (Some(a), Some(b)) = (&mut before.primary, &report.primary)
            && a.flushed.keys().eq(b.flushed.keys())
        {
            a.flushed.clone_from(&b.flushed);
        }
    }
    before != *report
}

/// Microseconds of a duration.
pub fn micros(d: Duration) -> Time {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}
