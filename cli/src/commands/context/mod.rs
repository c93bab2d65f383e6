//! `hactl context …`

mod add;
mod list;
mod remove;
pub mod test;
mod r#use;

use clap::Subcommand;

use super::Cx;
use crate::error::CliError;

/// The verbs of `context`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The clusters that this user knows, and as whom.
    List,
    /// Choose the current context.
    Use(r#use::Args),
    /// Bring in a bundle that another operator wrote, or a cluster's certificate authority.
    Add(add::Args),
    /// Forget a context.
    Remove(remove::Args),
    /// Try each endpoint of a context.
    Test(test::Args),
}

pub(super) async fn run(command: Command, cx: &Cx) -> Result<(), CliError> {
    match command {
        Command::List => list::run(cx),
        Command::Use(args) => r#use::run(&args, cx),
        Command::Add(args) => add::run(&args, cx),
        Command::Remove(args) => remove::run(&args, cx),
        Command::Test(args) => test::run(&args, cx).await,
    }
}
