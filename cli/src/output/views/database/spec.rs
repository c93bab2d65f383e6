//! The specification of a group: shown, written as YAML and read back. Both ways in one place, so that what was exported
//! can be applied again. It never holds a password or a verifier.

use std::collections::BTreeMap;

use ha_proto::v1::{
    self, DatabaseRoleSpec, DatabaseSpec, Durability, GroupLimits, GroupProxy, GroupSpec, InstanceRole, InstanceSpec,
};
use serde::{Deserialize, Deserializer, Serialize};

use crate::output::units;

/// The priority of an instance that was given none.
pub const PRIORITY: u32 = 100;

/// What is wanted of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Spec {
    /// Major release of PostgreSQL; 0: what the nodes have.
    pub version: u32,
    /// quorum, quorum-strict or async.
    pub durability: String,
    /// Instances to keep; 0: those of `members`.
    pub instances: u32,
    /// Port of PostgreSQL.
    pub port: u16,
    /// Data directory; empty: one of had's.
    pub directory: String,
    /// Settings of PostgreSQL.
    #[serde(deserialize_with = "scalars")]
    pub parameters: BTreeMap<String, String>,
    /// Lines of pg_hba.conf.
    pub hba: Vec<String>,
    /// Databases.
    pub databases: Vec<Database>,
    /// Roles.
    pub roles: Vec<Role>,
    /// Limits and times.
    pub limits: Limits,
    /// Its ports on the proxies.
    pub proxy: Proxy,
    /// The nodes and what is wanted of each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub members: Option<Vec<Member>>,
}

/// A node of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Member {
    /// The node.
    pub node: String,
    /// primary, sync or async.
    #[serde(default = "sync")]
    pub role: String,
    /// Of equals the one with the highest takes over; 0: never by itself.
    #[serde(default = "priority")]
    pub priority: u32,
    /// Where it differs from the group's; 0: it does not.
    #[serde(default)]
    pub port: u16,
    /// Where it differs from the group's; empty: it does not.
    #[serde(default)]
    pub directory: String,
}

fn sync() -> String {
    InstanceRole::Sync.word().to_owned()
}

fn priority() -> u32 {
    PRIORITY
}

/// A database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// The role it belongs to.
    pub owner: String,
    /// Extensions in it.
    #[serde(default)]
    pub extensions: Vec<String>,
}

/// A role. Its password is set apart and never shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// Whether it has a password; false takes it away.
    #[serde(default)]
    pub has_password: bool,
    /// It may log in.
    #[serde(default = "yes")]
    pub login: bool,
    /// It may create databases.
    #[serde(default)]
    pub createdb: bool,
    /// It may create roles.
    #[serde(default)]
    pub createrole: bool,
    /// Roles it is a member of.
    #[serde(default)]
    pub member_of: Vec<String>,
}

fn yes() -> bool {
    true
}

/// Limits and times; what is not given is the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct Limits {
    pub max_switchover_lag_bytes: Option<u64>,
    pub max_failover_lag_bytes: Option<u64>,
    pub degrade_after_ms: Option<u64>,
    pub slot_retention_bytes: Option<u64>,
    pub start_timeout_ms: Option<u64>,
    pub stop_timeout_ms: Option<u64>,
    pub promote_timeout_ms: Option<u64>,
    pub replace_after_ms: Option<u64>,
    pub flap_count: Option<u32>,
    pub flap_window_ms: Option<u64>,
    pub hold_down_ms: Option<u64>,
}

/// How proxies lead clients to it; what is not given is the default, and a port that is not given is chosen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[allow(missing_docs)]
pub struct Proxy {
    pub port: Option<u16>,
    pub standby_port: Option<u16>,
    pub wait_ms: Option<u64>,
    pub max_lag_bytes: Option<u64>,
    pub fall_back: Option<bool>,
}

/// A pause, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PauseView {
    on: bool,
    until: Option<String>,
    since: Option<String>,
    reason: String,
    actor: String,
}

impl From<&v1::GroupPause> for PauseView {
    fn from(pause: &v1::GroupPause) -> Self {
        Self {
            on: pause.on,
            until: units::moment(pause.until_unix_ms),
            since: units::moment(pause.since_unix_ms),
            reason: pause.reason.clone(),
            actor: pause.actor.clone(),
        }
    }
}

impl Default for Spec {
    fn default() -> Self {
        let spec = Self::from(&GroupSpec {
            durability: Durability::Quorum.into(),
            ..GroupSpec::default()
        });
        // What a file does not say is not "none".
        Self { members: None, ..spec }
    }
}

/// Numbers and switches of PostgreSQL need no quotes.
fn scalars<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Scalar {
        Text(String),
        Switch(bool),
        Whole(i64),
        Real(f64),
    }
    let map = BTreeMap::<String, Scalar>::deserialize(deserializer)?;
    let text = |scalar| match scalar {
        Scalar::Text(text) => text,
        Scalar::Switch(on) => if on { "on" } else { "off" }.to_owned(),
        Scalar::Whole(number) => number.to_string(),
        Scalar::Real(number) => number.to_string(),
    };
    Ok(map.into_iter().map(|(key, value)| (key, text(value))).collect())
}

fn port(number: u32) -> u16 {
    u16::try_from(number).unwrap_or(0)
}

impl From<&GroupSpec> for Spec {
    fn from(spec: &GroupSpec) -> Self {
        let limits = spec.limits.unwrap_or_default();
        let proxy = spec.proxy.unwrap_or_default();
        Self {
            version: spec.version,
            durability: spec.durability().word().to_owned(),
            instances: spec.instances,
            port: match port(spec.port) {
                0 => 5432,
                port => port,
            },
            directory: spec.directory.clone(),
            parameters: spec.parameters.clone(),
            hba: spec.hba.clone(),
            databases: spec.databases.iter().map(Database::from).collect(),
            roles: spec.roles.iter().map(Role::from).collect(),
            limits: Limits {
                max_switchover_lag_bytes: limits.max_switchover_lag_bytes,
                max_failover_lag_bytes: limits.max_failover_lag_bytes,
                degrade_after_ms: limits.degrade_after_ms,
                slot_retention_bytes: limits.slot_retention_bytes,
                start_timeout_ms: limits.start_timeout_ms,
                stop_timeout_ms: limits.stop_timeout_ms,
                promote_timeout_ms: limits.promote_timeout_ms,
                replace_after_ms: limits.replace_after_ms,
                flap_count: limits.flap_count,
                flap_window_ms: limits.flap_window_ms,
                hold_down_ms: limits.hold_down_ms,
            },
            proxy: Proxy {
                port: proxy.port.map(port),
                standby_port: proxy.standby_port.map(port),
                wait_ms: proxy.wait_ms,
                max_lag_bytes: proxy.max_lag_bytes,
                fall_back: proxy.fall_back,
            },
            members: Some(spec.members.iter().map(Member::from).collect()),
        }
    }
}

impl From<&InstanceSpec> for Member {
    fn from(member: &InstanceSpec) -> Self {
        Self {
            node: member.node.clone(),
            role: member.role().word().to_owned(),
            priority: member.priority.unwrap_or(PRIORITY),
            port: port(member.port),
            directory: member.directory.clone(),
        }
    }
}

impl From<&DatabaseSpec> for Database {
    fn from(database: &DatabaseSpec) -> Self {
        Self {
            name: database.name.clone(),
            owner: database.owner.clone(),
            extensions: database.extensions.clone(),
        }
    }
}

impl From<&DatabaseRoleSpec> for Role {
    fn from(role: &DatabaseRoleSpec) -> Self {
        Self {
            name: role.name.clone(),
            has_password: role.has_password,
            login: !role.no_login,
            createdb: role.createdb,
            createrole: role.createrole,
            member_of: role.member_of.clone(),
        }
    }
}

impl Spec {
    /// As the API takes it.
    ///
    /// # Errors
    /// The field that is wrong, and what it takes.
    pub fn to_wire(&self) -> Result<GroupSpec, String> {
        let durability = Durability::from_word(&self.durability)
            .filter(|d| *d != Durability::Unspecified)
            .ok_or_else(|| {
                format!(
                    "durability: `{}` is none of quorum, quorum-strict, async",
                    self.durability
                )
            })?;
        let mut members = self
            .members
            .iter()
            .flatten()
            .map(Member::to_wire)
            .collect::<Result<Vec<_>, _>>()?;
        members.sort_by(|a, b| a.node.cmp(&b.node));
        let mut databases: Vec<_> = self.databases.iter().map(Database::to_wire).collect();
        databases.sort_by(|a, b| a.name.cmp(&b.name));
        let mut roles: Vec<_> = self.roles.iter().map(Role::to_wire).collect();
        roles.sort_by(|a, b| a.name.cmp(&b.name));
        let twice = |what: &str, names: Vec<&String>| match names.windows(2).find(|w| w[0] == w[1]) {
            Some(pair) => Err(format!("{what}: {} is there twice", pair[0])),
            None => Ok(()),
        };
        twice("members", members.iter().map(|m| &m.node).collect())?;
        twice("databases", databases.iter().map(|d| &d.name).collect())?;
        twice("roles", roles.iter().map(|r| &r.name).collect())?;
        Ok(GroupSpec {
            version: self.version,
            durability: durability.into(),
            instances: self.instances,
            members,
            port: self.port.into(),
            directory: self.directory.clone(),
            parameters: self.parameters.clone(),
            hba: self.hba.clone(),
            databases,
            roles,
            limits: Some(self.limits.to_wire()),
            proxy: Some(GroupProxy {
                port: self.proxy.port.map(u32::from),
                standby_port: self.proxy.standby_port.map(u32::from),
                wait_ms: self.proxy.wait_ms,
                max_lag_bytes: self.proxy.max_lag_bytes,
                fall_back: self.proxy.fall_back,
            }),
            pause: None,
        })
    }
}

impl Member {
    fn to_wire(&self) -> Result<InstanceSpec, String> {
        let role = InstanceRole::from_word(&self.role)
            .filter(|r| !matches!(r, InstanceRole::Unspecified | InstanceRole::None))
            .ok_or_else(|| format!("members: role `{}` is none of primary, sync, async", self.role))?;
        Ok(InstanceSpec {
            node: self.node.clone(),
            role: role.into(),
            priority: Some(self.priority),
            port: self.port.into(),
            directory: self.directory.clone(),
        })
    }
}

impl Database {
    fn to_wire(&self) -> DatabaseSpec {
        DatabaseSpec {
            name: self.name.clone(),
            owner: self.owner.clone(),
            extensions: self.extensions.clone(),
        }
    }
}

impl Role {
    fn to_wire(&self) -> DatabaseRoleSpec {
        DatabaseRoleSpec {
            name: self.name.clone(),
            verifier: String::new(),
            has_password: self.has_password,
            no_login: !self.login,
            createdb: self.createdb,
            createrole: self.createrole,
            member_of: self.member_of.clone(),
        }
    }
}

impl Limits {
    fn to_wire(&self) -> GroupLimits {
        GroupLimits {
            max_switchover_lag_bytes: self.max_switchover_lag_bytes,
            max_failover_lag_bytes: self.max_failover_lag_bytes,
            degrade_after_ms: self.degrade_after_ms,
            slot_retention_bytes: self.slot_retention_bytes,
            start_timeout_ms: self.start_timeout_ms,
            stop_timeout_ms: self.stop_timeout_ms,
            promote_timeout_ms: self.promote_timeout_ms,
            replace_after_ms: self.replace_after_ms,
            flap_count: self.flap_count,
            flap_window_ms: self.flap_window_ms,
            hold_down_ms: self.hold_down_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let spec = Spec {
            parameters: [("work_mem".to_owned(), "64MB".to_owned())].into(),
            proxy: Proxy {
                port: Some(6000),
                standby_port: Some(0),
                fall_back: Some(true),
                ..Proxy::default()
            },
            databases: vec![Database {
                name: "app".into(),
                owner: "app".into(),
                extensions: vec!["pg_trgm".into()],
            }],
            roles: vec![Role {
                name: "app".into(),
                has_password: true,
                login: true,
                ..Role::default()
            }],
            members: Some(vec![Member {
                node: "n1".into(),
                role: "primary".into(),
                priority: 7,
                port: 0,
                directory: String::new(),
            }]),
            ..Spec::default()
        };
        let wire = spec.to_wire().unwrap();
        assert_eq!(Spec::from(&wire), spec);
        let yaml = crate::output::yaml::from_json(&serde_json::to_string(&spec).unwrap()).unwrap();
        let read: Spec = serde_norway::from_str(&yaml).unwrap();
        assert_eq!(read, spec, "{yaml}");
    }

    #[test]
    fn parameters_need_no_quotes() {
        let read: Spec =
            serde_norway::from_str("parameters: {jit: false, max_connections: 200, a: 0.5, b: x}").unwrap();
        let values: Vec<_> = read.parameters.values().map(String::as_str).collect();
        assert_eq!(values, ["0.5", "x", "off", "200"]);
        assert_eq!((read.durability.as_str(), read.port), ("quorum", 5432));
    }

    #[test]
    fn mistakes_name_the_field() {
        assert!(serde_norway::from_str::<Spec>("duribility: async").is_err());
        let bad = |yaml: &str| serde_norway::from_str::<Spec>(yaml).unwrap().to_wire().unwrap_err();
        assert!(bad("durability: twice").starts_with("durability: `twice`"));
        assert!(bad("members: [{node: n1, role: none}]").contains("`none`"));
        assert!(bad("roles: [{name: a}, {name: a}]").contains("a is there twice"));
    }
}
