//! `hactl context add`

use std::path::PathBuf;

use ha_proto::codes;

use crate::bundle;
use crate::ca::ClusterAuthority;
use crate::certificate;
use crate::commands::Cx;
use crate::error::CliError;
use crate::names;

/// `hactl context add`
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).multiple(true).args(["bundle", "ca"])))]
pub struct Args {
    /// The user's bundle.
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub bundle: Option<PathBuf>,
    /// The certificate authority, for the context of its cluster.
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub ca: Option<PathBuf>,
    /// Name of the context, instead of the cluster's.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Replace the bundle of an existing context of the same cluster, after a renewal.
    #[arg(long, requires = "bundle")]
    pub replace: bool,
    /// Leave the current context as it is.
    #[arg(long, requires = "bundle")]
    pub keep_current: bool,
}

pub(super) fn run(args: &Args, cx: &Cx) -> Result<(), CliError> {
    let store = cx.store()?;
    let authority = args.ca.as_deref().map(ClusterAuthority::load).transpose()?;
    if let Some(path) = &args.bundle {
        let bundle = bundle::read(path, bundle::Kind::User)?;
        certificate::check(&bundle, names::now_ms())?;
        if authority.as_ref().is_some_and(|a| a.cluster_id != bundle.cluster_id) {
            return Err(CliError::new(
                codes::BAD_BUNDLE,
                "the bundle and the authority are of different clusters",
            ));
        }
        let name = args.name.clone().unwrap_or_else(|| bundle.cluster.clone());
        store.add(&name, &bundle, args.replace)?;
        let mut done = format!("context {name}: user {} of cluster {}", bundle.name, bundle.cluster);
        if !args.keep_current {
            store.set_current(&name)?;
            done.push_str(", now the current one");
        }
        if let Some(authority) = &authority {
            store.add_authority(authority, Some(&name))?;
            done.push_str(", with the certificate authority");
        }
        return super::list::told(cx, &name, true, &done);
    }
    let Some(authority) = authority else {
        return Err(CliError::new(codes::USAGE, "name a --bundle or a --ca"));
    };
    let added = store.add_authority(&authority, args.name.as_deref())?;
    let done = format!(
        "the certificate authority of cluster {} is in context {}",
        authority.cluster,
        added.join(", ")
    );
    super::list::told(cx, &added.join(","), true, &done)
}
