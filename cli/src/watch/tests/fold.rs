//! Frames into a cluster: snapshots, deltas, ages, histories.

use ha_proto::v1::{AlertList, Change, Delta, Maintenance, Master, NodeState, Role, ZooKeeperList, watch_frame::Body};

use super::{Stage, T, alerts, cluster, frame, node};
use crate::watch::cluster::SAMPLES;

#[test]
fn a_delta_before_any_snapshot_is_nothing() {
    let mut stage = Stage::new(false);
    stage.tell(frame(
        7,
        T,
        Body::Delta(Delta {
            revision: 9,
            ..Delta::default()
        }),
    ));
    assert!(stage.state.cluster.is_none());
}

#[test]
fn a_delta_changes_what_it_names_and_nothing_else() {
    let mut stage = Stage::live(cluster());
    stage.delta(Delta {
        nodes: vec![node("n4", NodeState::Pending, Role::Member)],
        removed_nodes: vec!["n3".to_owned()],
        revision: 4183,
        ..Delta::default()
    });
    let cluster = stage.state.cluster.as_ref().unwrap();
    assert_eq!(cluster.nodes.keys().collect::<Vec<_>>(), ["n1", "n2", "n4"]);
    assert_eq!((cluster.revision, cluster.master.node.as_str()), (4183, "n2"));
    assert_eq!((cluster.seq, cluster.term), (513, 412));
    stage.delta(Delta {
        alerts: Some(AlertList { alerts: alerts() }),
        master: Some(Master {
            node: "n1".to_owned(),
            term: 413,
            ..Master::default()
        }),
        maintenance: Some(Maintenance {
            on: true,
            ..Maintenance::default()
        }),
        zookeeper: Some(ZooKeeperList { servers: Vec::new() }),
        ..Delta::default()
    });
    let cluster = stage.state.cluster.as_ref().unwrap();
    assert_eq!(
        (cluster.alerts.len(), cluster.master.term, cluster.zookeeper.len()),
        (2, 413, 0)
    );
    assert!(cluster.maintenance.is_some());
    assert_eq!(cluster.revision, 4183);
    stage.delta(Delta {
        alerts: Some(AlertList::default()),
        maintenance: Some(Maintenance::default()),
        ..Delta::default()
    });
    let cluster = stage.state.cluster.as_ref().unwrap();
    assert!(cluster.alerts.is_empty() && cluster.maintenance.is_none());
}

#[test]
fn a_change_told_twice_is_kept_once_and_the_oldest_go() {
    let mut stage = Stage::live(cluster());
    for seq in (4182..6000).chain(5990..6000) {
        stage.delta(Delta {
            changes: vec![Change {
                seq,
                ..Change::default()
            }],
            ..Delta::default()
        });
    }
    let changes = &stage.state.cluster.as_ref().unwrap().changes;
    assert_eq!((changes.len(), *changes.keys().next().unwrap()), (1000, 5000));
}

#[test]
fn a_new_snapshot_keeps_the_histories_and_the_changes_that_join() {
    let mut stage = Stage::live(cluster());
    let samples = |stage: &Stage| {
        stage.state.cluster.as_ref().unwrap().nodes["n1"]
            .cpu
            .samples()
            .filter(Option::is_some)
            .count()
    };
    let before = samples(&stage);
    assert!(before > 50);
    let seqs = |stage: &Stage| {
        stage
            .state
            .cluster
            .as_ref()
            .unwrap()
            .changes
            .keys()
            .copied()
            .collect::<Vec<_>>()
    };
    let mut next = cluster();
    next.recent_changes = vec![Change {
        seq: 4183,
        ..Change::default()
    }];
    stage.tell(frame(3, T, Body::Snapshot(next.clone())));
    assert_eq!(seqs(&stage), [4178, 4179, 4180, 4181, 4182, 4183]);
    assert_eq!(samples(&stage), before);
    // Changes are missing in between: the older ones would pretend that there were none.
    next.recent_changes = vec![Change {
        seq: 4200,
        ..Change::default()
    }];
    stage.tell(frame(4, T, Body::Snapshot(next.clone())));
    assert_eq!(seqs(&stage), [4200]);
    // Another cluster answers: nothing of the old one stays.
    next.cluster_id = "other".to_owned();
    next.recent_changes = vec![Change {
        seq: 4201,
        ..Change::default()
    }];
    stage.tell(frame(5, T, Body::Snapshot(next)));
    assert_eq!((seqs(&stage), samples(&stage)), (vec![4201], 1));
}

#[test]
fn histories_are_bounded_and_show_the_gaps() {
    let mut stage = Stage::live(cluster());
    let history = |stage: &Stage| {
        stage.state.cluster.as_ref().unwrap().nodes["n1"]
            .cpu
            .samples()
            .collect::<Vec<_>>()
    };
    for _ in 0..200 {
        stage.mono += 1000;
        stage.beat();
    }
    assert_eq!(history(&stage).len(), SAMPLES);
    assert!(history(&stage).iter().all(Option::is_some));
    stage.mono += 10_000;
    stage.beat();
    assert_eq!(history(&stage).iter().filter(|s| s.is_none()).count(), 8);
    // A frame is not a sample: two within a second count once.
    let before = history(&stage);
    stage.beat();
    stage.beat();
    assert_eq!(history(&stage), before);
    stage.mono += 10_000_000;
    stage.beat();
    assert_eq!(history(&stage).iter().filter(|s| s.is_some()).count(), 1);
}

#[test]
fn each_row_has_its_own_age() {
    let mut stage = Stage::live(cluster());
    let age = |stage: &Stage, name: &str| {
        let cluster = stage.state.cluster.as_ref().unwrap();
        cluster.age(&cluster.nodes[name], stage.mono)
    };
    assert_eq!((age(&stage, "n1"), age(&stage, "n3")), (Some(100), Some(131_100)));
    stage.mono = 5_100;
    assert_eq!((age(&stage, "n1"), age(&stage, "n3")), (Some(5_100), Some(136_100)));
    stage.beat();
    assert_eq!((age(&stage, "n1"), age(&stage, "n3")), (Some(0), Some(136_100)));
    let mut never = node("n9", NodeState::Offline, Role::Member);
    never.status.as_mut().unwrap().last_seen_unix_ms = 0;
    stage.delta(Delta {
        nodes: vec![never],
        ..Delta::default()
    });
    assert_eq!(age(&stage, "n9"), None);
}

#[test]
fn an_endpoint_is_called_by_its_node() {
    let stage = Stage::live(cluster());
    let cluster = stage.state.cluster.as_ref().unwrap();
    assert_eq!(cluster.node_at("10.0.0.12:7400"), "n2");
    assert_eq!(cluster.node_at("10.0.0.99:7400"), "10.0.0.99:7400");
}

#[test]
fn the_changes_of_a_node_are_its_own() {
    let stage = Stage::live(cluster());
    let cluster = stage.state.cluster.as_ref().unwrap();
    let of = |name| cluster.changes_of(name).map(|c| c.seq).collect::<Vec<_>>();
    assert_eq!(of("n1"), [4182, 4179]);
    assert_eq!(of("n2"), [4178]);
    assert_eq!(of("n3"), [4181, 4180]);
}
