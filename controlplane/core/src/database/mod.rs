//! The decisions of a PostgreSQL group: who is primary, what makes a commit durable, what each instance does next.
//!
//! Two machines decide, and neither acts. [`group::decide`] is the master's: from the spec, the record and what instances
//! report it makes the next record. [`member::decide`] is each instance's: from the record it read and its own PostgreSQL
//! it makes the next steps. They meet in the record alone; reports and orders between them only save time. Times are on
//! the caller's own monotonic clock unless they end in `_ms`. docs/protocol.md has the rules by number ("R6").

pub mod check;
pub mod durability;
pub mod floors;
pub mod grants;
pub mod group;
pub mod lineage;
pub mod local;
pub mod member;
pub mod names;
pub mod observed;
pub mod ports;
pub mod record;
pub mod spec;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use lineage::{Branch, Fit, Lineage, LogEnd, Lsn};
pub use names::Names;
pub use record::{GroupState, Nodes, Phase, Rule};
pub use spec::{Durability, GroupSpec, RoleWanted};

/// The times that the machines reckon with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// ZooKeeper's session timeout T, the same for all.
    pub session_timeout: Duration,
    /// Silence after which a primary is suspect and a replication link is unheard.
    pub detect: Duration,
    /// How long a grant lasts (protocol R13).
    pub grant: Duration,
    /// An answer or report older than this says nothing about the present.
    pub stale: Duration,
}

impl Timing {
    /// The times that follow from the session timeout and `detect`.
    pub fn new(session_timeout: Duration, detect: Duration) -> Self {
        Self {
            session_timeout,
            detect,
            grant: session_timeout * 2 / 3,
            stale: detect * 2,
        }
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self::new(Duration::from_secs(4), Duration::from_millis(1500))
    }
}

/// Rules left out on purpose, for a simulation that must prove that it would notice. All are off in the product, which
/// offers no way to set one: the daemon passes [`Weaken::default`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weaken {
    /// R5: instances start, and are promoted, with the rule's names rather than closed.
    pub open_starts: bool,
    /// R5: names are taken for applied once they were set, without `SHOW` and without seeing the walsenders follow.
    pub no_show: bool,
    /// R6: a joint is left as soon as the new rule is applied, before anything was flushed under it.
    pub no_flush: bool,
    /// Step 5: the fence alone is enough for a choice.
    pub no_durability: bool,
    /// Step 3: a standby answers a seal without having ended its receiver: the reload is taken for enough.
    pub no_receiver_end: bool,
    /// Step 4 and 6: log ends are ranked as they are, not truncated to the recorded lineage.
    pub no_truncation: bool,
    /// Step 4: log ends are ranked by position alone.
    pub no_lineage_rank: bool,
    /// Step 7: a standby attaches whatever its lineage.
    pub no_lineage_attach: bool,
    /// R2: stale reads enable what cannot be taken back.
    pub stale_reads: bool,
    /// R10: a dead postmaster is proof of stop, whatever is left of its tree.
    pub postmaster_is_proof: bool,
    /// R10: a stopped instance starts again without a newer record.
    pub restart_unasked: bool,
    /// R12: an absent registration is the end of the lease, at once.
    pub absence_is_over: bool,
    /// R13: a giver answers seals before its grant ends.
    pub grant_no_seal_wait: bool,
    /// R13: a giver stands for promotion before its grant ends. Nobody is named without a fence, and a fence waits for the
    /// seals of givers: left out alone, nothing follows.
    pub grant_no_promotion_wait: bool,
    /// R13: a restarted giver does not wait for the longest grant.
    pub grant_forgotten: bool,
    /// R13: the primary counts a grant from its receipt, not from the request's sending.
    pub grant_from_receipt: bool,
    /// R13: any one grant keeps the primary alive, not `need` of each rule or every granter.
    pub grant_of_one: bool,
    /// R13: grants count of instances that the record does not name as granters, and granters are recorded unconfirmed.
    pub grant_unrecorded: bool,
    /// R6: the acknowledging primary is counted among the voters.
    pub primary_votes: bool,
    /// R6: a change of rule, there and back, drops the other rules at once, before the primary applied the new one.
    pub joint_one_step: bool,
    /// R6: voters are rewound or copied while joint. What is torn answers nothing: left out alone, nothing follows.
    pub rebuild_in_joint: bool,
    /// Step 5: a directory that is being rebuilt, torn or empty counts as an answer.
    pub torn_answers: bool,
    /// Step 5: that a standby had stopped before it read of the election counts as its answer, though it starts by itself.
    pub standby_stop_answers: bool,
    /// R6: an election that begins while joint, and its choice, keep the applied rule alone.
    pub joint_forgotten: bool,
}
