//! One sequence out of many pieces. Pure: it is told what came in and says what it needs next.

use std::collections::BTreeMap;

use ha_core::{Change, FORMAT, Severity};

/// Kind of the entry that stands for entries which are no longer to be had.
pub const LOG_GAP: &str = "log.gap";

/// Streamed entries kept while older ones are read from the log; more are read from there as well.
const PENDING: usize = 1024;

/// What comes in.
#[derive(Debug, Clone)]
pub enum Input {
    /// Entries from the master's stream, in any order, repeated or not.
    Streamed(Vec<Change>),
    /// The number of the newest entry, from the master's welcome.
    Tail(u64),
    /// What the log answered to a [`Want`].
    Log(Answer),
}

/// What has to be read from the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// These entries; a part of them, from the first on, will do.
    Entries {
        /// First number.
        from: u64,
        /// Last number.
        to: u64,
    },
    /// The number of the newest entry.
    Newest,
}

impl Want {
    /// Whether an answer to one is of use for the other.
    pub(super) fn begins_like(&self, other: &Want) -> bool {
        match (self, other) {
            (Want::Entries { from: a, .. }, Want::Entries { from: b, .. }) => a == b,
            _ => self == other,
        }
    }
}

/// What the log answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Consecutive entries.
    Entries(Vec<Change>),
    /// Nothing of what is wanted is there, nor anything after it.
    NotYet,
    /// Older entries than this one were trimmed.
    Trimmed {
        /// The oldest that is kept.
        kept: u64,
    },
    /// These are not there, though older and newer ones are; or they cannot be read.
    Hole {
        /// First number.
        from: u64,
        /// Last number.
        to: u64,
    },
    /// The number of the newest entry, as read after that was wanted; 0 if there is none.
    Newest(u64),
}

/// What became of an input.
#[derive(Debug, Default, PartialEq)]
pub struct Applied {
    /// Entries to hand on, in order.
    pub changes: Vec<Change>,
    /// It became known where the log stands: what comes after this number is new.
    pub began: Option<u64>,
    /// The log was started over: counting goes on after this number, before [`Applied::changes`].
    pub restarted: Option<u64>,
}

/// Puts entries in order and hands each on once.
#[derive(Debug, Clone, Default)]
pub struct Applier {
    /// Last entry handed on; none before the first word of where the log stands.
    cursor: Option<u64>,
    /// Entries that came before those in front of them.
    pending: BTreeMap<u64, Change>,
    /// Greatest number heard of.
    tail: u64,
    /// The master's log ends before our cursor, so one of both is mistaken: greatest number heard from it since.
    doubt: Option<u64>,
}

impl Applier {
    /// Goes on after `cursor`; without one, begins with what is new when the first master is heard.
    pub fn new(cursor: Option<u64>) -> Self {
        Self {
            cursor,
            ..Self::default()
        }
    }

    /// Last entry handed on.
    pub fn cursor(&self) -> Option<u64> {
        self.cursor
    }

    /// What has to be read from the log.
    pub fn want(&self) -> Option<Want> {
        let from = self.cursor?.checked_add(1)?;
        if self.doubt.is_some() {
            return Some(Want::Newest);
        }
        let to = self.pending.keys().next().map_or(self.tail, |first| first - 1);
        (to >= from).then_some(Want::Entries { from, to })
    }

    /// Takes an input. `now_ms` dates the entries made here.
    pub fn apply(&mut self, input: Input, now_ms: i64) -> Applied {
        let mut applied = Applied::default();
        let fresh = self.cursor.is_none();
        match input {
            Input::Tail(tail) => match self.cursor {
                None => self.begin(tail),
                Some(cursor) => {
                    self.doubt = (tail < cursor).then_some(tail);
                    self.tail = self.tail.max(tail);
                }
            },
            Input::Streamed(changes) | Input::Log(Answer::Entries(changes)) => self.take(changes, &mut applied.changes),
            Input::Log(Answer::NotYet) => {}
            Input::Log(Answer::Trimmed { kept }) => {
                let text = "are no longer kept";
                self.gap(self.next(), kept.saturating_sub(1), text, now_ms, &mut applied.changes);
            }
            Input::Log(Answer::Hole { from, to }) => {
                self.gap(from, to, "are missing from the log", now_ms, &mut applied.changes);
            }
            Input::Log(Answer::Newest(newest)) => self.settle(newest, now_ms, &mut applied),
        }
        self.flush(&mut applied.changes);
        if fresh {
            // The first entry handed on, if there is one, is the next after it.
            applied.began = applied
                .changes
                .first()
                .map_or(self.cursor, |c| Some(c.seq.saturating_sub(1)));
        }
        applied
    }

    fn next(&self) -> u64 {
        self.cursor.unwrap_or(0).saturating_add(1)
    }

    fn begin(&mut self, cursor: u64) {
        self.cursor = Some(cursor);
        self.tail = self.tail.max(cursor);
    }

    fn take(&mut self, changes: Vec<Change>, out: &mut Vec<Change>) {
        for change in changes {
            if self.cursor.is_none() {
                self.begin(change.seq.saturating_sub(1));
            }
            self.tail = self.tail.max(change.seq);
            self.doubt = self.doubt.map(|heard| heard.max(change.seq));
            if change.seq == self.next() {
                self.hand_on(change, out);
            } else if change.seq > self.next() {
                self.pending.insert(change.seq, change);
                // The newest are given up first: they are read from the log when their turn comes.
                while self.pending.len() > PENDING {
                    self.pending.pop_last();
                }
            }
        }
    }

    fn hand_on(&mut self, change: Change, out: &mut Vec<Change>) {
        self.cursor = Some(change.seq);
        self.doubt = None;
        out.push(change);
    }

    /// Hands on what waited for the entries before it.
    fn flush(&mut self, out: &mut Vec<Change>) {
        while let Some((seq, change)) = self.pending.pop_first() {
            if seq > self.next() {
                self.pending.insert(seq, change);
                return;
            }
            if seq == self.next() {
                self.hand_on(change, out);
            }
        }
    }

    /// Puts one entry in the place of those that are lost.
    fn gap(&mut self, from: u64, to: u64, why: &str, now_ms: i64, out: &mut Vec<Change>) {
        // The stream may have brought some of them meanwhile.
        let last = self
            .pending
            .keys()
            .next()
            .map_or(to, |first| to.min(first.saturating_sub(1)));
        if from > self.next() || last < self.next() {
            return;
        }
        let change = gap_entry(self.next(), last, why, now_ms);
        self.hand_on(change, out);
    }

    /// The log was asked where it ends, because a master said it ends before our cursor.
    fn settle(&mut self, newest: u64, now_ms: i64, applied: &mut Applied) {
        let Some(heard) = self.doubt.take() else { return };
        let Some(cursor) = self.cursor.filter(|c| newest < *c) else {
            return;
        };
        // The cluster's stored state was replaced by an older one. What it numbers anew is not what we had.
        let before = newest.saturating_sub(1);
        self.cursor = Some(before);
        self.pending.clear();
        self.tail = newest.max(heard);
        applied.restarted = Some(before);
        if newest > 0 {
            let mut change = gap_entry(newest, newest, "", now_ms);
            change.text = format!("the change log was started over: it ends at {newest}, and this node had {cursor}");
            self.hand_on(change, &mut applied.changes);
        }
    }
}

fn gap_entry(from: u64, to: u64, why: &str, now_ms: i64) -> Change {
    Change {
        v: FORMAT,
        seq: to,
        time_ms: now_ms,
        kind: LOG_GAP.into(),
        subject: "cluster".into(),
        severity: Severity::Warning,
        text: format!("changes {from} to {to} {why}"),
        before: serde_json::Value::Null,
        after: serde_json::json!({ "from": from, "to": to }),
        cause: String::new(),
        actor: String::new(),
        term: 0,
        request: String::new(),
        write: String::new(),
    }
}

#[cfg(test)]
#[path = "applier_tests.rs"]
pub(super) mod tests;
