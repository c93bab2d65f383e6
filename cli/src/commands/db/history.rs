//! `hactl db history`

use ha_proto::codes;
use ha_proto::v1::HistoryRequest;

use crate::commands::Cx;
use crate::error::CliError;
use crate::names;
use crate::output::Format;
use crate::output::document::Meta;
use crate::output::views::database::history::HistoryView;

/// `hactl db history`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The newest change is told in full below the list; --epoch tells another one, -o wide all of them."
)]
pub struct Args {
    /// Only the change that led to this epoch, in full.
    #[arg(long, value_name = "N")]
    pub epoch: Option<u64>,
    /// The newest so many.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
}

pub(super) async fn run(args: &Args, name: Option<String>, cx: &Cx) -> Result<(), CliError> {
    let mut client = cx.client()?;
    let group = super::group_name(&mut client, name).await?;
    let request = HistoryRequest {
        group: group.clone(),
        limit: args.limit,
        epoch: args.epoch.unwrap_or(0),
    };
    let answer = client.history(request).await?;
    let now = names::now_ms();
    let meta = Meta::of(client.cluster(), answer.revision, 0);
    let views: Vec<HistoryView> = answer.entries.iter().map(Into::into).collect();
    if let Some(epoch) = args.epoch
        && views.is_empty()
    {
        return Err(CliError::new(
            codes::BAD_VALUE,
            format!("group {group} has no change of primary to epoch {epoch} that is kept"),
        )
        .next(format!("hactl db history --group {group}"), "those that are"));
    }
    let out = &cx.out;
    let full = match out.format {
        Format::Json | Format::Yaml | Format::Name => Vec::new(),
        Format::Wide => views.iter().map(|v| v.report(now, out.colour())).collect(),
        Format::Table => {
            let newest = views.iter().max_by_key(|v| v.epoch());
            newest.map(|v| v.report(now, out.colour())).into_iter().collect()
        }
    };
    if args.epoch.is_none() || full.is_empty() {
        let empty = format!("group {group} never had a primary");
        out.list_with("GroupHistory", &meta, views, now, &empty)?;
        if !full.is_empty() {
            out.line("")?;
        }
    }
    out.text(&full.join("\n"))
}
