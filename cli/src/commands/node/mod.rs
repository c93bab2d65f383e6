//! `hactl node …`

mod add;
mod cordon;
mod drain;
mod label;
mod list;
mod remove;
mod renew;
mod set;
mod show;

use clap::Subcommand;
use ha_proto::v1::{Node, UpdateNodeRequest};

use super::{Cx, change};
use crate::args::ChangeArgs;
use crate::complete;
use crate::context::Context;
use crate::error::CliError;
use crate::names;

/// The verbs of `node`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// All nodes.
    List(list::Args),
    /// Everything about a node.
    Show(show::Args),
    /// Add a node and write the bundle that its daemon starts from.
    Add(add::Args),
    /// Remove a node whose daemon is stopped.
    Remove(remove::Args),
    /// Place nothing new on a node.
    Cordon(NodeChange),
    /// Let a node take new work again.
    Uncordon(NodeChange),
    /// Cordon a node and move away what runs on it.
    Drain(drain::Args),
    /// Set and remove labels.
    Label(label::Args),
    /// Change what is wanted of a node: its address, capacity, scenarios, mastership.
    Set(set::Args),
    /// Give a running node a new certificate.
    Renew(renew::Args),
}

/// A change of one node without flags of its own.
#[derive(Debug, clap::Args)]
pub struct NodeChange {
    /// The node.
    #[arg(value_name = "NODE", add = complete::nodes())]
    pub name: String,
    /// Flags of every change.
    #[command(flatten)]
    pub change: ChangeArgs,
}

pub(super) async fn run(command: Command, cx: &Cx) -> Result<(), CliError> {
    match command {
        Command::List(args) => list::run(&args, cx).await,
        Command::Show(args) => show::run(&args, cx).await,
        Command::Add(args) => add::run(args, cx).await,
        Command::Remove(args) => remove::run(args, cx).await,
        Command::Cordon(args) => cordon::run(args, true, cx).await,
        Command::Uncordon(args) => cordon::run(args, false, cx).await,
        Command::Drain(args) => drain::run(args, cx).await,
        Command::Label(args) => label::run(args, cx).await,
        Command::Set(args) => set::run(args, cx).await,
        Command::Renew(args) => renew::run(args, cx).await,
    }
}

/// Sends an update of a node and tells what it did.
async fn update(cx: &Cx, change: &ChangeArgs, request: UpdateNodeRequest, done: String) -> Result<(), CliError> {
    names::check_name("node", &request.name)?;
    let mut client = cx.client()?;
    let subject = format!("node/{}", request.name);
    let request = UpdateNodeRequest {
        options: Some(change.options()),
        ..request
    };
    let result = client.update_node(request).await?;
    let told = change::Told {
        subject,
        done,
        ..change::Told::default()
    };
    change::finish(cx, &mut client, change, result, told).await
}

/// Keeps where the nodes are, for the next time the likeliest one is gone.
pub(super) fn remember(context: &Context, nodes: &[Node]) {
    use ha_proto::v1::NodeState as S;
    let gone = |n: &&Node| {
        n.status
            .as_ref()
            .is_some_and(|s| matches!(s.state(), S::Removed | S::Pending))
    };
    let known: Vec<&Node> = nodes.iter().filter(|n| !gone(n)).collect();
    if known.is_empty() {
        return;
    }
    context.update_cache(|cache| {
        cache.nodes = known.iter().map(|n| n.name.clone()).collect();
        let addresses = known.iter().filter_map(|n| n.spec.as_ref()).map(|s| s.address.clone());
        cache.endpoints = addresses.filter(|a| !a.is_empty()).collect();
    });
}
