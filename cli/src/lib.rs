//! `hactl`: the command line and live dashboard of a highly available cluster.
//!
//! It speaks gRPC to any node and never ZooKeeper. What others use of it: the certificate authority ([`ca`]), bundles,
//! contexts, the client, and [`run`].

pub mod args;
pub mod bundle;
pub mod ca;
pub mod certificate;
pub mod client;
pub mod commands;
mod complete;
pub mod context;
pub mod error;
pub mod files;
pub mod health;
pub mod names;
pub mod output;
pub mod playground;
mod usage;
pub mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;
use ha_proto::codes;

use args::{Cli, Command, Globals};
use commands::Cx;
use error::CliError;

/// The program: completion if a shell asks for it, else the command of this process's arguments.
pub fn main() -> ExitCode {
    if std::env::var_os("COMPLETE").is_some() {
        use clap::CommandFactory as _;
        clap_complete::CompleteEnv::with_factory(Cli::command)
            .bin("hactl")
            .complete();
    }
    ExitCode::from(run(std::env::args_os()))
}

/// Runs a command line, the program's name first, and returns its exit code. Errors are on stderr by then.
pub fn run(args: impl IntoIterator<Item = impl Into<OsString>>) -> u8 {
    let args: Vec<OsString> = args.into_iter().map(Into::into).collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return usage::report(&error, &args),
    };
    let notes = output::notes::Notes::new(&cli.globals);
    let json = cli.globals.output.is_structured();
    let result = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let result = runtime.block_on(dispatch(cli));
            // A name that is still being looked up must not hold the program.
            runtime.shutdown_background();
            result
        }
        Err(e) => Err(CliError::new(codes::INTERNAL, "cannot start").why(e.to_string())),
    };
    match result {
        Ok(()) => codes::exit::OK,
        Err(error) => {
            report(&error, json, notes.colour());
            error.exit()
        }
    }
}

/// Writes an error to stderr.
pub(crate) fn report(error: &CliError, json: bool, colour: bool) {
    if error.is_silent() {
        return;
    }
    let text = if json {
        format!("{}\n", error.json())
    } else {
        error.text(colour)
    };
    output::notes::write(&text);
}

async fn dispatch(cli: Cli) -> Result<(), CliError> {
    let Cli { globals, command } = cli;
    match command {
        // These two own the terminal and its signals.
        Command::Watch(args) => watch(args, &globals).await,
        Command::Playground(args) => playground::run(&args, &globals).await,
        command => {
            let cx = Cx::new(globals);
            let operation = cx.operation.clone();
            tokio::select! {
                biased;
                result = Box::pin(commands::run(command, cx)) => result,
                () = interrupted() => Err(operation.interrupted()),
            }
        }
    }
}

async fn watch(args: watch::Args, globals: &Globals) -> Result<(), CliError> {
    let client = Cx::new(globals.clone()).client()?;
    watch::run(client, args, globals.color).await
}

/// Ends when the operator presses Ctrl-C; never, where that cannot be noticed.
async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
