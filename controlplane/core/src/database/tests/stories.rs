//! Stories of groups, each to its good end.

use std::time::Duration;

use super::world::World;
use crate::database::local::Server;
use crate::database::observed::Wanted;
use crate::database::record::Phase;
use crate::database::spec::{Durability, InstanceSpec, Pause, RoleWanted};

fn whole(n: usize) -> World {
    let mut w = World::of(n);
    w.until("whole", World::whole);
    w
}

#[test]
fn a_new_group_comes_to_a_primary_and_its_voters() {
    for n in 1..=5 {
        let mut w = whole(n);
        assert_eq!(w.state.epoch, 1);
        assert_eq!(w.state.system_id, Some(42));
        let rule = w.state.rules[0].clone();
        assert_eq!(rule.need as usize, n / 2, "{n} instances");
        w.run(Duration::from_secs(20));
        assert_eq!(w.state.epoch, 1, "nothing happens without a fault: {:?}", w.told);
    }
}

#[test]
fn a_steady_group_writes_nothing() {
    let mut w = whole(3);
    w.run(Duration::from_secs(2));
    let before = w.revision;
    w.run(Duration::from_secs(60));
    assert_eq!(w.revision, before, "{:?}", w.told);
}

#[test]
fn a_killed_postmaster_is_replaced_and_rejoins() {
    let mut w = whole(3);
    let was = w.state.primary.clone().unwrap();
    let at = w.observed.now;
    w.kill(&was);
    w.until("another", |w| w.open().is_some_and(|p| p != was));
    assert!(w.observed.now - at < Duration::from_millis(600), "{:?}", w.told);
    w.until("whole", World::whole);
    assert_eq!(w.opened.len(), 2);
    assert_eq!(
        w.state.last.as_ref().map(|l| (l.done, l.kind.as_str())),
        Some((true, "failover"))
    );
}

#[test]
fn a_lost_node_is_replaced_and_comes_back() {
    for n in 2..=5 {
        let mut w = whole(n);
        let was = w.state.primary.clone().unwrap();
        w.down(&was);
        w.until("another", |w| w.open().is_some_and(|p| p != was));
        w.until("whole without it", World::whole);
        w.up(&was);
        w.until("whole with it", World::whole);
        assert!(w.nodes[&was].local.server == Server::Running, "{:?}", w.told);
    }
}

#[test]
fn one_failover_after_another() {
    let mut w = whole(3);
    w.spec.limits.flap_count = 0;
    for _ in 0..10 {
        let was = w.state.primary.clone().unwrap();
        w.kill(&was);
        w.until("another", |w| w.open().is_some_and(|p| p != was));
        w.until("whole", World::whole);
    }
    assert_eq!(w.state.epoch, 11, "{:?}", w.told);
}

#[test]
fn a_lone_primary_is_restarted_in_place() {
    let mut w = whole(1);
    w.kill("n1");
    w.until("open again", |w| w.open().as_deref() == Some("n1"));
    assert_eq!(w.state.epoch, 2);
    assert_eq!(w.state.timeline, 1);
}

#[test]
fn a_primary_with_one_dead_standby_and_no_other_is_restarted_in_place() {
    let mut w = whole(2);
    let was = w.state.primary.clone().unwrap();
    let other = if was == "n1" { "n2" } else { "n1" };
    w.down(other);
    w.run(Duration::from_secs(1));
    assert!(w.open().is_some());
    w.kill(&was);
    w.until("degraded and open", |w| {
        w.open().as_deref() == Some(was.as_str()) && w.state.rules.iter().all(|r| r.need == 0)
    });
    w.up(other);
    w.until("whole", World::whole);
}

#[test]
fn without_enough_answers_nobody_is_promoted() {
    let mut w = whole(3);
    let was = w.state.primary.clone().unwrap();
    let mut others: Vec<_> = w.nodes.keys().filter(|n| **n != was).cloned().collect();
    let lost = others.pop().unwrap();
    // Both at once: the survivor cannot know whether it has every commit.
    w.down(&was);
    w.down(&lost);
    w.run(Duration::from_secs(60));
    assert_eq!(w.open(), None);
    assert!(
        w.reasons[0].contains("acknowledged commits could be lost"),
        "{:?}",
        w.reasons
    );
    w.up(&lost);
    w.until("another", |w| w.open().is_some_and(|p| p != was));
}

#[test]
fn an_operator_may_allow_the_loss() {
    let mut w = whole(3);
    let was = w.state.primary.clone().unwrap();
    let mut others: Vec<_> = w.nodes.keys().filter(|n| **n != was).cloned().collect();
    let (lost, left) = (others.pop().unwrap(), others.pop().unwrap());
    w.down(&was);
    w.down(&lost);
    w.run(Duration::from_secs(2));
    w.ask(
        "op0",
        Wanted::Failover {
            to: Some(left.clone()),
            allow_data_loss: false,
        },
    );
    w.run(Duration::from_secs(1));
    assert_eq!(w.finished[0].result.as_ref().unwrap_err().code, "HA0414");
    w.ask(
        "op1",
        Wanted::Failover {
            to: Some(left.clone()),
            allow_data_loss: true,
        },
    );
    w.until("the survivor", |w| w.open().as_deref() == Some(left.as_str()));
    assert!(w.state.last.as_ref().unwrap().loss_bytes.is_some());
    w.until("finished", |w| w.finished.len() == 2);
    assert!(w.finished[1].result.is_ok(), "{:?}", w.finished);
}

#[test]
fn a_primary_that_standbys_still_hear_is_kept() {
    let mut w = whole(3);
    let was = w.state.primary.clone().unwrap();
    w.nodes.get_mut(&was).unwrap().coordinated = false;
    // Its lease is over after two thirds of the session; until then nobody takes its place.
    w.run(Duration::from_secs(2));
    assert_eq!((w.state.epoch, w.state.phase), (1, Phase::Steady), "{:?}", w.told);
    assert!(w.reasons.iter().any(|r| r.contains("still hear")), "{:?}", w.reasons);
}

#[test]
fn a_primary_cut_off_from_its_standbys_is_replaced() {
    let mut w = whole(3);
    let was = w.state.primary.clone().unwrap();
    let others: Vec<_> = w.nodes.keys().filter(|n| **n != was).cloned().collect();
    w.nodes.get_mut(&was).unwrap().cut.extend(others);
    w.until("another", |w| w.open().is_some_and(|p| p != was));
    w.nodes.get_mut(&was).unwrap().cut.clear();
    w.until("whole", World::whole);
}

#[test]
fn a_switchover_goes_where_it_was_asked_to() {
    for n in 2..=4 {
        let mut w = whole(n);
        let was = w.state.primary.clone().unwrap();
        let to = w.nodes.keys().rfind(|n| **n != was).cloned().unwrap();
        w.ask(
            "op",
            Wanted::Switchover {
                to: Some(to.clone()),
                at_ms: None,
            },
        );
        w.until("switched", |w| w.open().as_deref() == Some(to.as_str()));
        w.until("whole", World::whole);
        w.run(Duration::from_secs(1));
        assert!(
            matches!(w.finished.as_slice(), [f] if f.result.is_ok()),
            "{:?}",
            w.finished
        );
        assert_eq!(w.state.epoch, 2);
        let kinds: Vec<_> = w.state.last.iter().map(|l| l.kind.as_str()).collect();
        assert_eq!(kinds, ["switchover"]);
    }
}

#[test]
fn a_restart_in_place_leaves_the_primary_where_it_is() {
    for n in 1..=3 {
        let mut w = whole(n);
        let was = w.state.primary.clone();
        let incarnation = w.state.promotion.as_ref().and_then(|p| p.after_stop);
        w.ask("op", Wanted::Restart);
        w.until("restarted", |w| {
            let after = w.state.promotion.as_ref().and_then(|p| p.after_stop);
            after != incarnation && w.open().is_some()
        });
        w.until("whole", World::whole);
        w.run(Duration::from_secs(1));
        assert!(
            matches!(w.finished.as_slice(), [f] if f.result.is_ok()),
            "{:?}",
            w.finished
        );
        assert_eq!((w.state.epoch, &w.state.primary), (1, &was));
        let kinds: Vec<_> = w.state.last.iter().map(|l| l.kind.as_str()).collect();
        assert_eq!(kinds, ["restart in place"]);
    }
}

#[test]
fn a_switchover_to_a_lost_standby_is_refused_and_one_that_loses_it_is_rolled_back() {
    let mut w = whole(3);
    let was = w.state.primary.clone().unwrap();
    let to = w.nodes.keys().rfind(|n| **n != was).cloned().unwrap();
    w.ask(
        "op",
        Wanted::Switchover {
            to: Some(to.clone()),
            at_ms: None,
        },
    );
    w.until("switching", |w| w.state.phase == Phase::Switching);
    w.down(&to);
    w.until("rolled back", |w| w.open().as_deref() == Some(was.as_str()));
    assert_eq!(w.state.epoch, 1);
    w.run(Duration::from_secs(1));
    assert_eq!(w.finished[0].result.as_ref().unwrap_err().code, "HA0415");
    w.ask(
        "op2",
        Wanted::Switchover {
            to: Some(to.clone()),
            at_ms: None,
        },
    );
    w.until("refused", |w| w.finished.len() == 2);
    let refusal = w.finished[1].result.as_ref().unwrap_err();
    assert_eq!(refusal.code, "HA0412");
    assert!(!refusal.next.is_empty());
}

#[test]
fn a_switchover_waits_for_its_time() {
    let mut w = whole(2);
    let was = w.state.primary.clone();
    let at_ms = Some(w.observed.now_ms + 5000);
    w.ask("op", Wanted::Switchover { to: None, at_ms });
    w.run(Duration::from_secs(4));
    assert_eq!(w.state.primary, was);
    w.until("switched", |w| w.state.primary != was && w.open().is_some());
}

#[test]
fn a_lost_voter_is_dropped_and_taken_back() {
    for strict in [false, true] {
        let mut w = whole(3);
        if strict {
            w.spec.durability = Durability::QuorumStrict;
        }
        let was = w.state.primary.clone().unwrap();
        let others: Vec<_> = w.nodes.keys().filter(|n| **n != was).cloned().collect();
        w.down(&others[0]);
        w.run(Duration::from_secs(15));
        assert_eq!(w.state.rules[0].voters.len(), 1);
        w.down(&others[1]);
        w.run(Duration::from_secs(15));
        assert_eq!(w.state.rules[0].need == 0, !strict, "{:?}", w.told);
        assert_eq!(w.state.degraded.is_some(), !strict);
        for o in &others {
            w.up(o);
        }
        w.until("whole", World::whole);
        assert_eq!(w.state.degraded, None);
        assert_eq!(w.state.epoch, 1);
    }
}

#[test]
fn an_async_group_fails_over_when_the_lease_is_over() {
    let mut w = World::of(3);
    w.spec.durability = Durability::Async;
    w.until("open", |w| w.open().is_some());
    w.run(Duration::from_secs(5));
    assert!(!w.state.granters.is_empty());
    let was = w.state.primary.clone().unwrap();
    w.down(&was);
    let at = w.observed.now;
    w.until("another", |w| w.open().is_some_and(|p| p != was));
    let took = w.observed.now - at;
    assert!(
        took >= w.timing.session_timeout + crate::lease::over_after(w.timing.session_timeout),
        "{took:?}"
    );
}

#[test]
fn a_paused_group_stays_as_it_is() {
    let mut w = whole(3);
    let was = w.state.primary.clone().unwrap();
    w.spec.pause = Some(Pause {
        until_ms: Some(w.observed.now_ms + 30_000),
        reason: String::new(),
        actor: "user/a".into(),
    });
    w.kill(&was);
    w.run(Duration::from_secs(20));
    assert_eq!(w.state.epoch, 1);
    assert!(w.reasons.iter().any(|r| r.contains("paused")), "{:?}", w.reasons);
    // It ends by itself.
    w.until("another", |w| w.open().is_some_and(|p| p != was));
}

#[test]
fn who_follows_only_and_who_has_no_priority_never_takes_over() {
    let mut w = World::of(4);
    w.spec.nodes.insert(
        "n1".into(),
        InstanceSpec {
            role: RoleWanted::Primary,
            ..InstanceSpec::default()
        },
    );
    w.spec.nodes.insert(
        "n2".into(),
        InstanceSpec {
            role: RoleWanted::Async,
            ..InstanceSpec::default()
        },
    );
    w.spec.nodes.insert(
        "n3".into(),
        InstanceSpec {
            priority: 0,
            ..InstanceSpec::default()
        },
    );
    w.until("open", |w| w.open().is_some());
    w.run(Duration::from_secs(5));
    assert_eq!(w.state.primary.as_deref(), Some("n1"));
    assert!(!w.state.votes("n2") && w.state.votes("n3") && w.state.votes("n4"));
    w.kill("n1");
    w.until("another", |w| w.open().is_some_and(|p| p != "n1"));
    assert_eq!(w.state.primary.as_deref(), Some("n4"));
}

#[test]
fn a_primary_that_fails_again_and_again_is_held_down() {
    let mut w = whole(3);
    w.spec.nodes.get_mut("n1").unwrap().priority = 200;
    for _ in 0..4 {
        w.ask(
            "op",
            Wanted::Switchover {
                to: Some("n1".into()),
                at_ms: None,
            },
        );
        w.until("n1 primary", |w| w.open().as_deref() == Some("n1"));
        w.until("whole", World::whole);
        w.observed.requests.clear();
        w.kill("n1");
        w.until("another", |w| w.open().is_some_and(|p| p != "n1"));
        w.until("whole", World::whole);
    }
    assert!(w.state.instances["n1"].held_until_ms.is_some());
    // With the highest priority it would be chosen; held down it is not.
    let was = w.state.primary.clone().unwrap();
    w.kill(&was);
    w.until("another", |w| w.open().is_some_and(|p| p != was));
    assert_ne!(w.state.primary.as_deref(), Some("n1"));
}

#[test]
fn an_instance_lost_for_good_is_replaced_elsewhere() {
    let mut w = World::of(4);
    let spare = w.spec.nodes.remove("n4").unwrap();
    w.spec.instances = 3;
    w.until("whole", |w| {
        w.state.rules.first().is_some_and(|r| r.voters.len() == 2) && !w.state.joint() && w.open().is_some()
    });
    drop(spare);
    assert!(!w.state.instances.contains_key("n4"));
    w.spec.limits.replace_after_ms = 20_000;
    let was = w.state.primary.clone().unwrap();
    let lost = w
        .nodes
        .keys()
        .find(|n| **n != was && n.as_str() != "n4")
        .cloned()
        .unwrap();
    w.down(&lost);
    w.until("n4 votes", |w| w.state.votes("n4") && !w.state.joint());
}

#[test]
fn reinit_copies_a_standby_afresh() {
    let mut w = whole(3);
    let was = w.state.primary.clone().unwrap();
    let node = w.nodes.keys().find(|n| **n != was).cloned().unwrap();
    let before = w.local(&node).incarnation;
    w.ask("op", Wanted::Reinit { node: node.clone() });
    w.until("finished", |w| !w.finished.is_empty());
    assert!(w.finished[0].result.is_ok());
    w.until("whole", World::whole);
    assert_eq!(w.local(&node).incarnation, before + 1);
    w.run(Duration::from_secs(5));
    assert_eq!(w.local(&node).incarnation, before + 1, "once is enough");
    w.ask("op2", Wanted::Reinit { node: was });
    w.until("refused", |w| w.finished.len() == 2);
    assert_eq!(w.finished[1].result.as_ref().unwrap_err().code, "HA0410");
}

#[test]
fn a_standby_that_is_ahead_of_the_new_lineage_is_rewound() {
    let mut w = whole(3);
    let was = w.state.primary.clone().unwrap();
    w.down(&was);
    // Its log has what nobody else ever received.
    let log = w.local(&was).log.unwrap();
    w.local(&was).log = Some(crate::database::Lsn(log.0 + 1000));
    w.until("another", |w| w.open().is_some_and(|p| p != was));
    w.up(&was);
    w.until("whole", World::whole);
    assert!(
        w.told.iter().any(|t| t.contains("follows") || t.contains("durable")),
        "{:?}",
        w.told
    );
    assert_eq!(w.nodes[&was].local.history, w.state.lineage);
}
