//! `hactl watch --once`: one frame as text, for pipes, tickets and machines without a terminal.

use std::{fmt::Write as _, io, io::Write as _};

use ha_proto::codes;
use ratatui::{
    buffer::Buffer,
    layout::Size,
    style::{Color, Modifier},
};
use tokio::{task::JoinSet, time::timeout};

use super::{
    conn::Told,
    render,
    runner::{Clock, connect},
    state::{Event, State},
};
use crate::{client::Client, error::CliError};

/// Width where none is known.
const WIDTH: u16 = 120;
/// Least height.
const HEIGHT: u16 = 24;
/// Greatest height: beyond it the tables say how many rows there are.
const HEIGHT_MAX: u16 = 2000;
/// Lines of the screen that hold no row of the longest list.
const AROUND: usize = 12;
/// Streams that may be lost before the first frame.
const TRIES: u32 = 3;

/// Prints the first frame.
///
/// # Errors
/// Why there is none within the client's time limit.
pub(super) async fn run(client: Client, mut state: State) -> Result<(), CliError> {
    let clock = Clock::start();
    let mut tasks = JoinSet::new();
    let mut told = connect(&client, &mut tasks);
    let mut lost = 0;
    let first = async {
        while state.cluster.is_none() {
            let Some(what) = told.recv().await else { break };
            if let Told::Lost { error } = &what {
                lost += 1;
                if lost >= TRIES {
                    return Err(error.clone());
                }
            }
            state.update(Event::Told(what), clock.mono());
            if let Some(error) = state.refused.take() {
                return Err(error);
            }
        }
        Ok(())
    };
    let limit = client.timeout();
    timeout(limit, first).await.unwrap_or_else(|_| {
        let text = format!("no frame came within {} s", limit.as_secs_f32());
        Err(CliError::new(codes::TIMEOUT, text))
    })?;
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|v| v.parse::<u16>().ok())
            .filter(|n| *n > 0)
    };
    let width = number("COLUMNS").unwrap_or(WIDTH).min(1000);
    let longest = state.cluster.as_ref().map_or(0, |c| {
        let instances: usize = c.groups.values().map(|row| row.group.instances.len()).sum();
        c.nodes.len() + instances
    });
    let fitting = u16::try_from(longest + AROUND)
        .unwrap_or(u16::MAX)
        .clamp(HEIGHT, HEIGHT_MAX);
    let height = number("LINES").unwrap_or(fitting).min(HEIGHT_MAX);
    let screen = render::render(&state, &clock.now(), Size::new(width, height));
    // The footer lists keys, and there are none.
    let rows = if height > HEIGHT / 2 { height - 1 } else { height };
    print(&text(&screen, rows, state.theme.color))
}

fn print(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| {
        if e.kind() == io::ErrorKind::BrokenPipe {
            return CliError::silent(codes::exit::OK);
        }
        CliError::new(codes::BAD_FILE, "cannot write the output").why(e.to_string())
    })
}

/// The first `rows` lines of a screen as text, with escape sequences for its styles where `styled`.
pub(super) fn text(screen: &Buffer, rows: u16, styled: bool) -> String {
    let mut out = String::new();
    for y in 0..rows.min(screen.area.height) {
        let mut line = String::new();
        let mut style = String::new();
        let mut skip = 0;
        for x in 0..screen.area.width {
            let cell = &screen[(x, y)];
            if skip > 0 {
                skip -= 1;
                continue;
            }
            skip = super::text::width(cell.symbol()).saturating_sub(1);
            let wanted = if styled {
                sgr(cell.fg, cell.modifier)
            } else {
                String::new()
            };
            if wanted != style {
                let _ = write!(line, "\x1b[0{wanted}m");
                style = wanted;
            }
            line.push_str(cell.symbol());
        }
        if !style.is_empty() {
            line.push_str("\x1b[0m");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Parameters of the escape sequence of a style, each after a semicolon.
fn sgr(color: Color, modifier: Modifier) -> String {
    let mut out = String::new();
    for (flag, code) in [
        (Modifier::BOLD, ";1"),
        (Modifier::DIM, ";2"),
        (Modifier::REVERSED, ";7"),
    ] {
        if modifier.contains(flag) {
            out.push_str(code);
        }
    }
    out.push_str(match color {
        Color::Red => ";31",
        Color::Green => ";32",
        Color::Yellow => ";33",
        Color::Cyan => ";36",
        Color::DarkGray => ";90",
        _ => "",
    });
    out
}
