//! A cluster to show: every kind, in every state that looks different.

pub(crate) mod database;

use ha_proto::v1::*;

/// The moment at which everything is looked at: 2025-11-22T15:40:00Z.
pub(crate) const NOW: i64 = 1_763_826_000_000;
const DAY: i64 = 86_400_000;

fn usage(cpu: u64, memory: u64) -> Usage {
    Usage {
        capacity: Some(Resources {
            cpu_milli: 8_000,
            memory_bytes: 16 << 30,
            disk_bytes: 200 << 30,
        }),
        cpu_used_milli: cpu,
        memory_used_bytes: memory,
        disk_used_bytes: 40 << 30,
        daemon_rss_bytes: 14 << 20,
    }
}

fn node(name: &str, state: NodeState, address: &str) -> Node {
    Node {
        name: name.into(),
        spec: Some(NodeSpec {
            address: address.into(),
            labels: [("zone".to_owned(), if name == "n3" { "b" } else { "a" }.to_owned())]
                .into_iter()
                .collect(),
            scenarios: vec!["oltp".into()],
            master_eligible: true,
            ..NodeSpec::default()
        }),
        status: Some(NodeStatus {
            state: state as i32,
            role: Role::Member as i32,
            state_since_unix_ms: NOW - 3 * DAY,
            last_seen_unix_ms: NOW - 400,
            usage: Some(usage(960, 3_328_599_654)),
            version: "0.1.0".into(),
            boot_id: "0e3a7c1e-0000-4000-8000-000000000001".into(),
            started_unix_ms: NOW - 3 * DAY,
            certificate_expires_unix_ms: NOW + 300 * DAY,
            clock_skew_ms: 3,
            http_address: address.replace("7400", "7401"),
            registered_address: address.into(),
            os: "Debian GNU/Linux 12".into(),
            ..NodeStatus::default()
        }),
        revision: 17,
    }
}

/// n1 online, n2 master, n3 offline, n4 cordoned with overrides, n5 never added.
pub(crate) fn nodes() -> Vec<Node> {
    let n1 = node("n1", NodeState::Online, "10.0.0.11:7400");
    let mut n2 = node("n2", NodeState::Online, "10.0.0.12:7400");
    let mut n3 = node("n3", NodeState::Offline, "10.0.0.13:7400");
    let mut n4 = node("n4", NodeState::Cordoned, "10.0.0.14:7400");
    let instance = |primary: bool, state: InstanceState| NodeInstance {
        group: "main".into(),
        primary,
        state: state.into(),
    };
    let mut n1 = n1;
    for (node, primary, state) in [
        (&mut n1, true, InstanceState::Running),
        (&mut n2, false, InstanceState::CatchingUp),
        (&mut n4, false, InstanceState::Streaming),
    ] {
        if let Some(status) = &mut node.status {
            status.databases = vec![instance(primary, state)];
        }
    }
    let mut n5 = node("n5", NodeState::Pending, "10.0.0.15:7400");
    if let Some(status) = &mut n2.status {
        status.role = Role::Master as i32;
        status.usage = Some(usage(320, 2_362_232_012));
    }
    if let Some(status) = &mut n3.status {
        status.reason = "session expired".into();
        status.last_seen_unix_ms = NOW - 131_000;
        status.state_since_unix_ms = NOW - 131_000;
    }
    if let (Some(spec), Some(status)) = (&mut n4.spec, &mut n4.status) {
        spec.cordoned = true;
        spec.master_preference = 10;
        spec.capacity_override = Some(Resources {
            cpu_milli: 6_000,
            memory_bytes: 12 << 30,
            disk_bytes: 0,
        });
        status.certificate_expires_unix_ms = NOW + 5 * DAY;
        status.conditions = vec!["the disk of /var/lib/had is 91 % full".into()];
        status.registered_address = "10.0.0.41:7400".into();
    }
    n5.spec = Some(NodeSpec {
        address: "10.0.0.15:7400".into(),
        ..NodeSpec::default()
    });
    if let Some(status) = &mut n5.status {
        status.reason = "was never added".into();
        status.usage = None;
    }
    vec![n1, n2, n3, n4, n5]
}

pub(crate) fn alerts() -> Vec<Alert> {
    vec![
        Alert {
            id: "node/n3".into(),
            severity: Severity::Error as i32,
            subject: "node/n3".into(),
            text: "node n3 is offline: session expired".into(),
            since_unix_ms: NOW - 131_000,
            hint: "hactl node show n3".into(),
        },
        Alert {
            id: "certificate/n4".into(),
            severity: Severity::Warning as i32,
            subject: "node/n4".into(),
            text: "the certificate of node n4 expires in 5d".into(),
            since_unix_ms: NOW - DAY,
            hint: "hactl node renew n4".into(),
        },
    ]
}

/// The cluster with everything wrong that can be shown.
pub(crate) fn troubled() -> ClusterState {
    ClusterState {
        cluster: "prod".into(),
        cluster_id: "5f0c1f0a-0000-4000-8000-000000000000".into(),
        master: Some(Master {
            node: "n2".into(),
            address: "10.0.0.12:7400".into(),
            term: 412,
            since_unix_ms: NOW - 3 * DAY - 4 * 3_600_000,
            pinned: "n2".into(),
        }),
        zookeeper: vec![
            zookeeper("10.0.0.1:2181", "leader", ""),
            zookeeper("10.0.0.2:2181", "follower", ""),
            zookeeper("10.0.0.3:2181", "", "connection refused"),
        ],
        revision: 4182,
        nodes: nodes(),
        alerts: alerts(),
        maintenance: Some(Maintenance {
            on: true,
            until_unix_ms: NOW + 3_600_000,
            reason: "new disks".into(),
            actor: "user/alice".into(),
        }),
        observed_unix_ms: NOW,
        session_timeout_ms: 4_000,
        databases: vec![database::troubled()],
        ..ClusterState::default()
    }
}

/// The cluster as it should be.
pub(crate) fn healthy() -> ClusterState {
    let mut state = troubled();
    state.nodes.truncate(2);
    state.alerts.clear();
    state.maintenance = None;
    state.databases = vec![database::healthy()];
    for server in &mut state.zookeeper {
        server.reachable = true;
        server.error.clear();
    }
    if let Some(master) = &mut state.master {
        master.pinned.clear();
    }
    state
}

fn zookeeper(address: &str, mode: &str, error: &str) -> ZooKeeperServer {
    ZooKeeperServer {
        address: address.into(),
        reachable: error.is_empty(),
        mode: mode.into(),
        version: if error.is_empty() {
            "3.8.0".into()
        } else {
            String::new()
        },
        error: error.into(),
        sync_timeout_ms: 2000,
    }
}

pub(crate) fn users() -> Vec<User> {
    let user = |name: &str, role: AccessRole, kind: &str| User {
        name: name.into(),
        role: role as i32,
        serials: vec!["019a00000000aabbccddeeff00112233".into()],
        expires_unix_ms: NOW + 36_500 * DAY,
        created_unix_ms: NOW - 30 * DAY,
        kind: kind.into(),
        ..User::default()
    };
    let mut bob = user("bob", AccessRole::Operator, "user");
    bob.revoked = true;
    bob.revoked_unix_ms = NOW - DAY;
    let mut carol = user("carol", AccessRole::Viewer, "user");
    carol.expires_unix_ms = NOW - DAY;
    vec![
        user("alice", AccessRole::Admin, "user"),
        bob,
        carol,
        user("n1", AccessRole::Unspecified, "node"),
    ]
}

pub(crate) fn changes() -> Vec<Change> {
    let change = |seq: u64, kind: &str, subject: &str, severity: Severity, text: &str, actor: &str| Change {
        seq,
        time_unix_ms: NOW - 200_000 + i64::try_from(seq).unwrap_or(0) * 1_000,
        kind: kind.into(),
        subject: subject.into(),
        severity: severity as i32,
        text: text.into(),
        actor: actor.into(),
        term: 412,
        ..Change::default()
    };
    let mut labelled = change(
        4180,
        "node.updated",
        "node/n1",
        Severity::Info,
        "node n1 updated",
        "user/alice",
    );
    labelled.before = r#"{"labels":{}}"#.into();
    labelled.after = r#"{"labels":{"zone":"a"}}"#.into();
    labelled.cause = "moved to zone a".into();
    labelled.time_unix_ms = NOW - 200_000;
    let mut offline = change(
        4181,
        "node.offline",
        "node/n3",
        Severity::Error,
        "node n3 is offline",
        "master",
    );
    offline.cause = "session expired".into();
    offline.time_unix_ms = NOW - 131_000;
    let mut denied = change(
        4182,
        "access.denied",
        "user/carol",
        Severity::Warning,
        "RemoveNode refused",
        "master",
    );
    denied.cause = "role viewer\u{1b}[2J".into();
    denied.time_unix_ms = NOW - 60_000;
    vec![labelled, offline, denied]
}

pub(crate) fn operations() -> Vec<Operation> {
    let step = |ms: i64, text: &str| OperationStep {
        time_unix_ms: NOW - 60_000 + ms,
        text: text.into(),
    };
    let done = Operation {
        id: "0199f3".into(),
        kind: "master.transfer".into(),
        subject: "master".into(),
        state: OperationState::Succeeded as i32,
        steps: vec![
            step(0, "checked: n1 is eligible and online"),
            step(21, "n2 released"),
            step(152, "n1 is master, term 413"),
        ],
        actor: "user/alice".into(),
        reason: "kernel update of n2".into(),
        created_unix_ms: NOW - 60_000,
        finished_unix_ms: NOW - 60_000 + 190,
        arguments: [("to".to_owned(), "n1".to_owned())].into_iter().collect(),
        ..Operation::default()
    };
    let failed = Operation {
        id: "0199f4".into(),
        kind: "node.drain".into(),
        subject: "node/n1".into(),
        state: OperationState::Failed as i32,
        steps: vec![step(10_000, "cordoned")],
        actor: "user/alice".into(),
        created_unix_ms: NOW - 50_000,
        finished_unix_ms: NOW - 20_000,
        error_code: "HA0503".into(),
        error: "not empty after 30 s".into(),
        ..Operation::default()
    };
    let running = Operation {
        id: "0199f5".into(),
        kind: "node.drain".into(),
        subject: "node/n4".into(),
        state: OperationState::Running as i32,
        steps: vec![step(55_000, "cordoned")],
        actor: "user/alice".into(),
        created_unix_ms: NOW - 5_000,
        ..Operation::default()
    };
    vec![done, failed, running]
}

pub(crate) fn checks() -> Vec<DoctorCheck> {
    let check = |name: &str, severity: Severity, text: &str, hint: &str| DoctorCheck {
        name: name.into(),
        severity: severity as i32,
        text: text.into(),
        hint: hint.into(),
    };
    vec![
        check("zookeeper.quorum", Severity::Info, "2 of 3 servers reachable", ""),
        check(
            "zookeeper.server",
            Severity::Warning,
            "10.0.0.3:2181: connection refused",
            "systemctl status zookeeper",
        ),
        check(
            "nodes.online",
            Severity::Error,
            "node n3 is offline: session expired",
            "hactl node show n3",
        ),
    ]
}
