//! Calls that another node answers.

use std::time::Duration;

use ha_proto::v1::cluster_service_client::ClusterServiceClient;
use ha_proto::v1::event_service_client::EventServiceClient;
use ha_proto::v1::local_service_client::LocalServiceClient;
use ha_proto::v1::node_service_client::NodeServiceClient;
use ha_proto::{REQUEST_ID, v1};
use tonic::{Code, Request};

use super::raw::Raw;
use super::rig::*;
use crate::coordination::SessionState;
use crate::platform::{Clock, SystemClock};
use crate::security::testing::{Leaf, TestCa};

#[tokio::test]
async fn a_member_passes_calls_and_streams_on_to_the_master() {
    let ca = TestCa::new("prod");
    let (member, leader) = (Server::start(&ca, "n1").await, Server::start(&ca, "n2").await);
    let master = leader.lead(3);
    member.know(&leader, 3);
    let channel = connect(&member, &ca, &ca.issue(&Leaf::user("otto", "operator")));

    let state = ClusterServiceClient::new(channel.clone())
        .get_state(v1::GetStateRequest {})
        .await
        .unwrap();
    assert_eq!(state.into_inner().revision, 7);
    let mut request = Request::new(v1::RemoveNodeRequest {
        name: "n9".into(),
        options: None,
    });
    request.metadata_mut().insert(REQUEST_ID, "once".parse().unwrap());
    let done = NodeServiceClient::new(channel.clone())
        .remove_node(request)
        .await
        .unwrap()
        .into_inner();
    assert!(
        done.plan[0].starts_with("user/otto RemoveNode") && done.plan[0].ends_with("[once]"),
        "{done:?}"
    );
    // Errors come through whole.
    let e = NodeServiceClient::new(channel.clone())
        .get_node(v1::GetNodeRequest { name: "n9".into() })
        .await
        .unwrap_err();
    assert_eq!(
        (e.code(), detail(&e).code, detail(&e).next),
        (Code::NotFound, "HA0302".into(), vec!["hactl node list".into()])
    );

    let mut events = EventServiceClient::new(channel.clone());
    let mut stream = events
        .follow_changes(v1::FollowChangesRequest { from_seq: 1 })
        .await
        .unwrap()
        .into_inner();
    let follower = master.followers.lock().unwrap().pop().unwrap();
    for seq in 1..=200 {
        follower
            .send(Ok(v1::Change {
                seq,
                text: "x".repeat(1000),
                ..Default::default()
            }))
            .await
            .unwrap();
        assert_eq!(stream.message().await.unwrap().unwrap().seq, seq);
    }
    // The watcher goes: the master's end is told through both servers.
    drop(stream);
    until("the follower ends", || follower.is_closed()).await;

    // Mastership ends under a stream: the stream ends with "electing", and the next master serves the next call.
    let mut stream = events
        .follow_changes(v1::FollowChangesRequest { from_seq: 1 })
        .await
        .unwrap()
        .into_inner();
    leader.tx.handle.send_replace(None);
    master.followers.lock().unwrap().clear();
    assert_eq!(code(stream.message().await), "HA0102");
    member.lead(4);
    assert!(
        ClusterServiceClient::new(channel)
            .get_state(v1::GetStateRequest {})
            .await
            .is_ok()
    );
    member.end().await;
    leader.end().await;
}

#[tokio::test]
async fn without_a_master_the_caller_is_told_why() {
    let ca = TestCa::new("prod");
    let member = Server::start(&ca, "n1").await;
    let mut client = ClusterServiceClient::new(connect(&member, &ca, &ca.issue(&Leaf::user("vera", "viewer"))));
    let mut ask = async || client.get_state(v1::GetStateRequest {}).await.unwrap_err();
    let told = ask().await;
    assert_eq!(
        (told.code(), detail(&told).code.as_str()),
        (Code::Unavailable, "HA0102")
    );
    assert!(detail(&told).retryable);
    // The record names this node, which does not act yet.
    member.know(&member, 5);
    assert!(detail(&ask().await).why[0].contains("taking mastership over"));
    // Nobody listens where the master should be.
    let unused = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    member.tx.master.send_replace(record("n7", &unused.to_string(), 6));
    let told = detail(&ask().await);
    assert_eq!(told.code, "HA0102");
    assert!(told.message.contains("cannot reach n7"), "{told:?}");
    // Another node answers there: it is not believed.
    let other = Server::start(&ca, "n3").await;
    other.lead(7);
    member
        .tx
        .master
        .send_replace(record("n7", &other.address.to_string(), 7));
    let told = detail(&ask().await);
    assert_eq!(told.code, "HA0102");
    // No session.
    member.tx.master.send_replace(ha_core::MasterRecord::default());
    member.tx.session.send_replace(SessionState::Suspended);
    assert_eq!(detail(&ask().await).code, "HA0103");
    member.tx.session.send_replace(SessionState::Lost("expired".into()));
    let told = detail(&ask().await);
    assert!(told.code == "HA0103" && told.why[0].contains("expired"), "{told:?}");
    member.end().await;
    other.end().await;
}

#[tokio::test]
async fn two_nodes_that_take_each_other_for_the_master_end_the_call() {
    let ca = TestCa::new("prod");
    let (a, b) = (Server::start(&ca, "n1").await, Server::start(&ca, "n2").await);
    a.know(&b, 1);
    b.know(&a, 1);
    let mut client = ClusterServiceClient::new(connect(&a, &ca, &ca.issue(&Leaf::user("vera", "viewer"))));
    let told = detail(&client.get_state(v1::GetStateRequest {}).await.unwrap_err());
    assert!(told.code == "HA0102" && told.why[0].contains("passed on"), "{told:?}");
    a.end().await;
    b.end().await;
}

#[tokio::test]
async fn a_master_that_dies_under_a_call_is_told() {
    let ca = TestCa::new("prod");
    let (member, leader) = (Server::start(&ca, "n1").await, Server::start(&ca, "n2").await);
    let master = leader.lead(3);
    // All that the member sends to the master goes through here and is cut off without a word.
    let cut = Cut::start(leader.address).await;
    member.tx.master.send_replace(record("n2", &cut.address.to_string(), 3));
    let channel = connect(&member, &ca, &ca.issue(&Leaf::user("otto", "operator")));
    let mut events = EventServiceClient::new(channel.clone());
    let mut stream = events
        .follow_changes(v1::FollowChangesRequest::default())
        .await
        .unwrap()
        .into_inner();
    let mut cluster = ClusterServiceClient::new(channel.clone());
    let change = tokio::spawn(async move { cluster.set_maintenance(v1::SetMaintenanceRequest::default()).await });
    until("the change is under way", || master.seen("held for user/otto")).await;
    cut.cut();
    assert_eq!(code(stream.message().await), "HA0102");
    let e = change.await.unwrap().unwrap_err();
    assert_eq!((detail(&e).code.as_str(), detail(&e).retryable), ("HA0105", true));
    // Back again: the channel connects anew.
    cut.heal();
    assert!(
        ClusterServiceClient::new(channel)
            .get_state(v1::GetStateRequest {})
            .await
            .is_ok()
    );
    member.end().await;
    leader.end().await;
}

#[tokio::test]
async fn a_master_that_falls_silent_holds_nobody() {
    let ca = TestCa::new("prod");
    let (member, leader) = (Server::start(&ca, "n1").await, Server::start(&ca, "n2").await);
    let master = leader.lead(3);
    let cut = Cut::start(leader.address).await;
    member.tx.master.send_replace(record("n2", &cut.address.to_string(), 3));
    let channel = connect(&member, &ca, &ca.issue(&Leaf::user("otto", "operator")));
    let mut cluster = ClusterServiceClient::new(channel);
    let change = tokio::spawn(async move { cluster.set_maintenance(v1::SetMaintenanceRequest::default()).await });
    until("the change is under way", || master.seen("held for user/otto")).await;
    cut.freeze();
    let e = tokio::time::timeout(Duration::from_secs(8), change)
        .await
        .expect("probes end it")
        .unwrap()
        .unwrap_err();
    assert_eq!(detail(&e).code, "HA0105");
    member.end().await;
    leader.end().await;
}

#[tokio::test]
async fn deadlines_are_kept_here_and_there() {
    let ca = TestCa::new("prod");
    let (member, leader) = (Server::start(&ca, "n1").await, Server::start(&ca, "n2").await);
    let _master = leader.lead(3);
    member.know(&leader, 3);
    let cert = ca.issue(&Leaf::user("otto", "operator"));
    for server in [&member, &leader] {
        let mut raw = Raw::connect(server, &ca, &cert).await;
        let begun = std::time::Instant::now();
        let answer = raw
            .call("/ha.v1.ClusterService/SetMaintenance", &[("grpc-timeout", "300m")])
            .await;
        assert_eq!(answer.detail().code, "HA0104");
        assert!(
            (250..3000).contains(&begun.elapsed().as_millis()),
            "{:?}",
            begun.elapsed()
        );
        // A stream ends in time too, after it was begun.
        let answer = raw
            .call("/ha.v1.EventService/FollowChanges", &[("grpc-timeout", "300m")])
            .await;
        assert_eq!((answer.begun, answer.detail().code.as_str()), (true, "HA0104"));
    }
    member.end().await;
    leader.end().await;
}

#[tokio::test]
async fn the_certificate_in_use_counts_when_a_channel_connects_again() {
    let ca = TestCa::new("prod");
    let (a, b) = (
        Server::start_with(&ca, "n1", &Leaf::node("n1").expired()).await,
        Server::start(&ca, "n2").await,
    );
    let channel = a.security.dialer().channel("n2", &b.address.to_string()).unwrap();
    let mut client = LocalServiceClient::new(channel);
    assert!(client.get_info(v1::GetInfoRequest::default()).await.is_err());
    ca.write_bundle(a.dir.path(), "n1", &ca.issue(&Leaf::node("n1")));
    assert!(a.security.reload().unwrap());
    // The same channel.
    let connected = async { while client.get_info(v1::GetInfoRequest::default()).await.is_err() {} };
    tokio::time::timeout(PATIENCE, connected).await.unwrap();
    let dialer = a.security.dialer();
    for (node, address) in [
        ("n2", "nowhere"),
        ("../n2", "127.0.0.1:1"),
        ("n2", "127.0.0.1:1/x"),
        ("n2", "a b:1"),
    ] {
        assert!(dialer.channel(node, address).is_err(), "{node} {address}");
    }
    // Another node than the one that was meant is not believed, though its certificate is good.
    let channel = dialer.channel("n3", &b.address.to_string()).unwrap();
    assert!(
        LocalServiceClient::new(channel)
            .get_info(v1::GetInfoRequest::default())
            .await
            .is_err()
    );
    a.end().await;
    b.end().await;
}

#[tokio::test]
async fn calls_for_a_named_node_find_it_by_way_of_the_master() {
    let ca = TestCa::new("prod");
    let names = ["n1", "n2", "n3"];
    let mut servers = Vec::new();
    for name in names {
        servers.push(Server::start(&ca, name).await);
    }
    let master = servers[1].lead(3);
    for server in &servers {
        server.know(&servers[1], 3);
        master.add_node(server);
    }
    let cert = ca.issue(&Leaf::user("root", "admin"));
    // From the member, from the master and from the node itself, to each.
    for from in &servers {
        let mut client = LocalServiceClient::new(connect(from, &ca, &cert));
        for to in names {
            let info = client
                .get_info(v1::GetInfoRequest { node: to.into() })
                .await
                .unwrap()
                .into_inner();
            assert_eq!((info.node.as_str(), info.caller.as_str()), (to, "user/root"));
            assert_eq!(info.caller_role(), v1::AccessRole::Admin);
        }
    }
    let mut client = LocalServiceClient::new(connect(&servers[0], &ca, &cert));
    assert_eq!(
        code(client.get_info(v1::GetInfoRequest { node: "n9".into() }).await),
        "HA0302"
    );
    assert_eq!(
        code(client.get_info(v1::GetInfoRequest { node: "N 9".into() }).await),
        "HA0007"
    );

    // Renewal of n3 through n1, without a restart and without a private key on the way.
    let before = servers[2].security.certificate().serial;
    let request = v1::RequestCertificateRequest { node: "n3".into() };
    let asked = client.request_certificate(request).await.unwrap().into_inner();
    assert_eq!(
        (asked.node.as_str(), asked.address),
        ("n3", servers[2].address.to_string())
    );
    let leaf = Leaf::node("n3").issued(SystemClock.wall_ms() + 1000);
    let install = |pem: String| v1::InstallCertificateRequest {
        node: "n3".into(),
        certificate_pem: pem,
        options: None,
    };
    assert_eq!(
        code(client.install_certificate(install(ca.issue(&leaf).pem)).await),
        "HA0009"
    );
    let pem = ca.sign(&leaf, &asked.csr_pem);
    assert!(
        client
            .install_certificate(install(pem.clone()))
            .await
            .unwrap()
            .into_inner()
            .changed
    );
    assert!(
        !client
            .install_certificate(install(pem))
            .await
            .unwrap()
            .into_inner()
            .changed
    );
    assert_ne!(servers[2].security.certificate().serial, before);
    assert!(client.get_info(v1::GetInfoRequest { node: "n3".into() }).await.is_ok());
    let mut viewer = LocalServiceClient::new(connect(&servers[0], &ca, &ca.issue(&Leaf::user("vera", "viewer"))));
    assert_eq!(
        code(
            viewer
                .request_certificate(v1::RequestCertificateRequest::default())
                .await
        ),
        "HA0201"
    );

    // A node that is offline is told as such.
    for node in master.nodes.lock().unwrap().iter_mut() {
        node.status.as_mut().unwrap().state = v1::NodeState::Offline.into();
    }
    assert_eq!(
        code(client.get_info(v1::GetInfoRequest { node: "n3".into() }).await),
        "HA0307"
    );
    for server in servers {
        server.end().await;
    }
}

#[tokio::test]
async fn a_node_leaves_by_its_own_word_only() {
    let ca = TestCa::new("prod");
    let (member, leader) = (Server::start(&ca, "n1").await, Server::start(&ca, "n2").await);
    let master = leader.lead(3);
    member.know(&leader, 3);
    let leave = |dry_run| v1::LeaveRequest {
        options: Some(v1::ChangeOptions {
            dry_run,
            reason: "moved".into(),
            ..Default::default()
        }),
    };
    // As `had leave` does: with the node's own certificate, to the daemon of its own machine.
    let own = |name: &str| ca.issue(&Leaf::node(name));
    let mut client = LocalServiceClient::new(connect(&member, &ca, &own("n1")));
    client.leave(leave(true)).await.unwrap();
    assert!(master.log.lock().unwrap().is_empty() && !member.shared.leave.is_cancelled());
    // Another node's word reaches the master and nobody but the master.
    let mut stranger = LocalServiceClient::new(connect(&member, &ca, &own("n5")));
    assert_eq!(code(stranger.leave(leave(false)).await), "HA0102");
    assert!(!member.shared.leave.is_cancelled());

    let done = client.leave(leave(false)).await.unwrap().into_inner();
    assert!(
        done.plan[0].contains("node/n1 LeaveNode { name: \"n1\", reason: \"moved\" }"),
        "{done:?}"
    );
    assert!(member.shared.leave.is_cancelled() && !leader.shared.leave.is_cancelled());
    let mut client = LocalServiceClient::new(connect(&leader, &ca, &own("n2")));
    client.leave(leave(false)).await.unwrap();
    assert!(leader.shared.leave.is_cancelled());
    member.end().await;
    leader.end().await;
}

/// A wire that can be cut.
struct Cut {
    address: std::net::SocketAddr,
    state: tokio::sync::watch::Sender<Wire>,
}

#[derive(Clone, Copy, PartialEq)]
enum Wire {
    Whole,
    Cut,
    Frozen,
}

impl Cut {
    async fn start(to: std::net::SocketAddr) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, (state, watch)) = (listener.local_addr().unwrap(), tokio::sync::watch::channel(Wire::Whole));
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut watch = watch.clone();
                tokio::spawn(async move {
                    let mut far = tokio::net::TcpStream::connect(to).await.unwrap();
                    let mut changed = watch.clone();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
                        _ = changed.wait_for(|w| *w != Wire::Whole) => {}
                    }
                    let _ = watch.wait_for(|w| *w != Wire::Frozen).await;
                });
            }
        });
        Self { address, state }
    }

    fn cut(&self) {
        self.state.send_replace(Wire::Cut);
    }

    fn freeze(&self) {
        self.state.send_replace(Wire::Frozen);
    }

    fn heal(&self) {
        self.state.send_replace(Wire::Whole);
    }
}
