//! What is allowed in a group's spec. Refuses with what failed, why, and what to type next; changes nothing.

use std::collections::BTreeSet;

use super::spec::{Durability, GroupSpec, RoleWanted};
use crate::model::valid_name;
use crate::refusal::Refusal;

/// Parameters that the daemon sets itself, for a wrong value there loses data, or the connection to the server.
pub const OWNED: [&str; 34] = [
    "archive_cleanup_command",
    "archive_command",
    "archive_library",
    "archive_mode",
    "cluster_name",
    "config_file",
    "data_directory",
    "external_pid_file",
    "fsync",
    "full_page_writes",
    "hba_file",
    "hot_standby",
    "ident_file",
    "listen_addresses",
    "max_slot_wal_keep_size",
    "port",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "recovery_end_command",
    "recovery_target",
    "recovery_target_timeline",
    "restart_after_crash",
    "restore_command",
    "ssl",
    "ssl_ca_file",
    "ssl_cert_file",
    "ssl_key_file",
    "synchronous_standby_names",
    "unix_socket_directories",
    "wal_level",
    "wal_log_hints",
    "wal_receiver_timeout",
    "wal_retrieve_retry_interval",
];

/// Whether the daemon owns a parameter.
pub fn owned(parameter: &str) -> bool {
    OWNED.contains(&parameter.to_ascii_lowercase().as_str())
}

fn bad(message: impl Into<String>) -> Refusal {
    Refusal::new("HA0405", message)
}

/// Names of databases and roles: what PostgreSQL takes as an identifier and people can type.
fn identifier(kind: &str, name: &str) -> Result<(), Refusal> {
    let plain = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if name.is_empty() || name.len() > 63 || !plain {
        return Err(bad(format!(
            "{kind} {name:?}: 1 to 63 letters, digits, hyphens and underscores"
        )));
    }
    if name.starts_with("pg_") || name == "postgres" || name.starts_with("template") || name.starts_with("had_") {
        return Err(bad(format!("{kind} {name:?}: the name is reserved")));
    }
    Ok(())
}

/// A verifier as PostgreSQL stores it: `SCRAM-SHA-256$iterations:salt$stored:server`. A password would be refused here, so
/// that none is ever stored.
fn verifier(text: &str) -> bool {
    let base64 = |t: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"+/=".contains(&b);
        t.len() >= 8 && t.bytes().all(plain)
    };
    let parts = text
        .strip_prefix("SCRAM-SHA-256$")
        .and_then(|t| t.split_once('$'))
        .and_then(|(head, keys)| Some((head.split_once(':')?, keys.split_once(':')?)));
    parts.is_some_and(|((rounds, salt), (stored, server))| {
        rounds.parse::<u32>().is_ok_and(|r| r >= 4096) && base64(salt) && base64(stored) && base64(server)
    })
}

fn parameters(spec: &GroupSpec) -> Result<(), Refusal> {
    if spec.parameters.len() > 256 {
        return Err(bad("at most 256 parameters"));
    }
    for (name, value) in &spec.parameters {
        let parts = name.split('.');
        let plain = |p: &str| {
            let head = p.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
            head && p.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        if name.len() > 126 || name.split('.').count() > 2 || !parts.into_iter().all(plain) {
            return Err(bad(format!("{name:?} is not the name of a parameter")));
        }
        if owned(name) {
            return Err(Refusal::new("HA0406", format!("{name} is not for operators to set"))
                .why("replication and durability depend on it")
                .next("hactl explain group"));
        }
        // A line break would end the line in the configuration file, and what follows would be another setting.
        if value.len() > 4096 || value.chars().any(char::is_control) {
            return Err(bad(format!("{name}: a value is one line of at most 4096 bytes")));
        }
    }
    Ok(())
}

/// Lines of pg_hba.conf are for applications: replication, and the users that the daemon comes as, are its own.
fn hba(spec: &GroupSpec) -> Result<(), Refusal> {
    if spec.hba.len() > 256 {
        return Err(bad("at most 256 lines of pg_hba.conf"));
    }
    for line in &spec.hba {
        let words: Vec<_> = line.split_whitespace().collect();
        let kinds = ["local", "host", "hostssl", "hostnossl", "hostgssenc", "hostnogssenc"];
        let kind = words.first().copied().unwrap_or_default();
        let least = if kind == "local" { 4 } else { 5 };
        if line.len() > 1024 || line.chars().any(char::is_control) || !kinds.contains(&kind) || words.len() < least {
            return Err(bad(format!("{line:?} is not a line of pg_hba.conf"))
                .next("for instance: hostssl app app 10.0.0.0/8 scram-sha-256"));
        }
        if words[1].split(',').any(|d| d.trim_matches('"') == "replication") {
            return Err(bad(format!("{line:?}: replication is the cluster's own")));
        }
        let method = words
            .iter()
            .rev()
            .find(|w| !w.contains('='))
            .copied()
            .unwrap_or_default();
        if ["trust", "password", "ident", "peer"].contains(&method) && kind != "local" {
            return Err(bad(format!(
                "{line:?}: {method} over the network lets others in as anybody"
            )));
        }
    }
    Ok(())
}

/// Checks a spec.
///
/// # Errors
/// A [`Refusal`] that names the field.
pub fn check(name: &str, spec: &GroupSpec) -> Result<(), Refusal> {
    valid_name(name).map_err(|e| Refusal::new("HA0007", format!("group name {name:?}: {e}")))?;
    for node in spec.nodes.keys() {
        valid_name(node).map_err(|e| Refusal::new("HA0007", format!("node name {node:?}: {e}")))?;
    }
    if name.len() > 32 {
        return Err(bad("the name of a group has at most 32 characters"));
    }
    if spec.nodes.len() > 16 || spec.instances > 16 {
        return Err(bad("a group has at most 16 instances"));
    }
    let with = |role| spec.nodes.iter().filter(move |(_, i)| i.role == role);
    if with(RoleWanted::Primary).count() > 1 {
        let list: Vec<_> = with(RoleWanted::Primary).map(|(n, _)| n.as_str()).collect();
        return Err(bad(format!("a group has one primary, not {}", list.join(" and "))));
    }
    let members = spec.nodes.len() - with(RoleWanted::None).count();
    let may_lead = members - with(RoleWanted::Async).count();
    if may_lead == 0 && spec.instances == 0 {
        return Err(bad("a group needs a node that may be primary").next("hactl db assign NODE --role sync"));
    }
    let all = may_lead.max((spec.instances as usize).saturating_sub(with(RoleWanted::Async).count()));
    if spec.durability == Durability::QuorumStrict && all < 2 {
        return Err(Refusal::new("HA0419", "quorum-strict needs a standby that votes")
            .why("no write would ever be acknowledged")
            .next("hactl db assign NODE --role sync"));
    }
    let ports = spec.nodes.values().filter_map(|i| i.port).chain([spec.port]);
    if ports.into_iter().any(|p| p < 1024) {
        return Err(bad("the port is a number from 1024 to 65535"));
    }
    if spec.version.is_some_and(|v| !(13..=99).contains(&v)) {
        return Err(bad("PostgreSQL 13 and later"));
    }
    let directories = spec
        .nodes
        .values()
        .filter_map(|i| i.directory.as_ref())
        .chain(&spec.directory);
    for directory in directories {
        let up = directory.split('/').any(|part| part == "..");
        if !directory.starts_with('/') || directory.len() > 512 || up || directory.chars().any(char::is_control) {
            return Err(bad(format!("the directory {directory:?} is not an absolute path")));
        }
    }
    limits(spec)?;
    proxy(spec)?;
    parameters(spec)?;
    hba(spec)?;
    roles(spec)
}

fn limits(spec: &GroupSpec) -> Result<(), Refusal> {
    let l = &spec.limits;
    for (name, value, least) in [
        ("degrade_after_ms", l.degrade_after_ms, 1000),
        ("start_timeout_ms", l.start_timeout_ms, 1000),
        ("stop_timeout_ms", l.stop_timeout_ms, 500),
        ("promote_timeout_ms", l.promote_timeout_ms, 1000),
        ("replace_after_ms", l.replace_after_ms, 10_000),
        ("slot_retention", l.slot_retention, 64 << 20),
    ] {
        if value < least {
            return Err(bad(format!("{name} is at least {least}")));
        }
    }
    Ok(())
}

fn proxy(spec: &GroupSpec) -> Result<(), Refusal> {
    let p = &spec.proxy;
    if p.ports().any(|port| port < 1024) {
        return Err(bad("a port of the proxy is a number from 1024 to 65535"));
    }
    if p.port.is_some() && p.port == p.standby_port {
        return Err(bad("the primary and the standbys need a port of the proxy each"));
    }
    if !(100..=3_600_000).contains(&p.wait_ms) {
        return Err(bad("proxy.wait_ms is from 100 to 3600000"));
    }
    Ok(())
}

fn roles(spec: &GroupSpec) -> Result<(), Refusal> {
    if spec.roles.len() > 256 || spec.databases.len() > 256 {
        return Err(bad("at most 256 roles and 256 databases"));
    }
    for (name, role) in &spec.roles {
        identifier("role", name)?;
        if role.verifier.as_deref().is_some_and(|v| !verifier(v)) {
            // What was given is not repeated: it may be a password.
            return Err(bad(format!("role {name}: what was given is no SCRAM-SHA-256 verifier")));
        }
        if let Some(other) = role
            .member_of
            .iter()
            .find(|m| !spec.roles.contains_key(*m) && !m.starts_with("pg_"))
        {
            return Err(bad(format!("role {name}: there is no role {other} to be a member of")));
        }
    }
    for (name, database) in &spec.databases {
        identifier("database", name)?;
        if !spec.roles.contains_key(&database.owner) {
            return Err(bad(format!(
                "database {name}: there is no role {} to own it",
                database.owner
            )));
        }
        let twice = database.extensions.iter().collect::<BTreeSet<_>>().len() < database.extensions.len();
        let plain =
            |e: &String| e.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') && !e.is_empty();
        if twice || !database.extensions.iter().all(plain) {
            return Err(bad(format!(
                "database {name}: extensions are named once each, by their plain names"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::spec::{DatabaseSpec, InstanceSpec, Pause, RoleSpec};

    const VERIFIER: &str = "SCRAM-SHA-256$4096:c2FsdHNhbHRzYWx0$c3RvcmVkc3RvcmVk:c2VydmVyc2VydmVy";

    fn refused(change: impl FnOnce(&mut GroupSpec)) -> Option<String> {
        let mut spec = GroupSpec::on(["n1", "n2", "n3"]);
        change(&mut spec);
        check("main", &spec).err().map(|r| format!("{} {}", r.code, r.message))
    }

    fn role(verifier: Option<&str>) -> RoleSpec {
        RoleSpec {
            verifier: verifier.map(str::to_owned),
            login: true,
            createdb: false,
            createrole: false,
            member_of: Vec::new(),
        }
    }

    #[test]
    fn a_plain_group_is_allowed_and_survives_storage() {
        let mut spec = GroupSpec::on(["n1", "n2", "n3"]);
        spec.roles.insert("app".into(), role(Some(VERIFIER)));
        let database = DatabaseSpec {
            owner: "app".into(),
            extensions: vec!["pgcrypto".into()],
        };
        spec.databases.insert("app".into(), database);
        spec.hba.push("hostssl app app 10.0.0.0/8 scram-sha-256".into());
        spec.parameters.insert("work_mem".into(), "64MB".into());
        spec.pause = Some(Pause {
            until_ms: Some(1),
            reason: String::new(),
            actor: "user/a".into(),
        });
        assert_eq!(check("main", &spec), Ok(()));
        let stored = crate::model::encode(&spec);
        assert_eq!(serde_json::from_slice::<GroupSpec>(&stored).unwrap(), spec);
        let least: GroupSpec = serde_json::from_str(r#"{"nodes":{"n1":{}}}"#).unwrap();
        assert_eq!(least, GroupSpec::on(["n1"]));
    }

    #[test]
    fn what_is_refused() {
        let param = |n: &'static str, v: &'static str| {
            refused(move |s| {
                s.parameters.insert(n.into(), v.into());
            })
        };
        let hba = |l: &'static str| refused(move |s| s.hba.push(l.into()));
        for (found, code) in [
            (param("synchronous_standby_names", ""), "HA0406"),
            (param("Fsync", "off"), "HA0406"),
            (param("work_mem", "1\nfsync=off"), "HA0405"),
            (param("a b", "1"), "HA0405"),
            (hba("host replication all 0.0.0.0/0 scram-sha-256"), "HA0405"),
            (hba("host all all 0.0.0.0/0 trust"), "HA0405"),
            (hba("# nothing"), "HA0405"),
            (hba("host all"), "HA0405"),
            (refused(|s| s.nodes.clear()), "HA0405"),
            (refused(|s| s.instances = 17), "HA0405"),
            (refused(|s| s.port = 80), "HA0405"),
            (refused(|s| s.proxy.port = Some(80)), "HA0405"),
            (refused(|s| s.proxy.port = s.proxy.standby_port), "HA0405"),
            (refused(|s| s.proxy.wait_ms = 0), "HA0405"),
            (refused(|s| s.version = Some(12)), "HA0405"),
            (refused(|s| s.directory = Some("data".into())), "HA0405"),
            (refused(|s| s.limits.degrade_after_ms = 0), "HA0405"),
            (
                refused(|s| drop(s.roles.insert("app".into(), role(Some("secret"))))),
                "HA0405",
            ),
            (
                refused(|s| drop(s.roles.insert("postgres".into(), role(None)))),
                "HA0405",
            ),
            (
                refused(|s| {
                    s.durability = Durability::QuorumStrict;
                    s.nodes = [("n1".to_owned(), InstanceSpec::default())].into();
                }),
                "HA0419",
            ),
            (
                refused(|s| {
                    for i in s.nodes.values_mut() {
                        i.role = RoleWanted::Primary;
                    }
                }),
                "HA0405",
            ),
        ] {
            assert!(found.as_ref().is_some_and(|f| f.starts_with(code)), "{code}: {found:?}");
            assert!(!found.unwrap().contains("secret"));
        }
        assert!(check("Main", &GroupSpec::on(["n1"])).is_err());
    }
}
