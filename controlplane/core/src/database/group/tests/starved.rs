//! Standbys whose primary has removed log that they need.

use super::*;
use crate::database::local::Task;

const MINUTE: i64 = 60_000;

/// `c` is gone from the primary for a minute, and left the rule; the primary's log begins after its end.
fn starving() -> Case {
    steady().with(|c| {
        c.state.rules.clear();
        c.state.append_rule(nodes(&["b"]), 1, nodes(&["a"]));
        let own = c.primary();
        own.applied = Some(2);
        own.flushed.remove("c");
        own.oldest = Some(Lsn(501));
        (c.report("c").heard, c.report("c").streams) = (None, None);
        c.memory.gone_since.insert("c".into(), NOW - Duration::from_secs(60));
    })
}

fn ordered(c: &Case) -> bool {
    c.next().is_some_and(|n| n.rebuilding("c"))
}

#[test]
fn one_that_lacks_removed_log_is_copied_by_itself() {
    let decision = starving().decide();
    let order = decision.write.unwrap().instances["c"].rebuild.clone().unwrap();
    assert!(order.copy && order.why.contains("removed"), "{order:?}");
    assert_eq!(decision.events[0].severity, Severity::Warning);
    for (what, not) in [
        ("has its log", starving().with(|c| c.primary().oldest = Some(Lsn(500)))),
        ("unknown", starving().with(|c| c.primary().oldest = None)),
        (
            "streams",
            starving().with(|c| {
                c.primary().flushed.insert("c".into(), Lsn(500));
            }),
        ),
        (
            "away for a moment",
            starving().with(|c| {
                c.memory.gone_since.insert("c".into(), NOW);
            }),
        ),
        ("does not run", starving().with(|c| c.report("c").standby = false)),
        (
            "is being copied",
            starving().with(|c| c.report("c").task = Some(Task::Copy { progress: None })),
        ),
        ("is paused", starving().with(|c| c.observed.maintenance = true)),
    ] {
        assert!(!ordered(&not), "{what}");
    }
}

#[test]
fn a_voter_is_not_copied_while_joint_however_long_that_lasts() {
    // An old rule that `c` votes in, and a new one whose voter is gone too: the joint is stuck.
    let joint = starving().with(|c| {
        c.spec.durability = crate::database::Durability::QuorumStrict;
        c.state.rules.clear();
        c.state.append_rule(nodes(&["b", "c"]), 1, nodes(&["a"]));
        c.state.append_rule(nodes(&["c"]), 1, nodes(&["a"]));
        c.state.instances.remove("b");
        c.spec.nodes.remove("b");
        let rule = c.state.applying;
        let own = c.primary();
        own.applied = Some(rule - 1);
        own.flushed.remove("b");
        c.memory.joint_since = Some((rule, NOW - Duration::from_secs(600)));
    });
    assert!(!ordered(&joint));
    let told = joint.decide().reasons;
    assert!(told.iter().any(|r| r.contains("once the rule")), "{told:?}");
    // No voter, or settled: then it may be.
    let settled = joint.with(|c| {
        c.state.rules.remove(0);
    });
    assert!(ordered(&settled));
}

#[test]
fn it_is_not_copied_again_and_again() {
    let now_ms = starving().observed.now_ms;
    let after = |times: u32, ago: i64| {
        starving().with(|c| {
            let kept = c.state.instances.get_mut("c").unwrap();
            (kept.starvations, kept.starved_ms) = (times, now_ms - ago);
        })
    };
    let early = after(1, 9 * MINUTE);
    assert!(!ordered(&early));
    let told = early.decide().reasons;
    assert!(told.iter().any(|r| r.contains("again in 2 min")), "{told:?}");
    assert!(ordered(&after(1, 10 * MINUTE)));
    assert!(!ordered(&after(2, 19 * MINUTE)) && ordered(&after(2, 20 * MINUTE)));
    assert!(!ordered(&after(60, 719 * MINUTE)) && ordered(&after(60, 720 * MINUTE)));
    // It counts on, and begins anew after two days.
    let times = |c: Case| c.next().unwrap().instances["c"].starvations;
    assert_eq!((times(after(2, 20 * MINUTE)), times(after(9, 3000 * MINUTE))), (3, 1));
    // An order that stands has its time, and is given again where a copy did not help.
    let stands = |ago: i64| {
        starving().with(|c| {
            let kept = c.state.instances.get_mut("c").unwrap();
            let since_ms = now_ms - ago;
            kept.rebuild = Some(crate::database::record::Rebuild { since_ms, ..rebuild() });
        })
    };
    assert_eq!(stands(MINUTE).next(), None);
    let again = stands(10 * MINUTE).next().unwrap();
    assert_eq!(again.instances["c"].rebuild.as_ref().unwrap().since_ms, now_ms);
}
