//! The daemon's own connection to its instance, through the socket: every question has a time limit, and a connection
//! that did not answer in time is given up.
//!
//! Its commits wait for no standby, so that the daemon is not held up by the rule that it looks after. Nothing that it
//! says reaches the server's log, for it sets verifiers of passwords.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls, Row, SimpleQueryMessage};

use super::conf::access::{DATABASE, SUPERUSER};
use super::error::{PgError, Result, one_line};
use super::place::Place;

/// What the server itself ends after this, should the daemon forget it.
const STATEMENT_LIMIT: Duration = Duration::from_secs(600);

/// A connection. Dropping it closes it.
#[derive(Debug)]
pub struct Connection {
    client: Client,
    task: JoinHandle<()>,
    pid: u32,
    answered: bool,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// [`PgError::Query`] with 57P03 while the server starts, 53300 when it is full; [`PgError::Disconnected`] if nobody
    /// listens; [`PgError::TimedOut`].
    pub async fn open(place: &Place, limit: Duration) -> Result<Self> {
        Self::open_to(place, DATABASE, limit).await
    }

    /// Connects to another database than had's.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_to(place: &Place, database: &str, limit: Duration) -> Result<Self> {
        let what = "connecting to PostgreSQL";
        let mut config = Config::new();
        config
            .host(place.socket_dir.to_string_lossy())
            .port(place.port)
            .user(SUPERUSER)
            .dbname(database)
            .application_name("had")
            .connect_timeout(limit)
            .options(format!(
                "-c synchronous_commit=local -c default_transaction_read_only=off -c log_statement=none \
                 -c log_min_duration_statement=-1 -c log_min_error_statement=panic -c statement_timeout={} \
                 -c search_path=pg_catalog -c jit=off",
                STATEMENT_LIMIT.as_millis()
            ));
        let opened = async {
            let (client, connection) = config.connect(NoTls).await.map_err(|e| told(what, &e))?;
            let task = tokio::spawn(async move {
                // Its error reaches whoever asks next.
                let _ = connection.await;
            });
            let mut this = Self {
                client,
                task,
                pid: 0,
                answered: true,
            };
            // Not prepared: this is asked on every connection, and clients may wait for what follows.
            let rows = this.client.simple_query("SELECT pg_backend_pid()").await;
            let pid = rows.map_err(|e| told(what, &e))?.iter().find_map(|m| match m {
                SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
                _ => None,
            });
            this.pid = pid.unwrap_or_default();
            Ok(this)
        };
        tokio::time::timeout(limit, opened).await.unwrap_or_else(|_| {
            Err(PgError::TimedOut {
                what: what.to_owned(),
                limit,
            })
        })
    }

    /// The process that serves it.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it can be used: it is open, and nothing that was asked is still unanswered.
    pub fn is_usable(&self) -> bool {
        self.answered && !self.client.is_closed() && !self.task.is_finished()
    }

    /// Asks for rows. After a limit that ran out the connection is of no more use.
    ///
    /// # Errors
    /// [`PgError::Query`], [`PgError::Disconnected`], [`PgError::TimedOut`].
    pub(super) async fn rows(&mut self, what: &str, sql: &str, args: Args<'_>, limit: Duration) -> Result<Vec<Row>> {
        self.answered = false;
        let asked = tokio::time::timeout(limit, self.client.query(sql, args)).await;
        self.conclude(what, limit, asked)
    }

    /// As [`Self::rows`], for exactly one text.
    pub(super) async fn text(&mut self, what: &str, sql: &str, args: Args<'_>, limit: Duration) -> Result<String> {
        let rows = self.rows(what, sql, args, limit).await?;
        let text = rows.first().and_then(|r| r.try_get::<_, Option<String>>(0).ok());
        text.map(Option::unwrap_or_default)
            .ok_or_else(|| PgError::unreadable(what, "the answer is no text"))
    }

    /// Runs statements without arguments, several divided by semicolons.
    ///
    /// # Errors
    /// As [`Self::rows`].
    pub(super) async fn run(&mut self, what: &str, sql: &str, limit: Duration) -> Result<()> {
        self.answered = false;
        let asked = tokio::time::timeout(limit, self.client.batch_execute(sql)).await;
        self.conclude(what, limit, asked)
    }

    fn conclude<T>(
        &mut self,
        what: &str,
        limit: Duration,
        asked: std::result::Result<std::result::Result<T, tokio_postgres::Error>, tokio::time::error::Elapsed>,
    ) -> Result<T> {
        match asked {
            Ok(answer) => {
                self.answered = true;
                answer.map_err(|e| told(what, &e))
            }
            Err(_) => Err(PgError::TimedOut {
                what: what.to_owned(),
                limit,
            }),
        }
    }
}

/// Arguments of a question.
pub(super) type Args<'a> = &'a [&'a (dyn tokio_postgres::types::ToSql + Sync)];

fn told(what: &str, e: &tokio_postgres::Error) -> PgError {
    match e.as_db_error() {
        Some(db) => PgError::Query {
            what: what.to_owned(),
            sqlstate: db.code().code().to_owned(),
            why: one_line(db.message()),
        },
        None => {
            let cause = std::error::Error::source(e).map(ToString::to_string);
            PgError::Disconnected {
                what: what.to_owned(),
                why: one_line(&cause.unwrap_or_else(|| e.to_string())),
            }
        }
    }
}

/// A name in a statement.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text in a statement.
pub(super) fn literal(text: &str) -> String {
    let escaped = text.replace('\'', "''");
    if escaped.contains('\\') {
        format!(" E'{}'", escaped.replace('\\', "\\\\"))
    } else {
        format!("'{escaped}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_cannot_break_out() {
        assert_eq!(identifier("a\"; DROP"), "\"a\"\"; DROP\"");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal("a\\'b"), " E'a\\\\''b'");
    }
}
