//! The checks of load balancers: which node passes which, as Patroni documents them.

use std::sync::Arc;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::rig::*;
use crate::coordination::SessionState;
use crate::proxy::local::{Instance, Instances, Pending, Role, State, Wal, Walsender};
use crate::proxy::routes::{self, Routes, Standby, StandbyState, Sync, Table};
use crate::security::testing::TestCa;

async fn ask(server: &Server, method: &str, path: &str) -> (u16, String) {
    let mut tcp = TcpStream::connect(server.http).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    tcp.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = tokio::time::timeout(PATIENCE, tcp.read_to_string(&mut answer));
    read.await.unwrap().unwrap();
    let code = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    (code, body)
}

async fn code(server: &Server, path: &str) -> u16 {
    let got = ask(server, "GET", path).await;
    for method in ["HEAD", "OPTIONS"] {
        let (other, body) = ask(server, method, path).await;
        assert_eq!((other, body.as_str()), (got.0, ""), "{method} {path}");
    }
    got.0
}

async fn document(server: &Server, path: &str) -> Value {
    serde_json::from_str(&ask(server, "GET", path).await.1).unwrap()
}

fn primary() -> Instance {
    Instance {
        state: State::Running,
        role: Role::Primary,
        leader: true,
        version: 150_018,
        system_id: 7_268_616_322_854_375_442,
        timeline: 3,
        postmaster_start_ms: 1_724_873_966_352,
        wal: Wal {
            location: 67_395_656,
            ..Wal::default()
        },
        primary_lsn: 67_395_656,
        replication: vec![Walsender {
            user: "ha_repl".into(),
            application_name: "n2_e4".into(),
            client_addr: "10.0.0.12".into(),
            state: "streaming".into(),
            sync_state: "quorum".into(),
            sync_priority: 1,
        }],
        coordinator_seen_ms: 1_692_356_718_900,
        ..Instance::default()
    }
}

/// A standby a megabyte behind.
fn standby(sync: Sync) -> Instance {
    Instance {
        role: Role::Replica,
        leader: false,
        sync,
        wal: Wal {
            received: 67_395_656,
            replayed: 67_395_656 - 1024 * 1024,
            replayed_ms: 1_724_873_966_352,
            ..Wal::default()
        },
        replication_state: "streaming".into(),
        replication: Vec::new(),
        ..primary()
    }
}

fn runs(server: &Server, instances: impl IntoIterator<Item = (&'static str, Instance)>) {
    let groups = instances.into_iter().map(|(g, i)| (g.to_owned(), i)).collect();
    server.tx.instances.send_replace(Arc::new(Instances { groups }));
}

const CHECKS: [&str; 18] = [
    "/",
    "/primary",
    "/master",
    "/read-write",
    "/leader",
    "/standby-leader",
    "/standby_leader",
    "/replica",
    "/read-only",
    "/sync",
    "/synchronous",
    "/async",
    "/asynchronous",
    "/quorum",
    "/read-only-sync",
    "/read-only-quorum",
    "/health",
    "/readiness",
];

/// Asserts which of the checks pass; every other one is answered with 503.
async fn assert_passes(server: &Server, passing: &str, what: &str) {
    for check in CHECKS {
        let wanted = if passing.split(' ').any(|p| p == check) {
            200
        } else {
            503
        };
        assert_eq!(code(server, check).await, wanted, "{what}: {check}");
    }
    assert_eq!(code(server, "/liveness").await, 200);
}

#[tokio::test]
async fn each_check_is_passed_by_whom_it_is_for() {
    let ca = TestCa::new("prod");
    let server = Server::start(&ca, "n1").await;
    let at_primary =
        "/ /primary /master /read-write /leader /read-only /read-only-sync /read-only-quorum /health /readiness";
    runs(&server, [("main", primary())]);
    assert_passes(&server, at_primary, "primary").await;
    let closed = Instance {
        leader: false,
        ..primary()
    };
    runs(&server, [("main", closed)]);
    assert_passes(&server, "/health", "a former primary, or one that is not open yet").await;

    for (sync, own) in [
        (Sync::Async, "/async /asynchronous"),
        (Sync::Quorum, "/quorum /read-only-quorum"),
        (Sync::Sync, "/sync /synchronous /read-only-sync"),
    ] {
        runs(&server, [("main", standby(sync))]);
        let passing = format!("/replica /read-only /health /readiness {own}");
        assert_passes(&server, &passing, &format!("{sync:?}")).await;
        let unbalanced = Instance {
            no_load_balance: true,
            ..standby(sync)
        };
        runs(&server, [("main", unbalanced)]);
        assert_passes(&server, "/health /readiness", "noloadbalance").await;
    }
    for state in [
        State::Starting,
        State::Stopped,
        State::Crashed,
        State::Copying,
        State::Rewinding,
        State::Unknown,
    ] {
        runs(
            &server,
            [(
                "main",
                Instance {
                    state,
                    ..standby(Sync::Async)
                },
            )],
        );
        assert_passes(&server, "", state.word()).await;
        runs(&server, [("main", Instance { state, ..primary() })]);
        assert_passes(&server, "", state.word()).await;
    }
    server.end().await;
}

#[tokio::test]
async fn lag_state_and_tags_restrict() {
    let ca = TestCa::new("prod");
    let server = Server::start(&ca, "n1").await;
    let tags = [("zone", "a"), ("clonefrom", "true")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let standby = Instance {
        tags: tags.clone().into(),
        ..standby(Sync::Async)
    };
    runs(&server, [("main", standby.clone())]);
    for (path, wanted) in [
        ("/replica?lag=16MB", 200),
        ("/replica?lag=1MB", 200),
        ("/replica?lag=1048576", 200),
        ("/replica?lag=1024kB", 200),
        ("/replica?lag=1.0%20MB", 200),
        ("/replica?lag=1048575", 503),
        ("/replica?lag=10kB", 503),
        ("/replica?lag=many", 503),
        ("/replica?lag=-1", 503),
        ("/replica?lag=", 503),
        ("/async?lag=1kB", 503),
        ("/read-only?lag=1kB", 503),
        ("/replica?replication_state=streaming", 200),
        ("/replica?replication_state=in%20archive%20recovery", 503),
        ("/replica?tag_zone=a&tag_clonefrom=true&lag=1GB", 200),
        ("/replica?tag_zone=b", 503),
        ("/replica?tag_rack=1", 503),
        ("/replica?unknown=1", 200),
        ("/health?tag_zone=b", 503),
        ("/readiness?lag=1MB", 200),
        ("/readiness?lag=1kB", 503),
        ("/readiness?lag=1kB&mode=write", 200),
        ("/primary?tag_zone=a", 503),
    ] {
        assert_eq!(code(&server, path).await, wanted, "{path}");
    }
    let blind = Instance {
        primary_lsn: 0,
        ..standby
    };
    runs(&server, [("main", blind)]);
    assert_eq!(code(&server, "/replica").await, 200);
    assert_eq!(
        code(&server, "/replica?lag=1TB").await,
        503,
        "the distance is not known"
    );
    // The primary's tags are not looked at where a primary is asked for, and it is never behind.
    runs(
        &server,
        [(
            "main",
            Instance {
                tags: tags.into(),
                ..primary()
            },
        )],
    );
    assert_eq!(code(&server, "/primary?tag_zone=b").await, 200);
    assert_eq!(code(&server, "/read-only?lag=1&tag_zone=a").await, 200);
    assert_eq!(code(&server, "/read-only?tag_zone=b").await, 503);
    server.end().await;
}

#[tokio::test]
async fn paths_choose_the_group() {
    let ca = TestCa::new("prod");
    let server = Server::start(&ca, "n1").await;
    // Without any group here the checks fail, and /health is the node's own.
    assert_eq!(code(&server, "/primary").await, 503);
    assert_eq!(code(&server, "/").await, 503);
    assert_eq!(code(&server, "/cluster").await, 503);
    assert_eq!(code(&server, "/db/main/primary").await, 404);
    assert_eq!(code(&server, "/nothing").await, 404);
    assert_eq!(code(&server, "/db/main/health").await, 404);
    let health = document(&server, "/health").await;
    assert!(health["role"] == "member" && health["state"] == Value::Null, "{health}");

    runs(&server, [("orders", primary())]);
    assert_eq!(code(&server, "/primary").await, 200, "the only one");
    assert_eq!(code(&server, "/db/orders/primary").await, 200);
    assert_eq!(code(&server, "/db/orders").await, 200);
    assert_eq!(code(&server, "/db/orders/").await, 200);
    assert_eq!(code(&server, "/db/orders/nothing").await, 404);
    assert_eq!(code(&server, "/db/main/primary").await, 404);

    runs(&server, [("orders", primary()), ("main", standby(Sync::Quorum))]);
    assert_eq!(code(&server, "/primary").await, 503, "main is meant");
    assert_eq!(code(&server, "/quorum").await, 200);
    assert_eq!(code(&server, "/db/orders/primary").await, 200);
    assert_eq!(code(&server, "/db/main/replica").await, 200);

    runs(&server, [("orders", primary()), ("stock", primary())]);
    assert_eq!(code(&server, "/primary").await, 503, "nobody knows which");

    // A group of which this node has no instance.
    runs(&server, []);
    server.tx.routes.send_replace(Arc::new(Routes {
        groups: [("main".to_owned(), Table::default())].into(),
    }));
    assert_eq!(code(&server, "/db/main/primary").await, 503);
    assert_eq!(code(&server, "/db/main/health").await, 503);
    assert_eq!(code(&server, "/cluster").await, 200);
    assert_eq!(ask(&server, "POST", "/primary").await.0, 405);
    assert_eq!(ask(&server, "PATCH", "/db/main/config").await.0, 405);
    server.end().await;
}

#[tokio::test]
async fn health_is_the_instance_s_where_there_is_one() {
    let ca = TestCa::new("prod");
    let server = Server::start(&ca, "n1").await;
    server.lead(412);
    server.tx.session.send_replace(SessionState::Suspended);
    runs(&server, [("main", primary())]);
    let health = document(&server, "/health").await;
    assert_eq!(
        code(&server, "/health").await,
        200,
        "PostgreSQL serves while ZooKeeper is away"
    );
    assert_eq!(ask(&server, "GET", "/ready").await.0, 503, "the node is not registered");
    for (key, value) in [
        ("state", Value::from("running")),
        ("role", "primary".into()),
        ("registered", false.into()),
        ("session", "suspended".into()),
        ("master", "n1".into()),
        ("node", "n1".into()),
        ("status", "ok".into()),
    ] {
        assert_eq!(health[key], value, "{key}: {health}");
    }
    server.end().await;
}

#[tokio::test]
async fn documents_have_patroni_s_fields() {
    let ca = TestCa::new("prod");
    let server = Server::start(&ca, "n1").await;
    let pending = Pending {
        parameter: "max_connections".into(),
        old: "100".into(),
        new: "200".into(),
    };
    let one = Instance {
        pending_restart: vec![pending],
        paused: true,
        ..primary()
    };
    runs(&server, [("main", one)]);
    let wanted = serde_json::json!({
        "state": "running",
        "role": "primary",
        "postmaster_start_time": "2024-08-28 19:39:26.352000+00:00",
        "server_version": 150_018,
        "xlog": {"location": 67_395_656},
        "timeline": 3,
        "replication": [{"usename": "ha_repl", "application_name": "n2_e4", "client_addr": "10.0.0.12",
            "state": "streaming", "sync_state": "quorum", "sync_priority": 1}],
        "pause": true,
        "dcs_last_seen": 1_692_356_718,
        "database_system_identifier": "7268616322854375442",
        "pending_restart": true,
        "pending_restart_reason": {"max_connections": {"old_value": "100", "new_value": "200"}},
        "patroni": {"version": env!("CARGO_PKG_VERSION"), "scope": "prod/main", "name": "n1"},
    });
    assert_eq!(document(&server, "/patroni").await, wanted);
    assert_eq!(document(&server, "/db/main/patroni").await, wanted);
    assert_eq!(document(&server, "/primary").await, wanted);

    let tags = [("clonefrom", "true"), ("weight", "7"), ("zone", "a")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    runs(
        &server,
        [(
            "main",
            Instance {
                tags: tags.into(),
                ..standby(Sync::Quorum)
            },
        )],
    );
    let seen = document(&server, "/patroni").await;
    assert_eq!(code(&server, "/patroni").await, 200);
    assert_eq!(
        seen["xlog"],
        serde_json::json!({"received_location": 67_395_656, "replayed_location": 66_347_080,
            "replayed_timestamp": "2024-08-28 19:39:26.352000+00:00", "paused": false})
    );
    assert_eq!(seen["quorum_standby"], true);
    assert_eq!(seen["replication_state"], "streaming");
    assert_eq!(
        seen["tags"],
        serde_json::json!({"clonefrom": true, "weight": 7, "zone": "a"})
    );

    let at = |node: &str, port: u16| routes::Server {
        node: node.into(),
        address: format!("10.0.0.{port}:5432"),
        http: format!("10.0.0.{port}:7401"),
        ..routes::Server::default()
    };
    let near = Standby {
        server: at("n3", 13),
        state: StandbyState::Streaming,
        timeline: 3,
        lag: Some(16),
        received: 0x1_0000_0020,
        replayed: 0x1_0000_0010,
        sync: Sync::Quorum,
    };
    let lost = Standby {
        server: at("n2", 12),
        ..Standby::default()
    };
    let table = Table {
        epoch: 4,
        steady: true,
        timeline: 3,
        primary: Some(at("n9", 19)),
        standbys: vec![near, lost],
        paused: true,
        ..Table::default()
    };
    let groups = [("main".to_owned(), table)].into();
    server.tx.routes.send_replace(Arc::new(Routes { groups }));
    let wanted = serde_json::json!({
        "members": [
            {"name": "n2", "role": "replica", "state": "stopped", "api_url": "http://10.0.0.12:7401/db/main/patroni",
                "host": "10.0.0.12", "port": 5432, "lag": "unknown", "lsn": "unknown", "receive_lag": "unknown",
                "receive_lsn": "unknown", "replay_lag": "unknown", "replay_lsn": "unknown"},
            {"name": "n3", "role": "quorum_standby", "state": "streaming",
                "api_url": "http://10.0.0.13:7401/db/main/patroni", "host": "10.0.0.13", "port": 5432, "timeline": 3,
                "lag": 16, "lsn": "1/10", "receive_lag": 0, "receive_lsn": "1/20", "replay_lag": 16,
                "replay_lsn": "1/10"},
            {"name": "n9", "role": "leader", "state": "running", "api_url": "http://10.0.0.19:7401/db/main/patroni",
                "host": "10.0.0.19", "port": 5432, "timeline": 3},
        ],
        "scope": "prod/main",
        "pause": true,
    });
    assert_eq!(document(&server, "/cluster").await, wanted);
    assert_eq!(document(&server, "/db/main/cluster").await, wanted);
    server.end().await;
}
