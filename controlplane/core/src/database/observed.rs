//! What a master observes of a group, and what it decides: the arguments and results of [`group::decide`](super::group::decide).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::{Presence, Severity};
use crate::refusal::Refusal;

use super::local::Report;
use super::record::{GroupState, Nodes};

/// What the master observes of one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its last report on this group to this master, and when it came. Kept when the stream ends.
    pub report: Option<(Report, Duration)>,
    /// Its report stream is open.
    pub stream_open: bool,
    /// Since when its stream is broken, where it broke under this master (a reset, not silence).
    pub stream_broken: Option<Duration>,
    /// Its registration exists.
    pub registered: bool,
    /// Its registration announces a restart.
    pub restarting: bool,
    /// Since when its registration was seen absent without a break, by this master.
    pub absent_since: Option<Duration>,
}

impl Seen {
    /// The last report if it is younger than `limit`.
    pub fn recent(&self, now: Duration, limit: Duration) -> Option<&Report> {
        let (report, at) = self.report.as_ref()?;
        (now.saturating_sub(*at) < limit).then_some(report)
    }

    /// The last report, whatever its age.
    pub fn any(&self) -> Option<&Report> {
        self.report.as_ref().map(|(r, _)| r)
    }
}

/// A node that could carry an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its state.
    pub presence: Presence,
    /// It takes new instances: not cordoned, not draining, PostgreSQL is installed, the group's port is free.
    pub schedulable: bool,
    /// Instances of the group on other nodes with the same label `zone`; 0 where it has none.
    pub crowded: u32,
    /// How busy it is, in thousandths; of equals the least busy is chosen.
    pub load_milli: u32,
}

/// Something an operator asked for, kept in `ops/<id>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Id of the operation.
    pub operation: String,
    /// What.
    pub what: Wanted,
}

/// What an operator can ask of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Another primary, the present one being well.
    Switchover {
        /// The successor; none: the best.
        to: Option<String>,
        /// Not before this time.
        at_ms: Option<i64>,
    },
    /// Another primary, the present one being lost or not to be waited for.
    Failover {
        /// The successor; none: the best.
        to: Option<String>,
        /// Even if acknowledged commits may be lost.
        allow_data_loss: bool,
    },
    /// The primary stopped and started again where it is, nobody else taking over.
    Restart,
    /// An instance copied afresh.
    Reinit {
        /// Its node.
        node: String,
    },
}

/// All that a master observes. Times are on its monotonic clock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observed {
    /// Now.
    pub now: Duration,
    /// Now for people and for what is stored, milliseconds since 1970-01-01 UTC.
    pub now_ms: i64,
    /// From when on silence counts: when this master had sealed, plus the time it grants agents to find it; later after
    /// an outage of the coordinator.
    pub settled_at: Duration,
    /// The record was sealed by this master's term.
    pub sealed: bool,
    /// Instances by node.
    pub instances: BTreeMap<String, Seen>,
    /// Nodes that could carry an instance.
    pub candidates: BTreeMap<String, Candidate>,
    /// Nodes with an instance that were removed from the cluster: they do not come back.
    pub removed: Nodes,
    /// What operators ask for, oldest first.
    pub requests: Vec<Request>,
    /// The cluster is in maintenance: nothing happens by itself.
    pub maintenance: bool,
}

/// What a master remembers between decisions on a group. Lost with it, which costs time alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// Since when voters are gone.
    pub gone_since: BTreeMap<String, Duration>,
    /// Since when the phase is what it is, under this master.
    pub phase_since: Option<(u64, super::record::Phase, Duration)>,
    /// Since when the applied rule cannot be left.
    pub joint_since: Option<(u64, Duration)>,
    /// Since when standbys held a suspicion up.
    pub held_since: Option<Duration>,
    /// Lag of each standby when the primary was last well, in bytes.
    pub lag: BTreeMap<String, u64>,
    /// The checkpoint ordered for a switchover: the operation, when, and where the log was.
    pub checkpoint: Option<(String, Duration, super::lineage::Lsn)>,
    /// Where the primary's log was when it was last well.
    pub last_primary_log: Option<super::lineage::Lsn>,
    /// Instances that were lost or are a former primary, and have not been seen to follow since.
    pub away: super::record::Nodes,
}

/// A hint to an agent: it saves time and decides nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Read the record now.
    Look {
        /// The node.
        node: String,
    },
    /// Run a CHECKPOINT, so that the stop that follows is short.
    Checkpoint {
        /// The node.
        node: String,
    },
}

/// Something that happened and that operators are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// For instance `db.failover`.
    pub kind: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// One line.
    pub text: String,
}

/// The end of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Id of the operation.
    pub operation: String,
    /// Done, or why not.
    pub result: Result<String, Refusal>,
}

/// What a master does next.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decision {
    /// The next record, to be written by compare-and-set on the version that was decided upon. Everything else in the
    /// decision holds only if the write succeeds; with an unknown outcome the record is read again (R3).
    pub write: Option<Box<GroupState>>,
    /// Hints.
    pub orders: Vec<Order>,
    /// When to decide again though nothing was observed.
    pub look_at: Option<Duration>,
    /// Why, and why not, most telling first.
    pub reasons: Vec<String>,
    /// What to tell operators once the write succeeded.
    pub events: Vec<Event>,
    /// Requests that ended.
    pub finished: Vec<Finished>,
}
