//! The steps an instance can be told to take. Each is idempotent: taken again, it changes nothing.

use std::time::Duration;

use crate::database::local::Upstream;
use crate::database::names::Names;
use crate::database::record::Nodes;

/// As what a server is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartAs {
    /// With `standby.signal`; it streams from the upstream, or from nobody.
    Standby {
        /// The upstream.
        upstream: Option<Upstream>,
    },
    /// Without it: recovers and is a primary, on the timeline it had.
    Primary,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// initdb into the empty directory, then a start as a primary.
    Create {
        /// Stored names of its configuration.
        names: Names,
    },
    /// Starts the server. Whatever its stored configuration had, the names given here stand in it before it runs.
    Start {
        /// As what.
        role: StartAs,
        /// Names it starts with: closed.
        names: Names,
    },
    /// Stops the server: fast, then, after the time a fast stop may take, immediately. Ends with proof of stop.
    Stop {
        /// Do not wait: immediate at once.
        immediate: bool,
        /// Why.
        why: String,
    },
    /// Kills and reaps what is left of a tree whose postmaster is gone. Ends with proof of stop.
    Reap,
    /// Ends the walsenders to everybody but this node, so that none holds up a fast stop.
    EndWalsenders {
        /// Whose walsender stays.
        except: String,
    },
    /// Writes and syncs, in this order: the mark of the refused epoch, an empty `primary_conninfo` and an empty
    /// `restore_command`; then reloads.
    Refuse {
        /// Every epoch below this one is refused.
        epoch: u64,
    },
    /// SIGTERM to the WAL receiver, then looks whether it is gone and stays gone.
    EndReceiver,
    /// Writes and syncs the promotion marker.
    MarkPromotion {
        /// The epoch.
        epoch: u64,
    },
    /// Promotes; the names stay closed.
    Promote {
        /// The epoch.
        epoch: u64,
        /// Names it is promoted with: closed.
        names: Names,
    },
    /// Sets the names and reloads. Only what `SHOW` then says counts.
    SetNames {
        /// The names.
        names: Names,
    },
    /// Streams from this upstream from now on: `primary_conninfo`, slot and `restore_command`, then a reload.
    Follow {
        /// The upstream.
        upstream: Upstream,
    },
    /// Rewinds the stopped directory; the old one's files are kept aside where a rewind cannot be repeated.
    Rewind {
        /// From this node.
        from: Upstream,
    },
    /// Copies afresh beside the old directory, which is kept until the new one streams.
    Copy {
        /// From this node.
        from: Upstream,
    },
    /// Holds exactly these slots: makes what is missing, drops what is not named.
    Slots {
        /// Nodes to keep WAL for.
        nodes: Nodes,
    },
    /// Asks the granters for grants: sent by the primary, who counts from the sending.
    AskGrants {
        /// Whom.
        of: Nodes,
        /// The epoch.
        epoch: u64,
    },
}

/// What an instance does next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemberDecision {
    /// The steps.
    pub actions: Vec<Action>,
    /// What it waits for and why, one line each.
    pub waits: Vec<String>,
    /// When to decide again though nothing changed.
    pub look_at: Option<Duration>,
    /// Up to when the server may live, for the guard: the lease, or the grants where they last longer. None: nothing is
    /// said, and the guard keeps the deadline that it has. A daemon that has just started has no lease yet, and must not
    /// take away the deadline of a primary that runs.
    pub deadline: Option<Duration>,
}
