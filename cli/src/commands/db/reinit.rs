//! `hactl db reinit`

use ha_proto::v1::ReinitRequest;

use crate::args::ChangeArgs;
use crate::commands::{Cx, change};
use crate::complete;
use crate::error::CliError;
use crate::names;

/// `hactl db reinit`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The old directory is kept aside until the new one streams. A copy takes as long as the network takes for the \
                        whole\ndatabase: give --timeout, or --no-wait."
)]
pub struct Args {
    /// The node of the standby.
    #[arg(value_name = "NODE", add = complete::nodes())]
    pub node: String,
    /// Flags of every change.
    #[command(flatten)]
    pub change: ChangeArgs,
}

pub(super) async fn run(args: Args, name: Option<String>, cx: &Cx) -> Result<(), CliError> {
    names::check_name("node", &args.node)?;
    let mut client = cx.client()?;
    let flag = super::flag(name.as_deref());
    let group = super::group_name(&mut client, name).await?;
    let node = &args.node;
    let step = format!("replace the data of {group} on {node} by a fresh copy of the primary's");
    change::confirm(cx, &args.change, &step, &format!("hactl db reinit{flag} {node}"))?;
    let request = ReinitRequest {
        group: group.clone(),
        node: node.clone(),
        options: Some(args.change.options()),
    };
    let result = client.reinit(request).await?;
    let told = change::Told {
        subject: format!("db/{group}/{node}"),
        done: format!("{node} has a fresh copy of {group}"),
        ..change::Told::default()
    };
    change::finish(cx, &mut client, &args.change, result, told).await
}
