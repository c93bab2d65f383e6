//! The master's side of PostgreSQL groups: what is observed of each, core's decision on it, and its carrying out.
//!
//! A decision is one compare-and-set of the group's record; agents are told right after it, the change log next, and
//! everything else after that. What a database waits for must never stand behind what is only shown or stored.

mod alerts;
mod ask;
mod avoid;
mod changes;
mod clients;
mod decide;
mod hints;
mod operations;
mod ports;
mod requests;
mod restart;
mod show;
mod spec;
mod steps;
pub(super) mod store;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ha_core::database::local::Report;
use ha_core::database::observed::{Candidate, Memory, Observed, Seen};
use ha_core::database::{GroupSpec, GroupState, Timing};
use ha_proto::v1;

use super::hub::Update;
use super::{DETECT, Master};

pub use ask::Question;
pub(super) use hints::Lines;
pub use requests::Change as GroupChange;
pub(super) use store::StoredGroup;

/// Time that a new master gives the agents to find it before their silence counts for databases.
const GRACE: Duration = DETECT;

/// What a report of a node said of databases.
#[derive(Debug, Default)]
pub(super) struct Told {
    instances: Vec<v1::InstanceReport>,
    proxies: Vec<v1::ProxyReport>,
    removed: Vec<String>,
    settings: Vec<v1::GroupSettings>,
    first: bool,
}

impl Told {
    /// Takes it out of a report: what is kept of the report itself is of the node.
    pub(super) fn take(report: &mut v1::AgentReport) -> Self {
        Self {
            instances: std::mem::take(&mut report.instances),
            proxies: std::mem::take(&mut report.proxies),
            removed: std::mem::take(&mut report.removed_instances),
            settings: std::mem::take(&mut report.settings),
            first: report.first,
        }
    }
}

/// An instance as its node last told of it.
#[derive(Debug)]
struct Instance {
    report: Report,
    wire: v1::InstanceReport,
    /// When, on the master's clock; for people in milliseconds since 1970.
    at: Duration,
    at_ms: i64,
}

/// What this master knows of one group beside what is stored.
#[derive(Debug, Default)]
struct Group {
    memory: Memory,
    instances: BTreeMap<String, Instance>,
    /// What nodes say is wrong that cannot tell of an instance yet.
    unread: BTreeMap<String, Vec<String>>,
    /// Parameters in force, by the node that was primary when it told of them.
    settings: BTreeMap<String, Vec<v1::Setting>>,
    /// Something changed that a decision may depend on.
    due: bool,
    /// When to decide though nothing changed.
    look_at: Option<Duration>,
    /// Why the last decision was what it was.
    reasons: Vec<String>,
    /// Why no failover could be made, as it was last put into the change log, and since when it is so.
    held: Option<(String, Duration, bool)>,
    /// As it was last shown.
    shown: Option<v1::Group>,
    /// What every node was last told of its standbys.
    told_standbys: Option<clients::Told>,
}

/// The groups of a master.
#[derive(Debug, Default)]
pub(super) struct Databases {
    groups: BTreeMap<String, Group>,
    /// The proxies of each node.
    proxies: BTreeMap<String, Vec<v1::ProxyReport>>,
    /// Steps of operations that are not stored yet.
    steps: BTreeMap<String, Vec<(i64, String)>>,
    /// From when on silence counts.
    settled_at: Duration,
    /// Since when this node leads on a primary's node though another could.
    on_primary_since: Option<Duration>,
    /// When restarts were last ordered, by operation.
    restarts: BTreeMap<String, Duration>,
    /// When a group refused to have its primary moved for a drain: the group and the drain's operation.
    refused: BTreeMap<(String, String), Duration>,
}

impl Databases {
    /// What a master begins with at `now`.
    pub(super) fn begin(now: Duration) -> Self {
        Self {
            settled_at: now + GRACE,
            ..Self::default()
        }
    }

    /// When the next group is to be looked at.
    pub(super) fn next_look(&self) -> Option<Duration> {
        let of = |g: &Group| if g.due { Some(Duration::ZERO) } else { g.look_at };
        self.groups.values().filter_map(of).min()
    }
}

impl Master<'_> {
    /// Every group that is stored is looked at: at the beginning, and after a break of the connection to ZooKeeper.
    pub(super) fn begin_databases(&mut self) {
        for name in self.store.groups.keys() {
            self.databases.groups.entry(name.clone()).or_default().due = true;
        }
    }

    /// The connection to ZooKeeper was broken and is back: what was not seen meanwhile is not held against anybody, and an
    /// absence counts from now, for it may have been interrupted.
    pub(super) fn coordinator_back(&mut self) {
        let now = self.now();
        self.databases.settled_at = now + GRACE;
        for member in self.members.values_mut().filter(|m| !m.registered) {
            member.absent_since = Some(now);
        }
        self.begin_databases();
    }

    /// Something about a node changed that decisions on its groups depend on.
    pub(super) fn node_changed(&mut self, node: &str) {
        let Databases { groups, .. } = &mut self.databases;
        for (name, group) in groups {
            let stored = self.store.groups.get(name);
            let concerned = group.instances.contains_key(node)
                || stored.is_some_and(|g| {
                    let lists = g.live().is_some_and(|s| s.nodes.contains_key(node));
                    let has = |r: &GroupState| r.instances.contains_key(node) || r.votes(node);
                    lists || g.state.envelope.value.as_ref().is_some_and(has)
                });
            group.due |= concerned;
        }
    }

    /// Takes what a node's report says of its instances.
    pub(super) fn take_instances(&mut self, node: &str, told: Told) {
        let (now, now_ms) = (self.now(), self.wall_ms());
        let mut fresh = BTreeSet::new();
        for wire in told.instances {
            let Some(group) = self.databases.groups.get_mut(&wire.group) else {
                continue;
            };
            let Some(report) = wire::read(node, &wire) else {
                // Its agent does not know its own instance yet: what it last told of it stays what is known.
                let errors = wire.errors.iter().take(8).map(|e| wire::line(e)).collect();
                group.unread.insert(node.to_owned(), errors);
                fresh.insert(wire.group.clone());
                continue;
            };
            group.unread.remove(node);
            fresh.insert(wire.group.clone());
            group.due = true;
            let instance = Instance {
                report,
                wire,
                at: now,
                at_ms: now_ms,
            };
            group.instances.insert(node.to_owned(), instance);
        }
        for told in told.settings {
            if let Some(group) = self.databases.groups.get_mut(&told.group) {
                group.settings.insert(node.to_owned(), told.settings);
            }
        }
        for (name, group) in &mut self.databases.groups {
            if told.removed.contains(name) {
                group.due |= group.instances.remove(node).is_some();
                group.due |= group.unread.remove(node).is_some();
            }
            // An instance that is not told of is as it was, if this stream told of it; whom it heard was that long ago.
            if let Some(i) = group
                .instances
                .get_mut(node)
                .filter(|_| !told.first && !fresh.contains(name))
            {
                if let Some((_, ago)) = &mut i.report.heard {
                    *ago += now.saturating_sub(i.at);
                }
                (i.at, i.at_ms) = (now, now_ms);
            }
        }
        if !told.proxies.is_empty() || told.first {
            let names: BTreeSet<String> = told.proxies.iter().map(|p| p.group.clone()).collect();
            self.databases.proxies.insert(node.to_owned(), told.proxies);
            fresh.extend(names);
        }
        for name in fresh {
            self.show_group(&name);
        }
        if told.first {
            self.tell_all_standbys(node);
        }
    }

    fn timing(&self) -> Timing {
        Timing::new(self.p.session_timeout, DETECT)
    }

    /// All that core decides upon.
    fn observed(&self, name: &str, spec: &GroupSpec, record: &GroupState) -> Observed {
        let mut nodes: BTreeSet<&String> = spec.nodes.keys().chain(record.instances.keys()).collect();
        nodes.extend(record.rules.iter().flat_map(|r| r.voters.iter().chain(&r.primaries)));
        nodes.extend(record.primary.iter().chain(&record.former));
        let group = self.databases.groups.get(name);
        let seen = |node: &String| {
            let told = group.and_then(|g| g.instances.get(node));
            let member = self.members.get(node);
            Seen {
                report: told.map(|i| (i.report.clone(), i.at)),
                stream_open: member.is_some_and(|m| m.stream.is_some()),
                stream_broken: member.and_then(|m| m.stream_broken),
                registered: member.is_some_and(|m| m.registered),
                restarting: member.is_some_and(super::members::Member::restarts),
                absent_since: member.and_then(|m| m.absent_since),
            }
        };
        let sealed = self
            .store
            .groups
            .get(name)
            .is_some_and(|g| g.state.envelope.term == self.won.term);
        Observed {
            now: self.now(),
            now_ms: self.wall_ms(),
            settled_at: self.databases.settled_at,
            sealed,
            instances: nodes.into_iter().map(|n| (n.clone(), seen(n))).collect(),
            candidates: self.candidates(name, spec, record),
            removed: self.removed_nodes(record),
            requests: self.group_requests(name, record),
            maintenance: self.in_maintenance(),
        }
    }

    /// Nodes with an instance that are none of the cluster any more.
    fn removed_nodes(&self, state: &GroupState) -> BTreeSet<String> {
        let records = self.records();
        let gone = |n: &&String| records.get(n.as_str()).is_none_or(|r| r.removed);
        state.instances.keys().filter(gone).cloned().collect()
    }

    /// The nodes that could carry an instance.
    fn candidates(&self, name: &str, spec: &GroupSpec, state: &GroupState) -> BTreeMap<String, Candidate> {
        let records = self.records();
        let live = records.iter().filter(|(_, r)| !r.removed);
        let zone = |node: &str| records.get(node).and_then(|r| r.spec.labels.get("zone"));
        let crowded = |node: &str| {
            let others = state.instances.keys().filter(|n| n.as_str() != node);
            let same = others.filter(|n| zone(node).is_some() && zone(n) == zone(node));
            u32::try_from(same.count()).unwrap_or(u32::MAX)
        };
        let taken = |node: &str| {
            let others = self.store.groups.iter().filter(|(n, _)| n.as_str() != name);
            others.filter_map(|(_, g)| Some((g.live()?, g.record()))).any(|(s, r)| {
                let there = s.role_listed(node) || r.instances.contains_key(node);
                there && s.port(node) == spec.port(node)
            })
        };
        let candidate = |(name, record): (&&str, &&ha_core::NodeRecord)| {
            let report = self.members.get(*name).and_then(|m| m.report.as_ref());
            let usage = report.and_then(|r| r.usage);
            let capacity = usage.and_then(|u| u.capacity).map_or(0, |c| c.cpu_milli).max(1);
            let busy = usage.map_or(0, |u| u.cpu_used_milli.saturating_mul(1000) / capacity);
            let installed = report.is_some_and(|r| {
                let fits = |major: &u32| spec.version.is_none_or(|v| v == *major);
                r.postgres.iter().any(fits)
            });
            let candidate = Candidate {
                presence: self.presence(name),
                schedulable: !record.spec.cordoned && !record.spec.draining && installed && !taken(name),
                crowded: crowded(name),
                load_milli: u32::try_from(busy.min(1000)).unwrap_or(1000),
            };
            ((*name).to_owned(), candidate)
        };
        live.map(candidate).collect()
    }

    /// When something that nobody reports makes a difference: silence, an absence, an end of grace.
    fn next_silence(&self, name: &str, now: Duration) -> Option<Duration> {
        let group = self.databases.groups.get(name)?;
        let over = ha_core::lease::over_after(self.p.session_timeout);
        let margin = Duration::from_millis(1);
        let reports = group.instances.values().map(|i| i.at + DETECT + margin);
        let absences = group.instances.keys().filter_map(|n| self.members.get(n)?.absent_since);
        let settled = self.databases.settled_at + margin;
        let all = reports
            .chain(absences.map(|since| since + over + margin))
            .chain([settled]);
        all.filter(|at| *at > now).min()
    }

    /// A group is not shown any more.
    fn forget_group(&mut self, name: &str) {
        if self
            .databases
            .groups
            .get_mut(name)
            .and_then(|g| g.shown.take())
            .is_some()
        {
            self.tell(Update::GroupGone(name.to_owned()));
        }
    }
}
