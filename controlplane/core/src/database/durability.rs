//! Rules of durability: how many standbys, when enough of them answered, when a rule may be left (protocol R4 to R7, step 5).
//!
//! The one argument behind all of it: a commit acknowledged under a rule is on its primary and on `need` of its voters, so
//! any |voters| − need + 1 of the voters include one that has it, and so does the primary's own stopped directory.

use std::collections::BTreeMap;

use super::Weaken;
use super::lineage::Lsn;
use super::local::PrimaryReport;
use super::record::{GroupState, Nodes, Rule};
use super::spec::Durability;

/// How many of `voters` must flush a commit: a majority of the voters and the primary, the primary having it anyway.
/// Writes go on while voters − need of them are gone, and a failover succeeds while need − 1 are.
pub fn need(voters: usize, durability: Durability) -> u32 {
    let half = u32::try_from(voters.div_ceil(2)).unwrap_or(u32::MAX);
    match durability {
        Durability::Async => 0,
        Durability::Quorum => half,
        Durability::QuorumStrict => half.max(1),
    }
}

/// How many voters of a rule must have answered so that every commit acknowledged under it is among the answers:
/// |voters| − need + 1. None if no number of answers says anything, because the rule asks nobody.
pub fn enough(rule: &Rule) -> Option<usize> {
    let need = rule.need as usize;
    (need > 0).then(|| (rule.voters.len() + 1).saturating_sub(need))
}

/// Whether these answers are enough under one rule.
pub fn answered(rule: &Rule, answers: &Nodes) -> bool {
    enough(rule).is_some_and(|n| rule.voters.intersection(answers).count() >= n)
}

/// Whether every commit acknowledged under `rule` is in one of these answers: of enough voters, or of each primary that
/// could acknowledge under it.
pub fn covered(rule: &Rule, answers: &Nodes) -> bool {
    answered(rule, answers) || (!rule.primaries.is_empty() && rule.primaries.is_subset(answers))
}

/// The rules that these answers do not cover. Under `async`, a rule that asks nobody promises nothing and is left out.
pub fn uncovered<'a>(rules: &'a [Rule], answers: &Nodes, durability: Durability) -> Vec<&'a Rule> {
    let promises = |r: &&Rule| r.need > 0 || durability != Durability::Async;
    rules.iter().filter(promises).filter(|r| !covered(r, answers)).collect()
}

/// Whom a rule still waits for, for people.
pub fn missing(rule: &Rule, answers: &Nodes) -> String {
    let list = |nodes: Vec<&String>| nodes.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let primaries = list(rule.primaries.difference(answers).collect());
    let Some(enough) = enough(rule) else {
        return format!("the data of {primaries}, which acknowledged commits alone");
    };
    let have = rule.voters.intersection(answers).count();
    let voters = list(rule.voters.difference(answers).collect());
    let more = enough.saturating_sub(have);
    if primaries.is_empty() {
        format!("{more} of {voters}")
    } else {
        format!("{more} of {voters}, or the stopped data of {primaries}")
    }
}

/// Whether enough voters of a rule have flushed past a position.
pub fn flushed(rule: &Rule, flushed: &BTreeMap<String, Lsn>, past: Lsn) -> bool {
    let have = rule
        .voters
        .iter()
        .filter(|v| flushed.get(*v).is_some_and(|l| *l >= past));
    have.count() >= rule.need as usize
}

/// Whether a primary that streams to these standbys can acknowledge a commit under a rule.
pub fn can_acknowledge(rule: &Rule, standbys: &Nodes) -> bool {
    rule.voters.intersection(standbys).count() >= rule.need as usize
}

/// Whether the joint may be left for the rule that is being applied (R6): a live primary of this epoch says that this
/// very rule is in force, and `need` of its voters flushed past a position taken after that.
pub fn may_leave(record: &GroupState, primary: &PrimaryReport, weaken: &Weaken) -> bool {
    let Some(rule) = record.rule() else {
        return false;
    };
    if primary.epoch != record.epoch || primary.applied != Some(rule.id) {
        return false;
    }
    weaken.no_flush || primary.applied_at.is_some_and(|at| flushed(rule, &primary.flushed, at))
}

/// Whether the primary alone may acknowledge under some rule in force.
pub fn asks_nobody(record: &GroupState) -> bool {
    record.rules.iter().any(|r| r.need == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nodes(of: &[&str]) -> Nodes {
        of.iter().map(|n| (*n).to_owned()).collect()
    }

    fn rule(voters: &[&str], need: u32, primaries: &[&str]) -> Rule {
        Rule {
            id: 1,
            voters: nodes(voters),
            need,
            primaries: nodes(primaries),
        }
    }

    #[test]
    fn how_many_are_asked() {
        let of = |d: Durability| [0, 1, 2, 3, 4, 5].map(|v| need(v, d));
        assert_eq!(of(Durability::Quorum), [0, 1, 1, 2, 2, 3]);
        assert_eq!(of(Durability::QuorumStrict), [1, 1, 1, 2, 2, 3]);
        assert_eq!(of(Durability::Async), [0; 6]);
    }

    #[test]
    fn what_covers_a_rule() {
        let two = rule(&["b", "c"], 1, &["a"]);
        let alone = rule(&[], 0, &["a"]);
        let joint = rule(&["b"], 1, &["a", "z"]);
        for (rule, answers, want) in [
            (&two, &["b"][..], false),
            (&two, &["b", "c"], true),
            (&two, &["a"], true),
            (&two, &["b", "x"], false),
            (&alone, &["b", "c"], false),
            (&alone, &["a"], true),
            (&joint, &["a"], false),
            (&joint, &["a", "z"], true),
            (&joint, &["b"], true),
        ] {
            assert_eq!(covered(rule, &nodes(answers)), want, "{rule:?} {answers:?}");
        }
        // Nothing is promised where nobody is asked and the operator wants it so.
        let rules = [alone];
        assert_eq!(uncovered(&rules, &Nodes::new(), Durability::Async).len(), 0);
        assert_eq!(uncovered(&rules, &Nodes::new(), Durability::Quorum).len(), 1);
    }

    #[test]
    fn a_joint_is_left_on_the_word_of_this_epoch_alone() {
        let mut record = GroupState {
            epoch: 7,
            ..GroupState::default()
        };
        record.append_rule(nodes(&["b", "c"]), 1, nodes(&["a"]));
        record.append_rule(nodes(&["c", "d"]), 1, nodes(&["a"]));
        let good = PrimaryReport {
            epoch: 7,
            applied: Some(2),
            applied_at: Some(Lsn(100)),
            flushed: [("b".to_owned(), Lsn(500)), ("c".to_owned(), Lsn(100))].into(),
            ..PrimaryReport::default()
        };
        let weaken = Weaken::default();
        assert!(may_leave(&record, &good, &weaken));
        let late = PrimaryReport {
            flushed: [("c".to_owned(), Lsn(99))].into(),
            ..good.clone()
        };
        for bad in [
            PrimaryReport {
                epoch: 6,
                ..good.clone()
            },
            PrimaryReport {
                applied: Some(1),
                ..good.clone()
            },
            PrimaryReport {
                applied: None,
                ..good.clone()
            },
            PrimaryReport {
                applied_at: None,
                ..good.clone()
            },
            PrimaryReport {
                flushed: [("b".to_owned(), Lsn(500))].into(),
                ..good.clone()
            },
            late.clone(),
        ] {
            assert!(!may_leave(&record, &bad, &weaken), "{bad:?}");
        }
        assert!(may_leave(
            &record,
            &late,
            &Weaken {
                no_flush: true,
                ..weaken
            }
        ));
    }

    fn some_rule() -> impl Strategy<Value = Rule> {
        (proptest::collection::btree_set("[b-h]", 1..7), 1usize..7).prop_map(|(voters, need)| {
            let need = need.min(voters.len()) as u32;
            Rule {
                id: 1,
                voters,
                need,
                primaries: Nodes::from(["a".to_owned()]),
            }
        })
    }

    proptest! {
        /// Any answers that are enough include one that has every acknowledged commit: the rule's one promise.
        #[test]
        fn enough_answers_meet_every_commit(rule in some_rule(), acked: u64, heard: u64) {
            let pick = |bits: u64| -> Nodes {
                rule.voters.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1).map(|(_, v)| v.clone()).collect()
            };
            let (has_it, answers) = (pick(acked), pick(heard));
            if can_acknowledge(&rule, &has_it) && answered(&rule, &answers) {
                prop_assert!(has_it.intersection(&answers).next().is_some());
            }
            // And one fewer is not enough: nobody waits for more than must be.
            if !answered(&rule, &answers) {
                let others: Nodes = rule.voters.difference(&answers).cloned().collect();
                prop_assert!(can_acknowledge(&rule, &others));
            }
        }

        /// A majority of primary and voters is asked, so that two halves can never both go on.
        #[test]
        fn two_halves_never_both_acknowledge(voters in 1usize..9) {
            let need = need(voters, Durability::Quorum) as usize;
            let without_primary = voters - need;
            prop_assert!(need >= 1 && need <= voters);
            prop_assert!(without_primary < need + 1);
        }
    }
}
