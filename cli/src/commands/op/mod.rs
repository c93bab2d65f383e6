//! `hactl op …`

mod cancel;
mod list;
mod show;
mod wait;

use clap::Subcommand;

use super::Cx;
use crate::complete;
use crate::error::CliError;

/// The verbs of `op`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// All operations that are kept, newest last.
    List,
    /// An operation with its steps.
    Show(Id),
    /// Wait for the end of an operation.
    Wait(Id),
    /// End an operation.
    Cancel(cancel::Args),
}

/// The operation that is meant.
#[derive(Debug, clap::Args)]
pub struct Id {
    /// The operation's id.
    #[arg(value_name = "ID", add = complete::operations())]
    pub id: String,
}

pub(super) async fn run(command: Command, cx: &Cx) -> Result<(), CliError> {
    match command {
        Command::List => list::run(cx).await,
        Command::Show(args) => show::run(&args, cx).await,
        Command::Wait(args) => wait::run(&args, cx).await,
        Command::Cancel(args) => cancel::run(args, cx).await,
    }
}
