//! What a child of the supervisor is, and what becomes of it when it ends. Pure: starts nothing and sees no clock.
//!
//! A child is described by data alone, so that a further kind of process needs another description and no other code.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// First delay before a child is started again.
pub(super) const FIRST_DELAY: Duration = Duration::from_millis(200);
/// Longest delay before a child is started again.
pub(super) const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// A child that ran this long did not die at once: its delay starts anew.
const STEADY: Duration = Duration::from_secs(10);

/// When a child that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Restart {
    /// However it ended.
    Always,
    /// Unless it ended by itself with exit code 0.
    OnFailure,
    /// It stays as it is.
    Never,
}

/// A process that the supervisor keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Child {
    /// Unique in the playground; names its log as well.
    pub(super) name: String,
    /// What it is, for people: zookeeper, had.
    pub(super) kind: String,
    /// The address that it serves, for people.
    pub(super) address: String,
    /// The program.
    pub(super) program: PathBuf,
    /// Its arguments.
    pub(super) args: Vec<String>,
    /// Variables besides the supervisor's own.
    pub(super) env: Vec<(String, String)>,
    /// Standard output and error are appended here.
    pub(super) log: PathBuf,
    /// When it is started again.
    pub(super) restart: Restart,
    /// At the end the highest stage is stopped first, the next one when all of it has gone.
    pub(super) stage: u8,
    /// How long it may take to stop before it is killed, ms.
    pub(super) patience_ms: u64,
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It could not be started.
    NotStarted,
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(9) => write!(f, "killed"),
            Self::Signal(15) => write!(f, "terminated"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::NotStarted => write!(f, "could not be started"),
        }
    }
}

/// The delay before a child that ended is started again; `None` if it is not.
///
/// `last` is the delay before its previous start, zero if that was the first one.
pub(super) fn delay(restart: Restart, exit: Exit, ran: Duration, last: Duration) -> Option<Duration> {
    let again = match restart {
        Restart::Always => true,
        Restart::OnFailure => exit != Exit::Code(0),
        Restart::Never => false,
    };
    let next = if ran >= STEADY || last.is_zero() {
        FIRST_DELAY
    } else {
        (last * 2).min(LONGEST_DELAY)
    };
    again.then_some(next)
}

/// What the supervisor tells of a child.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Report {
    /// Its name.
    pub(super) name: String,
    /// What it is.
    pub(super) kind: String,
    /// The address that it serves.
    pub(super) address: String,
    /// Where its log is.
    pub(super) log: PathBuf,
    /// What it does now.
    pub(super) state: State,
    /// How often it was started again.
    pub(super) restarts: u32,
}

/// What a child does now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub(super) enum State {
    /// It runs.
    Running {
        /// Its process id.
        pid: u32,
        /// When it was started, milliseconds since 1970.
        since_ms: i64,
    },
    /// It ended and is started again at this time.
    Waiting {
        /// How it ended.
        exit: Exit,
        /// When it is started again, milliseconds since 1970.
        until_ms: i64,
    },
    /// It ended and is not started again.
    Ended {
        /// How it ended.
        exit: Exit,
        /// When, milliseconds since 1970.
        at_ms: i64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(10);

    #[test]
    fn a_daemon_that_left_is_not_started_again() {
        assert_eq!(delay(Restart::OnFailure, Exit::Code(0), SHORT, Duration::ZERO), None);
        assert_eq!(delay(Restart::Never, Exit::Signal(9), SHORT, Duration::ZERO), None);
        assert_eq!(
            delay(Restart::Always, Exit::Code(0), SHORT, Duration::ZERO),
            Some(FIRST_DELAY)
        );
    }

    #[test]
    fn the_delay_grows_while_it_dies_at_once() {
        let mut last = Duration::ZERO;
        let mut delays = Vec::new();
        for _ in 0..7 {
            last = delay(Restart::OnFailure, Exit::Signal(9), SHORT, last).unwrap();
            delays.push(last.as_millis());
        }
        assert_eq!(delays, [200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(
            delay(Restart::OnFailure, Exit::Code(1), STEADY, last),
            Some(FIRST_DELAY)
        );
    }
}
