//! What the master decides, rule by rule; and over arbitrary observations what it never does.

mod alone;
mod properties;
mod replaced;
mod returned;
mod starved;

use std::time::Duration;

use super::*;
use crate::database::lineage::{Branch, Lineage, LogEnd, Lsn};
use crate::database::local::{Directory, PrimaryReport, Report, Server, StopProof, Upstream};
use crate::database::observed::Seen;
use crate::database::record::{How, InstanceState, Promotion};

const NOW: Duration = Duration::from_secs(1000);

#[derive(Debug, Clone)]
struct Case {
    spec: GroupSpec,
    state: GroupState,
    observed: Observed,
    memory: Memory,
    weaken: Weaken,
}

fn nodes(of: &[&str]) -> Nodes {
    of.iter().map(|n| (*n).to_owned()).collect()
}

fn lineage() -> Lineage {
    let branch = |epoch, timeline, fork| Branch {
        epoch,
        timeline,
        fork: Lsn(fork),
    };
    Lineage(vec![branch(1, 1, 0), branch(7, 2, 100)])
}

fn seen(report: Report) -> Seen {
    Seen {
        report: Some((report, NOW)),
        stream_open: true,
        registered: true,
        ..Seen::default()
    }
}

/// A report of a standby of `a` in epoch 7.
fn standby(node: &str, lsn: u64) -> Report {
    let a = Upstream {
        node: "a".into(),
        epoch: 7,
    };
    Report {
        node: node.into(),
        epoch: 7,
        directory: Directory::Present { system_id: 42 },
        server: Server::Running,
        standby: true,
        incarnation: 2,
        history: lineage(),
        log: Some(LogEnd {
            epoch: 7,
            lsn: Lsn(lsn),
        }),
        heard: Some((a.clone(), Duration::ZERO)),
        streams: Some(a),
        ..Report::default()
    }
}

fn primary() -> Report {
    Report {
        standby: false,
        heard: None,
        streams: None,
        primary: Some(PrimaryReport {
            epoch: 7,
            applied: Some(1),
            applied_at: Some(Lsn(100)),
            open: true,
            flushed: [("b".to_owned(), Lsn(500)), ("c".to_owned(), Lsn(500))].into(),
            ..PrimaryReport::default()
        }),
        ..standby("a", 500)
    }
}

/// A steady group: `a` is primary of epoch 7, any one of `b` and `c` makes a commit durable.
fn steady() -> Case {
    let mut state = GroupState {
        epoch: 7,
        phase: Phase::Steady,
        primary: Some("a".into()),
        former: Some("a".into()),
        timeline: 2,
        lineage: lineage(),
        system_id: Some(42),
        promotion: Some(Promotion {
            how: How::Promote,
            node: "a".into(),
            epoch: 7,
            lineage: Lineage::default(),
            end: LogEnd::default(),
            rule: None,
            after_stop: None,
        }),
        ..GroupState::default()
    };
    for n in ["a", "b", "c"] {
        state.instances.insert(
            n.into(),
            InstanceState {
                filled: true,
                ..InstanceState::default()
            },
        );
    }
    state.append_rule(nodes(&["b", "c"]), 1, nodes(&["a"]));
    let mut observed = Observed {
        now: NOW,
        now_ms: 1_000_000,
        sealed: true,
        ..Observed::default()
    };
    for report in [primary(), standby("b", 500), standby("c", 500)] {
        observed.instances.insert(report.node.clone(), seen(report));
    }
    Case {
        spec: GroupSpec::on(["a", "b", "c"]),
        state,
        observed,
        memory: Memory::default(),
        weaken: Weaken::default(),
    }
}

/// An election after `a`, whose fate is not known yet; nobody has answered.
fn electing() -> Case {
    steady().with(|c| {
        c.state.epoch = 8;
        c.state.phase = Phase::Electing;
        c.state.primary = None;
        let a = c.seen("a");
        a.stream_open = false;
        a.registered = false;
        a.absent_since = Some(NOW - Duration::from_secs(1));
    })
}

impl Case {
    fn with(mut self, change: impl FnOnce(&mut Case)) -> Self {
        change(&mut self);
        self
    }

    fn seen(&mut self, node: &str) -> &mut Seen {
        self.observed.instances.get_mut(node).unwrap()
    }

    fn report(&mut self, node: &str) -> &mut Report {
        &mut self.seen(node).report.as_mut().unwrap().0
    }

    fn primary(&mut self) -> &mut PrimaryReport {
        self.report("a").primary.as_mut().unwrap()
    }

    fn decide(&self) -> Decision {
        let mut memory = self.memory.clone();
        decide(
            &self.spec,
            &self.state,
            &self.observed,
            &mut memory,
            &Timing::default(),
            &self.weaken,
        )
    }

    fn next(&self) -> Option<GroupState> {
        self.decide().write.map(|w| *w)
    }

    /// A standby answers the seal.
    fn answers(self, node: &str, lsn: u64) -> Self {
        self.with(|c| {
            let r = c.report(node);
            (r.epoch, r.sealed, r.heard, r.streams) = (8, Some(8), None, None);
            r.log = Some(LogEnd {
                epoch: 7,
                lsn: Lsn(lsn),
            });
        })
    }
}

/// Its tree is gone.
fn stop(c: &mut Case, lsn: u64) {
    let a = c.seen("a");
    (a.stream_open, a.registered, a.absent_since) = (true, true, None);
    let r = c.report("a");
    r.server = Server::Stopped;
    r.primary = None;
    let log = Some(LogEnd {
        epoch: 7,
        lsn: Lsn(lsn),
    });
    r.stopped = Some(StopProof {
        incarnation: 2,
        was_primary: true,
        log,
    });
}

fn deaf(c: &mut Case) {
    c.report("b").heard = None;
    c.report("c").heard = None;
}

#[test]
fn nothing_is_written_while_all_is_well_or_before_sealing() {
    assert_eq!(steady().next(), None);
    let new = steady().with(|c| stop(c, 500)).with(|c| c.observed.sealed = false);
    assert_eq!(new.next(), None, "a new master writes its term first");
}

#[test]
fn what_makes_a_primary_suspect_and_what_speaks_for_it() {
    let broken = |c: &mut Case| (c.seen("a").stream_open, c.seen("a").stream_broken) = (false, Some(NOW));
    let silent = |c: &mut Case| c.seen("a").report.as_mut().unwrap().1 = NOW - Duration::from_millis(1500);
    let absent = |c: &mut Case| c.seen("a").absent_since = Some(NOW);
    let elects =
        |c: &Case| c.next().map(|n| (n.phase, n.epoch, n.former)) == Some((Phase::Electing, 8, Some("a".into())));
    for (what, suspect) in [
        ("broken", steady().with(broken)),
        ("silent", steady().with(silent)),
        ("absent", steady().with(absent)),
    ] {
        // One standby that hears it could acknowledge with it.
        assert_eq!(suspect.next(), None, "{what}");
        assert!(suspect.decide().reasons[0].contains("still hear"), "{what}");
        let one = suspect.clone().with(|c| c.report("b").heard = None);
        assert_eq!(one.next(), None, "{what}");
        assert!(elects(&suspect.with(deaf)), "{what}");
    }
    // What it says itself needs no witness.
    assert!(elects(&steady().with(|c| stop(c, 500))));
    assert!(elects(&steady().with(|c| c.report("a").server = Server::Orphaned)));
    assert!(elects(&steady().with(|c| c.primary().probe_failed = true)));
    // A daemon that announced its restart, and a master that has only just begun to listen.
    let restarting = steady().with(broken).with(deaf).with(|c| c.seen("a").restarting = true);
    assert_eq!(restarting.next(), None);
    let new = steady()
        .with(silent)
        .with(deaf)
        .with(|c| c.observed.settled_at = NOW + Duration::from_secs(1));
    assert_eq!(new.next(), None);
    // Without enough answers in reach, sealing would only stop what may still serve.
    let lone = steady()
        .with(broken)
        .with(deaf)
        .with(|c| c.seen("c").stream_open = false);
    assert_eq!(lone.next(), None);
    assert!(
        lone.decide().reasons[0].contains("could be lost"),
        "{:?}",
        lone.decide().reasons
    );
    let maintained = steady().with(|c| stop(c, 500)).with(|c| c.observed.maintenance = true);
    assert_eq!(maintained.next(), None);
}

#[test]
fn a_choice_wants_a_fence_and_durability() {
    let chosen = |c: &Case| c.next().and_then(|n| n.primary);
    // One of two voters may lack what the other acknowledged, with proof of stop or without.
    assert_eq!(chosen(&electing().answers("b", 500)), None);
    let fenced = electing()
        .answers("b", 500)
        .with(|c| c.seen("a").absent_since = Some(NOW - Duration::from_secs(60)));
    assert_eq!(chosen(&fenced), None);
    assert_eq!(
        chosen(&fenced.with(|c| c.weaken.no_durability = true)).as_deref(),
        Some("b")
    );
    // Both: the greatest end.
    let both = electing().answers("b", 500).answers("c", 501);
    let next = both.next().unwrap();
    assert_eq!(
        (next.primary.as_deref(), next.phase, next.epoch),
        (Some("c"), Phase::Promoting, 8)
    );
    // The rule there was is kept beside the new one, which names who answered and not the new primary.
    assert!(next.joint());
    let rule = next.rule().unwrap();
    assert_eq!(
        (&rule.voters, rule.need, &rule.primaries),
        (&nodes(&["b"]), 1, &nodes(&["c"]))
    );
    // Of equals the higher priority.
    let equal = electing().answers("b", 500).answers("c", 500);
    assert_eq!(chosen(&equal).as_deref(), Some("b"));
    let priority = equal.with(|c| c.spec.nodes.get_mut("c").unwrap().priority = 200);
    assert_eq!(chosen(&priority).as_deref(), Some("c"));
    // An answer of another epoch, of a directory under rebuild, of another system, is none.
    for (what, not) in [
        ("epoch", both.clone().with(|c| c.report("b").sealed = Some(7))),
        (
            "rebuild",
            both.clone()
                .with(|c| c.state.instances.get_mut("b").unwrap().rebuild = Some(rebuild())),
        ),
        (
            "system",
            both.clone()
                .with(|c| c.report("b").directory = Directory::Present { system_id: 43 }),
        ),
        ("log unknown", both.clone().with(|c| c.report("b").log = None)),
    ] {
        assert_eq!(chosen(&not), None, "{what}");
    }
}

fn rebuild() -> crate::database::record::Rebuild {
    crate::database::record::Rebuild {
        copy: true,
        why: String::new(),
        operation: String::new(),
        since_ms: 1,
    }
}

#[test]
fn that_a_standby_had_stopped_before_it_read_of_the_election_is_no_answer() {
    let over = crate::lease::over_after(Timing::default().session_timeout);
    let told = electing().answers("b", 500).with(|c| {
        c.seen("a").absent_since = Some(NOW - over);
        let r = c.report("c");
        (r.epoch, r.server, r.heard, r.streams) = (7, Server::Stopped, None, None);
        r.stopped = Some(StopProof {
            incarnation: 2,
            was_primary: false,
            log: r.log,
        });
    });
    assert_eq!(told.next(), None, "it starts by itself and may confirm more");
    assert!(
        told.clone()
            .with(|c| c.weaken.standby_stop_answers = true)
            .next()
            .is_some()
    );
    let read = told.with(|c| c.report("c").epoch = 8);
    assert_eq!(read.next().unwrap().phase, Phase::Promoting);
}

#[test]
fn a_stopped_primary_is_an_answer_and_the_last_resort() {
    // With its directory one standby is enough, if it has as much.
    let stopped = electing()
        .with(|c| stop(c, 500))
        .answers("b", 500)
        .with(|c| c.seen("c").stream_open = false);
    let next = stopped.next().unwrap();
    assert_eq!(next.primary.as_deref(), Some("b"));
    assert_eq!(
        next.rule().unwrap().voters,
        nodes(&["a"]),
        "the stopped one is counted as one to come"
    );
    // If it has less, the former primary goes on in place, on the order of exactly its last incarnation.
    let behind = stopped.answers("b", 499);
    let next = behind.next().unwrap();
    let promotion = next.promotion.unwrap();
    assert_eq!(
        (promotion.node.as_str(), promotion.how, promotion.after_stop),
        ("a", How::InPlace, Some(2))
    );
    // Not before those who could spare it have had the time to answer.
    let coming = electing().with(|c| stop(c, 500)).answers("b", 499);
    assert_eq!(coming.next(), None);
    // A proof from before the restart that was ordered is none.
    let again = behind.with(|c| c.state.promotion.as_mut().unwrap().after_stop = Some(2));
    assert_eq!(
        again.with(|c| c.state.promotion.as_mut().unwrap().epoch = 8).next(),
        None
    );
}

#[test]
fn a_promotion_nobody_recorded_raises_no_rank() {
    let late = electing().answers("b", 900).answers("c", 501).with(|c| {
        let r = c.report("b");
        r.history = r.history.with(Branch {
            epoch: 8,
            timeline: 3,
            fork: Lsn(300),
        });
        r.log = Some(LogEnd {
            epoch: 8,
            lsn: Lsn(900),
        });
    });
    assert_eq!(late.next().unwrap().primary.as_deref(), Some("c"));
    let raw = late.with(|c| c.weaken.no_truncation = true);
    assert_eq!(raw.next().unwrap().primary.as_deref(), Some("b"));
}

#[test]
fn a_primary_that_turns_out_well_goes_on_in_an_epoch_of_its_own() {
    let well = electing().with(|c| {
        let a = c.seen("a");
        (a.stream_open, a.registered, a.absent_since) = (true, true, None);
        c.report("a").epoch = 8;
        c.memory.phase_since = Some((8, Phase::Electing, NOW - Duration::from_millis(100)));
    });
    let next = well.next().unwrap();
    assert_eq!(
        (next.epoch, next.phase, next.primary.as_deref()),
        (9, Phase::Steady, Some("a"))
    );
    assert_eq!(next.rules, well.state.rules);
    for (what, not) in [
        (
            "has not read the election",
            well.clone().with(|c| c.report("a").epoch = 7),
        ),
        (
            "was not heard since",
            well.clone().with(|c| c.memory.phase_since = None),
        ),
        ("cannot write", well.clone().with(|c| c.primary().probe_failed = true)),
        ("is to be replaced", well.clone().with(|c| c.state.replace = true)),
        (
            "has a timeline of its own",
            well.clone().with(|c| c.report("a").history = Lineage::default()),
        ),
    ] {
        assert_eq!(not.next(), None, "{what}");
    }
}

#[test]
fn an_unsteady_promotion_takes_its_rule_along() {
    let promoting = electing().answers("b", 500).answers("c", 501);
    let named = promoting.next().unwrap();
    let failed = promoting.with(|c| c.state = named.clone()).with(|c| {
        (c.seen("c").stream_open, c.seen("c").stream_broken) = (false, Some(NOW));
    });
    let next = failed.next().unwrap();
    assert_eq!((next.phase, next.epoch), (Phase::Electing, 9));
    assert_eq!(next.rules, electing().state.rules);
    assert_eq!(next.former.as_deref(), Some("a"), "nobody else was ever open");
}

#[test]
fn a_joint_is_turned_back_in_two_steps() {
    let joint = steady().with(|c| {
        c.state.append_rule(nodes(&["d"]), 1, nodes(&["a"]));
        c.state.instances.insert("d".into(), InstanceState::default());
        c.primary().applied = Some(2);
        c.memory.joint_since = Some((2, NOW - Duration::from_secs(2)));
        c.memory.gone_since.insert("d".into(), NOW - Duration::from_secs(60));
    });
    let next = joint.next().unwrap();
    assert_eq!(
        (next.applying, next.rules.len()),
        (1, 2),
        "the newer one stays until the primary confirmed the older one"
    );
    let turned = joint.clone().with(|c| c.state = next);
    assert_eq!(turned.next(), None, "it still applies the newer one");
    let confirmed = turned.with(|c| c.primary().applied = Some(1));
    assert_eq!(confirmed.next().unwrap().rules.len(), 1);
    assert_eq!(
        joint
            .with(|c| c.weaken.joint_one_step = true)
            .next()
            .unwrap()
            .rules
            .len(),
        1
    );
}
