//! What is shown of a group: what is wanted, what the record says, and what each instance reports, with its age.

use std::collections::BTreeMap;

use ha_core::database::local::{Directory, Report, Server, Task};
use ha_core::database::record::FailoverRecord;
use ha_core::database::{Durability, GroupSpec, GroupState, Phase, RoleWanted};
use ha_proto::v1;

use super::super::Master;
use super::super::hub::Update;
use super::decide::{NO_FAILOVER, pause_ms};
use super::store::Past;
use super::{Instance, hints, spec, wire};

/// Reasons shown.
const MAX_REASONS: usize = 24;
/// A standby that is further behind than this is catching up.
const CLOSE: u64 = 16 << 20;

impl Master<'_> {
    /// Shows one group; at once unless only measurements differ from what was shown last.
    pub(in crate::master) fn show_group(&mut self, name: &str) {
        let Some(shown) = self.group_view(name) else {
            self.forget_group(name);
            return;
        };
        let Some(group) = self.databases.groups.get_mut(name) else {
            return;
        };
        let essence = |g: &v1::Group| without_measurements(g.clone());
        let urgent = group.shown.as_ref().is_none_or(|old| essence(old) != essence(&shown));
        let states = |g: &v1::Group| -> Vec<_> {
            let of = g.instances.iter();
            of.map(|i| (i.node.clone(), i.state, i.wanted_primary)).collect()
        };
        let nodes_too = group.shown.as_ref().is_none_or(|old| states(old) != states(&shown));
        self.stale_alerts |= urgent;
        group.shown = Some(shown.clone());
        self.tell_standbys(&shown);
        let nodes: Vec<String> = shown.instances.iter().map(|i| i.node.clone()).collect();
        self.tell(Update::Group(Box::new(shown), urgent));
        if nodes_too {
            nodes.iter().for_each(|n| self.show(n, true));
        }
    }

    /// The groups as last shown.
    pub(super) fn shown_groups(&self) -> impl Iterator<Item = &v1::Group> {
        self.databases.groups.values().filter_map(|g| g.shown.as_ref())
    }

    /// A node's instances, for the node's own line.
    pub(in crate::master) fn node_instances(&self, node: &str) -> Vec<v1::NodeInstance> {
        let of = |g: &v1::Group| {
            let i = g.instances.iter().find(|i| i.node == node)?;
            Some(v1::NodeInstance {
                group: g.name.clone(),
                primary: i.wanted_primary,
                state: i.state,
            })
        };
        self.shown_groups().filter_map(of).collect()
    }

    /// A group whole; none if it was removed or never came to be.
    pub(super) fn group_view(&self, name: &str) -> Option<v1::Group> {
        let stored = self.store.groups.get(name)?;
        let damaged = self.store.damaged_group(name);
        let spec = match stored.live() {
            Some(spec) => spec.clone(),
            None if damaged.is_some() => GroupSpec::on([]),
            None => return None,
        };
        let record = stored.record();
        let group = self.databases.groups.get(name)?;
        let instances = self.instances(name, &spec, &record);
        let reasons = group.reasons.iter().take(MAX_REASONS);
        let why_no_failover: Vec<String> = reasons
            .clone()
            .filter(|r| r.starts_with(NO_FAILOVER) || record.phase == Phase::Electing)
            .cloned()
            .collect();
        let mut problems: Vec<String> = damaged.iter().map(|e| format!("damaged: {e}")).collect();
        problems.extend(self.problems(name, &spec, &record, &instances));
        let serves = instances
            .iter()
            .any(|i| i.wanted_primary && i.state() == v1::InstanceState::Running);
        let health = if damaged.is_some() || !serves {
            v1::GroupHealth::NoPrimary
        } else if problems.is_empty() {
            v1::GroupHealth::Healthy
        } else {
            v1::GroupHealth::Degraded
        };
        let proxies = self.databases.proxies.iter().flat_map(|(node, all)| {
            let of = all.iter().filter(|p| p.group == name);
            of.map(|p| v1::ProxyStatus {
                node: node.clone(),
                address: p.address.clone(),
                standby_address: p.standby_address.clone(),
                connections: p.connections,
                waiting: p.waiting,
                error: wire::line(&p.error),
            })
        });
        let history = stored.history.envelope.value.as_deref().unwrap_or_default();
        let failover = history.iter().rev().find(|p| p.what.kind == "failover");
        let changing = |id: &&String| {
            let op = self.store.ops.get(*id).and_then(|s| s.envelope.value.as_ref());
            op.is_some_and(|o| {
                record.last.as_ref().is_some_and(|l| !l.done && l.operation == **id) || o.finished_ms.is_none()
            })
        };
        let running = self.running_on(name);
        Some(v1::Group {
            name: name.to_owned(),
            spec: Some(spec::show(&spec)),
            record: Some(self.record_view(name, &record)),
            health: health.into(),
            problems,
            instances,
            proxies: proxies.collect(),
            why_no_failover,
            last_change: record.last.as_ref().map(|last| match history.last() {
                Some(past) if past.what.started_ms == last.started_ms => past_view(past),
                _ => entry(last, record.timeline),
            }),
            last_failover_unix_ms: failover.map_or(0, |p| p.what.started_ms),
            last_failover_gap_ms: failover.and_then(|p| pause_ms(&p.what)).unwrap_or(0),
            revision: stored.spec.envelope.revision(),
            observed_unix_ms: self.wall_ms(),
            operation_id: running.iter().find(changing).cloned().unwrap_or_default(),
        })
    }

    fn record_view(&self, name: &str, r: &GroupState) -> v1::GroupRecord {
        let version = self.store.groups.get(name).map_or(0, |g| g.state.version);
        let proof = r
            .switchover
            .as_ref()
            .and_then(|_| self.databases.groups.get(name)?.instances.get(r.primary.as_ref()?))
            .is_some_and(|i| i.report.stopped.is_some());
        v1::GroupRecord {
            term: self.won.term,
            epoch: r.epoch,
            phase: hints::phase(r.phase).into(),
            primary: r.primary.clone().unwrap_or_default(),
            rules: r
                .rules
                .iter()
                .map(|rule| v1::DurabilityRule {
                    voters: rule.voters.iter().cloned().collect(),
                    need: rule.need,
                    primaries: rule.primaries.iter().cloned().collect(),
                    id: rule.id,
                })
                .collect(),
            applying: r.applying,
            timeline: r.timeline,
            lineage: r.lineage.0.iter().map(crate::agent::database::wire::branch).collect(),
            granters: r.granters.iter().cloned().collect(),
            system_id: r.system_id.unwrap_or(0),
            since_unix_ms: r.since_ms,
            reason: r.reason.clone(),
            version: u64::try_from(version).unwrap_or(0),
            former: r.former.clone().unwrap_or_default(),
            switching_to: r.switchover.as_ref().map_or(String::new(), |s| s.to.clone()),
            switching_step: match (&r.switchover, proof) {
                (None, _) => String::new(),
                (Some(_), false) => "stopping".to_owned(),
                (Some(_), true) => "catching-up".to_owned(),
            },
            degraded: r.degraded.clone().unwrap_or_default(),
        }
    }

    fn instances(&self, name: &str, spec: &GroupSpec, record: &GroupState) -> Vec<v1::Instance> {
        let listed = spec.nodes.iter().filter(|(_, i)| i.role != RoleWanted::None);
        let nodes: std::collections::BTreeSet<&String> =
            listed.map(|(n, _)| n).chain(record.instances.keys()).collect();
        let told: BTreeMap<&str, &Instance> = self.databases.groups.get(name).map_or_else(BTreeMap::new, |g| {
            g.instances.iter().map(|(n, i)| (n.as_str(), i)).collect()
        });
        let primary = record.primary.as_deref().and_then(|p| told.get(p)).copied();
        let unread = self.databases.groups.get(name).map(|g| &g.unread);
        let of = nodes.into_iter().map(|n| {
            let here = self.members.get(n).is_some_and(|m| m.stream.is_some());
            let mut shown = instance(n, spec, record, told.get(n.as_str()).copied(), primary, here);
            if shown.state() == v1::InstanceState::Disconnected && shown.detail.is_empty() {
                shown.detail = self.starves(name, spec, record, n).unwrap_or_default();
            }
            if let Some(errors) = unread.and_then(|u| u.get(n)) {
                shown.detail = errors.first().cloned().unwrap_or_default();
                shown.errors.clone_from(errors);
            }
            shown
        });
        of.collect()
    }

    /// Why a standby can never stream again as it is.
    fn starves(&self, name: &str, spec: &GroupSpec, record: &GroupState, node: &str) -> Option<String> {
        let memory = &self.databases.groups.get(name)?.memory;
        let observed = self.observed(name, spec, record);
        ha_core::database::group::starved(spec, record, &observed, memory, &self.timing(), node)
    }

    fn problems(&self, name: &str, spec: &GroupSpec, record: &GroupState, all: &[v1::Instance]) -> Vec<String> {
        let mut problems = Vec::new();
        let now = self.now();
        let group = self.databases.groups.get(name);
        match (record.phase, &record.primary) {
            (Phase::Steady, Some(p)) => {
                let state = all.iter().find(|i| i.node == *p).map(v1::Instance::state);
                if state != Some(v1::InstanceState::Running) {
                    problems.push(format!("{p} is the primary and does not take writes"));
                }
            }
            (Phase::New, _) => problems.push("it never had a primary".to_owned()),
            (phase, _) => problems.push(format!("no primary: {}", hints::phase(phase).word())),
        }
        problems.extend(record.degraded.iter().map(|why| format!("degraded: {why}")));
        for i in all.iter().filter(|i| !i.wanted_primary) {
            let word = i.state().word();
            match i.state() {
                v1::InstanceState::Streaming => {}
                v1::InstanceState::Unspecified if i.detail.is_empty() => {
                    problems.push(format!("{}: does not report", i.node));
                }
                v1::InstanceState::Unspecified => problems.push(format!("{}: cannot be run: {}", i.node, i.detail)),
                _ if i.detail.is_empty() => problems.push(format!("{}: {word}", i.node)),
                _ => problems.push(format!("{}: {word}: {}", i.node, i.detail)),
            }
        }
        let stuck = group.and_then(|g| g.memory.joint_since);
        if let Some((_, since)) = stuck.filter(|(_, at)| now.saturating_sub(*at).as_secs() >= 10) {
            let s = now.saturating_sub(since).as_secs();
            problems.push(format!(
                "the change of durability is stuck for {s} s: too few standbys stream to leave it"
            ));
        }
        let missing = (spec.instances as usize).saturating_sub(record.instances.len());
        if missing > 0 && record.phase != Phase::New {
            problems.push(format!("{missing} instances are missing: no node can take one"));
        }
        problems
    }
}

/// The view without what changes with every measurement: what is left is told at once.
fn without_measurements(mut g: v1::Group) -> v1::Group {
    g.observed_unix_ms = 0;
    // Reasons count milliseconds.
    g.why_no_failover.truncate(0);
    g.problems.iter_mut().for_each(|p| p.retain(|c| !c.is_ascii_digit()));
    for i in &mut g.instances {
        i.reported_unix_ms = 0;
        i.lsn = 0;
        i.behind_bytes = i.behind_bytes.map(|_| 0);
        i.behind_ms = i.behind_ms.map(|_| 0);
        i.lease_left_ms = i.lease_left_ms.map(|_| 0);
        i.data_bytes = 0;
        i.wal_bytes = 0;
        i.connections = 0;
        i.detail.clear();
        i.not_eligible.clear();
        i.waits_for.retain(|c| !c.is_ascii_digit());
    }
    for p in &mut g.proxies {
        p.connections = 0;
        p.waiting = 0;
    }
    g
}

fn state(r: &Report, record: &GroupState, lag: Option<u64>) -> v1::InstanceState {
    use v1::InstanceState as S;
    match &r.task {
        Some(Task::Create) => return S::Initialising,
        Some(Task::Promote) => return S::Promoting,
        Some(Task::Rewind) => return S::Rewinding,
        Some(Task::Copy { .. }) => return S::Copying,
        Some(Task::Start | Task::Stop) | None => {}
    }
    match r.server {
        Server::Starting => S::Starting,
        Server::Stopping | Server::Orphaned => S::Stopping,
        Server::Stopped if r.failed.is_some() => S::Failed,
        Server::Stopped if r.directory == Directory::Empty => S::Empty,
        Server::Stopped => S::Stopped,
        Server::Running => match (&r.primary, &r.streams) {
            (Some(p), _) if p.open && p.epoch == record.epoch => S::Running,
            (Some(_), _) => S::Closed,
            (None, _) if record.phase == Phase::Electing && r.sealed == Some(record.epoch) => S::Sealed,
            (None, Some(_)) if lag.is_some_and(|l| l > CLOSE) => S::CatchingUp,
            (None, Some(_)) => S::Streaming,
            (None, None) => S::Disconnected,
        },
    }
}

fn instance(
    node: &str,
    spec: &GroupSpec,
    record: &GroupState,
    told: Option<&Instance>,
    primary: Option<&Instance>,
    here: bool,
) -> v1::Instance {
    let kept = record.instances.get(node);
    let wanted_primary = record.primary.as_deref() == Some(node);
    let voter = record.rule().is_some_and(|r| r.voters.contains(node));
    let held = kept.and_then(|k| k.held_until_ms);
    let mut view = v1::Instance {
        node: node.to_owned(),
        role: spec::role(spec.role(node)).into(),
        priority: spec.priority(node),
        chosen: kept.is_some_and(|k| k.chosen),
        wanted_primary,
        voter,
        held_until_unix_ms: held.unwrap_or(0),
        held_because: match (held, kept) {
            (Some(_), Some(k)) => format!("it failed {} times as primary", k.failures_ms.len()),
            _ => String::new(),
        },
        not_eligible: obstacles(node, spec, record, told, here),
        ..v1::Instance::default()
    };
    let Some(i) = told else {
        return view;
    };
    let r = &i.report;
    let leads = primary.and_then(|p| p.report.primary.as_ref().map(|own| (p, own)));
    let at = r.log.or_else(|| r.stopped.as_ref().and_then(|p| p.log));
    // A standby's own position is older or newer than the primary's: what the primary knows of it is of one moment.
    let behind = leads.filter(|_| !wanted_primary).and_then(|(p, own)| {
        let end = p.report.log?.lsn;
        let lsn = own
            .flushed
            .get(node)
            .copied()
            .or_else(|| r.streams.as_ref().and(r.log).map(|l| l.lsn))?;
        Some(end.past(lsn))
    });
    view.reported_unix_ms = i.at_ms;
    view.reported_primary = r.primary.is_some();
    view.state = if here {
        state(r, record, behind)
    } else {
        v1::InstanceState::Unspecified
    }
    .into();
    view.detail = detail(r, &i.wire);
    view.timeline = r.history.timeline();
    view.lsn = at.map_or(0, |l| l.lsn.0);
    view.behind_bytes = behind;
    view.behind_ms = behind.and_then(|bytes| match (bytes, i.wire.replayed_unix_ms) {
        (0, _) => Some(0),
        (_, 0) => None,
        (_, at) => u64::try_from(i.at_ms - at).ok(),
    });
    let walsender = primary.and_then(|p| p.wire.primary.as_ref()?.walsenders.iter().find(|w| w.node == node));
    view.sync = match walsender.map(v1::Walsender::sync) {
        _ if wanted_primary || r.streams.is_none() => v1::SyncState::Unspecified,
        Some(told) if told != v1::SyncState::Unspecified => told,
        _ if voter && record.rule().is_some_and(|r| r.need > 0) => v1::SyncState::Quorum,
        _ => v1::SyncState::Async,
    }
    .into();
    view.lease_left_ms = i.wire.lease_left_ms;
    view.pending_restart.clone_from(&i.wire.pending_restart);
    view.waits_for = r.waits.first().cloned().unwrap_or_default();
    view.address = wire::line(&i.wire.address);
    view.version = wire::line(&i.wire.version);
    view.data_bytes = i.wire.data_bytes;
    view.wal_bytes = i.wire.wal_bytes;
    view.connections = i.wire.connections;
    view.upstream = r.streams.as_ref().map_or(String::new(), |u| u.node.clone());
    view.errors = i.wire.errors.iter().take(8).map(|e| wire::line(e)).collect();
    view
}

fn detail(r: &Report, wire: &v1::InstanceReport) -> String {
    if let Some((task, why)) = &r.failed {
        return format!("{task} failed: {why}");
    }
    match &r.task {
        Some(Task::Copy {
            progress: Some((done, total)),
        }) if *total > 0 => {
            format!("base backup, {} %", (done.saturating_mul(100) / total).min(100))
        }
        Some(task) => task.to_string(),
        None => match &r.unfit {
            Some(unfit) => unfit.why.clone(),
            None => wire.errors.first().map_or(String::new(), |e| super::wire::line(e)),
        },
    }
}

/// Why an instance could not become primary now, a line each.
pub(super) fn obstacles(
    node: &str,
    spec: &GroupSpec,
    record: &GroupState,
    told: Option<&Instance>,
    here: bool,
) -> Vec<String> {
    let mut why = Vec::new();
    if record.primary.as_deref() == Some(node) {
        return why;
    }
    match spec.role(node) {
        RoleWanted::None => why.push("no instance is wanted there".to_owned()),
        RoleWanted::Async if spec.durability != Durability::Async => why.push("its role is to follow only".to_owned()),
        _ => {}
    }
    if spec.priority(node) == 0 {
        why.push("its priority is 0: never by itself".to_owned());
    }
    if record.rebuilding(node) {
        why.push("its data are being rebuilt".to_owned());
    }
    match told.filter(|_| here) {
        None => why.push("it does not report".to_owned()),
        Some(i) => {
            why.extend(i.report.unfit.as_ref().map(|u| u.why.clone()));
            why.extend(i.report.failed.as_ref().map(|(t, w)| format!("{t} failed: {w}")));
            if i.report.streams.is_none() && record.phase == Phase::Steady {
                why.push("it does not stream".to_owned());
            }
        }
    }
    why
}

fn kind(of: &FailoverRecord, forced: bool) -> v1::PrimaryChange {
    match of.kind.as_str() {
        "first primary" => v1::PrimaryChange::Bootstrap,
        "switchover" => v1::PrimaryChange::Switchover,
        "restart in place" => v1::PrimaryChange::Restart,
        "abort" => v1::PrimaryChange::Aborted,
        "failover" if forced => v1::PrimaryChange::Forced,
        "failover" => v1::PrimaryChange::Failover,
        _ => v1::PrimaryChange::Unspecified,
    }
}

fn entry(last: &FailoverRecord, timeline: u32) -> v1::HistoryEntry {
    v1::HistoryEntry {
        epoch: last.epoch,
        kind: kind(last, last.loss_bytes.is_some() && !last.operation.is_empty()).into(),
        from: last.from.clone().unwrap_or_default(),
        to: last.to.clone().unwrap_or_default(),
        started_unix_ms: last.started_ms,
        phases: last
            .phases
            .iter()
            .map(|p| v1::HistoryPhase {
                name: p.name.clone(),
                at_ms: p.at_ms,
                text: String::new(),
            })
            .collect(),
        gap_ms: pause_ms(last),
        reason: last.cause.clone(),
        actor: "master".to_owned(),
        timeline,
        decision: last.decision.clone(),
        lost_bytes: last.loss_bytes,
        operation_id: last.operation.clone(),
        error: last.rolled_back.clone().unwrap_or_default(),
        ..v1::HistoryEntry::default()
    }
}

/// One change of primary that is over.
pub(super) fn past_view(p: &Past) -> v1::HistoryEntry {
    v1::HistoryEntry {
        finished_unix_ms: p.finished_ms,
        from_epoch: p.from_epoch,
        fork_lsn: p.fork,
        actor: if p.actor.is_empty() {
            "master".to_owned()
        } else {
            p.actor.clone()
        },
        ..entry(&p.what, p.timeline)
    }
}

/// The change of primary that is under way.
pub(super) fn under_way(record: &GroupState) -> Option<v1::HistoryEntry> {
    let last = record.last.as_ref()?;
    (!last.done && last.rolled_back.is_none()).then(|| entry(last, record.timeline))
}
