//! The cluster as the frames of the stream tell it: a snapshot, then deltas folded into it.
//!
//! It knows nothing of screens. Times are the server's (milliseconds since 1970); `mono` is this process's own
//! monotonic clock in milliseconds, so that no clock that is set can make an age lie.

use std::collections::{BTreeMap, VecDeque};

use ha_proto::v1::{
    Alert, Change, ClusterState, Delta, Group, Maintenance, Master, Node, NodeState, WatchFrame, ZooKeeperServer,
    watch_frame::Body,
};

use super::{groups::GroupRow, hygiene::Clean, text::percent};
use crate::health::{self, Health};

/// Samples kept of a node's usage, one a second.
pub(crate) const SAMPLES: usize = 60;
/// Changes kept.
const CHANGES: usize = 1000;

/// The last minute of a node's processors, in hundredths; a second without a report is a gap.
#[derive(Debug, Clone, Default)]
pub(crate) struct History(VecDeque<Option<u8>>);

impl History {
    fn push(&mut self, sample: Option<u8>) {
        if self.0.len() >= SAMPLES {
            self.0.pop_front();
        }
        self.0.push_back(sample);
    }

    /// The samples, oldest first.
    pub(crate) fn samples(&self) -> impl DoubleEndedIterator<Item = Option<u8>> {
        self.0.iter().copied()
    }
}

/// A node and what is remembered of it.
#[derive(Debug, Clone)]
pub(crate) struct NodeRow {
    /// The node as last told.
    pub(crate) node: Node,
    /// Its processors.
    pub(crate) cpu: History,
}

impl NodeRow {
    /// Its state.
    pub(crate) fn state(&self) -> NodeState {
        self.node
            .status
            .as_ref()
            .map_or(NodeState::Unspecified, ha_proto::v1::NodeStatus::state)
    }

    /// Whether its daemon is there.
    pub(crate) fn alive(&self) -> bool {
        matches!(
            self.state(),
            NodeState::Online | NodeState::Cordoned | NodeState::Draining | NodeState::Pending
        )
    }

    /// Processors in use, in hundredths of the capacity.
    pub(crate) fn cpu_percent(&self) -> Option<u8> {
        let usage = self.node.status.as_ref()?.usage.as_ref()?;
        percent(usage.cpu_used_milli, usage.capacity?.cpu_milli).filter(|_| self.alive())
    }

    /// Memory in use and all of it, in bytes.
    pub(crate) fn memory(&self) -> Option<(u64, u64)> {
        let usage = self.node.status.as_ref()?.usage.as_ref()?;
        let total = usage.capacity?.memory_bytes;
        (total > 0 && self.alive()).then_some((usage.memory_used_bytes, total))
    }

    /// Disk in use and all of it, in bytes.
    pub(crate) fn disk(&self) -> Option<(u64, u64)> {
        let usage = self.node.status.as_ref()?.usage.as_ref()?;
        let total = usage.capacity?.disk_bytes;
        (total > 0 && self.alive()).then_some((usage.disk_used_bytes, total))
    }
}

/// The folded cluster.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    pub(crate) name: String,
    id: String,
    pub(crate) master: Master,
    pub(crate) zookeeper: Vec<ZooKeeperServer>,
    pub(crate) revision: u64,
    pub(crate) nodes: BTreeMap<String, NodeRow>,
    pub(crate) groups: BTreeMap<String, GroupRow>,
    pub(crate) alerts: Vec<Alert>,
    /// Set while it is on.
    pub(crate) maintenance: Option<Maintenance>,
    /// By sequence number.
    pub(crate) changes: BTreeMap<u64, Change>,
    pub(crate) session_timeout_ms: u64,
    /// Term and number of the last frame.
    pub(crate) term: u64,
    pub(crate) seq: u64,
    /// The master's clock at the last frame, and ours.
    server_ms: i64,
    heard_mono: i64,
    sampled_second: i64,
}

impl Cluster {
    /// Folds a frame into what is known. Before the first snapshot there is nothing to fold into.
    pub(crate) fn fold(known: &mut Option<Self>, frame: WatchFrame, mono: i64) {
        let (seq, term, server_ms) = (frame.seq, frame.term, frame.server_unix_ms);
        match (frame.body, known.as_mut()) {
            (Some(Body::Snapshot(snapshot)), _) => {
                let before = known.take();
                *known = Some(Self::begin(snapshot, before));
            }
            (Some(Body::Delta(delta)), Some(cluster)) => cluster.apply(delta),
            (Some(Body::Beat(_)) | None, Some(_)) => {}
            (_, None) => return,
        }
        if let Some(cluster) = known {
            (cluster.seq, cluster.term) = (seq, term);
            cluster.heard(server_ms, mono);
        }
    }

    fn begin(mut snapshot: ClusterState, before: Option<Self>) -> Self {
        snapshot.clean();
        let mut before = before.filter(|b| b.id == snapshot.cluster_id && b.name == snapshot.cluster);
        let mut old_nodes = before
            .as_mut()
            .map(|b| std::mem::take(&mut b.nodes))
            .unwrap_or_default();
        let mut old_groups = before
            .as_mut()
            .map(|b| std::mem::take(&mut b.groups))
            .unwrap_or_default();
        let changes: BTreeMap<u64, Change> = snapshot.recent_changes.into_iter().map(|c| (c.seq, c)).collect();
        let mut cluster = Self {
            name: snapshot.cluster,
            id: snapshot.cluster_id,
            master: snapshot.master.unwrap_or_default(),
            zookeeper: snapshot.zookeeper,
            revision: snapshot.revision,
            nodes: BTreeMap::new(),
            groups: BTreeMap::new(),
            alerts: snapshot.alerts,
            maintenance: snapshot.maintenance.filter(|m| m.on),
            changes,
            session_timeout_ms: snapshot.session_timeout_ms,
            term: 0,
            seq: 0,
            server_ms: snapshot.observed_unix_ms,
            heard_mono: 0,
            sampled_second: before.as_ref().map_or(0, |b| b.sampled_second),
        };
        for node in snapshot.nodes {
            let cpu = old_nodes.remove(&node.name).map(|row| row.cpu).unwrap_or_default();
            cluster.nodes.insert(node.name.clone(), NodeRow { node, cpu });
        }
        for group in snapshot.databases {
            let old = old_groups.remove(&group.name);
            cluster.groups.insert(group.name.clone(), GroupRow::of(group, old));
        }
        // What was seen before the snapshot stays, but only where no change is missing in between.
        let first = cluster.changes.keys().next().copied();
        if let (Some(mut before), Some(first)) = (before, first)
            && before
                .changes
                .keys()
                .next_back()
                .is_some_and(|last| last.saturating_add(1) >= first)
        {
            before.changes.append(&mut cluster.changes);
            cluster.changes = before.changes;
        }
        cluster.trim();
        cluster
    }

    fn apply(&mut self, mut delta: Delta) {
        delta.clean();
        for node in delta.nodes {
            if let Some(row) = self.nodes.get_mut(&node.name) {
                row.node = node;
            } else {
                self.nodes.insert(
                    node.name.clone(),
                    NodeRow {
                        node,
                        cpu: History::default(),
                    },
                );
            }
        }
        for name in &delta.removed_nodes {
            self.nodes.remove(name);
        }
        for group in delta.databases {
            let old = self.groups.remove(&group.name);
            self.groups.insert(group.name.clone(), GroupRow::of(group, old));
        }
        for name in &delta.removed_databases {
            self.groups.remove(name);
        }
        self.changes.extend(delta.changes.into_iter().map(|c| (c.seq, c)));
        self.trim();
        if let Some(list) = delta.alerts {
            self.alerts = list.alerts;
        }
        if let Some(master) = delta.master {
            self.master = master;
        }
        if let Some(maintenance) = delta.maintenance {
            self.maintenance = Some(maintenance).filter(|m| m.on);
        }
        if let Some(list) = delta.zookeeper {
            self.zookeeper = list.servers;
        }
        if delta.revision != 0 {
            self.revision = delta.revision;
        }
    }

    fn trim(&mut self) {
        while self.changes.len() > CHANGES {
            self.changes.pop_first();
        }
    }

    /// Takes the time of a frame, and a sample of every node when a second has passed since the last one.
    fn heard(&mut self, server_ms: i64, mono: i64) {
        if server_ms > 0 {
            self.server_ms = server_ms;
        }
        self.heard_mono = mono;
        let second = self.server_ms.div_euclid(1000);
        let passed = second.saturating_sub(self.sampled_second);
        // Masters' clocks differ: after a real step back sampling begins again.
        if passed == 0 || passed == -1 {
            return;
        }
        self.sampled_second = second;
        for group in self.groups.values_mut() {
            group.sample(self.server_ms, (passed.clamp(0, SAMPLES as i64 + 1) - 2).max(0));
        }
        for row in self.nodes.values_mut() {
            let now = row.cpu_percent();
            // A frame that comes a little late leaves no gap.
            for _ in 2..passed.clamp(0, SAMPLES as i64 + 1) {
                row.cpu.push(None);
            }
            row.cpu.push(now);
        }
    }

    /// The master's clock at `mono`, as far as it can be known here.
    pub(crate) fn server_now(&self, mono: i64) -> i64 {
        self.server_ms.saturating_add(self.silence(mono))
    }

    /// The master's clock at the last frame.
    pub(crate) fn frame_ms(&self) -> i64 {
        self.server_ms
    }

    /// Milliseconds since the last frame.
    pub(crate) fn silence(&self, mono: i64) -> i64 {
        mono.saturating_sub(self.heard_mono).max(0)
    }

    /// Age of what is shown of a node, in milliseconds; none if the master never heard of it.
    ///
    /// The master lists a node as there only while its reports arrive, so each frame vouches for the nodes that are
    /// there; of the others the last report counts.
    pub(crate) fn age(&self, row: &NodeRow, mono: i64) -> Option<i64> {
        let seen = row.node.status.as_ref().map_or(0, |s| s.last_seen_unix_ms);
        let vouched = if row.alive() { self.server_ms } else { 0 };
        let newest = seen.max(vouched);
        (newest > 0).then(|| self.server_now(mono).saturating_sub(newest).max(0))
    }

    /// The name of the node that listens on `endpoint`, or the endpoint itself.
    pub(crate) fn node_at<'a>(&'a self, endpoint: &'a str) -> &'a str {
        let listens = |row: &&NodeRow| {
            row.node.spec.as_ref().is_some_and(|s| s.address == endpoint)
                || row
                    .node
                    .status
                    .as_ref()
                    .is_some_and(|s| s.registered_address == endpoint)
        };
        self.nodes.values().find(listens).map_or(endpoint, |row| &row.node.name)
    }

    /// ZooKeeper servers that can be reached, of how many.
    pub(crate) fn quorum(&self) -> (usize, usize) {
        (
            self.zookeeper.iter().filter(|s| s.reachable).count(),
            self.zookeeper.len(),
        )
    }

    /// How the cluster is, judged as `cluster status` judges it.
    pub(crate) fn health(&self) -> Health {
        // Of the nodes that are well one stands for all: a verdict is asked for with every screen.
        let mut well = 0;
        let nodes = self.nodes.values().filter(|row| {
            well += usize::from(row.state() == NodeState::Online);
            row.state() != NodeState::Online || well == 1
        });
        health::assess(&ClusterState {
            master: Some(self.master.clone()),
            zookeeper: self.zookeeper.clone(),
            nodes: nodes.map(|row| row.node.clone()).collect(),
            alerts: self.alerts.clone(),
            databases: self.groups.values().map(verdict_of).collect(),
            ..ClusterState::default()
        })
    }

    /// How many nodes there are of each state, in the order of the states; those that were removed are not counted.
    pub(crate) fn counts(&self) -> Vec<(NodeState, usize)> {
        let mut counts: Vec<(NodeState, usize)> = Vec::new();
        for state in [
            NodeState::Online,
            NodeState::Cordoned,
            NodeState::Draining,
            NodeState::Suspect,
            NodeState::Offline,
            NodeState::Pending,
            NodeState::Unspecified,
        ] {
            let n = self.nodes.values().filter(|row| row.state() == state).count();
            if n > 0 {
                counts.push((state, n));
            }
        }
        counts
    }

    /// Changes of one node, the newest first.
    pub(crate) fn changes_of<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Change> {
        self.changes.values().rev().filter(move |c| {
            c.subject.strip_prefix("node/").unwrap_or(&c.subject) == node
                || c.actor.strip_prefix("node/") == Some(node)
                || (c.kind.starts_with("master.") && c.text.split_whitespace().any(|w| w == node))
        })
    }
}

/// Of a group what a verdict on the cluster looks at.
fn verdict_of(row: &GroupRow) -> Group {
    Group {
        name: row.group.name.clone(),
        health: row.group.health,
        problems: row.group.problems.first().cloned().into_iter().collect(),
        ..Group::default()
    }
}
