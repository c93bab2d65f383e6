//! `hactl cluster init`: a new cluster, offline. Everything is checked before the first file is written, and nothing is
//! ever overwritten.

use std::path::PathBuf;
use std::time::Duration;

use ha_proto::codes;
use ha_proto::v1::AccessRole;

use crate::bundle;
use crate::ca::ClusterAuthority;
use crate::commands::Cx;
use crate::error::CliError;
use crate::names;
use crate::output::Format;
use crate::output::document::{Document, Meta};
use crate::output::views::result::ResultView;

/// `hactl cluster init`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  hactl cluster init --cluster prod --zookeeper zk1,zk2,zk3 --node n1=10.0.0.11")]
pub struct Args {
    /// ZooKeeper's servers, HOST or HOST:PORT (2181).
    #[arg(long, value_name = "HOSTS", required = true, value_delimiter = ',',
          value_parser = names::zookeeper_address)]
    pub zookeeper: Vec<String>,
    /// The first node and its address, HOST or HOST:PORT (7400). More nodes join with `hactl node add`.
    #[arg(long, value_name = "NAME=ADDR", value_parser = names::named_address)]
    pub node: (String, String),
    /// Name of the cluster.
    #[arg(long, value_name = "NAME", default_value = "prod")]
    pub cluster: String,
    /// Your own name in the cluster; you become admin.
    #[arg(long, value_name = "NAME", default_value = "admin")]
    pub user: String,
    /// Directory for the first node's bundle.
    #[arg(long, value_name = "DIR", default_value = ".", value_hint = clap::ValueHint::DirPath)]
    pub out: PathBuf,
    /// What to ask of ZooKeeper: a node that is silent for this long is offline. Its servers must grant exactly this.
    #[arg(long, value_name = "TIME", default_value = "4s", value_parser = names::duration)]
    pub session_timeout: Duration,
    /// Print what would be written, and write nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// # Errors
/// `HA0008` if the context or the bundle exists, `HA0007` or `HA0009` for what is malformed.
pub fn run(args: &Args, cx: &Cx) -> Result<(), CliError> {
    let store = cx.store()?;
    let (node, address) = &args.node;
    let context = cx.globals.context.as_deref().unwrap_or(&args.cluster);
    names::check_name("cluster", &args.cluster)?;
    names::check_name("context", context)?;
    names::check_name("user", &args.user)?;
    if store.exists(context) {
        return Err(
            CliError::new(codes::EXISTS_LOCALLY, format!("there is a context {context} already"))
                .why("its certificate authority may be the only one of its cluster, so it is not overwritten")
                .next("hactl context list", "what is there")
                .next("hactl --context OTHER cluster init …", "another name for the context"),
        );
    }
    let path = args.out.join(format!("{node}.bundle"));
    if path.symlink_metadata().is_ok() {
        return Err(
            CliError::new(codes::EXISTS_LOCALLY, format!("{} exists already", path.display()))
                .next("hactl cluster init … --out DIR", "another directory"),
        );
    }
    let authority = ClusterAuthority::create(&args.cluster, &args.zookeeper, args.session_timeout)?;
    let context_dir = store.context_dir(context);
    let files = vec![
        path.display().to_string(),
        context_dir.join("bundle.toml").display().to_string(),
        context_dir.join("ca.toml").display().to_string(),
    ];
    if !args.dry_run {
        let user = authority.issue_user(&args.user, AccessRole::Admin)?;
        let first = authority.issue_node(node)?;
        let bootstrap = ClusterAuthority::bootstrap(&first, &user);
        // The context first: a bundle without its authority would be of no use to anybody.
        let made = store.add(context, &authority.user_bundle(&user, vec![address.clone()]), false)?;
        let rest = || -> Result<(), CliError> {
            authority.save_new(&made.dir.join("ca.toml"))?;
            bundle::write_new(&path, &authority.node_bundle(&first, address, Some(bootstrap)))?;
            store.set_current(context)
        };
        if let Err(error) = rest() {
            // Half a cluster would only be in the way of the next attempt.
            let _ = store.remove(context);
            return Err(error);
        }
    }
    tell(args, cx, context, &authority, files)
}

fn tell(args: &Args, cx: &Cx, context: &str, authority: &ClusterAuthority, files: Vec<String>) -> Result<(), CliError> {
    let (node, address) = &args.node;
    let out = &cx.out;
    if out.format.is_structured() {
        let view = ResultView {
            subject: format!("cluster/{}", args.cluster),
            changed: !args.dry_run,
            dry_run: args.dry_run,
            plan: vec![
                format!("create the certificate authority of cluster {}", args.cluster),
                format!("issue the bundle of node {node} at {address}"),
                format!("issue the bundle of user {} (admin) as context {context}", args.user),
            ],
            files,
            ..ResultView::default()
        };
        return out.document(&Document::new("ChangeResult", &Meta::of(&args.cluster, 0, 0), view));
    }
    if out.format == Format::Name {
        return out.line(&format!("cluster/{}", args.cluster));
    }
    let verb = if args.dry_run { "would write" } else { "wrote" };
    let about = [
        format!("the bundle of node {node}"),
        format!("context {context}: user {}, admin", args.user),
        "the certificate authority: keep a copy in a safe place".to_owned(),
    ];
    let id = if args.dry_run {
        String::new()
    } else {
        format!("   id {}", authority.cluster_id)
    };
    let mut text = format!("cluster {}{id}\n", args.cluster);
    let width = files.iter().map(String::len).max().unwrap_or(0);
    for (file, about) in files.iter().zip(about) {
        text.push_str(&format!("{verb} {file:width$}  {about}\n"));
    }
    if args.dry_run {
        text.push_str("dry run: nothing was written\n");
        return out.text(&text);
    }
    out.text(&text)?;
    let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
    out.notes.say(&format!(
        "next: copy {} to {host} and start it there: had --bundle {node}.bundle",
        files.first().map_or("", String::as_str)
    ));
    out.notes.say("next: hactl cluster status");
    out.notes.say("next: hactl node add NAME --addr HOST");
    Ok(())
}
