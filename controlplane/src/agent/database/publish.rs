//! What an instance tells: its report to the master, and its state to this node's own endpoints.

use std::time::Duration;

use ha_core::database::local::{Directory, Local, Report, Server, Task};
use ha_core::database::{GroupState, Phase};
use ha_proto::v1;

use super::driver::Driver;
use super::look::Look;
use super::records::Known;
use super::wire;
use crate::proxy::local::{Instance, Pending, Role, State, Wal, Walsender};
use crate::proxy::routes::Sync;

/// Lines of one report.
const LINES: usize = 16;
/// A report is refreshed after this time though nothing in it is news.
const REFRESH: Duration = Duration::from_millis(200);

impl Driver {
    /// Tells the master and the endpoints how the instance is.
    pub(super) fn publish(&mut self, now: Duration, known: &Known, local: &Local, report: &Report) {
        let look = self.status().and_then(|s| self.present_look(&s));
        let mut wire = wire::report(&self.group, report);
        self.for_people(now, known, local, look.as_ref(), &mut wire);
        // A question is answered once everything was looked at after it came.
        if self
            .query_at
            .is_some_and(|at| look.as_ref().is_none_or(|l| l.began >= at))
        {
            self.query_at = None;
        }
        wire.query = match self.query_at {
            None => self.query,
            Some(_) => self.published.as_ref().map_or(0, |p| p.query),
        };
        let settled = known.state().is_some_and(|s| s.phase == Phase::Steady && !s.joint());
        let news = self
            .published
            .as_ref()
            .is_none_or(|old| wire::differs(old, &wire, settled));
        if news || now >= self.published_at + REFRESH {
            self.published_at = now;
            let looked = self.looked.borrow();
            let settings = looked
                .details
                .as_ref()
                .map(|d| &d.settings)
                .filter(|_| local.is_primary());
            self.env.board.publish_settings(&self.group, settings);
            drop(looked);
            self.env.board.publish(wire.clone(), news);
        }
        if news {
            tracing::trace!(group = %self.group, report = ?report, "report");
        }
        self.published = Some(wire);
        let instance = self.instance_of(now, known, local, look.as_ref(), report);
        self.env.publish_local(&self.group, instance);
    }

    /// Nothing is known of the instance yet: only what is wrong.
    pub(super) fn publish_unknown(&mut self, _now: Duration) {
        let detached = self.view.borrow().detached.clone();
        let errors = self.error_lines(detached);
        let known = self.known.borrow();
        let wire = v1::InstanceReport {
            group: self.group.clone(),
            epoch: known.state().map_or(0, |s| s.epoch),
            record_version: known.read.as_ref().map_or(0, |r| r.revision),
            errors,
            ..v1::InstanceReport::default()
        };
        drop(known);
        if self.published.as_ref() != Some(&wire) {
            self.env.board.publish(wire.clone(), true);
            self.published = Some(wire);
        }
    }

    fn error_lines(&self, detached: Option<String>) -> Vec<String> {
        let guard = detached.map(|why| format!("its guard cannot be reached: {why}"));
        guard
            .into_iter()
            .chain(self.errors.values().cloned())
            .take(LINES)
            .collect()
    }

    fn for_people(
        &self,
        now: Duration,
        known: &Known,
        local: &Local,
        look: Option<&Look>,
        wire: &mut v1::InstanceReport,
    ) {
        let kept = self.kept.get();
        let status = self.status();
        let detached = self.view.borrow().detached.clone();
        wire.errors = self.error_lines(detached);
        wire.spec_revision = self.upkeep.revision;
        wire.recovery = kept.recovery;
        wire.lease_left_ms = status.and_then(|s| s.until).map(|until| {
            let until = Duration::from_nanos(until);
            let left = until.saturating_sub(now).as_millis();
            i64::try_from(left).unwrap_or(i64::MAX)
        });
        if let (Some(spec), Some(node)) = (&known.spec, self.nodes.borrow().get(&self.me.node)) {
            wire.address = node.endpoint(spec.port(&self.me.node));
        }
        if let Some(granted) = kept.granted
            && let Some(left) = local.grant_given_until.and_then(|until| until.checked_sub(now))
        {
            wire.grants.push(v1::GrantGiven {
                primary: granted.to,
                epoch: granted.epoch,
                left_ms: i64::try_from(left.as_millis()).unwrap_or(i64::MAX),
            });
        }
        if let Some(p) = &mut wire.primary {
            p.probe_ms = self
                .writes
                .borrow()
                .took
                .map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX));
        }
        let looked = self.looked.borrow();
        if let Some((since, why)) = &looked.failing
            && look.is_some()
            && now >= *since + Duration::from_secs(2)
        {
            wire.errors.push(format!("PostgreSQL does not answer: {why}"));
        }
        if let Some((_, why)) = &self.writes.borrow().failing {
            wire.errors.push(format!("a commit probe failed: {why}"));
        }
        if let Some(details) = &looked.details {
            wire.version.clone_from(&details.version);
            wire.data_bytes = details.data_bytes;
            wire.wal_bytes = details.wal_bytes;
            wire.floors = details.floors.to_vec();
            wire.errors.extend(details.errors.iter().take(LINES).cloned());
            wire.pending_restart = details
                .pending_restart
                .iter()
                .map(|p| v1::PendingRestart {
                    parameter: p.parameter.clone(),
                    current: p.current.clone(),
                    wanted: p.wanted.clone().unwrap_or_default(),
                })
                .collect();
        } else {
            wire.version = self.instance.install.release.to_string();
        }
        let Some(look) = look else { return };
        wire.connections = look.probe.clients;
        wire.replayed_unix_ms = replayed_ms(self.env.clock.wall_ms(), look);
        wire.slots = look
            .probe
            .slots
            .iter()
            .map(|s| v1::SlotReport {
                name: s.name.clone(),
                active: s.active,
                restart_lsn: s.restart.map_or(0, |l| l.0),
                retained_bytes: s.held_bytes,
                lost: s.lost,
            })
            .collect();
        if let Some(p) = &mut wire.primary {
            for w in &mut p.walsenders {
                let sender = look
                    .probe
                    .senders
                    .iter()
                    .find(|s| s.standby.as_ref().is_some_and(|(n, e)| *n == w.node && *e == p.epoch));
                let Some(sender) = sender else { continue };
                w.replayed_lsn = sender.replayed.0;
                w.sync = v1::SyncState::from_word(&sender.sync_state).unwrap_or_default().into();
                w.reply_age_ms = sender
                    .reply_age
                    .map(|a| u64::try_from(a.as_millis()).unwrap_or(u64::MAX));
            }
        }
    }

    fn instance_of(
        &self,
        now: Duration,
        known: &Known,
        local: &Local,
        look: Option<&Look>,
        report: &Report,
    ) -> Instance {
        let looked = self.looked.borrow();
        let details = looked.details.as_ref();
        let state = known.state();
        let open = report.primary.as_ref().is_some_and(|p| p.open);
        let never = local.directory == Directory::Empty;
        Instance {
            state: state_of(local),
            role: match (look, never) {
                (Some(l), _) if !l.probe.standby => Role::Primary,
                (None, true) => Role::Uninitialized,
                (None, false) if local.was_primary => Role::Primary,
                _ => Role::Replica,
            },
            leader: self.leads(now, local, open),
            sync: sync_of(state, &self.me.node),
            version: release_number(self.instance.install.release.major, self.instance.install.release.minor),
            system_id: match local.directory {
                Directory::Present { system_id } => system_id,
                Directory::Empty | Directory::Incomplete => 0,
            },
            timeline: local.history.timeline(),
            postmaster_start_ms: look.map_or(0, |l| l.probe.started_us / 1000),
            wal: look.map_or_else(Wal::default, |l| Wal {
                location: l.probe.flushed.map_or(0, |l| l.0),
                received: local.log.filter(|_| l.probe.standby).map_or(0, |l| l.0),
                replayed: l.probe.replayed.map_or(0, |l| l.0),
                replayed_ms: replayed_ms(self.env.clock.wall_ms(), l),
                paused: l.probe.paused,
            }),
            primary_lsn: self.primary_lsn(state, look),
            replication_state: match (look.and_then(|l| l.probe.receiver.as_ref()), local.restores) {
                (Some(r), _) if r.status == "streaming" => "streaming".to_owned(),
                (_, true) => "in archive recovery".to_owned(),
                _ => String::new(),
            },
            replication: look.map_or_else(Vec::new, |l| {
                let of = l.probe.senders.iter().map(|s| Walsender {
                    user: crate::postgres::conf::access::REPLICATION_ROLE.to_owned(),
                    application_name: s.name.clone(),
                    client_addr: String::new(),
                    state: s.state.clone(),
                    sync_state: s.sync_state.clone(),
                    sync_priority: s.priority,
                });
                of.collect()
            }),
            pending_restart: details.map_or_else(Vec::new, |d| {
                let of = d.pending_restart.iter().map(|p| Pending {
                    parameter: p.parameter.clone(),
                    old: p.current.clone(),
                    new: p.wanted.clone().unwrap_or_default(),
                });
                of.collect()
            }),
            paused: known.spec.as_ref().is_some_and(|s| s.paused(self.env.clock.wall_ms())),
            unlocked: state.is_none_or(|s| s.phase != Phase::Steady && s.phase != Phase::Switching),
            coordinator_seen_ms: self.coordinator_seen(now, local),
            ..Instance::default()
        }
    }

    /// The end of the primary's log, as the master and the replication link last told of it: whichever is newer.
    fn primary_lsn(&self, state: Option<&GroupState>, look: Option<&Look>) -> u64 {
        let seen = state.and_then(|s| self.env.board.standbys_of(&self.group, s.epoch));
        let receiver = look.and_then(|l| l.probe.receiver.as_ref());
        let told = receiver.and_then(|r| r.told).map_or(0, |l| l.0);
        told.max(seen.map_or(0, |s| s.primary_lsn))
    }

    /// When a heartbeat was last acknowledged, by the lease that follows from it.
    fn coordinator_seen(&self, now: Duration, local: &Local) -> i64 {
        let Some(until) = local.lease_until else { return 0 };
        let sent = until.saturating_sub(self.env.timing.session_timeout * 2 / 3);
        let ago = now.saturating_sub(sent);
        // In whole seconds: nobody is told anew of every millisecond.
        (self.env.clock.wall_ms() - i64::try_from(ago.as_millis()).unwrap_or_default()) / 1000 * 1000
    }
}

fn replayed_ms(wall_ms: i64, look: &Look) -> i64 {
    look.probe
        .replay_age
        .map_or(0, |age| wall_ms - i64::try_from(age.as_millis()).unwrap_or_default())
}

fn release_number(major: u32, minor: u32) -> u32 {
    major * 10_000 + minor
}

fn state_of(local: &Local) -> State {
    match (&local.task, local.server) {
        (Some(Task::Create), _) => State::Initializing,
        (Some(Task::Copy { .. }), _) => State::Copying,
        (Some(Task::Rewind), _) => State::Rewinding,
        (_, Server::Running) => State::Running,
        (_, Server::Starting) => State::Starting,
        (_, Server::Stopping) => State::Stopping,
        (_, Server::Orphaned) => State::Crashed,
        (_, Server::Stopped) if local.failed.is_some() => State::Crashed,
        (_, Server::Stopped) => State::Stopped,
    }
}

/// How commits wait for an instance by the rule in force.
pub(super) fn sync_of(state: Option<&GroupState>, node: &str) -> Sync {
    let rule = state.and_then(GroupState::rule).filter(|r| r.voters.contains(node));
    match rule {
        Some(r) if r.need as usize == r.voters.len() && r.need > 0 => Sync::Sync,
        Some(r) if r.need > 0 => Sync::Quorum,
        _ => Sync::Async,
    }
}
