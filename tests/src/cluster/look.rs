//! Looking at a cluster from outside: waiting until something is so, and the proofs at the end of a test.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use ha_proto::v1::{Change, ClusterState, GetStateRequest, ListChangesRequest, Node, NodeState, TransferMasterRequest};
use hactl::error::CliError;
use tokio::time::{Instant, sleep};

use super::{Cluster, Daemon, Interval, LIMIT, assert_disjoint};

impl Cluster {
    /// Waits until the master's state is as wanted, and returns it.
    ///
    /// # Errors
    /// If that takes longer than [`LIMIT`], with the state and the logs' ends.
    pub async fn wait_until(&self, what: &str, wanted: impl FnMut(&ClusterState) -> bool) -> Result<ClusterState> {
        self.wait_at(self.endpoints(), what, wanted).await
    }

    /// As [`Self::wait_until`], asking these nodes alone.
    ///
    /// # Errors
    /// As [`Self::wait_until`].
    pub async fn wait_at(
        &self,
        endpoints: Vec<String>,
        what: &str,
        mut wanted: impl FnMut(&ClusterState) -> bool,
    ) -> Result<ClusterState> {
        let mut client = self.client_at(&self.bundle("admin")?, endpoints, Duration::from_secs(2))?;
        let begun = Instant::now();
        loop {
            let seen = client.get_state(GetStateRequest {}).await;
            if let Ok(state) = &seen
                && wanted(state)
            {
                return Ok(state.clone());
            }
            if begun.elapsed() > LIMIT {
                let seen = seen.map_or_else(|e| told(&e), |s| summary(&s));
                bail!("{what}: not after {LIMIT:?}\n{seen}\n{}", self.tails());
            }
            sleep(Duration::from_millis(25)).await;
        }
    }

    /// Waits until every node is online and one of them leads.
    ///
    /// # Errors
    /// As [`Self::wait_until`].
    pub async fn healthy(&self) -> Result<ClusterState> {
        let names = self.names();
        self.wait_until("every node is online", |s| {
            let masters = s.nodes.iter().filter(|n| is_master(n)).count();
            names.iter().all(|n| is(s, n, NodeState::Online)) && masters == 1
        })
        .await
    }

    /// The name of the master, once there is one.
    ///
    /// # Errors
    /// As [`Self::wait_until`].
    pub async fn master(&self) -> Result<String> {
        let state = self
            .wait_until("there is a master", |s| !master_of(s).is_empty())
            .await?;
        Ok(master_of(&state).to_owned())
    }

    /// Makes this node the master, and waits until it is.
    ///
    /// # Errors
    /// If it does not become so within [`LIMIT`].
    pub async fn lead_at(&self, node: &str) -> Result<()> {
        let begun = Instant::now();
        let mut client = self.client_at(&self.bundle("admin")?, self.endpoints(), Duration::from_secs(2))?;
        loop {
            let state = client.get_state(GetStateRequest {}).await;
            if state.is_ok_and(|s| master_of(&s) == node) {
                return Ok(());
            }
            let request = TransferMasterRequest {
                to: node.to_owned(),
                ..TransferMasterRequest::default()
            };
            let asked = client.transfer_master(request).await;
            ensure!(begun.elapsed() < LIMIT, "mastership does not move: {asked:?}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// The names of the other nodes.
    ///
    /// # Errors
    /// As [`Self::wait_until`].
    pub async fn members(&self) -> Result<Vec<String>> {
        let master = self.master().await?;
        Ok(self.names().into_iter().filter(|n| *n != master).collect())
    }

    /// The whole change log.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn changes(&self) -> Result<Vec<Change>> {
        let mut client = self.admin()?;
        let mut all: Vec<Change> = Vec::new();
        loop {
            let request = ListChangesRequest {
                from_seq: all.last().map_or(0, |c| c.seq) + 1,
                limit: 1000,
                ..ListChangesRequest::default()
            };
            let more = client.list_changes(request).await?.changes;
            if more.is_empty() {
                return Ok(all);
            }
            all.extend(more);
        }
    }

    /// The changes after `seq`.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn changes_since(&self, seq: u64) -> Result<Vec<Change>> {
        let mut all = self.changes().await?;
        all.retain(|c| c.seq > seq);
        Ok(all)
    }

    /// The number of the last change.
    ///
    /// # Errors
    /// If it cannot be read.
    pub async fn revision(&self) -> Result<u64> {
        Ok(self.changes().await?.last().map_or(0, |c| c.seq))
    }

    /// Fails if one of the changes after `seq` is of one of these kinds.
    ///
    /// # Errors
    /// With that change.
    pub async fn assert_none_since(&self, seq: u64, kinds: &[&str]) -> Result<()> {
        for change in self.changes_since(seq).await? {
            ensure!(
                !kinds.contains(&change.kind.as_str()),
                "change {}: {} ({})\n{}",
                change.seq,
                change.text,
                change.cause,
                self.tails()
            );
        }
        Ok(())
    }

    /// What has to hold at the end of every test: all nodes online, no daemon has ended or panicked, every subscriber saw
    /// the whole log, and no two masters overlapped.
    ///
    /// # Errors
    /// With what does not hold.
    pub async fn finish(mut self) -> Result<()> {
        self.healthy().await?;
        self.assert_subscribers().await?;
        for daemon in &mut self.daemons {
            ensure!(daemon.is_running()?, "{} has ended:\n{}", daemon.name, daemon.tail(20));
        }
        self.assert_leases_logged().await?;
        self.assert_leases_disjoint()
    }

    /// Every master that the change log names has logged its lease: what is compared below is all there is.
    async fn assert_leases_logged(&self) -> Result<()> {
        let leases = self.leases()?;
        for elected in self.changes().await?.iter().filter(|c| c.kind == "master.elected") {
            let its = leases.iter().find(|i| i.term == elected.term);
            ensure!(
                its.is_some_and(|i| elected.text == format!("{} is master", i.node) && i.until_ns > i.from_ns),
                "{elected:?}: {its:?}"
            );
        }
        Ok(())
    }

    fn leases(&self) -> Result<Vec<Interval>> {
        let mut all = Vec::new();
        for daemon in self.daemons.iter().chain(&self.gone) {
            all.extend(daemon.leases()?);
        }
        Ok(all)
    }

    /// Every subscriber saw each change up to now, once and in order.
    ///
    /// # Errors
    /// With what it missed.
    pub async fn assert_subscribers(&self) -> Result<()> {
        let log = self.changes().await?;
        let gapless = log.iter().zip(1..).all(|(c, seq)| c.seq == seq && c.kind != "log.gap");
        ensure!(gapless, "the change log has gaps: {log:?}");
        for subscriber in &self.subscribers {
            subscriber.assert_saw(&log, LIMIT).await?;
        }
        Ok(())
    }

    /// No two masters ever overlapped; and nobody panicked.
    ///
    /// # Errors
    /// With the two.
    pub fn assert_leases_disjoint(&self) -> Result<()> {
        for daemon in self.daemons.iter().chain(&self.gone) {
            let logs = daemon.logs();
            let panicked = logs.lines().find(|l| l.contains("panicked at"));
            ensure!(panicked.is_none(), "{}: {}", daemon.name, panicked.unwrap_or_default());
        }
        let all = self.leases()?;
        ensure!(!all.is_empty(), "no daemon logged a lease");
        assert_disjoint(all)
    }

    /// The ends of all logs.
    pub fn tails(&self) -> String {
        let tail = |d: &Daemon| format!("--- {}\n{}\n", d.name, d.tail(25));
        self.daemons.iter().map(tail).collect()
    }
}

/// Whether a node is in this state.
pub fn is(state: &ClusterState, name: &str, wanted: NodeState) -> bool {
    state_of(state, name) == Some(wanted)
}

/// The state of a node, if the cluster shows it.
pub fn state_of(state: &ClusterState, name: &str) -> Option<NodeState> {
    let node = state.nodes.iter().find(|n| n.name == name)?;
    node.status.as_ref().map(ha_proto::v1::NodeStatus::state)
}

/// The master's name; empty while there is none.
pub fn master_of(state: &ClusterState) -> &str {
    state.master.as_ref().map_or("", |m| m.node.as_str())
}

/// The master's term.
pub fn term_of(state: &ClusterState) -> u64 {
    state.master.as_ref().map_or(0, |m| m.term)
}

fn is_master(node: &Node) -> bool {
    let role = node.status.as_ref().map(ha_proto::v1::NodeStatus::role);
    role == Some(ha_proto::v1::Role::Master)
}

fn summary(state: &ClusterState) -> String {
    let mut text = format!("master {:?} term {}", master_of(state), term_of(state));
    for node in &state.nodes {
        let status = node.status.clone().unwrap_or_default();
        text += &format!(
            "\n  {} {:?} {:?} {}",
            node.name,
            status.state(),
            status.role(),
            status.reason
        );
    }
    text
}

fn told(error: &CliError) -> String {
    format!("{error} {:?}", error.reasons())
}
