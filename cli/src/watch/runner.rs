//! The loop: what happens goes into the state, and a screen comes out when it may look different.
//!
//! It never draws more than ten times a second, and without news once a second, for the ages.

use std::{io, time::Duration};

use crossterm::event::{Event as Input, EventStream};
use futures::StreamExt;
use ha_proto::{codes, v1::ChangeResult};
use jiff::{Timestamp, tz::TimeZone};
use ratatui::layout::Size;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at, sleep_until},
};

use super::{
    act::Act,
    conn::{self, Limits, Told},
    link::{self, Link},
    render::{self, Now},
    state::{Action, Event, State},
    terminal::{Screen, told_to_end},
};
use crate::{client::Client, error::CliError};

/// Least time between two screens.
const BETWEEN: Duration = Duration::from_millis(100);
const SECOND: Duration = Duration::from_secs(1);

/// Both clocks of this machine.
#[derive(Debug, Clone)]
pub(super) struct Clock {
    start: Instant,
    zone: TimeZone,
}

impl Clock {
    /// Starts the monotonic one.
    pub(super) fn start() -> Self {
        Self {
            start: Instant::now(),
            zone: TimeZone::system(),
        }
    }

    /// The time.
    pub(super) fn now(&self) -> Now {
        Now {
            mono: self.mono(),
            wall_ms: Timestamp::now().as_millisecond(),
            zone: self.zone.clone(),
        }
    }

    /// Milliseconds since the start.
    pub(super) fn mono(&self) -> i64 {
        i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}

/// What a change was, and what came of it.
type Answer = (Act, Result<ChangeResult, CliError>);

/// Starts the task that keeps the stream open; it ends with `tasks`.
pub(super) fn connect(client: &Client, tasks: &mut JoinSet<()>) -> mpsc::Receiver<Told> {
    let (tell, told) = mpsc::channel(conn::WAITING_MAX);
    tasks.spawn(conn::keep(Link::new(client), Limits::default(), tell));
    told
}

/// Runs the dashboard until the operator quits.
///
/// # Errors
/// Where the terminal fails, or no server will ever give a stream to this user.
pub(super) async fn run(client: Client, mut state: State) -> Result<(), CliError> {
    let clock = Clock::start();
    let mut screen = Screen::take().map_err(|e| lost(&e))?;
    state.size = screen.size().map_err(|e| lost(&e))?;
    let mut stream = JoinSet::new();
    let mut told = connect(&client, &mut stream);
    let mut changes: JoinSet<Answer> = JoinSet::new();
    let mut keys = EventStream::new();
    let end = told_to_end();
    tokio::pin!(end);
    // On the full second, so that the clock shown never skips one.
    let into = u64::try_from(clock.now().wall_ms.rem_euclid(1000)).unwrap_or(0);
    let mut tick = interval_at(Instant::now() + SECOND - Duration::from_millis(into), SECOND);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut drawn = Instant::now() - BETWEEN;
    let mut dirty = true;
    loop {
        let mut events = Vec::new();
        tokio::select! {
            () = &mut end => return Ok(()),
            key = keys.next() => match key {
                Some(Ok(Input::Key(key))) => events.push(Event::Key(key)),
                Some(Ok(Input::Resize(width, height))) => events.push(Event::Resize(Size::new(width, height))),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(lost(&error)),
                None => return Err(lost(&io::Error::other("it was closed"))),
            },
            some = told.recv() => {
                let Some(first) = some else {
                    return Err(CliError::new(codes::INTERNAL, "the task that follows the cluster ended"));
                };
                events.push(Event::Told(first));
                while let Ok(more) = told.try_recv() {
                    events.push(Event::Told(more));
                }
            }
            Some(joined) = changes.join_next(), if !changes.is_empty() => match joined {
                Ok((act, result)) => events.push(Event::Answer { act, result }),
                Err(error) => {
                    return Err(CliError::new(codes::INTERNAL, "the task that sent a change failed").why(error.to_string()));
                }
            },
            _ = tick.tick() => events.push(Event::Tick),
            () = sleep_until(drawn + BETWEEN), if dirty => {
                let now = clock.now();
                screen.show(|size| render::render(&state, &now, size)).map_err(|e| lost(&e))?;
                (drawn, dirty) = (Instant::now(), false);
            }
        }
        for event in events {
            let (action, changed) = state.update(event, clock.mono());
            dirty |= changed;
            match action {
                Some(Action::Quit) => return Ok(()),
                Some(Action::Redraw) => screen.clear().map_err(|e| lost(&e))?,
                Some(Action::Perform(confirmed)) => {
                    let client = client.quiet();
                    changes.spawn(async move {
                        let result = link::perform(client, &confirmed).await;
                        (confirmed.act().clone(), result)
                    });
                }
                None => {}
            }
        }
        if let Some(error) = state.refused.take() {
            return Err(error);
        }
        if state.scrolls() {
            state.clamp_scroll(render::scroll_most(&state, &clock.now(), state.size));
        }
    }
}

fn lost(error: &io::Error) -> CliError {
    CliError::new(codes::BAD_FILE, "the terminal cannot be used")
        .why(error.to_string())
        .next("hactl watch --once", "prints one frame, without a terminal")
}
