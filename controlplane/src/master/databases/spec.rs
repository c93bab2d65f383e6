//! Specifications of groups: as they travel, as they are stored, and what is refused before anything is stored.

use std::collections::BTreeMap;

use ha_core::database::spec::{DatabaseSpec, InstanceSpec, Limits, ProxySpec, RoleSpec};
use ha_core::database::{Durability, GroupSpec, RoleWanted};
use ha_core::refusal::Refusal;
use ha_core::valid_name;
use ha_proto::v1;

use crate::postgres::conf::parameters;

const MAX_NODES: usize = 16;
const MAX_LINES: usize = 500;
const MAX_LINE: usize = 1000;

fn bad(what: impl std::fmt::Display, why: impl Into<String>) -> Refusal {
    Refusal::new("HA0405", format!("{what} is not allowed"))
        .why(why)
        .next("hactl explain group")
}

/// The role, as it travels.
pub(super) fn role(role: RoleWanted) -> v1::InstanceRole {
    match role {
        RoleWanted::Primary => v1::InstanceRole::Primary,
        RoleWanted::Sync => v1::InstanceRole::Sync,
        RoleWanted::Async => v1::InstanceRole::Async,
        RoleWanted::None => v1::InstanceRole::None,
    }
}

/// Reads a role; none if it is left open.
pub(super) fn read_role(role: v1::InstanceRole) -> Option<RoleWanted> {
    match role {
        v1::InstanceRole::Unspecified => None,
        v1::InstanceRole::Primary => Some(RoleWanted::Primary),
        v1::InstanceRole::Sync => Some(RoleWanted::Sync),
        v1::InstanceRole::Async => Some(RoleWanted::Async),
        v1::InstanceRole::None => Some(RoleWanted::None),
    }
}

/// The specification, as it travels: without verifiers.
pub(super) fn show(spec: &GroupSpec) -> v1::GroupSpec {
    let l = &spec.limits;
    v1::GroupSpec {
        version: spec.version.unwrap_or(0),
        durability: match spec.durability {
            Durability::Quorum => v1::Durability::Quorum,
            Durability::QuorumStrict => v1::Durability::QuorumStrict,
            Durability::Async => v1::Durability::Async,
        }
        .into(),
        instances: spec.instances,
        members: spec
            .nodes
            .iter()
            .map(|(node, i)| v1::InstanceSpec {
                node: node.clone(),
                role: role(i.role).into(),
                priority: Some(i.priority),
                port: i.port.map_or(0, u32::from),
                directory: i.directory.clone().unwrap_or_default(),
            })
            .collect(),
        port: u32::from(spec.port),
        directory: spec.directory.clone().unwrap_or_default(),
        parameters: spec.parameters.clone(),
        hba: spec.hba.clone(),
        databases: spec
            .databases
            .iter()
            .map(|(name, d)| v1::DatabaseSpec {
                name: name.clone(),
                owner: d.owner.clone(),
                extensions: d.extensions.clone(),
            })
            .collect(),
        roles: spec
            .roles
            .iter()
            .map(|(name, r)| v1::DatabaseRoleSpec {
                name: name.clone(),
                verifier: String::new(),
                has_password: r.verifier.is_some(),
                no_login: !r.login,
                createdb: r.createdb,
                createrole: r.createrole,
                member_of: r.member_of.clone(),
            })
            .collect(),
        limits: Some(v1::GroupLimits {
            max_switchover_lag_bytes: Some(l.max_switchover_lag),
            max_failover_lag_bytes: Some(l.max_failover_lag),
            degrade_after_ms: Some(l.degrade_after_ms),
            slot_retention_bytes: Some(l.slot_retention),
            start_timeout_ms: Some(l.start_timeout_ms),
            stop_timeout_ms: Some(l.stop_timeout_ms),
            promote_timeout_ms: Some(l.promote_timeout_ms),
            replace_after_ms: Some(l.replace_after_ms),
            flap_count: Some(l.flap_count),
            flap_window_ms: Some(l.flap_window_ms),
            hold_down_ms: Some(l.hold_down_ms),
        }),
        proxy: Some(v1::GroupProxy {
            port: Some(spec.proxy.port.map_or(0, u32::from)),
            standby_port: Some(spec.proxy.standby_port.map_or(0, u32::from)),
            wait_ms: Some(spec.proxy.wait_ms),
            max_lag_bytes: Some(spec.proxy.max_lag.unwrap_or(0)),
            fall_back: Some(spec.proxy.fall_back),
        }),
        pause: spec.pause.as_ref().map(|p| v1::GroupPause {
            on: true,
            until_unix_ms: p.until_ms.unwrap_or(0),
            reason: p.reason.clone(),
            actor: p.actor.clone(),
            since_unix_ms: 0,
        }),
    }
}

/// Reads a specification and checks all that can be checked without a server. `before` is what is stored: verifiers and
/// ports of the proxies that the request leaves out stay.
pub(super) fn read(wire: &v1::GroupSpec, before: Option<&GroupSpec>) -> Result<GroupSpec, Refusal> {
    let durability = match wire.durability() {
        v1::Durability::Unspecified | v1::Durability::Quorum => Durability::Quorum,
        v1::Durability::QuorumStrict => Durability::QuorumStrict,
        v1::Durability::Async => Durability::Async,
    };
    if wire.version != 0 && !(13..=99).contains(&wire.version) {
        return Err(bad("version", "PostgreSQL 13 and later are supported"));
    }
    let mut nodes = BTreeMap::new();
    for m in &wire.members {
        let instance = InstanceSpec {
            role: read_role(m.role()).unwrap_or_default(),
            priority: m.priority.unwrap_or(InstanceSpec::default().priority),
            port: port("port", m.port)?,
            directory: directory(&m.directory)?,
            delete_data: false,
        };
        if nodes.insert(m.node.clone(), instance).is_some() {
            return Err(bad(format!("node {}", m.node), "it is listed twice"));
        }
    }
    if nodes.len() > MAX_NODES || wire.instances as usize > MAX_NODES {
        return Err(bad("instances", format!("a group has at most {MAX_NODES}")));
    }
    if nodes.values().filter(|i| i.role == RoleWanted::Primary).count() > 1 {
        return Err(bad("role", "only one node is to be the primary"));
    }
    let parameters = parameters::checked(&wire.parameters).map_err(|e| {
        let owned = wire.parameters.keys().find(|n| parameters::reserved(n).is_some());
        match owned {
            Some(name) => Refusal::new("HA0406", format!("{name} is not for operators to set"))
                .why(parameters::reserved(name).unwrap_or_default()),
            None => bad("parameters", e.to_string()),
        }
    })?;
    if wire.hba.len() > MAX_LINES || wire.databases.len() > MAX_LINES || wire.roles.len() > MAX_LINES {
        return Err(bad("the specification", format!("at most {MAX_LINES} of each")));
    }
    for line in &wire.hba {
        if line.len() > MAX_LINE || line.chars().any(char::is_control) {
            return Err(bad(
                "hba",
                format!("a line has at most {MAX_LINE} characters and no control characters"),
            ));
        }
    }
    let roles = roles(wire, before)?;
    let mut databases = BTreeMap::new();
    for d in &wire.databases {
        identifier("database", &d.name)?;
        identifier("owner", &d.owner)?;
        d.extensions.iter().try_for_each(|e| identifier("extension", e))?;
        if matches!(d.name.as_str(), "postgres" | "template0" | "template1") {
            return Err(bad(format!("database {}", d.name), "it is PostgreSQL's own"));
        }
        let database = DatabaseSpec {
            owner: d.owner.clone(),
            extensions: d.extensions.clone(),
        };
        if databases.insert(d.name.clone(), database).is_some() {
            return Err(bad(format!("database {}", d.name), "it is listed twice"));
        }
    }
    Ok(GroupSpec {
        durability,
        instances: wire.instances,
        nodes,
        port: port("port", wire.port)?.unwrap_or(5432),
        version: (wire.version != 0).then_some(wire.version),
        directory: directory(&wire.directory)?,
        parameters,
        hba: wire.hba.clone(),
        databases,
        roles,
        limits: limits(wire.limits.as_ref())?,
        proxy: proxy(wire.proxy.as_ref(), before)?,
        pause: None,
        removed: false,
        delete_data: false,
    })
}

fn proxy(wire: Option<&v1::GroupProxy>, before: Option<&GroupSpec>) -> Result<ProxySpec, Refusal> {
    let default = ProxySpec::default();
    let Some(w) = wire else {
        return Ok(before.map_or(default, |b| b.proxy.clone()));
    };
    let held = before.map_or(&default, |b| &b.proxy);
    let of = |what: &str, given: Option<u32>, held: Option<u16>| given.map_or(Ok(held), |p| port(what, p));
    Ok(ProxySpec {
        port: of("proxy.port", w.port, held.port)?,
        standby_port: of("proxy.standbyPort", w.standby_port, held.standby_port)?,
        wait_ms: w.wait_ms.unwrap_or(default.wait_ms),
        max_lag: match w.max_lag_bytes {
            None => default.max_lag,
            Some(bytes) => (bytes > 0).then_some(bytes),
        },
        fall_back: w.fall_back.unwrap_or(default.fall_back),
    })
}

fn port(what: &str, port: u32) -> Result<Option<u16>, Refusal> {
    let port = u16::try_from(port).map_err(|_| bad(what, "it is a number from 1 to 65535"))?;
    Ok((port != 0).then_some(port))
}

fn directory(text: &str) -> Result<Option<String>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    let plain = text.starts_with('/') && text.len() <= 500 && !text.chars().any(char::is_control);
    let climbs = text.split('/').any(|part| part == "..");
    if plain && !climbs {
        Ok(Some(text.to_owned()))
    } else {
        Err(bad("directory", "it is an absolute path"))
    }
}

fn identifier(what: &str, name: &str) -> Result<(), Refusal> {
    let fits = !name.is_empty() && name.len() <= 63 && !name.chars().any(|c| c.is_control() || c == '"');
    if fits {
        Ok(())
    } else {
        Err(bad(
            what,
            "a name has 1 to 63 characters, no quotes and no control characters",
        ))
    }
}

fn roles(wire: &v1::GroupSpec, before: Option<&GroupSpec>) -> Result<BTreeMap<String, RoleSpec>, Refusal> {
    let mut roles = BTreeMap::new();
    for r in &wire.roles {
        identifier("role", &r.name)?;
        r.member_of.iter().try_for_each(|m| identifier("role", m))?;
        if r.name.starts_with("pg_") || r.name == "postgres" || r.name == "public" {
            return Err(bad(format!("role {}", r.name), "it is PostgreSQL's own"));
        }
        let verifier = match r.verifier.as_str() {
            "" if r.has_password => before.and_then(|b| b.roles.get(&r.name)?.verifier.clone()),
            "" => None,
            v if scram(v) => Some(v.to_owned()),
            _ => {
                return Err(bad(
                    format!("the password of role {}", r.name),
                    "it is stored as a SCRAM-SHA-256 verifier only",
                ));
            }
        };
        let role = RoleSpec {
            verifier,
            login: !r.no_login,
            createdb: r.createdb,
            createrole: r.createrole,
            member_of: r.member_of.clone(),
        };
        if roles.insert(r.name.clone(), role).is_some() {
            return Err(bad(format!("role {}", r.name), "it is listed twice"));
        }
    }
    Ok(roles)
}

/// PostgreSQL's form of a verifier: `SCRAM-SHA-256$iterations:salt$stored:server`.
fn scram(text: &str) -> bool {
    let plain = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"$:+/=-".contains(&b));
    text.starts_with("SCRAM-SHA-256$") && text.matches('$').count() == 2 && text.len() <= 300 && plain
}

fn limits(wire: Option<&v1::GroupLimits>) -> Result<Limits, Refusal> {
    let mut l = Limits::default();
    let Some(w) = wire else { return Ok(l) };
    let year = 366 * 24 * 3600 * 1000;
    let times = [
        ("degrade_after", w.degrade_after_ms, &mut l.degrade_after_ms, 1000),
        ("start_timeout", w.start_timeout_ms, &mut l.start_timeout_ms, 1000),
        ("stop_timeout", w.stop_timeout_ms, &mut l.stop_timeout_ms, 500),
        ("promote_timeout", w.promote_timeout_ms, &mut l.promote_timeout_ms, 1000),
        ("replace_after", w.replace_after_ms, &mut l.replace_after_ms, 10_000),
        ("flap_window", w.flap_window_ms, &mut l.flap_window_ms, 0),
        ("hold_down", w.hold_down_ms, &mut l.hold_down_ms, 0),
    ];
    for (name, given, limit, least) in times {
        let Some(ms) = given else { continue };
        if ms < least || ms > year {
            return Err(bad(name, format!("it is at least {least} ms and at most a year")));
        }
        *limit = ms;
    }
    l.max_switchover_lag = w.max_switchover_lag_bytes.unwrap_or(l.max_switchover_lag);
    l.max_failover_lag = w.max_failover_lag_bytes.unwrap_or(l.max_failover_lag);
    l.slot_retention = w.slot_retention_bytes.unwrap_or(l.slot_retention);
    l.flap_count = w.flap_count.unwrap_or(l.flap_count);
    Ok(l)
}

/// Checks a specification by itself, and against the cluster's nodes.
pub(super) fn check_nodes(
    group: &str,
    spec: &GroupSpec,
    nodes: &BTreeMap<&str, &ha_core::NodeRecord>,
) -> Result<(), Refusal> {
    ha_core::database::check::check(group, spec)?;
    for name in spec.nodes.keys() {
        valid_name(name).map_err(|e| Refusal::new("HA0007", format!("node name {name:?}: {e}")))?;
        if nodes.get(name.as_str()).is_none_or(|r| r.removed) {
            return Err(ha_core::nodes::unknown(name));
        }
    }
    let voters = spec
        .nodes
        .values()
        .filter(|i| matches!(i.role, RoleWanted::Primary | RoleWanted::Sync));
    let chosen = (spec.instances as usize).saturating_sub(spec.nodes.len());
    if spec.durability == Durability::QuorumStrict && voters.count() + chosen < 2 {
        return Err(
            Refusal::new("HA0419", "quorum-strict needs at least one synchronous standby")
                .why("with none, every write would wait for ever"),
        );
    }
    Ok(())
}

/// What differs between two specifications, a phrase each; none if nothing does.
pub(super) fn changes(before: &GroupSpec, after: &GroupSpec) -> Vec<String> {
    let mut all = Vec::new();
    let (Ok(serde_json::Value::Object(a)), Ok(serde_json::Value::Object(b))) =
        (serde_json::to_value(before), serde_json::to_value(after))
    else {
        return all;
    };
    for (field, new) in &b {
        let old = a.get(field);
        if old == Some(new) || matches!(field.as_str(), "pause" | "removed") {
            continue;
        }
        match (old, new) {
            (Some(serde_json::Value::Object(old)), serde_json::Value::Object(new)) => {
                let names = old.keys().chain(new.keys()).collect::<std::collections::BTreeSet<_>>();
                for name in names.into_iter().filter(|n| old.get(*n) != new.get(*n)) {
                    // Verifiers are never shown.
                    let text = |v: Option<&serde_json::Value>| match v {
                        None => "none".to_owned(),
                        Some(serde_json::Value::Object(_)) => "set".to_owned(),
                        Some(v) => v.to_string(),
                    };
                    let (was, is) = (text(old.get(name)), text(new.get(name)));
                    all.push(if was == is {
                        format!("{field} {name} changed")
                    } else {
                        format!("{field} {name}: {was} -> {is}")
                    });
                }
            }
            (Some(old), new) if !old.is_array() && !new.is_array() => all.push(format!("{field}: {old} -> {new}")),
            _ => all.push(format!("{field} changed")),
        }
    }
    all
}
