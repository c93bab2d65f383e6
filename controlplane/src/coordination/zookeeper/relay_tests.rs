//! The relay between a hand-made client and hand-made servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::super::session::SessionCell;
use super::relay::{Relay, RelayEvent};
use super::wire::{self, ConnectRequest, ConnectResponse};

const T: Duration = Duration::from_millis(1500);
const SOON: Duration = Duration::from_secs(5);
const OP_SET: i32 = 5;
const OP_PING: i32 = 11;

/// A server: how it answers a request for a session, and what reaches it afterwards.
struct Server {
    address: String,
    connections: Arc<AtomicUsize>,
    /// Number and operation of each request.
    requests: mpsc::UnboundedReceiver<(i32, i32)>,
}

/// Starts a server. `answer` gives the timeout and session to grant, or `None` to close at once; `talks` whether it
/// answers requests.
async fn server(answer: impl Fn(&ConnectRequest) -> Option<(Duration, i64)> + Send + 'static, talks: bool) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let connections = Arc::new(AtomicUsize::new(0));
    let (log, requests) = mpsc::unbounded_channel();
    let count = connections.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::Relaxed);
            let Ok(body) = wire::read_frame(&mut stream).await else {
                continue;
            };
            let request = ConnectRequest::parse(&body).unwrap();
            let Some((granted, session)) = answer(&request) else {
                continue;
            };
            let log = log.clone();
            tokio::spawn(async move {
                // Request and response differ in the transaction number alone, which the relay never reads.
                let asked = ConnectRequest {
                    session,
                    ..ConnectRequest::new_session(granted)
                };
                let mut response = asked.frame()[4..].to_vec();
                response.drain(4..12);
                stream.write_all(&wire::framed(&response)).await.unwrap();
                while let Ok(body) = wire::read_frame(&mut stream).await {
                    let (xid, op) = wire::request_header(&body).unwrap();
                    let _ = log.send((xid, op));
                    if talks {
                        stream.write_all(&wire::refusal(xid)).await.unwrap();
                    }
                }
            });
        }
    });
    Server {
        address,
        connections,
        requests,
    }
}

/// Grants new sessions the number 7 and lets that continue.
fn good(request: &ConnectRequest) -> Option<(Duration, i64)> {
    assert!(matches!(request.session, 0 | 7));
    Some((T, 7))
}

struct Rig {
    relay: Arc<Relay>,
    cell: Arc<SessionCell>,
    events: mpsc::UnboundedReceiver<RelayEvent>,
    address: String,
}

async fn rig(hosts: Vec<String>) -> Rig {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let cell = Arc::new(SessionCell::new());
    let (relay, events) = Relay::new(hosts, 0, T, cell.clone());
    tokio::spawn(relay.clone().serve(listener));
    Rig {
        relay,
        cell,
        events,
        address,
    }
}

impl Rig {
    async fn event(&mut self) -> RelayEvent {
        timeout(SOON, self.events.recv())
            .await
            .expect("an event in time")
            .unwrap()
    }

    /// Connects as the crate does.
    async fn client(&self, session: i64) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        let request = ConnectRequest {
            session,
            ..ConnectRequest::new_session(T)
        };
        stream.write_all(&request.frame()).await.unwrap();
        stream
    }

    /// Connects and waits for the session.
    async fn connected(&mut self, session: i64) -> TcpStream {
        let mut stream = self.client(session).await;
        let body = timeout(SOON, wire::read_frame(&mut stream)).await.unwrap().unwrap();
        assert_eq!(ConnectResponse::parse(&body).unwrap().session, 7);
        assert!(matches!(self.event().await, RelayEvent::Connected(_)));
        stream
    }
}

fn request(xid: i32, op: i32) -> Vec<u8> {
    wire::framed(&[xid.to_be_bytes(), op.to_be_bytes()].concat())
}

async fn reply(stream: &mut TcpStream) -> (i32, i32) {
    let body = timeout(SOON, wire::read_frame(stream)).await.unwrap().unwrap();
    let number = |at: usize| i32::from_be_bytes(body[at..at + 4].try_into().unwrap());
    (number(0), number(12))
}

#[tokio::test]
async fn what_comes_before_the_identity_is_refused() {
    let mut server = server(good, true).await;
    let mut rig = rig(vec![server.address.clone()]).await;
    let mut client = rig.connected(0).await;
    let sent = [
        request(5, OP_SET),
        request(-2, OP_PING),
        request(-4, wire::OP_AUTH),
        request(6, OP_SET),
    ];
    client.write_all(&sent.concat()).await.unwrap();
    assert_eq!(reply(&mut client).await, (5, -4));
    assert_eq!(reply(&mut client).await, (-2, 0));
    assert_eq!(reply(&mut client).await.0, -4);
    assert_eq!(reply(&mut client).await.0, 6);
    assert_eq!(server.requests.recv().await, Some((-4, wire::OP_AUTH)));
    assert_eq!(server.requests.recv().await, Some((6, OP_SET)));
    assert_eq!(rig.relay.session_id(), Some(7));
}

#[tokio::test]
async fn strangers_are_not_served() {
    let mut server = server(good, true).await;
    let mut rig = rig(vec![server.address.clone()]).await;
    let mut client = rig.connected(0).await;
    for session in [0, 8] {
        let mut stranger = rig.client(session).await;
        assert!(timeout(SOON, wire::read_frame(&mut stranger)).await.unwrap().is_err());
    }
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(&rig.address).await.unwrap());
    }
    client.write_all(&request(-4, wire::OP_AUTH)).await.unwrap();
    assert_eq!(reply(&mut client).await.0, -4);
    assert_eq!(server.requests.recv().await, Some((-4, wire::OP_AUTH)));
    assert!(
        rig.cell.gate().is_ok(),
        "the session's own connection was not disturbed"
    );
}

#[tokio::test]
async fn a_silent_server_is_left_for_the_next() {
    let (silent, talking) = (server(good, false).await, server(good, true).await);
    let mut rig = rig(vec![silent.address.clone(), talking.address.clone()]).await;
    let mut client = rig.connected(0).await;
    client.write_all(&request(-4, wire::OP_AUTH)).await.unwrap();
    let begun = Instant::now();
    assert!(matches!(rig.event().await, RelayEvent::Disconnected));
    assert!(begun.elapsed() >= T / 3 - Duration::from_millis(50));
    assert!(rig.cell.is_suspended());
    rig.connected(7).await;
    assert_eq!(rig.relay.host(), Some(talking.address));
}

#[tokio::test]
async fn a_server_that_closes_at_once_is_named() {
    let refused = server(|_| None, true).await;
    let mut rig = rig(vec![refused.address.clone()]).await;
    let _client = rig.client(0).await;
    let RelayEvent::NoServer(e) = rig.event().await else {
        panic!("a session?")
    };
    assert!(
        e.to_string().contains(&refused.address) && e.to_string().contains("closed the connection"),
        "{e}"
    );
}

#[tokio::test]
async fn an_expired_session_is_told_and_never_replaced() {
    let expired = |request: &ConnectRequest| match request.session {
        0 => Some((T, 7)),
        _ => Some((Duration::ZERO, 0)),
    };
    let server = server(expired, true).await;
    let mut rig = rig(vec![server.address.clone()]).await;
    drop(rig.connected(0).await);
    assert!(matches!(rig.event().await, RelayEvent::Disconnected));
    let mut again = rig.client(7).await;
    assert!(matches!(rig.event().await, RelayEvent::Over(why) if why.contains("expired")));
    let answer = timeout(Duration::from_millis(100), wire::read_frame(&mut again)).await;
    assert!(answer.is_err(), "the crate would begin another session: {answer:?}");
}

#[tokio::test]
async fn a_server_with_another_timeout_never_sees_the_session() {
    let good = server(good, true).await;
    let other = server(
        |request| {
            assert_eq!(request.session, 0, "the session was shown to it");
            Some((T * 2, 9))
        },
        true,
    )
    .await;
    let mut rig = rig(vec![good.address.clone(), other.address.clone()]).await;
    drop(rig.connected(0).await);
    assert!(matches!(rig.event().await, RelayEvent::Disconnected));
    rig.connected(7).await;
    assert_eq!(rig.relay.host(), Some(good.address));
    assert_eq!(other.connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn reconnecting_goes_on_until_a_server_is_back_at_a_gentle_pace() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut rig = rig(vec![address.clone()]).await;
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        wire::read_frame(&mut stream).await.unwrap();
        let mut response = ConnectRequest {
            session: 7,
            ..ConnectRequest::new_session(T)
        }
        .frame()[4..]
            .to_vec();
        response.drain(4..12);
        stream.write_all(&wire::framed(&response)).await.unwrap();
        stream
    };
    let (client, stream) = tokio::join!(rig.client(0), serve);
    assert!(matches!(rig.event().await, RelayEvent::Connected(1)));
    drop((client, stream));
    assert!(matches!(rig.event().await, RelayEvent::Disconnected));
    // For a second every connection is closed at once.
    let _client = rig.client(7).await;
    let mut closed = 0;
    let _ = timeout(Duration::from_secs(1), async {
        loop {
            drop(listener.accept().await.unwrap());
            closed += 1;
        }
    })
    .await;
    assert!((2..=8).contains(&closed), "{closed} attempts in a second");
}
