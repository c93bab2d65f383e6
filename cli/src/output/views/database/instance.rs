//! An instance of a group: what is wanted of it beside what it reports, and how old the report is.

use ha_proto::database::lsn;
use ha_proto::v1::{Instance, InstanceState};
use serde::Serialize;

use crate::output::table::{Cell, Tone};
use crate::output::units;
use crate::output::{Column, View, col, wide};

/// From this age on a report says how it was, not how it is.
pub const OLD_MS: i64 = 3_000;

/// An instance, as hactl shows it. Its name is its node.
#[derive(Debug, Clone, Serialize)]
pub struct InstanceView {
    name: String,
    spec: Spec,
    status: Status,
    #[serde(skip)]
    raw: Box<Instance>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    role: &'static str,
    priority: u32,
    chosen: bool,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    wanted: &'static str,
    reported: &'static str,
    state: &'static str,
    detail: String,
    reported_at: Option<String>,
    voter: bool,
    timeline: u32,
    lsn: Option<String>,
    behind_bytes: Option<u64>,
    behind_ms: Option<u64>,
    sync: &'static str,
    lease_left_ms: Option<i64>,
    upstream: Option<String>,
    waits_for: Option<String>,
    not_eligible: Vec<String>,
    held_until: Option<String>,
    held_because: Option<String>,
    pending_restart: Vec<PendingView>,
    address: String,
    version: String,
    data_bytes: u64,
    wal_bytes: u64,
    connections: u32,
    errors: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct PendingView {
    parameter: String,
    current: String,
    wanted: String,
}

fn role(primary: bool) -> &'static str {
    if primary { "primary" } else { "standby" }
}

/// What it reports to be: empty where it never did.
fn reported(instance: &Instance) -> &'static str {
    match instance.reported_unix_ms {
        0 => "unknown",
        _ => role(instance.reported_primary),
    }
}

impl From<&Instance> for InstanceView {
    fn from(i: &Instance) -> Self {
        let some = |text: &String| Some(text.clone()).filter(|t| !t.is_empty());
        let pending = |p: &ha_proto::v1::PendingRestart| PendingView {
            parameter: p.parameter.clone(),
            current: p.current.clone(),
            wanted: p.wanted.clone(),
        };
        Self {
            name: i.node.clone(),
            spec: Spec {
                role: i.role().word(),
                priority: i.priority,
                chosen: i.chosen,
            },
            status: Status {
                wanted: role(i.wanted_primary),
                reported: reported(i),
                state: i.state().word(),
                detail: i.detail.clone(),
                reported_at: units::moment(i.reported_unix_ms),
                voter: i.voter,
                timeline: i.timeline,
                lsn: (i.lsn > 0).then(|| lsn(i.lsn)),
                behind_bytes: i.behind_bytes,
                behind_ms: i.behind_ms,
                sync: match i.sync() {
                    ha_proto::v1::SyncState::Unspecified => "none",
                    other => other.word(),
                },
                lease_left_ms: i.lease_left_ms,
                upstream: some(&i.upstream),
                waits_for: some(&i.waits_for),
                not_eligible: i.not_eligible.clone(),
                held_until: units::moment(i.held_until_unix_ms),
                held_because: some(&i.held_because),
                pending_restart: i.pending_restart.iter().map(pending).collect(),
                address: i.address.clone(),
                version: i.version.clone(),
                data_bytes: i.data_bytes,
                wal_bytes: i.wal_bytes,
                connections: i.connections,
                errors: i.errors.clone(),
            },
            raw: Box::new(i.clone()),
        }
    }
}

/// Age of what is known of an instance, in milliseconds; none if it never reported.
pub fn age(instance: &Instance, now: i64) -> Option<i64> {
    (instance.reported_unix_ms > 0).then(|| (now - instance.reported_unix_ms).max(0))
}

/// Whether what is known of an instance is how it is.
pub fn fresh(instance: &Instance, now: i64) -> bool {
    age(instance, now).is_some_and(|age| age < OLD_MS)
}

/// The tone of what an instance does.
pub fn state_tone(instance: &Instance) -> Tone {
    use InstanceState as S;
    match instance.state() {
        S::Running if instance.wanted_primary => Tone::Good,
        S::Streaming if !instance.wanted_primary => Tone::Good,
        // A former primary that still runs is worse than one that is gone.
        S::Running | S::Failed | S::Stopped | S::Disconnected | S::Unspecified => Tone::Bad,
        S::Streaming
        | S::Empty
        | S::Starting
        | S::Closed
        | S::CatchingUp
        | S::Sealed
        | S::Promoting
        | S::Rewinding
        | S::Copying
        | S::Initialising
        | S::Stopping => Tone::Warning,
    }
}

/// `standby, streaming`, and of an old report how old it is.
pub fn reported_text(instance: &Instance, now: i64) -> String {
    let said = format!("{}, {}", role(instance.reported_primary), instance.state().word());
    match age(instance, now) {
        None => "unknown, never reported".to_owned(),
        Some(age) if age < OLD_MS => said,
        Some(age) => format!("unknown ({} ago: {said})", units::span(age / 1000 * 1000)),
    }
}

/// `3.1 s`; `-` for none.
pub fn seconds(ms: Option<i64>) -> String {
    ms.map_or_else(
        || "-".to_owned(),
        |ms| {
            let ms = ms.max(0);
            format!("{}.{} s", ms / 1000, ms % 1000 / 100)
        },
    )
}

/// Behind the primary: `0 B`, `48 MiB`; `-` of the primary, `?` where it cannot be known.
pub fn behind(instance: &Instance, now: i64) -> String {
    match instance.behind_bytes {
        _ if instance.wanted_primary => "-".to_owned(),
        Some(bytes) if fresh(instance, now) => units::bytes(bytes),
        _ => "?".to_owned(),
    }
}

impl View for InstanceView {
    const KIND: &'static str = "instance";
    const COLUMNS: &'static [Column] = &[
        col("NODE"),
        col("WANTED"),
        col("REPORTED"),
        col("TL"),
        col("LSN"),
        col("BEHIND"),
        wide("TIME"),
        col("SYNC"),
        col("LEASE"),
        wide("ASSIGNED"),
        wide("PRIORITY"),
        wide("ADDRESS"),
        wide("VERSION"),
        wide("DATA"),
        wide("WAL"),
        wide("CLIENTS"),
        wide("UPSTREAM"),
    ];

    fn name(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, now: i64) -> Vec<Cell> {
        let i = &*self.raw;
        let fresh = fresh(i, now);
        let known = |text: String| if fresh { text } else { "?".to_owned() };
        let tone = if fresh { state_tone(i) } else { Tone::Bad };
        let behind_key = i.behind_bytes.filter(|_| fresh).map_or(-1, i128::from);
        let size = |bytes: u64| {
            if bytes == 0 {
                "-".to_owned()
            } else {
                units::bytes(bytes)
            }
        };
        let assigned = if i.chosen {
            format!("{} (chosen)", i.role().word())
        } else {
            i.role().word().to_owned()
        };
        vec![
            Cell::new(&i.node),
            Cell::new(role(i.wanted_primary)).tone(if i.wanted_primary { Tone::Strong } else { Tone::Plain }),
            Cell::new(reported_text(i, now)).tone(tone),
            Cell::new(known(if i.timeline == 0 {
                "-".into()
            } else {
                i.timeline.to_string()
            }))
            .key(i.timeline),
            Cell::new(known(if i.lsn == 0 { "-".into() } else { lsn(i.lsn) })).key(i.lsn),
            Cell::new(behind(i, now)).key(behind_key),
            Cell::new(match i.behind_ms {
                _ if i.wanted_primary => "-".to_owned(),
                Some(ms) if fresh => units::span(i64::try_from(ms).unwrap_or(i64::MAX)),
                _ => "?".to_owned(),
            })
            .key(i.behind_ms.map_or(-1, i128::from)),
            Cell::new(if fresh { i.sync().word() } else { "-" }),
            Cell::new(if fresh { seconds(i.lease_left_ms) } else { "-".into() })
                .key(i.lease_left_ms.map_or(-1, i128::from)),
            Cell::new(assigned),
            Cell::new(i.priority.to_string()).key(i.priority),
            Cell::new(&i.address),
            Cell::new(&i.version),
            Cell::new(size(i.data_bytes)).key(i.data_bytes),
            Cell::new(size(i.wal_bytes)).key(i.wal_bytes),
            Cell::new(i.connections.to_string()).key(i.connections),
            Cell::new(&i.upstream),
        ]
    }
}
