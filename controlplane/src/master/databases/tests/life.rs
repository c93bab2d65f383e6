//! A group from its making through the loss of primaries and masters.

use std::time::Duration;

use ha_core::database::Phase;
use ha_proto::v1;

use super::rig::{Rig, create, record};
use crate::master::databases::{GroupChange, Question};

#[tokio::test(start_paused = true)]
async fn a_group_is_made_and_survives_its_primary() {
    let rig = Rig::new(&["n1", "n2", "n3"]).await;
    rig.create(&["n1", "n2", "n3"]).await;
    let group = rig.group().await;
    let first = group.record.clone().unwrap().primary;
    let group = rig.steady(&first).await;
    let rule = group.record.as_ref().unwrap().rule().unwrap().clone();
    assert_eq!((rule.voters.len(), rule.need), (2, 1), "{rule:?}");
    assert!(
        group
            .instances
            .iter()
            .all(|i| i.reported_unix_ms > 0 && i.timeline == 1)
    );

    rig.kill_postgres(&first);
    let killed = tokio::time::Instant::now();
    let moved = |g: &v1::Group| {
        let r = g.record.as_ref().unwrap();
        r.phase() == v1::GroupPhase::Steady && r.primary != first
    };
    let state = rig.until("another primary", |s| s.databases.iter().any(moved)).await;
    // The fake agents look every 10 ms; there is no waiting for silence or leases.
    assert!(killed.elapsed() < Duration::from_millis(200), "{:?}", killed.elapsed());
    let second = state.databases[0].record.clone().unwrap().primary;
    let group = rig.steady(&second).await;
    let r = group.record.as_ref().unwrap();
    assert_eq!((r.epoch, r.timeline), (2, 2));
    assert_eq!(
        group
            .instances
            .iter()
            .filter(|i| i.state() == v1::InstanceState::Streaming)
            .count(),
        2
    );

    let story = rig.story().await;
    let kinds: Vec<&str> = story.iter().map(|(k, _)| k.as_str()).collect();
    let told = [
        "db.added",
        "db.bootstrap",
        "db.created",
        "db.electing",
        "db.promoting",
        "db.primary",
        "db.failover",
    ];
    let mut at = 0;
    for kind in told {
        let next = kinds[at..].iter().position(|k| *k == kind);
        at += next.unwrap_or_else(|| panic!("{kind} is not told in order: {story:#?}")) + 1;
    }
    let history = rig
        .master()
        .await
        .question(|reply| Question::History(v1::HistoryRequest::default(), reply))
        .await
        .unwrap();
    let kinds: Vec<v1::PrimaryChange> = history.entries.iter().map(v1::HistoryEntry::kind).collect();
    assert_eq!(kinds, [v1::PrimaryChange::Bootstrap, v1::PrimaryChange::Failover]);
    let last = &history.entries[1];
    assert!(
        last.gap_ms.is_some() && !last.decision.is_empty() && last.to == second,
        "{last:#?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lost_node_is_replaced_as_primary_and_comes_back() {
    let mut rig = Rig::new(&["n1", "n2", "n3"]).await;
    rig.create(&["n2", "n3"]).await;
    let first = rig.group().await.record.unwrap().primary;
    let other = if first == "n2" { "n3" } else { "n2" };
    rig.steady(&first).await;
    rig.kill_node(&first);
    let promoted = |s: &v1::ClusterState| {
        s.databases.iter().any(|g| {
            let r = g.record.as_ref().unwrap();
            r.primary == other && r.phase() == v1::GroupPhase::Steady
        })
    };
    rig.until("the other one leads", promoted).await;
    // Alone it degrades after the limit, and says so.
    let state = rig
        .until("the group is degraded", |s| {
            s.databases
                .iter()
                .any(|g| !g.record.as_ref().unwrap().degraded.is_empty())
        })
        .await;
    assert!(
        state.alerts.iter().any(|a| a.id == "db/main/degraded"),
        "{:#?}",
        state.alerts
    );
    rig.revive(&first);
    let group = rig.steady(other).await;
    assert!(group.record.unwrap().degraded.is_empty());
    let alerts = rig.until("nothing is wrong", |s| s.alerts.is_empty()).await;
    assert!(alerts.alerts.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_master_that_is_lost_in_a_failover_is_gone_on_from() {
    let mut rig = Rig::new(&["n1", "n2", "n3", "n4"]).await;
    rig.create(&["n2", "n3", "n4"]).await;
    let first = rig.group().await.record.unwrap().primary;
    rig.steady(&first).await;
    // Nobody answers: the election waits, and its master is lost meanwhile.
    let standbys: Vec<String> = ["n2", "n3", "n4"]
        .iter()
        .filter(|n| **n != first)
        .map(|n| (*n).to_owned())
        .collect();
    standbys.iter().for_each(|n| rig.pg(n, |pg| pg.stuck = true));
    rig.kill_postgres(&first);
    rig.pg(&first, |pg| pg.stuck = true);
    rig.until("an election", |_| {
        record(&rig.zookeeper, "main").unwrap().0.phase == Phase::Electing
    })
    .await;
    let before = rig.master().await.term;
    let leader = rig
        .daemons
        .iter()
        .find(|(_, d)| d.shared.handle.borrow().is_some())
        .unwrap()
        .0
        .clone();
    rig.kill_daemon(&leader);
    standbys.iter().for_each(|n| rig.pg(n, |pg| pg.stuck = false));
    rig.pg(&first, |pg| pg.stuck = false);
    let moved = |s: &v1::ClusterState| {
        s.databases.iter().any(|g| {
            let r = g.record.as_ref().unwrap();
            r.phase() == v1::GroupPhase::Steady && r.epoch == 2
        })
    };
    rig.until("the next master ends the election", moved).await;
    assert!(rig.master().await.term > before);
    let (state, _) = record(&rig.zookeeper, "main").unwrap();
    assert_eq!(state.last.unwrap().from.as_deref(), Some(first.as_str()));
}

#[tokio::test(start_paused = true)]
async fn standbys_that_hear_the_primary_hold_a_failover_and_it_is_told() {
    let mut rig = Rig::new(&["n1", "n2", "n3"]).await;
    rig.create(&["n2", "n3"]).await;
    let first = rig.group().await.record.unwrap().primary;
    rig.steady(&first).await;
    // The daemon goes; PostgreSQL stays, and its standby hears it.
    let daemon = rig.daemons.remove(&first).unwrap();
    drop(daemon);
    rig.pg(&first, |pg| pg.gone = false);
    rig.zookeeper.partition(&first);
    tokio::time::sleep(Duration::from_secs(20)).await;
    let (state, _) = record(&rig.zookeeper, "main").unwrap();
    assert_eq!((state.epoch, state.primary.as_deref()), (1, Some(first.as_str())));
}

#[tokio::test(start_paused = true)]
async fn a_damaged_record_is_shown_and_left_alone() {
    let mut rig = Rig::new(&["n1", "n2"]).await;
    rig.create(&["n1", "n2"]).await;
    let first = rig.group().await.record.unwrap().primary;
    rig.steady(&first).await;
    let c = rig.daemons["n2"].shared.coordinator.borrow().clone().unwrap();
    let (_, stat) = c.read("/db/main/state").await.unwrap();
    c.compare_and_set("/db/main/state", b"{ not json", stat.version)
        .await
        .unwrap();
    // Whoever leads next finds it so.
    let leader = rig
        .daemons
        .iter()
        .find(|(_, d)| d.shared.handle.borrow().is_some())
        .unwrap()
        .0
        .clone();
    let other = if leader == "n1" { "n2" } else { "n1" };
    rig.kill_daemon(&leader);
    let state = rig
        .until("the damage is shown", |s| {
            s.databases
                .iter()
                .any(|g| g.problems.iter().any(|p| p.starts_with("damaged: ")))
        })
        .await;
    assert!(
        state.alerts.iter().any(|a| a.id == "damaged/db/main/state"),
        "{:#?}",
        state.alerts
    );
    let e = rig
        .change(GroupChange::Switchover(v1::SwitchoverRequest {
            to: other.to_owned(),
            group: "main".to_owned(),
            ..v1::SwitchoverRequest::default()
        }))
        .await
        .unwrap_err();
    assert_eq!(e.code.id, "HA0810");
    let e = rig.change(GroupChange::Create(create(&[other]))).await.unwrap_err();
    assert_eq!(e.code.id, "HA0810");
    assert_eq!(rig.zookeeper.dump()["/db/main/state"].0, b"{ not json");
}

#[tokio::test(start_paused = true)]
async fn the_master_leaves_a_primary_s_node_and_stays_where_it_went() {
    let nodes = ["n1", "n2", "n3"];
    let rig = Rig::new(&nodes).await;
    rig.create(&["n1", "n2"]).await;
    let first = rig.group().await.record.unwrap().primary;
    rig.steady(&first).await;
    let mut primary = first;
    for _ in 0..3 {
        // Wherever the master is, the primary moves onto its node, if it may.
        let master = rig.state().await.master.unwrap();
        if master.node != primary && master.node != "n3" {
            let switchover = GroupChange::Switchover(v1::SwitchoverRequest {
                to: master.node.clone(),
                ..v1::SwitchoverRequest::default()
            });
            let id = rig.change(switchover).await.unwrap().operation_id;
            rig.succeeded(&id).await;
            primary.clone_from(&master.node);
            rig.steady(&primary).await;
        }
        let here = primary.clone();
        let state = rig
            .until("the master is elsewhere", |s| {
                s.master.as_ref().is_some_and(|m| !m.node.is_empty() && m.node != here)
            })
            .await;
        let away = state.master.unwrap();
        // It rests there: it does not come back, nor go on to a third node.
        tokio::time::sleep(Duration::from_secs(40)).await;
        let later = rig.state().await.master.unwrap();
        assert_eq!((later.node, later.term), (away.node, away.term));
    }
}
