//! `hactl wait KIND/NAME --for COND`: ends when it is so. Looks at the Watch stream, or at the operation's own.

mod database;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use ha_proto::codes;
use ha_proto::v1::{ClusterState, NodeState, OperationState, Role};
use serde::Serialize;
use tokio_stream::StreamExt as _;

use super::Cx;
use crate::client::state::Mirror;
use crate::client::{Client, follow};
use crate::complete;
use crate::error::CliError;
use crate::health;
use crate::names;
use crate::output::Format;
use crate::output::document::{Document, Meta};

/// `hactl wait`
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "hactl wait [OPTIONS] --for <COND,…> <KIND/NAME>",
    after_help = "Conditions; any one of those named ends the wait:\n  \
    node/NAME    pending online suspect offline cordoned draining removed, up (its daemon is there), master, member\n  \
    cluster      healthy degraded unhealthy, master (there is one), maintenance, no-maintenance\n  \
    master       elected; master/NAME: elected, lost\n  \
    op/ID        pending running succeeded failed cancelled, finished\n  \
    db/GROUP     healthy degraded no-primary, primary (there is one), steady, paused, whole (all its instances stream)\n  \
    db/GROUP/NODE  primary, standby, streaming, running, … (what db status says of it), eligible\n\n\
    Examples:\n  hactl wait node/n2 --for online --timeout 2m\n  hactl wait cluster --for healthy\n  \
    hactl wait db/main --for healthy\n  hactl wait db/main/n3 --for primary\n  \
    hactl wait op/0199f3 --for succeeded --fail-on failed,cancelled"
)]
pub struct Args {
    /// What to wait for: node/NAME, cluster, master, master/NAME, op/ID, db/GROUP, db/GROUP/NODE.
    #[arg(value_name = "KIND/NAME", add = complete::targets())]
    pub target: String,
    /// End well when one of these is so.
    #[arg(long = "for", value_name = "COND,…", required = true, value_delimiter = ',')]
    pub conditions: Vec<String>,
    /// End with HA0505 when one of these is so.
    #[arg(long, value_name = "COND,…", value_delimiter = ',')]
    pub fail_on: Vec<String>,
}

const NODE: &[&str] = &[
    "pending", "online", "suspect", "offline", "cordoned", "draining", "removed", "up", "master", "member",
];
const CLUSTER: &[&str] = &[
    "healthy",
    "degraded",
    "unhealthy",
    "master",
    "maintenance",
    "no-maintenance",
];
const MASTER: &[&str] = &["elected"];
const MASTER_NODE: &[&str] = &["elected", "lost"];
const OPERATION: &[&str] = &["pending", "running", "succeeded", "failed", "cancelled", "finished"];

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Node(String),
    Cluster,
    Master,
    MasterNode(String),
    Operation(String),
    Group(String),
    Instance(String, String),
}

impl Target {
    fn parse(text: &str) -> Result<Self, CliError> {
        let (kind, name) = text
            .split_once('/')
            .map_or((text, None), |(kind, name)| (kind, Some(name)));
        let target = match (kind, name) {
            ("node", Some(name)) => Self::Node(name.to_owned()),
            ("cluster", _) => Self::Cluster,
            ("master", None) => Self::Master,
            ("master", Some(name)) => Self::MasterNode(name.to_owned()),
            ("op" | "operation", Some(id)) if !id.is_empty() => Self::Operation(id.to_owned()),
            ("db" | "database", Some(name)) => match name.split_once('/') {
                Some((group, node)) => Self::Instance(group.to_owned(), node.to_owned()),
                None => Self::Group(name.to_owned()),
            },
            _ => {
                return Err(
                    CliError::new(codes::BAD_VALUE, format!("`{text}` cannot be waited for"))
                        .why("write node/NAME, cluster, master, master/NAME, op/ID, db/GROUP or db/GROUP/NODE"),
                );
            }
        };
        if let Self::Node(name) | Self::MasterNode(name) = &target {
            names::check_name("node", name)?;
        }
        if let Self::Group(name) | Self::Instance(name, _) = &target {
            names::check_name("database group", name)?;
        }
        if let Self::Instance(_, node) = &target {
            names::check_name("node", node)?;
        }
        Ok(target)
    }

    fn known(&self) -> &'static [&'static str] {
        match self {
            Self::Node(_) => NODE,
            Self::Cluster => CLUSTER,
            Self::Master => MASTER,
            Self::MasterNode(_) => MASTER_NODE,
            Self::Operation(_) => OPERATION,
            Self::Group(_) => database::GROUP,
            Self::Instance(..) => database::INSTANCE,
        }
    }

    fn check(&self, conditions: &[String]) -> Result<(), CliError> {
        match conditions.iter().find(|c| !self.known().contains(&c.as_str())) {
            None => Ok(()),
            Some(wrong) => Err(
                CliError::new(codes::BAD_VALUE, format!("`{wrong}` is not a condition of this"))
                    .why(format!("the conditions are {}", self.known().join(", "))),
            ),
        }
    }

    /// The conditions that hold, and how it is in words. `None`: it does not exist.
    fn look(&self, state: &ClusterState) -> Option<(BTreeSet<&'static str>, String)> {
        let master = state.master.as_ref().map_or("", |m| m.node.as_str());
        let mut holds = BTreeSet::new();
        let now = match self {
            Self::Node(name) => {
                let node = state.nodes.iter().find(|n| n.name == *name)?;
                let status = node.status.clone().unwrap_or_default();
                holds.insert(status.state().word());
                if matches!(
                    status.state(),
                    NodeState::Online | NodeState::Cordoned | NodeState::Draining
                ) {
                    holds.insert("up");
                }
                let is_master = status.role() == Role::Master || master == *name;
                holds.insert(if is_master { "master" } else { "member" });
                let reason = if status.reason.is_empty() {
                    String::new()
                } else {
                    format!(": {}", status.reason)
                };
                format!("{}{reason}", status.state().word())
            }
            Self::Cluster => {
                let health = health::assess(state);
                holds.insert(health.verdict.word());
                if !master.is_empty() {
                    holds.insert("master");
                }
                let maintenance = state.maintenance.as_ref().is_some_and(|m| m.on);
                holds.insert(if maintenance { "maintenance" } else { "no-maintenance" });
                let reason = health.reasons.first().map(|r| format!(": {r}")).unwrap_or_default();
                format!("{}{reason}", health.verdict.word())
            }
            Self::Master => {
                if master.is_empty() {
                    "no master".to_owned()
                } else {
                    holds.insert("elected");
                    format!("{master} is master")
                }
            }
            Self::MasterNode(name) => {
                state.nodes.iter().find(|n| n.name == *name)?;
                holds.insert(if master == name { "elected" } else { "lost" });
                if master.is_empty() {
                    "no master".to_owned()
                } else {
                    format!("{master} is master")
                }
            }
            Self::Group(name) => {
                let group = state.databases.iter().find(|g| g.name == *name)?;
                database::group_now(group, state.observed_unix_ms, &mut holds)
            }
            Self::Instance(name, node) => {
                let group = state.databases.iter().find(|g| g.name == *name)?;
                let instance = group.instances.iter().find(|i| i.node == *node)?;
                database::instance_now(instance, state.observed_unix_ms, &mut holds)
            }
            Self::Operation(_) => return None,
        };
        Some((holds, now))
    }
}

/// A state that was reached on the way, or the end of the wait.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WaitView {
    name: String,
    status: WaitStatus,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WaitStatus {
    conditions: Vec<&'static str>,
    text: String,
    elapsed_ms: u64,
    done: bool,
}

/// # Errors
/// `HA0104` if it does not come within `--timeout`, `HA0505` if `--fail-on` came first.
pub async fn run(args: Args, cx: &Cx) -> Result<(), CliError> {
    let target = Target::parse(&args.target)?;
    target.check(&args.conditions)?;
    target.check(&args.fail_on)?;
    let client = cx.client()?;
    let mut wait = Wait {
        cx,
        args: &args,
        cluster: client.cluster().to_owned(),
        begun: Instant::now(),
        last: String::new(),
    };
    let limit = cx.globals.timeout;
    let waited = match &target {
        Target::Operation(id) => tokio::time::timeout(limit, wait.operation(client, id)).await,
        target => tokio::time::timeout(limit, wait.state(client, target)).await,
    };
    waited.unwrap_or_else(|_| {
        let now = if wait.last.is_empty() {
            "it was never seen"
        } else {
            &wait.last
        };
        Err(CliError::new(
            codes::TIMEOUT,
            format!(
                "{} did not become {} within {} s",
                args.target,
                args.conditions.join(" or "),
                limit.as_secs()
            ),
        )
        .why(format!("last seen: {now}"))
        .next("hactl event list", "what happened"))
    })
}

struct Wait<'a> {
    cx: &'a Cx,
    args: &'a Args,
    cluster: String,
    begun: Instant,
    last: String,
}

impl Wait<'_> {
    /// Looks at the stream until it ends well or badly, or the caller gives up.
    async fn state(&mut self, mut client: Client, target: &Target) -> Result<(), CliError> {
        let mut mirror = Mirror::default();
        loop {
            match self.stream(&mut client, target, &mut mirror).await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) if error.retryable() => self.cx.out.notes.detail(&error.to_string()),
                Err(error) => return Err(error),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn stream(&mut self, client: &mut Client, target: &Target, mirror: &mut Mirror) -> Result<bool, CliError> {
        let mut stream = client.watch(mirror.term, mirror.seq).await?;
        while let Some(frame) = stream.next().await {
            let frame = frame.map_err(|status| client.stream_error(&status))?;
            if !mirror.apply(frame) {
                return Ok(false);
            }
            let Some((holds, now)) = target.look(&mirror.state) else {
                return self.missing(target);
            };
            if self.reached(&holds, &now)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What does not exist is removed already; otherwise its name is wrong.
    fn missing(&mut self, target: &Target) -> Result<bool, CliError> {
        let removed = BTreeSet::from(["removed"]);
        if self.reached(&removed, "not in the cluster")? {
            return Ok(true);
        }
        let (Target::Node(name) | Target::MasterNode(name)) = target else {
            return match target {
                Target::Group(name) => Err(CliError::new(
                    codes::GROUP_UNKNOWN,
                    format!("there is no database group {name}"),
                )
                .next("hactl db list", "")),
                Target::Instance(group, node) => Err(CliError::new(
                    codes::INSTANCE_UNKNOWN,
                    format!("there is no instance of {group} on {node}"),
                )
                .next(format!("hactl db status --group {group}"), "")),
                _ => Ok(false),
            };
        };
        Err(CliError::new(codes::NODE_UNKNOWN, format!("there is no node {name}")).next("hactl node list", ""))
    }

    async fn operation(&mut self, mut client: Client, id: &str) -> Result<(), CliError> {
        let mut outcome: Option<Result<(), CliError>> = None;
        // The caller's limit ends this one earlier.
        let limit = self.cx.globals.timeout * 2;
        let ended = follow::operation(&mut client, id, limit, |op| {
            let mut holds = BTreeSet::from([op.state().word()]);
            if op.state().is_final() {
                holds.insert("finished");
            }
            let step = op.steps.last().map(|s| format!(": {}", s.text)).unwrap_or_default();
            let why = if op.state() == OperationState::Failed {
                format!(": {}", op.error)
            } else {
                step
            };
            if outcome.is_none() {
                match self.reached(&holds, &format!("{}{why}", op.state().word())) {
                    Ok(false) => {}
                    Ok(true) => outcome = Some(Ok(())),
                    Err(error) => outcome = Some(Err(error)),
                }
            }
            outcome.is_some()
        })
        .await?;
        outcome.unwrap_or_else(|| {
            Err(
                CliError::new(codes::WAIT_FAILED, format!("operation {id} {}", ended.state().word()))
                    .why("it is finished and will not change any more")
                    .next(format!("hactl op show {id}"), "its steps"),
            )
        })
    }

    /// Tells how it is, and whether the wait ends here.
    fn reached(&mut self, holds: &BTreeSet<&'static str>, now: &str) -> Result<bool, CliError> {
        let any = |conditions: &[String]| conditions.iter().find(|c| holds.contains(c.as_str())).cloned();
        let good = any(&self.args.conditions);
        let bad = any(&self.args.fail_on).filter(|_| good.is_none());
        let done = good.is_some() || bad.is_some();
        if self.last != now || done {
            now.clone_into(&mut self.last);
            self.tell(holds, now, done)?;
        }
        if let Some(condition) = bad {
            return Err(
                CliError::new(codes::WAIT_FAILED, format!("{} is {condition}", self.args.target))
                    .why(now.to_owned())
                    .next("hactl event list", "what happened"),
            );
        }
        Ok(good.is_some())
    }

    fn tell(&self, holds: &BTreeSet<&'static str>, now: &str, done: bool) -> Result<(), CliError> {
        let elapsed = self.begun.elapsed();
        let out = &self.cx.out;
        match out.format {
            Format::Json | Format::Yaml => {
                let status = WaitStatus {
                    conditions: holds.iter().copied().collect(),
                    text: now.to_owned(),
                    elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
                    done,
                };
                let view = WaitView {
                    name: self.args.target.clone(),
                    status,
                };
                out.stream_document(&Document::new("Wait", &Meta::of(&self.cluster, 0, 0), view))
            }
            Format::Name if done => out.line(&self.args.target),
            Format::Name => Ok(()),
            Format::Table | Format::Wide => {
                let line = format!("{:>7.3} s  {} {now}", elapsed.as_secs_f32(), self.args.target);
                if done {
                    out.line(&crate::output::table::clean(&line))
                } else {
                    out.notes.say(&line);
                    Ok(())
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ha_proto::v1::{Master, Node, NodeStatus};

    fn state(node: NodeState) -> ClusterState {
        ClusterState {
            master: Some(Master {
                node: "n1".into(),
                ..Master::default()
            }),
            nodes: vec![Node {
                name: "n1".into(),
                status: Some(NodeStatus {
                    state: node as i32,
                    role: Role::Master as i32,
                    ..NodeStatus::default()
                }),
                ..Node::default()
            }],
            ..ClusterState::default()
        }
    }

    #[test]
    fn targets() {
        assert_eq!(Target::parse("node/n1").unwrap(), Target::Node("n1".into()));
        assert_eq!(Target::parse("cluster").unwrap(), Target::Cluster);
        assert_eq!(Target::parse("master/n1").unwrap(), Target::MasterNode("n1".into()));
        for bad in ["node", "node/", "node/N", "x/y", "", "op/"] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
        let check = |t: &str, c: &str| Target::parse(t).unwrap().check(&[c.to_owned()]).is_ok();
        assert!(check("node/n1", "online") && !check("node/n1", "healthy") && check("cluster", "healthy"));
    }

    #[test]
    fn what_holds() {
        let holds = |t: &str, s: NodeState| Target::parse(t).unwrap().look(&state(s)).unwrap().0;
        assert!(holds("node/n1", NodeState::Cordoned).contains("up"));
        assert!(!holds("node/n1", NodeState::Cordoned).contains("online"));
        assert!(holds("node/n1", NodeState::Online).contains("master"));
        assert!(holds("cluster", NodeState::Online).contains("healthy"));
        assert!(holds("master", NodeState::Online).contains("elected"));
        assert!(
            Target::parse("node/nx")
                .unwrap()
                .look(&state(NodeState::Online))
                .is_none()
        );
    }
}
