//! `hactl context test`: what each endpoint answers, one by one. Also the probe of `version --server` and the doctor.

use std::time::{Duration, Instant};

use futures::stream::{FuturesOrdered, StreamExt as _};
use ha_proto::codes;
use ha_proto::v1::GetInfoRequest;

use crate::client::Client;
use crate::commands::Cx;
use crate::complete;
use crate::context::Context;
use crate::error::CliError;
use crate::names;
use crate::output::document::Meta;
use crate::output::notes::Notes;
use crate::output::views::context::{EndpointStatus, EndpointView};

/// `hactl context test`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The context; without it the current one.
    #[arg(value_name = "NAME", add = complete::contexts())]
    pub name: Option<String>,
}

pub(super) async fn run(args: &Args, cx: &Cx) -> Result<(), CliError> {
    let wanted = args.name.as_deref().or(cx.globals.context.as_deref());
    let context = cx.store()?.select(wanted)?;
    // Says what is wrong with the certificate, if anything is, before each endpoint says it in its own words.
    let endpoints = cx.client_of(&context)?.endpoints().to_vec();
    let views = probe(&context, &endpoints, cx.globals.timeout.min(Duration::from_secs(5))).await;
    let reachable = views.iter().any(|v| v.status.reachable);
    let refusals: Vec<String> = views
        .iter()
        .filter_map(|v| v.status.error.as_ref().map(|e| format!("{}: {e}", v.name)))
        .collect();
    cx.out.list(
        "EndpointList",
        &Meta::of(&context.bundle.cluster, 0, 0),
        views,
        names::now_ms(),
    )?;
    if reachable {
        return Ok(());
    }
    let error = CliError::new(
        codes::UNREACHABLE,
        format!("no node of cluster {} could be reached", context.bundle.cluster),
    );
    let error = refusals.into_iter().fold(error, CliError::why);
    Err(error.next("systemctl status had", "on the nodes"))
}

/// Asks every endpoint who it is, all at once.
pub async fn probe(context: &Context, endpoints: &[String], limit: Duration) -> Vec<EndpointView> {
    let asked: FuturesOrdered<_> = endpoints.iter().map(|endpoint| ask(context, endpoint, limit)).collect();
    asked.collect().await
}

async fn ask(context: &Context, endpoint: &str, limit: Duration) -> EndpointView {
    let failed = |error: &CliError| {
        // The endpoint's own reason says more than that no node could be reached.
        let why = error.reasons().first().map_or(error.message(), String::as_str);
        let why = why.strip_prefix(&format!("{endpoint}: ")).unwrap_or(why);
        let error = Some(format!("{why} ({})", error.code()));
        EndpointView {
            name: endpoint.to_owned(),
            status: EndpointStatus {
                error,
                ..EndpointStatus::default()
            },
        }
    };
    let client = Client::from_bundle(&context.bundle, vec![endpoint.to_owned()], limit, Notes::silent());
    let mut client = match client {
        Ok(client) => client,
        Err(error) => return failed(&error),
    };
    let begun = Instant::now();
    let sent = names::now_ms();
    match client.get_info(GetInfoRequest::default()).await {
        Ok(info) => {
            let received = names::now_ms();
            EndpointView {
                name: endpoint.to_owned(),
                status: EndpointStatus {
                    reachable: true,
                    role: info.caller_role().word().to_owned(),
                    node: info.node,
                    version: info.version,
                    session: info.session,
                    master: info.master,
                    caller: info.caller,
                    round_trip_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
                    clock_skew_ms: info.server_unix_ms - i64::midpoint(sent, received),
                    error: None,
                },
            }
        }
        Err(error) => failed(&error),
    }
}
