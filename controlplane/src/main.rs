//! The command line of had. What it does is in the library.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use controlplane::config::Level;
use controlplane::error::ApiError;
use controlplane::guard;
use controlplane::node::{self, Overrides};

/// The daemon of one node of a cluster: registers it, watches the cluster, takes part in the election of its master.
#[derive(Parser)]
#[command(name = "had", version, about, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Args)]
struct Files {
    /// The bundle that `hactl cluster init` or `hactl node add` wrote for this node
    #[arg(long, value_name = "FILE", global = true)]
    bundle: Option<PathBuf>,
    /// The settings; without it /etc/had/had.toml, if that exists
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Where had keeps what must outlive it
    #[arg(long, value_name = "DIR", global = true)]
    state_dir: Option<PathBuf>,
    /// Where gRPC is listened on
    #[arg(long, value_name = "IP:PORT", global = true)]
    grpc: Option<SocketAddr>,
    /// Where health and metrics are served
    #[arg(long, value_name = "IP:PORT", global = true)]
    http: Option<SocketAddr>,
}

#[derive(Args)]
struct Settings {
    /// The least important that is logged
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<Level>,
}

#[derive(Subcommand)]
enum Command {
    /// Make this machine's node leave the cluster for good, and its daemon end
    Leave {
        /// Why, for the record
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Check the settings and the bundle, without starting anything
    Check,
    /// Print the version
    Version,
    /// The guard of one database group: started by the daemon, not by people
    #[command(hide = true)]
    Guard {
        /// The group
        group: String,
        /// Leave the caller's session, and return when the guard serves
        #[arg(long)]
        detach: bool,
        /// Make no control groups
        #[arg(long)]
        no_cgroup: bool,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let overrides = Overrides {
        config: cli.files.config,
        bundle: cli.files.bundle,
        state_dir: cli.files.state_dir,
        grpc: cli.files.grpc,
        http: cli.files.http,
        log_level: cli.settings.log_level,
    };
    let ended = match cli.command {
        None => node::run(&overrides),
        Some(Command::Leave { reason }) => node::leave(&overrides, &reason).map(print),
        Some(Command::Check) => node::check(&overrides).map(print),
        Some(Command::Version) => {
            print(vec![format!("had {}", env!("CARGO_PKG_VERSION"))]);
            Ok(())
        }
        Some(Command::Guard {
            group,
            detach,
            no_cgroup,
        }) => guard(&overrides, group, detach, !no_cgroup),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            complain(&e);
            ExitCode::from(e.code.exit)
        }
    }
}

fn guard(overrides: &Overrides, group: String, detach: bool, cgroups: bool) -> Result<(), ApiError> {
    // Where the command line names the directory, the guard does not depend on a file that may be wrong by now.
    let state_dir = match &overrides.state_dir {
        Some(dir) => std::path::absolute(dir).unwrap_or_else(|_| dir.clone()),
        None => node::load(overrides)?.state_dir,
    };
    guard::run(&guard::How {
        state_dir,
        group,
        detach,
        cgroups,
    })
}

fn print(lines: Vec<String>) {
    let mut out = std::io::stdout().lock();
    for line in lines {
        // Whoever closed the pipe does not want to know.
        let _ = writeln!(out, "{line}");
    }
}

fn complain(e: &ApiError) {
    let mut out = std::io::stderr().lock();
    let _ = writeln!(out, "error {}: {}", e.code.id, e.message);
    for (word, lines) in [("why", &e.why), ("next", &e.next)] {
        for (i, line) in lines.iter().enumerate() {
            let _ = writeln!(out, "  {:<5} {line}", if i == 0 { word } else { "" });
        }
    }
}
