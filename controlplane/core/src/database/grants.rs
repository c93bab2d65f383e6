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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::durability;
    use proptest::prelude::*;

    const T: Timing = Timing {
        session_timeout: Duration::from_secs(4),
        detect: Duration::from_millis(1500),
        grant: Duration::from_millis(2666),
        stale: Duration::from_secs(3),
    };

    fn secs(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    fn nodes(of: &[&str]) -> Nodes {
        of.iter().map(|n| (*n).to_owned()).collect()
    }

    fn record(rules: &[(&[&str], u32)], granters: &[&str]) -> GroupState {
        let mut record = GroupState {
            epoch: 7,
            phase: Phase::Steady,
            primary: Some("a".into()),
            granters: nodes(granters),
            ..GroupState::default()
        };
        for (voters, need) in rules {
            record.append_rule(nodes(voters), *need, nodes(&["a"]));
        }
        record
    }

    fn until(record: &GroupState, held: &[(&str, u64)]) -> Option<u64> {
        let held = held.iter().map(|(n, s)| ((*n).to_owned(), secs(*s))).collect();
        deadline("a", record, None, &held, &Weaken::default()).map(|d| d.as_secs())
    }

    #[test]
    fn what_a_primary_may_live_by() {
        let quorum = record(&[(&["b", "c"], 1)], &[]);
        assert_eq!(until(&quorum, &[]), None);
        assert_eq!(until(&quorum, &[("b", 5), ("c", 9)]), Some(9));
        assert_eq!(until(&quorum, &[("d", 5)]), None);
        // Of each rule, while joint.
        let joint = record(&[(&["b", "c"], 1), (&["d"], 1)], &[]);
        assert_eq!(until(&joint, &[("b", 9)]), None);
        assert_eq!(until(&joint, &[("b", 9), ("d", 6)]), Some(6));
        let two = record(&[(&["b", "c", "d"], 2)], &[]);
        assert_eq!(until(&two, &[("b", 9), ("d", 6)]), Some(6));
        assert_eq!(until(&two, &[("b", 9), ("c", 7), ("d", 6)]), Some(7));
        // Where nobody is asked: of every granter there is, and of none there is none.
        let nobody = record(&[(&[], 0)], &["b", "c"]);
        assert_eq!(until(&nobody, &[("b", 9)]), None);
        assert_eq!(until(&nobody, &[("b", 9), ("c", 6)]), Some(6));
        assert_eq!(until(&record(&[(&[], 0)], &[]), &[("b", 9)]), None);
        // A primary that the record does not let be open lives by its lease alone.
        let other = GroupState {
            phase: Phase::Switching,
            ..quorum.clone()
        };
        assert_eq!(until(&other, &[("b", 9)]), None);
        assert_eq!(
            deadline("a", &quorum, Some(secs(3)), &BTreeMap::new(), &Weaken::default()),
            Some(secs(3))
        );
    }

    #[test]
    fn who_gives_a_grant() {
        let state = record(&[(&["b", "c"], 1)], &[]);
        let read = |state: &GroupState| RecordRead {
            state: state.clone(),
            revision: 1,
            fresh: false,
        };
        let local = |node: &str, refused: u64| {
            let mut local = Local {
                node: node.into(),
                ..Local::default()
            };
            local.marks.refused = refused;
            local
        };
        let give = |l: &Local, r: &GroupState, epoch| give(l, Some(&read(r)), "a", epoch, secs(10), &T);
        assert_eq!(give(&local("b", 7), &state, 7), Ok(secs(10) + T.grant));
        assert!(give(&local("b", 8), &state, 7).is_err(), "sealed");
        assert!(give(&local("b", 0), &state, 6).is_err(), "another epoch");
        assert!(give(&local("x", 0), &state, 7).is_err(), "counts for nothing");
        let electing = GroupState {
            phase: Phase::Electing,
            primary: None,
            epoch: 8,
            ..state.clone()
        };
        assert!(give(&local("b", 0), &electing, 7).is_err());
        assert!(super::give(&local("b", 0), None, "a", 7, secs(1), &T).is_err());
    }

    #[test]
    fn a_primary_asks_once_its_heartbeats_fail() {
        let state = record(&[(&["b", "c"], 1)], &["d"]);
        let asked = |left_ms: u64| {
            let lease_until = Some(secs(10) + Duration::from_millis(left_ms));
            let local = Local {
                node: "a".into(),
                lease_until,
                ..Local::default()
            };
            ask(&local, &state, secs(10), &T)
        };
        assert!(asked(2600).is_empty());
        assert_eq!(asked(1000), nodes(&["b", "c", "d"]));
    }

    proptest! {
        /// While grants keep a primary alive, the seals of those who are free are one too few for a fence.
        #[test]
        fn grants_and_a_fence_exclude_each_other(
            voters in proptest::collection::btree_set("[b-h]", 1..7), need in 1u32..4, granted: u8, at in 0u64..20
        ) {
            let need = need.min(voters.len() as u32);
            let mut state = record(&[], &[]);
            state.append_rule(voters.clone(), need, nodes(&["a"]));
            let gives = |i: usize| granted >> (i % 8) & 1 == 1;
            let held: BTreeMap<_, _> = voters.iter().enumerate().filter(|(i, _)| gives(*i))
                .map(|(i, v)| (v.clone(), secs(i as u64 * 3))).collect();
            let alive = deadline("a", &state, None, &held, &Weaken::default()).is_some_and(|d| secs(at) < d);
            let free: Nodes = voters.iter().filter(|v| held.get(*v).is_none_or(|u| secs(at) >= *u)).cloned().collect();
            prop_assert!(!(alive && durability::answered(&state.rules[0], &free)));
        }

        /// The giver keeps its promise at least as long as the primary makes use of it, whatever the request's travel.
        #[test]
        fn the_giver_outlasts_the_primary(sent in 0u64..1000, out in 0u64..1000, back in 0u64..1000) {
            let ms = Duration::from_millis;
            let given = ms(sent + out) + T.grant;
            prop_assert!(counted(ms(sent), ms(sent + out + back), &T, &Weaken::default()) <= given);
        }
    }
}
