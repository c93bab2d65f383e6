//! `hactl version`

use serde::Serialize;
use std::time::Duration;

use super::{Cx, context};
use crate::error::CliError;
use crate::output::Format;
use crate::output::document::{Document, Meta};
use crate::output::views::context::EndpointView;

/// `hactl version`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Ask every endpoint of the context for its version too.
    #[arg(long)]
    pub server: bool,
}

#[derive(Serialize)]
struct VersionView {
    client: Client,
    server: Vec<Server>,
}

#[derive(Serialize)]
struct Client {
    version: &'static str,
    os: &'static str,
    arch: &'static str,
}

#[derive(Serialize)]
struct Server {
    endpoint: String,
    node: Option<String>,
    version: Option<String>,
    error: Option<String>,
}

/// # Errors
/// Under `--server`, if no context is chosen.
pub async fn run(args: Args, cx: &Cx) -> Result<(), CliError> {
    let client = Client {
        version: env!("CARGO_PKG_VERSION"),
        os: std::env::consts::OS,
        arch: std::env::consts::ARCH,
    };
    let mut cluster = String::new();
    let mut server = Vec::new();
    if args.server {
        let context = cx.context()?;
        let endpoints = cx.client_of(&context)?.endpoints().to_vec();
        let limit = cx.globals.timeout.min(Duration::from_secs(3));
        cluster.clone_from(&context.bundle.cluster);
        server = context::test::probe(&context, &endpoints, limit)
            .await
            .into_iter()
            .map(Server::from)
            .collect();
    }
    let out = &cx.out;
    match out.format {
        Format::Json | Format::Yaml => out.document(&Document::new(
            "Version",
            &Meta::of(&cluster, 0, 0),
            VersionView { client, server },
        )),
        Format::Table | Format::Wide | Format::Name => {
            let mut text = format!("hactl {} ({}-{})\n", client.version, client.os, client.arch);
            for s in &server {
                let said = match (&s.node, &s.version, &s.error) {
                    (Some(node), Some(version), _) => format!("had {version} on {node} ({})", s.endpoint),
                    (_, _, error) => format!("{}: {}", s.endpoint, error.as_deref().unwrap_or("no answer")),
                };
                text.push_str(&crate::output::table::clean(&said));
                text.push('\n');
            }
            out.text(&text)
        }
    }
}

impl From<EndpointView> for Server {
    fn from(view: EndpointView) -> Self {
        let some = |text: String| Some(text).filter(|t| !t.is_empty());
        Self {
            endpoint: view.name,
            node: some(view.status.node),
            version: some(view.status.version),
            error: view.status.error,
        }
    }
}
