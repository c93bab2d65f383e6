//! What an instance knows of itself now: made of the guard's word, the last look at the server, the files and the marks.
//!
//! Where nothing is known, that is what is said: a position, a receiver or a name is never guessed.

use std::collections::BTreeMap;
use std::time::Duration;

use ha_core::database::local::{self, Directory, Local, Receiver, Server, Task, Walsender};
use ha_core::database::{Lsn, Names, floors};

use super::disk;
use super::driver::Driver;
use super::look::Look;
use crate::guard::{Cause, State, Status};
use crate::postgres::probe::Probe;

/// The node of one of had's slots.
fn node_of(slot: &str) -> Option<String> {
    slot.strip_prefix("had_").map(|n| n.replace('_', "-"))
}

impl Driver {
    /// What the guard said last.
    pub(super) fn status(&self) -> Option<Status> {
        self.view.borrow().status.clone()
    }

    /// The last look at the incarnation that runs.
    pub(super) fn present_look(&self, status: &Status) -> Option<Look> {
        let looked = self.looked.borrow();
        let look = looked.look.as_ref()?;
        (status.state == State::Running && look.incarnation == status.incarnation).then(|| look.clone())
    }

    fn server(&self, status: &Status, look: Option<&Look>) -> Server {
        match status.state {
            State::Idle => Server::Stopped,
            State::Stopping if status.pid.is_none() && status.cause == Some(Cause::Died) => Server::Orphaned,
            State::Stopping => Server::Stopping,
            State::Running if look.is_some() => Server::Running,
            State::Running => Server::Starting,
        }
    }

    /// Everything that is known now. None while the guard or the files were not seen yet.
    pub(super) fn gather(&self, now: Duration) -> Option<Local> {
        let status = self.status()?;
        let disk = self.disk.as_ref()?;
        let look = self.present_look(&status);
        let server = self.server(&status, look.as_ref());
        let marks = self.instance.marks.get();
        let kept = self.kept.get();
        let role = kept.roles.get(&status.incarnation).copied().unwrap_or_default();
        let standby = look.as_ref().map(|l| l.probe.standby);
        let settled = self.disk_is_of(&status);
        let on_disk = disk.log.as_ref().filter(|_| settled);
        let (history, log) = match (&look, on_disk) {
            (Some(l), _) if !l.probe.standby => (self.lineage.clone(), l.probe.flushed),
            (Some(l), Some((end, _))) => {
                let heard = l.probe.received.max(l.probe.replayed);
                (self.lineage.clone(), Some(*end).max(heard))
            }
            (None, Some((end, lineage))) if server == Server::Stopped => (lineage.clone(), Some(*end)),
            _ => (self.lineage.clone(), None),
        };
        let slots = look.as_ref().map_or_else(BTreeMap::new, |l| slots(&l.probe));
        let upstream = match &look {
            Some(l) => l.force.upstream.clone().map(disk::upstream),
            None => self.set.upstream.clone(),
        };
        let promoted = look
            .as_ref()
            .filter(|l| !l.probe.standby && !role.started_primary)
            .and_then(|l| {
                let last = self.lineage.last().copied()?;
                (l.probe.timeline == Some(last.timeline) && marks.promotion == Some(last.epoch)).then_some(last)
            });
        Some(Local {
            node: self.me.node.clone(),
            directory: disk.directory,
            server,
            incarnation: status.incarnation,
            was_primary: role.primary,
            in_recovery: standby.unwrap_or(false),
            standby_signal: disk.standby,
            history,
            log,
            replayed: look
                .as_ref()
                .map_or(Lsn(0), |l| l.probe.replayed.or(l.probe.flushed).unwrap_or_default()),
            marks: local::Marks {
                refused: marks.refused,
                promotion: marks.promotion,
                rebuilt: kept.rebuilt,
            },
            upstream,
            restores: look.as_ref().is_some_and(|l| l.force.restores),
            receiver: self.receiver(&status, look.as_ref()),
            heard: look.as_ref().and_then(|l| heard(l, now)),
            names: look.as_ref().map(|l| l.force.names.clone()),
            names_set: matches!(disk.directory, Directory::Present { .. }).then(|| self.set.names.clone()),
            names_lsn: look.as_ref().and_then(|_| self.names_seen.as_ref().and_then(|s| s.lsn)),
            walsenders: look.as_ref().map_or_else(Vec::new, |l| walsenders(&l.probe)),
            recovered: self
                .recovered
                .filter(|(i, _)| *i == status.incarnation)
                .map(|(_, lsn)| lsn),
            promoted,
            redo: self.redo.or(disk.control.as_ref().map(|c| c.redo)),
            probe_failing: self.write_failing(look.as_ref()),
            archiver_stuck: look.as_ref().and_then(|l| l.probe.archive_failing.clone()),
            lease_until: self.lease_until(),
            grant_given_until: self.granted_until,
            grants_held: self.grants_held.clone(),
            slots,
            task: self.task(&status, server),
            failed: self.failed.clone(),
            oldest: self.looked.borrow().details.as_ref().and_then(|d| d.oldest),
            insufficient: self.insufficient(look.as_ref(), now),
            pending_restart: self.pending(),
        })
    }

    /// Up to when the last acknowledged heartbeat holds, whatever became of its session.
    fn lease_until(&self) -> Option<Duration> {
        self.lease.borrow().until.max(self.leased)
    }

    /// Parameters that are too low for what is to be replayed. A restart is to mend that, and is not tried again and again.
    fn insufficient(&self, look: Option<&Look>, now: Duration) -> Vec<String> {
        let paused = look.is_some_and(|l| l.probe.standby && l.probe.paused);
        let looked = self.looked.borrow();
        let control = self.disk.as_ref().and_then(|d| d.control.as_ref());
        let (Some(details), Some(control)) = (&looked.details, control) else {
            return Vec::new();
        };
        if !paused || now < self.upkeep.raised_at {
            return Vec::new();
        }
        let lower = floors::lower(&details.floors, &control.floors);
        lower.into_iter().map(str::to_owned).collect()
    }

    fn pending(&self) -> std::collections::BTreeSet<String> {
        let looked = self.looked.borrow();
        let all = looked.details.iter().flat_map(|d| &d.pending_restart);
        all.map(|p| p.parameter.clone()).collect()
    }

    /// What is being done that takes long.
    fn task(&self, status: &Status, server: Server) -> Option<Task> {
        if let Some(task) = &self.task {
            return Some(
                match (
                    &task.what,
                    *task.progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner),
                ) {
                    (Task::Copy { .. }, progress) => Task::Copy { progress },
                    (other, _) => other.clone(),
                },
            );
        }
        match server {
            Server::Starting => Some(Task::Start),
            Server::Stopping if status.cause == Some(Cause::Asked) => Some(Task::Stop),
            _ => None,
        }
    }

    /// A receiver is gone for good only once its end was watched with an empty upstream in force, and while nothing was
    /// seen of another.
    fn receiver(&self, status: &Status, look: Option<&Look>) -> Receiver {
        let Some(look) = look else {
            return Receiver::Gone;
        };
        if look.probe.receiver.is_some() {
            return Receiver::Running;
        }
        let told_nobody = self.set.upstream.is_none() && !look.force.streams && !look.probe.restores;
        if told_nobody && self.receiver_ended == Some(status.incarnation) {
            Receiver::Gone
        } else {
            Receiver::Between
        }
    }

    /// Since when a primary that should write does not: its probes fail, or it does not even say how it is.
    fn write_failing(&self, look: Option<&Look>) -> Option<Duration> {
        look.filter(|l| !l.probe.standby)?;
        let writes = self.writes.borrow().failing.as_ref().map(|(since, _)| *since);
        let looks = self.looked.borrow().failing.as_ref().map(|(since, _)| *since);
        match (writes, looks) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Notes what has to be remembered of a new look: where the log was when names and walsenders were first seen as they
    /// are, and where crash recovery ended.
    pub(super) fn note_look(&mut self) {
        let Some(status) = self.status() else { return };
        let Some(look) = self.present_look(&status) else {
            self.names_seen = None;
            return;
        };
        if look.probe.standby {
            self.names_seen = None;
            return;
        }
        let mut senders: Vec<_> = look.probe.senders.iter().map(|s| (s.pid, s.priority)).collect();
        senders.sort_unstable();
        let seen = NamesSeen {
            incarnation: look.incarnation,
            names: look.force.names.clone(),
            senders,
            lsn: None,
        };
        let same = self.names_seen.as_ref().is_some_and(|old| {
            NamesSeen {
                lsn: None,
                ..old.clone()
            } == seen
        });
        if !same {
            // The position was asked on the connection that saw the names, after the walsenders were seen: only an answer
            // that is as young counts.
            let lsn = look.force.lsn.filter(|_| self.force_is_young(&look));
            self.names_seen = lsn.map(|lsn| NamesSeen { lsn: Some(lsn), ..seen });
            if lsn.is_none() {
                self.look_due = true;
            }
        }
        let role = self
            .kept
            .get()
            .roles
            .get(&status.incarnation)
            .copied()
            .unwrap_or_default();
        if role.started_primary && self.recovered.is_none_or(|(i, _)| i != status.incarnation) {
            self.recovered = look.probe.flushed.map(|lsn| (status.incarnation, lsn));
        }
    }

    /// Whether what is in force was asked with this look, and not before it: its position is not behind the probe's.
    fn force_is_young(&self, look: &Look) -> bool {
        look.force.lsn >= look.probe.inserted
    }
}

/// Names and walsenders, and where the log was when they were first seen so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamesSeen {
    incarnation: u64,
    names: Names,
    senders: Vec<(u32, u32)>,
    lsn: Option<Lsn>,
}

fn heard(look: &Look, now: Duration) -> Option<(local::Upstream, Duration)> {
    let receiver = look.probe.receiver.as_ref()?;
    let upstream = receiver.upstream.clone().map(disk::upstream)?;
    Some((upstream, receiver.heard? + now.saturating_sub(look.began)))
}

fn walsenders(probe: &Probe) -> Vec<Walsender> {
    let of = probe.senders.iter().filter_map(|s| {
        let (node, epoch) = s.standby.clone()?;
        Some(Walsender {
            node,
            epoch,
            streaming: s.state == "streaming",
            priority: s.priority,
            flushed: s.flushed,
        })
    });
    of.collect()
}

fn slots(probe: &Probe) -> BTreeMap<String, u64> {
    let usable = probe.slots.iter().filter(|s| !s.lost);
    usable.filter_map(|s| Some((node_of(&s.name)?, s.held_bytes))).collect()
}
