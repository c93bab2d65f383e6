//! The cluster as a watcher knows it: a snapshot with every later delta applied. Pure; sees no clock.

use ha_proto::v1::{ClusterState, Delta, Node, WatchFrame, watch_frame::Body};

/// Newest changes that are kept.
const CHANGES: usize = 200;

/// A cluster's state that follows a Watch stream.
#[derive(Debug, Clone, Default)]
pub struct Mirror {
    /// The state; empty until the first snapshot.
    pub state: ClusterState,
    /// Term of the last frame.
    pub term: u64,
    /// Sequence number of the last frame.
    pub seq: u64,
    /// Whether a snapshot was seen.
    pub complete: bool,
}

impl Mirror {
    /// Applies a frame. False if frames are missing before it: the stream must be opened anew, from a snapshot.
    pub fn apply(&mut self, frame: WatchFrame) -> bool {
        let snapshot = matches!(frame.body, Some(Body::Snapshot(_)));
        let follows = frame.term == self.term && (frame.seq == self.seq || frame.seq == self.seq + 1);
        if !snapshot && (!self.complete || !follows) {
            *self = Self::default();
            return false;
        }
        self.term = frame.term;
        self.seq = frame.seq;
        match frame.body {
            Some(Body::Snapshot(state)) => {
                self.state = state;
                self.complete = true;
            }
            Some(Body::Delta(delta)) => self.apply_delta(delta),
            Some(Body::Beat(_)) | None => {}
        }
        self.state.observed_unix_ms = frame.server_unix_ms;
        true
    }

    fn apply_delta(&mut self, delta: Delta) {
        let state = &mut self.state;
        for node in delta.nodes {
            match state.nodes.binary_search_by(|n| n.name.cmp(&node.name)) {
                Ok(at) => state.nodes[at] = node,
                Err(at) => state.nodes.insert(at, node),
            }
        }
        state.nodes.retain(|node| !delta.removed_nodes.contains(&node.name));
        for group in delta.databases {
            match state.databases.binary_search_by(|g| g.name.cmp(&group.name)) {
                Ok(at) => state.databases[at] = group,
                Err(at) => state.databases.insert(at, group),
            }
        }
        state
            .databases
            .retain(|group| !delta.removed_databases.contains(&group.name));
        state.recent_changes.extend(delta.changes);
        let surplus = state.recent_changes.len().saturating_sub(CHANGES);
        state.recent_changes.drain(..surplus);
        if let Some(alerts) = delta.alerts {
            state.alerts = alerts.alerts;
        }
        if delta.master.is_some() {
            state.master = delta.master;
        }
        if delta.maintenance.is_some() {
            state.maintenance = delta.maintenance;
        }
        if let Some(zookeeper) = delta.zookeeper {
            state.zookeeper = zookeeper.servers;
        }
        state.revision = state.revision.max(delta.revision);
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.state.nodes.iter().find(|node| node.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(term: u64, seq: u64, body: Body) -> WatchFrame {
        WatchFrame {
            seq,
            term,
            server_unix_ms: 5,
            body: Some(body),
        }
    }

    fn node(name: &str) -> Node {
        Node {
            name: name.into(),
            ..Node::default()
        }
    }

    #[test]
    fn deltas_keep_the_nodes_sorted() {
        let mut mirror = Mirror::default();
        let state = ClusterState {
            nodes: vec![node("a"), node("c")],
            ..ClusterState::default()
        };
        assert!(mirror.apply(frame(1, 4, Body::Snapshot(state))));
        let delta = Delta {
            nodes: vec![node("b")],
            removed_nodes: vec!["c".into()],
            revision: 9,
            ..Delta::default()
        };
        assert!(mirror.apply(frame(1, 5, Body::Delta(delta))));
        let names: Vec<_> = mirror.state.nodes.iter().map(|n| n.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(mirror.state.revision, 9);
    }

    #[test]
    fn deltas_keep_the_groups_sorted() {
        let group = |name: &str, revision: u64| ha_proto::v1::Group {
            name: name.into(),
            revision,
            ..Default::default()
        };
        let mut mirror = Mirror::default();
        let state = ClusterState {
            databases: vec![group("a", 1), group("c", 1)],
            ..ClusterState::default()
        };
        assert!(mirror.apply(frame(1, 4, Body::Snapshot(state))));
        let delta = Delta {
            databases: vec![group("b", 2), group("a", 3)],
            removed_databases: vec!["c".into()],
            ..Delta::default()
        };
        assert!(mirror.apply(frame(1, 5, Body::Delta(delta))));
        let groups: Vec<_> = mirror
            .state
            .databases
            .iter()
            .map(|g| (g.name.as_str(), g.revision))
            .collect();
        assert_eq!(groups, [("a", 3), ("b", 2)]);
    }

    #[test]
    fn a_gap_or_another_term_needs_a_snapshot() {
        let mut mirror = Mirror::default();
        assert!(!mirror.apply(frame(1, 1, Body::Delta(Delta::default()))));
        assert!(mirror.apply(frame(1, 1, Body::Snapshot(ClusterState::default()))));
        assert!(!mirror.apply(frame(1, 3, Body::Delta(Delta::default()))));
        assert!(mirror.apply(frame(2, 1, Body::Snapshot(ClusterState::default()))));
        assert!(!mirror.apply(frame(3, 2, Body::Delta(Delta::default()))));
    }
}
