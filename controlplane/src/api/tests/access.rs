//! Who may do what, seen from outside.

use ha_core::access;
use ha_core::{AccessRecord, AccessRole};
use ha_proto::v1::cluster_service_client::ClusterServiceClient;
use ha_proto::v1::event_service_client::EventServiceClient;
use ha_proto::v1::local_service_client::LocalServiceClient;
use ha_proto::v1::node_service_client::NodeServiceClient;
use ha_proto::{FORWARDED_HOPS, FORWARDED_IDENTITY, REQUEST_ID, v1};
use tonic::{Code, Request};

use super::rig::*;
use crate::platform::{Clock, SystemClock};
use crate::security::testing::{Leaf, TestCa};

fn add(name: &str) -> v1::AddNodeRequest {
    v1::AddNodeRequest {
        name: name.into(),
        spec: Some(v1::NodeSpec::default()),
        ..Default::default()
    }
}

#[tokio::test]
async fn roles_are_in_the_certificate() {
    let ca = TestCa::new("prod");
    let mut server = Server::start(&ca, "n1").await;
    let master = server.lead(1);
    let viewer = connect(&server, &ca, &ca.issue(&Leaf::user("vera", "viewer")));
    let operator = connect(&server, &ca, &ca.issue(&Leaf::user("otto", "operator")));
    let node = connect(&server, &ca, &ca.issue(&Leaf::node("n2")));

    let state = ClusterServiceClient::new(viewer.clone())
        .get_state(v1::GetStateRequest {})
        .await
        .unwrap();
    assert_eq!(state.into_inner().revision, 7);
    for _ in 0..3 {
        let refused = NodeServiceClient::new(viewer.clone())
            .add_node(add("n9"))
            .await
            .unwrap_err();
        assert_eq!(
            (refused.code(), detail(&refused).code.as_str()),
            (Code::PermissionDenied, "HA0201")
        );
        assert!(detail(&refused).why[0].contains("operator"), "{refused:?}");
    }
    let mut request = Request::new(add("n9"));
    request.metadata_mut().insert(REQUEST_ID, "r-1".parse().unwrap());
    let done = NodeServiceClient::new(operator.clone())
        .add_node(request)
        .await
        .unwrap();
    assert!(done.into_inner().plan[0].starts_with("user/otto AddNode"));
    assert!(master.seen("[r-1]"));
    assert_eq!(
        code(
            ClusterServiceClient::new(node.clone())
                .get_state(v1::GetStateRequest {})
                .await
        ),
        "HA0204"
    );
    assert_eq!(
        code(
            LocalServiceClient::new(viewer.clone())
                .leave(v1::LeaveRequest::default())
                .await
        ),
        "HA0201"
    );
    assert!(!server.shared.leave.is_cancelled());
    let info = LocalServiceClient::new(operator)
        .get_info(v1::GetInfoRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(
        (info.caller.as_str(), info.caller_role()),
        ("user/otto", v1::AccessRole::Operator)
    );

    // Each is recorded once in a while, not each time.
    let mut recorded = Vec::new();
    while let Ok(denied) = server.tx.denied.try_recv() {
        recorded.push((denied.actor, denied.method));
    }
    assert_eq!(recorded.len(), 3, "{recorded:?}");
    assert_eq!(recorded[0], ("user/vera".into(), "/ha.v1.NodeService/AddNode".into()));
    assert_eq!(recorded[1].0, "node/n2");
    server.end().await;
}

#[tokio::test]
async fn strangers_do_not_get_in_and_disturb_nobody() {
    let (ca, other) = (TestCa::new("prod"), TestCa::new("prod"));
    let server = Server::start(&ca, "n1").await;
    server.lead(1);
    let good = connect(&server, &ca, &ca.issue(&Leaf::user("vera", "viewer")));
    for stranger in [
        ca.issue(&Leaf::user("vera", "viewer").expired()),
        ca.issue(&Leaf::user("vera", "viewer").since(-3600)),
        other.issue(&Leaf::user("vera", "admin")),
    ] {
        let mut client = ClusterServiceClient::new(connect(&server, &ca, &stranger));
        let refused = client.get_state(v1::GetStateRequest {});
        assert!(
            refused
                .await
                .unwrap_err()
                .metadata()
                .get_bin(ha_proto::ERROR_DETAIL)
                .is_none()
        );
        ClusterServiceClient::new(good.clone())
            .get_state(v1::GetStateRequest {})
            .await
            .unwrap();
    }
    // Signed by our authority, but no name of this cluster: told why.
    for uri in [
        vec!["ha://00000000-0000-0000-0000-000000000000/user/vera/admin".to_owned()],
        vec![],
    ] {
        let cert = ca.issue(&Leaf::user("vera", "admin").uris(uri));
        let result = ClusterServiceClient::new(connect(&server, &ca, &cert))
            .get_state(v1::GetStateRequest {})
            .await;
        assert_eq!(code(result), "HA0106");
    }
    server.end().await;
}

#[tokio::test]
async fn a_certificate_that_expires_on_an_open_connection_ends_its_rights() {
    let ca = TestCa::new("prod");
    let server = Server::start(&ca, "n1").await;
    server.lead(1);
    let cert = ca.issue(&Leaf::user("vera", "viewer").until(2));
    let mut client = ClusterServiceClient::new(connect(&server, &ca, &cert));
    client.get_state(v1::GetStateRequest {}).await.unwrap();
    let told = async {
        loop {
            if let Err(status) = client.get_state(v1::GetStateRequest {}).await {
                break detail(&status);
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let told = tokio::time::timeout(PATIENCE, told).await.unwrap();
    assert_eq!(
        (told.code.as_str(), told.next[0].as_str()),
        ("HA0203", "hactl user renew vera")
    );
    server.end().await;
}

#[tokio::test]
async fn revocation_counts_at_once_even_on_open_streams() {
    let ca = TestCa::new("prod");
    let mut server = Server::start(&ca, "n1").await;
    let master = server.lead(1);
    let (vera, anna) = (
        ca.issue(&Leaf::user("vera", "viewer")),
        ca.issue(&Leaf::user("anna", "viewer")),
    );
    let (vera_channel, anna_channel) = (connect(&server, &ca, &vera), connect(&server, &ca, &anna));
    let follow = |c| async {
        EventServiceClient::new(c)
            .follow_changes(v1::FollowChangesRequest::default())
            .await
    };
    let mut vera_stream = follow(vera_channel.clone()).await.unwrap().into_inner();
    let mut anna_stream = follow(anna_channel).await.unwrap().into_inner();
    let tell = async |seq| {
        let followers = master.followers.lock().unwrap().clone();
        for follower in followers {
            let _ = follower
                .send(Ok(v1::Change {
                    seq,
                    ..Default::default()
                }))
                .await;
        }
    };
    tell(1).await;
    assert_eq!(vera_stream.message().await.unwrap().unwrap().seq, 1);

    let now = SystemClock.wall_ms();
    let issued = access::Issued {
        serial: &vera.serial,
        expires_ms: i64::MAX,
    };
    let r = access::add_user(&AccessRecord::default(), "vera", AccessRole::Viewer, issued, now)
        .unwrap()
        .record;
    server.access(access::revoke_user(&r, "vera", now).unwrap().record);
    assert_eq!(code(vera_stream.message().await), "HA0202");
    assert_eq!(
        code(
            ClusterServiceClient::new(vera_channel.clone())
                .get_state(v1::GetStateRequest {})
                .await
        ),
        "HA0202"
    );
    tell(2).await;
    assert_eq!(anna_stream.message().await.unwrap().unwrap().seq, 1);
    assert_eq!(anna_stream.message().await.unwrap().unwrap().seq, 2);
    assert_eq!(
        server.tx.denied.recv().await.unwrap().why,
        "the certificate was revoked"
    );
    server.end().await;
}

#[tokio::test]
async fn only_nodes_vouch_and_only_for_users() {
    let ca = TestCa::new("prod");
    let mut server = Server::start(&ca, "n1").await;
    server.lead(1);
    let user = connect(&server, &ca, &ca.issue(&Leaf::user("vera", "viewer")));
    let node = connect(&server, &ca, &ca.issue(&Leaf::node("n2")));
    let vouched = |identity: &str, hops: &str| {
        let mut request = Request::new(add("n9"));
        request
            .metadata_mut()
            .insert(FORWARDED_IDENTITY, identity.parse().unwrap());
        request.metadata_mut().insert(FORWARDED_HOPS, hops.parse().unwrap());
        request
    };
    let mut nodes = NodeServiceClient::new(node);
    let forged = NodeServiceClient::new(user)
        .add_node(vouched("user/root/admin", "1"))
        .await;
    assert_eq!(code(forged), "HA0201");
    let denied = server.tx.denied.recv().await.unwrap();
    assert_eq!(
        (denied.actor.as_str(), denied.method.as_str()),
        ("user/vera", "/ha.v1.NodeService/AddNode")
    );
    let done = nodes.add_node(vouched("user/root/admin", "1")).await.unwrap();
    assert!(done.into_inner().plan[0].starts_with("user/root "));
    assert_eq!(code(nodes.add_node(vouched("user/vera/viewer", "1")).await), "HA0201");
    assert_eq!(code(nodes.add_node(vouched("node/n3", "1")).await), "HA0009");
    assert_eq!(code(nodes.add_node(vouched("user/root/emperor", "1")).await), "HA0009");
    assert_eq!(code(nodes.add_node(vouched("user/root/admin", "x")).await), "HA0009");
    assert_eq!(code(nodes.add_node(vouched("user/root/admin", "4")).await), "HA0102");
    // A node that is revoked vouches for nobody.
    let r = access::revoke_node(&AccessRecord::default(), "n2", true, SystemClock.wall_ms() + 1000).unwrap();
    server.access(r.record);
    assert_eq!(code(nodes.add_node(vouched("user/root/admin", "1")).await), "HA0202");
    server.end().await;
}

#[tokio::test]
async fn malformed_requests_are_refused_before_the_master_sees_them() {
    let ca = TestCa::new("prod");
    let server = Server::start(&ca, "n1").await;
    let master = server.lead(1);
    let channel = connect(&server, &ca, &ca.issue(&Leaf::user("root", "admin")));
    let mut nodes = NodeServiceClient::new(channel.clone());
    assert_eq!(code(nodes.add_node(add("../etc")).await), "HA0007");
    assert_eq!(
        code(
            nodes
                .add_node(v1::AddNodeRequest {
                    spec: None,
                    ..add("n9")
                })
                .await
        ),
        "HA0009"
    );
    assert_eq!(
        code(
            nodes
                .add_node(v1::AddNodeRequest {
                    certificate_serial: "1".into(),
                    ..add("n9")
                })
                .await
        ),
        "HA0009"
    );
    assert_eq!(
        code(nodes.get_node(v1::GetNodeRequest { name: "nobody".into() }).await),
        "HA0302"
    );
    let mut request = Request::new(add("n9"));
    request
        .metadata_mut()
        .insert(REQUEST_ID, "x".repeat(65).parse().unwrap());
    assert_eq!(code(nodes.add_node(request).await), "HA0009");
    let mut operations = v1::operation_service_client::OperationServiceClient::new(channel.clone());
    let id = |id: &str| v1::GetOperationRequest { id: id.into() };
    assert_eq!(
        operations.get_operation(id("0200")).await.unwrap().into_inner().id,
        "0200aa-c"
    );
    assert_eq!(code(operations.get_operation(id("0199")).await), "HA0009");
    assert_eq!(code(operations.get_operation(id("ffff")).await), "HA0501");
    assert!(master.log.lock().unwrap().is_empty(), "{:?}", master.log);
    // What the master drops unanswered is told as an election.
    assert_eq!(
        code(ClusterServiceClient::new(channel).doctor(v1::DoctorRequest {}).await),
        "HA0102"
    );
    server.end().await;
}
