//! `hactl cluster status`

use ha_proto::codes;
use ha_proto::v1::GetStateRequest;

use crate::commands::{Cx, node};
use crate::error::CliError;
use crate::health::{self, Verdict};
use crate::names;
use crate::output::Format;
use crate::output::document::{Document, Meta};
use crate::output::views::cluster::{self, ClusterView};

/// `hactl cluster status`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Exit 3 unless the cluster is healthy.
    #[arg(long)]
    pub check: bool,
}

/// # Errors
/// `HA0701` under `--check` if the cluster is not healthy.
pub(super) async fn run(args: &Args, cx: &Cx) -> Result<(), CliError> {
    let context = cx.context()?;
    let mut client = cx.client_of(&context)?;
    let state = client.get_state(GetStateRequest {}).await?;
    node::remember(&context, &state.nodes);
    let health = health::assess(&state);
    let now = if state.observed_unix_ms > 0 {
        state.observed_unix_ms
    } else {
        names::now_ms()
    };
    let out = &cx.out;
    match out.format {
        Format::Json | Format::Yaml => {
            let mut meta = Meta::of(&state.cluster, state.revision, state.observed_unix_ms);
            meta.warnings.clone_from(&health.reasons);
            out.document(&Document::new(
                "ClusterStatus",
                &meta,
                ClusterView::new(&state, &health),
            ))?;
        }
        Format::Name => out.line(&format!("cluster/{}", state.cluster))?,
        Format::Table => out.text(&cluster::report(&state, &health, now, out.colour()))?,
        Format::Wide => {
            out.text(&cluster::report(&state, &health, now, out.colour()))?;
            let nodes: Vec<_> = state.nodes.iter().cloned().map(Into::into).collect();
            out.line("")?;
            out.list::<crate::output::views::node::NodeView>("NodeList", &Meta::local(), nodes, now)?;
        }
    }
    if args.check && health.verdict != Verdict::Healthy {
        let error = CliError::new(
            codes::UNHEALTHY,
            format!("cluster {} is {}", state.cluster, health.verdict.word()),
        );
        let error = health.reasons.iter().fold(error, |e, reason| e.why(reason.clone()));
        return Err(error
            .next("hactl cluster doctor", "looks deeper")
            .next("hactl event list", "what happened"));
    }
    Ok(())
}
