//! An operation: a request that goes on after its call has returned.

use std::collections::BTreeMap;

use ha_proto::v1::{Operation, OperationState};
use serde::Serialize;

use crate::output::table::{Cell, Tone, clean};
use crate::output::units;
use crate::output::{Column, View, col, wide};

/// An operation, as hactl shows it. Its name is its id.
#[derive(Debug, Clone, Serialize)]
pub struct OperationView {
    name: String,
    spec: Spec,
    status: Status,
    #[serde(skip)]
    raw: Operation,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    kind: String,
    subject: String,
    arguments: BTreeMap<String, String>,
    actor: String,
    reason: String,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    state: &'static str,
    created_at: Option<String>,
    finished_at: Option<String>,
    duration_ms: Option<i64>,
    steps: Vec<Step>,
    error_code: Option<String>,
    error: Option<String>,
    result: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Step {
    time: Option<String>,
    text: String,
}

impl From<Operation> for OperationView {
    fn from(op: Operation) -> Self {
        let some = |text: &String| Some(text.clone()).filter(|t| !t.is_empty());
        let step = |s: &ha_proto::v1::OperationStep| Step {
            time: units::moment(s.time_unix_ms),
            text: s.text.clone(),
        };
        Self {
            name: op.id.clone(),
            spec: Spec {
                kind: op.kind.clone(),
                subject: op.subject.clone(),
                arguments: op.arguments.clone().into_iter().collect(),
                actor: op.actor.clone(),
                reason: op.reason.clone(),
            },
            status: Status {
                state: op.state().word(),
                created_at: units::moment(op.created_unix_ms),
                finished_at: units::moment(op.finished_unix_ms),
                duration_ms: (op.finished_unix_ms > 0).then(|| op.finished_unix_ms - op.created_unix_ms),
                steps: op.steps.iter().map(step).collect(),
                error_code: some(&op.error_code),
                error: some(&op.error),
                result: some(&op.result),
            },
            raw: op,
        }
    }
}

/// The tone of an operation's state.
pub fn state_tone(state: OperationState) -> Tone {
    match state {
        OperationState::Succeeded => Tone::Good,
        OperationState::Failed => Tone::Bad,
        OperationState::Cancelled | OperationState::Pending => Tone::Warning,
        OperationState::Running | OperationState::Unspecified => Tone::Plain,
    }
}

/// The head of an operation's report: `operation 0199f3 master.transfer of master`, and of databases
/// `operation 0199f3 switchover of main, n1 -> n3`.
pub fn head(op: &Operation) -> String {
    let (Some(kind), Some(group)) = (op.kind.strip_prefix("db."), op.subject.strip_prefix("db/")) else {
        return format!("operation {} {} of {}", op.id, clean(&op.kind), clean(&op.subject));
    };
    let argument = |name: &str| op.arguments.get(name).filter(|a| !a.is_empty());
    let between = match (argument("from"), argument("to"), argument("node")) {
        (Some(from), Some(to), _) => format!(", {from} -> {to}"),
        (None, Some(to), _) => format!(", to {to}"),
        (_, None, Some(node)) => format!(" on {node}"),
        (Some(from), None, None) => format!(", from {from}"),
        (None, None, None) => String::new(),
    };
    format!(
        "operation {} {} of {}{}",
        op.id,
        clean(kind),
        clean(group),
        clean(&between)
    )
}

/// A step with the time since the operation was made: `  0.021 s  checked`.
pub fn step_line(op: &Operation, at: usize) -> String {
    let Some(step) = op.steps.get(at) else {
        return String::new();
    };
    #[allow(clippy::cast_precision_loss)]
    let seconds = (step.time_unix_ms - op.created_unix_ms).max(0) as f64 / 1000.0;
    format!("{seconds:>7.3} s  {}", clean(&step.text))
}

/// How it ended: `done in 0.19 s`, `done: writes paused for 0.19 s`, `failed: …`.
pub fn end_line(op: &Operation) -> String {
    let took = units::took(op.finished_unix_ms - op.created_unix_ms);
    match op.state() {
        OperationState::Succeeded if !op.result.is_empty() => format!("done: {}", clean(&op.result)),
        OperationState::Succeeded => format!("done in {took}"),
        OperationState::Failed => format!("failed after {took}: {}", clean(&op.error)),
        OperationState::Cancelled => format!("cancelled after {took}"),
        other => other.word().to_owned(),
    }
}

impl OperationView {
    /// Everything about it, for people.
    pub fn report(&self, now: i64, colour: bool) -> String {
        let op = &self.raw;
        let mut text = format!(
            "{}   {}\n",
            head(op),
            state_tone(op.state()).paint(op.state().word(), colour)
        );
        text.push_str(&format!(
            "by {}, {} ({})",
            clean(&op.actor),
            units::local(op.created_unix_ms),
            units::ago(op.created_unix_ms, now)
        ));
        if !op.reason.is_empty() {
            text.push_str(&format!(": {}", clean(&op.reason)));
        }
        text.push('\n');
        for at in 0..op.steps.len() {
            text.push_str(&step_line(op, at));
            text.push('\n');
        }
        if op.state().is_final() {
            text.push_str(&end_line(op));
            text.push('\n');
        }
        text
    }
}

impl View for OperationView {
    const KIND: &'static str = "op";
    const COLUMNS: &'static [Column] = &[
        col("ID"),
        col("KIND"),
        col("SUBJECT"),
        col("STATE"),
        col("STARTED"),
        col("TOOK"),
        col("BY"),
        wide("REASON"),
        col("LAST"),
    ];

    fn name(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, now: i64) -> Vec<Cell> {
        let op = &self.raw;
        let end = if op.finished_unix_ms > 0 {
            op.finished_unix_ms
        } else {
            now
        };
        let last = if op.error.is_empty() {
            op.steps.last().map_or("", |s| &s.text)
        } else {
            &op.error
        };
        vec![
            Cell::new(&op.id),
            Cell::new(&op.kind),
            Cell::new(&op.subject),
            Cell::new(op.state().word()).tone(state_tone(op.state())),
            Cell::new(units::ago(op.created_unix_ms, now)).key(-op.created_unix_ms),
            Cell::new(units::took(end - op.created_unix_ms)).key(end - op.created_unix_ms),
            Cell::new(&op.actor),
            Cell::new(&op.reason),
            Cell::new(last),
        ]
    }
}
