//! `hactl watch`: the live dashboard. Event -> State -> Action.
//!
//! `conn` tells what the cluster says, `keymap` what the operator wants; `state` takes both and is all that `render`
//! draws from. Only `runner` and `terminal` touch the terminal, only `act` lets a change through, only `link` knows the
//! client.

mod act;
mod cluster;
mod conn;
mod groups;
mod hygiene;
mod keymap;
mod link;
mod obey;
mod once;
mod render;
mod runner;
mod state;
mod terminal;
mod text;
mod theme;
mod views;

#[cfg(test)]
mod tests;

use std::io::IsTerminal as _;

use clap::builder::PossibleValuesParser;
use ha_proto::codes;
use ratatui::layout::Size;

use crate::{client::Client, error::CliError, output::ColorChoice};
use state::State;
use theme::Theme;
use views::VIEWS;

/// The live dashboard.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The view to begin with.
    #[arg(long, value_name = "VIEW", default_value = "overview",
        value_parser = PossibleValuesParser::new(VIEWS.iter().map(|v| v.name())))]
    view: String,
    /// Let capital letters act, each after a typed confirmation.
    #[arg(long)]
    allow_actions: bool,
    /// Print one frame as text and exit; COLUMNS is its width.
    #[arg(long, conflicts_with = "allow_actions")]
    once: bool,
    /// Use ASCII characters only.
    #[arg(long)]
    ascii: bool,
}

/// Runs the dashboard.
///
/// # Errors
/// Where there is no terminal, where no node will ever serve this user, or, with `--once`, where no frame came in time.
/// Losing the cluster is no error: the last frame stays and is called stale.
pub async fn run(client: Client, args: Args, color: ColorChoice) -> Result<(), CliError> {
    let terminal = std::io::stdout().is_terminal();
    let theme = Theme {
        color: color.decide(terminal),
        ascii: args.ascii,
    };
    let view = views::index(&args.view).unwrap_or(0);
    let state = State::new(theme, args.allow_actions, view, Size::new(120, 40));
    if args.once {
        return once::run(client, state).await;
    }
    if !terminal || std::env::var_os("TERM").is_some_and(|t| t == "dumb") {
        return Err(CliError::new(codes::USAGE, "the dashboard needs a terminal")
            .next("hactl watch --once", "prints one frame as text")
            .next("hactl cluster status", "the cluster in a few lines"));
    }
    runner::run(client, state).await
}
