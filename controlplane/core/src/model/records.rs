//! The records themselves. Times are milliseconds since 1970-01-01 UTC; sizes are bytes.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::database::RoleWanted;

/// The cluster's root znode; written once, when the cluster is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootRecord {
    /// Stored format.
    pub v: u32,
    /// The cluster's name.
    pub cluster: String,
    /// Distinguishes clusters of the same name.
    pub cluster_id: String,
    /// When it was made.
    pub created_ms: i64,
    /// The session timeout every daemon must have, for leases are reckoned from it.
    pub session_timeout_ms: u64,
}

/// `members/<n>`: what a daemon says of itself. Ephemeral.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Stored format.
    pub v: u32,
    /// The node's name.
    pub node: String,
    /// Kept in the node's state directory: tells a restarted daemon from another of the same name.
    pub token: String,
    /// The operating system's boot id.
    pub boot_id: String,
    /// Process id, meaningful together with the boot id.
    pub pid: u32,
    /// New for each start of the daemon.
    pub run: String,
    /// gRPC endpoint, host:port.
    pub address: String,
    /// HTTP endpoint, host:port.
    pub http_address: String,
    /// Version of had.
    pub version: String,
    /// Operating system, for people.
    pub os: String,
    /// When the daemon started.
    pub started_ms: i64,
    /// A restart was announced: the node is expected back within its session.
    #[serde(default)]
    pub restarting: bool,
    /// What the node has.
    pub capacity: Resources,
    /// Id of the write.
    #[serde(default)]
    pub write: String,
}

/// `election/c-<uuid>-<counter>`: one candidacy. Ephemeral.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidacy {
    /// Stored format.
    pub v: u32,
    /// The candidate.
    pub node: String,
    /// Its gRPC endpoint.
    pub address: String,
}

/// `master`: who leads, under which term. Changed by compare-and-set of the candidates only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MasterRecord {
    /// Stored format.
    pub v: u32,
    /// Raised by each new master before it seals anything.
    pub term: u64,
    /// Id of the write.
    pub write: String,
    /// The master, or none after it gave up its place.
    #[serde(default)]
    pub holder: Option<Holder>,
    /// Mastership is on its way to this candidate.
    #[serde(default)]
    pub transfer: Option<Transfer>,
    /// The node an operator's transfer named: preferences do not move mastership away from it.
    #[serde(default)]
    pub pinned: Option<String>,
}

/// The master named in [`MasterRecord`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The node.
    pub node: String,
    /// Name of its election znode; mastership ends when that is gone.
    pub candidate: String,
    /// Its gRPC endpoint.
    pub address: String,
    /// Since when.
    pub since_ms: i64,
}

/// A transfer under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// The node that is to lead.
    pub node: String,
    /// Its election znode.
    pub candidate: String,
}

/// Amounts of what a node has or a service needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Thousandths of a core.
    pub cpu_milli: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of disk.
    pub disk: u64,
}

/// What an operator wants of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// gRPC endpoint, host:port.
    pub address: String,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Business scenarios the node serves.
    #[serde(default)]
    pub scenarios: BTreeSet<String>,
    /// Replaces what was measured, field by field where not 0.
    #[serde(default)]
    pub capacity_override: Resources,
    /// Whether it may be master.
    pub master_eligible: bool,
    /// The eligible online node with the highest preference above 0 is made master.
    #[serde(default)]
    pub master_preference: i32,
    /// Takes nothing new.
    #[serde(default)]
    pub cordoned: bool,
    /// Is being emptied.
    #[serde(default)]
    pub draining: bool,
}

/// `nodes/<n>`: a node that was added. Stays as a tombstone when it is removed, for masters never delete fenced znodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// What is wanted of it.
    pub spec: NodeSpec,
    /// It was removed.
    #[serde(default)]
    pub removed: bool,
    /// When it was added.
    pub added_ms: i64,
}

/// A node's state as the master last concluded it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// Never registered since it was added.
    Unseen,
    /// Registered and reporting.
    Online,
    /// Silent or unregistered, not yet given up.
    Suspect,
    /// Given up.
    Offline,
}

/// `assignments/<n>`: what the master concluded about a node and what the node must run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The node's state.
    pub presence: Presence,
    /// Since when.
    pub since_ms: i64,
    /// Why, one line; empty when online.
    #[serde(default)]
    pub reason: String,
    /// The daemon's run that was last seen.
    #[serde(default)]
    pub run: String,
    /// The boot id last seen.
    #[serde(default)]
    pub boot_id: String,
}

/// `cluster`: what concerns all nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// No automatic action is taken while set.
    #[serde(default)]
    pub maintenance: Option<Maintenance>,
}

/// A maintenance window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Maintenance {
    /// When it ends by itself; none: when it is switched off.
    #[serde(default)]
    pub until_ms: Option<i64>,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// Who.
    pub actor: String,
}

/// What a user's certificate lets its bearer do; each includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessRole {
    /// Reads.
    Viewer,
    /// Changes nodes and mastership.
    Operator,
    /// Manages users as well.
    Admin,
}

/// `access`: users and revocations. Holds no secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessRecord {
    /// Users by name.
    #[serde(default)]
    pub users: BTreeMap<String, UserRecord>,
    /// Certificates of nodes by the node's name.
    #[serde(default)]
    pub nodes: BTreeMap<String, UserRecord>,
}

/// The certificates of one user or node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRecord {
    /// The role; none for nodes.
    #[serde(default)]
    pub role: Option<AccessRole>,
    /// Serial numbers issued, hexadecimal, newest last.
    pub serials: Vec<String>,
    /// When the newest expires.
    pub expires_ms: i64,
    /// When it was recorded.
    pub created_ms: i64,
    /// Certificates issued at or before this time are refused.
    #[serde(default)]
    pub revoked_ms: Option<i64>,
}

/// How much an entry matters to an administrator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// For the record.
    Info,
    /// Wants attention.
    Warning,
    /// Something is down.
    Error,
}

/// `changes/c-<seq>`: one entry of the change log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Stored format.
    pub v: u32,
    /// Its number; entries are numbered without gaps.
    pub seq: u64,
    /// When.
    pub time_ms: i64,
    /// For instance `node.offline`.
    pub kind: String,
    /// For instance `node/n1`.
    pub subject: String,
    /// How much it matters.
    pub severity: Severity,
    /// One line for people.
    pub text: String,
    /// The value before, where there is one.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub before: serde_json::Value,
    /// The value after.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub after: serde_json::Value,
    /// What was observed, or the operator's reason.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cause: String,
    /// Who: `user/alice`, `node/n1` or `master`.
    pub actor: String,
    /// Term of the master that made it.
    pub term: u64,
    /// Request that asked for it; a repeated request with the same id is the same change.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request: String,
    /// Id of the write.
    pub write: String,
}

/// State of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OperationState {
    /// Accepted.
    Pending,
    /// Under way.
    Running,
    /// Done.
    Succeeded,
    /// Ended without success.
    Failed,
    /// Ended by an operator.
    Cancelled,
}

/// What an operation does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum OperationKind {
    /// Moves mastership.
    TransferMaster {
        /// Target.
        to: String,
        /// Term in which it was asked for.
        from_term: u64,
    },
    /// Empties a node.
    DrainNode {
        /// The node.
        node: String,
        /// When it is given up.
        #[serde(default)]
        deadline_ms: Option<i64>,
    },
    /// Something done to a database group.
    Database {
        /// The group.
        group: String,
        /// What.
        what: DatabaseOperation,
    },
}

/// What an operation does to a database group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum DatabaseOperation {
    /// Makes it: over when it has a primary and its instances stream.
    Create,
    /// Removes it: over when none of its instances runs.
    Remove,
    /// Makes a node's instance what was assigned.
    Assign {
        /// The node.
        node: String,
        /// What it is to be.
        role: RoleWanted,
    },
    /// Another primary, in order.
    Switchover {
        /// The successor; none: the best.
        #[serde(default)]
        to: Option<String>,
        /// Not before this time.
        #[serde(default)]
        at_ms: Option<i64>,
    },
    /// Another primary, the present one being given up.
    Failover {
        /// The successor; none: the best.
        #[serde(default)]
        to: Option<String>,
        /// Acknowledged commits may be lost.
        #[serde(default)]
        allow_data_loss: bool,
    },
    /// An instance copied afresh.
    Reinit {
        /// Its node.
        node: String,
    },
    /// Instances restarted.
    Restart {
        /// The incarnation of each that is to be replaced, by node.
        targets: BTreeMap<String, u64>,
        /// One after the other.
        rolling: bool,
        /// Parameters that the primary is to have lower than its standbys: it is restarted in place, before them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        lowers: Vec<String>,
    },
}

/// `ops/<id>`: a long-running request. Survives the master.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationRecord {
    /// What it does.
    pub what: OperationKind,
    /// How far it is.
    pub state: OperationState,
    /// What happened, with times.
    pub steps: Vec<(i64, String)>,
    /// Who asked.
    pub actor: String,
    /// The operator's reason.
    #[serde(default)]
    pub reason: String,
    /// When it was asked for.
    pub created_ms: i64,
    /// When it ended.
    #[serde(default)]
    pub finished_ms: Option<i64>,
    /// Error code and text of a failure.
    #[serde(default)]
    pub error: Option<(String, String)>,
    /// The request's id.
    #[serde(default)]
    pub request: String,
    /// What came of it, one line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub result: String,
}

/// `hooks` cursor and others use sequence numbers as names: the znode name of a change.
pub fn change_name(seq: u64) -> String {
    format!("c-{seq:012}")
}

/// The number in a change's znode name.
pub fn change_seq(name: &str) -> Option<u64> {
    name.strip_prefix("c-")
        .filter(|d| d.len() == 12 && d.bytes().all(|b| b.is_ascii_digit()))?
        .parse()
        .ok()
}
