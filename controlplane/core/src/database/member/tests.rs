//! What an instance does, rule by rule.

mod properties;
mod standbys;

use std::time::Duration;

use super::*;
use crate::database::lineage::{Branch, Lineage, LogEnd, Lsn};
use crate::database::local::{Receiver, Task, Upstream, Walsender};
use crate::database::record::{How, InstanceState, Promotion, Switchover};

const NOW: Duration = Duration::from_secs(1000);

/// A situation that can be changed and asked.
#[derive(Debug, Clone)]
struct Case {
    local: Local,
    state: GroupState,
    fresh: bool,
    weaken: Weaken,
}

fn lineage(of: &[(u64, u32, u64)]) -> Lineage {
    let branch = |(epoch, timeline, fork): &(u64, u32, u64)| Branch {
        epoch: *epoch,
        timeline: *timeline,
        fork: Lsn(*fork),
    };
    Lineage(of.iter().map(branch).collect())
}

fn nodes(of: &[&str]) -> Nodes {
    of.iter().map(|n| (*n).to_owned()).collect()
}

fn upstream(node: &str, epoch: u64) -> Upstream {
    Upstream {
        node: node.into(),
        epoch,
    }
}

/// Instance `b` of a group of three in epoch 7, whose primary `a` is steady; `b` streams from it.
fn standby() -> Case {
    let mut state = GroupState {
        epoch: 7,
        phase: Phase::Steady,
        primary: Some("a".into()),
        former: Some("a".into()),
        timeline: 2,
        lineage: lineage(&[(1, 1, 0), (7, 2, 100)]),
        system_id: Some(42),
        ..GroupState::default()
    };
    for n in ["a", "b", "c"] {
        state.instances.insert(n.into(), InstanceState::default());
    }
    state.append_rule(nodes(&["b", "c"]), 1, nodes(&["a"]));
    let local = Local {
        node: "b".into(),
        directory: Directory::Present { system_id: 42 },
        server: Server::Running,
        incarnation: 3,
        in_recovery: true,
        history: state.lineage.clone(),
        log: Some(Lsn(500)),
        upstream: Some(upstream("a", 7)),
        receiver: Receiver::Running,
        names: Some(Names::Closed),
        names_set: Some(Names::Closed),
        lease_until: Some(NOW + Duration::from_secs(2)),
        slots: [("a".to_owned(), 0), ("c".to_owned(), 0)].into(),
        ..Local::default()
    };
    Case {
        local,
        state,
        fresh: true,
        weaken: Weaken::default(),
    }
}

/// `b` as the steady primary of epoch 8, still closed.
fn primary() -> Case {
    let mut case = standby();
    case.state.epoch = 8;
    case.state.primary = Some("b".into());
    case.state.rules.clear();
    case.state.append_rule(nodes(&["a", "c"]), 1, nodes(&["b"]));
    case.local.in_recovery = false;
    case.local.was_primary = true;
    case.local.upstream = None;
    case.local.receiver = Receiver::Gone;
    case
}

/// `b` named in epoch 8, sealed before.
fn named(how: How) -> Case {
    let mut case = standby();
    case.state.epoch = 8;
    case.state.phase = Phase::Promoting;
    case.state.primary = Some("b".into());
    case.state.promotion = Some(Promotion {
        how,
        node: "b".into(),
        epoch: 8,
        lineage: case.local.history.clone(),
        end: LogEnd {
            epoch: 7,
            lsn: Lsn(500),
        },
        rule: None,
        after_stop: (how == How::InPlace).then_some(3),
    });
    case.local.marks.refused = 8;
    case.local.upstream = None;
    case.local.receiver = Receiver::Gone;
    case
}

fn electing() -> Case {
    let mut case = standby();
    case.state.epoch = 8;
    case.state.phase = Phase::Electing;
    case.state.primary = None;
    case
}

impl Case {
    fn with(mut self, change: impl FnOnce(&mut Case)) -> Self {
        change(&mut self);
        self
    }

    fn ask<T>(&self, of: impl FnOnce(&Situation<'_>) -> T) -> T {
        let read = RecordRead {
            state: self.state.clone(),
            revision: 9,
            fresh: self.fresh,
        };
        let (spec, timing) = (GroupSpec::on(["a", "b", "c"]), Timing::default());
        of(&Situation {
            local: &self.local,
            record: Some(&read),
            spec: Some(&spec),
            now: NOW,
            timing: &timing,
            weaken: &self.weaken,
        })
    }

    fn actions(&self) -> Vec<Action> {
        self.ask(decide).actions
    }
}

fn down(case: &mut Case) {
    case.local.server = Server::Stopped;
    case.local.receiver = Receiver::Gone;
    case.local.names = None;
}

fn stops(actions: &[Action]) -> bool {
    matches!(actions, [Action::Stop { .. }])
}

#[test]
fn a_standby_that_streams_has_nothing_to_do() {
    assert_eq!(standby().actions(), []);
    let report = standby().ask(report);
    assert_eq!(report.streams, Some(upstream("a", 7)));
    assert_eq!((report.sealed, report.unfit, report.primary), (None, None, None));
}

#[test]
fn a_promotion_step_by_step() {
    let case = named(How::Promote);
    assert_eq!(case.actions(), [Action::MarkPromotion { epoch: 8 }]);
    let marked = case.with(|c| c.local.marks.promotion = Some(8));
    let closed = Names::Closed;
    assert_eq!(
        marked.actions(),
        [Action::Promote {
            epoch: 8,
            names: closed.clone()
        }]
    );
    // R5: never promoted before closed names were seen.
    let open = marked.clone().with(|c| c.local.names = Some(Names::Empty));
    assert_eq!(open.actions(), [Action::SetNames { names: closed.clone() }]);
    // A stopped one is started closed, from nobody.
    let start = Action::Start {
        role: StartAs::Standby { upstream: None },
        names: closed,
    };
    assert_eq!(marked.clone().with(down).actions(), [start]);
    // Promoted, it waits closed until the record is steady.
    let done = marked.clone().with(|c| {
        c.local.in_recovery = false;
        let branch = Branch {
            epoch: 8,
            timeline: 3,
            fork: Lsn(500),
        };
        c.local.promoted = Some(branch);
        c.local.history = c.local.history.with(branch);
    });
    assert_eq!(done.actions(), []);
    // Each condition alone holds it up.
    for (what, held) in [
        ("R2", marked.clone().with(|c| c.fresh = false)),
        ("no lease", marked.clone().with(|c| c.local.lease_until = None)),
        ("lease over", marked.clone().with(|c| c.local.lease_until = Some(NOW))),
        (
            "R13",
            marked
                .clone()
                .with(|c| c.local.grant_given_until = Some(NOW + Duration::from_millis(1))),
        ),
        ("refused", marked.clone().with(|c| c.local.marks.refused = 9)),
        (
            "another log",
            marked.clone().with(|c| c.local.history = lineage(&[(1, 1, 0)])),
        ),
        ("a task", marked.clone().with(|c| c.local.task = Some(Task::Promote))),
    ] {
        assert_eq!(held.actions(), [], "{what}");
        assert!(!held.ask(decide).waits.is_empty(), "{what}");
    }
    let stale = Weaken {
        stale_reads: true,
        ..Weaken::default()
    };
    assert_ne!(marked.with(|c| (c.fresh, c.weaken) = (false, stale)).actions(), []);
}

#[test]
fn a_primary_opens_through_closed_names() {
    let target = Names::Any {
        need: 1,
        epoch: 8,
        voters: nodes(&["a", "c"]),
    };
    let closed = primary();
    assert_eq!(closed.actions(), [Action::SetNames { names: target.clone() }]);
    let set = |n: &Names| Action::SetNames { names: n.clone() };
    // What was in force before is closed first, of this epoch or another, empty or not.
    for before in [
        Names::Empty,
        Names::Any {
            need: 1,
            epoch: 8,
            voters: nodes(&["a"]),
        },
        Names::parse("*"),
    ] {
        let case = closed.clone().with(|c| c.local.names = Some(before.clone()));
        assert_eq!(case.actions(), [set(&Names::Closed)], "{before:?}");
    }
    // A reload that is dropped leaves the old names: the new ones are not set over them.
    let dropped = closed.clone().with(|c| c.local.names = Some(Names::Empty));
    assert_eq!(dropped.actions(), [set(&Names::Closed)]);
    assert!(dropped.ask(decide).waits[0].contains("does not follow"));
    // A walsender that did not follow yet still acknowledges by the rule before.
    let sender = |priority| Walsender {
        node: "a".into(),
        epoch: 8,
        streaming: true,
        priority,
        flushed: Lsn(1),
    };
    assert_eq!(
        closed.clone().with(|c| c.local.walsenders.push(sender(1))).actions(),
        []
    );
    assert_eq!(
        closed.clone().with(|c| c.local.walsenders.push(sender(0))).actions(),
        [set(&target)]
    );
    let no_show = Weaken {
        no_show: true,
        ..Weaken::default()
    };
    let blind = closed
        .clone()
        .with(|c| (c.local.walsenders, c.weaken) = (vec![sender(1)], no_show));
    assert_eq!(blind.actions(), [set(&target)]);
    // R2, and only once steady.
    assert_eq!(closed.clone().with(|c| c.fresh = false).actions(), []);
    let open = closed.clone().with(|c| c.local.names = Some(target.clone()));
    assert_eq!(open.actions(), []);
    // The lease is over: it stops, guard or not.
    assert!(stops(&open.with(|c| c.local.lease_until = Some(NOW)).actions()));
    // Empty only where the record says that nobody is asked.
    let alone = closed.with(|c| c.state.rules[0].need = 0);
    assert_eq!(alone.actions(), [set(&Names::Empty)]);
}

#[test]
fn a_restart_in_place_is_ordered_for_one_incarnation_and_opens_when_replicated() {
    let start = Action::Start {
        role: StartAs::Primary,
        names: Names::Closed,
    };
    let ordered = named(How::InPlace).with(down);
    assert_eq!(ordered.actions(), std::slice::from_ref(&start));
    let again = ordered.clone().with(|c| c.local.incarnation = 4);
    assert_eq!(
        again.actions(),
        [],
        "R10: it stopped once more, and nobody ordered that one"
    );
    assert_eq!(ordered.with(|c| c.fresh = false).actions(), []);
    let steady = primary().with(down);
    assert_eq!(steady.actions(), [], "R10: a steady record orders no restart");
    let unasked = Weaken {
        restart_unasked: true,
        ..Weaken::default()
    };
    assert_eq!(steady.with(|c| c.weaken = unasked).actions(), [start]);

    let recovered = primary().with(|c| {
        c.state.promotion = named(How::InPlace).state.promotion;
        c.local.recovered = Some(Lsn(600));
    });
    let at = |lsn| {
        let sender = Walsender {
            node: "c".into(),
            epoch: 8,
            streaming: true,
            priority: 0,
            flushed: Lsn(lsn),
        };
        recovered.clone().with(|c| c.local.walsenders.push(sender)).actions()
    };
    assert_eq!(recovered.actions(), []);
    assert_eq!(at(599), []);
    assert_eq!(at(600).len(), 1);
}

#[test]
fn a_seal_is_answered_when_nothing_can_be_acknowledged_any_more() {
    let case = electing();
    assert_eq!(case.actions(), [Action::Refuse { epoch: 8 }, Action::EndReceiver]);
    let sealed = |c: &Case| c.ask(report).sealed;
    assert_eq!(sealed(&case), None);
    let refused = case.with(|c| (c.local.marks.refused, c.local.upstream) = (8, None));
    assert_eq!((sealed(&refused), refused.actions()), (None, vec![Action::EndReceiver]));
    let between = refused.clone().with(|c| c.local.receiver = Receiver::Between);
    assert_eq!(sealed(&between), None, "it may come back");
    let gone = refused.with(|c| c.local.receiver = Receiver::Gone);
    assert_eq!((sealed(&gone), gone.actions()), (Some(8), vec![]));
    for (what, not) in [
        ("another epoch", gone.clone().with(|c| c.state.epoch = 9)),
        ("restores", gone.clone().with(|c| c.local.restores = true)),
        (
            "bound by a grant",
            gone.clone()
                .with(|c| c.local.grant_given_until = Some(NOW + Duration::from_secs(1))),
        ),
        ("a primary", gone.clone().with(|c| c.local.in_recovery = false)),
        ("promoting", gone.clone().with(|c| c.local.task = Some(Task::Promote))),
        (
            "copying",
            gone.clone().with(|c| c.local.directory = Directory::Incomplete),
        ),
    ] {
        assert_eq!(sealed(&not), None, "{what}");
    }
    // One that does not run receives nothing.
    assert_eq!(sealed(&gone.with(down)), Some(8));
}

#[test]
fn what_is_no_primary_any_more_stops() {
    let runs = |c: &mut Case| (c.local.in_recovery, c.local.was_primary) = (false, true);
    assert!(stops(&standby().with(runs).actions()));
    // A seal does not stop the former primary, which may turn out to be well; only an operator's failover does.
    let former = electing().with(runs).with(|c| c.state.former = Some("b".into()));
    assert_eq!(former.actions(), []);
    let forced = crate::database::record::Forced {
        operation: "op".into(),
        to: None,
        allow_data_loss: false,
    };
    assert!(stops(&former.clone().with(|c| c.state.forced = Some(forced)).actions()));
    // Unless it has a timeline that nobody recorded.
    let strayed = former
        .clone()
        .with(|c| c.local.history = lineage(&[(1, 1, 0), (7, 2, 100), (8, 3, 400)]));
    assert!(stops(&strayed.actions()));
    assert!(stops(&former.with(|c| c.state.former = Some("a".into())).actions()));
    assert!(stops(
        &standby().with(|c| drop(c.state.instances.remove("b"))).actions()
    ));
}

#[test]
fn a_switchover_stops_the_incarnation_it_is_about() {
    let case = primary().with(|c| {
        c.state.phase = Phase::Switching;
        let to = "c".to_owned();
        c.state.switchover = Some(Switchover {
            operation: "op".into(),
            to,
            started_ms: 0,
            incarnation: 3,
        });
    });
    assert!(
        matches!(case.actions().as_slice(), [Action::EndWalsenders { except }, Action::Stop { immediate: false, .. }] if except == "c")
    );
    assert_eq!(case.with(|c| c.local.incarnation = 4).actions(), []);
}
