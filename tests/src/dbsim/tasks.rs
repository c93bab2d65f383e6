//! What an agent begins and waits for: starts, stops, promotions, rewinds, copies; and what is left of one that was
//! interrupted.

use ha_core::database::local::Task;

use super::daemon::Wake;
use super::postgres::{Conf, Disk, Phase};
use super::wal::Pos;
use super::world::{MS, N, Time, World};

/// How long a fast stop may take before it becomes an immediate one.
const FAST_STOP: Time = 4000 * MS;
/// How often a task looks whether it is done.
const AGAIN: Time = 10 * MS;

impl World {
    /// Starts the server, as its files stand.
    pub fn start(&mut self, n: N) {
        let started = self.pg_start(n);
        self.begin(n, Task::Start, AGAIN);
        if !started {
            self.task_fails(n, "it does not start");
        }
    }

    /// The end of a stopped server's log is read from its files, after they were flushed.
    pub fn read_log(&mut self, n: N) {
        let instance = &self.pg[n];
        let starts = instance.starts;
        let stopped = instance.server.is_none() && instance.disk.system.is_some() && !instance.disk.torn;
        let after = self.between(5 * MS, 80 * MS);
        let Some(daemon) = self.daemons[n].as_mut() else { return };
        if stopped && daemon.log_read != Some(starts) && daemon.log_reading != Some(starts) {
            daemon.log_reading = Some(starts);
            self.wake(n, after, Wake::LogRead(starts));
        }
    }

    /// It is read.
    pub fn log_read(&mut self, n: N, incarnation: u32) {
        let instance = &mut self.pg[n];
        let Some(daemon) = self.daemons[n].as_mut() else { return };
        daemon.log_reading = None;
        if instance.server.is_none() && instance.starts == incarnation {
            instance.disk.flushed = instance.disk.written;
            daemon.log_read = Some(incarnation);
            self.kick_agent(n);
        }
    }

    fn task_fails(&mut self, n: N, why: &str) {
        let Some(daemon) = self.daemons[n].as_mut() else { return };
        if let Some((task, _)) = daemon.task.take() {
            self.say(Some(n), format_args!("{task:?} failed: {why}"));
            if let Some(daemon) = self.daemons[n].as_mut() {
                daemon.failed = Some((task, why.to_owned()));
            }
        }
        self.kick_agent(n);
    }

    fn task_done(&mut self, n: N) {
        if let Some(daemon) = self.daemons[n].as_mut() {
            daemon.task = None;
        }
        self.kick_agent(n);
    }

    /// A task looks whether it is done.
    pub fn task_looks(&mut self, n: N, number: u32) {
        let Some(daemon) = self.daemons[n].as_ref() else { return };
        let Some(task) = daemon.task.as_ref().filter(|t| t.1 == number).map(|t| t.0.clone()) else {
            return;
        };
        let since = daemon.task_since;
        let phase = self.pg[n]
            .server
            .as_ref()
            .filter(|s| s.postmaster && !s.doomed)
            .map(|s| s.phase);
        match task {
            Task::Start => match phase {
                Some(Phase::Starting) => self.wake(n, AGAIN, Wake::Task(number)),
                Some(_) => self.task_done(n),
                None => self.task_fails(n, "it ended"),
            },
            Task::Promote => match phase {
                Some(Phase::Promoting) => self.wake(n, AGAIN, Wake::Task(number)),
                Some(Phase::Primary) => self.task_done(n),
                _ => self.task_fails(n, "it ended"),
            },
            Task::Stop => {
                if self.pg[n].server.is_none() {
                    self.task_done(n);
                    return;
                }
                if self.now > since + FAST_STOP {
                    self.pg_quit(n);
                }
                self.wake(n, AGAIN, Wake::Task(number));
            }
            Task::Create => {
                let system = self.between(1, 1 << 40);
                let epoch = self.daemons[n]
                    .as_ref()
                    .and_then(|d| d.read.as_ref())
                    .map_or(0, |r| r.state.epoch);
                self.pg_init(n, system, epoch);
                self.kept[n].was_primary = true;
                self.kept[n].marks.promotion = None;
                self.say(Some(n), format_args!("initdb done"));
                self.start(n);
            }
            Task::Rewind => self.rewind_ends(n),
            Task::Copy { .. } => self.copy_ends(n),
        }
    }

    /// The daemon that ran a task is gone, and the task with it.
    pub fn task_dies(&mut self, n: N, task: &Task) {
        self.say(Some(n), format_args!("{task:?} dies with it"));
    }

    fn source(&self, n: N) -> Option<(N, Pos)> {
        let from = self.pg[n].disk.source?;
        let serves = self.pg[from].answers().is_some_and(|s| s.phase == Phase::Primary);
        let reached = !self.cut(n, from) && !self.cut(from, n) && !self.is_frozen(from);
        Some((from, self.pg[from].disk.flushed.filter(|_| serves && reached)?))
    }

    /// `pg_rewind` begins: from where it changes the directory on, an interruption leaves nothing of use.
    pub fn rewind_begins(&mut self, n: N) {
        let (Some((from, theirs)), Some(mine)) = (self.source(n), self.pg[n].disk.written) else {
            return;
        };
        let same = self.pg[from].disk.system == self.pg[n].disk.system;
        let fork = self.tree.apparent_fork(mine, theirs);
        self.pg[n].disk.torn |= same && fork.is_some_and(|f| f != mine);
    }

    fn rewind_ends(&mut self, n: N) {
        let (Some((from, theirs)), Some(mine)) = (self.source(n), self.pg[n].disk.written) else {
            self.task_fails(n, "the source is lost");
            return;
        };
        let Some(fork) = self.tree.apparent_fork(mine, theirs) else {
            self.task_fails(n, "no common ancestor");
            return;
        };
        if self.pg[from].disk.system != self.pg[n].disk.system {
            self.task_fails(n, "another system");
            return;
        }
        if fork != mine {
            if !self.tree.contains(theirs, fork) {
                self.wrong(format!(
                    "n{} is rewound to a place that n{} never was at",
                    n + 1,
                    from + 1
                ));
            }
            let timeline = self.tree.timeline(theirs);
            let disk = &mut self.pg[n].disk;
            disk.torn = false;
            disk.written = Some(theirs);
            disk.flushed = Some(theirs);
            disk.restart_point = fork.lsn;
            disk.newest_timeline = disk.newest_timeline.max(timeline);
        }
        self.pg[n].disk.standby_signal = true;
        self.kept[n].was_primary = false;
        self.say(
            Some(n),
            format_args!("rewound to {}/{}, copied up to {}", fork.branch, fork.lsn, theirs.lsn),
        );
        self.reread(n);
    }

    fn copy_ends(&mut self, n: N) {
        let Some((from, theirs)) = self.source(n) else {
            self.task_fails(n, "the source is lost");
            return;
        };
        let source = &self.pg[from].disk;
        let copy = Disk {
            system: source.system,
            written: Some(theirs),
            flushed: Some(theirs),
            restart_point: source.restart_point.min(theirs.lsn),
            newest_timeline: source.newest_timeline,
            standby_signal: true,
            conf: Conf::default(),
            bad_line: self.pg[n].disk.bad_line,
            full: self.pg[n].disk.full,
            ..Disk::default()
        };
        self.pg[n].aside |= self.pg[n].disk.system.is_some();
        self.pg[n].disk = copy;
        self.kept[n].was_primary = false;
        self.kept[n].marks.promotion = None;
        self.say(Some(n), format_args!("copied up to {}/{}", theirs.branch, theirs.lsn));
        self.reread(n);
    }

    /// The directory is another one: what was known of its log is forgotten.
    fn reread(&mut self, n: N) {
        let name = &self.scene.names[n];
        if let Some(daemon) = self.daemons[n].as_mut() {
            daemon.log_read = None;
            let instance = daemon.read.as_ref().and_then(|r| r.state.instances.get(name));
            if let Some(order) = instance.and_then(|i| i.rebuild.as_ref()) {
                self.kept[n].marks.rebuilt = order.since_ms;
            }
        }
        self.task_done(n);
    }

    /// A primary asks for grants.
    pub fn ask_grants(&mut self, n: N, of: &ha_core::database::Nodes, epoch: u64) {
        let asked = self.clock(n);
        for giver in of.iter().filter_map(|v| self.node(v)).collect::<Vec<_>>() {
            self.rpc(n, giver, || Wake::AskGrant(n, epoch, asked));
        }
    }

    /// A giver is asked.
    pub fn grant_asked(&mut self, n: N, by: N, epoch: u64, asked: Time) {
        let local = self.gather(n);
        let received = std::time::Duration::from_micros(self.clock(n));
        let Some(daemon) = self.daemons[n].as_mut() else { return };
        let primary = &self.scene.names[by];
        let given = ha_core::database::grants::give(
            &local,
            daemon.read.as_ref(),
            primary,
            epoch,
            received,
            &self.scene.timing,
        );
        match given {
            Ok(until) => {
                daemon.granted_until = daemon.granted_until.max(Some(super::daemon::micros(until)));
                self.kept[n].gave = true;
                self.say(Some(n), format_args!("grants n{} epoch {epoch}", by + 1));
                self.rpc(n, by, || Wake::Granted(n, epoch, asked));
            }
            Err(why) => self.say(Some(n), format_args!("grants n{} nothing: {why}", by + 1)),
        }
    }

    /// A grant arrives.
    pub fn granted(&mut self, n: N, giver: N, _epoch: u64, asked: Time) {
        let received = std::time::Duration::from_micros(self.clock(n));
        let sent = std::time::Duration::from_micros(asked);
        let until = ha_core::database::grants::counted(sent, received, &self.scene.timing, &self.scene.weaken);
        let name = self.scene.names[giver].clone();
        if let Some(daemon) = self.daemons[n].as_mut() {
            let held = daemon.grants_held.entry(name).or_default();
            *held = until.max(*held);
            self.kick_agent(n);
        }
    }
}
