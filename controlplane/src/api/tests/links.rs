//! The links of agents.

use ha_core::{AccessRecord, access};
use ha_proto::v1;
use ha_proto::v1::agent_service_client::AgentServiceClient;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::rig::*;
use crate::platform::{Clock, SystemClock};
use crate::security::testing::{Leaf, TestCa};

fn report(node: &str, time_unix_ms: i64) -> v1::AgentReport {
    v1::AgentReport {
        node: node.into(),
        time_unix_ms,
        cursor: 41,
        first: time_unix_ms == 0,
        ..Default::default()
    }
}

async fn open(
    server: &Server,
    ca: &TestCa,
    node: &str,
) -> (
    mpsc::Sender<v1::AgentReport>,
    Result<tonic::Streaming<v1::MasterMessage>, tonic::Status>,
) {
    let channel = connect(server, ca, &ca.issue(&Leaf::node(node)));
    let (tx, rx) = mpsc::channel(8);
    tx.send(report("n2", 0)).await.unwrap();
    let stream = AgentServiceClient::new(channel).report(ReceiverStream::new(rx)).await;
    (tx, stream.map(tonic::Response::into_inner))
}

#[tokio::test]
async fn a_link_carries_reports_and_messages_and_its_end_is_told_once() {
    let ca = TestCa::new("prod");
    let server = Server::start(&ca, "n1").await;
    let master = server.lead(1);
    let (reports, messages) = open(&server, &ca, "n2").await;
    let mut messages = messages.unwrap();
    until("attached", || {
        master.seen("attached n2 1") && master.seen("agent n2 from 41")
    })
    .await;
    let hub = master.agents.lock().unwrap().pop().unwrap();
    for term in 1..=3 {
        hub.send(v1::MasterMessage {
            term,
            ..Default::default()
        })
        .await
        .unwrap();
        assert_eq!(messages.message().await.unwrap().unwrap().term, term);
    }
    let odd = v1::AgentReport {
        conditions: vec!["a\u{1b}[31mb".into(), "x".repeat(5000)],
        ..report("n2", 5)
    };
    reports.send(odd).await.unwrap();
    until("reported", || master.seen("report 1 5 [\"a[31mb\"")).await;
    assert!(!master.seen(&"x".repeat(301)));
    drop(reports);
    assert!(
        messages.message().await.unwrap().is_none(),
        "the node closed it: no error"
    );
    until("detached", || master.seen("detached n2 1")).await;

    // The client vanishes.
    let (reports, messages) = open(&server, &ca, "n2").await;
    until("attached", || master.seen("attached n2 2")).await;
    drop((reports, messages));
    until("detached", || master.seen("detached n2 2")).await;

    // Mastership ends.
    let (_reports, messages) = open(&server, &ca, "n2").await;
    server.tx.handle.send_replace(None);
    master.agents.lock().unwrap().clear();
    assert_eq!(code(messages.unwrap().message().await), "HA0102");
    let told = master
        .log
        .lock()
        .unwrap()
        .iter()
        .filter(|l| l.starts_with("detached"))
        .count();
    assert!(told <= 3, "{told}");
    server.end().await;
}

#[tokio::test]
async fn a_link_is_its_nodes_own() {
    let ca = TestCa::new("prod");
    let server = Server::start(&ca, "n1").await;
    let master = server.lead(1);
    let (_reports, refused) = open(&server, &ca, "n3").await;
    assert_eq!(code(refused), "HA0201");
    assert!(!master.seen("attached"));

    let (reports, messages) = open(&server, &ca, "n2").await;
    reports.send(report("n7", 9)).await.unwrap();
    assert_eq!(code(messages.unwrap().message().await), "HA0201");
    until("detached", || master.seen("detached n2")).await;
    assert!(!master.seen("report 1 9"));

    let user = connect(&server, &ca, &ca.issue(&Leaf::user("root", "admin")));
    let refused = AgentServiceClient::new(user)
        .report(tokio_stream::once(report("n2", 0)))
        .await;
    assert_eq!(code(refused), "HA0201");
    server.end().await;
}

#[tokio::test]
async fn the_link_of_a_revoked_node_ends() {
    let ca = TestCa::new("prod");
    let server = Server::start(&ca, "n1").await;
    let master = server.lead(1);
    let (_reports, messages) = open(&server, &ca, "n2").await;
    let later = SystemClock.wall_ms() + 1000;
    server.access(
        access::revoke_node(&AccessRecord::default(), "n2", true, later)
            .unwrap()
            .record,
    );
    assert_eq!(code(messages.unwrap().message().await), "HA0202");
    until("detached", || master.seen("detached n2")).await;
    assert_eq!(code(open(&server, &ca, "n2").await.1), "HA0202");
    server.end().await;
}

#[tokio::test]
async fn members_take_no_links() {
    let ca = TestCa::new("prod");
    let server = Server::start(&ca, "n1").await;
    assert_eq!(code(open(&server, &ca, "n2").await.1), "HA0102");
    server.end().await;
}
