//! The client: which node it asks, when it tries again, and what it says when nobody answers.

use std::time::{Duration, Instant};

use ha_proto::codes;
use ha_proto::v1::{AccessRole, GetStateRequest, SetMaintenanceRequest};
use hactl::ca::{ClusterAuthority, DEFAULT_SESSION_TIMEOUT};
use hactl::client::Client;
use hactl::context::Context;
use hactl::output::notes::Notes;

use crate::fake::{Cluster, Fault, refused_once};
use crate::program::Machine;

fn client(machine: &Machine, endpoints: &[String], timeout: Duration) -> Client {
    let issued = machine.authority.issue_user("alice", AccessRole::Admin).unwrap();
    let bundle = machine.authority.user_bundle(&issued, endpoints.to_vec());
    Client::from_bundle(&bundle, endpoints.to_vec(), timeout, Notes::silent()).unwrap()
}

const LONG: Duration = Duration::from_secs(20);

/// An endpoint of loopback where nobody listens.
fn closed() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[tokio::test]
async fn it_goes_on_at_another_node_when_one_is_down_or_hangs() {
    let (cluster, machine) = (Cluster::new(), Machine::bare());
    let node = cluster.node(&machine.authority, "n2");
    // Accepts connections and never says a word, as a stopped daemon does.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoints = [
        closed(),
        silent.local_addr().unwrap().to_string(),
        node.endpoint.clone(),
    ];
    let mut client = client(&machine, &endpoints, LONG);
    let begun = Instant::now();
    client.get_state(GetStateRequest {}).await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "a node that hangs costs little: {:?}",
        begun.elapsed()
    );
    assert_eq!(client.endpoint(), node.endpoint);
    assert_eq!(client.node(), Some("n2"));
}

#[tokio::test]
async fn a_change_is_tried_again_with_the_same_request_id() {
    let (cluster, machine) = (Cluster::new(), Machine::bare());
    let node = cluster.node(&machine.authority, "n1");
    cluster.fail([Fault::Code(codes::NO_MASTER), Fault::Code(codes::OUTCOME_UNKNOWN)]);
    let mut client = client(&machine, std::slice::from_ref(&node.endpoint), LONG);
    client.set_maintenance(SetMaintenanceRequest::default()).await.unwrap();
    client.set_maintenance(SetMaintenanceRequest::default()).await.unwrap();
    let ids: Vec<_> = cluster.calls("SetMaintenance").into_iter().map(|c| c.id).collect();
    assert_eq!(ids.len(), 4);
    assert!(ids[0] == ids[1] && ids[1] == ids[2] && ids[2] != ids[3], "{ids:?}");
    assert_eq!(ids[0].len(), 36);
}

#[tokio::test]
async fn a_node_that_dies_during_a_call_is_replaced_by_another() {
    let (cluster, machine) = (Cluster::new(), Machine::bare());
    let (first, second) = (
        cluster.node(&machine.authority, "n1"),
        cluster.node(&machine.authority, "n2"),
    );
    cluster.fail([Fault::Hang]);
    let mut client = client(&machine, &[first.endpoint.clone(), second.endpoint.clone()], LONG);
    let dies = async {
        while cluster.calls("SetMaintenance").is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(first);
    };
    let (result, ()) = tokio::join!(client.set_maintenance(SetMaintenanceRequest::default()), dies);
    assert!(result.unwrap().changed);
    let calls = cluster.calls("SetMaintenance");
    assert_eq!(calls.iter().map(|c| c.node.as_str()).collect::<Vec<_>>(), ["n1", "n2"]);
    assert_eq!(calls[0].id, calls[1].id);
}

#[tokio::test]
async fn the_timeout_is_kept_and_the_last_reason_is_told() {
    let (cluster, machine) = (Cluster::new(), Machine::bare());
    let node = cluster.node(&machine.authority, "n1");
    cluster.fail(std::iter::repeat_n(Fault::Code(codes::NO_MASTER), 1000));
    let mut client = client(&machine, std::slice::from_ref(&node.endpoint), Duration::from_secs(1));
    let begun = Instant::now();
    let error = client.get_state(GetStateRequest {}).await.unwrap_err();
    assert!(error.is(codes::NO_MASTER) && error.exit() == 10, "{error}");
    assert!(begun.elapsed() < Duration::from_secs(3));
    let tries = cluster.calls("GetState").len();
    assert!((3..=20).contains(&tries), "it waits between tries: {tries}");
}

#[tokio::test]
async fn a_change_without_an_answer_is_told_as_unknown() {
    let (cluster, machine) = (Cluster::new(), Machine::bare());
    let node = cluster.node(&machine.authority, "n1");
    cluster.fail(std::iter::repeat_n(Fault::Hang, 10));
    let mut client = client(
        &machine,
        std::slice::from_ref(&node.endpoint),
        Duration::from_millis(800),
    );
    let error = client
        .set_maintenance(SetMaintenanceRequest::default())
        .await
        .unwrap_err();
    assert!(error.is(codes::OUTCOME_UNKNOWN), "{error}");
}

#[tokio::test]
async fn nobody_answers() {
    let machine = Machine::bare();
    let endpoints = [closed(), closed()];
    let mut client = client(&machine, &endpoints, LONG);
    let begun = Instant::now();
    let error = client.get_state(GetStateRequest {}).await.unwrap_err();
    assert!(error.is(codes::UNREACHABLE) && error.exit() == 10);
    assert_eq!(error.reasons().len(), 2, "{error:?}");
    assert!(
        error.reasons().iter().all(|r| r.ends_with(": connection refused")),
        "{error:?}"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "it does not wait for what was never there"
    );
}

#[tokio::test]
async fn a_node_that_comes_back_is_found_again() {
    let (cluster, machine) = (Cluster::new(), Machine::bare());
    let node = cluster.node(&machine.authority, "n1");
    let endpoint = node.endpoint.clone();
    let mut client = client(&machine, std::slice::from_ref(&endpoint), LONG);
    client.get_state(GetStateRequest {}).await.unwrap();
    drop(node);
    let (again, authority) = (cluster.clone(), machine.authority.clone());
    let back = tokio::task::spawn_blocking(move || {
        refused_once(&endpoint);
        again.node_at(&authority, "n1", &endpoint)
    });
    // It answered before, so silence is an outage that is waited out.
    client.get_state(GetStateRequest {}).await.unwrap();
    drop(back.await.unwrap());
}

#[tokio::test]
async fn another_clusters_node_is_told_as_such() {
    let (cluster, machine) = (Cluster::new(), Machine::bare());
    let other = ClusterAuthority::create("prod", &["zk".into()], DEFAULT_SESSION_TIMEOUT).unwrap();
    let stranger = cluster.node(&other, "n1");
    let mut client = client(&machine, std::slice::from_ref(&stranger.endpoint), LONG);
    let error = client.get_state(GetStateRequest {}).await.unwrap_err();
    assert!(error.is(codes::WRONG_CLUSTER), "{error}");
}

#[tokio::test]
async fn a_certificate_that_the_node_refuses_is_told_as_such() {
    let (cluster, machine) = (Cluster::new(), Machine::bare());
    let node = cluster.node(&machine.authority, "n1");
    let other = ClusterAuthority::create("prod", &["zk".into()], DEFAULT_SESSION_TIMEOUT).unwrap();
    let issued = other.issue_user("mallory", AccessRole::Admin).unwrap();
    let mut bundle = other.user_bundle(&issued, vec![node.endpoint.clone()]);
    bundle.ca.clone_from(&machine.authority.ca);
    let mut client = Client::from_bundle(&bundle, vec![node.endpoint.clone()], LONG, Notes::silent()).unwrap();
    let error = client.get_state(GetStateRequest {}).await.unwrap_err();
    assert!(error.is(codes::WRONG_CLUSTER), "{error}");
}

#[tokio::test]
async fn what_does_not_speak_tls_is_unreachable() {
    use tokio::io::AsyncWriteExt as _;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string();
    let talks = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let machine = Machine::bare();
    let error = client(&machine, &[endpoint], LONG)
        .get_state(GetStateRequest {})
        .await
        .unwrap_err();
    talks.abort();
    assert!(error.is(codes::UNREACHABLE), "{error}");
    assert!(error.reasons()[0].contains("does not speak TLS"), "{error:?}");
}

#[tokio::test]
async fn the_node_that_answered_is_asked_first_next_time() {
    let (cluster, machine) = (Cluster::new(), Machine::bare());
    let node = cluster.node(&machine.authority, "n2");
    machine.context("prod", AccessRole::Admin, &[closed(), node.endpoint.clone()]);
    let context: Context = machine.store().load("prod").unwrap();
    let mut client = Client::new(&context, &[], LONG, Notes::silent()).unwrap();
    client.get_state(GetStateRequest {}).await.unwrap();
    assert_eq!(context.endpoints().first(), Some(&node.endpoint));
}

#[tokio::test]
async fn next_endpoint_turns_the_order() {
    let machine = Machine::bare();
    let mut client = client(&machine, &["a:1".into(), "b:1".into(), "c:1".into()], LONG);
    assert_eq!(client.endpoint(), "a:1");
    assert_eq!(client.next_endpoint(), "b:1");
    assert_eq!(client.next_endpoint(), "c:1");
    assert_eq!(client.next_endpoint(), "a:1");
}
