//! A proxy on loopback, servers that are none, and clients that speak just enough.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::super::routes::{Ports, Routes, Server, Standby, StandbyState, Table, Way};
use super::super::{Metrics, PortStatus, Proxy, Settings};

/// A whole test ends within this time or fails.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for a condition.
pub(super) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "{what}");
}

/// A running proxy and the routes it follows.
pub(super) struct Rig {
    pub(super) routes: watch::Sender<Arc<Routes>>,
    pub(super) proxy: Proxy,
    stop: CancellationToken,
}

impl Rig {
    pub(super) async fn start(table: Table) -> Self {
        Self::with(Settings::default(), table).await
    }

    pub(super) async fn with(settings: Settings, table: Table) -> Self {
        let groups = [("main".to_owned(), table)].into();
        let (routes, seen) = watch::channel(Arc::new(Routes { groups }));
        let settings = Settings {
            listen: [127, 0, 0, 1].into(),
            ..settings
        };
        let proxy = Proxy::new(settings, seen, Metrics::default());
        let stop = CancellationToken::new();
        tokio::spawn(proxy.clone().run(stop.clone()));
        let rig = Self { routes, proxy, stop };
        until("it listens", || {
            rig.proxy.status().iter().filter(|p| p.address.is_some()).count() == 2
        })
        .await;
        rig
    }

    /// Changes the routes of the group.
    pub(super) fn set(&self, change: impl FnOnce(&mut Table)) {
        self.routes.send_modify(|routes| {
            change(Arc::make_mut(routes).groups.get_mut("main").unwrap());
        });
    }

    pub(super) fn port(&self, way: Way) -> PortStatus {
        self.proxy.status().into_iter().find(|p| p.way == way).unwrap()
    }

    pub(super) fn port_counts(&self, way: Way) -> super::super::metrics::Counts {
        let gates = self.proxy.gates();
        gates[&("main".to_owned(), way)].port.counts.clone()
    }

    pub(super) fn address(&self, way: Way) -> SocketAddr {
        self.port(way).address.unwrap()
    }

    /// A connection that has said nothing yet.
    pub(super) async fn dial(&self, way: Way) -> TcpStream {
        TcpStream::connect(self.address(way)).await.unwrap()
    }

    /// A client that has sent its first packet.
    pub(super) async fn knock(&self, way: Way) -> TcpStream {
        let mut client = self.dial(way).await;
        client.write_all(&startup()).await.unwrap();
        client
    }

    /// A client and the name of the server it was led to.
    pub(super) async fn client(&self, way: Way) -> (TcpStream, String) {
        let mut client = self.knock(way).await;
        let server = greeting(&mut client).await;
        (client, server)
    }

    /// Waits until nobody is connected.
    pub(super) async fn empty(&self) {
        until("everybody has gone", || {
            self.proxy.status().iter().all(|p| p.open == 0 && p.waiting == 0)
        })
        .await;
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Ephemeral ports, steady, with this primary.
pub(super) fn table(primary: &Backend) -> Table {
    Table {
        epoch: 1,
        steady: true,
        timeline: 1,
        primary: Some(primary.server()),
        ports: Ports {
            primary: Some(0),
            standbys: Some(0),
        },
        wait: PATIENCE,
        ..Table::default()
    }
}

pub(super) fn standby(backend: &Backend, lag: u64) -> Standby {
    Standby {
        server: backend.server(),
        state: StandbyState::Streaming,
        timeline: 1,
        lag: Some(lag),
        ..Standby::default()
    }
}

pub(super) fn packet(code: (u16, u16), rest: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(rest.len() + 8).unwrap().to_be_bytes().to_vec();
    bytes.extend(code.0.to_be_bytes());
    bytes.extend(code.1.to_be_bytes());
    bytes.extend(rest);
    bytes
}

pub(super) fn startup() -> Vec<u8> {
    packet((3, 0), b"user\0app\0\0")
}

pub(super) fn ssl_request() -> Vec<u8> {
    packet((1234, 5679), b"")
}

pub(super) fn cancel_request(key: u8) -> Vec<u8> {
    packet((1234, 5678), &[key; 8])
}

/// A server's greeting: its name.
pub(super) async fn greeting(client: &mut TcpStream) -> String {
    let mut name = String::new();
    let read = async {
        loop {
            match client.read_u8().await.expect("a greeting") {
                b'\n' => return,
                byte => name.push(char::from(byte)),
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("a greeting in time");
    name
}

/// Sends a word and hears it back.
pub(super) async fn echo(client: &mut TcpStream) -> std::io::Result<()> {
    client.write_all(b"ping").await?;
    let mut back = [0; 4];
    tokio::time::timeout(PATIENCE, client.read_exact(&mut back)).await??;
    assert_eq!(&back, b"ping");
    Ok(())
}

/// All that comes until the connection ends, and whether it ended well.
pub(super) async fn rest(client: &mut TcpStream) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, client.read_to_end(&mut all)).await;
    (all, ended.expect("it ends in time").is_ok())
}

/// A server that greets with its name and echoes. It declines to encrypt, and notes what it is asked to cancel.
pub(super) struct Backend {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    pub(super) log: Arc<Mutex<Vec<String>>>,
    pub(super) accepted: Arc<AtomicUsize>,
    stop: CancellationToken,
}

impl Backend {
    pub(super) async fn start(name: &str) -> Self {
        Self::at(name, "127.0.0.1:0".parse().unwrap()).await
    }

    pub(super) async fn at(name: &str, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let backend = Self {
            name: name.to_owned(),
            address: listener.local_addr().unwrap(),
            log: Arc::default(),
            accepted: Arc::default(),
            stop: CancellationToken::new(),
        };
        let (log, accepted, stop) = (backend.log.clone(), backend.accepted.clone(), backend.stop.clone());
        let name = backend.name.clone();
        tokio::spawn(async move {
            while let Some(Ok((client, _))) = stop.run_until_cancelled(listener.accept()).await {
                accepted.fetch_add(1, Ordering::Relaxed);
                let (log, name, stop) = (log.clone(), name.clone(), stop.clone());
                tokio::spawn(async move { stop.run_until_cancelled(converse(client, name, log)).await });
            }
        });
        backend
    }

    pub(super) fn server(&self) -> Server {
        Server {
            node: self.name.clone(),
            address: self.address.to_string(),
            ..Server::default()
        }
    }

    pub(super) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn converse(mut client: TcpStream, name: String, log: Arc<Mutex<Vec<String>>>) -> std::io::Result<()> {
    loop {
        let length = client.read_u32().await?;
        let code = (client.read_u16().await?, client.read_u16().await?);
        let mut body = vec![0; length as usize - 8];
        client.read_exact(&mut body).await?;
        match code {
            (1234, 5678) => {
                log.lock().unwrap().push(format!("cancel {}", body[0]));
                return Ok(());
            }
            (1234, _) => {
                log.lock().unwrap().push("asked to encrypt".to_owned());
                client.write_all(b"N").await?;
            }
            _ => break,
        }
    }
    log.lock().unwrap().push("session".to_owned());
    client.write_all(format!("{name}\n").as_bytes()).await?;
    let (mut from, mut to) = client.split();
    tokio::io::copy(&mut from, &mut to).await?;
    to.shutdown().await
}
