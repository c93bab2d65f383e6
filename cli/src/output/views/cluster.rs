//! The cluster as a whole: its state, its alerts, and what the doctor finds.

use ha_proto::v1::{Alert, ClusterState, DoctorCheck, GroupHealth, Maintenance, Master, Severity, ZooKeeperServer};
use serde::Serialize;

use super::database::{GroupView, group};
use super::node::NodeView;
use super::severity_tone;
use crate::health::{Health, Verdict};
use crate::output::table::{Cell, Tone, clean};
use crate::output::units;
use crate::output::{Column, View, col, wide};

/// The cluster, as a document.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterView {
    name: String,
    spec: ClusterSpec,
    status: ClusterStatus,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct ClusterSpec {
    cluster_id: String,
    session_timeout_ms: u64,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct ClusterStatus {
    health: &'static str,
    reasons: Vec<String>,
    master: MasterStatus,
    zookeeper: Vec<ZooKeeperView>,
    nodes: Vec<NodeView>,
    databases: Vec<GroupView>,
    alerts: Vec<AlertView>,
    maintenance: MaintenanceView,
}

/// The master, as a document.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MasterView {
    name: &'static str,
    status: MasterStatus,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct MasterStatus {
    node: Option<String>,
    address: Option<String>,
    term: u64,
    since: Option<String>,
    pinned: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct ZooKeeperView {
    address: String,
    reachable: bool,
    mode: String,
    version: String,
    error: String,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct MaintenanceView {
    on: bool,
    until: Option<String>,
    reason: String,
    actor: String,
}

/// An alert, as hactl shows it. Its name is its id.
#[derive(Debug, Clone, Serialize)]
pub struct AlertView {
    name: String,
    status: AlertStatus,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct AlertStatus {
    severity: &'static str,
    subject: String,
    text: String,
    since: Option<String>,
    hint: String,
}

impl From<&Master> for MasterStatus {
    fn from(master: &Master) -> Self {
        let some = |text: &String| Some(text.clone()).filter(|t| !t.is_empty());
        Self {
            node: some(&master.node),
            address: some(&master.address),
            term: master.term,
            since: units::moment(master.since_unix_ms),
            pinned: some(&master.pinned),
        }
    }
}

impl From<&Master> for MasterView {
    fn from(master: &Master) -> Self {
        Self {
            name: "master",
            status: master.into(),
        }
    }
}

impl From<&ZooKeeperServer> for ZooKeeperView {
    fn from(server: &ZooKeeperServer) -> Self {
        Self {
            address: server.address.clone(),
            reachable: server.reachable,
            mode: server.mode.clone(),
            version: server.version.clone(),
            error: server.error.clone(),
        }
    }
}

impl From<&Maintenance> for MaintenanceView {
    fn from(m: &Maintenance) -> Self {
        Self {
            on: m.on,
            until: units::moment(m.until_unix_ms),
            reason: m.reason.clone(),
            actor: m.actor.clone(),
        }
    }
}

impl From<&Alert> for AlertView {
    fn from(alert: &Alert) -> Self {
        Self {
            name: alert.id.clone(),
            status: AlertStatus {
                severity: alert.severity().word(),
                subject: alert.subject.clone(),
                text: alert.text.clone(),
                since: units::moment(alert.since_unix_ms),
                hint: alert.hint.clone(),
            },
        }
    }
}

impl ClusterView {
    /// The state with what it amounts to.
    pub fn new(state: &ClusterState, health: &Health) -> Self {
        Self {
            name: state.cluster.clone(),
            spec: ClusterSpec {
                cluster_id: state.cluster_id.clone(),
                session_timeout_ms: state.session_timeout_ms,
            },
            status: ClusterStatus {
                health: health.verdict.word(),
                reasons: health.reasons.clone(),
                master: (&state.master.clone().unwrap_or_default()).into(),
                zookeeper: state.zookeeper.iter().map(Into::into).collect(),
                nodes: state.nodes.iter().cloned().map(Into::into).collect(),
                databases: state.databases.iter().map(Into::into).collect(),
                alerts: state.alerts.iter().map(Into::into).collect(),
                maintenance: (&state.maintenance.clone().unwrap_or_default()).into(),
            },
        }
    }
}

/// The tone of a verdict.
pub fn verdict_tone(verdict: Verdict) -> Tone {
    match verdict {
        Verdict::Healthy => Tone::Good,
        Verdict::Degraded => Tone::Warning,
        Verdict::Unhealthy => Tone::Bad,
    }
}

/// `master n2 since 3d 4h (term 412)`.
pub fn master_line(master: &Master, now: i64) -> String {
    if master.node.is_empty() {
        return format!("no master (last term {})", master.term);
    }
    let since = match master.since_unix_ms {
        0 => String::new(),
        at => format!(" since {}", units::since(at, now)),
    };
    format!("master {}{since} (term {})", clean(&master.node), master.term)
}

/// The cluster for people: one line of all, one line each of its parts.
pub fn report(state: &ClusterState, health: &Health, now: i64, colour: bool) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    let master = state.master.clone().unwrap_or_default();
    let reachable = state.zookeeper.iter().filter(|z| z.reachable).count();
    let zookeeper = match state.zookeeper.len() {
        0 => "zookeeper ?".to_owned(),
        all => format!("zookeeper {reachable}/{all}"),
    };
    let _ = writeln!(
        text,
        "cluster {}   {}   {}   {zookeeper}   revision {}\n",
        clean(&state.cluster),
        verdict_tone(health.verdict).paint(health.verdict.word(), colour),
        master_line(&master, now),
        state.revision
    );
    let mut line = |head: &str, value: &str| {
        let _ = writeln!(text, "{head:<11}{value}");
    };
    line("nodes", &node_counts(state, colour));
    for (i, g) in state.databases.iter().enumerate() {
        let summary = group::summary(g, now);
        let healthy = g.health() == GroupHealth::Healthy;
        let tone = if healthy {
            Tone::Plain
        } else {
            group::health_tone(g.health())
        };
        line(if i == 0 { "database" } else { "" }, &tone.paint(&summary, colour));
    }
    if !master.pinned.is_empty() {
        line(
            "pinned",
            &format!("mastership stays on {} while it is online", clean(&master.pinned)),
        );
    }
    if let Some(m) = state.maintenance.as_ref().filter(|m| m.on) {
        let until = if m.until_unix_ms == 0 {
            String::new()
        } else {
            format!(", ends {}", units::until(m.until_unix_ms, now))
        };
        let reason = if m.reason.is_empty() {
            String::new()
        } else {
            format!(": {}", clean(&m.reason))
        };
        line("maintenance", &format!(" on, by {}{until}{reason}", clean(&m.actor)));
    }
    for (i, server) in state.zookeeper.iter().filter(|z| !z.reachable).enumerate() {
        let value = format!("{} not reachable: {}", clean(&server.address), clean(&server.error));
        line(if i == 0 { "zookeeper" } else { "" }, &Tone::Bad.paint(&value, colour));
    }
    if state.alerts.is_empty() {
        line("alerts", "none");
    }
    for (i, alert) in state.alerts.iter().enumerate() {
        let severity = severity_tone(alert.severity()).paint(alert.severity().word(), colour);
        let hint = if alert.hint.is_empty() {
            String::new()
        } else {
            format!("  -> {}", clean(&alert.hint))
        };
        let value = format!("{severity}: {}{hint}", clean(&alert.text));
        line(if i == 0 { "alerts" } else { "" }, &value);
    }
    let untold: Vec<_> = health.untold(state);
    for (i, reason) in untold.iter().enumerate() {
        line(if i == 0 { "because" } else { "" }, &clean(reason));
    }
    text
}

fn node_counts(state: &ClusterState, colour: bool) -> String {
    use ha_proto::v1::NodeState as S;
    let order = [
        S::Online,
        S::Cordoned,
        S::Draining,
        S::Suspect,
        S::Offline,
        S::Pending,
        S::Unspecified,
    ];
    let counts: Vec<String> = order
        .into_iter()
        .filter_map(|wanted| {
            let of: Vec<_> = state
                .nodes
                .iter()
                .filter(|n| {
                    n.status
                        .as_ref()
                        .map_or(S::Unspecified, ha_proto::v1::NodeStatus::state)
                        == wanted
                })
                .map(|n| clean(&n.name))
                .collect();
            let names = if wanted == S::Online || of.len() > 5 {
                String::new()
            } else {
                format!(" ({})", of.join(", "))
            };
            let tone = super::node::state_tone(wanted);
            let text = format!("{} {}{names}", of.len(), wanted.word());
            (!of.is_empty()).then(|| {
                if wanted == S::Online {
                    text
                } else {
                    tone.paint(&text, colour)
                }
            })
        })
        .collect();
    if counts.is_empty() {
        "none".into()
    } else {
        counts.join(", ")
    }
}

/// What the doctor found, as hactl shows it.
#[derive(Debug, Clone, Serialize)]
pub struct CheckView {
    name: String,
    status: CheckStatus,
    #[serde(skip)]
    severity: Severity,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct CheckStatus {
    severity: &'static str,
    text: String,
    hint: String,
}

impl CheckView {
    /// Whether it is fine.
    pub fn severity(&self) -> Severity {
        self.severity
    }
}

impl From<DoctorCheck> for CheckView {
    fn from(check: DoctorCheck) -> Self {
        let severity = check.severity();
        let word = match severity {
            Severity::Info | Severity::Unspecified => "ok",
            other => other.word(),
        };
        Self {
            name: check.name,
            status: CheckStatus {
                severity: word,
                text: check.text,
                hint: check.hint,
            },
            severity,
        }
    }
}

impl View for CheckView {
    const KIND: &'static str = "check";
    const COLUMNS: &'static [Column] = &[col("CHECK"), col("RESULT"), col("FINDING"), wide("HINT")];

    fn name(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, _: i64) -> Vec<Cell> {
        let tone = match self.severity {
            Severity::Info | Severity::Unspecified => Tone::Good,
            other => severity_tone(other),
        };
        let rank: i128 = match self.severity {
            Severity::Error => 0,
            Severity::Warning => 1,
            Severity::Info | Severity::Unspecified => 2,
        };
        vec![
            Cell::new(&self.name),
            Cell::new(self.status.severity).tone(tone).key(rank),
            Cell::new(&self.status.text),
            Cell::new(&self.status.hint),
        ]
    }
}

impl CheckView {
    /// What to do about it; empty if nothing.
    pub fn hint(&self) -> &str {
        &self.status.hint
    }
}
