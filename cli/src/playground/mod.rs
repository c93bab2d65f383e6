//! A real cluster on one machine, to try everything on: one ZooKeeper server and some daemons on loopback, as children of
//! a supervisor that starts again what dies.
//!
//! `up` sets the cluster up as an operator would, by the certificate authority and the API alone; the supervisor knows
//! processes and nothing of clusters. No process is ever signalled that is not known to be one of the playground's.

use std::path::PathBuf;

use clap::Subcommand;

use crate::args::Globals;
use crate::error::CliError;

#[cfg(unix)]
mod build;
#[cfg(unix)]
mod child;
#[cfg(unix)]
mod control;
#[cfg(unix)]
mod database;
#[cfg(unix)]
mod down;
#[cfg(unix)]
mod guards;
#[cfg(unix)]
mod kinds;
#[cfg(unix)]
mod logs;
#[cfg(unix)]
mod managed;
#[cfg(unix)]
mod needs;
#[cfg(unix)]
mod place;
#[cfg(unix)]
mod ports;
#[cfg(unix)]
mod status;
#[cfg(unix)]
mod supervise;
#[cfg(unix)]
mod system;
#[cfg(unix)]
mod up;

/// `hactl playground …`
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a local cluster and make a context for it.
    #[command(after_help = "Examples:\n  hactl playground up\n  hactl playground up --nodes 5 --detach")]
    Up(UpArgs),
    /// Show the processes of the local cluster.
    Status(DirArgs),
    /// End the local cluster, and remove its context and its data.
    Down(DownArgs),
    /// Keep the processes of a playground; started by `up`.
    #[command(hide = true)]
    Supervise(SuperviseArgs),
}

/// Which playground.
#[derive(Debug, clap::Args)]
pub struct DirArgs {
    /// Directory of the playground; usually in the user's state directory, for root /var/tmp/hactl-playground.
    #[arg(long, env = "HACTL_PLAYGROUND_DIR", hide_env = true, value_name = "DIR",
          value_hint = clap::ValueHint::DirPath)]
    dir: Option<PathBuf>,
}

/// `hactl playground up`
#[derive(Debug, clap::Args)]
pub struct UpArgs {
    /// Number of nodes, 1 to 50.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=50))]
    nodes: u8,
    #[command(flatten)]
    place: DirArgs,
    /// Name of the cluster and of the context.
    #[arg(long, value_name = "NAME", default_value = "playground")]
    cluster: String,
    /// Leave the cluster running in the background.
    #[arg(long)]
    detach: bool,
    /// Leave a process that dies as it is.
    #[arg(long)]
    no_restart: bool,
    /// Make no database group. Without this there is one, main, on up to three nodes, if PostgreSQL is installed.
    #[arg(long)]
    no_database: bool,
}

/// `hactl playground down`
#[derive(Debug, clap::Args)]
pub struct DownArgs {
    #[command(flatten)]
    place: DirArgs,
    /// Keep the directory with its logs.
    #[arg(long)]
    keep: bool,
}

/// `hactl playground supervise`
#[derive(Debug, clap::Args)]
pub struct SuperviseArgs {
    /// Directory of the playground.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// End when this process ends, which is the parent.
    #[arg(long, value_name = "PID")]
    tied_to: Option<u32>,
}

/// Runs the command.
///
/// # Errors
/// `HA0901` to `HA0904`, and what the parts of `up` meet.
#[cfg(unix)]
pub async fn run(command: &Command, globals: &Globals) -> Result<(), CliError> {
    match command {
        Command::Up(args) => up::run(args, globals).await,
        Command::Status(args) => status::run(args, globals).await,
        Command::Down(args) => down::run(args, globals).await,
        Command::Supervise(args) => supervise::run(&args.dir, args.tied_to),
    }
}

/// Says that there is no playground on this system.
///
/// # Errors
/// `HA0903`, always.
#[cfg(not(unix))]
pub async fn run(_command: &Command, _globals: &Globals) -> Result<(), CliError> {
    Err(CliError::new(
        ha_proto::codes::PLAYGROUND_NEEDS,
        "the playground needs Linux or another Unix",
    )
    .next(
        "hactl context add --bundle FILE",
        "to work with a cluster that runs elsewhere",
    ))
}
