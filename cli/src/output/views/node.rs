//! A node.

use std::collections::BTreeMap;

use ha_proto::v1::{Node, NodeInstance, NodeSpec, NodeState, NodeStatus, Resources, Role};
use serde::Serialize;

use crate::output::table::{Cell, Tone};
use crate::output::units;
use crate::output::{Column, View, col, wide};

/// A node, as hactl shows it.
#[derive(Debug, Clone, Serialize)]
pub struct NodeView {
    name: String,
    spec: Spec,
    status: Status,
    #[serde(skip)]
    raw: Box<Raw>,
}

#[derive(Debug, Clone)]
struct Raw {
    state: NodeState,
    role: Role,
    last_seen: i64,
    since: i64,
    certificate: i64,
    started: i64,
    revision: u64,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    address: String,
    labels: BTreeMap<String, String>,
    scenarios: Vec<String>,
    capacity_override: Option<ResourcesView>,
    master_eligible: bool,
    master_preference: i32,
    cordoned: bool,
    draining: bool,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    state: &'static str,
    role: &'static str,
    reason: String,
    state_since: Option<String>,
    last_seen: Option<String>,
    usage: Option<UsageView>,
    conditions: Vec<String>,
    restarting: bool,
    registered_address: String,
    http_address: String,
    version: String,
    os: String,
    boot_id: String,
    started_at: Option<String>,
    certificate_expires_at: Option<String>,
    clock_skew_ms: i64,
    databases: Vec<DatabaseView>,
    revision: u64,
}

#[derive(Debug, Clone, Serialize)]
struct DatabaseView {
    group: String,
    role: &'static str,
    state: &'static str,
}

/// Cores, memory and disk.
#[derive(Debug, Clone, Copy, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourcesView {
    cpu_milli: u64,
    memory_bytes: u64,
    disk_bytes: u64,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct UsageView {
    capacity: ResourcesView,
    cpu_used_milli: u64,
    memory_used_bytes: u64,
    disk_used_bytes: u64,
    daemon_rss_bytes: u64,
}

impl From<Resources> for ResourcesView {
    fn from(r: Resources) -> Self {
        Self {
            cpu_milli: r.cpu_milli,
            memory_bytes: r.memory_bytes,
            disk_bytes: r.disk_bytes,
        }
    }
}

impl From<Node> for NodeView {
    fn from(node: Node) -> Self {
        let NodeSpec {
            address,
            labels,
            scenarios,
            capacity_override,
            master_eligible,
            master_preference,
            cordoned,
            draining,
        } = node.spec.unwrap_or_default();
        let status = node.status.unwrap_or_default();
        let raw = Raw {
            state: status.state(),
            role: status.role(),
            last_seen: status.last_seen_unix_ms,
            since: status.state_since_unix_ms,
            certificate: status.certificate_expires_unix_ms,
            started: status.started_unix_ms,
            revision: node.revision,
        };
        let spec = Spec {
            address,
            labels: labels.into_iter().collect(),
            scenarios,
            capacity_override: capacity_override
                .filter(|r| *r != Resources::default())
                .map(ResourcesView::from),
            master_eligible,
            master_preference,
            cordoned,
            draining,
        };
        Self {
            name: node.name,
            spec,
            status: Status::new(status, node.revision),
            raw: Box::new(raw),
        }
    }
}

impl Status {
    fn new(status: NodeStatus, revision: u64) -> Self {
        let (state, role) = (status.state().word(), status.role().word());
        let usage = status.usage.map(|u| UsageView {
            capacity: u.capacity.unwrap_or_default().into(),
            cpu_used_milli: u.cpu_used_milli,
            memory_used_bytes: u.memory_used_bytes,
            disk_used_bytes: u.disk_used_bytes,
            daemon_rss_bytes: u.daemon_rss_bytes,
        });
        Self {
            state,
            role: if role == "-" { "none" } else { role },
            reason: status.reason,
            state_since: units::moment(status.state_since_unix_ms),
            last_seen: units::moment(status.last_seen_unix_ms),
            usage,
            conditions: status.conditions,
            restarting: status.restarting,
            registered_address: status.registered_address,
            http_address: status.http_address,
            version: status.version,
            os: status.os,
            boot_id: status.boot_id,
            started_at: units::moment(status.started_unix_ms),
            certificate_expires_at: units::moment(status.certificate_expires_unix_ms),
            clock_skew_ms: status.clock_skew_ms,
            databases: status.databases.iter().map(DatabaseView::from).collect(),
            revision,
        }
    }
}

impl From<&NodeInstance> for DatabaseView {
    fn from(instance: &NodeInstance) -> Self {
        Self {
            group: instance.group.clone(),
            role: if instance.primary { "primary" } else { "standby" },
            state: instance.state().word(),
        }
    }
}

/// `main primary, stats standby`.
fn databases(databases: &[DatabaseView]) -> String {
    databases
        .iter()
        .map(|d| format!("{} {}", d.group, d.role))
        .collect::<Vec<_>>()
        .join(", ")
}

/// The tone of a node's state.
pub fn state_tone(state: NodeState) -> Tone {
    match state {
        NodeState::Online => Tone::Good,
        NodeState::Suspect | NodeState::Cordoned | NodeState::Draining | NodeState::Pending => Tone::Warning,
        NodeState::Offline => Tone::Bad,
        NodeState::Removed | NodeState::Unspecified => Tone::Dim,
    }
}

/// Labels as they are typed.
pub fn labels(labels: &BTreeMap<String, String>) -> String {
    labels
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect::<Vec<_>>()
        .join(",")
}

/// Whether a node's daemon is there.
fn present(state: NodeState) -> bool {
    matches!(state, NodeState::Online | NodeState::Cordoned | NodeState::Draining)
}

impl NodeView {
    fn usage(&self) -> Option<&UsageView> {
        self.status.usage.as_ref().filter(|_| present(self.raw.state))
    }

    /// What counts for placing: the override where there is one.
    fn capacity(&self) -> ResourcesView {
        let measured = self.status.usage.as_ref().map(|u| u.capacity).unwrap_or_default();
        let wanted = self.spec.capacity_override.unwrap_or_default();
        let pick = |wanted: u64, measured: u64| if wanted > 0 { wanted } else { measured };
        ResourcesView {
            cpu_milli: pick(wanted.cpu_milli, measured.cpu_milli),
            memory_bytes: pick(wanted.memory_bytes, measured.memory_bytes),
            disk_bytes: pick(wanted.disk_bytes, measured.disk_bytes),
        }
    }

    fn seen(&self, now: i64) -> String {
        let seen = units::ago(self.raw.last_seen, now);
        if self.status.restarting {
            return format!("{seen}: restarting");
        }
        let seen = if present(self.raw.state) && self.raw.last_seen != 0 && now - self.raw.last_seen < 5_000 {
            "now".to_owned()
        } else {
            seen
        };
        if self.status.reason.is_empty() {
            seen
        } else {
            format!("{seen}: {}", self.status.reason)
        }
    }

    /// Everything about the node, a line each, as (what, value).
    pub fn lines(&self, now: i64) -> Vec<(&'static str, String, Tone)> {
        let plain = |what, value: String| (what, value, Tone::Plain);
        let list = |items: &[String]| if items.is_empty() { "-".into() } else { items.join(", ") };
        let since = match self.raw.since {
            0 => String::new(),
            at => format!(" since {} ({})", units::since(at, now), units::local(at)),
        };
        let capacity = self.capacity();
        let mut lines = vec![(
            "state",
            format!("{}{since}", self.status.state),
            state_tone(self.raw.state),
        )];
        if !self.status.reason.is_empty() {
            lines.push(plain("reason", self.status.reason.clone()));
        }
        lines.push(plain("role", self.status.role.to_owned()));
        lines.push(plain("address", self.spec.address.clone()));
        if !self.status.registered_address.is_empty() && self.status.registered_address != self.spec.address {
            lines.push(("registered", self.status.registered_address.clone(), Tone::Warning));
        }
        lines.push(plain("http", self.status.http_address.clone()));
        lines.push(plain("labels", labels(&self.spec.labels)));
        lines.push(plain("scenarios", list(&self.spec.scenarios)));
        let master = match (self.spec.master_eligible, self.spec.master_preference) {
            (false, _) => "not eligible".to_owned(),
            (true, 0) => "eligible".to_owned(),
            (true, preference) => format!("eligible, preference {preference}"),
        };
        lines.push(plain("master", master));
        let overridden = |is: bool| if is { " (set by an operator)" } else { "" };
        let wanted = self.spec.capacity_override.unwrap_or_default();
        if let Some(usage) = self.usage() {
            lines.push(plain(
                "cpu",
                format!(
                    "{}{}",
                    units::cores_of(usage.cpu_used_milli, capacity.cpu_milli).trim_start(),
                    overridden(wanted.cpu_milli > 0)
                ),
            ));
            lines.push(plain(
                "memory",
                format!(
                    "{}{}",
                    units::bytes_of(usage.memory_used_bytes, capacity.memory_bytes),
                    overridden(wanted.memory_bytes > 0)
                ),
            ));
            lines.push(plain(
                "disk",
                format!(
                    "{}{}",
                    units::bytes_of(usage.disk_used_bytes, capacity.disk_bytes),
                    overridden(wanted.disk_bytes > 0)
                ),
            ));
            lines.push(plain(
                "daemon",
                format!("{} resident", units::bytes(usage.daemon_rss_bytes)),
            ));
        }
        for d in &self.status.databases {
            lines.push(plain("database", format!("{} {}, {}", d.group, d.role, d.state)));
        }
        lines.push(plain("seen", self.seen(now)));
        lines.push(plain("version", self.status.version.clone()));
        lines.push(plain("system", self.status.os.clone()));
        lines.push(plain(
            "started",
            match self.raw.started {
                0 => "-".into(),
                at => format!("{} ({})", units::local(at), units::ago(at, now)),
            },
        ));
        lines.push(plain("boot id", self.status.boot_id.clone()));
        if self.raw.certificate != 0 {
            let left = units::until(self.raw.certificate, now);
            let tone = if self.raw.certificate - now < 14 * 86_400_000 {
                Tone::Warning
            } else {
                Tone::Plain
            };
            lines.push((
                "certificate",
                format!("expires {} ({left})", units::local(self.raw.certificate)),
                tone,
            ));
        }
        lines.push(plain(
            "clock",
            format!("{} ms off the master's", self.status.clock_skew_ms),
        ));
        for condition in &self.status.conditions {
            lines.push(("condition", condition.clone(), Tone::Warning));
        }
        lines.push(plain("revision", self.raw.revision.to_string()));
        lines.retain(|(_, value, _)| !value.is_empty());
        lines
    }
}

impl View for NodeView {
    const KIND: &'static str = "node";
    const COLUMNS: &'static [Column] = &[
        col("NAME"),
        col("STATE"),
        col("ROLE"),
        col("ADDRESS"),
        col("CPU"),
        col("MEMORY"),
        wide("DISK"),
        col("DATABASE"),
        col("LABELS"),
        wide("SCENARIOS"),
        wide("MASTER"),
        wide("VERSION"),
        wide("CERTIFICATE"),
        wide("SINCE"),
        col("SEEN"),
    ];

    fn name(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, now: i64) -> Vec<Cell> {
        let capacity = self.capacity();
        let usage = self.usage();
        let role = Cell::new(self.status.role);
        let eligible = match (self.spec.master_eligible, self.spec.master_preference) {
            (false, _) => "no".to_owned(),
            (true, 0) => "eligible".to_owned(),
            (true, preference) => format!("preference {preference}"),
        };
        let dash = || "-".to_owned();
        vec![
            Cell::new(&self.name),
            Cell::new(self.status.state).tone(state_tone(self.raw.state)),
            if self.raw.role == Role::Master {
                role.tone(Tone::Strong)
            } else {
                role
            },
            Cell::new(&self.spec.address),
            Cell::new(usage.map_or_else(dash, |u| units::cores_of(u.cpu_used_milli, capacity.cpu_milli))).key(
                usage.map_or(-1, |u| {
                    i128::from(u.cpu_used_milli) * 1_000_000 / i128::from(capacity.cpu_milli.max(1))
                }),
            ),
            Cell::new(usage.map_or_else(dash, |u| units::bytes_of(u.memory_used_bytes, capacity.memory_bytes)))
                .key(usage.map_or(-1, |u| i128::from(u.memory_used_bytes))),
            Cell::new(usage.map_or_else(dash, |u| units::bytes_of(u.disk_used_bytes, capacity.disk_bytes)))
                .key(usage.map_or(-1, |u| i128::from(u.disk_used_bytes))),
            Cell::new(databases(&self.status.databases)),
            Cell::new(labels(&self.spec.labels)),
            Cell::new(self.spec.scenarios.join(",")),
            Cell::new(eligible),
            Cell::new(&self.status.version),
            Cell::new(match self.raw.certificate {
                0 => dash(),
                at => units::until(at, now),
            })
            .key(self.raw.certificate),
            Cell::new(units::ago(self.raw.since, now)).key(-self.raw.since),
            Cell::new(self.seen(now)).key(-self.raw.last_seen),
        ]
    }

    fn labels(&self) -> Option<&BTreeMap<String, String>> {
        Some(&self.spec.labels)
    }
}
