//! `hactl db explain`

use ha_proto::v1::ExplainRequest;

use crate::commands::Cx;
use crate::complete;
use crate::error::CliError;
use crate::names;
use crate::output::Format;
use crate::output::document::{Document, Meta};
use crate::output::views::database::explanation::{self, ExplanationView};

/// `hactl db explain`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this instance.
    #[arg(value_name = "NODE", add = complete::nodes())]
    pub node: Option<String>,
}

pub(super) async fn run(args: &Args, name: Option<String>, cx: &Cx) -> Result<(), CliError> {
    if let Some(node) = &args.node {
        names::check_name("node", node)?;
    }
    let mut client = cx.client()?;
    let group = super::group_name(&mut client, name).await?;
    let request = ExplainRequest {
        group,
        node: args.node.clone().unwrap_or_default(),
    };
    let answer = client.explain(request).await?;
    let out = &cx.out;
    match out.format {
        Format::Json | Format::Yaml => {
            let meta = Meta::of(client.cluster(), answer.revision, answer.observed_unix_ms);
            out.document(&Document::new(
                "GroupExplanation",
                &meta,
                ExplanationView::from(&answer),
            ))
        }
        Format::Name => out.line(&format!("db/{}", answer.group)),
        Format::Table | Format::Wide => out.text(&explanation::report(&answer, out.colour())),
    }
}
