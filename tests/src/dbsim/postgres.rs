//! Simulated PostgreSQL: a data directory and the server on it.
//!
//! As the real one does, a server knows timelines by number only, keeps waiting commits until walsenders that follow the
//! configuration release them, follows a reload one process at a time, and forgets on a restart what it received.
//! What an agent may do to it are the public functions; none of them asks who is allowed to.

use std::collections::VecDeque;

use super::wal::{Branch, Pos};
use super::world::{Event, MS, N, Time, World};

/// `synchronous_standby_names`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Names {
    /// Empty: nobody is waited for.
    Empty,
    /// A name that nobody has: everybody waits for ever.
    #[default]
    Closed,
    /// `ANY need (who)`.
    Any {
        /// How many are waited for.
        need: u8,
        /// The epoch in the names; 0 where names have none.
        epoch: u64,
        /// Instances, a bit each.
        who: u8,
    },
}

impl Names {
    /// Whether a standby of this name is one of those named.
    pub fn names(self, standby: N, name_epoch: u64) -> bool {
        match self {
            Names::Empty | Names::Closed => false,
            Names::Any { epoch, who, .. } => who & (1 << standby) != 0 && (epoch == 0 || epoch == name_epoch),
        }
    }
}

/// What is written in the configuration file that the agent owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Conf {
    /// `synchronous_standby_names`.
    pub names: Names,
    /// `primary_conninfo`: the server, and the epoch in `application_name`.
    pub follow: Option<(N, u64)>,
}

/// A data directory.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    /// Whose it is; `None` where it is empty.
    pub system: Option<u64>,
    /// A copy or a rewind was begun and not ended.
    pub torn: bool,
    /// End of the log as written; survives the server, not the node.
    pub written: Option<Pos>,
    /// End of the log as flushed.
    pub flushed: Option<Pos>,
    /// Up to where it had been replayed when the last restart point was made.
    pub restart_point: u64,
    /// Highest timeline of which there is a history file.
    pub newest_timeline: u32,
    /// Whether `standby.signal` is there.
    pub standby_signal: bool,
    /// The agent's configuration.
    pub conf: Conf,
    /// Slots for other instances, a bit each.
    pub slots: u8,
    /// Where a rewind or copy that was begun takes its data from.
    pub source: Option<N>,
    /// The disk is full: commits fail.
    pub full: bool,
    /// An operator's file has a line that PostgreSQL refuses.
    pub bad_line: bool,
}

/// What a server is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Recovering after its start; answers nobody.
    Starting,
    /// In recovery, answering.
    Standby,
    /// Ending recovery.
    Promoting,
    /// Reads and writes.
    Primary,
    /// Stopping in an orderly way: no clients, the log goes to standbys.
    Stopping,
}

/// A walsender.
#[derive(Debug, Clone)]
pub struct Sender {
    /// The connection; the receiver at the other end has the same.
    pub connection: u32,
    /// Who receives.
    pub standby: N,
    /// The epoch in its `application_name`.
    pub name_epoch: u64,
    /// The configuration that this process has read.
    pub names: Names,
    /// Whether it has read it at all.
    pub deaf: bool,
    /// `sync_priority` > 0.
    pub priority: bool,
    /// What the standby has confirmed as flushed.
    pub confirmed: u64,
    /// What has been sent.
    pub sent: u64,
    /// When the standby was last heard.
    pub heard: Time,
}

/// A WAL receiver.
#[derive(Debug, Clone, Copy)]
pub struct Receiver {
    /// The connection.
    pub connection: u32,
    /// From whom.
    pub from: N,
    /// The epoch in its name.
    pub name_epoch: u64,
    /// When anything was last heard.
    pub heard: Time,
}

/// A commit that waits.
#[derive(Debug, Clone, Copy)]
pub struct Commit {
    /// Where its record ends.
    pub at: Pos,
    /// It is flushed here, so that only standbys are waited for.
    pub flushed: bool,
}

/// A server: the processes on a data directory.
#[derive(Debug)]
pub struct Server {
    /// Number of this start.
    pub incarnation: u32,
    /// What it is doing.
    pub phase: Phase,
    /// The postmaster lives. Without it backends may go on for a while.
    pub postmaster: bool,
    /// A signal was sent that ends all of it.
    pub doomed: bool,
    /// The configuration that the postmaster has read.
    pub conf: Conf,
    /// Walsenders.
    pub senders: Vec<Sender>,
    /// The WAL receiver.
    pub receiver: Option<Receiver>,
    /// The startup process has seen this configuration; it starts receivers.
    pub follow: Option<(N, u64)>,
    /// When the startup process may start a receiver again.
    pub retry_at: Time,
    /// Why the last receiver ended: the log does not fit.
    pub refused: bool,
    /// Replay has come to here.
    pub replayed: Pos,
    /// Replay stands still: paused, or in conflict with a query.
    pub replay_stuck: bool,
    /// What `pg_last_wal_receive_lsn()` says: nothing until it streams.
    pub received: Option<Pos>,
    /// Everything below this has been confirmed by enough standbys.
    pub confirmed: u64,
    /// End of crash recovery, as a primary.
    pub recovered: Option<u64>,
    /// The branch that this server made.
    pub promoted: Option<super::wal::BranchId>,
    /// Commits that wait.
    pub waiting: VecDeque<Commit>,
}

/// An instance: its directory and what runs on it.
#[derive(Debug, Default)]
pub struct Instance {
    /// The data directory.
    pub disk: Disk,
    /// The directory before the last copy, kept aside.
    pub aside: bool,
    /// The server.
    pub server: Option<Server>,
    /// Starts made: the number of the incarnation that runs, or ran last.
    pub starts: u32,
}

impl Instance {
    /// A running server that answers queries.
    pub fn answers(&self) -> Option<&Server> {
        self.server.as_ref().filter(|s| {
            s.postmaster && !s.doomed && matches!(s.phase, Phase::Standby | Phase::Promoting | Phase::Primary)
        })
    }

    /// Whether no process is left.
    pub fn is_gone(&self) -> bool {
        self.server.is_none()
    }
}

/// Something inside a server.
#[derive(Debug, Clone, Copy)]
pub enum Inside {
    /// Recovery after the start is done.
    Started,
    /// The log is flushed up to here.
    Flushed(Pos),
    /// Replay goes on.
    Replay,
    /// A walsender reads the configuration.
    SenderReload(u32),
    /// Backends read the configuration.
    Reload(Conf),
    /// The startup process sees the configuration.
    StartupReload,
    /// Recovery ends.
    Promoted,
    /// The startup process looks whether it should start a receiver.
    Retry,
    /// An orderly stop looks whether it is done.
    StopCheck(Time),
    /// Every process is gone.
    Gone,
    /// The WAL receiver was sent SIGTERM.
    ReceiverEnds(u32),
}

impl World {
    /// Makes a new database.
    pub fn pg_init(&mut self, n: N, system: u64, epoch: u64) {
        let branch = self.tree.add(Branch {
            parent: None,
            timeline: 1,
            epoch,
        });
        let start = Pos { branch, lsn: 1 };
        self.pg[n].disk = Disk {
            system: Some(system),
            written: Some(start),
            flushed: Some(start),
            newest_timeline: 1,
            conf: self.pg[n].disk.conf,
            bad_line: self.pg[n].disk.bad_line,
            full: self.pg[n].disk.full,
            ..Disk::default()
        };
    }

    /// Starts a server. Says whether there will be one: not on a torn or empty directory, nor beside another, nor with a
    /// line that it refuses.
    pub fn pg_start(&mut self, n: N) -> bool {
        let instance = &mut self.pg[n];
        let disk = &instance.disk;
        let (Some(written), false, false) = (disk.written, disk.torn, disk.bad_line) else {
            return false;
        };
        if instance.server.is_some() || disk.system.is_none() {
            return false;
        }
        instance.starts += 1;
        let backlog = written.lsn.saturating_sub(disk.restart_point);
        instance.server = Some(Server {
            incarnation: instance.starts,
            phase: Phase::Starting,
            postmaster: true,
            doomed: false,
            conf: disk.conf,
            senders: Vec::new(),
            receiver: None,
            follow: disk.conf.follow,
            retry_at: 0,
            refused: false,
            replayed: Pos {
                branch: written.branch,
                lsn: disk.restart_point.min(written.lsn),
            },
            replay_stuck: false,
            received: None,
            confirmed: 0,
            recovered: None,
            promoted: None,
            waiting: VecDeque::new(),
        });
        let takes = self.between(20 * MS, 120 * MS) + backlog.min(400) * 200;
        self.inside(n, takes, Inside::Started);
        let conf = self.pg[n].disk.conf;
        self.say(Some(n), format_args!("postgres starts ({conf:?})"));
        true
    }

    /// Schedules something inside the server that runs now.
    pub fn inside(&mut self, n: N, after: Time, what: Inside) {
        if let Some(server) = &self.pg[n].server {
            let event = Event::Inside(n, server.incarnation, what);
            self.after(after, event);
        }
    }

    /// Writes the agent's configuration file.
    pub fn pg_write_conf(&mut self, n: N, conf: Conf) {
        if let Names::Any { need, who, .. } = conf.names
            && (need == 0 || who == 0)
        {
            self.wrong(format!(
                "n{} is given names that PostgreSQL refuses: {:?}",
                n + 1,
                conf.names
            ));
        }
        self.pg[n].disk.conf = conf;
    }

    /// Sends the postmaster SIGHUP: every process follows in its own time, or none where a line is refused.
    pub fn pg_reload(&mut self, n: N) {
        let disk = &self.pg[n].disk;
        if disk.bad_line || !self.pg[n].server.as_ref().is_some_and(|s| s.postmaster && !s.doomed) {
            self.say(Some(n), format_args!("reload dropped"));
            return;
        }
        let conf = disk.conf;
        let after = self.between(MS / 5, 3 * MS);
        self.inside(n, after, Inside::Reload(conf));
    }

    /// Promotes a standby. What it does not receive any more is lost to it.
    pub fn pg_promote(&mut self, n: N) -> bool {
        let slow = self.traits.slow_promotion;
        let takes = if self.chance(slow) {
            self.between(200 * MS, 4000 * MS)
        } else {
            self.between(30 * MS, 150 * MS)
        };
        let Some(server) = self.pg[n].server.as_mut() else {
            return false;
        };
        if server.phase != Phase::Standby || !server.postmaster || server.doomed {
            return false;
        }
        server.phase = Phase::Promoting;
        server.replay_stuck = false;
        self.end_receiver(n);
        self.inside(n, takes, Inside::Promoted);
        self.say(Some(n), format_args!("promotion begins"));
        true
    }

    /// Sends the WAL receiver SIGTERM.
    pub fn pg_end_receiver(&mut self, n: N) {
        let Some(receiver) = self.pg[n].server.as_ref().and_then(|s| s.receiver) else {
            return;
        };
        let after = self.between(MS / 5, 4 * MS);
        self.inside(n, after, Inside::ReceiverEnds(receiver.connection));
    }

    /// SIGINT: an orderly stop.
    pub fn pg_stop_fast(&mut self, n: N) {
        let Some(server) = self.pg[n].server.as_mut() else {
            return;
        };
        if !server.postmaster || server.doomed || server.phase == Phase::Stopping {
            return;
        }
        let was = server.phase;
        server.phase = Phase::Stopping;
        // Whoever waited is told that the wait was cancelled.
        server.waiting.clear();
        if was == Phase::Primary {
            // The shutdown checkpoint.
            if let Some(mut at) = self.pg[n].disk.written {
                at.lsn += 1;
                self.pg[n].disk.written = Some(at);
                self.flushed(n, at);
            }
        }
        let after = self.between(10 * MS, 60 * MS);
        let since = self.now;
        self.inside(n, after, Inside::StopCheck(since));
        self.say(Some(n), format_args!("fast stop"));
    }

    /// CHECKPOINT.
    pub fn pg_checkpoint(&mut self, n: N) {
        let instance = &mut self.pg[n];
        let primary = instance.answers().is_some_and(|s| s.phase == Phase::Primary);
        if let (true, Some(at)) = (primary, instance.disk.flushed) {
            instance.disk.restart_point = at.lsn;
            self.kick_agent(n);
        }
    }

    /// Ends walsenders but those to some, as before a switchover.
    pub fn pg_end_senders_but(&mut self, n: N, keep: N) {
        if let Some(server) = self.pg[n].server.as_mut() {
            server.senders.retain(|s| s.standby == keep);
        }
    }

    /// SIGQUIT, and SIGKILL to the whole tree a little later: everything is gone soon.
    pub fn pg_quit(&mut self, n: N) {
        let after = self.between(10 * MS, 80 * MS);
        let Some(server) = self.pg[n].server.as_mut() else {
            return;
        };
        if !server.doomed {
            server.doomed = true;
            self.inside(n, after, Inside::Gone);
            self.say(Some(n), format_args!("SIGQUIT"));
        }
    }

    /// SIGKILL of the postmaster alone. Its children mostly notice.
    pub fn pg_kill_postmaster(&mut self, n: N) {
        let lingers = self.traits.lingering;
        let after = if self.chance(lingers) {
            self.between(100 * MS, 3400 * MS)
        } else {
            self.between(MS, 30 * MS)
        };
        let Some(server) = self.pg[n].server.as_mut() else {
            return;
        };
        if server.postmaster {
            server.postmaster = false;
            self.say(
                Some(n),
                format_args!("postmaster killed; its children live for {} ms", after / MS),
            );
            self.inside(n, after, Inside::Gone);
        }
    }

    /// The machine is gone: all processes at once, and what was written and not flushed.
    pub fn pg_power_off(&mut self, n: N) {
        let instance = &mut self.pg[n];
        instance.server = None;
        instance.disk.written = instance.disk.flushed;
    }
}
