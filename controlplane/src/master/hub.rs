//! The hub: fans the master's state out to watchers, followers and agents.
//!
//! It lives inside the master's future and ends with it. Watchers get a snapshot and then deltas over a bounded queue; one
//! that does not keep up is ended and starts over. What changed goes out at once and alone; measurements follow at a pace
//! that many watchers of many nodes can bear. Followers of the change log never lose an entry: each reads at its own
//! pace, from memory where it can and from ZooKeeper where it must. The hub must never wait for any of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use ha_proto::{codes, v1};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};

use super::databases::Lines;
use super::follow::{Log, Operations, feed_agent, follow, list, lock, watch_operation};
use super::handle::HubQuery;
use crate::coordination::Coordinator;
use crate::error::ApiError;
use crate::platform::Clock;

/// Frames a watcher may lag behind.
const WATCHER_QUEUE: usize = 256;
/// Frames kept for watchers that resume.
const KEPT_FRAMES: usize = 512;
/// Entries of the change log kept in memory.
pub(super) const KEPT_CHANGES: usize = 512;
/// Entries a snapshot carries.
const SNAPSHOT_CHANGES: usize = 100;
/// How often measurements are passed on; changes are passed on at once.
const MEASUREMENTS_EVERY: Duration = Duration::from_millis(500);
/// Nodes' measurements passed on at a time, counted once for each watcher. With more the nodes take turns: encoding them
/// for everybody at once would hold up the changes.
const MEASUREMENTS_AT_A_TIME: usize = 50_000;
/// A stream on which nothing happens shows at this interval that it lives.
pub(super) const BEAT_EVERY: Duration = Duration::from_secs(1);

/// What the master tells the hub.
#[derive(Debug)]
pub(super) enum Update {
    /// A node, whole. `urgent` unless only measurements differ.
    Node(Box<v1::Node>, bool),
    /// A node is shown no more.
    NodeGone(String),
    /// A database group, whole. `urgent` unless only measurements differ.
    Group(Box<v1::Group>, bool),
    /// A database group is shown no more.
    GroupGone(String),
    /// An entry of the change log.
    Change(v1::Change),
    /// All alerts.
    Alerts(Vec<v1::Alert>),
    /// The ZooKeeper servers.
    ZooKeeper(Vec<v1::ZooKeeperServer>),
    /// Maintenance.
    Maintenance(v1::Maintenance),
    /// An operation.
    Operation(v1::Operation),
    /// An operation is kept no more.
    OperationGone(String),
    /// All users and nodes' certificates.
    Users(Vec<v1::User>),
}

/// What the hub starts from.
pub(super) struct Start {
    /// The state, without nodes and changes.
    pub(super) state: v1::ClusterState,
    /// The newest entries of the log, oldest first.
    pub(super) changes: Vec<v1::Change>,
    /// Number of the newest entry.
    pub(super) tail: u64,
    /// Number of the oldest entry in ZooKeeper.
    pub(super) oldest: u64,
}

/// See the module.
pub(super) struct Hub {
    state: v1::ClusterState,
    nodes: BTreeMap<String, v1::Node>,
    groups: BTreeMap<String, v1::Group>,
    users: Vec<v1::User>,
    delta: v1::Delta,
    /// Nodes that changed since the last frame; false: gone.
    changed_nodes: BTreeMap<String, bool>,
    /// Nodes of which only measurements changed, in the order in which they get their turn.
    measured_nodes: VecDeque<String>,
    /// The same, to find one.
    measured: BTreeSet<String>,
    /// Groups that changed since the last frame; false: gone.
    changed_groups: BTreeMap<String, bool>,
    /// Groups of which only measurements changed: there are few, so they all get their turn.
    measured_groups: BTreeSet<String>,
    urgent: bool,
    seq: u64,
    frames: VecDeque<v1::WatchFrame>,
    watchers: Vec<mpsc::Sender<Result<v1::WatchFrame, ApiError>>>,
    followers: FuturesUnordered<BoxFuture<'static, ()>>,
    log: Arc<Log>,
    operations: Arc<Operations>,
    clock: Arc<dyn Clock>,
    lines: Lines,
}

impl Hub {
    /// A hub that nobody watches yet.
    pub(super) fn new(start: Start, c: Arc<dyn Coordinator>, clock: Arc<dyn Clock>, lines: Lines) -> Self {
        let kept = start.changes.into_iter().map(Arc::new).collect();
        let log = Log {
            kept: Mutex::new(kept),
            tail: watch::Sender::new(start.tail),
            oldest: start.oldest,
            c,
        };
        Self {
            state: v1::ClusterState {
                revision: start.tail,
                ..start.state
            },
            nodes: BTreeMap::new(),
            groups: BTreeMap::new(),
            users: Vec::new(),
            delta: v1::Delta::default(),
            changed_nodes: BTreeMap::new(),
            measured_nodes: VecDeque::new(),
            measured: BTreeSet::new(),
            changed_groups: BTreeMap::new(),
            measured_groups: BTreeSet::new(),
            urgent: false,
            seq: 0,
            frames: VecDeque::new(),
            watchers: Vec::new(),
            followers: FuturesUnordered::new(),
            log: Arc::new(log),
            operations: Arc::new(Operations {
                all: Mutex::new(BTreeMap::new()),
                version: watch::Sender::new(0),
            }),
            clock,
            lines,
        }
    }

    /// Serves until the master's future is dropped or `updates` ends.
    pub(super) async fn run(
        mut self,
        mut updates: mpsc::UnboundedReceiver<Update>,
        mut queries: mpsc::Receiver<HubQuery>,
    ) {
        let mut measurements = tokio::time::interval(MEASUREMENTS_EVERY);
        measurements.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_frame = Instant::now();
        loop {
            tokio::select! {
                biased;
                update = updates.recv() => {
                    let Some(update) = update else { return };
                    self.apply(update);
                    while let Ok(more) = updates.try_recv() {
                        self.apply(more);
                    }
                    if self.urgent {
                        self.flush();
                        last_frame = Instant::now();
                    }
                }
                query = queries.recv() => match query {
                    Some(query) => self.answer(query),
                    None => return,
                },
                _ = measurements.tick() => {
                    if self.take_measured() {
                        self.flush();
                        last_frame = Instant::now();
                    } else if last_frame.elapsed() >= BEAT_EVERY {
                        self.beat();
                        last_frame = Instant::now();
                    }
                }
                Some(()) = self.followers.next(), if !self.followers.is_empty() => {}
            }
        }
    }

    fn apply(&mut self, update: Update) {
        match update {
            Update::Node(node, urgent) => {
                let name = node.name.clone();
                self.nodes.insert(name.clone(), *node);
                if urgent {
                    self.urgent = true;
                    self.changed_nodes.insert(name, true);
                } else if self.measured.insert(name.clone()) {
                    self.measured_nodes.push_back(name);
                }
                return;
            }
            Update::NodeGone(name) => {
                if self.nodes.remove(&name).is_none() {
                    return;
                }
                self.changed_nodes.insert(name, false);
            }
            Update::Group(group, urgent) => {
                let name = group.name.clone();
                self.groups.insert(name.clone(), *group);
                if !urgent {
                    self.measured_groups.insert(name);
                    return;
                }
                self.changed_groups.insert(name, true);
            }
            Update::GroupGone(name) => {
                if self.groups.remove(&name).is_none() {
                    return;
                }
                self.changed_groups.insert(name, false);
            }
            Update::Change(change) => self.add_change(change),
            Update::Alerts(alerts) => {
                if self.state.alerts == alerts {
                    return;
                }
                self.state.alerts.clone_from(&alerts);
                self.delta.alerts = Some(v1::AlertList { alerts });
            }
            Update::ZooKeeper(servers) => {
                if self.state.zookeeper == servers {
                    return;
                }
                self.state.zookeeper.clone_from(&servers);
                self.delta.zookeeper = Some(v1::ZooKeeperList { servers });
            }
            Update::Maintenance(maintenance) => {
                self.state.maintenance = Some(maintenance.clone());
                self.delta.maintenance = Some(maintenance);
            }
            Update::Operation(op) => {
                lock(&self.operations.all).insert(op.id.clone(), op);
                self.operations.version.send_modify(|v| *v += 1);
                return;
            }
            Update::OperationGone(id) => {
                lock(&self.operations.all).remove(&id);
                self.operations.version.send_modify(|v| *v += 1);
                return;
            }
            Update::Users(users) => {
                self.users = users;
                return;
            }
        }
        self.urgent = true;
    }

    fn add_change(&mut self, change: v1::Change) {
        self.state.revision = change.seq;
        self.delta.revision = change.seq;
        self.delta.changes.push(change.clone());
        let seq = change.seq;
        {
            let mut kept = lock(&self.log.kept);
            kept.push_back(Arc::new(change));
            if kept.len() > KEPT_CHANGES {
                kept.pop_front();
            }
        }
        self.log.tail.send_replace(seq);
    }

    fn frame(&mut self, body: v1::watch_frame::Body) -> v1::WatchFrame {
        v1::WatchFrame {
            seq: self.seq,
            term: self.state.master.as_ref().map_or(0, |m| m.term),
            server_unix_ms: self.clock.wall_ms(),
            body: Some(body),
        }
    }

    fn flush(&mut self) {
        self.urgent = false;
        let mut delta = std::mem::take(&mut self.delta);
        for (name, present) in std::mem::take(&mut self.changed_nodes) {
            match self.nodes.get(&name).filter(|_| present) {
                Some(node) => delta.nodes.push(node.clone()),
                None => delta.removed_nodes.push(name),
            }
        }
        for (name, present) in std::mem::take(&mut self.changed_groups) {
            match self.groups.get(&name).filter(|_| present) {
                Some(group) => delta.databases.push(group.clone()),
                None => delta.removed_databases.push(name),
            }
        }
        delta.revision = self.state.revision;
        self.seq += 1;
        let frame = self.frame(v1::watch_frame::Body::Delta(delta));
        self.send(&frame);
        self.frames.push_back(frame);
        if self.frames.len() > KEPT_FRAMES {
            self.frames.pop_front();
        }
    }

    /// Puts those whose turn it is into the next frame; whether there are any.
    fn take_measured(&mut self) -> bool {
        let turn = (MEASUREMENTS_AT_A_TIME / self.watchers.len().max(1)).max(1);
        let turn = turn.min(self.measured_nodes.len());
        for name in self.measured_nodes.drain(..turn) {
            self.measured.remove(&name);
            // One that is gone meanwhile is told as gone, or was.
            if self.nodes.contains_key(&name) {
                self.changed_nodes.insert(name, true);
            }
        }
        for name in std::mem::take(&mut self.measured_groups) {
            if self.groups.contains_key(&name) {
                self.changed_groups.insert(name, true);
            }
        }
        !self.changed_nodes.is_empty() || !self.changed_groups.is_empty()
    }

    fn beat(&mut self) {
        let frame = self.frame(v1::watch_frame::Body::Beat(v1::Beat {}));
        self.send(&frame);
    }

    fn send(&mut self, frame: &v1::WatchFrame) {
        self.watchers.retain(|w| {
            // The last place is for saying why the stream ends.
            if w.capacity() <= 1 {
                tracing::info!("a watcher did not keep up and was ended");
                let e = ApiError::new(&codes::SLOW_WATCHER, "the watcher did not keep up; start over");
                drop(w.try_send(Err(e)));
                return false;
            }
            w.try_send(Ok(frame.clone())).is_ok()
        });
    }

    fn snapshot(&self) -> v1::ClusterState {
        let kept = lock(&self.log.kept);
        let skip = kept.len().saturating_sub(SNAPSHOT_CHANGES);
        v1::ClusterState {
            nodes: self.nodes.values().cloned().collect(),
            databases: self.groups.values().cloned().collect(),
            recent_changes: kept.iter().skip(skip).map(|c| (**c).clone()).collect(),
            observed_unix_ms: self.clock.wall_ms(),
            ..self.state.clone()
        }
    }

    fn answer(&mut self, query: HubQuery) {
        // Whoever asked may be gone: then the answer is dropped.
        match query {
            HubQuery::State(reply) => drop(reply.send(self.snapshot())),
            HubQuery::Watch { request, reply } => drop(reply.send(self.watch(&request))),
            HubQuery::Follow { from_seq, reply } => {
                let (tx, rx) = mpsc::channel(64);
                let from = if from_seq == 0 {
                    *self.log.tail.borrow() + 1
                } else {
                    from_seq
                };
                let log = Arc::clone(&self.log);
                self.followers.push(follow(log, from, tx).boxed());
                drop(reply.send(rx));
            }
            HubQuery::Changes(request, reply) => {
                let log = Arc::clone(&self.log);
                let cluster = self.state.cluster.clone();
                self.followers
                    .push(async move { drop(reply.send(list(&log, &request, cluster).await)) }.boxed());
            }
            HubQuery::Operations(reply) => {
                let mut all: Vec<v1::Operation> = lock(&self.operations.all).values().cloned().collect();
                all.sort_by(|a, b| (b.created_unix_ms, &b.id).cmp(&(a.created_unix_ms, &a.id)));
                drop(reply.send(all));
            }
            HubQuery::WatchOperation(id, reply) => {
                if !lock(&self.operations.all).contains_key(&id) {
                    let e =
                        ApiError::new(&codes::OP_UNKNOWN, format!("there is no operation {id}")).next("hactl op list");
                    drop(reply.send(Err(e)));
                    return;
                }
                let (tx, rx) = mpsc::channel(16);
                self.followers
                    .push(watch_operation(Arc::clone(&self.operations), id, tx).boxed());
                drop(reply.send(Ok(rx)));
            }
            HubQuery::Users(reply) => drop(reply.send(self.users.clone())),
            HubQuery::Doctor(reply) => drop(reply.send(super::doctor::report(&self.snapshot()))),
            HubQuery::Agent { node, reply, .. } => {
                if let Err(e) = self.admit(&node) {
                    drop(reply.send(Err(e)));
                    return;
                }
                let (tx, rx) = mpsc::channel(64);
                self.lines.open(node, tx.clone());
                let term = self.state.master.as_ref().map_or(0, |m| m.term);
                self.followers
                    .push(feed_agent(Arc::clone(&self.log), term, Arc::clone(&self.clock), tx).boxed());
                drop(reply.send(Ok(rx)));
            }
        }
    }

    /// Only nodes that were added are told anything.
    fn admit(&self, node: &str) -> Result<(), ApiError> {
        use v1::NodeState::{Pending, Removed};
        let state = self
            .nodes
            .get(node)
            .and_then(|n| n.status.as_ref())
            .map(v1::NodeStatus::state);
        if state.is_some_and(|s| !matches!(s, Pending | Removed)) {
            return Ok(());
        }
        Err(ApiError::new(
            &codes::NODE_NOT_ADDED,
            format!("node {node} was never added to the cluster, or was removed"),
        )
        .next(format!("hactl node add {node} --addr HOST:PORT")))
    }

    fn watch(&mut self, request: &v1::WatchRequest) -> mpsc::Receiver<Result<v1::WatchFrame, ApiError>> {
        // What is not yet flushed belongs to a frame that the new watcher gets as well. Measurements may come to it twice.
        if self.urgent {
            self.flush();
        }
        let (tx, rx) = mpsc::channel(WATCHER_QUEUE);
        let term = self.state.master.as_ref().map_or(0, |m| m.term);
        let first_kept = self.frames.front().map_or(self.seq + 1, |f| f.seq);
        let resumes = request.term == term && request.seq <= self.seq && request.seq + 1 >= first_kept;
        let missed = usize::try_from(self.seq.saturating_sub(request.seq)).unwrap_or(usize::MAX);
        if resumes && request.seq > 0 && missed < WATCHER_QUEUE / 2 {
            for frame in self.frames.iter().filter(|f| f.seq > request.seq) {
                drop(tx.try_send(Ok(frame.clone())));
            }
            // Even with nothing missed the watcher hears at once that it is live.
            let beat = self.frame(v1::watch_frame::Body::Beat(v1::Beat {}));
            drop(tx.try_send(Ok(beat)));
        } else {
            let snapshot = self.snapshot();
            let frame = self.frame(v1::watch_frame::Body::Snapshot(snapshot));
            drop(tx.try_send(Ok(frame)));
        }
        self.watchers.push(tx);
        rx
    }
}

#[cfg(test)]
mod tests;
