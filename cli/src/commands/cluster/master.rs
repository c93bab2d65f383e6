//! `hactl cluster master …`

use clap::Subcommand;
use ha_proto::codes;
use ha_proto::v1::{GetStateRequest, TransferMasterRequest};

use crate::args::ChangeArgs;
use crate::commands::{Cx, change};
use crate::complete;
use crate::error::CliError;
use crate::names;
use crate::output::Format;
use crate::output::document::{Document, Meta};
use crate::output::views::cluster::{self, MasterView};

/// The verbs of `cluster master`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Which node is master, since when.
    Show,
    /// Hand mastership over to another node.
    Transfer(TransferArgs),
}

/// `hactl cluster master transfer`
#[derive(Debug, clap::Args)]
pub struct TransferArgs {
    /// The node that becomes master; without it the best other one.
    #[arg(long, value_name = "NODE", add = complete::nodes())]
    pub to: Option<String>,
    /// Flags of every change.
    #[command(flatten)]
    pub change: ChangeArgs,
}

pub(super) async fn run(command: Command, cx: &Cx) -> Result<(), CliError> {
    match command {
        Command::Show => show(cx).await,
        Command::Transfer(args) => transfer(args, cx).await,
    }
}

async fn show(cx: &Cx) -> Result<(), CliError> {
    let mut client = cx.client()?;
    let state = client.get_state(GetStateRequest {}).await?;
    let master = state.master.clone().unwrap_or_default();
    let now = if state.observed_unix_ms > 0 {
        state.observed_unix_ms
    } else {
        names::now_ms()
    };
    let out = &cx.out;
    match out.format {
        Format::Json | Format::Yaml => {
            let meta = Meta::of(&state.cluster, state.revision, state.observed_unix_ms);
            out.document(&Document::new("Master", &meta, MasterView::from(&master)))?;
        }
        Format::Name if !master.node.is_empty() => out.line(&format!("node/{}", master.node))?,
        Format::Table | Format::Wide if !master.node.is_empty() => {
            let pinned = match master.pinned.as_str() {
                "" => String::new(),
                node => format!("   pinned to {node}"),
            };
            let line = format!("{}   {}{pinned}", cluster::master_line(&master, now), master.address);
            out.line(&crate::output::table::clean(&line))?;
        }
        Format::Name | Format::Table | Format::Wide => {}
    }
    if master.node.is_empty() {
        return Err(
            CliError::new(codes::NO_MASTER, "the cluster has no master at the moment")
                .why(format!("the last term was {}", master.term))
                .next("hactl wait master --for elected", "until there is one")
                .next("hactl cluster doctor", "if it lasts"),
        );
    }
    Ok(())
}

async fn transfer(args: TransferArgs, cx: &Cx) -> Result<(), CliError> {
    if let Some(to) = &args.to {
        names::check_name("node", to)?;
    }
    let to = args.to.clone().unwrap_or_default();
    let (step, command) = match args.to.as_deref() {
        Some(to) => (
            format!("transfer mastership to {to}"),
            format!("hactl cluster master transfer --to {to}"),
        ),
        None => (
            "transfer mastership to another node".into(),
            "hactl cluster master transfer".into(),
        ),
    };
    change::confirm(cx, &args.change, &step, &command)?;
    let mut client = cx.client()?;
    let request = TransferMasterRequest {
        to: to.clone(),
        options: Some(args.change.options()),
    };
    let result = client.transfer_master(request).await?;
    let done = if to.is_empty() {
        "mastership transferred".into()
    } else {
        format!("{to} is master")
    };
    let told = change::Told {
        subject: "master".into(),
        done,
        ..change::Told::default()
    };
    change::finish(cx, &mut client, &args.change, result, told).await
}
