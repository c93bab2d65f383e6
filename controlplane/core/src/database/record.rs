//! `db/<g>/state`, the record: the only authority on who is a group's primary and what makes a commit durable.
//!
//! It is stored in an [`Envelope`](crate::model::Envelope), which holds the term of the master that wrote it, and changed by the
//! master's compare-and-set alone. Nothing here decides; times are milliseconds since 1970-01-01 UTC, for people only.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::lineage::{Lineage, LogEnd};

/// Names of nodes.
pub type Nodes = BTreeSet<String>;

/// What makes a commit durable while it is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its number within the group; never used twice, so that two equal rules are not taken for one.
    pub id: u64,
    /// The standbys that count. Never includes an instance of `primaries` (protocol R6).
    pub voters: Nodes,
    /// How many of them must have flushed a commit. 0: the primary alone is enough.
    pub need: u32,
    /// The primaries that could acknowledge under it.
    pub primaries: Nodes,
}

/// Where a group stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Never had a primary.
    #[default]
    New,
    /// The first primary is being made, or an existing directory is taken over.
    Bootstrapping,
    /// The old primary's epoch is refused, a new one is being chosen.
    Electing,
    /// A primary is named and not open yet.
    Promoting,
    /// The primary may be open.
    Steady,
    /// The primary is being stopped in favour of another.
    Switching,
}

/// How the named primary comes to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// initdb.
    Create,
    /// An existing directory is started as it is.
    Adopt,
    /// A standby is promoted onto a timeline of its own.
    Promote,
    /// The former primary is started again, on the timeline it had.
    InPlace,
}

/// The promotion under way (`bootstrapping` and `promoting`), and after it the one that made the primary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promotion {
    /// How.
    pub how: How,
    /// Who.
    pub node: String,
    /// In which epoch.
    pub epoch: u64,
    /// The named primary's own history: what the others attach by, before the record's lineage has its new timeline.
    pub lineage: Lineage,
    /// Where its log ended when it was named.
    pub end: LogEnd,
    /// The rule that was made for it, under which nothing was acknowledged before the record was steady.
    #[serde(default)]
    pub rule: Option<u64>,
    /// The incarnation whose stop was proved and that this write orders to start again (protocol R10).
    #[serde(default)]
    pub after_stop: Option<u64>,
}

/// A switchover, while the phase is `switching`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switchover {
    /// The operation that asked for it; empty if nobody did.
    #[serde(default)]
    pub operation: String,
    /// The successor.
    pub to: String,
    /// When it began.
    pub started_ms: i64,
    /// The incarnation of the primary that is to stop.
    #[serde(default)]
    pub incarnation: u64,
}

/// What the record keeps of one instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceState {
    /// It may rewind or be copied afresh. While set it answers for nobody's durability: the order is written before
    /// the directory changes, and taken back when it streams again.
    #[serde(default)]
    pub rebuild: Option<Rebuild>,
    /// When it failed as a primary, newest last.
    #[serde(default)]
    pub failures_ms: Vec<i64>,
    /// It is not promoted before this time, because it failed too often.
    #[serde(default)]
    pub held_until_ms: Option<i64>,
    /// When it was made a member of the group.
    #[serde(default)]
    pub since_ms: i64,
    /// The master chose the node, because the group wants more instances than its spec names.
    #[serde(default)]
    pub chosen: bool,
    /// How often it was copied afresh because the primary had removed log that it needed.
    #[serde(default)]
    pub starvations: u32,
    /// When that was ordered last.
    #[serde(default)]
    pub starved_ms: i64,
    /// A directory of it was seen with the group's system id.
    #[serde(default)]
    pub filled: bool,
}

/// An order to make an instance's directory fit the primary's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebuild {
    /// Copy even where a rewind would do.
    pub copy: bool,
    /// Why.
    pub why: String,
    /// The operation that asked for it; empty if nobody did.
    #[serde(default)]
    pub operation: String,
    /// Since when.
    pub since_ms: i64,
}

/// One finished part of a failover or switchover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseTime {
    /// For instance `sealed`.
    pub name: String,
    /// When it was over, milliseconds after the beginning.
    pub at_ms: u64,
}

/// Why a primary was replaced and why by this instance: kept for `hactl db history`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverRecord {
    /// `failover`, `switchover`, `restart in place`, `abort`, `first primary`.
    pub kind: String,
    /// The primary before.
    #[serde(default)]
    pub from: Option<String>,
    /// The primary after; none while it is not chosen.
    #[serde(default)]
    pub to: Option<String>,
    /// The epoch it led to.
    pub epoch: u64,
    /// The operation that asked for it; empty if nobody did.
    #[serde(default)]
    pub operation: String,
    /// When it began.
    pub started_ms: i64,
    /// What began it.
    pub cause: String,
    /// Its parts, in order.
    #[serde(default)]
    pub phases: Vec<PhaseTime>,
    /// Each answer as it was judged, one line an instance.
    #[serde(default)]
    pub decision: Vec<String>,
    /// Commits that may have been lost, in bytes of log, where an operator or `async` allowed it.
    #[serde(default)]
    pub loss_bytes: Option<u64>,
    /// Why it was rolled back, if it was.
    #[serde(default)]
    pub rolled_back: Option<String>,
    /// The primary is open.
    #[serde(default)]
    pub done: bool,
}

/// A failover that an operator asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forced {
    /// The operation.
    pub operation: String,
    /// The successor; none: the best.
    #[serde(default)]
    pub to: Option<String>,
    /// Acknowledged commits may be lost.
    #[serde(default)]
    pub allow_data_loss: bool,
}

/// The record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupState {
    /// Numbers the group's primaries; only grows.
    pub epoch: u64,
    /// Where it stands.
    pub phase: Phase,
    /// The primary; none while electing.
    #[serde(default)]
    pub primary: Option<String>,
    /// The primary of the last steady phase: whom an election is about.
    #[serde(default)]
    pub former: Option<String>,
    /// One rule, or several while joint; newest last.
    #[serde(default)]
    pub rules: Vec<Rule>,
    /// Number of the rule that PostgreSQL is being given.
    #[serde(default)]
    pub applying: u64,
    /// How many rules were ever made: the newest one's number.
    #[serde(default)]
    pub rules_made: u64,
    /// The primary's timeline when it was last steady.
    #[serde(default)]
    pub timeline: u32,
    /// The lineage of the last steady phase.
    #[serde(default)]
    pub lineage: Lineage,
    /// The instances whose grants count (protocol R13).
    #[serde(default)]
    pub granters: Nodes,
    /// PostgreSQL's system id of the group; none before the first primary.
    #[serde(default)]
    pub system_id: Option<u64>,
    /// Since when the phase holds.
    #[serde(default)]
    pub since_ms: i64,
    /// Why it holds, one line.
    #[serde(default)]
    pub reason: String,
    /// The promotion under way or the last one.
    #[serde(default)]
    pub promotion: Option<Promotion>,
    /// The switchover under way.
    #[serde(default)]
    pub switchover: Option<Switchover>,
    /// The failover under way was asked for by an operator.
    #[serde(default)]
    pub forced: Option<Forced>,
    /// The former primary is to be replaced even if it answers: it cannot write, or reaches none of its standbys.
    #[serde(default)]
    pub replace: bool,
    /// The group's instances: those the spec names and those the master chose.
    #[serde(default)]
    pub instances: BTreeMap<String, InstanceState>,
    /// The last failover or switchover, or the one under way.
    #[serde(default)]
    pub last: Option<FailoverRecord>,
    /// Voters were dropped below what the spec wants; why.
    #[serde(default)]
    pub degraded: Option<String>,
}

impl GroupState {
    /// The rule that PostgreSQL is being given.
    pub fn rule(&self) -> Option<&Rule> {
        self.rules.iter().find(|r| r.id == self.applying)
    }

    /// Whether several rules are in force.
    pub fn joint(&self) -> bool {
        self.rules.len() > 1
    }

    /// A rule with a number of its own, appended and to be applied.
    pub fn append_rule(&mut self, voters: Nodes, need: u32, primaries: Nodes) {
        self.rules_made += 1;
        self.applying = self.rules_made;
        self.rules.push(Rule {
            id: self.rules_made,
            voters,
            need,
            primaries,
        });
    }

    /// The lineage that instances attach by: the named primary's own while it is not steady.
    pub fn target_lineage(&self) -> &Lineage {
        match (&self.promotion, self.phase) {
            (Some(p), Phase::Promoting | Phase::Bootstrapping) => &p.lineage,
            _ => &self.lineage,
        }
    }

    /// Whether `node` is the primary that this record allows to be open.
    pub fn may_open(&self, node: &str) -> bool {
        self.phase == Phase::Steady && self.primary.as_deref() == Some(node)
    }

    /// Whether `node` votes in any rule.
    pub fn votes(&self, node: &str) -> bool {
        self.rules.iter().any(|r| r.voters.contains(node))
    }

    /// Whether an instance's directory may not be counted on.
    pub fn rebuilding(&self, node: &str) -> bool {
        self.instances.get(node).is_some_and(|i| i.rebuild.is_some())
    }
}
