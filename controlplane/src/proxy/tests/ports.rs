//! Ports come and go with the routes, have their limits, and survive whoever connects.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use rand::{Rng as _, SeedableRng as _};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::super::routes::{Ports, Routes, Table, Way};
use super::super::{Metrics, Proxy, Settings};
use super::rig::*;

#[tokio::test]
async fn ports_follow_the_routes() {
    let (n1, n2) = (Backend::start("n1").await, Backend::start("n2").await);
    let rig = Rig::start(table(&n1)).await;
    let (mut client, _) = rig.client(Way::Primary).await;
    let before = rig.address(Way::Primary);
    // Another port: who is connected stays.
    let free = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    rig.set(|t| {
        t.ports = Ports {
            primary: Some(free.port()),
            standbys: None,
        };
    });
    until("it has moved", || {
        rig.proxy.status().len() == 1 && rig.port(Way::Primary).address == Some(free)
    })
    .await;
    until("the old port is closed", || {
        std::net::TcpStream::connect(before).is_err()
    })
    .await;
    echo(&mut client).await.unwrap();
    assert_eq!(rig.client(Way::Primary).await.1, "n1");
    // A second group beside it.
    rig.routes.send_modify(|r| {
        Arc::make_mut(r).groups.insert("orders".into(), table(&n2));
    });
    let orders = || {
        rig.proxy
            .status()
            .into_iter()
            .find(|p| p.group == "orders" && p.way == Way::Primary)
    };
    until("it listens", || orders().is_some_and(|p| p.address.is_some())).await;
    let mut other = TcpStream::connect(orders().unwrap().address.unwrap()).await.unwrap();
    other.write_all(&startup()).await.unwrap();
    assert_eq!(greeting(&mut other).await, "n2");
    // A group that is gone takes its clients with it, and no others.
    rig.routes.send_modify(|r| {
        Arc::make_mut(r).groups.remove("main");
    });
    assert_eq!(rest(&mut client).await.0, b"");
    until("closed", || std::net::TcpStream::connect(free).is_err()).await;
    echo(&mut other).await.unwrap();
    assert!(rig.proxy.status().iter().all(|p| p.group == "orders"));
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_and_tried_again() {
    let n1 = Backend::start("n1").await;
    let rig = Rig::start(table(&n1)).await;
    let squatter = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = squatter.local_addr().unwrap();
    rig.set(|t| t.ports.primary = Some(address.port()));
    until("it says so", || rig.port(Way::Primary).error.is_some()).await;
    let error = rig.port(Way::Primary).error.unwrap();
    assert!(error.contains("in use"), "{error}");
    assert!(rig.port(Way::Primary).address.is_none());
    drop(squatter);
    until("it has it", || rig.port(Way::Primary).address == Some(address)).await;
    assert_eq!(rig.client(Way::Primary).await.1, "n1");
}

#[tokio::test]
async fn this_node_s_settings_go_before_the_group_s() {
    let n1 = Backend::start("n1").await;
    let one = Settings {
        ports: [(
            "main".to_owned(),
            Ports {
                primary: Some(0),
                standbys: Some(0),
            },
        )]
        .into(),
        ..Settings::default()
    };
    let mut privileged = table(&n1);
    privileged.ports.primary = Some(n1.address.port());
    let rig = Rig::with(one, privileged).await;
    assert_eq!(rig.client(Way::Primary).await.1, "n1");
    let (_tx, routes) = tokio::sync::watch::channel(Arc::new(Routes {
        groups: [("main".to_owned(), table(&n1))].into(),
    }));
    let off = Settings {
        enabled: false,
        ..Settings::default()
    };
    let proxy = Proxy::new(off, routes, Metrics::default());
    let ran = tokio::time::timeout(Duration::from_millis(100), proxy.clone().run(Default::default())).await;
    assert!(ran.is_err() && proxy.status().is_empty());
}

#[tokio::test]
async fn there_is_room_for_so_many_and_no_more() {
    let n1 = Backend::start("n1").await;
    let two = Settings {
        max_connections: 2,
        ..Settings::default()
    };
    let rig = Rig::with(two, table(&n1)).await;
    let clients = (rig.client(Way::Primary).await, rig.client(Way::Primary).await);
    let mut third = rig.knock(Way::Primary).await;
    let (told, _) = rest(&mut third).await;
    let told = String::from_utf8_lossy(&told).into_owned();
    assert!(
        told.contains("C53300") && told.contains("too many connections"),
        "{told}"
    );
    // The other port has room of its own.
    let n2 = Backend::start("n2").await;
    rig.set(|t| t.standbys = vec![standby(&n2, 0)]);
    assert_eq!(rig.client(Way::Standbys).await.1, "n2");
    drop(clients);
    rig.empty().await;
    assert_eq!(rig.client(Way::Primary).await.1, "n1");
}

#[tokio::test]
async fn headers_of_another_proxy_are_taken_from_whom_we_trust() {
    let n1 = Backend::start("n1").await;
    let trusting = Settings {
        proxy_protocol_from: vec!["127.0.0.0/8".parse().unwrap()],
        ..Settings::default()
    };
    let rig = Rig::with(trusting, table(&n1)).await;
    let version_2 = [
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(),
        &[192, 0, 2, 1, 10, 0, 0, 1, 1, 2, 3, 4],
    ]
    .concat();
    for header in [
        b"PROXY TCP4 192.0.2.1 10.0.0.1 5555 5000\r\n".as_slice(),
        b"PROXY UNKNOWN\r\n",
        &version_2,
    ] {
        let mut client = rig.dial(Way::Primary).await;
        for byte in header {
            client.write_all(&[*byte]).await.unwrap();
        }
        client.write_all(&startup()).await.unwrap();
        assert_eq!(greeting(&mut client).await, "n1");
        echo(&mut client).await.unwrap();
    }
    let before = n1.accepted.load(Ordering::Relaxed);
    for wrong in [
        &startup()[..],
        b"PROXY TCP4 x y 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 10.0.0.1 5555 5000\r\nGET /",
    ] {
        let mut client = rig.dial(Way::Primary).await;
        client.write_all(wrong).await.unwrap();
        assert_eq!(rest(&mut client).await.0, b"");
    }
    assert_eq!(n1.accepted.load(Ordering::Relaxed), before);
    // From anybody else it is refused, not believed.
    let rig = Rig::start(table(&n1)).await;
    let mut client = rig.dial(Way::Primary).await;
    client
        .write_all(b"PROXY TCP4 192.0.2.1 10.0.0.1 5555 5000\r\n")
        .await
        .unwrap();
    assert_eq!(rest(&mut client).await.0, b"");
}

#[tokio::test]
async fn whoever_comes_the_proxy_goes_on() {
    let (n1, n2) = (Backend::start("n1").await, Backend::start("n2").await);
    let mut before = table(&n1);
    before.standbys = vec![standby(&n2, 0)];
    let rig = Rig::start(before).await;
    let (mut witness, _) = rig.client(Way::Primary).await;
    let addresses = [rig.address(Way::Primary), rig.address(Way::Standbys)];
    let hostile = |seed: u64| async move {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let address: SocketAddr = addresses[random.random_range(0..2)];
        let mut client = TcpStream::connect(address).await.unwrap();
        let starts = [
            vec![],
            startup(),
            ssl_request(),
            cancel_request(1),
            b"PROXY TCP4 ".to_vec(),
            vec![0x16, 3, 1],
            vec![0; 3],
        ];
        let mut bytes = starts[random.random_range(0..starts.len())].clone();
        bytes.extend((0..random.random_range(0..300)).map(|_| random.random::<u8>()));
        if random.random_bool(0.3) && !bytes.is_empty() {
            let at = random.random_range(0..bytes.len());
            bytes[at] ^= 1 << random.random_range(0..8);
        }
        let _ = client.write_all(&bytes).await;
        match random.random_range(0..3) {
            0 => {}
            1 => drop(client.set_zero_linger()),
            _ => {
                let _ = client.shutdown().await;
                let _ = rest(&mut client).await;
            }
        }
    };
    for round in 0..40 {
        let clients = (0..25).map(|i| tokio::spawn(hostile(round * 25 + i)));
        for client in clients.collect::<Vec<_>>() {
            client.await.unwrap();
        }
    }
    until("only the witness is left", || {
        rig.port(Way::Primary).open == 1 && rig.port(Way::Standbys).open == 0
    })
    .await;
    echo(&mut witness).await.unwrap();
    assert_eq!(rig.client(Way::Primary).await.1, "n1");
}

#[tokio::test]
async fn what_happens_is_counted() {
    let n1 = Backend::start("n1").await;
    let mut registry = Registry::default();
    let metrics = Metrics::registered(&mut registry);
    let (routes, seen) = tokio::sync::watch::channel(Arc::new(Routes {
        groups: [(
            "main".to_owned(),
            Table {
                wait: Duration::ZERO,
                ..table(&n1)
            },
        )]
        .into(),
    }));
    let settings = Settings {
        listen: [127, 0, 0, 1].into(),
        ..Settings::default()
    };
    let proxy = Proxy::new(settings, seen, metrics);
    let stop = tokio_util::sync::CancellationToken::new();
    let running = tokio::spawn(proxy.clone().run(stop.clone()));
    let text = || {
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    };
    let rig = || {
        proxy
            .status()
            .into_iter()
            .find(|p| p.way == Way::Primary)
            .and_then(|p| p.address)
    };
    until("it listens", || rig().is_some()).await;
    let mut client = TcpStream::connect(rig().unwrap()).await.unwrap();
    client.write_all(&startup()).await.unwrap();
    greeting(&mut client).await;
    echo(&mut client).await.unwrap();
    let mut wrong = TcpStream::connect(rig().unwrap()).await.unwrap();
    wrong.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    rest(&mut wrong).await;
    routes.send_modify(|r| Arc::make_mut(r).groups.get_mut("main").unwrap().steady = false);
    let mut vain = TcpStream::connect(rig().unwrap()).await.unwrap();
    vain.write_all(&startup()).await.unwrap();
    rest(&mut vain).await;
    let (sent, got) = (startup().len() + 4, "n1\n".len() + 4);
    for line in [
        r#"had_proxy_connections_open{group="main",port="primary"} 1"#.to_owned(),
        r#"had_proxy_connections_total{group="main",port="primary"} 1"#.to_owned(),
        r#"had_proxy_connections_waiting{group="main",port="standbys"} 0"#.to_owned(),
        r#"had_proxy_connections_refused_total{group="main",port="primary",reason="malformed"} 1"#.to_owned(),
        r#"had_proxy_connections_refused_total{group="main",port="primary",reason="no_server"} 1"#.to_owned(),
        format!(r#"had_proxy_bytes_total{{group="main",port="primary",direction="in"}} {sent}"#),
        format!(r#"had_proxy_bytes_total{{group="main",port="primary",direction="out"}} {got}"#),
    ] {
        until(&format!("{line}: {}", text()), || text().contains(&line)).await;
    }
    routes.send_modify(|r| Arc::make_mut(r).groups.get_mut("main").unwrap().primary = None);
    routes.send_modify(|r| {
        let table = Arc::make_mut(r).groups.get_mut("main").unwrap();
        table.primary = Some(super::super::routes::Server::default());
    });
    let cut = r#"had_proxy_connections_cut_total{group="main",port="primary"} 1"#;
    until("the cut is counted", || text().contains(cut)).await;
    // The proxy ends with everything on it.
    stop.cancel();
    tokio::time::timeout(PATIENCE, running).await.unwrap().unwrap();
    assert!(TcpStream::connect(("127.0.0.1", 1)).await.is_err());
    assert!(proxy.status().is_empty());
}
