//! A connection to PostgreSQL on which nothing is lost: it notes the warning that makes an answer worthless.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use futures::future::poll_fn;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::error::Severity;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls};

/// An open connection, until it is dropped.
pub struct Session {
    /// Where statements go.
    pub client: Client,
    warned: Arc<AtomicBool>,
    driver: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Session {
    /// Opens one within `limit`.
    ///
    /// # Errors
    /// If nobody answers in time, or refuses.
    pub async fn open(config: &Config, limit: Duration) -> Result<Session> {
        let (client, mut connection) = timeout(limit, config.connect(NoTls)).await??;
        let warned = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&warned);
        let driver = tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notice(notice) = message
                    && notice.parsed_severity() == Some(Severity::Warning)
                {
                    flag.store(true, Ordering::SeqCst);
                }
            }
        });
        Ok(Session { client, warned, driver })
    }

    /// Whether PostgreSQL warned, as it does of a wait for standbys that was cancelled: what it answered then counts as not
    /// acknowledged, and nothing on this connection counts any more.
    pub fn warned(&self) -> bool {
        self.warned.load(Ordering::SeqCst)
    }
}
