//! `hactl node renew`: a new certificate for a running node, for a key that never leaves it.
//!
//! The node makes the key and a request; the certificate is signed here with names that are decided here, and installed.

use ha_proto::codes;
use ha_proto::v1::{
    ChangeResult, InstallCertificateRequest, ListNodesRequest, Node, NodeState, RequestCertificateRequest,
};

use crate::args::ChangeArgs;
use crate::ca::{ClusterAuthority, Validity};
use crate::client::Client;
use crate::commands::{Cx, change};
use crate::complete;
use crate::error::CliError;
use crate::names;
use crate::output::units;

/// `hactl node renew`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The node.
    #[arg(value_name = "NODE", add = complete::nodes(), required_unless_present = "all", conflicts_with = "all")]
    pub name: Option<String>,
    /// Every node that is online, one after the other.
    #[arg(long)]
    pub all: bool,
    /// Flags of every change.
    #[command(flatten)]
    pub change: ChangeArgs,
}

pub(super) async fn run(args: Args, cx: &Cx) -> Result<(), CliError> {
    let context = cx.context()?;
    let authority = context.authority()?;
    let mut client = cx.client_of(&context)?;
    let nodes = match &args.name {
        Some(name) => {
            names::check_name("node", name)?;
            vec![name.clone()]
        }
        None => online(&client.list_nodes(ListNodesRequest::default()).await?.nodes),
    };
    let mut revision = 0;
    let mut lines = Vec::new();
    let mut failures: Vec<(String, CliError)> = Vec::new();
    for name in &nodes {
        match renew(&authority, &mut client, &args.change, name).await {
            Ok((result, line)) => {
                revision = result.revision.max(revision);
                lines.push(line);
            }
            Err(error) if nodes.len() == 1 => return Err(error),
            Err(error) => failures.push((name.clone(), error)),
        }
    }
    let done = match lines.as_slice() {
        [line] => line.clone(),
        lines => format!("{} renewed", units::count(lines.len(), "node")),
    };
    let result = ChangeResult {
        changed: !lines.is_empty(),
        revision,
        plan: lines.clone(),
        ..ChangeResult::default()
    };
    let subject = args
        .name
        .as_ref()
        .map_or_else(|| "node".to_owned(), |name| format!("node/{name}"));
    let notes: &[String] = if nodes.len() > 1 && !args.change.dry_run {
        &lines
    } else {
        &[]
    };
    let told = change::Told {
        subject,
        done,
        notes,
        ..change::Told::default()
    };
    change::tell(cx, client.cluster(), &args.change, &result, told, None)?;
    if failures.is_empty() {
        return Ok(());
    }
    let message = format!(
        "{} of {} not renewed",
        failures.len(),
        units::count(nodes.len(), "node")
    );
    let mut error = CliError::new(codes::NODE_NOT_ONLINE, message);
    for (name, reason) in failures {
        error = error
            .why(format!("{name}: {reason}"))
            .next(format!("hactl node renew {name}"), "try it again");
    }
    Err(error.with_exit(if lines.is_empty() {
        codes::exit::FAILED
    } else {
        codes::exit::PARTLY
    }))
}

fn online(nodes: &[Node]) -> Vec<String> {
    let there = |n: &&Node| {
        let state = n
            .status
            .as_ref()
            .map_or(NodeState::Unspecified, ha_proto::v1::NodeStatus::state);
        matches!(state, NodeState::Online | NodeState::Cordoned | NodeState::Draining)
    };
    nodes.iter().filter(there).map(|n| n.name.clone()).collect()
}

async fn renew(
    authority: &ClusterAuthority,
    client: &mut Client,
    change: &ChangeArgs,
    name: &str,
) -> Result<(ChangeResult, String), CliError> {
    if change.dry_run {
        let line = format!("give node {name} a new certificate");
        return Ok((
            ChangeResult {
                changed: true,
                ..ChangeResult::default()
            },
            line,
        ));
    }
    let request = client
        .request_certificate(RequestCertificateRequest { node: name.to_owned() })
        .await?;
    if request.node != name {
        return Err(CliError::new(
            codes::INTERNAL,
            format!("node {} answered for node {name}", request.node),
        ));
    }
    let issued = authority.sign_node_request(name, &request.csr_pem, Validity::default())?;
    let install = InstallCertificateRequest {
        node: name.to_owned(),
        certificate_pem: issued.certificate,
        options: Some(change.options()),
    };
    let result = client.install_certificate(install).await?;
    let line = format!(
        "node {name} has a certificate until {}",
        units::local(issued.expires_unix_ms)
    );
    Ok((result, line))
}
