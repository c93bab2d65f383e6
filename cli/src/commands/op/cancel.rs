//! `hactl op cancel`

use ha_proto::v1::CancelOperationRequest;

use crate::args::ChangeArgs;
use crate::commands::{Cx, change};
use crate::complete;
use crate::error::CliError;

/// `hactl op cancel`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The operation's id.
    #[arg(value_name = "ID", add = complete::operations())]
    pub id: String,
    /// Flags of every change.
    #[command(flatten)]
    pub change: ChangeArgs,
}

pub(super) async fn run(args: Args, cx: &Cx) -> Result<(), CliError> {
    let mut client = cx.client()?;
    let request = CancelOperationRequest {
        id: args.id.clone(),
        options: Some(args.change.options()),
    };
    let mut result = client.cancel_operation(request).await?;
    // What is cancelled is not waited for: waiting would tell of the cancellation as of a failure.
    result.operation_id.clear();
    let told = change::Told {
        subject: format!("op/{}", args.id),
        done: format!("operation {} cancelled", args.id),
        ..change::Told::default()
    };
    change::finish(cx, &mut client, &args.change, result, told).await
}
