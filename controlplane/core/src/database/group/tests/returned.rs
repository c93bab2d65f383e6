//! Who is told to follow again.

use crate::database::Timing;
use crate::database::observed::Memory;
use crate::database::record::{FailoverRecord, Rebuild};

use super::{Case, nodes, steady};

/// Decides with a memory that lasts. Returns what is told of instances that came back.
fn told(case: &Case, memory: &mut Memory) -> Vec<String> {
    let timing = Timing::default();
    let decision = super::decide(&case.spec, &case.state, &case.observed, memory, &timing, &case.weaken);
    let events = decision.events.into_iter().filter(|e| e.kind == "db.rejoined");
    events.map(|e| e.text).collect()
}

fn without(node: &str) -> Case {
    steady().with(|c| {
        c.primary().flushed.remove(node);
        c.report(node).streams = None;
    })
}

#[test]
fn a_lost_standby_that_follows_again_is_told_once() {
    let mut memory = Memory::default();
    assert!(told(&steady(), &mut memory).is_empty(), "nobody was away");
    let silent = without("b").with(|c| c.seen("b").stream_open = false);
    assert!(told(&silent, &mut memory).is_empty());
    assert!(
        told(&without("b"), &mut memory).is_empty(),
        "it reports, and does not follow yet"
    );
    assert_eq!(told(&steady(), &mut memory), ["b follows a again"]);
    assert!(told(&steady(), &mut memory).is_empty(), "it was told");
}

#[test]
fn a_daemon_or_a_connection_that_comes_back_is_no_news() {
    let mut memory = Memory::default();
    assert!(told(&without("b"), &mut memory).is_empty());
    assert!(
        told(&steady(), &mut memory).is_empty(),
        "its node was there all the time"
    );
    let daemon = steady().with(|c| c.seen("b").stream_open = false);
    assert!(told(&daemon, &mut memory).is_empty());
    assert!(told(&steady(), &mut memory).is_empty(), "it streamed all the time");
}

#[test]
fn a_former_primary_is_told_and_a_rebuilt_one_with_the_end_of_its_rebuild() {
    let after = |c: &mut Case| {
        c.state.last = Some(FailoverRecord {
            from: Some("b".into()),
            to: Some("a".into()),
            done: true,
            ..FailoverRecord::default()
        });
    };
    let mut memory = Memory::default();
    assert!(told(&without("b").with(after), &mut memory).is_empty());
    assert_eq!(told(&steady().with(after), &mut memory), ["b follows a again"]);
    assert!(told(&without("b").with(after), &mut memory).is_empty());
    let rebuilding = steady().with(after).with(|c| {
        c.state.rules[0].voters = nodes(&["c"]);
        c.state.instances.get_mut("b").unwrap().rebuild = Some(Rebuild {
            copy: true,
            why: "test".into(),
            operation: String::new(),
            since_ms: 0,
        });
    });
    assert_eq!(told(&rebuilding, &mut memory), ["b follows a again"], "by the record");
    assert!(told(&steady().with(after), &mut memory).is_empty(), "not a second time");
}
