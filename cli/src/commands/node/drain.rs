//! `hactl node drain`

use std::time::Duration;

use ha_proto::v1::DrainNodeRequest;

use crate::args::ChangeArgs;
use crate::commands::{Cx, change};
use crate::complete;
use crate::error::CliError;
use crate::names;

/// `hactl node drain`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The node.
    #[arg(value_name = "NODE", add = complete::nodes())]
    pub name: String,
    /// Give up if it is not empty by then.
    #[arg(long, value_name = "TIME", value_parser = names::duration, conflicts_with = "cancel")]
    pub deadline: Option<Duration>,
    /// End a drain that is under way, and uncordon the node.
    #[arg(long)]
    pub cancel: bool,
    /// Flags of every change.
    #[command(flatten)]
    pub change: ChangeArgs,
}

pub(super) async fn run(args: Args, cx: &Cx) -> Result<(), CliError> {
    names::check_name("node", &args.name)?;
    if !args.cancel {
        let step = format!("drain node {}", args.name);
        change::confirm(cx, &args.change, &step, &format!("hactl node drain {}", args.name))?;
    }
    let mut client = cx.client()?;
    let deadline = args
        .deadline
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX));
    let request = DrainNodeRequest {
        name: args.name.clone(),
        cancel: args.cancel,
        deadline_ms: deadline,
        options: Some(args.change.options()),
    };
    let result = client.drain_node(request).await?;
    let done = if args.cancel {
        "is not drained any more"
    } else {
        "drained"
    };
    let told = change::Told {
        subject: format!("node/{}", args.name),
        done: format!("node {} {done}", args.name),
        ..change::Told::default()
    };
    change::finish(cx, &mut client, &args.change, result, told).await
}
