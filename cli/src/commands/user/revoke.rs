//! `hactl user revoke`

use ha_proto::v1::RevokeUserRequest;

use crate::args::ChangeArgs;
use crate::commands::{Cx, change};
use crate::complete;
use crate::error::CliError;
use crate::names;

/// `hactl user revoke`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The user, or with --node the node.
    #[arg(value_name = "NAME", add = complete::users())]
    pub name: String,
    /// Revoke the certificates of the node of this name.
    #[arg(long)]
    pub node: bool,
    /// Flags of every change.
    #[command(flatten)]
    pub change: ChangeArgs,
}

pub(super) async fn run(args: Args, cx: &Cx) -> Result<(), CliError> {
    let what = if args.node { "node" } else { "user" };
    names::check_name(what, &args.name)?;
    let step = format!("refuse all certificates of {what} {} from now on", args.name);
    let flag = if args.node { " --node" } else { "" };
    change::confirm(
        cx,
        &args.change,
        &step,
        &format!("hactl user revoke {}{flag}", args.name),
    )?;
    let mut client = cx.client()?;
    let request = RevokeUserRequest {
        name: args.name.clone(),
        options: Some(args.change.options()),
        node: args.node,
    };
    let result = client.revoke_user(request).await?;
    let told = change::Told {
        subject: format!("{what}/{}", args.name),
        done: format!("{what} {} revoked", args.name),
        ..change::Told::default()
    };
    change::finish(cx, &mut client, &args.change, result, told).await
}
