//! What an instance observes of its own PostgreSQL, and what it tells the master of it.
//!
//! [`Local`] is gathered by the agent; [`Report`] is what [`member::report`](super::member::report) makes of it. Both are
//! observations: nothing in them is authority.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::lineage::{Branch, Lineage, LogEnd, Lsn};
use super::names::Names;
use super::record::{GroupState, Nodes};

/// The data directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Directory {
    /// There is none, or it is empty.
    #[default]
    Empty,
    /// A copy, rewind or initdb did not finish in it (a mark on disk says so). It counts for nothing.
    Incomplete,
    /// A data directory.
    Present {
        /// Its system id.
        system_id: u64,
    },
}

/// The server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Server {
    /// No process of its tree exists: killed or ended, *and reaped*.
    #[default]
    Stopped,
    /// Started, not yet answering.
    Starting,
    /// Answers.
    Running,
    /// Told to stop.
    Stopping,
    /// The postmaster is gone; processes of its tree are left.
    Orphaned,
}

/// That an incarnation stopped, its whole process tree reaped (protocol R10), and a promise not to start it as a primary
/// before a newer record, read by R2, names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopProof {
    /// The incarnation that stopped: numbered by the guard, a number for each start, kept on disk.
    pub incarnation: u64,
    /// It ran as a primary when it ended.
    pub was_primary: bool,
    /// Where its log ends, read from its WAL; none while it is being read.
    pub log: Option<LogEnd>,
}

/// Whom an instance streams from, under the name of which epoch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Upstream {
    /// The node.
    pub node: String,
    /// Epoch in its `application_name`.
    pub epoch: u64,
}

/// A WAL receiver.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Receiver {
    /// None runs, seen after the last change of `primary_conninfo` was in force, and none was respawned since.
    #[default]
    Gone,
    /// None is seen at the moment, but one may come back.
    Between,
    /// One runs, connecting or streaming.
    Running,
}

/// What an instance keeps on disk beside PostgreSQL's own files, written and synced before the step they announce.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    /// Every epoch below this one is refused (protocol step 3).
    pub refused: u64,
    /// It may have been promoted in this epoch (protocol step 7).
    pub promotion: Option<u64>,
    /// The last rebuild that was carried out, by the `since_ms` of its order. A finished copy also takes the promotion
    /// marker away.
    pub rebuilt: i64,
}

/// A walsender of a primary, as one row of `pg_stat_replication`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walsender {
    /// The standby, by its `application_name`.
    pub node: String,
    /// The epoch in that name.
    pub epoch: u64,
    /// It streams: not a backup, not catching up from the archive.
    pub streaming: bool,
    /// `sync_priority`: 0 when the names in force in that process do not have it.
    pub priority: u32,
    /// `flush_lsn`.
    pub flushed: Lsn,
}

/// A task of the agent that takes long. While one runs no other begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// initdb.
    Create,
    /// The server is starting or recovering.
    Start,
    /// `pg_promote`.
    Promote,
    /// pg_rewind.
    Rewind,
    /// A base backup.
    Copy {
        /// Bytes done and bytes in all, where known.
        progress: Option<(u64, u64)>,
    },
    /// The server is being stopped.
    Stop,
}

impl std::fmt::Display for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Create => "initdb",
            Self::Start => "start",
            Self::Promote => "promotion",
            Self::Rewind => "pg_rewind",
            Self::Copy { .. } => "base backup",
            Self::Stop => "stop",
        })
    }
}

/// What an instance knows of itself. Times are on its own monotonic clock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Local {
    /// The node.
    pub node: String,
    /// Its data directory.
    pub directory: Directory,
    /// Its server.
    pub server: Server,
    /// Number of the incarnation that runs, or of the last one; 0 before the first start.
    pub incarnation: u64,
    /// The last incarnation ran as a primary. Kept by the guard.
    pub was_primary: bool,
    /// In recovery: a standby, or starting. Meaningful while running.
    pub in_recovery: bool,
    /// `standby.signal` is there: a start makes a standby.
    pub standby_signal: bool,
    /// Histories of its log's timelines; the last branch is the one of its last record. The epoch of a branch is that of
    /// the promotion marker for a timeline made here, otherwise that of the upstream it was received from, and 0 for what
    /// there was before the group. It is kept on disk, for timelines alone do not tell.
    pub history: Lineage,
    /// Where its log ends: what is *flushed*, the greatest of received and replayed while it streams; after a restart read
    /// from the WAL on disk. None while unknown.
    pub log: Option<Lsn>,
    /// What is replayed.
    pub replayed: Lsn,
    /// Marks on disk.
    pub marks: Marks,
    /// The upstream in force: of `primary_conninfo` as the running server shows it, or as stored while stopped.
    pub upstream: Option<Upstream>,
    /// `restore_command` is set, in force.
    pub restores: bool,
    /// Its WAL receiver.
    pub receiver: Receiver,
    /// How long ago the WAL receiver last heard its upstream, and which.
    pub heard: Option<(Upstream, Duration)>,
    /// `SHOW synchronous_standby_names` on a connection made after the last reload.
    pub names: Option<Names>,
    /// What was last set, whether or not the server follows.
    pub names_set: Option<Names>,
    /// Where the log was, asked after `names` and walsenders were first seen as they are: "an LSN taken after the change".
    pub names_lsn: Option<Lsn>,
    /// Walsenders, while it runs.
    pub walsenders: Vec<Walsender>,
    /// End of this incarnation's crash recovery, as a primary.
    pub recovered: Option<Lsn>,
    /// The timeline this incarnation made by a promotion.
    pub promoted: Option<Branch>,
    /// Where crash recovery would begin: the last checkpoint's redo position.
    pub redo: Option<Lsn>,
    /// Commit probes fail since: a full or hung disk.
    pub probe_failing: Option<Duration>,
    /// The archiver is stuck.
    pub archiver_stuck: Option<String>,
    /// Up to when the lease from the coordinator lasts.
    pub lease_until: Option<Duration>,
    /// Up to when a grant that was given lasts, counted from its receipt; after a restart the longest grant from then.
    pub grant_given_until: Option<Duration>,
    /// Grants held by node, up to when: counted from sending the request.
    pub grants_held: BTreeMap<String, Duration>,
    /// Slots kept here for other instances, with the WAL each holds back, in bytes.
    pub slots: BTreeMap<String, u64>,
    /// What the agent is busy with.
    pub task: Option<Task>,
    /// The last task that failed since the record last changed, and why.
    pub failed: Option<(Task, String)>,
    /// Where the oldest WAL begins that it still has, on disk; none while unknown.
    pub oldest: Option<Lsn>,
    /// Parameters with which this standby runs lower than its primary did when it last started, so that replay stands still.
    pub insufficient: Vec<String>,
    /// The server asks for a restart to take parameters over.
    pub pending_restart: BTreeSet<String>,
}

impl Local {
    /// Where its log ends, with the epoch of its last timeline.
    pub fn log_end(&self) -> Option<LogEnd> {
        Some(LogEnd {
            epoch: self.history.last().map_or(0, |b| b.epoch),
            lsn: self.log?,
        })
    }

    /// It runs and is not in recovery.
    pub fn is_primary(&self) -> bool {
        self.server == Server::Running && !self.in_recovery
    }
}

/// The record as an instance read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordRead {
    /// The record.
    pub state: GroupState,
    /// The znode's version: grows with each write.
    pub revision: u64,
    /// The read followed an acknowledged write on the same session (protocol R2). The reader may keep it set for as long
    /// as that read is the latest one and its session lives.
    pub fresh: bool,
}

/// What the primary alone reports.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrimaryReport {
    /// Epoch whose record it follows.
    pub epoch: u64,
    /// Number of the rule in force, seen by `SHOW`; none while closed.
    pub applied: Option<u64>,
    /// Where the log was after that rule was seen in force.
    pub applied_at: Option<Lsn>,
    /// It is open: the rule in force is one it may acknowledge under.
    pub open: bool,
    /// What each standby that streams in this epoch has flushed.
    pub flushed: BTreeMap<String, Lsn>,
    /// End of its crash recovery.
    pub recovered: Option<Lsn>,
    /// The timeline it made.
    pub promoted: Option<Branch>,
    /// A commit probe fails.
    pub probe_failed: bool,
    /// The archiver is stuck.
    pub archiver_stuck: Option<String>,
    /// Where crash recovery would begin.
    pub redo: Option<Lsn>,
    /// Where the oldest WAL begins that it still has: who needs what lies before it cannot follow.
    pub oldest: Option<Lsn>,
    /// The granters of the record it follows: those it needs grants of.
    pub granters: Nodes,
    /// Standbys that have given it a grant in this epoch when asked to, and so could be granters.
    pub grantable: Nodes,
}

/// What an instance tells the master.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The node.
    pub node: String,
    /// Epoch of the record it last read.
    pub epoch: u64,
    /// Revision of the record it last read.
    pub revision: u64,
    /// Its directory.
    pub directory: Directory,
    /// Its server.
    pub server: Server,
    /// It runs as a standby.
    pub standby: bool,
    /// Number of its incarnation.
    pub incarnation: u64,
    /// Its history.
    pub history: Lineage,
    /// Where its log ends; none while unknown or not to be counted on.
    pub log: Option<LogEnd>,
    /// What is replayed.
    pub replayed: Lsn,
    /// Sealed: it refuses every epoch below this one, and nothing it receives could still be acknowledged there.
    pub sealed: Option<u64>,
    /// Proof of stop.
    pub stopped: Option<StopProof>,
    /// Whom it last heard on the replication link, and how long ago.
    pub heard: Option<(Upstream, Duration)>,
    /// Whom it streams from.
    pub streams: Option<Upstream>,
    /// Its marker of a promotion.
    pub promotion: Option<u64>,
    /// Its directory needs a rewind or a copy before it can follow; why.
    pub unfit: Option<Unfit>,
    /// As a primary.
    pub primary: Option<PrimaryReport>,
    /// What it is busy with.
    pub task: Option<Task>,
    /// What failed.
    pub failed: Option<(Task, String)>,
    /// What it waits for, one line each.
    pub waits: Vec<String>,
}

/// Why a directory cannot follow the primary as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// A rewind is not enough.
    pub copy: bool,
    /// Why.
    pub why: String,
}
