//! What an agent observes of its own PostgreSQL: by queries where the server answers, by its files where it does not.

use std::time::Duration;

use ha_core::database::local::{Directory, Local, Receiver, Server, Upstream, Walsender};
use ha_core::database::{Branch, Lineage, Lsn, Names};

use super::postgres::{self, Phase};
use super::wal::Pos;
use super::world::{N, World};

impl World {
    /// Names as the core writes them.
    pub fn core_names(&self, names: postgres::Names) -> Names {
        match names {
            postgres::Names::Empty => Names::Empty,
            postgres::Names::Closed => Names::Closed,
            postgres::Names::Any { need, epoch, who } => Names::Any {
                need: u32::from(need),
                epoch,
                voters: (0..self.machines.len())
                    .filter(|n| who & (1 << n) != 0)
                    .map(|n| self.scene.names[n].clone())
                    .collect(),
            },
        }
    }

    /// Names as the simulated server keeps them.
    pub fn sim_names(&self, names: &Names) -> postgres::Names {
        match names {
            Names::Empty => postgres::Names::Empty,
            Names::Closed | Names::Other(_) => postgres::Names::Closed,
            Names::Any { need, epoch, voters } => postgres::Names::Any {
                need: u8::try_from(*need).unwrap_or(u8::MAX),
                epoch: *epoch,
                who: voters
                    .iter()
                    .filter_map(|v| self.node(v))
                    .fold(0, |bits, v| bits | 1 << v),
            },
        }
    }

    /// An upstream as the core names it.
    pub fn core_upstream(&self, follow: Option<(N, u64)>) -> Option<Upstream> {
        follow.map(|(n, epoch)| Upstream {
            node: self.scene.names[n].clone(),
            epoch,
        })
    }

    /// A branch as the core names it.
    pub fn core_branch(&self, id: super::wal::BranchId) -> Branch {
        let branch = self.tree.get(id);
        Branch {
            epoch: branch.epoch,
            timeline: branch.timeline,
            fork: Lsn(branch.parent.map_or(0, |p| p.lsn)),
        }
    }

    /// The history of a log that ends here.
    pub fn history(&self, end: Pos) -> Lineage {
        let mut branches: Vec<Branch> = self.tree.path(end).map(|p| self.core_branch(p.branch)).collect();
        branches.reverse();
        Lineage(branches)
    }

    /// Everything that the agent knows of its instance now.
    pub fn gather(&mut self, n: N) -> Local {
        let clock = self.clock(n);
        let micros = Duration::from_micros;
        self.note_names(n);
        let instance = &self.pg[n];
        let disk = &instance.disk;
        let kept = &self.kept[n];
        let Some(daemon) = self.daemons[n].as_ref() else {
            return Local::default();
        };
        let directory = match disk.system {
            _ if disk.torn => Directory::Incomplete,
            None => Directory::Empty,
            Some(system_id) => Directory::Present { system_id },
        };
        let server = match &instance.server {
            None => Server::Stopped,
            Some(s) if !s.postmaster => Server::Orphaned,
            Some(s) if s.doomed || s.phase == Phase::Stopping => Server::Stopping,
            Some(s) if s.phase == Phase::Starting => Server::Starting,
            Some(_) => Server::Running,
        };
        let running = instance.answers();
        let known = running.is_some() || daemon.log_read == Some(instance.starts);
        let end = disk.flushed.filter(|_| known && directory != Directory::Incomplete);
        let receiver = match running {
            None => Receiver::Gone,
            Some(s) if s.receiver.is_some() => Receiver::Running,
            Some(s) if s.conf.follow.is_none() => Receiver::Gone,
            Some(_) => Receiver::Between,
        };
        let heard = running.and_then(|s| s.receiver).and_then(|r| {
            let upstream = self.core_upstream(Some((r.from, r.name_epoch)))?;
            Some((upstream, micros(self.now.saturating_sub(r.heard))))
        });
        Local {
            node: self.scene.names[n].clone(),
            directory,
            server,
            incarnation: u64::from(instance.starts),
            was_primary: kept.was_primary,
            in_recovery: running.is_some_and(|s| s.phase != Phase::Primary),
            standby_signal: disk.standby_signal,
            history: end.map(|at| self.history(at)).unwrap_or_default(),
            log: end.map(|at| Lsn(at.lsn)),
            replayed: Lsn(running.map_or(0, |s| s.replayed.lsn)),
            marks: kept.marks.clone(),
            upstream: self.core_upstream(running.map_or(disk.conf.follow, |s| s.conf.follow)),
            restores: false,
            receiver,
            heard,
            names: running.map(|s| self.core_names(s.conf.names)),
            names_set: disk.system.map(|_| self.core_names(disk.conf.names)),
            names_lsn: running.and(daemon.names_seen).map(|(_, _, lsn)| Lsn(lsn)),
            walsenders: running.map_or_else(Vec::new, |s| s.senders.iter().map(|s| self.walsender(s)).collect()),
            recovered: running.and_then(|s| s.recovered).map(Lsn),
            promoted: running.and_then(|s| s.promoted).map(|id| self.core_branch(id)),
            redo: disk.system.map(|_| Lsn(disk.restart_point)),
            probe_failing: daemon.probe_failing.map(|at| micros(clock.saturating_sub(at))),
            archiver_stuck: None,
            lease_until: daemon.session.and(daemon.lease_until).map(micros),
            grant_given_until: daemon.granted_until.map(micros),
            grants_held: daemon.grants_held.clone(),
            slots: self.slots(n),
            task: daemon.task.as_ref().map(|(task, _)| task.clone()),
            failed: daemon.failed.clone(),
            oldest: None,
            insufficient: Vec::new(),
            pending_restart: std::collections::BTreeSet::new(),
        }
    }

    fn slots(&self, n: N) -> std::collections::BTreeMap<String, u64> {
        let bits = self.pg[n].disk.slots;
        let held = (0..self.machines.len()).filter(|other| bits & (1 << other) != 0);
        held.map(|other| (self.scene.names[other].clone(), 0)).collect()
    }

    fn walsender(&self, sender: &postgres::Sender) -> Walsender {
        Walsender {
            node: self.scene.names[sender.standby].clone(),
            epoch: sender.name_epoch,
            streaming: true,
            priority: u32::from(sender.priority),
            flushed: Lsn(sender.confirmed),
        }
    }

    /// Notes where the log was when names and walsenders were first seen as they are.
    fn note_names(&mut self, n: N) {
        let instance = &self.pg[n];
        let seen = instance.answers().map(|s| {
            let senders = s.senders.iter().fold(0, |sum: u64, sender| {
                sum.wrapping_mul(31)
                    .wrapping_add(u64::from(sender.connection) * 2 + u64::from(sender.priority))
            });
            (s.conf.names, senders, instance.disk.written.map_or(0, |w| w.lsn))
        });
        let Some(daemon) = self.daemons[n].as_mut() else { return };
        let as_before = match (&daemon.names_seen, &seen) {
            (Some((names, senders, _)), Some((now, senders_now, _))) => names == now && senders == senders_now,
            _ => false,
        };
        if !as_before {
            daemon.names_seen = seen;
        }
    }
}
