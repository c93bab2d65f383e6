//! What the master never writes, over arbitrary observations.

use std::time::Duration;

use proptest::prelude::*;

use super::{Case, NOW, electing, nodes, steady, stop};
use crate::database::Weaken;
use crate::database::lineage::{LogEnd, Lsn};
use crate::database::local::Upstream;
use crate::database::record::{How, InstanceState, Nodes, Phase, Rule};
use crate::lease;

#[derive(Debug, Clone)]
struct Word {
    sealed: u8,
    lsn: u64,
    old: bool,
    open: bool,
    absent_ms: Option<u64>,
    rebuild: bool,
}

fn word() -> impl Strategy<Value = Word> {
    let absent = proptest::option::of(0u64..10_000);
    (
        0u8..4,
        490u64..510,
        any::<bool>(),
        any::<bool>(),
        absent,
        proptest::bool::weighted(0.1),
    )
        .prop_map(|(sealed, lsn, old, open, absent_ms, rebuild)| Word {
            sealed,
            lsn,
            old,
            open,
            absent_ms,
            rebuild,
        })
}

fn rule() -> impl Strategy<Value = (Nodes, u32)> {
    proptest::collection::btree_set(proptest::sample::select(vec!["b", "c", "d", "e"]), 0..5).prop_flat_map(|voters| {
        let n = voters.len() as u32;
        (Just(voters.into_iter().map(str::to_owned).collect()), 0..=n)
    })
}

/// An election in which anything may have been said.
fn election() -> impl Strategy<Value = Case> {
    let rules = proptest::collection::vec(rule(), 1..3);
    (
        rules,
        proptest::collection::vec(word(), 5),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(rules, words, stopped, lossy)| {
            let mut case = electing();
            case.state.rules.clear();
            for (voters, need) in rules {
                case.state.append_rule(voters, need, nodes(&["a"]));
            }
            for n in ["d", "e"] {
                let mut seen = case.seen("b").clone();
                seen.report.as_mut().unwrap().0.node = n.into();
                case.observed.instances.insert(n.into(), seen);
                case.state.instances.insert(n.into(), InstanceState::default());
                case.spec.nodes.insert(n.into(), Default::default());
            }
            if stopped {
                stop(&mut case, words[0].lsn);
            }
            for (n, word) in ["a", "b", "c", "d", "e"].into_iter().zip(&words) {
                case.seen(n).absent_since = word.absent_ms.map(|ms| NOW - Duration::from_millis(ms));
                case.seen(n).stream_open = word.open;
                if word.rebuild {
                    case.state.instances.get_mut(n).unwrap().rebuild = Some(super::rebuild());
                }
                if n == "a" {
                    continue;
                }
                let r = case.report(n);
                r.sealed = [None, Some(7), Some(8), Some(8)][word.sealed as usize];
                r.log = Some(LogEnd {
                    epoch: 7,
                    lsn: Lsn(word.lsn),
                });
                if word.old {
                    r.history.0.pop();
                    r.log = Some(LogEnd {
                        epoch: 1,
                        lsn: Lsn(word.lsn),
                    });
                }
            }
            if lossy {
                let to = None;
                let operation = "op".to_owned();
                case.state.forced = Some(crate::database::record::Forced {
                    operation,
                    to,
                    allow_data_loss: true,
                });
            }
            case
        })
}

/// Who could have every commit of a rule: reckoned from scratch, over all ways in which commits may have been acknowledged.
fn may_lack(case: &Case, rule: &Rule, chosen: &str) -> bool {
    let rank = |n: &str| {
        let r = case.observed.instances[n].any().unwrap();
        let end = r.stopped.as_ref().and_then(|p| p.log).or(r.log).unwrap();
        case.state.lineage.truncate(&r.history, end)
    };
    let known = |n: &String| {
        let r = case.observed.instances[n].any().unwrap();
        let answered = r.sealed == Some(8) || (n == "a" && r.stopped.is_some());
        answered && !case.state.rebuilding(n)
    };
    let mine = rank(chosen);
    // The primary had it; if its stopped log is no longer than the chosen one's, nothing is missing.
    if rule.primaries.iter().all(|p| known(p) && rank(p) <= mine) {
        return false;
    }
    // Otherwise a commit beyond `mine` may be on any `need` voters that are not known to end by then.
    let could = rule.voters.iter().filter(|v| !known(v) || rank(v) > mine).count();
    could >= rule.need as usize
}

/// The reckoning above can fail: with the rule left out, it does.
#[test]
fn the_reckoning_notices_what_is_left_out() {
    let lax = [
        Weaken {
            no_durability: true,
            ..Weaken::default()
        },
        Weaken {
            no_lineage_rank: true,
            ..Weaken::default()
        },
    ];
    for weaken in lax {
        let config = ProptestConfig {
            cases: 5000,
            failure_persistence: None,
            ..ProptestConfig::default()
        };
        let ran = proptest::test_runner::TestRunner::new(config).run(&election(), |mut case| {
            case.weaken = weaken;
            let chosen = case
                .next()
                .filter(|n| n.phase == Phase::Promoting && case.state.forced.is_none());
            let lacks = chosen
                .and_then(|n| n.primary)
                .is_some_and(|c| case.state.rules.iter().any(|r| may_lack(&case, r, &c)));
            prop_assert!(!lacks);
            Ok(())
        });
        assert!(ran.is_err(), "{weaken:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Invariant 4: whoever is named has every commit that may have been acknowledged, and the one before is fenced.
    #[test]
    fn nobody_is_named_who_may_lack_a_commit(case in election()) {
        let Some(next) = case.next() else { return Ok(()) };
        prop_assert!(next.epoch == 8 || next.phase != Phase::Promoting);
        if next.phase != Phase::Promoting {
            return Ok(());
        }
        let chosen = next.primary.clone().unwrap();
        prop_assert!(case.observed.instances[&chosen].stream_open);
        if case.state.forced.is_none() {
            for rule in &case.state.rules {
                prop_assert!(!may_lack(&case, rule, &chosen), "{} by {:?}", chosen, rule);
            }
        }
        let a = &case.observed.instances["a"];
        let over = lease::over_after(Duration::from_secs(4));
        let gone = a.absent_since.is_some_and(|at| NOW - at >= over);
        let sealed = |r: &Rule| {
            let said = r.voters.iter().filter(|v| case.observed.instances[*v].any().unwrap().sealed == Some(8));
            r.need > 0 && said.count() + r.need as usize > r.voters.len()
        };
        prop_assert!(a.any().unwrap().stopped.is_some() || gone || case.state.rules.iter().all(sealed));
        for rule in &next.rules {
            prop_assert!(rule.voters.is_disjoint(&rule.primaries), "{:?}", rule);
        }
        prop_assert!(case.state.rules.iter().all(|r| next.rules.contains(r)), "unresolved rules are kept");
        if next.promotion.as_ref().unwrap().how == How::Promote {
            prop_assert_eq!(&next.rule().unwrap().primaries, &Nodes::from([chosen]));
        }
    }

    /// A steady primary is given up only while it is suspect, not while enough standbys to acknowledge with it hear it, and
    /// only if a successor can be found; a joint is left by its applied rule alone.
    #[test]
    fn a_steady_primary_is_not_given_up_lightly(
        silent_ms in 0u64..4000, broken: bool, hears in any::<(bool, bool)>(), open in any::<(bool, bool)>(),
        applied in proptest::option::of(1u64..3), at in 0u64..1000, joint: bool
    ) {
        let case = steady().with(|c| {
            if joint {
                c.state.append_rule(nodes(&["c"]), 1, nodes(&["a"]));
            }
            let a = c.seen("a");
            a.report.as_mut().unwrap().1 = NOW - Duration::from_millis(silent_ms);
            (a.stream_open, a.stream_broken) = (!broken, broken.then_some(NOW));
            (c.primary().applied, c.primary().applied_at) = (applied, Some(Lsn(at)));
            for (n, hears, open) in [("b", hears.0, open.0), ("c", hears.1, open.1)] {
                c.report(n).heard = hears.then(|| (Upstream { node: "a".into(), epoch: 7 }, Duration::ZERO));
                c.seen(n).stream_open = open;
            }
        });
        let Some(next) = case.next() else { return Ok(()) };
        prop_assert!(next.epoch >= case.state.epoch);
        if next.phase == Phase::Electing {
            prop_assert!(broken || silent_ms >= 1500);
            prop_assert!(!hears.0 && !hears.1);
            prop_assert!(open.0 && open.1);
            prop_assert_eq!(next.rules, case.state.rules);
        } else if joint && next.rules.len() == 1 {
            prop_assert_eq!(applied, Some(2));
            prop_assert!(at <= 500);
        }
    }
}
