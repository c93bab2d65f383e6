//! Whom an instance follows, and what becomes of a directory that does not fit.

use super::{Case, down, electing, lineage, named, nodes, primary, standby, stops, upstream};
use crate::database::Weaken;
use crate::database::lineage::Lsn;
use crate::database::local::{Directory, Server};
use crate::database::member::{Action, StartAs, report};
use crate::database::names::Names;
use crate::database::record::{How, Phase, Rebuild};

#[test]
fn one_whose_parameters_are_too_low_starts_again() {
    let low = standby().with(|c| c.local.insufficient = vec!["max_connections".to_owned()]);
    assert!(stops(&low.actions()));
    assert!(
        low.ask(crate::database::member::decide).waits[0].contains("max_connections"),
        "{:?}",
        low.ask(crate::database::member::decide).waits
    );
    // Not while something hangs on it.
    let promoting = low.clone().with(|c| c.state.phase = Phase::Promoting);
    assert!(!stops(&promoting.actions()));
    assert!(matches!(low.with(down).actions().as_slice(), [Action::Start { .. }]));
}

#[test]
fn who_follows_and_who_is_rebuilt() {
    let follow = |c: Case| c.actions();
    let to = upstream("a", 7);
    assert_eq!(
        follow(standby().with(|c| c.local.upstream = Some(upstream("a", 6)))),
        [Action::Follow { upstream: to.clone() }]
    );
    let start = Action::Start {
        role: StartAs::Standby {
            upstream: Some(to.clone()),
        },
        names: Names::Closed,
    };
    assert_eq!(follow(standby().with(down)), [start]);

    let past = standby()
        .with(down)
        .with(|c| (c.local.history, c.local.log) = (lineage(&[(1, 1, 0)]), Some(Lsn(101))));
    let off = standby()
        .with(down)
        .with(|c| c.local.history = lineage(&[(1, 1, 0), (6, 2, 100)]));
    let marked = standby().with(down).with(|c| c.local.marks.promotion = Some(6));
    let empty = standby()
        .with(down)
        .with(|c| (c.local.directory, c.local.log) = (Directory::Empty, None));
    let torn = standby().with(down).with(|c| c.local.directory = Directory::Incomplete);
    let (rewind, copy) = (Action::Rewind { from: to.clone() }, Action::Copy { from: to });
    for (what, case, action, copies) in [
        ("past", past.clone(), &rewind, false),
        ("off", off.clone(), &copy, true),
        ("marked", marked, &copy, true),
        ("empty", empty, &copy, true),
        ("torn", torn, &copy, true),
    ] {
        let unfit = case.ask(report).unfit;
        assert_eq!(unfit.map(|u| u.copy), Some(copies), "{what}");
        assert_eq!(case.actions(), [], "{what}: only the record's order rebuilds");
        let order = Rebuild {
            copy: false,
            why: String::new(),
            operation: String::new(),
            since_ms: 5,
        };
        let ordered = case.with(|c| c.state.instances.get_mut("b").unwrap().rebuild = Some(order));
        assert_eq!(ordered.actions(), std::slice::from_ref(action), "{what}");
        assert_eq!(ordered.clone().with(|c| c.fresh = false).actions(), [], "{what}");
        assert_eq!(
            ordered.clone().with(|c| c.state.phase = Phase::Switching).actions(),
            [],
            "{what}"
        );
        // A rewind that did not help is followed by a copy.
        assert_eq!(
            ordered.with(|c| c.local.marks.rebuilt = 5).actions(),
            std::slice::from_ref(&copy),
            "{what}"
        );
    }
    // It stops first.
    let order = Rebuild {
        copy: true,
        why: String::new(),
        operation: "op".into(),
        since_ms: 5,
    };
    let running = standby().with(|c| c.state.instances.get_mut("b").unwrap().rebuild = Some(order));
    assert!(stops(&running.actions()));
    assert_eq!(
        running.with(|c| c.local.marks.rebuilt = 5).actions(),
        [],
        "done once is enough"
    );
    let unknown = standby().with(down).with(|c| c.local.log = None);
    assert_eq!(
        unknown.actions(),
        [],
        "nothing follows before the end of its log is known"
    );
    let lax = Weaken {
        no_lineage_attach: true,
        ..Weaken::default()
    };
    assert_eq!(off.with(|c| c.weaken = lax).actions().len(), 1);
}

#[test]
fn another_systems_directory_is_never_touched() {
    for case in [
        standby(),
        primary(),
        named(How::Promote),
        named(How::InPlace).with(down),
        electing(),
    ] {
        let foreign = case.with(|c| c.local.directory = Directory::Present { system_id: 43 });
        assert_eq!(foreign.actions(), []);
        assert_eq!(foreign.ask(report).unfit, None);
    }
}

#[test]
fn what_is_left_of_a_tree_is_reaped_before_it_is_proof() {
    let orphaned = primary().with(|c| c.local.server = Server::Orphaned);
    assert_eq!(orphaned.actions(), [Action::Reap]);
    assert_eq!(orphaned.ask(report).stopped, None);
    let lax = Weaken {
        postmaster_is_proof: true,
        ..Weaken::default()
    };
    assert!(orphaned.with(|c| c.weaken = lax).ask(report).stopped.is_some());
    let stopped = primary().with(down).ask(report).stopped.unwrap();
    assert_eq!((stopped.incarnation, stopped.was_primary), (3, true));
}

#[test]
fn slots_are_kept_for_all_and_bounded() {
    let slots = |case: &Case| case.actions();
    let missing = standby().with(|c| c.local.slots = [("a".to_owned(), 0)].into());
    assert_eq!(
        slots(&missing),
        [Action::Slots {
            nodes: nodes(&["a", "c"])
        }]
    );
    let full = standby().with(|c| c.local.slots = [("a".to_owned(), 0), ("c".to_owned(), 9 << 30)].into());
    assert_eq!(slots(&full), [Action::Slots { nodes: nodes(&["a"]) }]);
}
