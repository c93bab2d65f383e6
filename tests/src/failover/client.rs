//! The application: one row every five milliseconds through a connection that may write, to whichever host that is.
//!
//! It counts as acknowledged what PostgreSQL answered without the warning that a synchronous wait was cancelled, and keeps
//! the number of each such row, to look for it afterwards.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::future::select_ok;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_postgres::{Config, SimpleQueryMessage};

use crate::session::Session;

/// Between two rows.
const EVERY: Duration = Duration::from_millis(5);
/// How long a row may take before the connection is given up; how long one may take to be opened at one host.
const ROW: Duration = Duration::from_millis(500);
const CONNECT: Duration = Duration::from_millis(500);
/// How long a host is tried before the attempts are begun anew.
const EACH: Duration = Duration::from_secs(5);
/// How long what follows a fault is watched at least.
const WATCHED: Duration = Duration::from_secs(6);
/// Rows that must have been acknowledged without a break before a measurement begins or ends.
const STEADY: Duration = Duration::from_secs(2);
/// The longest pause that is no break.
const BREAK: Duration = Duration::from_millis(250);

#[derive(Debug, Default)]
struct Log {
    /// When each row was acknowledged, and its number.
    rows: Vec<(Instant, i64)>,
}

/// The application, until it is dropped.
#[derive(Debug)]
pub(super) struct Client {
    hosts: Vec<(String, u16)>,
    table: &'static str,
    log: Arc<Mutex<Log>>,
    task: JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn config(host: &str, port: u16) -> Config {
    let mut config = Config::new();
    config
        .host(host)
        .port(port)
        .user("app")
        .password("app")
        .dbname("app")
        .connect_timeout(CONNECT);
    config
}

/// Between two attempts at one host: each costs the servers a process, on a machine that has to do everything else too.
const AGAIN: Duration = Duration::from_millis(50);
/// Between two questions to a standby whether it may be written to: these cost next to nothing.
const ASK: Duration = Duration::from_millis(10);

/// A connection to this host, once it may be written to.
async fn writable(host: &str, port: u16, limit: Instant) -> Result<Session> {
    let open = Session::open(&config(host, port), CONNECT * 2).await?;
    loop {
        let asked = timeout(ROW, open.client.simple_query("show transaction_read_only")).await??;
        let off = |m: &SimpleQueryMessage| matches!(m, SimpleQueryMessage::Row(r) if r.get(0) == Some("off"));
        if asked.iter().any(off) {
            return Ok(open);
        }
        ensure!(Instant::now() < limit, "{host}:{port} may not be written to");
        sleep(ASK).await;
    }
}

/// The first host that may be written to. All are tried at once and again and again: one that is silent must not hold up
/// the others, for what is measured is the system and not how patient a client is.
async fn any(hosts: &[(String, u16)]) -> Result<Session> {
    ensure!(!hosts.is_empty(), "no hosts");
    let limit = Instant::now() + EACH;
    let tries = hosts.iter().map(|(host, port)| {
        Box::pin(async move {
            loop {
                match writable(host, *port, limit).await {
                    Ok(open) => return Ok(open),
                    Err(e) if Instant::now() > limit => return Err(e),
                    Err(_) => sleep(AGAIN).await,
                }
            }
        })
    });
    let (open, _) = select_ok(tries).await?;
    Ok(open)
}

async fn insert_for_ever(hosts: Vec<(String, u16)>, table: &'static str, log: Arc<Mutex<Log>>) {
    let sql = format!("insert into {table} (number) values ($1)");
    let mut number = 0i64;
    loop {
        let Ok(open) = any(&hosts).await else {
            sleep(EVERY).await;
            continue;
        };
        let mut next = Instant::now();
        loop {
            number += 1;
            let row = async { open.client.execute(&sql, &[&number]).await };
            match timeout(ROW, row).await {
                Ok(Ok(_)) if !open.warned() => {
                    if let Ok(mut log) = log.lock() {
                        log.rows.push((Instant::now(), number));
                    }
                }
                _ => break,
            }
            next = (next + EVERY).max(Instant::now());
            sleep_until(next).await;
        }
    }
}

impl Client {
    /// Makes its table and begins.
    pub(super) async fn start(hosts: Vec<(String, u16)>, table: &'static str) -> Result<Client> {
        let begun = Instant::now();
        loop {
            let made = async {
                let open = any(&hosts).await?;
                let sql = format!("create table if not exists {table} (number bigint primary key)");
                open.client.batch_execute(&sql).await?;
                anyhow::Ok(())
            };
            match made.await {
                Ok(()) => break,
                Err(e) if begun.elapsed() > Duration::from_secs(60) => return Err(e).context("no table"),
                Err(_) => sleep(Duration::from_millis(200)).await,
            }
        }
        let log = Arc::new(Mutex::new(Log::default()));
        let task = tokio::spawn(insert_for_ever(hosts.clone(), table, Arc::clone(&log)));
        Ok(Client {
            hosts,
            table,
            log,
            task,
        })
    }

    /// When rows were acknowledged, from this time on.
    fn since(&self, from: Instant) -> Vec<Instant> {
        let log = self.log.lock();
        let rows = log.map(|l| l.rows.iter().map(|(at, _)| *at).collect::<Vec<_>>());
        rows.unwrap_or_default().into_iter().filter(|at| *at >= from).collect()
    }

    /// Whether rows came without a break during the last moments.
    fn steady(&self) -> bool {
        let from = Instant::now() - STEADY;
        let rows = self.since(from);
        let ends = [from].into_iter().chain(rows.iter().copied()).chain([Instant::now()]);
        let ends: Vec<_> = ends.collect();
        ends.windows(2).all(|w| w[1] - w[0] < BREAK)
    }

    /// Waits until rows come without a break.
    pub(super) async fn settle(&self) -> Result<()> {
        let begun = Instant::now();
        while !self.steady() {
            ensure!(begun.elapsed() < Duration::from_secs(120), "rows are not acknowledged");
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// The longest pause between two acknowledged rows since `begun`, once rows come without a break again.
    pub(super) async fn gap(&self, begun: Instant, limit: Duration) -> Result<Duration> {
        let watched = (begun + WATCHED).max(Instant::now() + STEADY);
        sleep_until(watched).await;
        while !self.steady() {
            if begun.elapsed() > limit {
                bail!("nothing is acknowledged after {} s", limit.as_secs());
            }
            sleep(Duration::from_millis(20)).await;
        }
        // The last row before the fault is where the pause begins.
        let rows = self.since(begun - STEADY);
        let first = rows.iter().rposition(|at| *at <= begun).unwrap_or(0);
        let pauses = rows[first..].windows(2).map(|w| w[1] - w[0]);
        pauses.max().context("nothing was acknowledged")
    }

    /// How many acknowledged rows are not there.
    pub(super) async fn missing(&self) -> Result<usize> {
        self.task.abort();
        let acknowledged: Vec<i64> = match self.log.lock() {
            Ok(log) => log.rows.iter().map(|(_, n)| *n).collect(),
            Err(_) => bail!("the log of rows is gone"),
        };
        let open = any(&self.hosts).await?;
        let sql = format!("select number from {}", self.table);
        let found = open.client.query(&sql, &[]).await?;
        let found: std::collections::BTreeSet<i64> = found.iter().map(|r| r.get(0)).collect();
        Ok(acknowledged.iter().filter(|n| !found.contains(n)).count())
    }
}
