//! Clients are led to the right server, wait while there is none, and are cut off a former one.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::routes::{StandbyState, Way};
use super::rig::*;

/// What a client is told last: the fields of a fatal error.
fn fields(bytes: &[u8]) -> Vec<String> {
    assert_eq!(bytes.first(), Some(&b'E'), "{bytes:?}");
    let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize;
    assert_eq!(length + 1, bytes.len(), "one packet");
    let fields = bytes[5..].split(|b| *b == 0).filter(|f| !f.is_empty());
    fields.map(|f| String::from_utf8(f.to_vec()).unwrap()).collect()
}

#[tokio::test]
async fn bytes_go_both_ways_until_either_side_ends() {
    let n1 = Backend::start("n1").await;
    let rig = Rig::start(table(&n1)).await;
    let (mut client, server) = rig.client(Way::Primary).await;
    assert_eq!(server, "n1");
    echo(&mut client).await.unwrap();
    assert_eq!(rig.port(Way::Primary).open, 1);
    // The client has said all, and still hears what is on its way.
    client.write_all(b"last words").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut client).await, (b"last words".to_vec(), true));
    rig.empty().await;
    // The server ends.
    let (mut client, _) = rig.client(Way::Primary).await;
    drop(n1);
    assert_eq!(rest(&mut client).await.0, b"");
    drop(client);
    rig.empty().await;
}

#[tokio::test]
async fn much_is_passed_whole_and_no_faster_than_it_is_taken() {
    const SIZE: usize = 128 * 1024 * 1024;
    let n1 = Backend::start("n1").await;
    let rig = Rig::start(table(&n1)).await;
    let (client, _) = rig.client(Way::Primary).await;
    let (mut from, mut to) = client.into_split();
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = sent.clone();
    let noise: Vec<u8> = (0..64 * 1024u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let mut block = noise.clone();
    let writer = tokio::spawn(async move {
        for at in 0..SIZE / block.len() {
            block[..8].copy_from_slice(&at.to_be_bytes());
            to.write_all(&block).await.unwrap();
            count.fetch_add(block.len(), Ordering::Relaxed);
        }
        to
    });
    // Nobody reads: the sender comes to a halt, and what lies between is in the buffers of the system.
    let mut before = usize::MAX;
    while before != sent.load(Ordering::Relaxed) {
        before = sent.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(
        before < SIZE / 4 * 3,
        "{before} bytes were taken from a client that takes none"
    );
    let mut block = vec![0u8; noise.len()];
    for at in 0..SIZE / block.len() {
        from.read_exact(&mut block).await.unwrap();
        assert!(block[..8] == at.to_be_bytes() && block[8..] == noise[8..], "block {at}");
    }
    drop(writer.await.unwrap());
    drop(from);
    rig.empty().await;
}

#[tokio::test]
async fn clients_wait_for_the_new_primary() {
    let (n1, n2) = (Backend::start("n1").await, Backend::start("n2").await);
    let rig = Rig::start(table(&n1)).await;
    let (mut old, _) = rig.client(Way::Primary).await;
    // A switchover begins: who is connected stays, who comes waits.
    rig.set(|t| t.steady = false);
    let mut waiting = rig.knock(Way::Primary).await;
    until("it waits", || rig.port(Way::Primary).waiting == 1).await;
    echo(&mut old).await.unwrap();
    // The next one is named, and not open yet: the old one is not the primary any more.
    rig.set(|t| {
        t.epoch = 2;
        t.primary = Some(n2.server());
    });
    let begun = Instant::now();
    assert_eq!(rest(&mut old).await.0, b"");
    assert!(begun.elapsed() < Duration::from_millis(500), "cut at once");
    assert_eq!(rig.port(Way::Primary).waiting, 1);
    rig.set(|t| {
        t.steady = true;
        t.timeline = 2;
    });
    let begun = Instant::now();
    assert_eq!(greeting(&mut waiting).await, "n2");
    assert!(begun.elapsed() < Duration::from_millis(500), "led at once");
    echo(&mut waiting).await.unwrap();
    assert_eq!(rig.port(Way::Primary).waiting, 0);
    assert_eq!(
        n1.accepted.load(Ordering::Relaxed),
        1,
        "nobody was led to the former primary"
    );
    // Back to n1 and to n2 again, faster than anybody looked: its connections are of another life.
    rig.set(|t| {
        t.epoch = 4;
        t.timeline = 4;
    });
    assert_eq!(rest(&mut waiting).await.0, b"");
    assert_eq!(rig.client(Way::Primary).await.1, "n2");
    rig.empty().await;
}

#[tokio::test]
async fn a_primary_that_stays_keeps_its_clients() {
    let n1 = Backend::start("n1").await;
    let rig = Rig::start(table(&n1)).await;
    let (mut client, _) = rig.client(Way::Primary).await;
    // Suspected and found healthy: the epoch moves on by two, and nobody was promoted.
    rig.set(|t| {
        t.steady = false;
        t.epoch = 2;
    });
    rig.set(|t| {
        t.steady = true;
        t.epoch = 3;
    });
    // Something that follows the change has happened, and the client is still there.
    rig.client(Way::Primary).await;
    echo(&mut client).await.unwrap();
}

#[tokio::test]
async fn who_waits_in_vain_is_told_as_a_server_would() {
    let n1 = Backend::start("n1").await;
    let mut before = table(&n1);
    before.wait = Duration::from_millis(200);
    before.primary = None;
    let rig = Rig::start(before).await;
    let mut client = rig.knock(Way::Primary).await;
    let begun = Instant::now();
    let (packet, well) = rest(&mut client).await;
    assert!(well && begun.elapsed() >= Duration::from_millis(200));
    assert_eq!(
        fields(&packet),
        [
            "SFATAL",
            "VFATAL",
            "C57P03",
            "Mgroup main has no primary",
            "Hhactl db --group main status    shows what the group waits for"
        ]
    );
    // One that would rather encrypt is told the same.
    let mut client = rig.dial(Way::Primary).await;
    client.write_all(&ssl_request()).await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'N');
    client.write_all(&startup()).await.unwrap();
    assert!(fields(&rest(&mut client).await.0).contains(&"C57P03".to_owned()));
    // A primary that does not answer is named with the reason.
    let address = n1.address;
    drop(n1);
    rig.set(|t| {
        t.primary = Some(super::super::routes::Server {
            node: "n1".into(),
            address: address.to_string(),
            ..Default::default()
        });
    });
    let mut client = rig.knock(Way::Primary).await;
    let told = fields(&rest(&mut client).await.0);
    assert!(told[3].contains("n1") && told[3].contains("refused"), "{told:?}");
    let counts = &rig.port_counts(Way::Primary);
    assert_eq!(counts.total.get(), 0);
    rig.empty().await;
}

#[tokio::test]
async fn a_waiting_client_that_goes_away_is_noticed() {
    let n1 = Backend::start("n1").await;
    let mut before = table(&n1);
    before.steady = false;
    let rig = Rig::start(before).await;
    let clients = [rig.knock(Way::Primary).await, rig.knock(Way::Primary).await];
    until("both wait", || rig.port(Way::Primary).waiting == 2).await;
    drop(clients);
    rig.empty().await;
    assert_eq!(n1.accepted.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_primary_that_cannot_be_reached_is_tried_again_and_no_other() {
    let (n1, n2) = (Backend::start("n1").await, Backend::start("n2").await);
    let mut before = table(&n1);
    before.standbys = vec![standby(&n2, 0)];
    let address = n1.address;
    drop(n1);
    until("the port is free", || std::net::TcpListener::bind(address).is_ok()).await;
    let rig = Rig::start(before).await;
    let mut client = rig.knock(Way::Primary).await;
    until("it waits", || rig.port(Way::Primary).waiting == 1).await;
    let _again = Backend::at("again", address).await;
    assert_eq!(greeting(&mut client).await, "again");
    assert_eq!(n2.accepted.load(Ordering::Relaxed), 0);
    // And a dial that hangs is given up when the routes say otherwise (an address that nobody answers from).
    rig.set(|t| t.primary.as_mut().unwrap().address = "192.0.2.1:5432".into());
    let mut client = rig.knock(Way::Primary).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    rig.set(|t| t.primary = Some(n2.server()));
    let begun = Instant::now();
    assert_eq!(greeting(&mut client).await, "n2");
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn standbys_share_the_clients() {
    let n1 = Backend::start("n1").await;
    let (n2, n3, n4) = (
        Backend::start("n2").await,
        Backend::start("n3").await,
        Backend::start("n4").await,
    );
    let mut before = table(&n1);
    before.max_lag = Some(1000);
    before.standbys = vec![standby(&n2, 0), standby(&n3, 1000), standby(&n4, 1001)];
    let rig = Rig::start(before).await;
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(rig.client(Way::Standbys).await);
    }
    let at = |name: &str, clients: &[(_, String)]| clients.iter().filter(|(_, s)| s == name).count();
    assert_eq!((at("n2", &clients), at("n3", &clients), at("n4", &clients)), (5, 5, 0));
    // Those of n2 go: the next ones go to n2, which has fewest.
    clients.retain(|(_, server)| server != "n2");
    until("they are gone", || rig.port(Way::Standbys).open == 5).await;
    for _ in 0..5 {
        clients.push(rig.client(Way::Standbys).await);
    }
    assert_eq!(at("n2", &clients), 5);
    // One after another, they take turns.
    clients.clear();
    rig.empty().await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..4 {
        seen.insert(rig.client(Way::Standbys).await.1);
        rig.empty().await;
    }
    assert_eq!(seen.len(), 2, "{seen:?}");

    // Being behind costs a standby new clients, not those it has; being down costs it those as well.
    let (mut client, server) = rig.client(Way::Standbys).await;
    let index = usize::from(server == "n3");
    rig.set(|t| t.standbys[index].lag = None);
    for _ in 0..3 {
        assert_ne!(rig.client(Way::Standbys).await.1, server);
    }
    echo(&mut client).await.unwrap();
    rig.set(|t| t.standbys[index].state = StandbyState::Down);
    assert_eq!(rest(&mut client).await.0, b"");
    // A standby on another timeline may have what the primary has not.
    rig.set(|t| t.standbys[1 - index].timeline = 7);
    let mut waiting = rig.knock(Way::Standbys).await;
    until("nobody is fit", || rig.port(Way::Standbys).waiting == 1).await;
    rig.set(|t| t.fall_back = true);
    assert_eq!(greeting(&mut waiting).await, "n1");
    rig.set(|t| {
        t.standbys[0] = standby(&n2, 0);
        t.fall_back = false;
    });
    assert_eq!(
        rest(&mut waiting).await.0,
        b"",
        "the primary is for this port only while nothing else is"
    );
}

#[tokio::test]
async fn a_standby_that_became_primary_keeps_clients_only_while_no_other_is_fit() {
    let (n1, n2, n3) = (
        Backend::start("n1").await,
        Backend::start("n2").await,
        Backend::start("n3").await,
    );
    let mut before = table(&n1);
    before.standbys = vec![standby(&n2, 0)];
    let rig = Rig::start(before).await;
    let (mut client, _) = rig.client(Way::Standbys).await;
    rig.set(|t| {
        t.primary = Some(n2.server());
        t.standbys = vec![];
    });
    rig.client(Way::Primary).await;
    echo(&mut client).await.unwrap();
    rig.set(|t| t.standbys = vec![standby(&n3, 0)]);
    assert_eq!(rest(&mut client).await.0, b"");
    assert_eq!(rig.client(Way::Standbys).await.1, "n3");
}

#[tokio::test]
async fn an_unreachable_standby_is_passed_over() {
    let (n1, n2, n3) = (
        Backend::start("n1").await,
        Backend::start("n2").await,
        Backend::start("n3").await,
    );
    let mut before = table(&n1);
    before.standbys = vec![standby(&n2, 0), standby(&n3, 0)];
    drop(n2);
    let rig = Rig::start(before).await;
    for _ in 0..4 {
        assert_eq!(rig.client(Way::Standbys).await.1, "n3");
    }
}

#[tokio::test]
async fn cancels_reach_the_server_that_knows_the_key() {
    let n1 = Backend::start("n1").await;
    let (n2, n3) = (Backend::start("n2").await, Backend::start("n3").await);
    let mut before = table(&n1);
    before.standbys = vec![standby(&n2, 0), standby(&n3, 0)];
    let rig = Rig::start(before).await;
    let mut client = rig.dial(Way::Primary).await;
    client.write_all(&cancel_request(7)).await.unwrap();
    assert_eq!(
        rest(&mut client).await.0,
        b"",
        "it ends when the server has dealt with it"
    );
    assert_eq!(n1.log(), ["cancel 7"]);
    assert!(n2.log().is_empty() && n3.log().is_empty());

    let (_one, _two) = (rig.client(Way::Standbys).await, rig.client(Way::Standbys).await);
    let mut client = rig.dial(Way::Standbys).await;
    client.write_all(&cancel_request(8)).await.unwrap();
    assert_eq!(rest(&mut client).await.0, b"");
    for standby in [&n2, &n3] {
        assert_eq!(standby.log(), ["session", "cancel 8"]);
    }
    // In the clear after the server declined to encrypt.
    let mut client = rig.dial(Way::Standbys).await;
    client.write_all(&ssl_request()).await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'N');
    client.write_all(&cancel_request(9)).await.unwrap();
    assert_eq!(rest(&mut client).await.0, b"");
    for standby in [&n2, &n3] {
        assert_eq!(standby.log().last().unwrap(), "cancel 9");
    }
    assert_eq!(n1.log().len(), 1);
    // Without a primary there is nothing to cancel, and nobody waits.
    rig.set(|t| t.primary = None);
    let mut client = rig.dial(Way::Primary).await;
    client.write_all(&cancel_request(10)).await.unwrap();
    assert_eq!(rest(&mut client).await.0, b"");
}

#[tokio::test]
async fn questions_pass_untouched() {
    let (n1, n2) = (Backend::start("n1").await, Backend::start("n2").await);
    let mut before = table(&n1);
    before.standbys = vec![standby(&n2, 0)];
    let rig = Rig::start(before).await;
    for (way, name) in [(Way::Primary, "n1"), (Way::Standbys, "n2")] {
        let mut client = rig.dial(way).await;
        // A byte at a time, as the worst network would.
        for byte in packet((1234, 5680), b"") {
            client.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(client.read_u8().await.unwrap(), b'N');
        client.write_all(&ssl_request()).await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'N');
        client.write_all(&startup()).await.unwrap();
        assert_eq!(greeting(&mut client).await, name);
        echo(&mut client).await.unwrap();
    }
}
