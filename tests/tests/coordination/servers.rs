//! Faults of real servers: another secret, other settings, dying, frozen and partitioned servers.

use std::sync::Arc;
use std::time::Duration;

use controlplane::coordination::resolve::wait_live;
use controlplane::coordination::{Connector, CoordError, Coordinator, CreateMode, SessionState, probe_server};
use controlplane::platform::{Clock, SystemClock};
use ha_tests::zookeeper::{ZkEnsemble, ZkOptions, ZkServer};
use tokio::time::{Instant, sleep, timeout};

use super::{T, connector};

/// A session that holds a lease on `/n1`.
pub(super) async fn holder(connector: &dyn Connector) -> Arc<dyn Coordinator> {
    let c = connector.connect().await.unwrap();
    match c.create("", b"", CreateMode::Persistent).await {
        Ok(_) | Err(CoordError::Exists(_)) => {}
        Err(e) => panic!("{e}"),
    }
    c.create("/n1", b"", CreateMode::Ephemeral).await.unwrap();
    c.hold_lease("/n1").await.unwrap();
    c
}

pub(super) async fn lost(c: &dyn Coordinator, within: Duration) -> String {
    let mut state = c.state();
    let seen = timeout(within, state.wait_for(|s| matches!(s, SessionState::Lost(_)))).await;
    match &*seen.expect("the session is lost in time").unwrap() {
        SessionState::Lost(why) => why.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn another_secret_opens_nothing() {
    let server = ZkServer::start_default().await.unwrap();
    let ours = holder(&connector(server.hosts(), "c", "secret", T)).await;
    ours.create("/a", b"ours", CreateMode::Persistent).await.unwrap();
    let theirs = connector(server.hosts(), "c", "guess", T).connect().await.unwrap();
    let no = |e: Option<CoordError>| assert!(matches!(e, Some(CoordError::NoAuth(_))), "{e:?}");
    no(theirs.read("/a").await.err());
    no(theirs.read("").await.err());
    no(theirs.read_and_watch("/a").await.err());
    no(theirs.children("").await.err());
    no(theirs.create("/b", b"", CreateMode::Persistent).await.err());
    no(theirs.compare_and_set("/a", b"theirs", 0).await.err());
    no(theirs.delete("/a", 0).await.err());
    assert_eq!(*theirs.state().borrow(), SessionState::Live);
    // Another cluster lives beside it.
    holder(&connector(server.hosts(), "d", "guess", T)).await;
    assert_eq!(ours.read("/a").await.unwrap().0, b"ours");
}

#[tokio::test]
async fn a_server_with_another_session_timeout_is_refused_by_name() {
    let options = ZkOptions {
        min_session_ms: 10_000,
        ..ZkOptions::default()
    };
    let (odd, good) = tokio::join!(ZkServer::start(options), ZkServer::start_default());
    let (odd, mut good) = (odd.unwrap(), good.unwrap());
    // Even where another server would do.
    let hosts = vec![good.address(), odd.address()];
    let Err(CoordError::Misconfigured(why)) = connector(hosts.clone(), "c", "secret", T).connect().await else {
        panic!("it was taken")
    };
    assert!(
        why.contains(&odd.address()) && why.contains("10.0 s") && why.contains("minSessionTimeout"),
        "{why}"
    );
    let status = probe_server(&odd.address(), T).await.unwrap();
    assert_eq!(status.negotiated_timeout, Duration::from_secs(10));
    assert_eq!(status.mode.as_deref(), Some("standalone"));
    assert!(
        status.version.is_some_and(|v| v.starts_with("3.")),
        "the version is told"
    );
    // A server that comes back with another timeout never gets the session.
    let c = holder(&connector(good.hosts(), "c", "secret", T)).await;
    good.set_session_limits(1000, 2000).unwrap();
    good.restart().await.unwrap();
    let why = lost(&*c, T * 3).await;
    assert!(why.contains("no heartbeat"), "{why}");
    let consoles = good.four_letters("cons").await.unwrap_or_default();
    assert!(!consoles.contains("to=2000"), "{consoles}");
}

#[tokio::test]
async fn a_session_moves_to_another_server_when_its_own_dies_or_freezes() {
    let t = Duration::from_secs(6);
    let mut ensemble = ZkEnsemble::start(3).await.unwrap();
    let leader = ensemble.leader().await.unwrap();
    let followers: Vec<usize> = (0..3).filter(|i| *i != leader).collect();
    // The one with the session: a follower, found by its connections, so that the leader stays.
    let connector = connector(ensemble.hosts(), "c", "secret", t);
    let (c, at) = loop {
        let c = holder(&connector).await;
        let id = format!("sid=0x{:x}", c.session_id().unwrap());
        let mut at = None;
        for i in &followers {
            if ensemble.servers[*i]
                .four_letters("cons")
                .await
                .unwrap_or_default()
                .contains(&id)
            {
                at = Some(*i);
            }
        }
        match at {
            Some(at) => break (c, at),
            None => c.close().await,
        }
    };
    let id = c.session_id();
    let mut lease = c.lease();
    let held = tokio::spawn(async move {
        // The lease never lapses in either fault.
        loop {
            let until = lease.borrow_and_update().until;
            let Some(until) = until else { return };
            let left = until.saturating_sub(SystemClock.boottime());
            assert!(timeout(left, lease.changed()).await.is_ok(), "the lease lapsed");
        }
    });

    let (_, watch) = c.read_and_watch("/none").await.unwrap();
    ensemble.servers[at].kill();
    timeout(Duration::from_secs(3), watch.fired()).await.unwrap();
    wait_live(&*c).await.unwrap();
    assert_eq!(c.read("/n1").await.unwrap().1.owner, id.unwrap());
    ensemble.servers[at].restart().await.unwrap();

    // Frozen instead: noticed by silence. If it went to the leader, that one must not freeze.
    let other = followers.iter().copied().find(|i| *i != at).unwrap();
    let id_text = format!("sid=0x{:x}", id.unwrap());
    if ensemble.servers[other]
        .four_letters("cons")
        .await
        .unwrap_or_default()
        .contains(&id_text)
    {
        let (_, watch) = c.read_and_watch("/none").await.unwrap();
        ensemble.servers[other].pause();
        timeout(t, watch.fired()).await.unwrap();
        wait_live(&*c).await.unwrap();
        assert_eq!(c.read("/n1").await.unwrap().1.owner, id.unwrap());
        ensemble.servers[other].resume();
    }
    assert!(!held.is_finished(), "{:?}", held.await);
    c.close().await;
}

#[tokio::test]
async fn a_lost_quorum_ends_leases_and_heals() {
    let mut ensemble = ZkEnsemble::start(3).await.unwrap();
    let connector = connector(ensemble.hosts(), "c", "secret", T);
    let c = holder(&connector).await;
    let until = {
        ensemble.servers[0].kill();
        ensemble.servers[1].kill();
        c.lease().borrow().until.unwrap()
    };
    let why = lost(&*c, T * 3).await;
    assert!(SystemClock.boottime() > until, "{why}");
    let e = connector
        .connect()
        .await
        .err()
        .map(|e| e.to_string())
        .unwrap_or_default();
    for host in ensemble.hosts() {
        assert!(e.contains(&host), "{e}");
    }
    ensemble.servers[0].restart().await.unwrap();
    ensemble.servers[1].restart().await.unwrap();
    // The old session may have outlived the outage at the servers: the owner rule.
    let again = connector.connect().await.unwrap();
    while let (Some(_), watch) = again.read_and_watch("/n1").await.unwrap() {
        timeout(T * 2, watch.fired()).await.unwrap();
    }
    again.create("/n1", b"", CreateMode::Ephemeral).await.unwrap();
    again.hold_lease("/n1").await.unwrap();
}

#[tokio::test]
async fn what_is_refused_or_lost_while_disconnected_is_never_carried_out_later() {
    let mut server = ZkServer::start_default().await.unwrap();
    let c = holder(&connector(server.hosts(), "c", "secret", T)).await;
    server.kill();
    let mut tried = 0;
    // From the first instant on, through the whole outage.
    let hammer = async {
        loop {
            tried += 1;
            let made = c.create(&format!("/late-{tried}"), b"", CreateMode::Persistent).await;
            match made {
                Err(CoordError::Unavailable(_)) => sleep(Duration::from_millis(5)).await,
                Err(CoordError::Unknown(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    let _ = timeout(Duration::from_millis(500), hammer).await;
    assert!(tried > 10);
    server.restart().await.unwrap();
    timeout(T, wait_live(&*c)).await.unwrap().unwrap();
    sleep(Duration::from_millis(200)).await;
    assert_eq!(c.children("").await.unwrap(), ["n1"]);
}

#[tokio::test]
async fn letting_go_leaves_no_thread_behind() {
    let server = ZkServer::start_default().await.unwrap();
    let threads = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let names = tasks.filter_map(|t| std::fs::read_to_string(t.ok()?.path().join("comm")).ok());
        names.filter(|n| n.trim() == "zookeeper").count()
    };
    let connector = connector(server.hosts(), "threads", "secret", T);
    let mut sessions = Vec::new();
    for _ in 0..5 {
        sessions.push(connector.connect().await.unwrap());
    }
    assert!(threads() >= 5);
    for (i, c) in sessions.into_iter().enumerate() {
        match i {
            0 | 1 => c.close().await,
            2 | 3 => c.abandon(),
            _ => {}
        }
    }
    // Other tests have sessions too; these five must go.
    let begun = Instant::now();
    let connections = || async {
        server
            .four_letters("cons")
            .await
            .unwrap_or_default()
            .matches("sid=")
            .count()
    };
    while connections().await > 0 {
        assert!(begun.elapsed() < Duration::from_secs(5), "connections stay");
        sleep(Duration::from_millis(20)).await;
    }
}
