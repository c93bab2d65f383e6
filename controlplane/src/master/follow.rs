//! Readers of the change log and of operations: each is a future of the hub that goes at its reader's pace, from memory
//! where it can and from ZooKeeper where it must. None may skip an entry in silence.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use ha_core::Change;
use ha_proto::v1;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use super::hub::BEAT_EVERY;
use super::seal::read_changes;
use super::view;
use crate::coordination::Coordinator;
use crate::error::ApiError;
use crate::platform::Clock;

/// Greatest number of entries one list returns.
const LIST_LIMIT: u32 = 5000;

/// The change log in memory, shared with the followers' futures.
pub(super) struct Log {
    pub(super) kept: Mutex<VecDeque<Arc<v1::Change>>>,
    pub(super) tail: watch::Sender<u64>,
    pub(super) oldest: u64,
    pub(super) c: Arc<dyn Coordinator>,
}

/// The operations, shared with the futures that watch one.
pub(super) struct Operations {
    pub(super) all: Mutex<BTreeMap<String, v1::Operation>>,
    pub(super) version: watch::Sender<u64>,
}

pub(super) fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Entries from `next` on that are in memory; `Err(first kept)` if `next` is older than those.
fn in_memory(log: &Log, next: u64) -> Result<Vec<Arc<v1::Change>>, u64> {
    let kept = lock(&log.kept);
    match kept.front() {
        Some(first) if next < first.seq => Err(first.seq),
        _ => Ok(kept.iter().filter(|c| c.seq >= next).take(64).cloned().collect()),
    }
}

/// An entry that stands for those no longer kept.
fn gap(from: u64, to: u64, wall_ms: i64) -> v1::Change {
    v1::Change {
        seq: to,
        time_unix_ms: wall_ms,
        kind: "log.gap".to_owned(),
        subject: "changes".to_owned(),
        severity: v1::Severity::Warning.into(),
        text: format!("entries {from} to {to} are no longer kept"),
        actor: "master".to_owned(),
        ..v1::Change::default()
    }
}

/// The next entries from `next` on, from memory or from ZooKeeper; empty when there are none yet.
async fn next_changes(log: &Log, next: u64) -> Result<Vec<Arc<v1::Change>>, ApiError> {
    let first_kept = match in_memory(log, next) {
        Ok(changes) => return Ok(changes),
        Err(first) => first,
    };
    if next < log.oldest {
        return Ok(vec![Arc::new(gap(next, log.oldest - 1, 0))]);
    }
    let to = (first_kept - 1).min(next + 255);
    let stored = read_changes(&*log.c, next, to).await?;
    Ok(without_silence(&stored, next, to).into_iter().map(Arc::new).collect())
}

/// The entries `from..=to` as readers get them: what was trimmed meanwhile or cannot be read is said, never skipped.
pub(super) fn without_silence(stored: &[Change], from: u64, to: u64) -> Vec<v1::Change> {
    let mut changes = Vec::with_capacity(stored.len());
    let mut expected = from;
    for change in stored {
        if change.seq > expected {
            changes.push(gap(expected, change.seq - 1, change.time_ms));
        }
        changes.push(view::change(change));
        expected = change.seq + 1;
    }
    if expected <= to {
        changes.push(gap(expected, to, 0));
    }
    changes
}

/// Sends the change log from `next` on, at the reader's pace, until the reader goes.
pub(super) async fn follow(log: Arc<Log>, mut next: u64, to: mpsc::Sender<Result<v1::Change, ApiError>>) {
    let mut tail = log.tail.subscribe();
    loop {
        tail.borrow_and_update();
        match next_changes(&log, next).await {
            Err(e) => {
                let _ = to.send(Err(e)).await;
                return;
            }
            Ok(changes) if changes.is_empty() => tokio::select! {
                biased;
                changed = tail.changed() => if changed.is_err() { return },
                () = to.closed() => return,
            },
            Ok(changes) => {
                for change in changes {
                    next = change.seq + 1;
                    if to.send(Ok((*change).clone())).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// Feeds a node's agent: welcome with the log's tail, then each new entry in order, and a sign of life every second.
pub(super) async fn feed_agent(log: Arc<Log>, term: u64, clock: Arc<dyn Clock>, to: mpsc::Sender<v1::MasterMessage>) {
    use v1::master_message::Body;
    let message = |body| v1::MasterMessage {
        term,
        server_unix_ms: clock.wall_ms(),
        body: Some(body),
    };
    let mut tail = log.tail.subscribe();
    let start = *tail.borrow_and_update();
    if to
        .send(message(Body::Welcome(v1::Welcome { tail_seq: start })))
        .await
        .is_err()
    {
        return;
    }
    let mut next = start + 1;
    let mut beat = tokio::time::interval(BEAT_EVERY);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let changes = match next_changes(&log, next).await {
            Ok(changes) => changes,
            Err(e) => {
                tracing::debug!("an agent's feed ends: {e}");
                return;
            }
        };
        let sent = if changes.is_empty() {
            tokio::select! {
                biased;
                changed = tail.changed() => if changed.is_ok() { continue } else { return },
                () = to.closed() => return,
                _ = beat.tick() => to.send(message(Body::Beat(v1::Heartbeat {}))).await,
            }
        } else {
            next = changes.last().map_or(next, |c| c.seq + 1);
            let changes = changes.iter().map(|c| (**c).clone()).collect();
            to.send(message(Body::Changes(v1::Changes { changes }))).await
        };
        if sent.is_err() {
            return;
        }
    }
}

pub(super) async fn watch_operation(operations: Arc<Operations>, id: String, to: mpsc::Sender<v1::Operation>) {
    let mut version = operations.version.subscribe();
    let mut last = None;
    loop {
        version.borrow_and_update();
        let now = lock(&operations.all).get(&id).cloned();
        let Some(now) = now else { return };
        let finished = now.state().is_final();
        if last.as_ref() != Some(&now) {
            if to.send(now.clone()).await.is_err() {
                return;
            }
            last = Some(now);
        }
        if finished {
            return;
        }
        tokio::select! {
            biased;
            changed = version.changed() => if changed.is_err() { return },
            () = to.closed() => return,
        }
    }
}

fn concerns(change: &v1::Change, node: &str) -> bool {
    change.subject == format!("node/{node}") || change.actor == format!("node/{node}")
}

/// Entries that match, oldest first: from `from_seq` on, or the newest `limit`.
pub(super) async fn list(
    log: &Log,
    request: &v1::ListChangesRequest,
    cluster: String,
) -> Result<v1::ListChangesResponse, ApiError> {
    let limit = match request.limit {
        0 => 50,
        n => n.min(LIST_LIMIT),
    } as usize;
    let revision = *log.tail.borrow();
    let wanted = |c: &v1::Change| {
        c.time_unix_ms >= request.since_unix_ms
            && c.kind.starts_with(&request.kind)
            && (request.node.is_empty() || concerns(c, &request.node))
    };
    let mut found: VecDeque<v1::Change> = VecDeque::new();
    if request.from_seq > 0 {
        let mut next = request.from_seq;
        while found.len() < limit && next <= revision {
            let changes = next_changes(log, next).await?;
            let Some(last) = changes.last() else { break };
            next = last.seq + 1;
            found.extend(
                changes
                    .iter()
                    .filter(|c| wanted(c) || c.kind == "log.gap")
                    .map(|c| (**c).clone()),
            );
        }
        found.truncate(limit);
    } else {
        let kept: Vec<Arc<v1::Change>> = lock(&log.kept).iter().cloned().collect();
        for c in kept.iter().rev().filter(|c| wanted(c)).take(limit) {
            found.push_front((**c).clone());
        }
        // Older ones are in ZooKeeper only.
        let mut before = kept.first().map_or(revision + 1, |c| c.seq);
        while found.len() < limit && before > log.oldest {
            let from = before.saturating_sub(256).max(log.oldest);
            let older = read_changes(&*log.c, from, before - 1).await?;
            for c in older.iter().rev().map(view::change).filter(|c| wanted(c)) {
                if found.len() < limit {
                    found.push_front(c);
                }
            }
            if older.first().is_some_and(|c| c.time_ms < request.since_unix_ms) {
                break;
            }
            before = from;
        }
    }
    Ok(v1::ListChangesResponse {
        changes: found.into(),
        revision,
        cluster,
    })
}
