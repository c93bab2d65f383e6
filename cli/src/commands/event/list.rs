//! `hactl event list`

use ha_proto::codes;
use ha_proto::v1::ListChangesRequest;

use crate::commands::Cx;
use crate::complete;
use crate::error::CliError;
use crate::names;
use crate::output::document::Meta;
use crate::output::views::event::EventView;

/// `hactl event list`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hactl event list --since 1h --kind node.\n  hactl event list --node n1 --limit 10"
)]
pub struct Args {
    /// Only what happened since: a span (1h) or a time (2026-01-31T18:00:00Z).
    #[arg(long, value_name = "T")]
    pub since: Option<String>,
    /// Only kinds that begin so: node., master.elected.
    #[arg(long, value_name = "KIND")]
    pub kind: Option<String>,
    /// Only what concerns this node.
    #[arg(long, value_name = "NODE", add = complete::nodes())]
    pub node: Option<String>,
    /// At most so many, the newest.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub limit: u32,
    /// From this sequence number on, the oldest first.
    #[arg(long, value_name = "SEQ", value_parser = clap::value_parser!(u64).range(1..))]
    pub from: Option<u64>,
}

pub(super) async fn run(args: Args, cx: &Cx) -> Result<(), CliError> {
    let now = names::now_ms();
    let since = match &args.since {
        None => 0,
        Some(text) => names::instant(text, now, -1)
            .map_err(|why| CliError::new(codes::BAD_VALUE, "--since is not a time").why(why))?,
    };
    if let Some(node) = &args.node {
        names::check_name("node", node)?;
    }
    let mut client = cx.client()?;
    let request = ListChangesRequest {
        from_seq: args.from.unwrap_or(0),
        limit: args.limit,
        since_unix_ms: since,
        kind: args.kind.unwrap_or_default(),
        node: args.node.unwrap_or_default(),
    };
    let answer = client.list_changes(request).await?;
    let views: Vec<EventView> = answer.changes.into_iter().map(Into::into).collect();
    let meta = Meta::of(client.cluster(), answer.revision, 0);
    cx.out.list_with("EventList", &meta, views, now, "nothing happened")
}
