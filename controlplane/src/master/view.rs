//! From stored records and observations to what the API shows.

use ha_core::database::RoleWanted;
use ha_core::{self as core, Change, DatabaseOperation, OperationKind, OperationRecord, Presence, UserRecord};
use ha_proto::v1;

/// Shows a severity.
pub fn severity(s: core::Severity) -> v1::Severity {
    match s {
        core::Severity::Info => v1::Severity::Info,
        core::Severity::Warning => v1::Severity::Warning,
        core::Severity::Error => v1::Severity::Error,
    }
}

/// Shows an entry of the change log.
pub fn change(c: &Change) -> v1::Change {
    let json = |v: &serde_json::Value| if v.is_null() { String::new() } else { v.to_string() };
    v1::Change {
        seq: c.seq,
        time_unix_ms: c.time_ms,
        kind: c.kind.clone(),
        subject: c.subject.clone(),
        severity: severity(c.severity).into(),
        text: c.text.clone(),
        before: json(&c.before),
        after: json(&c.after),
        cause: c.cause.clone(),
        actor: c.actor.clone(),
        term: c.term,
    }
}

/// Shows amounts.
pub fn resources(r: &core::Resources) -> v1::Resources {
    v1::Resources {
        cpu_milli: r.cpu_milli,
        memory_bytes: r.memory,
        disk_bytes: r.disk,
    }
}

/// Reads amounts.
pub fn from_resources(r: &v1::Resources) -> core::Resources {
    core::Resources {
        cpu_milli: r.cpu_milli,
        memory: r.memory_bytes,
        disk: r.disk_bytes,
    }
}

/// Shows a specification.
pub fn spec(s: &core::NodeSpec) -> v1::NodeSpec {
    v1::NodeSpec {
        address: s.address.clone(),
        labels: s.labels.clone(),
        scenarios: s.scenarios.iter().cloned().collect(),
        capacity_override: (s.capacity_override != core::Resources::default()).then(|| resources(&s.capacity_override)),
        master_eligible: s.master_eligible,
        master_preference: s.master_preference,
        cordoned: s.cordoned,
        draining: s.draining,
    }
}

/// Reads a specification.
pub fn from_spec(s: &v1::NodeSpec) -> core::NodeSpec {
    core::NodeSpec {
        address: s.address.clone(),
        labels: s.labels.clone(),
        scenarios: s.scenarios.iter().cloned().collect(),
        capacity_override: s.capacity_override.as_ref().map(from_resources).unwrap_or_default(),
        master_eligible: s.master_eligible,
        master_preference: s.master_preference,
        cordoned: s.cordoned,
        draining: false,
    }
}

/// The one word for a node's state.
pub fn node_state(record: Option<&core::NodeRecord>, presence: Presence) -> v1::NodeState {
    let Some(record) = record else {
        return v1::NodeState::Pending;
    };
    if record.removed {
        return v1::NodeState::Removed;
    }
    match presence {
        Presence::Unseen | Presence::Offline => v1::NodeState::Offline,
        Presence::Suspect => v1::NodeState::Suspect,
        Presence::Online if record.spec.draining => v1::NodeState::Draining,
        Presence::Online if record.spec.cordoned => v1::NodeState::Cordoned,
        Presence::Online => v1::NodeState::Online,
    }
}

/// Name of an operation's kind, its subject and its arguments.
fn operation_kind(what: &OperationKind) -> (&'static str, String, Vec<(&'static str, String)>) {
    match what {
        OperationKind::TransferMaster { to, .. } => ("master.transfer", "master".into(), vec![("to", to.clone())]),
        OperationKind::DrainNode { node, deadline_ms } => {
            let deadline = deadline_ms.map(|d| ("deadline_unix_ms", d.to_string()));
            ("node.drain", format!("node/{node}"), deadline.into_iter().collect())
        }
        OperationKind::Database { group, what } => {
            let (kind, arguments) = database_kind(what);
            (kind, format!("db/{group}"), arguments)
        }
    }
}

fn database_kind(what: &DatabaseOperation) -> (&'static str, Vec<(&'static str, String)>) {
    let some = |name, value: &Option<String>| value.clone().map(|v| (name, v));
    match what {
        DatabaseOperation::Create => ("db.create", Vec::new()),
        DatabaseOperation::Remove => ("db.remove", Vec::new()),
        DatabaseOperation::Assign { node, role } => {
            let role = match role {
                RoleWanted::Primary => "primary",
                RoleWanted::Sync => "sync",
                RoleWanted::Async => "async",
                RoleWanted::None => "none",
            };
            ("db.assign", vec![("node", node.clone()), ("role", role.to_owned())])
        }
        DatabaseOperation::Switchover { to, at_ms } => {
            let at = at_ms.map(|at| ("at_unix_ms", at.to_string()));
            ("db.switchover", some("to", to).into_iter().chain(at).collect())
        }
        DatabaseOperation::Failover { to, allow_data_loss } => {
            let loss = allow_data_loss.then(|| ("allow_data_loss", "true".to_owned()));
            ("db.failover", some("to", to).into_iter().chain(loss).collect())
        }
        DatabaseOperation::Reinit { node } => ("db.reinit", vec![("node", node.clone())]),
        DatabaseOperation::Restart { targets, rolling, .. } => {
            let nodes: Vec<&str> = targets.keys().map(String::as_str).collect();
            let nodes = ("nodes", nodes.join(","));
            ("db.restart", vec![nodes, ("rolling", rolling.to_string())])
        }
    }
}

/// Shows an operation.
pub fn operation(id: &str, o: &OperationRecord) -> v1::Operation {
    let (kind, subject, arguments) = operation_kind(&o.what);
    let state = match o.state {
        core::OperationState::Pending => v1::OperationState::Pending,
        core::OperationState::Running => v1::OperationState::Running,
        core::OperationState::Succeeded => v1::OperationState::Succeeded,
        core::OperationState::Failed => v1::OperationState::Failed,
        core::OperationState::Cancelled => v1::OperationState::Cancelled,
    };
    let (error_code, error) = o.error.clone().unwrap_or_default();
    v1::Operation {
        id: id.to_owned(),
        kind: kind.to_owned(),
        subject,
        state: state.into(),
        steps: o
            .steps
            .iter()
            .map(|(t, s)| v1::OperationStep {
                time_unix_ms: *t,
                text: s.clone(),
            })
            .collect(),
        actor: o.actor.clone(),
        reason: o.reason.clone(),
        created_unix_ms: o.created_ms,
        finished_unix_ms: o.finished_ms.unwrap_or(0),
        error_code,
        error,
        arguments: arguments.into_iter().map(|(k, v)| (k.to_owned(), v)).collect(),
        result: o.result.clone(),
    }
}

/// Shows a role.
pub fn access_role(role: core::AccessRole) -> v1::AccessRole {
    match role {
        core::AccessRole::Viewer => v1::AccessRole::Viewer,
        core::AccessRole::Operator => v1::AccessRole::Operator,
        core::AccessRole::Admin => v1::AccessRole::Admin,
    }
}

/// Reads a role.
pub fn from_access_role(role: v1::AccessRole) -> Option<core::AccessRole> {
    match role {
        v1::AccessRole::Unspecified => None,
        v1::AccessRole::Viewer => Some(core::AccessRole::Viewer),
        v1::AccessRole::Operator => Some(core::AccessRole::Operator),
        v1::AccessRole::Admin => Some(core::AccessRole::Admin),
    }
}

/// Shows a user or a node's certificates.
pub fn user(name: &str, kind: &str, u: &UserRecord) -> v1::User {
    v1::User {
        name: name.to_owned(),
        role: u.role.map_or(v1::AccessRole::Unspecified, access_role).into(),
        serials: u.serials.clone(),
        expires_unix_ms: u.expires_ms,
        revoked: u.is_revoked(),
        created_unix_ms: u.created_ms,
        revoked_unix_ms: u.revoked_ms.unwrap_or(0),
        kind: kind.to_owned(),
    }
}
