//! `hactl user …`

mod add;
mod list;
mod renew;
mod revoke;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use ha_proto::codes;
use ha_proto::v1::ListNodesRequest;

use super::Cx;
use crate::client::Client;
use crate::context::Context;
use crate::error::CliError;

/// The verbs of `user`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// All users and their roles.
    List(list::Args),
    /// Add a user and write the bundle that makes its context.
    Add(add::Args),
    /// Write a new bundle for an existing user.
    Renew(renew::Args),
    /// Refuse all certificates of a user, or of a node, from now on.
    Revoke(revoke::Args),
}

pub(super) async fn run(command: Command, cx: &Cx) -> Result<(), CliError> {
    match command {
        Command::List(args) => list::run(&args, cx).await,
        Command::Add(args) => add::run(args, cx).await,
        Command::Renew(args) => renew::run(args, cx).await,
        Command::Revoke(args) => revoke::run(args, cx).await,
    }
}

/// Where the bundle goes, if nothing is there.
fn bundle_path(out: &Path, name: &str) -> Result<PathBuf, CliError> {
    let path = out.join(format!("{name}.bundle"));
    if path.symlink_metadata().is_ok() {
        return Err(
            CliError::new(codes::EXISTS_LOCALLY, format!("{} exists already", path.display()))
                .why("hactl does not overwrite keys and certificates")
                .next(format!("hactl user … {name} --out DIR"), "another directory"),
        );
    }
    if !out.is_dir() {
        return Err(
            CliError::new(codes::BAD_FILE, format!("{} is not a directory", out.display()))
                .next(format!("mkdir -p {}", out.display()), ""),
        );
    }
    Ok(path)
}

/// The endpoints that a new bundle knows: those of all nodes.
async fn endpoints(client: &mut Client, context: &Context) -> Vec<String> {
    if let Ok(answer) = client.list_nodes(ListNodesRequest::default()).await {
        super::node::remember(context, &answer.nodes);
    }
    let mut all = context.endpoints();
    all.sort();
    all
}
