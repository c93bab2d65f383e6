//! `hactl db …`: database groups. What changes a primary is asked about first; what loses data is a flag of its own.

mod assign;
mod config;
mod create;
mod dsn;
mod explain;
mod failover;
mod history;
mod list;
mod pause;
mod reinit;
mod remove;
mod restart;
pub(crate) mod scram;
mod status;
mod switchover;

use clap::Subcommand;
use ha_proto::codes;
use ha_proto::v1::{GetGroupRequest, Group, ListGroupsRequest};

use super::Cx;
use crate::client::Client;
use crate::complete;
use crate::context::Context;
use crate::error::CliError;
use crate::names;

/// `hactl db`
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Args {
    /// The group; without it the only one there is.
    #[arg(long, global = true, env = "HACTL_GROUP", hide_env = true, value_name = "GROUP",
          add = complete::groups(), help_heading = "Database options")]
    pub group: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs of `db`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// All groups.
    List,
    /// A group: its primary, its standbys, and what it waits for.
    Status(status::Args),
    /// Make a group.
    Create(Box<create::Args>),
    /// Remove a group.
    Remove(remove::Args),
    /// The changes of primary, each with its phases and what it was decided from.
    History(history::Args),
    /// Say what a node is to be in a group.
    Assign(assign::Args),
    /// Make another instance primary, in order and with a short pause of writes.
    Switchover(switchover::Args),
    /// Give a primary up that is lost or not to be waited for.
    Failover(failover::Args),
    /// Copy a standby afresh from the primary.
    Reinit(reinit::Args),
    /// Do nothing by itself: no failover, no repair.
    Pause(pause::PauseArgs),
    /// End a pause.
    Resume(pause::ResumeArgs),
    /// Restart PostgreSQL.
    Restart(restart::Args),
    /// How applications connect.
    Dsn(dsn::Args),
    /// Parameters, access, limits, databases and roles.
    #[command(subcommand)]
    Config(config::Command),
    /// Why the group is as it is: what keeps it from failing over, and each instance from being primary.
    Explain(explain::Args),
}

pub(super) async fn run(args: Args, cx: &Cx) -> Result<(), CliError> {
    let group = args.group;
    if let Some(name) = &group {
        names::check_name("database group", name)?;
    }
    match args.command {
        Command::List => list::run(cx).await,
        Command::Status(args) => status::run(&args, group, cx).await,
        Command::Create(args) => create::run(*args, group, cx).await,
        Command::Remove(args) => remove::run(args, group, cx).await,
        Command::History(args) => history::run(&args, group, cx).await,
        Command::Assign(args) => assign::run(args, group, cx).await,
        Command::Switchover(args) => switchover::run(args, group, cx).await,
        Command::Failover(args) => failover::run(args, group, cx).await,
        Command::Reinit(args) => reinit::run(args, group, cx).await,
        Command::Pause(args) => pause::pause(args, group, cx).await,
        Command::Resume(args) => pause::resume(args, group, cx).await,
        Command::Restart(args) => restart::run(args, group, cx).await,
        Command::Dsn(args) => dsn::run(&args, group, cx).await,
        Command::Config(command) => Box::pin(config::run(command, group, cx)).await,
        Command::Explain(args) => explain::run(&args, group, cx).await,
    }
}

/// The group that is meant: the one named, or the only one.
async fn group(client: &mut Client, name: Option<&str>) -> Result<Group, CliError> {
    client
        .get_group(GetGroupRequest {
            name: name.unwrap_or_default().to_owned(),
        })
        .await
}

/// The name of the group that is meant; asks only where it was not given.
async fn group_name(client: &mut Client, name: Option<String>) -> Result<String, CliError> {
    if let Some(name) = name {
        return Ok(name);
    }
    let mut groups = client.list_groups(ListGroupsRequest {}).await?.groups;
    match groups.len() {
        1 => Ok(groups.remove(0).name),
        0 => Err(none()),
        _ => {
            let error = CliError::new(codes::GROUP_AMBIGUOUS, "it is not said which database group is meant");
            let names: Vec<String> = groups.into_iter().map(|g| g.name).collect();
            Err(error
                .why(format!("the groups are {}", names.join(", ")))
                .next(format!("--group {}", names[0]), "says it")
                .next("export HACTL_GROUP=GROUP", "for a whole session"))
        }
    }
}

fn none() -> CliError {
    CliError::new(codes::NO_DATABASES, "the cluster has no database group")
        .next("hactl db create main --node n1 --node n2 --node n3", "makes one")
}

/// Where a group stands among the others of an answer's clock.
fn observed(group: &Group) -> i64 {
    match group.observed_unix_ms {
        0 => names::now_ms(),
        at => at,
    }
}

/// Keeps the names of groups for completion without the server.
fn remember(context: &Context, groups: &[Group]) {
    context.update_cache(|cache| cache.groups = groups.iter().map(|g| g.name.clone()).collect());
}

/// `--group main`, where it has to be typed again.
fn flag(given: Option<&str>) -> String {
    given.map(|name| format!(" --group {name}")).unwrap_or_default()
}
