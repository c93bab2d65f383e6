//! The guard's own program: one thread, one wait, deadlines first.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ha_proto::codes;

use super::machine::{Cause, Limits, Machine, Order};
use super::record::Record;
use super::wire::{Event, MAX_LINE, Proof, to_ms};
use crate::error::ApiError;
use crate::platform::guard::{Exit, Happening, Port, Tree, detach, prepare};
use crate::platform::{Clock as _, DirLock, SystemClock, boot_id, private_dir, service};

/// How a guard is run.
#[derive(Debug, Clone)]
pub struct How {
    /// The daemon's state directory.
    pub state_dir: PathBuf,
    /// The group it guards.
    pub group: String,
    /// Leave the caller's session first.
    pub detach: bool,
    /// Use control groups where that is possible.
    pub cgroups: bool,
}

/// A fast stop of a guard that is told to end; the unit's own limit is above it.
const TERMINATED: Limits = Limits {
    fast: Some(Duration::from_secs(60)),
    quit: Duration::from_secs(2),
};
/// How often a tree whose end nobody reports is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// A guard that guards nothing and hears from nobody ends after this long; the daemon starts another when it needs one.
const UNUSED: Duration = Duration::from_secs(600);
/// Lines of the log that wait for the time when writing is allowed.
const KEPT: usize = 64;

/// Runs a guard until it is told to end, or nobody needs it any more.
///
/// # Errors
/// What keeps it from serving: another guard of the group, a damaged record, a directory it cannot use.
pub fn run(how: &How) -> Result<(), ApiError> {
    let unusable = |what: &str, e: &io::Error| {
        ApiError::new(
            &codes::INTERNAL,
            format!("the guard of group {} cannot run: {what}", how.group),
        )
        .why(e.to_string())
    };
    // It becomes a file's name and a unit's.
    ha_core::valid_name(&how.group).map_err(|e| {
        ApiError::new(&codes::INTERNAL, format!("{:?} is no name of a group", how.group)).why(e.to_string())
    })?;
    let dir = super::directory(&how.state_dir, &how.group);
    private_dir(&dir).map_err(|e| unusable("its directory cannot be made", &e))?;
    let started = how.detach.then(detach).transpose();
    let started = started.map_err(|e| unusable("it cannot leave its session", &e))?;
    let lock = DirLock::acquire(&dir).map_err(|e| unusable("its directory cannot be locked", &e))?;
    let Some(lock) = lock else {
        let e = io::Error::other("another guard of this group runs already");
        return Err(unusable("its directory is in use", &e));
    };
    let mut guard = Guard::open(&dir, how).map_err(|e| unusable("it cannot begin", &e))?;
    match started {
        Some(started) => started
            .serving(&dir.join("guard.log"))
            .map_err(|e| unusable("its log cannot be opened", &e))?,
        None => service::notify(service::Notice::Ready),
    }
    let ended = guard.serve().map_err(|e| unusable("it cannot wait any more", &e));
    drop(lock);
    ended
}

pub(super) struct Guard {
    pub(super) dir: PathBuf,
    pub(super) token_file: PathBuf,
    pub(super) token: Option<String>,
    pub(super) boot: String,
    pub(super) port: Port,
    pub(super) tree: Tree,
    pub(super) machine: Machine,
    pub(super) record: Record,
    /// The connection of the daemon that is heard.
    pub(super) owner: Option<u64>,
    /// The greatest number of a daemon's run that was heard.
    pub(super) newest_run: u64,
    pub(super) pid: Option<u32>,
    pub(super) started_ms: Option<i64>,
    pub(super) exit: Option<Exit>,
    pub(super) cause: Option<Cause>,
    /// A proof that is not in the record yet.
    pub(super) unwritten: bool,
    /// It was told to end.
    pub(super) ending: bool,
    /// Nothing was heard since.
    pub(super) unused_since: Duration,
    pub(super) journal: Journal,
}

/// What is to be logged, kept until nothing runs: a log may be a pipe that is full or a file system that hangs.
pub(super) struct Journal(VecDeque<String>);

impl Journal {
    pub(super) fn note(&mut self, line: std::fmt::Arguments<'_>) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(format!("had guard: {line}"));
    }

    fn write(&mut self) {
        use std::io::Write as _;
        let mut out = io::stderr().lock();
        for line in self.0.drain(..) {
            let _ = writeln!(out, "{line}");
        }
    }
}

impl Guard {
    fn open(dir: &Path, how: &How) -> io::Result<Guard> {
        prepare()?;
        let record = Record::read(dir)?;
        let boot = boot_id();
        let now = SystemClock.boottime();
        let mut guard = Guard {
            token_file: how.state_dir.join("token"),
            token: None,
            port: Port::open(dir, MAX_LINE)?,
            tree: Tree::new(dir, how.cgroups),
            machine: Machine::new(),
            exit: record.proof.as_ref().and_then(|p| p.exit),
            cause: record.proof.as_ref().map(|p| p.cause),
            record,
            boot,
            dir: dir.to_owned(),
            owner: None,
            newest_run: 0,
            pid: None,
            started_ms: None,
            unwritten: false,
            ending: false,
            unused_since: now,
            journal: Journal(VecDeque::with_capacity(KEPT)),
        };
        guard.tree.rehearse();
        guard.read_token();
        if guard.tree.left_over(&guard.boot)? {
            guard
                .journal
                .note(format_args!("an earlier guard left processes behind; they are ended"));
            guard.machine.left_over(now);
            guard.cause = Some(Cause::LeftOver);
            guard.record.proof = None;
        } else if guard.record.incarnation > 0 && guard.record.proof.is_none() {
            // Whatever was started is gone: there is no process with its mark, or the machine was started anew.
            let cause = if guard.record.boot == guard.boot {
                Cause::LeftOver
            } else {
                Cause::Reboot
            };
            guard.prove(cause, now, now);
        }
        Ok(guard)
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut happenings = Vec::with_capacity(64);
        loop {
            let now = SystemClock.boottime();
            self.act(now);
            if self.machine.is_idle() {
                if self.ending {
                    self.journal.note(format_args!("told to end, and nothing runs"));
                    self.settle();
                    return Ok(());
                }
                self.settle();
                if self.owner.is_none() && now >= self.unused_since + UNUSED {
                    return Ok(());
                }
            }
            self.port.wait(self.wake(now), &mut happenings)?;
            for happening in happenings.drain(..) {
                match happening {
                    Happening::Terminate => self.terminate(),
                    Happening::Line(connection, line) => self.hear(connection, &line),
                    Happening::TooLong(connection) => self.garbage(connection, 0, "the line is too long"),
                    Happening::Gone(connection) => self.gone(connection),
                }
            }
        }
    }

    /// When the wait must end at the latest.
    fn wake(&self, now: Duration) -> Option<Duration> {
        let look = self.tree.needs_looking().then(|| now + LOOK);
        let unused = (self.machine.is_idle() && self.owner.is_none()).then(|| self.unused_since + UNUSED);
        [self.machine.wake(), look, unused].into_iter().flatten().min()
    }

    /// What the deadline and the tree demand. Signals go out before anything is told to anybody.
    fn act(&mut self, now: Duration) {
        let before = self.machine.stop_began();
        self.obey(now);
        if self.machine.is_idle() {
            return;
        }
        let reaped = self.tree.reap();
        if reaped.any {
            self.machine.reaped(now);
        }
        if let Some(exit) = reaped.exit {
            self.pid = None;
            self.exit = Some(exit);
            self.machine.exited(now, exit.is_clean());
            if !reaped.empty {
                self.obey(now);
            }
        }
        let stopping = self.machine.stop_began().filter(|_| before.is_none());
        if let Some((cause, _)) = stopping {
            self.cause = Some(cause);
            if cause != Cause::Died {
                self.tell(Event::Stopping);
            }
        }
        if let Some(exit) = reaped.exit {
            self.journal.note(format_args!(
                "incarnation {}: the postmaster {exit}",
                self.record.incarnation
            ));
            self.tell(Event::Exited);
        }
        if reaped.empty {
            let (cause, began) = self.machine.stop_began().unwrap_or((Cause::Died, now));
            self.machine.emptied();
            self.tree.cleared();
            self.prove(cause, began, SystemClock.boottime());
            self.tell(Event::Stopped);
        }
    }

    fn obey(&mut self, now: Duration) {
        while let Some(order) = self.machine.step(now) {
            match order {
                Order::Interrupt => self.tree.interrupt(),
                Order::Quit => self.tree.quit(),
                Order::Kill => self.tree.kill(),
            }
        }
    }

    /// Notes that nothing of the newest start runs.
    pub(super) fn prove(&mut self, cause: Cause, began: Duration, now: Duration) {
        let took_ms = to_ms(now.saturating_sub(began));
        self.pid = None;
        self.cause = Some(cause);
        self.unwritten = true;
        self.unused_since = now;
        self.record.proof = Some(Proof {
            incarnation: self.record.incarnation,
            cause,
            at_ms: SystemClock.wall_ms(),
            took_ms,
            exit: self.exit,
        });
        self.journal.note(format_args!(
            "incarnation {}: stopped ({cause:?}), nothing of it is left after {took_ms} ms",
            self.record.incarnation
        ));
    }

    /// What may take its time, once nothing runs.
    fn settle(&mut self) {
        if std::mem::take(&mut self.unwritten)
            && let Err(e) = self.record.write(&self.dir)
        {
            // No harm: without it the next guard looks for itself.
            self.journal.note(format_args!("the record cannot be written: {e}"));
        }
        self.journal.write();
    }

    fn terminate(&mut self) {
        if !std::mem::replace(&mut self.ending, true) {
            service::notify(service::Notice::Stopping);
        }
        self.begin_stop(TERMINATED, Cause::Terminated);
    }

    pub(super) fn begin_stop(&mut self, limits: Limits, cause: Cause) {
        let now = SystemClock.boottime();
        let before = self.machine.stop_began();
        self.machine.stop(now, limits, cause);
        if before.is_none() && self.machine.stop_began().is_some() {
            // The signal first, the word after it.
            self.obey(now);
            self.cause = self.machine.stop_began().map(|(cause, _)| cause);
            self.tell(Event::Stopping);
        }
    }

    pub(super) fn gone(&mut self, connection: u64) {
        if self.owner == Some(connection) {
            self.owner = None;
            self.unused_since = SystemClock.boottime();
        }
    }

    pub(super) fn is_owner(&self, connection: u64) -> bool {
        self.owner == Some(connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_fits_the_guard() {
        let unit = include_str!("../../dist/had-guard@.service");
        let daemon = include_str!("../../dist/had.service");
        let value = |unit: &'static str, key: &str| {
            let mut found = unit.lines().filter_map(|l| l.strip_prefix(key)?.strip_prefix('='));
            let first = found.next().unwrap_or_else(|| panic!("{key} is missing"));
            assert_eq!(found.next(), None, "{key} is there twice");
            first
        };
        let stop: u64 = value(unit, "TimeoutStopSec").parse().unwrap();
        assert!(Duration::from_secs(stop) > TERMINATED.fast.unwrap() + TERMINATED.quit);
        for key in ["User", "Group", "UMask"] {
            assert_eq!(value(unit, key), value(daemon, key));
        }
        assert!(value(unit, "ExecStart").ends_with("had guard %i"));
        // SIGTERM is for the guard alone, and its death is everybody's.
        assert_eq!(value(unit, "KillMode"), "mixed");
        assert_eq!((value(unit, "Type"), value(unit, "Delegate")), ("notify", "yes"));
        assert!(!unit.contains("PartOf") && !unit.contains("BindsTo") && !unit.contains("Requires"));
        let rules = include_str!("../../dist/had.rules");
        assert!(rules.contains(&format!("\"{}\"", value(unit, "User"))));
        assert!(rules.contains("had-guard@[a-z0-9-]{1,63}"));
    }
}
