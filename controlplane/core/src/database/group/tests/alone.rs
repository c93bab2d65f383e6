//! Groups in which a commit waits for nobody: the fence is all there is.

use std::time::Duration;

use super::{Case, NOW, electing, nodes, steady};
use crate::database::Timing;
use crate::database::record::Nodes;
use crate::database::spec::Durability;

#[test]
fn granters_change_by_steps_that_overlap() {
    let nobody = steady().with(|c| {
        c.spec.durability = Durability::Async;
        (c.state.rules[0].voters, c.state.rules[0].need) = (Nodes::new(), 0);
        c.primary().grantable = nodes(&["b", "c"]);
    });
    let granters = |c: &Case| c.next().map(|n| n.granters);
    assert_eq!(granters(&nobody), Some(nodes(&["b", "c"])));
    let set = |have: &[&str], confirmed: &[&str], able: &[&str]| {
        let (have, confirmed, able) = (nodes(have), nodes(confirmed), nodes(able));
        granters(&nobody.clone().with(|c| {
            c.state.granters = have;
            c.primary().granters = confirmed;
            c.primary().grantable = able;
        }))
    };
    assert_eq!(set(&["b"], &[], &["b", "c"]), None, "not confirmed");
    assert_eq!(
        set(&["b"], &["b"], &["c"]),
        Some(nodes(&["b", "c"])),
        "adds before it removes"
    );
    assert_eq!(set(&["b", "c"], &["b", "c"], &["c"]), Some(nodes(&["c"])));
    assert_eq!(set(&["b"], &["b"], &[]), None, "the last one stays");
}

#[test]
fn an_async_group_waits_for_the_lease_and_for_every_granter() {
    let over = crate::lease::over_after(Timing::default().session_timeout);
    let case = electing().answers("b", 500).with(|c| {
        c.spec.durability = Durability::Async;
        (c.state.rules[0].voters, c.state.rules[0].need) = (Nodes::new(), 0);
        c.seen("a").absent_since = Some(NOW - over);
    });
    assert_eq!(case.next().unwrap().primary.as_deref(), Some("b"));
    let early = case
        .clone()
        .with(|c| c.seen("a").absent_since = Some(NOW - over + Duration::from_millis(1)));
    assert_eq!(early.next(), None);
    assert!(early.clone().with(|c| c.weaken.absence_is_over = true).next().is_some());
    let granted = case.clone().with(|c| c.state.granters = nodes(&["b", "c"]));
    assert_eq!(granted.next(), None, "c may have promised");
    assert!(granted.answers("c", 400).next().is_some());
    let far = case.with(|c| c.memory.lag = [("b".to_owned(), 2 << 20)].into());
    assert_eq!(far.next(), None, "too far behind to take over by itself");
}
