//! HAProxy with the file of docs/examples, on had's own endpoints, before real servers: it follows a change of primary,
//! cuts sessions to the former one, and balances readers over standbys that are not far behind.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use controlplane::api::{self, Metrics};
use controlplane::platform::SystemClock;
use controlplane::proxy::local::{Instance, Instances, Role, State, Wal};
use controlplane::security::{NodeBundle, Security};
use controlplane::shared::{Me, Shared, SharedTx};
use ha_tests::postgres::Postgres;
use ha_tests::zookeeper::free_port;
use hactl::ca::ClusterAuthority;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{PATIENCE, printed, run, until};

const EXAMPLE: &str = include_str!("../../../docs/examples/haproxy.cfg");

/// A node's HTTP endpoint, which says what it is told to.
struct Endpoint {
    address: SocketAddr,
    tx: SharedTx,
    _dir: tempfile::TempDir,
    _stop: DropGuard,
}

impl Endpoint {
    async fn start(authority: &ClusterAuthority, node: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bundle.toml");
        let bundle = authority.node_bundle(&authority.issue_node(node).unwrap(), "127.0.0.1:7400", None);
        hactl::bundle::write_new(&path, &bundle).unwrap();
        let clock = Arc::new(SystemClock);
        let bundle = NodeBundle::read(&path).unwrap();
        let security = Security::new(&bundle, &path, dir.path(), clock.clone()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let me = Me {
            node: node.into(),
            cluster: bundle.cluster.clone(),
            cluster_id: bundle.cluster_id.clone(),
            address: "127.0.0.1:7400".into(),
            http_address: address.to_string(),
            boot_id: "boot".into(),
            token: "token".into(),
            run: "run".into(),
            started_ms: 1,
        };
        let (shared, tx) = Shared::new(me, clock);
        let stop = CancellationToken::new();
        let metrics = Arc::new(Metrics::new(node, "test"));
        tokio::spawn(api::http::serve(listener, shared, security, metrics, stop.clone()));
        Self {
            address,
            tx,
            _dir: dir,
            _stop: stop.drop_guard(),
        }
    }

    /// The node's instance of the group from now on.
    fn is(&self, role: Role, leader: bool, behind: u64) {
        let instance = Instance {
            state: State::Running,
            role,
            leader,
            primary_lsn: 1 << 40,
            wal: Wal {
                replayed: (1 << 40) - behind,
                ..Wal::default()
            },
            ..Instance::default()
        };
        let groups = [("main".to_owned(), instance)].into();
        self.tx.instances.send_replace(Arc::new(Instances { groups }));
    }
}

fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    let found = places.map(|d| d.join("haproxy")).find(|p| p.exists());
    found.expect("HAProxy is not installed: .ci/need haproxy")
}

/// The example with its nodes replaced by these, and its ports by free ones: primary, standbys.
fn adapted(nodes: &[(&Endpoint, &Postgres); 3]) -> (String, u16, u16) {
    let (primary, standbys) = (free_port("127.0.0.1").unwrap(), free_port("127.0.0.1").unwrap());
    let mut text = EXAMPLE
        .replace("bind :5000", &format!("bind 127.0.0.1:{primary}"))
        .replace("bind :5001", &format!("bind 127.0.0.1:{standbys}"));
    for (i, (endpoint, postgres)) in nodes.iter().enumerate() {
        let before = format!("10.0.0.1{}:5432 check port 7401", i + 1);
        assert_eq!(text.matches(&before).count(), 2, "the example has changed");
        let after = format!("{} check port {}", postgres.address(), endpoint.address.port());
        text = text.replace(&before, &after);
    }
    (text, primary, standbys)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_follows_the_primary() {
    let (n1, authority) = (
        Postgres::start("").unwrap(),
        ClusterAuthority::create("test", &["127.0.0.1:2181".to_owned()], Duration::from_secs(4)).unwrap(),
    );
    let (n2, n3) = (n1.standby().unwrap(), n1.standby().unwrap());
    let endpoints = [
        Endpoint::start(&authority, "n1").await,
        Endpoint::start(&authority, "n2").await,
        Endpoint::start(&authority, "n3").await,
    ];
    let [e1, e2, e3] = &endpoints;
    e1.is(Role::Primary, true, 0);
    e2.is(Role::Replica, false, 0);
    e3.is(Role::Replica, false, 16 * 1024 * 1024 + 1);
    let (text, primary, standbys) = adapted(&[(e1, &n1), (e2, &n2), (e3, &n3)]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("haproxy.cfg");
    std::fs::write(&file, &text).unwrap();
    let mut check = std::process::Command::new(program());
    check.args(["-c", "-f"]).arg(&file);
    let checked = run(check).await;
    let complaints = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(
        checked.status.success() && !complaints.contains("WARNING"),
        "{complaints}"
    );
    let _haproxy = tokio::process::Command::new(program())
        .args(["-db", "-f"])
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let at = async |port: u16| {
        let mut psql = n1.psql(port, "sslmode=disable");
        psql.args(["-Atqc", "select inet_server_port()"]);
        let output = run(psql).await;
        output.status.success().then(|| printed(&output))
    };
    // HAProxy takes every server for a good one until the first checks have failed.
    let mut right = 0;
    until("the primary, and the standby that is not too far behind", async || {
        let both = (at(primary).await, at(standbys).await);
        let is_right = both == (Some(n1.port.to_string()), Some(n2.port.to_string()));
        right = if is_right { right + 1 } else { 0 };
        right == 6
    })
    .await;
    // n3 catches up, and has its share.
    e3.is(Role::Replica, false, 1024);
    let mut seen = std::collections::BTreeSet::new();
    until("both standbys", async || {
        seen.extend(at(standbys).await);
        seen.len() == 2
    })
    .await;
    assert_eq!(seen, [n2.port.to_string(), n3.port.to_string()].into());

    // The primary changes; who is still with the old one is cut, though that server lives on.
    let mut old = tokio::process::Command::from(n1.psql(primary, "sslmode=disable"));
    old.args(["-c", "select pg_sleep(600)"])
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let old = old.spawn().unwrap();
    let sleeping = "select count(*) from pg_stat_activity where query like 'select pg_sleep%'";
    until("it is connected", async || n1.sql(sleeping).unwrap() == "1").await;
    e1.is(Role::Primary, false, 0);
    n2.promote().unwrap();
    e2.is(Role::Primary, true, 0);
    let begun = std::time::Instant::now();
    until("the new primary", async || {
        at(primary).await == Some(n2.port.to_string())
    })
    .await;
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let ended = tokio::time::timeout(PATIENCE, old.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(!ended.status.success() && said.contains("closed"), "{said}");
    until("the standby that is left", async || {
        at(standbys).await == Some(n3.port.to_string())
    })
    .await;
}
