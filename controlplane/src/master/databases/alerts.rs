//! Conditions of groups that an administrator is told of, each under a stable id.

use ha_core::Severity;
use ha_core::alert::Alert;
use ha_proto::v1;

use super::super::Master;

/// A pause that ends within this time is told, in milliseconds.
const ENDING_MS: i64 = 10 * 60 * 1000;

impl Master<'_> {
    /// The conditions of all groups.
    pub(in crate::master) fn database_alerts(&self) -> Vec<Alert> {
        let wall = self.wall_ms();
        self.shown_groups().flat_map(|g| of_group(g, wall)).collect()
    }
}

fn of_group(g: &v1::Group, wall_ms: i64) -> Vec<Alert> {
    let subject = format!("db/{}", g.name);
    let mut alerts = Vec::new();
    let mut raise = |what: String, severity, text: String, hint: String| {
        alerts.push(Alert {
            id: format!("{subject}/{what}"),
            severity,
            subject: subject.clone(),
            text,
            hint,
        });
    };
    let name = &g.name;
    let explain = format!("hactl db explain --group {name}");
    // A damaged value has an alert of its own.
    let record = g.record.clone().unwrap_or_default();
    if g.health() == v1::GroupHealth::NoPrimary {
        let why = g.why_no_failover.first().or(g.problems.first());
        let why = why.map_or(String::new(), |w| format!(": {w}"));
        raise(
            "primary".into(),
            Severity::Error,
            format!("group {name} has no primary that takes writes{why}"),
            explain.clone(),
        );
    }
    if !record.degraded.is_empty() {
        raise(
            "degraded".into(),
            Severity::Error,
            format!("group {name}: commits are on the primary alone: {}", record.degraded),
            "bring a standby back, or assign another: hactl db assign NODE --role sync".into(),
        );
    }
    for problem in g.problems.iter().filter(|p| p.contains("is stuck for")) {
        raise(
            "joint".into(),
            Severity::Warning,
            format!("group {name}: {}", problem.split(" for ").next().unwrap_or(problem)),
            explain.clone(),
        );
    }
    for problem in g.problems.iter().filter(|p| p.contains("instances are missing")) {
        raise(
            "missing".into(),
            Severity::Warning,
            format!("group {name}: {problem}"),
            "hactl db assign NODE --role sync".into(),
        );
    }
    let quiet = matches!(record.phase(), v1::GroupPhase::New | v1::GroupPhase::Bootstrapping);
    for i in &g.instances {
        let node = &i.node;
        let status = format!("hactl db status --group {name}");
        match i.state() {
            _ if quiet => {}
            v1::InstanceState::Failed => raise(
                format!("instance/{node}"),
                Severity::Error,
                format!("group {name}: the instance on {node} fails: {}", i.detail),
                format!("journalctl -u 'had-guard@*' on {node}, or: hactl db reinit {node}"),
            ),
            v1::InstanceState::Unspecified
            | v1::InstanceState::Empty
            | v1::InstanceState::Stopped
            | v1::InstanceState::Disconnected
                if !i.wanted_primary =>
            {
                let word = match i.state() {
                    v1::InstanceState::Unspecified => "does not report",
                    v1::InstanceState::Disconnected => "receives nothing",
                    _ => "does not run",
                };
                raise(
                    format!("instance/{node}"),
                    Severity::Warning,
                    match i.detail.as_str() {
                        "" => format!("group {name}: the standby on {node} {word}"),
                        why => format!("group {name}: the standby on {node} {word}: {why}"),
                    },
                    status,
                );
            }
            _ => {}
        }
        if i.held_until_unix_ms > wall_ms {
            raise(
                format!("held/{node}"),
                Severity::Warning,
                format!("group {name}: {node} is not made primary for now: {}", i.held_because),
                explain.clone(),
            );
        }
        if !i.pending_restart.is_empty() {
            let names: Vec<&str> = i.pending_restart.iter().map(|p| p.parameter.as_str()).collect();
            raise(
                format!("restart/{node}"),
                Severity::Info,
                format!("group {name}: {node} has to be restarted for {}", names.join(", ")),
                format!("hactl db restart --group {name} --rolling --pending"),
            );
        }
    }
    if let Some(pause) = g.spec.as_ref().and_then(|s| s.pause.as_ref()).filter(|p| p.on) {
        let ends = pause.until_unix_ms;
        let (severity, text) = if ends == 0 {
            (
                Severity::Warning,
                format!("group {name} is paused without an end: no failover"),
            )
        } else if ends - wall_ms <= ENDING_MS {
            (
                Severity::Info,
                format!("group {name} is paused; the pause is about to end"),
            )
        } else {
            (Severity::Info, format!("group {name} is paused: no failover"))
        };
        raise(
            "pause".into(),
            severity,
            text,
            format!("hactl db resume --group {name}"),
        );
    }
    alerts
}
