//! `hactl node show`

use ha_proto::v1::GetNodeRequest;

use crate::commands::Cx;
use crate::complete;
use crate::error::CliError;
use crate::names;
use crate::output::document::{Document, Meta};
use crate::output::table::clean;
use crate::output::views::node::NodeView;
use crate::output::{Format, View as _};

/// `hactl node show`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The node.
    #[arg(value_name = "NODE", add = complete::nodes())]
    pub name: String,
}

pub(super) async fn run(args: &Args, cx: &Cx) -> Result<(), CliError> {
    names::check_name("node", &args.name)?;
    let mut client = cx.client()?;
    let node = client
        .get_node(GetNodeRequest {
            name: args.name.clone(),
        })
        .await?;
    let revision = node.revision;
    // Ages are told from the last report: it bears the clock of the master.
    let last = node.status.as_ref().map_or(0, |s| s.last_seen_unix_ms);
    let now = names::now_ms().max(last);
    let view = NodeView::from(node);
    let out = &cx.out;
    match out.format {
        Format::Json | Format::Yaml => {
            out.document(&Document::new("Node", &Meta::of(client.cluster(), revision, 0), view))
        }
        Format::Name => out.line(&format!("node/{}", view.name())),
        Format::Table | Format::Wide => {
            let mut text = format!("node {}\n\n", clean(&view.name()));
            for (what, value, tone) in view.lines(now) {
                text.push_str(&format!("{what:<13}{}\n", tone.paint(&clean(&value), out.colour())));
            }
            out.text(&text)
        }
    }
}
