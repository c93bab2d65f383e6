//! The changes of a group's primary: who, when, for how long nobody took writes, and what it was decided from.

use std::fmt::Write as _;

use ha_proto::database::lsn;
use ha_proto::v1::{HistoryEntry, PrimaryChange};
use serde::Serialize;

use crate::output::table::{Cell, Tone, clean};
use crate::output::units;
use crate::output::{Column, View, col, wide};

/// A change of primary, as hactl shows it. Its name is its epoch.
#[derive(Debug, Clone, Serialize)]
pub struct HistoryView {
    name: String,
    status: Status,
    #[serde(skip)]
    raw: Box<HistoryEntry>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    epoch: u64,
    from_epoch: u64,
    kind: &'static str,
    from: Option<String>,
    to: Option<String>,
    started_at: Option<String>,
    finished_at: Option<String>,
    duration_ms: Option<i64>,
    gap_ms: Option<u64>,
    phases: Vec<PhaseView>,
    reason: String,
    actor: String,
    timeline: u32,
    fork_lsn: Option<String>,
    decision: Vec<String>,
    lost_bytes: Option<u64>,
    operation_id: Option<String>,
    error: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct PhaseView {
    name: String,
    at_ms: u64,
    text: String,
}

impl From<&HistoryEntry> for HistoryView {
    fn from(e: &HistoryEntry) -> Self {
        let some = |text: &String| Some(text.clone()).filter(|t| !t.is_empty());
        let phase = |p: &ha_proto::v1::HistoryPhase| PhaseView {
            name: p.name.clone(),
            at_ms: p.at_ms,
            text: p.text.clone(),
        };
        Self {
            name: e.epoch.to_string(),
            status: Status {
                epoch: e.epoch,
                from_epoch: e.from_epoch,
                kind: e.kind().word(),
                from: some(&e.from),
                to: some(&e.to),
                started_at: units::moment(e.started_unix_ms),
                finished_at: units::moment(e.finished_unix_ms),
                duration_ms: duration(e),
                gap_ms: e.gap_ms,
                phases: e.phases.iter().map(phase).collect(),
                reason: e.reason.clone(),
                actor: e.actor.clone(),
                timeline: e.timeline,
                fork_lsn: (e.fork_lsn > 0).then(|| lsn(e.fork_lsn)),
                decision: e.decision.clone(),
                lost_bytes: e.lost_bytes,
                operation_id: some(&e.operation_id),
                error: some(&e.error),
            },
            raw: Box::new(e.clone()),
        }
    }
}

fn duration(entry: &HistoryEntry) -> Option<i64> {
    (entry.finished_unix_ms > 0).then(|| entry.finished_unix_ms - entry.started_unix_ms)
}

/// The tone of a kind of change.
pub fn kind_tone(kind: PrimaryChange) -> Tone {
    match kind {
        PrimaryChange::Failover | PrimaryChange::Restart => Tone::Warning,
        PrimaryChange::Forced => Tone::Bad,
        PrimaryChange::Unspecified | PrimaryChange::Bootstrap | PrimaryChange::Switchover | PrimaryChange::Aborted => {
            Tone::Plain
        }
    }
}

/// A time within a change: `  0.021 s`.
pub fn at(ms: u64) -> String {
    format!("{:>3}.{:03} s", ms / 1000, ms % 1000)
}

impl HistoryView {
    /// Everything about the change, for people.
    pub fn report(&self, now: i64, colour: bool) -> String {
        let e = &*self.raw;
        let who = match (e.from.as_str(), e.to.as_str()) {
            ("", "") => String::new(),
            ("", to) => format!(" to {}", clean(to)),
            (from, "") => format!(" from {}", clean(from)),
            (from, to) => format!(" {} -> {}", clean(from), clean(to)),
        };
        let mut text = format!(
            "epoch {}   {}{who}   {} ({})   by {}\n",
            e.epoch,
            kind_tone(e.kind()).paint(e.kind().word(), colour),
            units::local(e.started_unix_ms),
            units::ago(e.started_unix_ms, now),
            clean(&e.actor),
        );
        if !e.reason.is_empty() {
            let _ = writeln!(text, "  because  {}", clean(&e.reason));
        }
        for phase in &e.phases {
            let more = if phase.text.is_empty() {
                String::new()
            } else {
                format!(": {}", clean(&phase.text))
            };
            let _ = writeln!(text, "{}  {}{more}", at(phase.at_ms), clean(&phase.name));
        }
        for (i, line) in e.decision.iter().enumerate() {
            let head = if i == 0 { "decided" } else { "" };
            let _ = writeln!(text, "  {head:<7}  {}", clean(line));
        }
        if let Some(bytes) = e.lost_bytes {
            let line = format!("at most {} of acknowledged commits", units::bytes(bytes));
            let _ = writeln!(text, "  lost     {}", Tone::Bad.paint(&line, colour));
        }
        let gap = e.gap_ms.map(|ms| {
            format!(
                "writes paused for {}",
                units::took(i64::try_from(ms).unwrap_or(i64::MAX))
            )
        });
        let end = match (e.error.as_str(), duration(e), gap) {
            ("", None, _) => "  still going on".to_owned(),
            ("", Some(_), Some(gap)) => format!("  {gap}"),
            ("", Some(took), None) => format!("  took {}", units::took(took)),
            (error, ..) => format!("  {}", Tone::Bad.paint(&format!("failed: {}", clean(error)), colour)),
        };
        text.push_str(&end);
        text.push('\n');
        text
    }

    /// The epoch it led to.
    pub fn epoch(&self) -> u64 {
        self.raw.epoch
    }
}

impl View for HistoryView {
    const KIND: &'static str = "epoch";
    const COLUMNS: &'static [Column] = &[
        col("EPOCH"),
        col("KIND"),
        col("FROM"),
        col("TO"),
        col("WHEN"),
        col("PAUSED"),
        wide("TOOK"),
        wide("TIMELINE"),
        wide("FORK"),
        wide("LOST"),
        wide("BY"),
        col("REASON"),
    ];

    fn name(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, now: i64) -> Vec<Cell> {
        let e = &*self.raw;
        let took = duration(e);
        let paused = match (e.gap_ms, took) {
            (Some(ms), _) => units::took(i64::try_from(ms).unwrap_or(i64::MAX)),
            (None, None) if e.error.is_empty() => "still".to_owned(),
            (None, _) => "-".to_owned(),
        };
        vec![
            Cell::new(e.epoch.to_string()).key(e.epoch),
            Cell::new(e.kind().word()).tone(kind_tone(e.kind())),
            Cell::new(&e.from),
            Cell::new(&e.to),
            Cell::new(units::ago(e.started_unix_ms, now)).key(-e.started_unix_ms),
            Cell::new(paused).key(e.gap_ms.map_or(-1, i128::from)),
            Cell::new(took.map_or_else(|| "-".to_owned(), units::took)).key(took.unwrap_or(-1)),
            Cell::new(e.timeline.to_string()).key(e.timeline),
            Cell::new(if e.fork_lsn == 0 { "-".into() } else { lsn(e.fork_lsn) }).key(e.fork_lsn),
            Cell::new(e.lost_bytes.map_or_else(|| "-".to_owned(), units::bytes))
                .key(e.lost_bytes.map_or(-1, i128::from)),
            Cell::new(&e.actor),
            Cell::new(if e.error.is_empty() {
                e.reason.clone()
            } else {
                format!("failed: {}", e.error)
            }),
        ]
    }
}
