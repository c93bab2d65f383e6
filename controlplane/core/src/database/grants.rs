//! Grants: how a primary outlives the coordinator (protocol R13), and up to when a guard lets its server live.
//!
//! A grant is a promise of a standby: until it ends I answer no seal and stand for no promotion. Under a rule, `need` such
//! promises leave |voters| − need voters free, one too few for a fence; where the rule asks nobody, every granter of the
//! record must have promised, for the fence waits for every one of them. The giver counts from receiving the request, the
//! primary from sending it, so the promise outlasts what is made of it whatever the two clocks show.

use std::collections::BTreeMap;
use std::time::Duration;

use super::local::{Local, RecordRead};
use super::record::{GroupState, Nodes, Phase};
use super::{Timing, Weaken};

/// Up to when grants let a primary live; none if they do not.
fn granted(record: &GroupState, held: &BTreeMap<String, Duration>, weaken: &Weaken) -> Option<Duration> {
    if weaken.grant_of_one {
        return held.values().max().copied();
    }
    let of = |node: &String| held.get(node).copied();
    let under = |voters: &Nodes, need: u32| {
        if weaken.grant_unrecorded {
            let mut all: Vec<_> = held.values().copied().collect();
            all.sort_unstable_by(|a, b| b.cmp(a));
            return all.get((need as usize).max(1) - 1).copied();
        }
        if need == 0 {
            let all: Option<Vec<_>> = record.granters.iter().map(of).collect();
            return all?.into_iter().min();
        }
        let mut until: Vec<_> = voters.iter().filter_map(of).collect();
        until.sort_unstable_by(|a, b| b.cmp(a));
        until.get(need as usize - 1).copied()
    };
    let each: Option<Vec<_>> = record.rules.iter().map(|r| under(&r.voters, r.need)).collect();
    each?.into_iter().min()
}

/// Up to when the primary of this record may live: the lease from the coordinator, or the grants where they last longer.
pub fn deadline(
    node: &str,
    record: &GroupState,
    lease_until: Option<Duration>,
    held: &BTreeMap<String, Duration>,
    weaken: &Weaken,
) -> Option<Duration> {
    let counts = record.may_open(node);
    lease_until.max(counts.then(|| granted(record, held, weaken)).flatten())
}

/// Whom a primary should ask for grants now: everybody who counts, once its heartbeats have not been acknowledged for a
/// third of the session timeout. Asked again with every heartbeat, for grants are short.
pub fn ask(local: &Local, record: &GroupState, now: Duration, timing: &Timing) -> Nodes {
    let third = timing.session_timeout / 3;
    let short = local.lease_until.is_none_or(|until| until < now + third);
    if !record.may_open(&local.node) || !short {
        return Nodes::new();
    }
    let mut of: Nodes = record.rules.iter().flat_map(|r| r.voters.iter().cloned()).collect();
    of.extend(record.granters.iter().cloned());
    of.remove(&local.node);
    of
}

/// Whether a standby gives the primary of this epoch a grant, and up to when it then holds by the giver's clock. The grant
/// is written and synced before it is sent.
///
/// # Errors
/// Why not, one line.
pub fn give(
    local: &Local,
    record: Option<&RecordRead>,
    primary: &str,
    epoch: u64,
    received: Duration,
    timing: &Timing,
) -> Result<Duration, String> {
    if local.marks.refused > epoch {
        return Err(format!("epoch {epoch} is refused since epoch {}", local.marks.refused));
    }
    let Some(read) = record else {
        return Err("the record was never read".to_owned());
    };
    let state = &read.state;
    if state.epoch != epoch || state.primary.as_deref() != Some(primary) || state.phase != Phase::Steady {
        return Err(format!(
            "{primary} is not the primary of epoch {epoch} in the record last read"
        ));
    }
    if !(state.votes(&local.node) || state.granters.contains(&local.node)) {
        return Err(format!("{} counts for nothing in the record last read", local.node));
    }
    if local.is_primary() {
        return Err("runs as a primary itself".to_owned());
    }
    Ok(received + timing.grant)
}

/// Up to when a giver that restarted keeps the promises that it may have given before: the longest grant from its start.
pub fn after_restart(started: Duration, timing: &Timing, weaken: &Weaken) -> Option<Duration> {
    (!weaken.grant_forgotten).then(|| started + timing.grant)
}

/// Up to when a grant counts for the primary.
pub fn counted(sent: Duration, received: Duration, timing: &Timing, weaken: &Weaken) -> Duration {
    if weaken.grant_from_receipt {
        received + timing.grant
    } else {
        sent + timing.grant
    }
}

/// Whether the giver is still bound by a grant.
pub fn bound(local: &Local, now: Duration) -> bool {
    local.grant_given_until.is_some_and(|until| now < until)
}
