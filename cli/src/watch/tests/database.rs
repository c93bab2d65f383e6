//! The database view, the database box of the overview, and what can be done from there.

use ha_proto::v1::{
    Branch, ClusterState, Delta, Durability, DurabilityRule, Group, GroupHealth, GroupPause, GroupPhase, GroupRecord,
    GroupSpec, HistoryEntry, HistoryPhase, Instance, InstanceRole, InstanceState, PendingRestart, PrimaryChange,
    ProxyStatus, SyncState,
};

use super::{
    Stage, T, cluster,
    screens::{all, assert_screen},
    text,
};
use crate::watch::{act::Act, state::Action};

fn instance(node: &str, primary: bool) -> Instance {
    Instance {
        node: node.to_owned(),
        role: if primary {
            InstanceRole::Primary
        } else {
            InstanceRole::Sync
        }
        .into(),
        priority: 100,
        wanted_primary: primary,
        voter: !primary,
        reported_unix_ms: T - 300,
        reported_primary: primary,
        state: if primary {
            InstanceState::Running
        } else {
            InstanceState::Streaming
        }
        .into(),
        timeline: 3,
        lsn: 0x5A1F_0380,
        behind_bytes: (!primary).then_some(0),
        behind_ms: (!primary).then_some(0),
        sync: if primary {
            SyncState::Unspecified
        } else {
            SyncState::Quorum
        }
        .into(),
        lease_left_ms: Some(3_100),
        address: format!("10.0.0.1{}:5432", &node[1..]),
        version: "15.18".to_owned(),
        data_bytes: 40 << 30,
        wal_bytes: 1 << 30,
        connections: 12,
        upstream: if primary { String::new() } else { "n1".to_owned() },
        ..Instance::default()
    }
}

fn rule(id: u64, voters: &[&str]) -> DurabilityRule {
    DurabilityRule {
        id,
        need: 1,
        voters: voters.iter().map(|v| (*v).to_owned()).collect(),
        primaries: vec!["n1".to_owned()],
    }
}

fn phase(at_ms: u64, name: &str, text: &str) -> HistoryPhase {
    HistoryPhase {
        name: name.to_owned(),
        at_ms,
        text: text.to_owned(),
    }
}

/// One primary, two standbys, all well.
pub(super) fn group() -> Group {
    Group {
        name: "main".to_owned(),
        spec: Some(GroupSpec {
            durability: Durability::Quorum.into(),
            ..GroupSpec::default()
        }),
        record: Some(GroupRecord {
            term: 412,
            epoch: 7,
            phase: GroupPhase::Steady.into(),
            primary: "n1".to_owned(),
            rules: vec![rule(9, &["n2", "n3"])],
            applying: 9,
            timeline: 3,
            lineage: vec![Branch {
                epoch: 7,
                timeline: 3,
                fork_lsn: 0,
            }],
            since_unix_ms: T - 172_800_000,
            ..GroupRecord::default()
        }),
        health: GroupHealth::Healthy.into(),
        instances: vec![instance("n1", true), instance("n2", false), instance("n3", false)],
        proxies: vec![ProxyStatus {
            node: "n1".to_owned(),
            address: "10.0.0.11:5000".to_owned(),
            connections: 20,
            ..ProxyStatus::default()
        }],
        last_change: Some(HistoryEntry {
            epoch: 7,
            kind: PrimaryChange::Failover.into(),
            from: "n2".to_owned(),
            to: "n1".to_owned(),
            started_unix_ms: T - 172_800_000,
            finished_unix_ms: T - 172_798_760,
            phases: vec![
                phase(0, "suspected", "the postmaster of n2 is dead"),
                phase(41, "sealed", "n1, n3"),
                phase(52, "chosen", "n1"),
                phase(330, "opened", ""),
                phase(1240, "followed", "n2, n3"),
            ],
            gap_ms: Some(410),
            reason: "the postmaster of n2 is dead".to_owned(),
            ..HistoryEntry::default()
        }),
        last_failover_unix_ms: T - 172_800_000,
        last_failover_gap_ms: 410,
        revision: 31,
        observed_unix_ms: T,
        ..Group::default()
    }
}

/// One standby is behind and waits, the other is not heard of.
fn troubled() -> Group {
    let mut group = group();
    group.health = GroupHealth::Degraded.into();
    group.problems = vec!["n3 does not report since 2m 11s".to_owned()];
    group.why_no_failover = vec!["n1 is healthy: its write probe took 2 ms".to_owned()];
    group.operation_id = "0199f6".to_owned();
    let record = group.record.as_mut().unwrap();
    record.rules.push(rule(10, &["n2"]));
    record.applying = 10;
    record.degraded = "n3 is gone for 2m 11s, the limit is 10s".to_owned();
    group.spec.as_mut().unwrap().pause = Some(GroupPause {
        on: true,
        until_unix_ms: T + 3_600_000,
        reason: "new disks".to_owned(),
        actor: "user/alice".to_owned(),
        since_unix_ms: T,
    });
    let n2 = &mut group.instances[1];
    n2.state = InstanceState::CatchingUp.into();
    n2.behind_bytes = Some(48 << 20);
    n2.behind_ms = Some(2_300);
    n2.sync = SyncState::Potential.into();
    n2.waits_for = "WAL of timeline 3 from n1".to_owned();
    n2.not_eligible = vec!["it is 48 MiB behind, the limit is 16 MiB".to_owned()];
    n2.held_until_unix_ms = T + 600_000;
    n2.held_because = "it failed 3 times as primary within 10m".to_owned();
    n2.errors = vec!["archive_command failed: No space left on device".to_owned()];
    n2.pending_restart = vec![PendingRestart {
        parameter: "shared_buffers".to_owned(),
        current: "128MB".to_owned(),
        wanted: "256MB".to_owned(),
    }];
    group.instances[2].reported_unix_ms = T - 131_000;
    group.proxies[0].error = "address in use".to_owned();
    group
}

fn with(groups: Vec<Group>) -> ClusterState {
    ClusterState {
        databases: groups,
        ..cluster()
    }
}

/// A stage with some history of a lag that grows and shrinks.
fn stage(group: &Group) -> Stage {
    let mut stage = Stage::live(with(vec![group.clone()]));
    for lag in [0_u64, 1 << 10, 8 << 20, 48 << 20, 1 << 20, 0] {
        stage.mono += 1000;
        let mut now = group.clone();
        let server = T + stage.mono;
        for i in &mut now.instances {
            if group.health() == GroupHealth::Healthy || i.node != "n3" {
                i.reported_unix_ms = server - 300;
            }
            if i.node == "n2" && lag > 0 {
                i.behind_bytes = Some(lag);
            }
        }
        stage.delta(Delta {
            databases: vec![now],
            ..Delta::default()
        });
    }
    stage
}

fn pressed(group: &Group, keys: &str) -> Stage {
    let mut stage = stage(group);
    stage.press(keys);
    stage
}

#[test]
fn database() {
    all("database", || pressed(&group(), "3j"));
}

#[test]
fn database_in_trouble() {
    all("database_trouble", || pressed(&troubled(), "3j"));
}

#[test]
fn overview_with_a_database() {
    all("database_overview", || pressed(&troubled(), ""));
}

#[test]
fn detail_of_an_instance() {
    all("detail_instance", || pressed(&troubled(), "3j\n"));
}

#[test]
fn without_a_primary_or_a_group() {
    let mut electing = group();
    electing.health = GroupHealth::NoPrimary.into();
    let record = electing.record.as_mut().unwrap();
    record.primary.clear();
    record.phase = GroupPhase::Electing.into();
    record.reason = "the postmaster of n1 is dead".to_owned();
    electing.last_change = None;
    electing.instances[0].wanted_primary = false;
    electing.instances[0].state = InstanceState::Stopped.into();
    assert_screen("database_electing", 120, &pressed(&electing, "3").text());
    let mut none = Stage::live(cluster());
    none.press("3");
    assert_screen("database_none", 80, &text(&none.screen(80, 24)));
}

#[test]
fn several_groups_are_told_apart() {
    let mut other = group();
    other.name = "stats".to_owned();
    other.instances.truncate(2);
    let mut stage = Stage::live(with(vec![group(), other]));
    stage.press("3");
    assert_screen("database_several", 120, &stage.text());
    stage.press("/stats n2\n");
    let screen = stage.text();
    assert!(
        screen.contains("stats  n2") && !screen.contains("main   n2"),
        "{screen}"
    );
    stage.press("\x1b\x1bss");
    assert!(stage.text().contains("by behind"));
}

#[test]
fn a_group_that_is_removed_goes() {
    let mut stage = stage(&group());
    stage.press("3");
    assert!(stage.text().contains("Database main"));
    stage.delta(Delta {
        removed_databases: vec!["main".to_owned()],
        ..Delta::default()
    });
    assert!(stage.text().contains("there is no database group"));
}

#[test]
fn only_ascii_where_so_wished() {
    let mut stage = pressed(&troubled(), "3j");
    stage.state.theme.ascii = true;
    for width in [60, 80, 120, 200] {
        for keys in ["", "\n", "\x1b"] {
            stage.press(keys);
            let screen = text(&stage.screen(width, 30));
            assert!(screen.is_ascii(), "{screen}");
        }
    }
}

/// What a key leads to, when the name that is asked for is typed.
fn acts(group: &Group, keys: &str) -> Option<Act> {
    let mut stage = stage(group);
    stage.state.allow_actions = true;
    stage.press("3");
    match stage.press(keys) {
        Some(Action::Perform(confirmed)) => Some(confirmed.act().clone()),
        _ => None,
    }
}

#[test]
fn acts_need_the_name_of_what_they_change() {
    let switchover = Act::Switchover {
        group: "main".to_owned(),
        to: "n2".to_owned(),
    };
    assert_eq!(acts(&group(), "jSn2\n"), Some(switchover));
    assert_eq!(acts(&group(), "jSn3\n"), None);
    let reinit = Act::Reinit {
        group: "main".to_owned(),
        node: "n3".to_owned(),
    };
    assert_eq!(acts(&group(), "jjRn3\n"), Some(reinit));
    let pause = |on| Act::Pause {
        group: "main".to_owned(),
        on,
    };
    assert_eq!(acts(&group(), "Pmain\n"), Some(pause(true)));
    assert_eq!(acts(&troubled(), "Pmain\n"), Some(pause(false)));
}

#[test]
fn what_cannot_be_is_refused_before_it_is_asked() {
    let refused = |group: Group, keys: &str| {
        let mut stage = stage(&group);
        stage.state.allow_actions = true;
        stage.press("3");
        stage.press(keys);
        assert!(stage.state.overlay.is_none(), "{keys}");
        stage.text()
    };
    assert!(refused(group(), "S").contains("n1 is the primary of main"));
    assert!(refused(group(), "R").contains("n1 is the primary of main"));
    assert!(refused(troubled(), "jS").contains("n2 cannot become primary: it is 48 MiB behind"));
    assert!(refused(group(), "jC").contains("C acts in the view Overview"));
}
