//! Somebody who follows the change log through everything that happens, and must miss nothing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ha_proto::v1::{Change, FollowChangesRequest};
use hactl::client::Client;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_stream::StreamExt as _;

/// A subscriber; it ends when it is dropped.
#[derive(Debug)]
pub struct Subscriber {
    name: String,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Seen {
    changes: Vec<Change>,
    returns: u32,
    wrong: Option<String>,
    last_error: String,
}

impl Subscriber {
    /// Follows the log from its beginning, on this task's runtime, by way of this client's endpoints. It comes back after
    /// each failure and asks for what it has not seen.
    pub fn start(name: impl Into<String>, client: Client) -> Subscriber {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let task = tokio::spawn(follow(client, Arc::clone(&seen)));
        Subscriber {
            name: name.into(),
            seen,
            task,
        }
    }

    /// Who it is, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it has seen.
    pub fn changes(&self) -> Vec<Change> {
        lock(&self.seen).changes.clone()
    }

    /// Number of the last change it has seen.
    pub fn last(&self) -> u64 {
        lock(&self.seen).changes.last().map_or(0, |c| c.seq)
    }

    /// How often it had to come back.
    pub fn returns(&self) -> u32 {
        lock(&self.seen).returns
    }

    /// Waits until it has seen all of `log`, and compares.
    ///
    /// # Errors
    /// If it missed a change, saw one twice or saw another than the log has, or does not get that far in time.
    pub async fn assert_saw(&self, log: &[Change], limit: Duration) -> Result<()> {
        let Some(tail) = log.last().map(|c| c.seq) else {
            bail!("the log is empty");
        };
        let begun = Instant::now();
        while self.last() < tail {
            if let Some(wrong) = lock(&self.seen).wrong.clone() {
                bail!("subscriber {}: {wrong}", self.name);
            }
            ensure!(
                begun.elapsed() < limit,
                "subscriber {} is at {} of {tail} after {limit:?}; last error: {}",
                self.name,
                self.last(),
                lock(&self.seen).last_error,
            );
            sleep(Duration::from_millis(20)).await;
        }
        let seen = lock(&self.seen);
        ensure!(seen.wrong.is_none(), "subscriber {}: {:?}", self.name, seen.wrong);
        for (wanted, got) in log.iter().zip(&seen.changes) {
            let differs = || format!("subscriber {}: the log has {wanted:?}, it saw {got:?}", self.name);
            ensure!(wanted == got, differs());
        }
        Ok(())
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn follow(mut client: Client, seen: Arc<Mutex<Seen>>) {
    loop {
        let ended = once(&mut client, &seen).await;
        {
            let mut seen = lock(&seen);
            seen.returns += 1;
            match ended {
                Ok(()) => {}
                Err(Ended::Wrong(wrong)) => {
                    seen.wrong = Some(wrong);
                    return;
                }
                Err(Ended::Lost(why)) => seen.last_error = format!("{why:#}"),
            }
        }
        client.next_endpoint();
        sleep(Duration::from_millis(50)).await;
    }
}

enum Ended {
    /// It saw what it should not.
    Wrong(String),
    /// The stream broke.
    Lost(anyhow::Error),
}

async fn once(client: &mut Client, seen: &Mutex<Seen>) -> Result<(), Ended> {
    let expected = || lock(seen).changes.last().map_or(0, |c| c.seq) + 1;
    let request = FollowChangesRequest { from_seq: expected() };
    let opened = client.follow_changes(request).await.map_err(anyhow::Error::from);
    let mut stream = opened.context("not followed").map_err(Ended::Lost)?;
    while let Some(next) = stream.next().await {
        let change = next.map_err(|status| Ended::Lost(anyhow::anyhow!("{status}")))?;
        let expected = expected();
        if change.seq != expected || change.kind == "log.gap" {
            return Err(Ended::Wrong(format!("change {expected} was due, {change:?} came")));
        }
        lock(seen).changes.push(change);
    }
    Ok(())
}
