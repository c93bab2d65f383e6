//! Clients that mean harm or know no better, and what others notice of them: nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ha_proto::v1;
use ha_proto::v1::cluster_service_client::ClusterServiceClient;
use ha_proto::v1::event_service_client::EventServiceClient;
use ha_proto::v1::user_service_client::UserServiceClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::Code;

use super::raw::Raw;
use super::rig::*;
use crate::platform::{Clock, SystemClock};
use crate::security::testing::{Leaf, TestCa};

#[tokio::test]
async fn garbage_and_half_open_connections_disturb_nobody() {
    let ca = TestCa::new("prod");
    let server = Server::start(&ca, "n1").await;
    server.lead(1);
    let cert = ca.issue(&Leaf::user("vera", "viewer"));
    // More than may be under way at once: they say nothing, or the beginning of a handshake and nothing more.
    let mut held = Vec::new();
    for i in 0..1200 {
        let Ok(mut tcp) = TcpStream::connect(server.address).await else {
            continue;
        };
        if i % 2 == 0 {
            let _ = tcp.write_all(&[0x16, 3, 1, 2, 0, 1]).await;
        }
        held.push(tcp);
    }
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 4096],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut tcp = TcpStream::connect(server.address).await.unwrap();
        let _ = tcp.write_all(garbage).await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, tcp.read_to_end(&mut answer)).await;
        assert!(read.is_ok() && answer.len() < 100, "it is hung up on");
    }
    let begun = Instant::now();
    let mut client = ClusterServiceClient::new(connect(&server, &ca, &cert));
    client.get_state(v1::GetStateRequest {}).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    // And all of them are gone after the time limit, without a word from them.
    let all_gone = async {
        for mut tcp in held {
            let _ = tcp.read_to_end(&mut Vec::new()).await;
        }
    };
    tokio::time::timeout(PATIENCE, all_gone).await.unwrap();
    server.end().await;
}

#[tokio::test]
async fn a_client_without_a_certificate_or_without_http2_is_refused() {
    let ca = TestCa::new("prod");
    let server = Server::start(&ca, "n1").await;
    server.lead(1);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(crate::security::testing::der(&ca.pem)).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(server.address).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("had.prod").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    if let Ok(mut tls) = connector.connect(name, tcp).await {
        let _ = tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        assert!(
            tls.read_to_end(&mut Vec::new()).await.is_err(),
            "the server says that it wants a certificate"
        );
    }
    server.end().await;
}

#[tokio::test]
async fn oversized_messages_end_their_own_call_only() {
    let ca = TestCa::new("prod");
    let server = Server::start(&ca, "n1").await;
    server.lead(1);
    let channel = connect(&server, &ca, &ca.issue(&Leaf::user("root", "admin")));
    let request = v1::RecordUserRequest {
        name: "x".repeat(5 << 20),
        ..Default::default()
    };
    let e = UserServiceClient::new(channel.clone())
        .record_user(request)
        .await
        .unwrap_err();
    assert_eq!(e.code(), Code::OutOfRange, "{e:?}");
    let mut request = tonic::Request::new(v1::GetStateRequest {});
    request
        .metadata_mut()
        .insert("x-large", "y".repeat(60_000).parse().unwrap());
    assert!(
        ClusterServiceClient::new(channel.clone())
            .get_state(request)
            .await
            .is_err()
    );
    ClusterServiceClient::new(channel)
        .get_state(v1::GetStateRequest {})
        .await
        .unwrap();
    server.end().await;
}

#[tokio::test]
async fn a_slow_reader_holds_only_itself() {
    let ca = TestCa::new("prod");
    let server = Server::start(&ca, "n1").await;
    let master = server.lead(1);
    let cert = ca.issue(&Leaf::user("vera", "viewer"));
    let mut slow = EventServiceClient::new(connect(&server, &ca, &cert));
    let stream = slow.follow_changes(v1::FollowChangesRequest::default()).await.unwrap();
    let follower = master.followers.lock().unwrap().pop().unwrap();
    let big = || v1::Change {
        text: "x".repeat(30_000),
        ..Default::default()
    };
    let mut taken = 0;
    // What is not read fills the bounded buffers on the way, and then the queue.
    let fill = async {
        while tokio::time::timeout(Duration::from_millis(500), follower.send(Ok(big())))
            .await
            .is_ok()
        {
            taken += 1;
        }
    };
    tokio::time::timeout(PATIENCE, fill).await.unwrap();
    assert!(taken * 30_000 < 8 << 20, "{taken} entries were buffered");
    let mut quick = ClusterServiceClient::new(connect(&server, &ca, &cert));
    quick.get_state(v1::GetStateRequest {}).await.unwrap();
    drop(stream);
    server.end().await;
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_without_a_restart() {
    let ca = TestCa::new("prod");
    let server = Server::start(&ca, "n1").await;
    server.lead(1);
    let cert = ca.issue(&Leaf::user("vera", "viewer"));
    let mut old = ClusterServiceClient::new(connect(&server, &ca, &cert));
    old.get_state(v1::GetStateRequest {}).await.unwrap();
    let stop = tokio_util::sync::CancellationToken::new();
    let watching = tokio::spawn(server.security.clone().watch(stop.clone()));
    let new = ca.issue(&Leaf::node("n1").issued(SystemClock.wall_ms() + 1000));
    ca.write_bundle(server.dir.path(), "n1", &new);
    until("taken up", || server.security.certificate().serial == new.serial).await;
    assert_eq!(Raw::connect(&server, &ca, &cert).await.shown, new.der);
    old.get_state(v1::GetStateRequest {}).await.unwrap();
    stop.cancel();
    watching.await.unwrap();
    server.end().await;
}

#[tokio::test]
async fn odd_requests_end_with_a_status_and_cost_their_own_call_only() {
    let ca = TestCa::new("prod");
    let server = Server::start(&ca, "n1").await;
    server.lead(1);
    let mut raw = Raw::connect(&server, &ca, &ca.issue(&Leaf::user("root", "admin"))).await;
    let state = "/ha.v1.ClusterService/GetState";
    assert_eq!(raw.call(state, &[("x-test-panic", "1")]).await.detail().code, "HA0108");
    assert_eq!(
        raw.call("/ha.v1.ClusterService/Nothing", &[]).await.status(),
        Code::Unimplemented
    );
    assert_eq!(raw.call("/", &[]).await.status(), Code::Unimplemented);
    assert_eq!(
        raw.call(state, &[("ha-request-id", "a b")]).await.detail().code,
        "HA0009"
    );
    for body in [
        &b""[..],
        b"\0",
        b"\0\0\0\0\xff",
        b"\0\xff\xff\xff\xff",
        b"\x07\0\0\0\0",
        b"\0\0\0\0\x02\xff\xff",
    ] {
        assert_ne!(
            raw.call_with("/ha.v1.NodeService/AddNode", &[], body).await.status(),
            Code::Ok,
            "{body:?}"
        );
    }
    assert_eq!(raw.call(state, &[]).await.status(), Code::Ok);
    server.end().await;
}

#[tokio::test]
async fn stopping_ends_streams_with_the_reason() {
    let ca = TestCa::new("prod");
    let server = Server::start(&ca, "n1").await;
    let _master = server.lead(1);
    let cert = ca.issue(&Leaf::user("vera", "viewer"));
    let mut client = EventServiceClient::new(connect(&server, &ca, &cert));
    let mut stream = client
        .follow_changes(v1::FollowChangesRequest::default())
        .await
        .unwrap()
        .into_inner();
    let begun = Instant::now();
    let (ended, ()) = tokio::join!(stream.message(), server.end());
    assert_eq!(code(ended), "HA0101");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}
