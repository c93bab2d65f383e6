//! A client at each instance that inserts a row every few milliseconds for as long as it is let. What it keeps of each
//! acknowledged row shows whether one was lost, and whether two instances ever accepted writes at the same time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Result, ensure};
use ha_tests::cluster::LIMIT;
use ha_tests::session::Session;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Config;

/// Between two rows.
const EVERY: Duration = Duration::from_millis(5);
/// Between two attempts at a server that takes no writes.
const AGAIN: Duration = Duration::from_millis(100);
/// How long a statement, or a connection, is waited for.
const STATEMENT: Duration = Duration::from_secs(3);
const CREATE: &str = "SET client_min_messages = warning; \
    CREATE TABLE IF NOT EXISTS numbers (n bigint PRIMARY KEY, timeline text NOT NULL)";
/// Each promotion begins a timeline.
const INSERT: &str = "INSERT INTO numbers VALUES ($1, substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)) \
    RETURNING timeline";

/// A row that was acknowledged.
#[derive(Debug, Clone)]
struct Row {
    number: i64,
    node: usize,
    /// Counts the connections of all nodes.
    session: i64,
    timeline: String,
    sent: Instant,
    acknowledged: Instant,
}

#[derive(Default)]
struct Log {
    numbers: AtomicI64,
    sessions: AtomicI64,
    rows: Mutex<Vec<Row>>,
}

/// The clients, until it is dropped.
pub(crate) struct Writer {
    log: Arc<Log>,
    tasks: Vec<JoinHandle<()>>,
}

/// Where the rows have come to at some moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark(usize);

impl Drop for Writer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Writes until it is dropped. A number whose outcome is unknown is never used again.
async fn write(config: Config, node: usize, log: Arc<Log>) {
    loop {
        if let Ok(open) = Session::open(&config, STATEMENT).await {
            let session = log.sessions.fetch_add(1, Ordering::Relaxed);
            write_to(&open, node, session, &log).await;
        }
        sleep(AGAIN).await;
    }
}

/// Writes until the connection fails or is in doubt.
async fn write_to(open: &Session, node: usize, session: i64, log: &Log) {
    loop {
        match timeout(STATEMENT, open.client.batch_execute(CREATE)).await {
            Ok(Ok(())) => break,
            // A standby says so, and may be promoted.
            Ok(Err(_)) if !open.client.is_closed() => sleep(AGAIN).await,
            _ => return,
        }
    }
    let Ok(Ok(insert)) = timeout(STATEMENT, open.client.prepare(INSERT)).await else {
        return;
    };
    loop {
        let number = log.numbers.fetch_add(1, Ordering::Relaxed);
        let sent = Instant::now();
        // tokio-postgres returns when the server is ready again: after the commit and what it said of it.
        let row = match timeout(STATEMENT, open.client.query_one(&insert, &[&number])).await {
            Ok(Ok(row)) if !open.warned() => row,
            _ => return,
        };
        log.rows.lock().unwrap().push(Row {
            number,
            node,
            session,
            timeline: row.get(0),
            sent,
            acknowledged: Instant::now(),
        });
        sleep(EVERY).await;
    }
}

impl Writer {
    /// Begins to write to each of these.
    pub(crate) fn start(servers: Vec<Config>) -> Writer {
        let log = Arc::new(Log::default());
        let each = servers.into_iter().enumerate();
        let tasks = each.map(|(node, config)| tokio::spawn(write(config, node, log.clone())));
        Writer {
            tasks: tasks.collect(),
            log,
        }
    }

    fn count(&self) -> usize {
        self.log.rows.lock().unwrap().len()
    }

    /// Waits until so many were acknowledged.
    pub(crate) async fn wrote(&self, count: usize) -> Result<()> {
        let limit = Instant::now() + LIMIT;
        while self.count() < count {
            ensure!(
                Instant::now() < limit,
                "only {} of {count} were acknowledged",
                self.count()
            );
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Waits until so many more were acknowledged.
    pub(crate) async fn wrote_more(&self, more: usize) -> Result<()> {
        self.wrote(self.count() + more).await
    }

    /// Now.
    pub(crate) fn mark(&self) -> Mark {
        Mark(self.count())
    }

    /// Every row since then came over one connection: no write failed, was in doubt, or took longer than a client waits.
    pub(crate) fn never_interrupted_since(&self, mark: Mark) -> Result<()> {
        let rows = self.log.rows.lock().unwrap();
        let sessions: BTreeSet<i64> = rows[mark.0.saturating_sub(1)..].iter().map(|r| r.session).collect();
        ensure!(sessions.len() == 1, "writes were interrupted: connections {sessions:?}");
        Ok(())
    }

    /// The numbers that were acknowledged; it writes no more.
    ///
    /// # Errors
    /// If two instances accepted writes: on one timeline, or an older one after a newer one.
    pub(crate) fn finish(self) -> Result<Vec<i64>> {
        self.tasks.iter().for_each(JoinHandle::abort);
        let rows = self.log.rows.lock().unwrap().clone();
        let mut wrote: BTreeMap<&str, &Row> = BTreeMap::new();
        for row in &rows {
            let first = *wrote.entry(&row.timeline).or_insert(row);
            ensure!(
                first.node == row.node,
                "two accepted writes on one timeline: {first:?}, {row:?}"
            );
        }
        // In the order of being acknowledged; what was sent before may be told late.
        let mut newest: Vec<&Row> = Vec::new();
        for row in &rows {
            let known = newest.iter().rev().find(|n| n.acknowledged < row.sent);
            ensure!(
                known.is_none_or(|n| n.timeline <= row.timeline),
                "an older primary accepted a write after a newer one had: {known:?}, {row:?}"
            );
            if newest.last().is_none_or(|n| n.timeline < row.timeline) {
                newest.push(row);
            }
        }
        Ok(rows.iter().map(|r| r.number).collect())
    }
}
