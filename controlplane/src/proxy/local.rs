//! What this node's own instances are doing, as the endpoints tell it to load balancers and monitoring.
//!
//! The agent writes it from its probes; nothing is decided from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::routes::Sync;

/// This node's instances, live.
pub type InstancesRx = watch::Receiver<Arc<Instances>>;

/// This node's instances, by group.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Instances {
    /// One instance a group at most.
    pub groups: BTreeMap<String, Instance>,
}

/// One PostgreSQL server on this node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Instance {
    /// What it does.
    pub state: State,
    /// Whether it is in recovery, as it said itself, or was when it last ran.
    pub role: Role,
    /// Whether it may take writes now: the record of a steady epoch names this node, the instance was opened in that epoch,
    /// and its guard's deadline lies ahead.
    pub leader: bool,
    /// How commits wait for it.
    pub sync: Sync,
    /// Whether the operator wants no clients balanced to it (the tag `noloadbalance`).
    pub no_load_balance: bool,
    /// What an operator tagged it with.
    pub tags: BTreeMap<String, String>,
    /// `server_version_num`; 0: not known.
    pub version: u32,
    /// The database system's id; 0: not known.
    pub system_id: u64,
    /// 0: not known.
    pub timeline: u32,
    /// Wall clock, ms; 0: not known.
    pub postmaster_start_ms: i64,
    /// Positions in the log.
    pub wal: Wal,
    /// The primary's last position that this node knows of; 0: not known. Standbys are measured against it.
    pub primary_lsn: u64,
    /// What its receiver does: `streaming`, `in archive recovery`; empty: nothing.
    pub replication_state: String,
    /// Of a primary: its walsenders.
    pub replication: Vec<Walsender>,
    /// Parameters that wait for a restart.
    pub pending_restart: Vec<Pending>,
    /// Whether the group is paused.
    pub paused: bool,
    /// Whether the group has no primary in force.
    pub unlocked: bool,
    /// When ZooKeeper was last heard of, wall clock, ms; 0: never.
    pub coordinator_seen_ms: i64,
}

impl Instance {
    /// Whether the server is up and answers.
    pub fn is_running(&self) -> bool {
        self.state == State::Running
    }
}

/// What an instance does, in Patroni's words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum State {
    /// Nothing is known of it.
    #[default]
    Unknown,
    /// initdb runs.
    Initializing,
    /// It is copied from another.
    Copying,
    /// It is rewound.
    Rewinding,
    /// It starts.
    Starting,
    /// It is up and answers.
    Running,
    /// It is told to stop.
    Stopping,
    /// It is down, as it should be.
    Stopped,
    /// It died, or could not be started.
    Crashed,
}

impl State {
    /// Patroni's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Initializing => "initializing new cluster",
            Self::Copying => "creating replica",
            Self::Rewinding => "running pg_rewind",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Crashed => "crashed",
        }
    }
}

/// Which of the two an instance is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Role {
    /// Out of recovery.
    Primary,
    /// In recovery.
    #[default]
    Replica,
    /// It has never run.
    Uninitialized,
}

impl Role {
    /// Patroni's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Uninitialized => "uninitialized",
        }
    }
}

/// Positions in the log; 0: not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wal {
    /// Of a primary: flushed.
    pub location: u64,
    /// Of a standby: received.
    pub received: u64,
    /// Of a standby: replayed.
    pub replayed: u64,
    /// Time of the last replayed commit, wall clock, ms; 0: none.
    pub replayed_ms: i64,
    /// Whether replay is paused.
    pub paused: bool,
}

/// Who streams from a primary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Walsender {
    pub user: String,
    pub application_name: String,
    pub client_addr: String,
    pub state: String,
    pub sync_state: String,
    pub sync_priority: u32,
}

/// A parameter that waits for a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Pending {
    pub parameter: String,
    pub old: String,
    pub new: String,
}
