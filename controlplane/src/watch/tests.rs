//! Stream, log and records together, on the in-memory coordinator.

use std::sync::Mutex;

use ha_core::{AccessRecord, Envelope, FORMAT, MasterRecord, change_name, encode};

pub(crate) use super::applier::tests::change;
use super::*;
use crate::coordination::{Connector as _, CreateMode, MemoryConnector, MemoryServer};
use crate::platform::SystemClock;
use crate::shared::{Me, Shared};

async fn session(server: &MemoryServer) -> Arc<dyn Coordinator> {
    MemoryConnector::new(server, "n1", Arc::new(SystemClock), Duration::from_secs(4))
        .connect()
        .await
        .unwrap()
}

async fn log(c: &dyn Coordinator, seqs: impl IntoIterator<Item = u64>) {
    let _ = c.create("", b"", CreateMode::Persistent).await;
    let _ = c.create("/changes", b"", CreateMode::Persistent).await;
    for seq in seqs {
        let path = format!("/changes/{}", change_name(seq));
        c.create(&path, &encode(&change(seq)), CreateMode::Persistent)
            .await
            .unwrap();
    }
}

struct Node {
    feed: Feed,
    inputs: mpsc::Sender<Input>,
    session: watch::Sender<Option<Arc<dyn Coordinator>>>,
    _task: tokio::task::JoinHandle<()>,
}

fn node(cursor: Option<u64>) -> Node {
    let (session, rx) = watch::channel(None);
    let feed = Feed::new(rx.clone(), Arc::new(SystemClock));
    let (inputs, inputs_rx) = mpsc::channel(8);
    let driven = feed.clone();
    let task = tokio::spawn(async move {
        drive(rx, Arc::new(SystemClock), Applier::new(cursor), inputs_rx, &driven).await;
    });
    Node {
        feed,
        inputs,
        session,
        _task: task,
    }
}

async fn take(subscription: &mut Subscription, count: usize) -> Vec<u64> {
    let mut seqs = Vec::new();
    for _ in 0..count {
        let next = tokio::time::timeout(Duration::from_secs(60), subscription.next());
        seqs.push(next.await.expect("an entry").seq);
    }
    seqs
}

#[tokio::test(start_paused = true)]
async fn stream_and_log_make_one_sequence() {
    let server = MemoryServer::new();
    let c = session(&server).await;
    log(&*c, 1..=300).await;
    let node = node(Some(2));
    let mut subscription = node.feed.subscribe_after(2);
    node.inputs.send(Input::Streamed(vec![change(301)])).await.unwrap();
    // There is no session yet; the reading waits for one.
    node.inputs.send(Input::Tail(300)).await.unwrap();
    node.session.send_replace(Some(c));
    assert_eq!(take(&mut subscription, 299).await, (3..=301).collect::<Vec<_>>());
    // One that begins far behind reads from the log what is not in memory any more.
    let mut late = node.feed.subscribe_after(0);
    assert_eq!(take(&mut late, 301).await, (1..=301).collect::<Vec<_>>());
    let mut new = node.feed.subscribe();
    node.inputs.send(Input::Streamed(vec![change(302)])).await.unwrap();
    assert_eq!(take(&mut new, 1).await, [302]);
    assert_eq!(take(&mut late, 1).await, [302]);
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_is_late_is_waited_for_and_a_lost_one_is_bridged() {
    let server = MemoryServer::new();
    let c = session(&server).await;
    log(&*c, 1..=3).await;
    let node = node(Some(0));
    node.session.send_replace(Some(c.clone()));
    let mut subscription = node.feed.subscribe_after(0);
    node.inputs.send(Input::Tail(4)).await.unwrap();
    assert_eq!(take(&mut subscription, 3).await, [1, 2, 3]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    log(&*c, [4]).await;
    assert_eq!(take(&mut subscription, 1).await, [4]);
    // 5 never comes, while the stream goes on.
    log(&*c, 6..=9).await;
    node.inputs.send(Input::Tail(6)).await.unwrap();
    for seq in 7..=9 {
        tokio::time::sleep(Duration::from_secs(4)).await;
        node.inputs.send(Input::Streamed(vec![change(seq)])).await.unwrap();
    }
    let gap = subscription.next().await;
    assert_eq!((gap.seq, gap.kind.as_str()), (5, LOG_GAP));
    assert_eq!(take(&mut subscription, 4).await, [6, 7, 8, 9]);
}

#[tokio::test(start_paused = true)]
async fn damaged_and_trimmed_entries_leave_a_gap() {
    let server = MemoryServer::new();
    let c = session(&server).await;
    log(&*c, 10..=12).await;
    c.create("/changes/c-000000000013", b"{hostile", CreateMode::Persistent)
        .await
        .unwrap();
    c.create("/changes/c-000000000014", &encode(&change(15)), CreateMode::Persistent)
        .await
        .unwrap();
    c.create("/changes/strange", b"", CreateMode::Persistent).await.unwrap();
    log(&*c, [15]).await;
    let node = node(Some(4));
    node.session.send_replace(Some(c));
    let mut subscription = node.feed.subscribe_after(4);
    node.inputs.send(Input::Tail(15)).await.unwrap();
    let mut got = Vec::new();
    for _ in 0..7 {
        let change = subscription.next().await;
        got.push((change.seq, change.kind == LOG_GAP));
    }
    assert_eq!(
        got,
        [
            (9, true),
            (10, false),
            (11, false),
            (12, false),
            (13, true),
            (14, true),
            (15, false)
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_log_that_was_started_over_reaches_every_subscriber() {
    let server = MemoryServer::new();
    let c = session(&server).await;
    log(&*c, 1..=5).await;
    let node = node(Some(50));
    node.session.send_replace(Some(c.clone()));
    let (mut ahead, mut fresh) = (node.feed.subscribe_after(60), node.feed.subscribe());
    node.inputs.send(Input::Tail(5)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2010)).await;
    // While it is still in doubt.
    node.inputs.send(Input::Streamed(vec![change(6)])).await.unwrap();
    log(&*c, [6]).await;
    assert_eq!(take(&mut ahead, 2).await, [5, 6]);
    assert_eq!(take(&mut fresh, 2).await, [5, 6]);
}

#[tokio::test(start_paused = true)]
async fn records_are_followed_and_damage_changes_nothing() {
    let server = MemoryServer::new();
    let c = session(&server).await;
    c.create("", b"", CreateMode::Persistent).await.unwrap();
    let me = Me {
        node: "n1".into(),
        cluster: "c".into(),
        cluster_id: String::new(),
        address: String::new(),
        http_address: String::new(),
        boot_id: String::new(),
        token: String::new(),
        run: String::new(),
        started_ms: 0,
    };
    let (shared, tx) = Shared::new(me, Arc::new(SystemClock));
    let followed = Arc::new(Mutex::new(None));
    let (coordinator, done) = (c.clone(), followed.clone());
    tokio::spawn(async move {
        let why = follow_records(&*coordinator, &tx).await;
        *done.lock().unwrap() = Some(why);
    });
    let mut master = shared.master.clone();
    let record = |term| MasterRecord {
        v: FORMAT,
        term,
        ..MasterRecord::default()
    };
    let (_, stat) = c
        .create("/master", &encode(&record(1)), CreateMode::Persistent)
        .await
        .unwrap();
    master.wait_for(|m| m.term == 1).await.unwrap();
    let stat = c
        .compare_and_set("/master", b"\xff not json", stat.version)
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(shared.master.borrow().term, 1);
    c.compare_and_set("/master", &encode(&record(2)), stat.version)
        .await
        .unwrap();
    master.wait_for(|m| m.term == 2).await.unwrap();

    let mut access = shared.access.clone();
    let mut users = AccessRecord::default();
    users.users.insert(
        "alice".into(),
        ha_core::UserRecord {
            role: None,
            serials: vec![],
            expires_ms: 0,
            created_ms: 0,
            revoked_ms: Some(1),
        },
    );
    let envelope = Envelope {
        value: Some(users),
        ..Envelope::empty()
    };
    let (_, stat) = c
        .create("/access", &encode(&envelope), CreateMode::Persistent)
        .await
        .unwrap();
    access.wait_for(|a| a.users.contains_key("alice")).await.unwrap();
    c.delete("/access", stat.version).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(
        access.borrow().users.contains_key("alice"),
        "a revocation is not lifted by a missing record"
    );

    c.close().await;
    while followed.lock().unwrap().is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(matches!(*followed.lock().unwrap(), Some(CoordError::SessionLost(_))));
}
