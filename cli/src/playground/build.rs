//! Builds the cluster of a playground with what an operator has: the certificate authority and the API.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use ha_proto::codes;
use ha_proto::v1::{
    AccessRole, AddNodeRequest, ChangeOptions, ClusterState, GetStateRequest, GroupHealth, NodeSpec, NodeState,
};

use super::child::{Child, Exit, Report, State};
use super::control::{self, Answer, Request};
use super::needs::Needs;
use super::place::{Node, Place, Record};
use super::system::{self, Account};
use super::up::{LOOK, mark_context};
use super::{database, kinds, logs};
use crate::bundle;
use crate::ca::{ClusterAuthority, Issued};
use crate::client::Client;
use crate::context::Store;
use crate::error::CliError;
use crate::health::{self, Verdict};
use crate::output::notes::Notes;

/// The operator for whom the cluster is made.
const USER: &str = "admin";
/// Longest time for one question while waiting.
const QUESTION: Duration = Duration::from_secs(2);
/// A child that was started again this often will not come up.
const FUTILE: u32 = 3;

/// Everything that building needs.
pub(super) struct Builder<'a> {
    pub(super) place: &'a Place,
    pub(super) account: &'a Account,
    pub(super) needs: &'a Needs,
    /// The daemon's program, where the account may run it.
    pub(super) had: &'a Path,
    pub(super) record: &'a Record,
    pub(super) authority: &'a ClusterAuthority,
    pub(super) store: &'a Store,
    pub(super) restart: bool,
    /// Whether to make a database group.
    pub(super) database: bool,
    pub(super) notes: Notes,
    pub(super) deadline: Instant,
}

impl Builder<'_> {
    /// Builds the cluster and waits until it is healthy.
    ///
    /// # Errors
    /// `HA0904` with the reason and the lines of the log that explain it.
    pub(super) async fn build(&mut self) -> Result<(), CliError> {
        self.start_zookeeper().await?;
        let Some((first, others)) = self.record.nodes.split_first() else {
            return Ok(());
        };
        let mut client = self.begin(first).await?;
        for node in others {
            self.add(&mut client, node).await?;
        }
        self.healthy(&mut client).await?;
        if self.database {
            self.make_database(&mut client).await?;
        }
        Ok(())
    }

    /// Makes the group and waits until all its instances serve.
    async fn make_database(&self, client: &mut Client) -> Result<(), CliError> {
        let started = Instant::now();
        while let Err(error) = database::create(client, self.place, &self.record.nodes).await {
            self.pause("the database group cannot be made", Some(error)).await?;
        }
        loop {
            let error = match client.get_state(GetStateRequest {}).await {
                Ok(state) => match state.databases.iter().find(|g| g.name == database::GROUP) {
                    Some(group) if group.health() == GroupHealth::Healthy => {
                        let primary = group.record.as_ref().map_or("", |r| r.primary.as_str());
                        self.say(
                            "database",
                            &format!("{} has its primary on {primary}", group.name),
                            started,
                        );
                        return Ok(());
                    }
                    Some(group) => Some(group.problems.iter().fold(
                        CliError::new(codes::UNHEALTHY, "the database group is not healthy"),
                        |e, problem| e.why(problem.clone()),
                    )),
                    None => None,
                },
                Err(error) => Some(error),
            };
            self.pause("the database does not come up", error).await?;
        }
    }

    async fn start_zookeeper(&self) -> Result<(), CliError> {
        let started = Instant::now();
        let address = &self.record.zookeeper;
        let child = kinds::zookeeper(self.place, self.needs, address, self.restart)?;
        self.start(child).await?;
        while kinds::zookeeper_mode(address).await.is_none() {
            self.pause("ZooKeeper does not serve", None).await?;
        }
        self.say(kinds::ZOOKEEPER, &format!("serves on {address}"), started);
        Ok(())
    }

    /// The first node makes the cluster; from then on there is a context.
    async fn begin(&self, node: &Node) -> Result<Client, CliError> {
        let started = Instant::now();
        let issued = self.authority.issue_node(&node.name)?;
        let user = self.authority.issue_user(USER, AccessRole::Admin)?;
        let bootstrap = ClusterAuthority::bootstrap(&issued, &user);
        let endpoints = self.record.nodes.iter().map(|n| n.address.clone()).collect();
        let name = &self.record.cluster;
        let context = self
            .store
            .add(name, &self.authority.user_bundle(&user, endpoints), false)?;
        mark_context(self.store, name, self.place)?;
        self.authority.save_new(&self.store.authority_path(name))?;
        if self.store.current()?.is_none() {
            self.store.set_current(name)?;
        }
        self.start_daemon(node, &issued, Some(bootstrap)).await?;
        // Only the first node is there to be asked.
        let mut client = Client::new(&context, std::slice::from_ref(&node.address), QUESTION, Notes::silent())?;
        loop {
            let error = match client.get_state(GetStateRequest {}).await {
                Ok(state) if is_online(&state, &node.name) && has_master(&state) => break,
                Ok(_) => None,
                Err(error) => Some(error),
            };
            self.pause(&format!("{} does not lead the cluster", node.name), error)
                .await?;
        }
        self.say(&node.name, &format!("leads the cluster on {}", node.address), started);
        Client::new(&context, &[], QUESTION, Notes::silent())
    }

    async fn add(&self, client: &mut Client, node: &Node) -> Result<(), CliError> {
        let issued = self.authority.issue_node(&node.name)?;
        let request = AddNodeRequest {
            name: node.name.clone(),
            spec: Some(NodeSpec {
                address: node.address.clone(),
                master_eligible: true,
                ..NodeSpec::default()
            }),
            options: Some(ChangeOptions {
                reason: "hactl playground up".into(),
                ..ChangeOptions::default()
            }),
            certificate_serial: issued.serial.clone(),
            certificate_expires_unix_ms: issued.expires_unix_ms,
        };
        while let Err(error) = client.add_node(request.clone()).await {
            // An answer that got lost leaves a node that was added.
            if error.is(codes::NODE_EXISTS) {
                break;
            }
            self.pause(&format!("{} cannot be added", node.name), Some(error))
                .await?;
        }
        self.start_daemon(node, &issued, None).await
    }

    async fn start_daemon(
        &self,
        node: &Node,
        issued: &Issued,
        bootstrap: Option<ha_proto::v1::Bootstrap>,
    ) -> Result<(), CliError> {
        let data = self.place.data(&node.name);
        crate::files::create_private_dir(&data)?;
        let sockets = self.place.sockets(&node.name);
        crate::files::create_private_dir(&sockets)?;
        system::give_all(&self.place.sockets(""), self.account)?;
        let join = self.authority.node_bundle(issued, &node.address, bootstrap);
        bundle::write_new(&kinds::bundle(self.place, node), &join)?;
        self.start(kinds::daemon(self.place, self.had, node, self.restart)?)
            .await
    }

    async fn start(&self, child: Child) -> Result<(), CliError> {
        system::give_all(&self.place.data(&child.name), self.account)?;
        control::ask(self.place, &Request::Start(Box::new(child)))
            .await
            .map(drop)
    }

    /// Waits until all nodes are online and nothing is wrong, and tells of each node that comes.
    async fn healthy(&self, client: &mut Client) -> Result<(), CliError> {
        let started = Instant::now();
        let mut seen: BTreeSet<&str> = self.record.nodes.first().map(|n| n.name.as_str()).into_iter().collect();
        loop {
            let error = match client.get_state(GetStateRequest {}).await {
                Ok(state) => {
                    for node in &self.record.nodes {
                        if is_online(&state, &node.name) && seen.insert(&node.name) {
                            self.say(&node.name, &format!("joined on {}", node.address), started);
                        }
                    }
                    let health = health::assess(&state);
                    if seen.len() == self.record.nodes.len() && health.verdict == Verdict::Healthy {
                        return Ok(());
                    }
                    let why = health.reasons.into_iter();
                    Some(why.fold(
                        CliError::new(codes::UNHEALTHY, "the cluster is not healthy"),
                        CliError::why,
                    ))
                }
                Err(error) => Some(error),
            };
            self.pause("the cluster is not healthy", error).await?;
        }
    }

    fn say(&self, name: &str, what: &str, started: Instant) {
        self.notes
            .say(&format!("{name:<9}  {what}, {:.1} s", started.elapsed().as_secs_f32()));
    }

    /// Waits a moment, unless waiting is of no use any more: the time is over, or a process died for good.
    async fn pause(&self, what: &str, error: Option<CliError>) -> Result<(), CliError> {
        let failed = || {
            CliError::new(
                codes::PLAYGROUND_FAILED,
                format!("the playground did not come up: {what}"),
            )
        };
        let Answer::Children { children, .. } = control::ask(self.place, &Request::Status).await? else {
            return Err(failed());
        };
        if let Some((child, exit)) = children.iter().find_map(lost) {
            return Err(logs::explain(
                failed().why(format!("{} ended: {exit}", child.name)),
                &child.log,
            ));
        }
        if Instant::now() >= self.deadline {
            let mut failed = failed().why("the time is over; --timeout gives more");
            if let Some(error) = &error {
                let reasons = error.reasons().iter().cloned();
                failed = reasons.fold(failed.why(error.message()), CliError::why);
            }
            let last = children.last().map(|child| child.log.clone());
            return Err(last.into_iter().fold(failed, |e, log| logs::explain(e, &log)));
        }
        tokio::time::sleep(LOOK).await;
        Ok(())
    }
}

/// How a child ended that will not come up.
fn lost(child: &Report) -> Option<(&Report, Exit)> {
    match child.state {
        State::Ended { exit, .. } => Some((child, exit)),
        State::Waiting { exit, .. } if child.restarts >= FUTILE => Some((child, exit)),
        State::Waiting { .. } | State::Running { .. } => None,
    }
}

fn is_online(state: &ClusterState, name: &str) -> bool {
    let node = state.nodes.iter().find(|node| node.name == name);
    node.and_then(|node| node.status.as_ref())
        .is_some_and(|status| status.state() == NodeState::Online)
}

fn has_master(state: &ClusterState) -> bool {
    state.master.as_ref().is_some_and(|master| !master.node.is_empty())
}
