//! Instances that are lost for good, and who takes their place.

use super::*;
use crate::database::observed::Candidate;
use crate::model::Presence;

fn free(c: &mut Case, node: &str, crowded: u32, load_milli: u32) {
    let candidate = Candidate {
        presence: Presence::Online,
        schedulable: true,
        crowded,
        load_milli,
    };
    c.observed.candidates.insert(node.into(), candidate);
}

/// `c` was chosen, does not vote any more and its node was removed; three are wanted.
fn removed() -> Case {
    steady().with(|c| {
        c.spec.instances = 3;
        c.spec.nodes.remove("c");
        c.state.instances.get_mut("c").unwrap().chosen = true;
        c.state.rules.clear();
        c.state.append_rule(nodes(&["b"]), 1, nodes(&["a"]));
        let own = c.primary();
        own.applied = Some(2);
        own.flushed.remove("c");
        c.observed.instances.remove("c");
        c.observed.removed.insert("c".into());
        free(c, "d", 1, 10);
        free(c, "e", 0, 900);
        free(c, "f", 0, 950);
    })
}

#[test]
fn what_was_removed_leaves_and_is_replaced_at_once() {
    let left = removed().next().unwrap();
    assert_eq!(left.instances.keys().collect::<Vec<_>>(), ["a", "b"]);
    // Where nobody of the group is, before the least busy.
    let more = removed().with(|c| c.state = left.clone()).next().unwrap();
    assert!(more.instances["e"].chosen, "{:?}", more.instances);
    let cordoned = removed().with(|c| {
        c.state = left.clone();
        c.observed.candidates.get_mut("e").unwrap().schedulable = false;
        c.observed.candidates.get_mut("f").unwrap().presence = Presence::Offline;
    });
    assert!(cordoned.next().unwrap().instances["d"].chosen);
    // A voter stays until the rule goes without it.
    let votes = removed().with(|c| {
        c.state.rules.clear();
        c.state.append_rule(nodes(&["b", "c"]), 1, nodes(&["a"]));
        c.primary().applied = Some(3);
    });
    assert!(votes.next().is_none_or(|n| n.instances.contains_key("c")));
}

#[test]
fn one_that_is_only_away_has_its_time() {
    let away = |ago: u64| {
        removed().with(|c| {
            c.observed.removed.clear();
            let since = NOW.saturating_sub(Duration::from_secs(ago));
            let seen = Seen {
                absent_since: Some(since),
                ..Seen::default()
            };
            c.observed.instances.insert("c".into(), seen);
        })
    };
    assert_eq!(away(599).next(), None);
    assert!(away(600).next().unwrap().instances.contains_key("e"));
}
