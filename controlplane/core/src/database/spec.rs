//! `db/<g>/spec`: what an operator wants of a database group. Written by the API, read by the master and the agents.
//!
//! Holds no secret: a role's password is stored as PostgreSQL's SCRAM verifier only.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How durable an acknowledged commit is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Durability {
    /// A quorum of standbys has it; with too few standbys for too long, fewer are asked, and the operators are told.
    #[default]
    Quorum,
    /// A quorum of standbys has it, at least one always; writes wait where there is none.
    QuorumStrict,
    /// The primary alone; a failover may lose what no standby had received.
    Async,
}

/// What an operator wants an instance to be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RoleWanted {
    /// The primary, whenever it can be: at the first start, and by `hactl db assign`.
    Primary,
    /// A standby that votes and may take over.
    #[default]
    Sync,
    /// A standby that never votes and takes over in `async` groups or by hand alone.
    Async,
    /// No instance on this node.
    None,
}

/// One instance as it is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceSpec {
    /// What it is to be.
    #[serde(default)]
    pub role: RoleWanted,
    /// Of equally good instances the one with the higher priority takes over; 0: never by itself.
    #[serde(default = "default_priority")]
    pub priority: u32,
    /// Its port, where it differs from the group's.
    #[serde(default)]
    pub port: Option<u16>,
    /// Its data directory, where it differs from the group's.
    #[serde(default)]
    pub directory: Option<String>,
    /// With the role `none`: its data are deleted once it is no instance any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub delete_data: bool,
}

fn default_priority() -> u32 {
    100
}

impl Default for InstanceSpec {
    fn default() -> Self {
        Self {
            role: RoleWanted::Sync,
            priority: default_priority(),
            port: None,
            directory: None,
            delete_data: false,
        }
    }
}

/// A role of applications.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleSpec {
    /// PostgreSQL's SCRAM-SHA-256 verifier; none: the role has no password.
    #[serde(default)]
    pub verifier: Option<String>,
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

/// A database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseSpec {
    /// The role it belongs to.
    pub owner: String,
    /// Extensions to create in it.
    #[serde(default)]
    pub extensions: Vec<String>,
}

/// Limits and times of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// A switchover is refused to a standby that is further behind, in bytes.
    pub max_switchover_lag: u64,
    /// An `async` group fails over by itself only to a standby that was last seen no further behind, in bytes.
    pub max_failover_lag: u64,
    /// A voter that is gone for longer is dropped from the rule, in milliseconds.
    pub degrade_after_ms: u64,
    /// WAL kept for an absent instance, in bytes.
    pub slot_retention: u64,
    /// A primary that cannot be reached and has no successor is waited for this long before an operator is told, in ms.
    pub start_timeout_ms: u64,
    /// A switchover's fast stop may take this long, in milliseconds.
    pub stop_timeout_ms: u64,
    /// A promotion or a start may take this long before another instance is tried, in milliseconds.
    pub promote_timeout_ms: u64,
    /// An instance lost for longer is replaced on another node, in milliseconds.
    pub replace_after_ms: u64,
    /// Failures as a primary within `flap_window_ms` after which an instance is held down.
    pub flap_count: u32,
    /// See `flap_count`, in milliseconds.
    pub flap_window_ms: u64,
    /// How long an instance that flaps is not promoted, in milliseconds.
    pub hold_down_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_switchover_lag: 16 << 20,
            max_failover_lag: 1 << 20,
            degrade_after_ms: 10_000,
            slot_retention: 8 << 30,
            start_timeout_ms: 300_000,
            stop_timeout_ms: 10_000,
            promote_timeout_ms: 30_000,
            replace_after_ms: 600_000,
            flap_count: 3,
            flap_window_ms: 600_000,
            hold_down_ms: 900_000,
        }
    }
}

/// How the proxies of all nodes lead clients to a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProxySpec {
    /// The port on every node that leads to the primary; none: there is none.
    pub port: Option<u16>,
    /// The port that leads to the standbys.
    pub standby_port: Option<u16>,
    /// How long a new connection waits for a server, in milliseconds.
    pub wait_ms: u64,
    /// A standby that is further behind gets no new connections, in bytes; none: any distance.
    pub max_lag: Option<u64>,
    /// The port of the standbys leads to the primary while no standby is fit.
    pub fall_back: bool,
}

impl Default for ProxySpec {
    fn default() -> Self {
        Self {
            port: Some(PROXY_PORTS),
            standby_port: Some(PROXY_PORTS + 1),
            wait_ms: 30_000,
            max_lag: Some(16 << 20),
            fall_back: false,
        }
    }
}

impl ProxySpec {
    /// Its ports.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.port.into_iter().chain(self.standby_port)
    }
}

/// The first port of the proxies; the first group has this one and the next.
pub const PROXY_PORTS: u16 = 5000;

/// Nothing is done by itself while it lasts; what operators ask for is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// When it ends by itself; none: when it is taken back.
    #[serde(default)]
    pub until_ms: Option<i64>,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// Who.
    pub actor: String,
}

/// What an operator wants of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSpec {
    /// What an acknowledged commit is worth.
    #[serde(default)]
    pub durability: Durability,
    /// How many instances there are to be; 0: those of `nodes`.
    #[serde(default)]
    pub instances: u32,
    /// The instances by node.
    pub nodes: BTreeMap<String, InstanceSpec>,
    /// PostgreSQL's port.
    #[serde(default = "default_port")]
    pub port: u16,
    /// PostgreSQL's major version; none: what the nodes have.
    #[serde(default)]
    pub version: Option<u32>,
    /// Data directory; none: a directory of the daemon's.
    #[serde(default)]
    pub directory: Option<String>,
    /// Parameters of postgresql.conf.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// Lines of pg_hba.conf for applications.
    #[serde(default)]
    pub hba: Vec<String>,
    /// Databases.
    #[serde(default)]
    pub databases: BTreeMap<String, DatabaseSpec>,
    /// Roles.
    #[serde(default)]
    pub roles: BTreeMap<String, RoleSpec>,
    /// Limits and times.
    #[serde(default)]
    pub limits: Limits,
    /// Its ports on the proxies.
    #[serde(default)]
    pub proxy: ProxySpec,
    /// A pause.
    #[serde(default)]
    pub pause: Option<Pause>,
    /// It was removed; stays as a tombstone.
    #[serde(default)]
    pub removed: bool,
    /// Removed, with the data of its instances.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub delete_data: bool,
}

fn default_port() -> u16 {
    5432
}

impl GroupSpec {
    /// A group on these nodes, with every default.
    pub fn on<'a>(nodes: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            durability: Durability::Quorum,
            instances: 0,
            nodes: nodes
                .into_iter()
                .map(|n| (n.to_owned(), InstanceSpec::default()))
                .collect(),
            port: default_port(),
            version: None,
            directory: None,
            parameters: BTreeMap::new(),
            hba: Vec::new(),
            databases: BTreeMap::new(),
            roles: BTreeMap::new(),
            limits: Limits::default(),
            proxy: ProxySpec::default(),
            pause: None,
            removed: false,
            delete_data: false,
        }
    }

    /// The role wanted of a node; a node that the master chose is a voting standby.
    pub fn role(&self, node: &str) -> RoleWanted {
        self.nodes.get(node).map_or(RoleWanted::Sync, |i| i.role)
    }

    /// The spec itself lists an instance on a node.
    pub fn role_listed(&self, node: &str) -> bool {
        self.nodes.get(node).is_some_and(|i| i.role != RoleWanted::None)
    }

    /// The priority of a node.
    pub fn priority(&self, node: &str) -> u32 {
        self.nodes.get(node).map_or_else(default_priority, |i| i.priority)
    }

    /// The port of the instance on a node.
    pub fn port(&self, node: &str) -> u16 {
        self.nodes.get(node).and_then(|i| i.port).unwrap_or(self.port)
    }

    /// The node that is to be primary whenever it can be.
    pub fn preferred(&self) -> Option<&str> {
        let mut wanted = self.nodes.iter().filter(|(_, i)| i.role == RoleWanted::Primary);
        wanted.next().map(|(n, _)| n.as_str())
    }

    /// Whether a pause holds at this time.
    pub fn paused(&self, now_ms: i64) -> bool {
        self.pause
            .as_ref()
            .is_some_and(|p| p.until_ms.is_none_or(|end| now_ms < end))
    }
}
