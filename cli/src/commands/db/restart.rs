//! `hactl db restart`

use ha_proto::v1::RestartRequest;

use crate::args::ChangeArgs;
use crate::commands::{Cx, change};
use crate::complete;
use crate::error::CliError;
use crate::names;

/// `hactl db restart`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hactl db restart n2\n  hactl db restart --rolling --pending")]
pub struct Args {
    /// Only this instance.
    #[arg(value_name = "NODE", add = complete::nodes(), conflicts_with = "rolling")]
    pub node: Option<String>,
    /// One after the other: standbys first, and a switchover before the primary's turn.
    #[arg(long)]
    pub rolling: bool,
    /// Only instances where a parameter waits for a restart.
    #[arg(long)]
    pub pending: bool,
    /// Flags of every change.
    #[command(flatten)]
    pub change: ChangeArgs,
}

pub(super) async fn run(args: Args, name: Option<String>, cx: &Cx) -> Result<(), CliError> {
    if let Some(node) = &args.node {
        names::check_name("node", node)?;
    }
    let mut client = cx.client()?;
    let flag = super::flag(name.as_deref());
    let group = super::group_name(&mut client, name).await?;
    let (step, rest) = match (&args.node, args.rolling) {
        (Some(node), _) => (format!("restart PostgreSQL of {group} on {node}"), format!(" {node}")),
        (None, true) => (
            format!("restart the instances of {group} one after the other"),
            " --rolling".to_owned(),
        ),
        (None, false) => (format!("restart all instances of {group} at once"), String::new()),
    };
    let pending = if args.pending { " --pending" } else { "" };
    change::confirm(
        cx,
        &args.change,
        &step,
        &format!("hactl db restart{flag}{rest}{pending}"),
    )?;
    let request = RestartRequest {
        group: group.clone(),
        node: args.node.clone().unwrap_or_default(),
        rolling: args.rolling,
        pending_only: args.pending,
        options: Some(args.change.options()),
    };
    let result = client.restart(request).await?;
    let subject = match &args.node {
        Some(node) => format!("db/{group}/{node}"),
        None => format!("db/{group}"),
    };
    let done = match &args.node {
        Some(node) => format!("{group} restarted on {node}"),
        None => format!("{group} restarted"),
    };
    let told = change::Told {
        subject,
        done,
        ..change::Told::default()
    };
    change::finish(cx, &mut client, &args.change, result, told).await
}
