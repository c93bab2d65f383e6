//! What the daemon and the guard say to each other: one JSON object a line, requests answered in their order.
//!
//! A guard outlives upgrades of its daemon, so both ends must bear with fields they do not know; what a request *means* may
//! never change. Nothing in a request may be logged: an environment may hold secrets.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::machine::Cause;
use crate::platform::guard::{Exit, RunAs};

/// The version of this protocol.
pub(super) const VERSION: u32 = 1;
/// The longest line either end accepts, bytes.
pub(super) const MAX_LINE: usize = 128 << 10;

/// A request and its number.
#[derive(Serialize, Deserialize)]
pub(super) struct Request {
    /// Repeated in the reply.
    pub(super) id: u64,
    /// What is wanted.
    pub(super) ask: Ask,
}

/// What is wanted of the guard.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ask {
    /// Must come first.
    Hello {
        /// [`VERSION`] of the daemon.
        version: u32,
        /// The daemon's token, from its state directory.
        token: String,
        /// Tells a daemon's runs apart: one with a smaller number than was heard already is refused. Nanoseconds of
        /// CLOCK_BOOTTIME at its start.
        run: u64,
    },
    /// How things stand.
    Status,
    /// Start a postmaster.
    Start(Box<Start>),
    /// From now on what runs needs a lease: before it is promoted.
    Arm {
        /// Which start is meant.
        incarnation: u64,
        /// See [`Ask::Deadline`].
        until: u64,
    },
    /// A heartbeat was acknowledged.
    Deadline {
        /// Which start is meant.
        incarnation: u64,
        /// The new deadline, nanoseconds of CLOCK_BOOTTIME.
        until: u64,
    },
    /// Stop what runs.
    Stop(Stop),
    /// End, if nothing runs.
    Quit,
}

/// What is to be started, and how.
#[derive(Clone, Serialize, Deserialize)]
pub struct Start {
    /// Must be greater than that of every start before (protocol R10).
    pub incarnation: u64,
    /// The program, an absolute path.
    pub program: PathBuf,
    /// Its arguments; visible to everybody on the machine.
    #[serde(default)]
    pub args: Vec<String>,
    /// All of its environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Its working directory.
    pub cwd: PathBuf,
    /// Whom it runs as, if not as the guard itself.
    #[serde(default)]
    pub run_as: Option<RunAs>,
    /// Where its output is appended; opened as that user.
    pub log: PathBuf,
    /// The deadline, nanoseconds of CLOCK_BOOTTIME. None: it needs no lease until it is armed.
    #[serde(default)]
    pub until: Option<u64>,
}

/// How a stop goes on: SIGINT, SIGQUIT, SIGKILL. Deadlines go before all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Which start is meant.
    pub incarnation: u64,
    /// From the SIGINT to the SIGQUIT, milliseconds. None: SIGQUIT at once.
    #[serde(default)]
    pub fast_ms: Option<u64>,
    /// From the SIGQUIT to the SIGKILL, milliseconds.
    pub quit_ms: u64,
}

impl Stop {
    /// A fast stop that becomes an immediate one after `fast`.
    pub fn fast(incarnation: u64, fast: Duration) -> Self {
        Stop {
            incarnation,
            fast_ms: Some(to_ms(fast)),
            quit_ms: 1000,
        }
    }

    /// An immediate stop.
    pub fn immediate(incarnation: u64) -> Self {
        Stop {
            incarnation,
            fast_ms: None,
            quit_ms: 200,
        }
    }
}

/// What the guard says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Word {
    /// An answer: carried out. A stop is answered when it has begun; its end is an event.
    Done {
        /// The request's.
        id: u64,
        /// How things stand after it.
        status: Box<Status>,
    },
    /// An answer: not carried out.
    Refused {
        /// The request's; 0 if it could not be read.
        id: u64,
        /// For programs.
        code: Refusal,
        /// For people.
        why: String,
        /// How things stand; only for a daemon that has said hello.
        #[serde(default)]
        status: Option<Box<Status>>,
    },
    /// Something happened.
    Event {
        /// What.
        event: Event,
        /// How things stand after it.
        status: Box<Status>,
    },
}

/// Why a request was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// It cannot be read; the connection is closed.
    Garbage,
    /// Hello must come first.
    NoHello,
    /// Another daemon's token, or an older run of this one; the connection is closed.
    NotYours,
    /// An incarnation that was used, or is not the one that is meant.
    Stale,
    /// Something runs.
    Running,
    /// Nothing runs, or it is being stopped.
    NotRunning,
    /// No lease, or too little of it, or more than there can be.
    Lease,
    /// The guard was told to end.
    Ending,
    /// The guard's record cannot be written.
    Record,
    /// The program cannot be started.
    Failed,
    /// Not known to this version.
    #[serde(other)]
    Unknown,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A stop has begun; why is in [`Status::cause`].
    Stopping,
    /// The postmaster is gone; what it started may still run.
    Exited,
    /// The proof of stop: nothing of it runs any more.
    Stopped,
    /// Of a newer guard.
    #[serde(other)]
    Unknown,
}

/// What the guard does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing runs.
    Idle,
    /// The postmaster runs.
    Running,
    /// It is being stopped, or what it left is.
    Stopping,
}

/// How things stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the guard's language.
    pub version: u32,
    /// The guard's own process.
    pub guard: u32,
    /// What it does.
    pub state: State,
    /// That of the newest start, 0 before the first.
    pub incarnation: u64,
    /// The postmaster, while it lives.
    #[serde(default)]
    pub pid: Option<u32>,
    /// When it was started, ms since 1970.
    #[serde(default)]
    pub started_ms: Option<i64>,
    /// The deadline, nanoseconds of CLOCK_BOOTTIME; none while no lease is needed.
    #[serde(default)]
    pub until: Option<u64>,
    /// Time left until then, ms; negative afterwards.
    #[serde(default)]
    pub left_ms: Option<i64>,
    /// Why it is being stopped or was.
    #[serde(default)]
    pub cause: Option<Cause>,
    /// How the postmaster ended.
    #[serde(default)]
    pub exit: Option<Exit>,
    /// The last proof of a stop.
    #[serde(default)]
    pub proof: Option<Proof>,
}

impl Status {
    /// Whether this proves that the named start runs no more, and nothing that it started (protocol R10).
    pub fn proves_stop(&self, incarnation: u64) -> bool {
        self.state == State::Idle && self.proof.as_ref().is_some_and(|p| p.incarnation >= incarnation)
    }
}

/// That nothing of a start runs any more: its tree is empty, killed and reaped. A promise as well: the guard starts
/// nothing but by a request with a greater incarnation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Which start is meant.
    pub incarnation: u64,
    /// Why it was stopped.
    pub cause: Cause,
    /// When the tree was found empty, ms since 1970.
    pub at_ms: i64,
    /// From the beginning of the stop until then, ms.
    pub took_ms: u64,
    /// How the postmaster ended, if that was seen.
    #[serde(default)]
    pub exit: Option<Exit>,
}

/// Milliseconds, as many as fit.
pub(super) fn to_ms(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

/// Nanoseconds, as many as fit: a clock that counts from the machine's start does not come near the end.
pub(super) fn to_ns(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_they_always_were() {
        for line in [
            r#"{"id":1,"ask":{"hello":{"version":1,"token":"t","run":7}}}"#,
            r#"{"id":2,"ask":"status"}"#,
            r#"{"id":3,"ask":{"deadline":{"incarnation":4,"until":5}}}"#,
            r#"{"id":4,"ask":{"stop":{"incarnation":4,"fast_ms":100,"quit_ms":200}}}"#,
            r#"{"id":5,"ask":"quit"}"#,
        ] {
            let request: Request = serde_json::from_str(line).unwrap();
            assert_eq!(serde_json::to_string(&request).unwrap(), line);
        }
        let start = r#"{"id":3,"ask":{"start":{"incarnation":1,"program":"/p","cwd":"/d","log":"/l","later":1}}}"#;
        let request: Request = serde_json::from_str(start).unwrap();
        assert!(matches!(request.ask, Ask::Start(s) if s.until.is_none() && s.run_as.is_none()));
    }

    #[test]
    fn what_a_newer_end_says_is_borne() {
        let word =
            r#"{"event":{"event":"sneezed","status":{"version":9,"guard":1,"state":"idle","incarnation":0,"x":1}}}"#;
        let Word::Event { event, status } = serde_json::from_str(word).unwrap() else {
            panic!("not an event");
        };
        assert_eq!((event, status.version, status.proof), (Event::Unknown, 9, None));
    }
}
