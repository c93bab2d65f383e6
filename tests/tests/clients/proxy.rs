//! The proxy before real servers: TLS, bulk data, cancelled queries, a switchover that no new client notices, and what a
//! client is told when there is no primary.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use controlplane::proxy::routes::{Ports, Routes, Server, Standby, StandbyState, Table, Way};
use controlplane::proxy::{Metrics, Proxy, Settings};
use ha_tests::postgres::Postgres;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{PATIENCE, printed, run, until};

struct Front {
    routes: watch::Sender<Arc<Routes>>,
    proxy: Proxy,
    _stop: DropGuard,
}

fn server(node: &str, postgres: &Postgres) -> Server {
    Server {
        node: node.into(),
        address: postgres.address(),
        ..Server::default()
    }
}

impl Front {
    /// A proxy before n1 and its standby n2.
    async fn start(n1: &Postgres, n2: &Postgres) -> Self {
        let table = Table {
            epoch: 1,
            steady: true,
            timeline: 1,
            primary: Some(server("n1", n1)),
            standbys: vec![Standby {
                server: server("n2", n2),
                state: StandbyState::Streaming,
                timeline: 1,
                lag: Some(0),
                ..Standby::default()
            }],
            ports: Ports {
                primary: Some(0),
                standbys: Some(0),
            },
            wait: PATIENCE,
            ..Table::default()
        };
        let groups = [("main".to_owned(), table)].into();
        let (routes, seen) = watch::channel(Arc::new(Routes { groups }));
        let settings = Settings {
            listen: [127, 0, 0, 1].into(),
            ..Settings::default()
        };
        let proxy = Proxy::new(settings, seen, Metrics::default());
        let stop = CancellationToken::new();
        tokio::spawn(proxy.clone().run(stop.clone()));
        let front = Self {
            routes,
            proxy,
            _stop: stop.drop_guard(),
        };
        until("the proxy listens", async || {
            let status = front.proxy.status();
            status.len() == 2 && status.iter().all(|p| p.address.is_some())
        })
        .await;
        front
    }

    fn port(&self, way: Way) -> u16 {
        let status = self.proxy.status();
        let port = status.iter().find(|p| p.way == way).unwrap();
        port.address.unwrap().port()
    }

    fn waiting(&self) -> u64 {
        self.proxy.status().iter().map(|p| p.waiting).sum()
    }

    fn set(&self, change: impl FnOnce(&mut Table)) {
        self.routes.send_modify(|routes| {
            change(Arc::make_mut(routes).groups.get_mut("main").unwrap());
        });
    }
}

async fn pair() -> (Postgres, Postgres) {
    let n1 = Postgres::start("").unwrap();
    let n2 = n1.standby().unwrap();
    (n1, n2)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_pass_whole() {
    let (n1, n2) = pair().await;
    let front = Front::start(&n1, &n2).await;
    let ask = async |way: Way, ssl: &str, sql: &str| {
        let mut psql = n1.psql(front.port(way), &format!("sslmode={ssl}"));
        psql.args(["-Atqc", sql]);
        printed(&run(psql).await)
    };
    let whoami = "select pg_is_in_recovery(), ssl from pg_stat_ssl where pid = pg_backend_pid()";
    assert_eq!(ask(Way::Primary, "require", whoami).await, "f|t");
    assert_eq!(ask(Way::Primary, "disable", whoami).await, "f|f");
    assert_eq!(ask(Way::Standbys, "require", whoami).await, "t|t");
    assert_eq!(ask(Way::Standbys, "prefer", whoami).await, "t|t");
    // In bulk, there and back.
    let make = "create table big as select i, md5(i::text) as hash from generate_series(1, 400000) i";
    ask(Way::Primary, "require", make).await;
    let copied = run({
        let mut psql = n1.psql(front.port(Way::Primary), "sslmode=disable");
        psql.args(["-Atqc", "copy big to stdout"]);
        psql
    })
    .await;
    assert!(copied.stdout.len() > 10_000_000);
    ask(Way::Primary, "disable", "create table again (like big)").await;
    let mut psql = tokio::process::Command::from(n1.psql(front.port(Way::Primary), "sslmode=require"));
    psql.args(["-Atqc", "copy again from stdin"])
        .stdin(Stdio::piped())
        .kill_on_drop(true);
    let mut psql = psql.spawn().unwrap();
    let mut input = psql.stdin.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut input, &copied.stdout)
        .await
        .unwrap();
    drop(input);
    assert!(
        tokio::time::timeout(PATIENCE, psql.wait())
            .await
            .unwrap()
            .unwrap()
            .success()
    );
    let differ = "select count(*) from (table big except table again) d";
    assert_eq!(n1.sql(differ).unwrap(), "0");
    assert_eq!(n1.sql("select count(*) from again").unwrap(), "400000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_are_cancelled_at_either_port() {
    let (n1, n2) = pair().await;
    let front = Front::start(&n1, &n2).await;
    for (way, at) in [(Way::Primary, &n1), (Way::Standbys, &n2)] {
        let mut psql = tokio::process::Command::from(n1.psql(front.port(way), "sslmode=disable"));
        psql.args(["-c", "select pg_sleep(600)"])
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let psql = psql.spawn().unwrap();
        let sleeping =
            "select count(*) from pg_stat_activity where query = 'select pg_sleep(600)' and state = 'active'";
        until("it sleeps", async || at.sql(sleeping).unwrap() == "1").await;
        let pid = i32::try_from(psql.id().unwrap()).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGINT).unwrap();
        let ended = tokio::time::timeout(PATIENCE, psql.wait_with_output())
            .await
            .unwrap()
            .unwrap();
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(
            said.contains("canceling statement due to user request"),
            "{way:?}: {said}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_come_during_a_switchover_just_wait() {
    let (mut n1, n2) = pair().await;
    let front = Front::start(&n1, &n2).await;
    n1.sql("create table t (i int primary key, at int)").unwrap();
    until("it has the table", async || n2.sql("select count(*) from t").is_ok()).await;
    let port = front.port(Way::Primary);
    let insert = |i: usize| {
        let mut psql = n2.psql(port, "sslmode=disable");
        let sql = format!("insert into t values ({i}, inet_server_port()) returning at");
        psql.args(["-Atqc", &sql]);
        run(psql)
    };
    assert_eq!(printed(&insert(0).await), n1.port.to_string());
    // One that is connected when it begins.
    let mut idle = tokio::process::Command::from(n2.psql(port, "sslmode=disable"));
    idle.args(["-c", "select pg_sleep(600)"])
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let idle = idle.spawn().unwrap();
    until("it is connected", async || {
        n1.sql("select count(*) from pg_stat_activity where query like 'select pg_sleep%'")
            .unwrap()
            == "1"
    })
    .await;
    front.set(|t| t.steady = false);
    let coming: Vec<_> = (1..=8).map(|i| tokio::spawn(insert(i))).collect();
    until("they wait", async || front.waiting() == 8).await;
    // All of it is on the standby before the primary goes, as a fast stop sees to.
    n1.stop().unwrap();
    n2.promote().unwrap();
    front.set(|t| {
        t.epoch = 2;
        t.timeline = 2;
        t.primary = Some(server("n2", &n2));
        t.standbys.clear();
        t.steady = true;
    });
    for client in coming {
        assert_eq!(printed(&client.await.unwrap()), n2.port.to_string());
    }
    assert_eq!(
        n2.sql("select count(*) from t").unwrap(),
        "9",
        "every one has its row, the old one too"
    );
    let ended = tokio::time::timeout(PATIENCE, idle.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    assert!(!ended.status.success(), "its server is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_understand_why_they_are_not_served() {
    let n1 = Postgres::start("").unwrap();
    let front = Front::start(&n1, &n1).await;
    front.set(|t| {
        t.primary = None;
        t.standbys.clear();
        t.wait = Duration::from_millis(100);
    });
    for ssl in ["disable", "prefer"] {
        let mut psql = n1.psql(front.port(Way::Primary), &format!("sslmode={ssl}"));
        psql.args(["-c", "select 1"]);
        let said = String::from_utf8_lossy(&run(psql).await.stderr).into_owned();
        assert!(said.contains("FATAL:  group main has no primary"), "{ssl}: {said}");
        assert!(said.contains("HINT:  hactl db --group main status"), "{ssl}: {said}");
    }
    let mut ready = n1.client("pg_isready");
    ready.args(["-h", "127.0.0.1", "-p", &front.port(Way::Standbys).to_string()]);
    let output = run(ready).await;
    assert_eq!(
        output.status.code(),
        Some(1),
        "rejecting connections, as a server that starts"
    );
}
