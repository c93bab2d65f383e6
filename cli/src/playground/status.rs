//! `hactl playground status`: the processes, and how the cluster sees them.

use std::time::Duration;

use ha_proto::v1::{ClusterState, GetStateRequest, NodeState};
use serde::Serialize;

use super::child::{Report, State};
use super::control::{self, Answer, Request};
use super::place::{Place, Record};
use super::{DirArgs, down, kinds, system};
use crate::args::Globals;
use crate::client::Client;
use crate::context::Store;
use crate::error::CliError;
use crate::names::now_ms;
use crate::output::document::Meta;
use crate::output::notes::Notes;
use crate::output::table::{Cell, Tone};
use crate::output::{Column, Out, View, col, units, wide};

/// Longest time to ask the cluster how it is.
const QUESTION: Duration = Duration::from_secs(2);

/// Runs `status`.
///
/// # Errors
/// `HA0902` if none runs there.
pub(super) async fn run(args: &DirArgs, globals: &Globals) -> Result<(), CliError> {
    let place = Place::find(args.dir.as_deref(), system::is_root())?;
    let record = Record::load(&place)?.ok_or_else(|| down::none(&place))?;
    show(&place, &record, &Out::new(globals)).await
}

/// Prints the processes.
///
/// # Errors
/// `HA0902` if the playground does not run.
pub(super) async fn show(place: &Place, record: &Record, out: &Out) -> Result<(), CliError> {
    let (answer, cluster, mode) = tokio::join!(
        control::ask(place, &Request::Status),
        cluster(record),
        kinds::zookeeper_mode(&record.zookeeper),
    );
    let Answer::Children { children, supervisor } = answer? else {
        return Err(down::none(place));
    };
    let items = children.into_iter().map(|child| {
        let health = match child.name.as_str() {
            kinds::ZOOKEEPER => mode.clone().unwrap_or_else(|| "does not answer".into()),
            node => cluster
                .as_ref()
                .map_or("unknown", |state| node_state(state, node))
                .to_owned(),
        };
        ProcessView::new(child, health)
    });
    let items: Vec<ProcessView> = items.collect();
    out.notes
        .detail(&format!("supervisor: process {supervisor}, user {}", record.user));
    let mut meta = Meta::of(&record.cluster, 0, 0);
    if cluster.is_none() {
        meta.warnings.push("the cluster does not answer".into());
    }
    out.list("PlaygroundProcessList", &meta, items, now_ms())
}

/// How the cluster is, if it answers.
async fn cluster(record: &Record) -> Option<ClusterState> {
    let context = Store::at(&record.contexts).load(&record.cluster).ok()?;
    if context.bundle.cluster_id != record.cluster_id {
        return None;
    }
    let mut client = Client::new(&context, &[], QUESTION, Notes::silent()).ok()?;
    tokio::time::timeout(QUESTION, client.get_state(GetStateRequest {}))
        .await
        .ok()?
        .ok()
}

fn node_state(state: &ClusterState, name: &str) -> &'static str {
    let node = state.nodes.iter().find(|node| node.name == name);
    let found = node
        .and_then(|node| node.status.as_ref())
        .map_or(NodeState::Removed, ha_proto::v1::NodeStatus::state);
    let master = state.master.as_ref().is_some_and(|master| master.node == name);
    if master && found == NodeState::Online {
        "online, master"
    } else {
        found.word()
    }
}

#[derive(Debug, Clone, Serialize)]
struct ProcessView {
    name: String,
    spec: Spec,
    status: Status,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    program: String,
    address: String,
    log: String,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    state: &'static str,
    /// How the cluster sees it.
    health: String,
    pid: Option<u32>,
    restarts: u32,
    since: Option<String>,
    last_exit: Option<String>,
    #[serde(skip)]
    since_ms: i64,
}

impl ProcessView {
    fn new(child: Report, health: String) -> Self {
        let (state, pid, since_ms, exit) = match child.state {
            State::Running { pid, since_ms } => ("running", Some(pid), since_ms, None),
            State::Waiting { exit, until_ms } => ("restarting", None, until_ms, Some(exit)),
            State::Ended { exit, at_ms } => ("ended", None, at_ms, Some(exit)),
        };
        Self {
            name: child.name,
            spec: Spec {
                program: child.kind,
                address: child.address,
                log: child.log.display().to_string(),
            },
            status: Status {
                state,
                health,
                pid,
                restarts: child.restarts,
                since: units::moment(since_ms),
                last_exit: exit.map(|exit| exit.to_string()),
                since_ms,
            },
        }
    }
}

impl View for ProcessView {
    fn name(&self) -> String {
        self.name.clone()
    }

    const KIND: &'static str = "process";

    const COLUMNS: &'static [Column] = &[
        col("NAME"),
        wide("PROGRAM"),
        col("PID"),
        col("STATE"),
        col("HEALTH"),
        col("ADDRESS"),
        col("RESTARTS"),
        col("SINCE"),
        col("LOG"),
    ];

    fn cells(&self, now: i64) -> Vec<Cell> {
        let status = &self.status;
        let tone = match status.state {
            "running" => Tone::Good,
            "restarting" => Tone::Warning,
            _ => Tone::Bad,
        };
        let state = match &status.last_exit {
            Some(exit) => format!("{}: {exit}", status.state),
            None => status.state.to_owned(),
        };
        vec![
            Cell::new(&self.name),
            Cell::new(&self.spec.program),
            Cell::new(status.pid.map(|pid| pid.to_string()).unwrap_or_default()).key(status.pid.unwrap_or(0)),
            Cell::new(state).tone(tone),
            Cell::new(&status.health),
            Cell::new(&self.spec.address),
            Cell::new(status.restarts.to_string()).key(status.restarts),
            Cell::new(units::ago(status.since_ms, now)).key(status.since_ms),
            Cell::new(&self.spec.log).tone(Tone::Dim),
        ]
    }
}
