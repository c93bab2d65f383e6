//! The fault hooks, each shown at work on a paused clock.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::{Instant, sleep};

use super::super::resolve::{self, wait_live};
use super::super::{Connector, CoordError, Coordinator, CreateMode, SessionState};
use super::*;
use crate::platform::Clock;

const T: Duration = Duration::from_secs(6);

/// Tokio's clock as boot time.
struct TokioClock(Instant);

impl Clock for TokioClock {
    fn boottime(&self) -> Duration {
        self.0.elapsed() + Duration::from_secs(1000)
    }
    fn wall_ms(&self) -> i64 {
        0
    }
}

fn clock() -> Arc<TokioClock> {
    Arc::new(TokioClock(Instant::now()))
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// A client whose session holds a lease on `/<name>`.
async fn holder(server: &MemoryServer, name: &str, clock: &Arc<TokioClock>) -> Arc<dyn Coordinator> {
    let c = MemoryConnector::new(server, name, clock.clone(), T)
        .connect()
        .await
        .unwrap();
    match c.create("", b"", CreateMode::Persistent).await {
        Ok(_) | Err(CoordError::Exists(_)) => {}
        Err(e) => panic!("{e}"),
    }
    let path = format!("/{name}");
    c.create(&path, b"", CreateMode::Ephemeral).await.unwrap();
    c.hold_lease(&path).await.unwrap();
    c
}

async fn lost(c: &dyn Coordinator) -> String {
    match wait_lost(c).await {
        SessionState::Lost(why) => why,
        other => panic!("{other:?}"),
    }
}

async fn wait_lost(c: &dyn Coordinator) -> SessionState {
    let mut state = c.state();
    state
        .wait_for(|s| matches!(s, SessionState::Lost(_)))
        .await
        .unwrap()
        .clone()
}

#[tokio::test(start_paused = true)]
async fn a_healthy_session_keeps_its_lease() {
    let (server, clock) = (MemoryServer::new(), clock());
    let c = holder(&server, "n1", &clock).await;
    for _ in 0..100 {
        sleep(ms(700)).await;
        let left = c.lease().borrow().until.unwrap() - clock.boottime();
        assert!(left > T * 2 / 3 - T / 5 - ms(10) && left <= T * 2 / 3, "{left:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_without_a_lease_is_kept_by_pings_but_not_across_a_broken_connection() {
    let (server, clock) = (MemoryServer::new(), clock());
    let c = MemoryConnector::new(&server, "n1", clock, T).connect().await.unwrap();
    sleep(T * 5).await;
    assert_eq!(server.sessions().len(), 1);
    server.disconnect("n1");
    server.reconnect("n1");
    assert!(lost(&*c).await.contains("before the session held a lease"));
}

#[tokio::test(start_paused = true)]
async fn disconnect_within_the_session_keeps_it_and_fires_watches() {
    let (server, clock) = (MemoryServer::new(), clock());
    let c = holder(&server, "n1", &clock).await;
    let (_, mut watch) = c.read_and_watch("/later").await.unwrap();
    server.disconnect("n1");
    assert_eq!(*c.state().borrow(), SessionState::Suspended);
    assert!(matches!(c.read("/n1").await, Err(CoordError::Unavailable(_))));
    assert!(matches!(
        c.create("/x", b"", CreateMode::Persistent).await,
        Err(CoordError::Unavailable(_))
    ));
    sleep(T / 2).await;
    assert!(!watch.has_fired());
    server.reconnect("n1");
    wait_live(&*c).await.unwrap();
    sleep(ms(1)).await;
    assert!(watch.has_fired());
    assert_eq!(c.read("/n1").await.unwrap().1.owner, c.session_id().unwrap());
    assert!(
        server.dump().keys().all(|p| p != "/x"),
        "what was refused is never carried out"
    );
    assert!(c.lease().borrow().holds(clock.boottime()));
}

#[tokio::test(start_paused = true)]
async fn disconnect_past_the_session_ends_it() {
    let (server, clock) = (MemoryServer::new(), clock());
    let c = holder(&server, "n1", &clock).await;
    let (_, watch) = c.children_and_watch("").await.unwrap();
    let until = c.lease().borrow().until.unwrap();
    server.disconnect("n1");
    tokio::time::timeout(T * 2, watch.fired()).await.unwrap();
    wait_lost(&*c).await;
    assert!(clock.boottime() >= until);
    assert!(server.sessions().is_empty());
    assert!(matches!(c.read("").await, Err(CoordError::SessionLost(_))));
}

#[tokio::test(start_paused = true)]
async fn partition_is_noticed_by_time_limits_and_the_lease_ends_before_the_session() {
    let (server, clock) = (MemoryServer::new(), clock());
    let c = holder(&server, "n1", &clock).await;
    let other = holder(&server, "n2", &clock).await;
    server.partition("n1");
    let write = c.compare_and_set("/n1", b"late", 1).await;
    assert_eq!(write, Err(CoordError::Unknown("/n1".into())));
    let (gone, watch) = other.read_and_watch("/n1").await.unwrap();
    assert!(gone.is_some());
    let mut watch = Some(watch);
    // The heartbeats of the other one fire nothing here; wait for the deletion.
    while other.read("/n1").await.is_ok() {
        if let Some(w) = watch.take() {
            w.fired().await;
        }
    }
    assert!(!c.lease().borrow().holds(clock.boottime()));
    server.reconnect("n1");
    lost(&*c).await;
    assert!(holder(&server, "n1", &clock).await.read("/n1").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_short_partition_loses_no_event() {
    let (server, clock) = (MemoryServer::new(), clock());
    let (c, other) = (holder(&server, "n1", &clock).await, holder(&server, "n2", &clock).await);
    let (_, watch) = c.read_and_watch("/x").await.unwrap();
    server.partition("n1");
    other.create("/x", b"", CreateMode::Persistent).await.unwrap();
    sleep(ms(300)).await;
    server.reconnect("n1");
    tokio::time::timeout(ms(10), watch.fired()).await.unwrap();
    assert_eq!(*c.state().borrow(), SessionState::Live);
}

#[tokio::test(start_paused = true)]
async fn expiry_takes_the_ephemerals_and_the_session() {
    let (server, clock) = (MemoryServer::new(), clock());
    let c = holder(&server, "n1", &clock).await;
    server.expire("n1");
    assert!(!server.dump().contains_key("/n1"));
    lost(&*c).await;
    assert_eq!(c.lease().borrow().until, None);
}

#[tokio::test(start_paused = true)]
async fn a_stopped_client_expires_and_learns_it_when_it_continues() {
    // A client whose tasks can be stopped: the gate is closed while it is 0.
    let gate = Arc::new(tokio::sync::Semaphore::new(1));
    let (server, clock) = (MemoryServer::new(), clock());
    let spawner: Spawner = {
        let gate = gate.clone();
        Arc::new(move |mut task: BoxFuture<'static, ()>| {
            let gate = gate.clone();
            tokio::spawn(async move {
                std::future::poll_fn(move |cx| {
                    if gate.available_permits() == 0 {
                        let waker = cx.waker().clone();
                        let gate = gate.clone();
                        tokio::spawn(async move {
                            drop(gate.acquire().await);
                            waker.wake();
                        });
                        return std::task::Poll::Pending;
                    }
                    task.as_mut().poll(cx)
                })
                .await;
            });
        })
    };
    let connector = MemoryConnector::new(&server, "n1", clock.clone(), T).with_spawner(spawner);
    let c = connector.connect().await.unwrap();
    c.create("", b"", CreateMode::Persistent).await.unwrap();
    c.create("/n1", b"", CreateMode::Ephemeral).await.unwrap();
    c.hold_lease("/n1").await.unwrap();
    let stopped = gate.clone().acquire_owned().await.unwrap();
    sleep(T * 2).await;
    assert!(server.sessions().is_empty());
    assert!(!c.lease().borrow().holds(clock.boottime()));
    assert!(!matches!(*c.state().borrow(), SessionState::Lost(_)));
    drop(stopped);
    lost(&*c).await;
}

#[tokio::test(start_paused = true)]
async fn lost_replies_and_requests_are_settled() {
    let (server, clock) = (MemoryServer::new(), clock());
    let c = holder(&server, "n1", &clock).await;
    c.create("/a", b"", CreateMode::Persistent).await.unwrap();
    for (n, fault) in [Fault::LoseReply, Fault::LoseRequest, Fault::Late(ms(3))]
        .into_iter()
        .enumerate()
    {
        let version = i32::try_from(n).unwrap();
        server.inject("n1", "/a", fault.clone());
        assert_eq!(
            c.compare_and_set("/a", b"plain", 99).await,
            Err(CoordError::Unknown("/a".into())),
            "{fault:?}"
        );
        sleep(ms(10)).await;
        server.inject("n1", "/a", fault.clone());
        let mine = |stored: &[u8]| stored == b"mine";
        let stat = resolve::compare_and_set(&*c, "/a", b"mine", version, mine)
            .await
            .unwrap();
        assert_eq!(stat.version, version + 1, "{fault:?}");
        sleep(ms(10)).await;
        assert_eq!(c.read("/a").await.unwrap().1.version, version + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_write_comes_only_while_its_session_lives() {
    let (server, clock) = (MemoryServer::new(), clock());
    let c = holder(&server, "n1", &clock).await;
    for (path, closes) in [("/kept", false), ("/dropped", true)] {
        server.inject("n1", path, Fault::Late(ms(20)));
        assert!(matches!(
            c.create(path, b"", CreateMode::Persistent).await,
            Err(CoordError::Unknown(_))
        ));
        if closes {
            c.close().await;
        }
        sleep(ms(30)).await;
        assert_eq!(server.dump().contains_key(path), !closes);
    }
}

#[tokio::test(start_paused = true)]
async fn lost_heartbeat_replies_do_not_end_the_session() {
    let (server, clock) = (MemoryServer::new(), clock());
    let c = holder(&server, "n1", &clock).await;
    for fault in [Fault::LoseReply, Fault::LoseRequest, Fault::Late(ms(700))] {
        server.inject("n1", "/n1", fault);
        sleep(T / 2).await;
        assert_eq!(*c.state().borrow(), SessionState::Live);
        assert!(c.lease().borrow().holds(clock.boottime()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_takeover_of_the_lease_node_ends_the_session() {
    let (server, clock) = (MemoryServer::new(), clock());
    let c = holder(&server, "n1", &clock).await;
    let other = holder(&server, "n2", &clock).await;
    let version = other.read("/n1").await.unwrap().1.version;
    other.delete("/n1", version).await.unwrap();
    other.create("/n1", b"", CreateMode::Ephemeral).await.unwrap();
    assert!(lost(&*c).await.contains("another session"), "{:?}", c.state());
}

#[tokio::test(start_paused = true)]
async fn a_frozen_server_past_the_session_ends_it_at_the_client_first() {
    let (server, clock) = (MemoryServer::new(), clock());
    let c = holder(&server, "n1", &clock).await;
    server.freeze();
    let why = lost(&*c).await;
    assert!(why.contains("no heartbeat"), "{why}");
    assert_eq!(server.sessions().len(), 1, "a frozen server expires nobody");
    let connector = MemoryConnector::new(&server, "n1", clock.clone(), T);
    assert!(matches!(connector.connect().await, Err(CoordError::Unavailable(_))));
    server.thaw();
    assert!(server.sessions().is_empty());
    connector.connect().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_crashed_server_that_recovers_gives_every_session_its_time_again() {
    let (server, clock) = (MemoryServer::new(), clock());
    let c = holder(&server, "n1", &clock).await;
    server.crash();
    sleep(T - ms(500)).await;
    server.recover();
    wait_live(&*c).await.unwrap();
    assert!(c.lease().borrow().holds(clock.boottime()));
}

#[tokio::test(start_paused = true)]
async fn a_lagging_reader_sees_old_values_until_it_writes() {
    let plan = FaultPlan {
        read_lag: ms(50)..ms(51),
        ..FaultPlan::default()
    };
    let (server, clock) = (MemoryServer::with_faults(1, plan), clock());
    let (a, b) = (holder(&server, "n1", &clock).await, holder(&server, "n2", &clock).await);
    a.create("/x", b"0", CreateMode::Persistent).await.unwrap();
    sleep(ms(100)).await;
    let (_, mut watch) = b.read_and_watch("/x").await.unwrap();
    a.compare_and_set("/x", b"1", 0).await.unwrap();
    assert_eq!(a.read("/x").await.unwrap().0, b"1");
    assert_eq!(b.read("/x").await.unwrap().0, b"0");
    // A watch set by a stale read fires when its server catches up, not before.
    let (seen, late) = b.read_and_watch("/x").await.unwrap();
    assert_eq!(seen.unwrap().0, b"0");
    assert!(!watch.has_fired());
    let begun = Instant::now();
    late.fired().await;
    assert!(
        begun.elapsed() >= ms(49) && begun.elapsed() <= ms(52),
        "{:?}",
        begun.elapsed()
    );
    assert!(watch.has_fired());
    assert_eq!(b.read("/x").await.unwrap().0, b"1");
    // An own write makes the session's reads fresh (protocol R2), and its events come first.
    let (_, mut watch) = b.read_and_watch("/x").await.unwrap();
    a.compare_and_set("/x", b"2", 1).await.unwrap();
    b.create("/y", b"", CreateMode::Persistent).await.unwrap();
    assert!(watch.has_fired());
    assert_eq!(b.read("/x").await.unwrap().0, b"2");
}

/// Runs some clients under random faults and returns everything they saw.
fn run_seed(seed: u64) -> String {
    let rt = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    rt.block_on(async {
        let plan = FaultPlan {
            lose_request: 0.05,
            lose_reply: 0.05,
            late_write: 0.05,
            late_by: ms(1)..ms(900),
            delay: ms(0)..ms(15),
            read_lag: ms(0)..ms(200),
        };
        let (server, clock) = (MemoryServer::with_faults(seed, plan), clock());
        let mut log = String::new();
        let connect = |name: &'static str| MemoryConnector::new(&server, name, clock.clone(), T);
        for name in ["n1", "n2", "n3"] {
            let c = connect(name).connect().await.unwrap();
            for round in 0..20 {
                let root = c.create("", b"", CreateMode::Persistent).await;
                let made = c.create("/c-", name.as_bytes(), CreateMode::EphemeralSequential).await;
                let list = c.children("").await;
                log += &format!("{name} {round} {root:?} {made:?} {list:?} {:?}\n", Instant::now());
                sleep(ms(100)).await;
            }
        }
        log + &format!("{:?}", server.dump())
    })
}

#[test]
fn a_seed_replays() {
    assert_eq!(
        run_seed(7).lines().map(strip).collect::<Vec<_>>(),
        run_seed(7).lines().map(strip).collect::<Vec<_>>()
    );
    assert_ne!(
        run_seed(7).lines().map(strip).collect::<Vec<_>>(),
        run_seed(8).lines().map(strip).collect::<Vec<_>>()
    );
}

/// A line without the instant at its end, whose origin differs from run to run.
fn strip(line: &str) -> String {
    line.split(" Instant").next().unwrap_or(line).to_owned()
}
