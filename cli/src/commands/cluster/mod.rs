//! `hactl cluster …`

mod doctor;
pub mod init;
mod maintenance;
mod master;
mod status;

use clap::Subcommand;

use super::Cx;
use crate::error::CliError;

/// The verbs of `cluster`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a new cluster: its certificate authority, the first node's bundle, your own context. Works offline.
    Init(init::Args),
    /// How the cluster is.
    Status(status::Args),
    /// Look for what is wrong or risky.
    Doctor(doctor::Args),
    /// The node that decides.
    #[command(subcommand)]
    Master(master::Command),
    /// Tell everybody that work is being done on the cluster.
    #[command(subcommand)]
    Maintenance(maintenance::Command),
}

/// Runs a verb.
///
/// # Errors
/// Whatever it says.
pub async fn run(command: Command, cx: &Cx) -> Result<(), CliError> {
    match command {
        Command::Init(args) => init::run(&args, cx),
        Command::Status(args) => status::run(&args, cx).await,
        Command::Doctor(args) => doctor::run(&args, cx).await,
        Command::Master(command) => master::run(command, cx).await,
        Command::Maintenance(command) => maintenance::run(command, cx).await,
    }
}
