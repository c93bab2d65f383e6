//! A database group to show: whole, and with everything wrong that can be shown.

use ha_proto::v1::*;

use super::NOW;

const DAY: i64 = 86_400_000;
const LSN: u64 = 0x5A1F_0380;

fn instance(node: &str, primary: bool) -> Instance {
    Instance {
        node: node.into(),
        role: if primary {
            InstanceRole::Primary
        } else {
            InstanceRole::Sync
        }
        .into(),
        priority: 100,
        wanted_primary: primary,
        voter: !primary,
        reported_unix_ms: NOW - 300,
        reported_primary: primary,
        state: if primary {
            InstanceState::Running
        } else {
            InstanceState::Streaming
        }
        .into(),
        timeline: 3,
        lsn: LSN,
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
        version: "15.18".into(),
        data_bytes: 40 << 30,
        wal_bytes: 1 << 30,
        connections: if primary { 42 } else { 3 },
        upstream: if primary { String::new() } else { "n1".into() },
        ..Instance::default()
    }
}

fn proxy(node: &str) -> ProxyStatus {
    let host = format!("10.0.0.1{}", &node[1..]);
    ProxyStatus {
        node: node.into(),
        address: format!("{host}:5000"),
        standby_address: format!("{host}:5001"),
        connections: 20,
        ..ProxyStatus::default()
    }
}

fn rule(id: u64, voters: &[&str]) -> DurabilityRule {
    DurabilityRule {
        id,
        need: 1,
        voters: voters.iter().map(|v| (*v).to_owned()).collect(),
        primaries: vec!["n1".into()],
    }
}

pub(crate) fn spec() -> GroupSpec {
    let member = |node: &str, role: InstanceRole| InstanceSpec {
        node: node.into(),
        role: role.into(),
        priority: Some(100),
        ..InstanceSpec::default()
    };
    GroupSpec {
        version: 15,
        durability: Durability::Quorum.into(),
        instances: 3,
        members: vec![
            member("n1", InstanceRole::Primary),
            member("n2", InstanceRole::Sync),
            member("n3", InstanceRole::Sync),
        ],
        port: 5432,
        parameters: [
            ("shared_buffers".to_owned(), "256MB".to_owned()),
            ("work_mem".to_owned(), "64MB".to_owned()),
        ]
        .into(),
        hba: vec!["host all app 10.0.0.0/8 scram-sha-256".into()],
        databases: vec![DatabaseSpec {
            name: "app".into(),
            owner: "app".into(),
            extensions: vec!["pg_trgm".into()],
        }],
        roles: vec![DatabaseRoleSpec {
            name: "app".into(),
            has_password: true,
            member_of: vec!["pg_monitor".into()],
            ..DatabaseRoleSpec::default()
        }],
        limits: Some(GroupLimits {
            max_switchover_lag_bytes: Some(16 << 20),
            max_failover_lag_bytes: Some(1 << 20),
            degrade_after_ms: Some(10_000),
            slot_retention_bytes: Some(8 << 30),
            start_timeout_ms: Some(300_000),
            stop_timeout_ms: Some(10_000),
            promote_timeout_ms: Some(30_000),
            replace_after_ms: Some(600_000),
            flap_count: Some(3),
            flap_window_ms: Some(600_000),
            hold_down_ms: Some(900_000),
        }),
        proxy: Some(GroupProxy {
            port: Some(5000),
            standby_port: Some(5001),
            wait_ms: Some(30_000),
            max_lag_bytes: Some(16 << 20),
            fall_back: Some(false),
        }),
        ..GroupSpec::default()
    }
}

/// As in the operator's contract.
pub(crate) fn healthy() -> Group {
    Group {
        name: "main".into(),
        spec: Some(spec()),
        record: Some(GroupRecord {
            term: 412,
            epoch: 7,
            phase: GroupPhase::Steady.into(),
            primary: "n1".into(),
            rules: vec![rule(9, &["n2", "n3"])],
            applying: 9,
            timeline: 3,
            lineage: vec![
                Branch {
                    epoch: 1,
                    timeline: 1,
                    fork_lsn: 0,
                },
                Branch {
                    epoch: 7,
                    timeline: 3,
                    fork_lsn: 0x4A00_0000,
                },
            ],
            granters: vec!["n2".into(), "n3".into()],
            system_id: 7_388_512_345_678_901_234,
            since_unix_ms: NOW - 2 * DAY,
            version: 77,
            ..GroupRecord::default()
        }),
        health: GroupHealth::Healthy.into(),
        instances: vec![instance("n1", true), instance("n2", false), instance("n3", false)],
        proxies: vec![proxy("n1"), proxy("n2"), proxy("n3")],
        last_change: history().pop(),
        last_failover_unix_ms: NOW - 2 * DAY,
        last_failover_gap_ms: 410,
        revision: 31,
        observed_unix_ms: NOW,
        ..Group::default()
    }
}

/// A standby is lost, one is behind and waits, a rule is being left, somebody paused it.
pub(crate) fn troubled() -> Group {
    let mut group = healthy();
    group.health = GroupHealth::Degraded.into();
    group.problems = vec!["n3 does not report since 2m 11s".into()];
    group.why_no_failover = vec![
        "n1 is healthy: its write probe took 2 ms".into(),
        "n2 hears n1 (0.2 s ago)".into(),
    ];
    group.operation_id = "0199f6".into();
    if let Some(record) = &mut group.record {
        record.rules = vec![rule(9, &["n2", "n3"]), rule(10, &["n2"])];
        record.applying = 10;
        record.degraded = "n3 is gone for 2m 11s, the limit is 10s".into();
        record.former = "n1".into();
        record.switching_to = "n2".into();
        record.reason = "commits wait for n2 alone".into();
    }
    if let Some(spec) = &mut group.spec {
        spec.pause = Some(GroupPause {
            on: true,
            until_unix_ms: NOW + 3_600_000,
            reason: "new disks".into(),
            actor: "user/alice".into(),
            since_unix_ms: NOW - 60_000,
        });
    }
    let n2 = &mut group.instances[1];
    n2.state = InstanceState::CatchingUp.into();
    n2.behind_bytes = Some(48 << 20);
    n2.behind_ms = Some(2_300);
    n2.sync = SyncState::Potential.into();
    n2.waits_for = "WAL of timeline 3 from n1".into();
    n2.detail = "40 % of 48 MiB".into();
    n2.not_eligible = vec!["it is 48 MiB behind, the limit is 16 MiB".into()];
    n2.held_until_unix_ms = NOW + 600_000;
    n2.held_because = "it failed 3 times as primary within 10m".into();
    n2.errors = vec!["archive_command failed: No space left on device".into()];
    n2.pending_restart = vec![PendingRestart {
        parameter: "shared_buffers".into(),
        current: "128MB".into(),
        wanted: "256MB".into(),
    }];
    let n3 = &mut group.instances[2];
    n3.reported_unix_ms = NOW - 131_000;
    n3.chosen = true;
    n3.voter = false;
    group.proxies[2].address.clear();
    group.proxies[2].standby_address.clear();
    group.proxies[2].error = "address already in use: 10.0.0.13:5000".into();
    group.proxies[1].waiting = 4;
    group
}

/// Nobody takes writes.
pub(crate) fn electing() -> Group {
    let mut group = troubled();
    group.health = GroupHealth::NoPrimary.into();
    group.problems = vec!["no primary for 1.2 s".into()];
    group.last_failover_unix_ms = 0;
    if let Some(record) = &mut group.record {
        record.primary.clear();
        record.phase = GroupPhase::Electing.into();
        record.reason = "the postmaster of n1 is dead".into();
        record.since_unix_ms = NOW - 1_200;
    }
    group.instances[0].wanted_primary = false;
    group.instances[0].state = InstanceState::Stopped.into();
    group.instances[0].lease_left_ms = None;
    group.instances[0].behind_bytes = None;
    group
}

pub(crate) fn history() -> Vec<HistoryEntry> {
    let phase = |at_ms: u64, name: &str, text: &str| HistoryPhase {
        name: name.into(),
        at_ms,
        text: text.into(),
    };
    let switchover = HistoryEntry {
        epoch: 6,
        from_epoch: 5,
        kind: PrimaryChange::Switchover.into(),
        from: "n1".into(),
        to: "n2".into(),
        started_unix_ms: NOW - 5 * DAY,
        finished_unix_ms: NOW - 5 * DAY + 940,
        phases: vec![
            phase(0, "checked", "n2 streaming, 0 B behind"),
            phase(64, "stopped", "n1 at 0/5A1F0428"),
            phase(152, "promoted", ""),
        ],
        gap_ms: Some(190),
        reason: "kernel update of n1".into(),
        actor: "user/alice".into(),
        timeline: 2,
        fork_lsn: 0x3A00_0000,
        operation_id: "0199f3".into(),
        ..HistoryEntry::default()
    };
    let failover = HistoryEntry {
        epoch: 7,
        from_epoch: 6,
        kind: PrimaryChange::Failover.into(),
        from: "n2".into(),
        to: "n1".into(),
        started_unix_ms: NOW - 2 * DAY,
        finished_unix_ms: NOW - 2 * DAY + 1_240,
        phases: vec![
            phase(0, "suspected", "the postmaster of n2 is dead"),
            phase(41, "sealed", "n1, n3"),
            phase(52, "chosen", "n1"),
            phase(330, "opened", ""),
        ],
        gap_ms: Some(410),
        reason: "the postmaster of n2 is dead".into(),
        actor: "master".into(),
        timeline: 3,
        fork_lsn: 0x4A00_0000,
        decision: vec![
            "n1: 0/4A000000 of epoch 6, priority 100".into(),
            "n3: 0/49FFFF00 of epoch 6, priority 100: behind n1".into(),
            "n1 has the most of 2 answers, 2 were needed".into(),
        ],
        lost_bytes: Some(4096),
        error: String::new(),
        ..HistoryEntry::default()
    };
    vec![switchover, failover]
}

pub(crate) fn config() -> GroupConfig {
    let parameter =
        |name: &str, value: &str, unit: &str, source: &str, needs_restart: bool, pending: &[&str]| ParameterStatus {
            name: name.into(),
            value: value.into(),
            unit: unit.into(),
            source: source.into(),
            needs_restart,
            pending_on: pending.iter().map(|n| (*n).to_owned()).collect(),
            boot_value: "0".into(),
        };
    GroupConfig {
        group: "main".into(),
        spec: Some(spec()),
        revision: 31,
        parameters: vec![
            parameter("hot_standby", "on", "", "had", true, &[]),
            parameter("max_connections", "100", "", "default", true, &[]),
            parameter("shared_buffers", "128", "MB", "spec", true, &["n1", "n2"]),
            parameter("work_mem", "64", "MB", "spec", false, &[]),
        ],
        cluster: "prod".into(),
    }
}

pub(crate) fn explanation() -> Explanation {
    let instance = |node: &str, eligible: bool, line: &str| InstanceExplanation {
        node: node.into(),
        eligible,
        lines: vec![line.into()],
    };
    Explanation {
        group: "main".into(),
        verdict: "no failover: n1 is healthy".into(),
        lines: vec!["n2 hears n1 (0.2 s ago)".into(), "n1 holds its lease for 3.1 s".into()],
        instances: vec![
            instance("n1", true, "is the primary"),
            instance("n2", false, "it is 48 MiB behind, the limit is 16 MiB"),
        ],
        cluster: "prod".into(),
        revision: 4182,
        observed_unix_ms: NOW,
    }
}
