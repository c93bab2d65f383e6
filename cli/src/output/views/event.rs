//! An entry of the change log.

use ha_proto::v1::{Change, Severity};
use serde::Serialize;

use crate::output::table::{Cell, clean};
use crate::output::units;
use crate::output::{Column, View, col, wide};

use super::severity_tone;

/// An event, as hactl shows it. Its name is its sequence number.
#[derive(Debug, Clone, Serialize)]
pub struct EventView {
    name: String,
    status: Status,
    #[serde(skip)]
    raw: (u64, i64, Severity),
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    seq: u64,
    time: Option<String>,
    kind: String,
    subject: String,
    severity: &'static str,
    text: String,
    before: Option<serde_json::Value>,
    after: Option<serde_json::Value>,
    cause: String,
    actor: String,
    term: u64,
}

/// The value as JSON; a value that is none is kept as text.
fn value(text: &str) -> Option<serde_json::Value> {
    (!text.is_empty())
        .then(|| serde_json::from_str(text).unwrap_or_else(|_| serde_json::Value::String(text.to_owned())))
}

impl From<Change> for EventView {
    fn from(change: Change) -> Self {
        let severity = change.severity();
        Self {
            name: change.seq.to_string(),
            raw: (change.seq, change.time_unix_ms, severity),
            status: Status {
                seq: change.seq,
                time: units::moment(change.time_unix_ms),
                kind: change.kind,
                subject: change.subject,
                severity: severity.word(),
                text: change.text,
                before: value(&change.before),
                after: value(&change.after),
                cause: change.cause,
                actor: change.actor,
                term: change.term,
            },
        }
    }
}

impl EventView {
    /// One line for people, as `event follow` prints it.
    pub fn line(&self, colour: bool) -> String {
        let (seq, time, severity) = self.raw;
        let text = severity_tone(severity).paint(&clean(&self.status.text), colour);
        let cause = match self.status.cause.as_str() {
            "" => String::new(),
            cause => format!(" ({})", clean(cause)),
        };
        format!(
            "{}  {seq:>5}  {:<18}  {text}{cause}",
            units::local(time),
            clean(&self.status.kind)
        )
    }
}

impl View for EventView {
    const KIND: &'static str = "event";
    const COLUMNS: &'static [Column] = &[
        col("TIME"),
        col("SEQ"),
        col("KIND"),
        wide("SEVERITY"),
        col("SUBJECT"),
        col("TEXT"),
        wide("CAUSE"),
        col("BY"),
        wide("TERM"),
    ];

    fn name(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, _: i64) -> Vec<Cell> {
        let (seq, time, severity) = self.raw;
        vec![
            Cell::new(units::local(time)).key(time),
            Cell::new(&self.name).key(seq),
            Cell::new(&self.status.kind),
            Cell::new(self.status.severity),
            Cell::new(&self.status.subject),
            Cell::new(&self.status.text).tone(severity_tone(severity)),
            Cell::new(&self.status.cause),
            Cell::new(&self.status.actor),
            Cell::new(self.status.term.to_string()).key(self.status.term),
        ]
    }
}
