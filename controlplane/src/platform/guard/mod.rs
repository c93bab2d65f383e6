//! What the guard needs of the operating system: a tree of processes whose end can be proved, a control channel, a clock
//! that wakes it in time.
//!
//! Linux and Windows. A tree counts as empty only when its last process is gone and reaped; nothing here may signal a
//! process that is not certainly of the tree.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

#[cfg(unix)]
mod linux;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use linux::{Link, Port, Tree, connect, detach, detached, prepare, program, supervised};
#[cfg(windows)]
pub(crate) use windows::{Link, Port, Tree, connect, detach, detached, prepare, program, supervised};

/// Whom a process runs as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAs {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    #[serde(default)]
    pub groups: Vec<u32>,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Its status, if it ended by itself.
    #[serde(default)]
    pub code: Option<i32>,
    /// The signal that ended it.
    #[serde(default)]
    pub signal: Option<i32>,
}

impl Exit {
    /// Whether it ended by itself and says that all is well.
    pub fn is_clean(&self) -> bool {
        self.code == Some(0)
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.code, self.signal) {
            (_, Some(signal)) => write!(f, "ended by signal {signal}"),
            (Some(code), _) => write!(f, "ended with status {code}"),
            (None, None) => f.write_str("ended"),
        }
    }
}

/// What is to be started.
pub(crate) struct Launch<'a> {
    pub(crate) program: &'a Path,
    pub(crate) args: &'a [String],
    /// All of the environment.
    pub(crate) env: &'a BTreeMap<String, String>,
    pub(crate) cwd: &'a Path,
    pub(crate) run_as: Option<&'a RunAs>,
    /// Output is appended to it; opened as the user above.
    pub(crate) log: &'a Path,
    /// Names the run in what is left of it.
    pub(crate) incarnation: u64,
    /// Tells one boot of the machine from the next.
    pub(crate) boot: &'a str,
}

/// What a look at the tree showed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reaped {
    /// Some process was reaped.
    pub(crate) any: bool,
    /// The postmaster was, and how it ended.
    pub(crate) exit: Option<Exit>,
    /// Nothing is left.
    pub(crate) empty: bool,
}

/// What the port has to say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Happening {
    /// A line from a connection, without its end.
    Line(u64, Vec<u8>),
    /// A connection sent more than a line may hold.
    TooLong(u64),
    /// A connection is closed.
    Gone(u64),
    /// The guard is to end. Windows asks no process for that.
    #[cfg_attr(windows, allow(dead_code))]
    Terminate,
}

/// How many connections there may be; a daemon needs one.
const CONNECTIONS: usize = 4;
