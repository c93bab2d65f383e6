//! `hactl node list`

use ha_proto::v1::ListNodesRequest;

use crate::commands::Cx;
use crate::error::CliError;
use crate::names;
use crate::output::document::Meta;
use crate::output::views::node::NodeView;

/// `hactl node list`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also nodes that were removed.
    #[arg(long, short = 'a')]
    pub all: bool,
}

pub(super) async fn run(args: &Args, cx: &Cx) -> Result<(), CliError> {
    let context = cx.context()?;
    let mut client = cx.client_of(&context)?;
    let answer = client.list_nodes(ListNodesRequest { all: args.all }).await?;
    super::remember(&context, &answer.nodes);
    let now = if answer.observed_unix_ms > 0 {
        answer.observed_unix_ms
    } else {
        names::now_ms()
    };
    let meta = Meta::of(client.cluster(), answer.revision, answer.observed_unix_ms);
    let views: Vec<NodeView> = answer.nodes.into_iter().map(Into::into).collect();
    cx.out.list_with(
        "NodeList",
        &meta,
        views,
        now,
        "there is no node; hactl node add NAME --addr HOST adds one",
    )
}
