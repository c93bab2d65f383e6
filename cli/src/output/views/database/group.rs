//! A group: what its record says, what its instances say, and what to know where the two differ.

use std::fmt::Write as _;

use ha_proto::database::lsn;
use ha_proto::v1::{Group, GroupHealth, GroupPhase};
use serde::Serialize;

use super::history::HistoryView;
use super::instance::{self, InstanceView};
use super::spec::{PauseView, Spec};
use crate::output::table::{Cell, Tone, clean};
use crate::output::units;
use crate::output::{Column, View, col, wide};

/// A group, as hactl shows it.
#[derive(Debug, Clone, Serialize)]
pub struct GroupView {
    name: String,
    spec: Spec,
    status: Status,
    #[serde(skip)]
    raw: Box<Group>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    health: &'static str,
    problems: Vec<String>,
    primary: Option<String>,
    epoch: u64,
    phase: &'static str,
    phase_since: Option<String>,
    reason: String,
    term: u64,
    timeline: u32,
    /// A string: readers of JSON lose digits of a number that large.
    system_id: Option<String>,
    rules: Vec<RuleView>,
    applying: u64,
    degraded: Option<String>,
    lineage: Vec<BranchView>,
    granters: Vec<String>,
    switching_to: Option<String>,
    instances: Vec<InstanceView>,
    proxies: Vec<ProxyView>,
    why_no_failover: Vec<String>,
    last_change: Option<HistoryView>,
    last_failover_at: Option<String>,
    last_failover_gap_ms: Option<u64>,
    pause: Option<PauseView>,
    operation_id: Option<String>,
    revision: u64,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct RuleView {
    id: u64,
    need: u32,
    voters: Vec<String>,
    primaries: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct BranchView {
    epoch: u64,
    timeline: u32,
    fork_lsn: String,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct ProxyView {
    node: String,
    address: Option<String>,
    standby_address: Option<String>,
    connections: u32,
    waiting: u32,
    error: Option<String>,
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|t| !t.is_empty())
}

impl From<&Group> for GroupView {
    fn from(group: &Group) -> Self {
        let record = group.record.clone().unwrap_or_default();
        let spec = group.spec.clone().unwrap_or_default();
        let failed_over = group.last_failover_unix_ms > 0;
        let status = Status {
            health: group.health().word(),
            problems: group.problems.clone(),
            primary: some(&record.primary),
            epoch: record.epoch,
            phase: record.phase().word(),
            phase_since: units::moment(record.since_unix_ms),
            reason: record.reason.clone(),
            term: record.term,
            timeline: record.timeline,
            system_id: (record.system_id > 0).then(|| record.system_id.to_string()),
            rules: record
                .rules
                .iter()
                .map(|r| RuleView {
                    id: r.id,
                    need: r.need,
                    voters: r.voters.clone(),
                    primaries: r.primaries.clone(),
                })
                .collect(),
            applying: record.applying,
            degraded: some(&record.degraded),
            lineage: record
                .lineage
                .iter()
                .map(|b| BranchView {
                    epoch: b.epoch,
                    timeline: b.timeline,
                    fork_lsn: lsn(b.fork_lsn),
                })
                .collect(),
            granters: record.granters.clone(),
            switching_to: some(&record.switching_to),
            instances: group.instances.iter().map(InstanceView::from).collect(),
            proxies: group
                .proxies
                .iter()
                .map(|p| ProxyView {
                    node: p.node.clone(),
                    address: some(&p.address),
                    standby_address: some(&p.standby_address),
                    connections: p.connections,
                    waiting: p.waiting,
                    error: some(&p.error),
                })
                .collect(),
            why_no_failover: group.why_no_failover.clone(),
            last_change: group.last_change.as_ref().map(HistoryView::from),
            last_failover_at: units::moment(group.last_failover_unix_ms),
            last_failover_gap_ms: failed_over.then_some(group.last_failover_gap_ms),
            pause: spec.pause.as_ref().filter(|p| p.on).map(PauseView::from),
            operation_id: some(&group.operation_id),
            revision: group.revision,
        };
        Self {
            name: group.name.clone(),
            spec: Spec::from(&spec),
            status,
            raw: Box::new(group.clone()),
        }
    }
}

/// The tone of a group's health.
pub fn health_tone(health: GroupHealth) -> Tone {
    match health {
        GroupHealth::Healthy => Tone::Good,
        GroupHealth::Degraded => Tone::Warning,
        GroupHealth::NoPrimary | GroupHealth::Unspecified => Tone::Bad,
    }
}

/// `quorum ANY 1 of (n2, n3)`, while joint the rule that is being left as well.
pub fn durability(group: &Group) -> String {
    let wanted = group.spec.as_ref().map_or(
        ha_proto::v1::Durability::Unspecified,
        ha_proto::v1::GroupSpec::durability,
    );
    let record = group.record.clone().unwrap_or_default();
    let Some(rule) = record.rule() else {
        return wanted.word().to_owned();
    };
    let leaving: Vec<String> = record
        .rules
        .iter()
        .filter(|r| r.id != rule.id)
        .map(ha_proto::v1::DurabilityRule::text)
        .collect();
    let leaving = match leaving.as_slice() {
        [] => String::new(),
        all => format!(", leaving {}", all.join(" and ")),
    };
    format!("{} {}{leaving}", wanted.word(), rule.text())
}

/// How far the group's standbys are behind: the worst of those that are known. None where there is no standby that is.
fn worst(group: &Group, now: i64) -> Option<u64> {
    let known = group
        .instances
        .iter()
        .filter(|i| !i.wanted_primary && instance::fresh(i, now));
    known.filter_map(|i| i.behind_bytes).max()
}

fn streaming(group: &Group, now: i64) -> usize {
    let streams = |i: &&ha_proto::v1::Instance| {
        !i.wanted_primary && i.state() == ha_proto::v1::InstanceState::Streaming && instance::fresh(i, now)
    };
    group.instances.iter().filter(streams).count()
}

/// One line of all, as `cluster status` has it: `main: primary n1, 2 standbys streaming, quorum ANY 1 of 2, 0 B behind`.
pub fn summary(group: &Group, now: i64) -> String {
    let record = group.record.clone().unwrap_or_default();
    let primary = match (record.primary.as_str(), record.phase()) {
        ("", GroupPhase::New) => "no primary yet".to_owned(),
        ("", phase) => format!("no primary ({})", phase.word()),
        (primary, GroupPhase::Steady) => format!("primary {}", clean(primary)),
        (primary, phase) => format!("{} {}", phase.word(), clean(primary)),
    };
    let rule = record.rule().map_or_else(String::new, |rule| match rule.need {
        0 => ", commits wait for no standby".to_owned(),
        need => format!(", quorum ANY {need} of {}", rule.voters.len()),
    });
    let behind = worst(group, now).map_or_else(String::new, |bytes| format!(", {} behind", units::bytes(bytes)));
    let standbys = units::count(streaming(group, now), "standby");
    if record.primary.is_empty() {
        return format!("{}: {primary}, {standbys} streaming", clean(&group.name));
    }
    format!("{}: {primary}, {standbys} streaming{rule}{behind}", clean(&group.name))
}

/// The first line of a group's report.
fn head(group: &Group, now: i64, colour: bool) -> String {
    let record = group.record.clone().unwrap_or_default();
    let primary = match record.primary.as_str() {
        "" => Tone::Bad.paint("no primary", colour),
        name if record.phase() == GroupPhase::Steady => format!("primary {}", clean(name)),
        name => Tone::Warning.paint(&format!("primary {} ({})", clean(name), record.phase().word()), colour),
    };
    let failover = match group.last_failover_unix_ms {
        0 => "no failover yet".to_owned(),
        at => format!(
            "last failover {}, {}",
            units::ago(at, now),
            units::took(i64::try_from(group.last_failover_gap_ms).unwrap_or(i64::MAX))
        ),
    };
    format!(
        "group {}   {primary}   epoch {}   timeline {}   {}   {failover}\n",
        clean(&group.name),
        record.epoch,
        record.timeline,
        clean(&durability(group)),
    )
}

/// Everything worth knowing beside the table, each line only where there is something to say.
fn notes(group: &Group, now: i64, colour: bool) -> String {
    let record = group.record.clone().unwrap_or_default();
    let mut text = String::new();
    let mut line = |head: &str, tone: Tone, value: &str| {
        let _ = writeln!(text, "{head:<16}{}", tone.paint(&clean(value), colour));
    };
    let mut lines = |head: &str, tone: Tone, values: &[String]| {
        for (i, value) in values.iter().enumerate() {
            line(if i == 0 { head } else { "" }, tone, value);
        }
    };
    lines("problems", health_tone(group.health()), &group.problems);
    if record.phase() != GroupPhase::Steady && !record.reason.is_empty() {
        let since = units::since(record.since_unix_ms, now);
        lines(
            "phase",
            Tone::Warning,
            &[format!("{} for {since}: {}", record.phase().word(), record.reason)],
        );
    }
    let degraded: Vec<String> = some(&record.degraded).into_iter().collect();
    lines("degraded", Tone::Warning, &degraded);
    let of_each = |say: &dyn Fn(&ha_proto::v1::Instance) -> Vec<String>| -> Vec<String> {
        let told = group
            .instances
            .iter()
            .flat_map(|i| say(i).into_iter().map(move |t| format!("{}: {t}", i.node)));
        told.collect()
    };
    lines(
        "waiting",
        Tone::Plain,
        &of_each(&|i| some(&i.waits_for).into_iter().collect()),
    );
    lines(
        "doing",
        Tone::Plain,
        &of_each(&|i| some(&i.detail).into_iter().collect()),
    );
    lines("errors", Tone::Bad, &of_each(&|i| i.errors.clone()));
    lines(
        "held down",
        Tone::Warning,
        &of_each(&|i| match i.held_until_unix_ms {
            until if until > now => vec![format!(
                "not made primary for {}: {}",
                units::span(until - now),
                i.held_because
            )],
            _ => Vec::new(),
        }),
    );
    lines("no failover", Tone::Plain, &group.why_no_failover);
    lines(
        "restart pending",
        Tone::Warning,
        &of_each(&|i| {
            let each = i.pending_restart.iter();
            each.map(|p| format!("{} {} -> {}", p.parameter, p.current, p.wanted))
                .collect()
        }),
    );
    lines(
        "proxy",
        Tone::Bad,
        &group
            .proxies
            .iter()
            .filter(|p| !p.error.is_empty())
            .map(|p| format!("{}: {}", p.node, p.error))
            .collect::<Vec<_>>(),
    );
    if let Some(pause) = group.spec.as_ref().and_then(|s| s.pause.as_ref()).filter(|p| p.on) {
        let until = match pause.until_unix_ms {
            0 => String::new(),
            at => format!(", ends {}", units::until(at, now)),
        };
        let why = some(&pause.reason).map(|r| format!(": {r}")).unwrap_or_default();
        lines(
            "paused",
            Tone::Warning,
            &[format!("by {}{until}{why}; nothing is done by itself", pause.actor)],
        );
    }
    if !group.operation_id.is_empty() {
        lines(
            "operation",
            Tone::Plain,
            &[format!("{} is under way: hactl op wait {0}", group.operation_id)],
        );
    }
    text
}

/// The group for people, around the table of its instances.
pub fn report(group: &Group, table: &str, now: i64, colour: bool) -> String {
    let notes = notes(group, now, colour);
    let gap = if notes.is_empty() { "" } else { "\n" };
    format!("{}\n{table}{gap}{notes}", head(group, now, colour))
}

impl View for GroupView {
    const KIND: &'static str = "db";
    const COLUMNS: &'static [Column] = &[
        col("NAME"),
        col("HEALTH"),
        col("PRIMARY"),
        wide("PHASE"),
        col("EPOCH"),
        wide("TIMELINE"),
        col("STREAMING"),
        col("BEHIND"),
        col("DURABILITY"),
        col("FAILOVER"),
        wide("VERSION"),
        wide("PROXIES"),
        wide("REVISION"),
    ];

    fn name(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, now: i64) -> Vec<Cell> {
        let group = &*self.raw;
        let record = group.record.clone().unwrap_or_default();
        let standbys = group.instances.iter().filter(|i| !i.wanted_primary).count();
        let streaming = streaming(group, now);
        let worst = worst(group, now);
        let version = group
            .instances
            .iter()
            .find(|i| i.wanted_primary)
            .map_or("", |i| &i.version);
        let listening = group.proxies.iter().filter(|p| p.error.is_empty()).count();
        vec![
            Cell::new(&group.name),
            Cell::new(group.health().word()).tone(health_tone(group.health())),
            Cell::new(&record.primary),
            Cell::new(record.phase().word()),
            Cell::new(record.epoch.to_string()).key(record.epoch),
            Cell::new(record.timeline.to_string()).key(record.timeline),
            Cell::new(format!("{streaming}/{standbys}"))
                .key(i128::try_from(streaming).unwrap_or(0))
                .tone(if streaming < standbys {
                    Tone::Warning
                } else {
                    Tone::Plain
                }),
            Cell::new(worst.map_or_else(|| "-".to_owned(), units::bytes)).key(worst.map_or(-1, i128::from)),
            Cell::new(durability(group)),
            Cell::new(units::ago(group.last_failover_unix_ms, now)).key(-group.last_failover_unix_ms),
            Cell::new(version),
            Cell::new(format!("{listening}/{}", group.proxies.len())),
            Cell::new(group.revision.to_string()).key(group.revision),
        ]
    }
}
