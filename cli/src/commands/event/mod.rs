//! `hactl event …`

mod follow;
mod list;

use clap::Subcommand;

use super::Cx;
use crate::error::CliError;

/// The verbs of `event`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// What happened, oldest first.
    List(list::Args),
    /// What happens, as it happens; nothing is left out.
    Follow(follow::Args),
}

pub(super) async fn run(command: Command, cx: &Cx) -> Result<(), CliError> {
    match command {
        Command::List(args) => list::run(args, cx).await,
        Command::Follow(args) => follow::run(args, cx).await,
    }
}
