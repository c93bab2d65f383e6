//! What goes wrong between had and PostgreSQL, told so that an operator can act on it. Nothing here may carry a secret:
//! neither passwords and verifiers nor keys ever reach an error.

use std::fmt;
use std::path::Path;
use std::time::Duration;

/// Result of everything that touches PostgreSQL.
pub type Result<T> = std::result::Result<T, PgError>;

/// Why something could not be done to a server or its directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PgError {
    /// The programs of a release are not installed, or not where they were looked for.
    #[error("{what} is not installed: {why}")]
    NotInstalled {
        /// What was looked for.
        what: String,
        /// Where.
        why: String,
    },
    /// A program of PostgreSQL's failed.
    #[error("{program}: {why}")]
    Tool {
        /// Its name.
        program: String,
        /// How it ended, with its last words.
        why: String,
    },
    /// It took longer than it may. What was begun may be half done.
    #[error("{what}: not done after {}", humantime::format_duration(*.limit))]
    TimedOut {
        /// What.
        what: String,
        /// The limit.
        limit: Duration,
    },
    /// A file or directory.
    #[error("{what}: {why}")]
    Files {
        /// The path, and what was to be done.
        what: String,
        /// What the file system says.
        why: String,
    },
    /// The server answered with an error.
    #[error("{what}: {why}{}", state(.sqlstate))]
    Query {
        /// What was asked.
        what: String,
        /// SQLSTATE, five characters; empty if there is none.
        sqlstate: String,
        /// Its words.
        why: String,
    },
    /// There is no connection, or it broke. Whether a statement under way was done is unknown.
    #[error("{what}: no connection: {why}")]
    Disconnected {
        /// What was asked.
        what: String,
        /// Why.
        why: String,
    },
    /// had does not do this, and nothing was changed.
    #[error("{what}: {why}")]
    Refused {
        /// What.
        what: String,
        /// Why.
        why: String,
    },
    /// What was read is not what PostgreSQL writes.
    #[error("{what} cannot be read: {why}")]
    Unreadable {
        /// What.
        what: String,
        /// Why.
        why: String,
    },
}

struct State<'a>(&'a str);

impl fmt::Display for State<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            Ok(())
        } else {
            write!(f, " (SQLSTATE {})", self.0)
        }
    }
}

fn state(code: &str) -> State<'_> {
    State(code)
}

impl PgError {
    /// An error of the file system's at `path`.
    #[allow(clippy::needless_pass_by_value)] // for map_err
    pub(super) fn files(path: &Path) -> impl Fn(std::io::Error) -> Self + '_ {
        move |e| Self::Files {
            what: path.display().to_string(),
            why: e.to_string(),
        }
    }

    /// A refusal.
    pub(super) fn refused(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Refused {
            what: what.into(),
            why: why.into(),
        }
    }

    /// Something of PostgreSQL's that had does not understand.
    pub(super) fn unreadable(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Unreadable {
            what: what.into(),
            why: why.into(),
        }
    }

    /// Whether another attempt may end differently without anything being changed: the server starts, the line broke, the
    /// time ran out.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::TimedOut { .. } | Self::Disconnected { .. } => true,
            // Class 57: operator intervention; 53300: too many connections; 40: conflicts.
            Self::Query { sqlstate, .. } => {
                sqlstate.starts_with("57P") || sqlstate == "53300" || sqlstate.starts_with("40")
            }
            Self::NotInstalled { .. }
            | Self::Tool { .. }
            | Self::Files { .. }
            | Self::Refused { .. }
            | Self::Unreadable { .. } => false,
        }
    }
}

/// The text without control characters and not too long for a line.
pub(super) fn one_line(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    clean.trim().chars().take(300).collect()
}

/// Runs something that blocks on the file system off the runtime's threads, with a limit: a hung disk must not hang the
/// daemon. What was begun goes on in the background after the limit.
pub(super) async fn blocking<T: Send + 'static>(
    what: &str,
    limit: Duration,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::time::timeout(limit, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(done)) => done,
        Ok(Err(_)) => Err(PgError::Files {
            what: what.to_owned(),
            why: "had failed in doing it".into(),
        }),
        Err(_) => Err(PgError::TimedOut {
            what: what.to_owned(),
            limit,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_sentences() {
        let e = PgError::Query {
            what: "promotion".into(),
            sqlstate: "55000".into(),
            why: "recovery is not in progress".into(),
        };
        assert_eq!(e.to_string(), "promotion: recovery is not in progress (SQLSTATE 55000)");
        assert!(!e.is_transient());
        let e = PgError::TimedOut {
            what: "pg_rewind".into(),
            limit: Duration::from_secs(90),
        };
        assert_eq!(e.to_string(), "pg_rewind: not done after 1m 30s");
        assert!(e.is_transient());
        assert_eq!(one_line("a\u{1b}[31m\nb\n"), "a [31m b");
    }
}
