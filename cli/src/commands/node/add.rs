//! `hactl node add`: the record in the cluster first, then the bundle. A node that is recorded and has no bundle can get
//! one with `--bundle-only`; a bundle of a node that was never recorded would only be refused.

use std::path::PathBuf;

use ha_proto::codes;
use ha_proto::v1::{AddNodeRequest, GetNodeRequest, NodeSpec};

use crate::args::ChangeArgs;
use crate::bundle;
use crate::commands::{Cx, change};
use crate::error::CliError;
use crate::names;

/// `hactl node add`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  hactl node add n2 --addr 10.0.0.12 --label zone=a")]
pub struct Args {
    /// Name of the node.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Where its daemon listens, HOST or HOST:PORT (7400).
    #[arg(long, value_name = "ADDR", value_parser = names::grpc_address, required_unless_present = "bundle_only")]
    pub addr: Option<String>,
    /// A label; may be given more than once.
    #[arg(long = "label", value_name = "K=V", value_parser = names::label)]
    pub labels: Vec<(String, String)>,
    /// A business scenario that the node serves; may be given more than once.
    #[arg(long = "scenario", value_name = "NAME")]
    pub scenarios: Vec<String>,
    /// Never make it master.
    #[arg(long)]
    pub no_eligible: bool,
    /// Preference as master: the highest above 0 that is online is made master.
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true,
          value_parser = clap::value_parser!(i32).range(0..=1000), conflicts_with = "no_eligible")]
    pub preference: i32,
    /// Directory for the bundle.
    #[arg(long, value_name = "DIR", default_value = ".", value_hint = clap::ValueHint::DirPath)]
    pub out: PathBuf,
    /// The node was added already and its bundle was lost: write a new bundle, with a new certificate.
    #[arg(long, conflicts_with_all = ["labels", "scenarios", "no_eligible", "preference"])]
    pub bundle_only: bool,
    /// Flags of every change.
    #[command(flatten)]
    pub change: ChangeArgs,
}

pub(super) async fn run(args: Args, cx: &Cx) -> Result<(), CliError> {
    names::check_name("node", &args.name)?;
    let context = cx.context()?;
    let authority = context.authority()?;
    let mut client = cx.client_of(&context)?;
    let path = args.out.join(format!("{}.bundle", args.name));
    // Found out before the cluster is changed.
    if path.symlink_metadata().is_ok() {
        return Err(
            CliError::new(codes::EXISTS_LOCALLY, format!("{} exists already", path.display()))
                .why("hactl does not overwrite keys and certificates")
                .next(format!("hactl node add {} … --out DIR", args.name), "another directory"),
        );
    }
    if !args.change.dry_run && !args.out.is_dir() {
        return Err(
            CliError::new(codes::BAD_FILE, format!("{} is not a directory", args.out.display()))
                .next(format!("mkdir -p {}", args.out.display()), ""),
        );
    }
    let issued = authority.issue_node(&args.name)?;
    let (address, result) = if args.bundle_only {
        let node = client
            .get_node(GetNodeRequest {
                name: args.name.clone(),
            })
            .await?;
        let recorded = node.spec.map(|s| s.address).unwrap_or_default();
        let result = ha_proto::v1::ChangeResult {
            changed: true,
            plan: vec![format!("issue a new certificate for node {}", args.name)],
            ..ha_proto::v1::ChangeResult::default()
        };
        (args.addr.unwrap_or(recorded), result)
    } else {
        let address = args.addr.unwrap_or_default();
        let spec = NodeSpec {
            address: address.clone(),
            labels: args.labels.into_iter().collect(),
            scenarios: args.scenarios,
            master_eligible: !args.no_eligible,
            master_preference: args.preference,
            ..NodeSpec::default()
        };
        let request = AddNodeRequest {
            name: args.name.clone(),
            spec: Some(spec),
            options: Some(args.change.options()),
            certificate_serial: issued.serial.clone(),
            certificate_expires_unix_ms: issued.expires_unix_ms,
        };
        (address, client.add_node(request).await?)
    };
    let mut files = Vec::new();
    if !args.change.dry_run {
        bundle::write_new(&path, &authority.node_bundle(&issued, &address, None)).map_err(|error| {
            error
                .why(format!(
                    "node {} is added to the cluster; only its bundle is missing",
                    args.name
                ))
                .next(
                    format!("hactl node add {} --bundle-only --out DIR", args.name),
                    "write it elsewhere",
                )
        })?;
        files.push(path.display().to_string());
        context.update_cache(|cache| {
            if !cache.endpoints.contains(&address) {
                cache.endpoints.push(address.clone());
            }
            if !cache.nodes.contains(&args.name) {
                cache.nodes.push(args.name.clone());
            }
        });
    }
    let host = address
        .rsplit_once(':')
        .map_or(address.as_str(), |(host, _)| host)
        .to_owned();
    let done = if args.bundle_only {
        format!("node {} has a new certificate", args.name)
    } else {
        format!("node {} added", args.name)
    };
    let told = change::Told {
        subject: format!("node/{}", args.name),
        done,
        files,
        next: vec![
            format!(
                "copy {} to {host} and start it there: had --bundle {}.bundle",
                path.display(),
                args.name
            ),
            format!("hactl wait node/{} --for online", args.name),
        ],
        ..change::Told::default()
    };
    change::finish(cx, &mut client, &args.change, result, told).await
}
