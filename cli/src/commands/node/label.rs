//! `hactl node label`

use ha_proto::v1::UpdateNodeRequest;

use crate::args::ChangeArgs;
use crate::commands::Cx;
use crate::complete;
use crate::error::CliError;
use crate::names::{self, LabelChange};

/// `hactl node label`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  hactl node label n1 zone=a ssd-")]
pub struct Args {
    /// The node.
    #[arg(value_name = "NODE", add = complete::nodes())]
    pub name: String,
    /// K=V sets a label, K- removes it.
    #[arg(value_name = "K=V|K-", required = true, value_parser = names::label_change)]
    pub labels: Vec<LabelChange>,
    /// Flags of every change.
    #[command(flatten)]
    pub change: ChangeArgs,
}

pub(super) async fn run(args: Args, cx: &Cx) -> Result<(), CliError> {
    let mut request = UpdateNodeRequest {
        name: args.name.clone(),
        ..UpdateNodeRequest::default()
    };
    for label in args.labels {
        match label {
            LabelChange::Set(key, value) => {
                request.set_labels.insert(key, value);
            }
            LabelChange::Remove(key) => request.remove_labels.push(key),
        }
    }
    super::update(cx, &args.change, request, format!("node {} labelled", args.name)).await
}
