//! What a cluster's state amounts to. Pure; `cluster status --check`, `wait cluster` and the playground agree by it.

use ha_proto::v1::{ClusterState, GroupHealth, NodeState, Severity};

/// How a cluster is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Everything that was added is there.
    Healthy,
    /// It works, and something is missing.
    Degraded,
    /// It does not do what it is for: no master, no quorum, or an alert that says so.
    Unhealthy,
}

impl Verdict {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// How a cluster is, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// How.
    pub verdict: Verdict,
    /// Why not healthy, a line each, the worst first.
    pub reasons: Vec<String>,
}

/// Judges a state. Servers of ZooKeeper that were not looked at do not count; nodes that were never added do not either.
pub fn assess(state: &ClusterState) -> Health {
    let mut found: Vec<(Verdict, String)> = Vec::new();
    if state.master.as_ref().is_none_or(|m| m.node.is_empty()) {
        found.push((Verdict::Unhealthy, "there is no master".into()));
    }
    let all = state.zookeeper.len();
    let reachable = state.zookeeper.iter().filter(|z| z.reachable).count();
    if all > 0 && reachable <= all / 2 {
        found.push((
            Verdict::Unhealthy,
            format!("ZooKeeper has no quorum: {reachable} of {all} servers reachable"),
        ));
    } else if reachable < all {
        found.push((
            Verdict::Degraded,
            format!("{reachable} of {all} ZooKeeper servers reachable"),
        ));
    }
    let mut serving = 0;
    for node in &state.nodes {
        let status = node.status.as_ref();
        let reason = status
            .map(|s| s.reason.as_str())
            .filter(|r| !r.is_empty())
            .map(|r| format!(": {r}"));
        let reason = reason.unwrap_or_default();
        match status.map_or(NodeState::Unspecified, ha_proto::v1::NodeStatus::state) {
            NodeState::Online | NodeState::Cordoned | NodeState::Draining => serving += 1,
            NodeState::Offline | NodeState::Unspecified => {
                found.push((Verdict::Degraded, format!("node {} is offline{reason}", node.name)));
            }
            NodeState::Suspect => found.push((Verdict::Degraded, format!("node {} is suspect{reason}", node.name))),
            NodeState::Pending | NodeState::Removed => {}
        }
    }
    if serving == 0 {
        found.push((Verdict::Unhealthy, "no node is online".into()));
    }
    for group in &state.databases {
        let why = group.problems.first().map(|p| format!(": {p}")).unwrap_or_default();
        match group.health() {
            GroupHealth::Healthy => {}
            GroupHealth::NoPrimary => found.push((
                Verdict::Unhealthy,
                format!("database group {} has no primary{why}", group.name),
            )),
            GroupHealth::Degraded | GroupHealth::Unspecified => {
                found.push((
                    Verdict::Degraded,
                    format!("database group {} is degraded{why}", group.name),
                ));
            }
        }
    }
    for alert in &state.alerts {
        match alert.severity() {
            Severity::Error => found.push((Verdict::Unhealthy, alert.text.clone())),
            Severity::Warning => found.push((Verdict::Degraded, alert.text.clone())),
            Severity::Info | Severity::Unspecified => {}
        }
    }
    found.sort_by_key(|(verdict, _)| std::cmp::Reverse(*verdict));
    let mut reasons = Vec::new();
    for (_, reason) in &found {
        if !reasons.contains(reason) {
            reasons.push(reason.clone());
        }
    }
    Health {
        verdict: found.first().map_or(Verdict::Healthy, |(verdict, _)| *verdict),
        reasons,
    }
}

impl Health {
    /// The reasons that the alerts do not say already.
    pub fn untold(&self, state: &ClusterState) -> Vec<&str> {
        let told = |reason: &str| state.alerts.iter().any(|alert| alert.text == reason);
        self.reasons
            .iter()
            .map(String::as_str)
            .filter(|reason| !told(reason))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ha_proto::v1::{Alert, Group, Master, Node, NodeStatus, ZooKeeperServer};

    fn state(states: &[NodeState]) -> ClusterState {
        let node = |(i, s): (usize, &NodeState)| Node {
            name: format!("n{i}"),
            status: Some(NodeStatus {
                state: *s as i32,
                ..NodeStatus::default()
            }),
            ..Node::default()
        };
        ClusterState {
            master: Some(Master {
                node: "n0".into(),
                ..Master::default()
            }),
            nodes: states.iter().enumerate().map(node).collect(),
            zookeeper: vec![ZooKeeperServer {
                reachable: true,
                ..ZooKeeperServer::default()
            }],
            ..ClusterState::default()
        }
    }

    #[test]
    fn verdicts() {
        use NodeState as S;
        let verdict = |s: &ClusterState| assess(s).verdict;
        assert_eq!(verdict(&state(&[S::Online, S::Cordoned, S::Pending])), Verdict::Healthy);
        assert_eq!(verdict(&state(&[S::Online, S::Offline])), Verdict::Degraded);
        assert_eq!(verdict(&state(&[S::Offline])), Verdict::Unhealthy);
        let mut no_master = state(&[S::Online]);
        no_master.master = None;
        assert_eq!(verdict(&no_master), Verdict::Unhealthy);
        let mut quorum = state(&[S::Online]);
        quorum.zookeeper = [true, false, false]
            .map(|r| ZooKeeperServer {
                reachable: r,
                ..Default::default()
            })
            .to_vec();
        assert_eq!(verdict(&quorum), Verdict::Unhealthy);
        quorum.zookeeper[1].reachable = true;
        assert_eq!(verdict(&quorum), Verdict::Degraded);
        let mut alert = state(&[S::Online]);
        alert.alerts = vec![Alert {
            severity: Severity::Error as i32,
            text: "x".into(),
            ..Alert::default()
        }];
        assert_eq!(verdict(&alert), Verdict::Unhealthy);
        assert!(assess(&alert).untold(&alert).is_empty());
        let mut group = state(&[S::Online]);
        for (health, expected) in [
            (GroupHealth::Healthy, Verdict::Healthy),
            (GroupHealth::Degraded, Verdict::Degraded),
            (GroupHealth::NoPrimary, Verdict::Unhealthy),
        ] {
            group.databases = vec![Group {
                name: "main".into(),
                health: health as i32,
                ..Group::default()
            }];
            assert_eq!(verdict(&group), expected);
        }
    }
}
