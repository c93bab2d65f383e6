//! Hands the sequence of changes to whoever in this daemon wants it.
//!
//! A subscription is a cursor, not a queue: the newest entries are in memory once for all, older ones are read from the
//! log. A slow subscriber therefore costs nothing, holds nobody up, and loses nothing that the log still has.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ha_core::Change;
use tokio::sync::watch;

use super::{Applier, Input, Session, Want};
use crate::platform::Clock;

/// Entries kept in memory.
const KEPT: usize = 256;

/// Where the sequence stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Head {
    /// Last entry published; none before it is known where the log stands.
    cursor: Option<u64>,
    /// Where it stood when that became known.
    began: Option<u64>,
    /// Raised when the log is started over.
    generation: u64,
    /// Where counting went on then.
    restarted_at: u64,
}

/// The newest entries, and the cursor. Clones are the same feed.
#[derive(Clone)]
pub struct Feed {
    kept: Arc<Mutex<VecDeque<Arc<Change>>>>,
    head: Arc<watch::Sender<Head>>,
    session: Session,
    clock: Arc<dyn Clock>,
}

enum Got {
    Entry(Arc<Change>),
    /// It is not there yet.
    Later,
    /// It is older than what is in memory; up to this number the log has to be read.
    Older(u64),
}

impl Feed {
    /// A feed whose subscribers read older entries by `session`.
    pub fn new(session: Session, clock: Arc<dyn Clock>) -> Self {
        Self {
            kept: Arc::default(),
            head: Arc::new(watch::Sender::new(Head::default())),
            session,
            clock,
        }
    }

    /// Last entry published.
    pub fn cursor(&self) -> Option<u64> {
        self.head.borrow().cursor
    }

    /// Waits until the cursor is another than `seen`, and returns it.
    pub async fn moved(&self, seen: Option<u64>) -> Option<u64> {
        let mut head = self.head.subscribe();
        // The sender lives as long as this value.
        match head.wait_for(|h| h.cursor != seen).await {
            Ok(head) => head.cursor,
            Err(_) => seen,
        }
    }

    /// The entries published from now on.
    pub fn subscribe(&self) -> Subscription {
        let head = self.head.subscribe();
        let seen = *head.borrow();
        self.subscription(head, seen, seen.cursor)
    }

    /// The entries after `cursor`.
    pub fn subscribe_after(&self, cursor: u64) -> Subscription {
        let head = self.head.subscribe();
        let seen = *head.borrow();
        self.subscription(head, seen, Some(cursor))
    }

    fn subscription(&self, head: watch::Receiver<Head>, seen: Head, cursor: Option<u64>) -> Subscription {
        Subscription {
            feed: self.clone(),
            head,
            generation: seen.generation,
            cursor,
            behind: VecDeque::new(),
        }
    }

    /// Says where the sequence stands before anything was published.
    pub(crate) fn start(&self, cursor: u64) {
        self.head.send_modify(|h| {
            *h = Head {
                cursor: Some(cursor),
                began: Some(cursor),
                ..*h
            }
        });
    }

    /// Publishes entries that follow each other. `restarted`: counting was started over after this number.
    pub(super) fn publish(&self, restarted: Option<u64>, changes: Vec<Change>) {
        let mut kept = self.lock();
        if restarted.is_some() {
            kept.clear();
        }
        let last = changes.last().map(|c| c.seq);
        kept.extend(changes.into_iter().map(Arc::new));
        let excess = kept.len().saturating_sub(KEPT);
        kept.drain(..excess);
        drop(kept);
        self.head.send_if_modified(|h| {
            let before = *h;
            if let Some(at) = restarted {
                *h = Head {
                    cursor: Some(at),
                    generation: h.generation + 1,
                    restarted_at: at,
                    ..*h
                };
            }
            h.cursor = last.or(h.cursor);
            *h != before
        });
    }

    fn get(&self, after: u64) -> Got {
        let kept = self.lock();
        let at = kept.partition_point(|c| c.seq <= after);
        match kept.get(at) {
            Some(change) if first_of(change) <= after.saturating_add(1) => Got::Entry(change.clone()),
            Some(change) => Got::Older(first_of(change) - 1),
            None => match self.cursor() {
                Some(cursor) if cursor > after => Got::Older(cursor),
                _ => Got::Later,
            },
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Change>>> {
        // Nothing panics under this lock.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first number an entry stands for.
fn first_of(change: &Change) -> u64 {
    let gap = (change.kind == super::LOG_GAP)
        .then(|| change.after.get("from")?.as_u64())
        .flatten();
    gap.unwrap_or(change.seq).max(1)
}

/// One subscriber's place in the sequence.
pub struct Subscription {
    feed: Feed,
    head: watch::Receiver<Head>,
    generation: u64,
    cursor: Option<u64>,
    /// Entries read from the log, ahead of the cursor.
    behind: VecDeque<Arc<Change>>,
}

impl Subscription {
    /// Last entry handed out.
    pub fn cursor(&self) -> Option<u64> {
        self.cursor
    }

    /// Where it begins; waits until that is known.
    pub async fn begins(&mut self) -> u64 {
        loop {
            self.cursor = self.cursor.or(self.head.borrow_and_update().began);
            match self.cursor {
                Some(cursor) => return cursor,
                None => self.changed().await,
            }
        }
    }

    async fn changed(&mut self) {
        if self.head.changed().await.is_err() {
            // The feed cannot be gone while this value holds it.
            std::future::pending::<()>().await;
        }
    }

    /// The next entry; waits for it. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Arc<Change> {
        loop {
            let head = *self.head.borrow_and_update();
            if head.generation != self.generation {
                self.generation = head.generation;
                self.behind.clear();
                self.cursor = Some(head.restarted_at);
            }
            // Whoever came before it was known where the log stands begins there.
            self.cursor = self.cursor.or(head.began);
            let got = match (self.behind.pop_front(), self.cursor) {
                (Some(change), _) => Got::Entry(change),
                (None, Some(cursor)) => self.feed.get(cursor),
                (None, None) => Got::Later,
            };
            match got {
                Got::Entry(change) => {
                    self.cursor = Some(change.seq);
                    return change;
                }
                Got::Older(to) => {
                    let Some(cursor) = self.cursor else { continue };
                    let answer = super::fetch(self.feed.session.clone(), Want::Entries { from: cursor + 1, to }).await;
                    let mut order = Applier::new(Some(cursor));
                    let changes = order.apply(Input::Log(answer), self.feed.clock.wall_ms()).changes;
                    self.behind.extend(changes.into_iter().map(Arc::new));
                }
                Got::Later => self.changed().await,
            }
        }
    }
}
