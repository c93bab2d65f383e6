//! The proxy on every node: leads a group's clients to its primary or its standbys, wherever those are.
//!
//! It copies bytes and knows no passwords. It never chooses a primary: it follows the routes, holds new clients while there
//! is none, and cuts off whoever is still connected to a former one.

mod cancel;
mod header;
pub mod local;
mod metrics;
mod opening;
mod port;
mod relay;
mod report;
pub mod routes;
mod session;
#[cfg(test)]
mod tests;
mod workers;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

pub use header::Network;
pub use metrics::Metrics;
use port::Port;
pub use report::Reporter;
use routes::{Ports, Routes, RoutesRx, Way};
use workers::Workers;

use crate::platform::socket;

/// Between two attempts to listen on a port that is taken.
const BIND_AGAIN: Duration = Duration::from_secs(1);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Descriptors that everything but the proxy may take.
const OTHER_FILES: u64 = 1024;
/// Between two log lines of the same kind.
const QUIET: Duration = Duration::from_secs(5);

/// How this node's proxy is set up. What concerns a group is in the group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Whether there is one on this node.
    pub enabled: bool,
    /// The address it listens on.
    pub listen: IpAddr,
    /// Other ports on this node than the group's own.
    pub ports: BTreeMap<String, Ports>,
    /// Clients at once, at each port.
    pub max_connections: usize,
    /// Threads that copy.
    pub threads: usize,
    /// From where connections begin with a PROXY header.
    pub proxy_protocol_from: Vec<Network>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            listen: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            ports: BTreeMap::new(),
            max_connections: 2000,
            threads: 2,
            proxy_protocol_from: Vec::new(),
        }
    }
}

/// One port, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortStatus {
    /// The group.
    pub group: String,
    /// Which of its ports.
    pub way: Way,
    /// Where it listens; none: it does not.
    pub address: Option<SocketAddr>,
    /// Why it does not.
    pub error: Option<String>,
    /// Clients that are connected, with those that wait.
    pub open: u64,
    /// Clients that wait for a server.
    pub waiting: u64,
}

/// The proxy of one node. Cheap to clone; what is served is decided by the routes alone.
#[derive(Clone)]
pub struct Proxy {
    settings: Arc<Settings>,
    routes: RoutesRx,
    metrics: Metrics,
    gates: Arc<Mutex<Gates>>,
}

type Gates = BTreeMap<(String, Way), Gate>;

/// A port and whether it is listened on.
struct Gate {
    port: Arc<Port>,
    /// The port number that is wanted.
    wanted: u16,
    listening: Result<Listening, String>,
    tried: Instant,
}

/// Ends the listener when it is dropped; who is connected stays.
struct Listening {
    address: SocketAddr,
    stop: CancellationToken,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Proxy {
    /// A proxy that follows these routes, once it is [run](Self::run).
    pub fn new(settings: Settings, routes: RoutesRx, metrics: Metrics) -> Self {
        Self {
            settings: Arc::new(settings),
            routes,
            metrics,
            gates: Arc::default(),
        }
    }

    /// Its ports, sorted by group.
    pub fn status(&self) -> Vec<PortStatus> {
        let number = |n: i64| u64::try_from(n).unwrap_or_default();
        let gates = self.gates();
        let status = gates.iter().map(|((group, way), gate)| PortStatus {
            group: group.clone(),
            way: *way,
            address: gate.listening.as_ref().ok().map(|l| l.address),
            error: gate.listening.as_ref().err().cloned(),
            open: number(gate.port.counts.open.get()),
            waiting: number(gate.port.counts.waiting.get()),
        });
        status.collect()
    }

    /// Serves until `stop`; then every connection is closed.
    pub async fn run(self, stop: CancellationToken) {
        let mut routes = self.routes.clone();
        // A node that leads nobody anywhere needs no threads.
        let (mut workers, mut most) = (None, 0);
        let ending = stop.child_token();
        let _end = ending.clone().drop_guard();
        loop {
            let now = routes.borrow_and_update().clone();
            let wanted = self.wanted(&now);
            if wanted.len() > most {
                most = wanted.len();
                self.make_room(most);
            }
            if workers.is_none() && !wanted.is_empty() {
                match Workers::start(self.settings.threads, &ending) {
                    Ok(started) => workers = Some(started),
                    Err(e) => tracing::error!("the proxy's threads cannot be started: {e}; trying again"),
                }
            }
            let complete = workers
                .as_ref()
                .map_or(wanted.is_empty(), |w| self.follow(wanted, w, &ending));
            tokio::select! {
                () = stop.cancelled() => break,
                changed = routes.changed() => if changed.is_err() { break },
                () = tokio::time::sleep(BIND_AGAIN), if !complete => {}
            }
        }
        self.gates().clear();
    }

    /// Each client takes two descriptors, and all ports may be full at once.
    fn make_room(&self, ports: usize) {
        let wanted = OTHER_FILES + (2 * ports * self.settings.max_connections) as u64;
        let room = socket::room_for_files(wanted);
        if room < wanted {
            tracing::warn!(
                "this process may have {room} open files, and {wanted} would be needed for max_connections at every port: \
                 raise LimitNOFILE"
            );
        }
    }

    fn gates(&self) -> MutexGuard<'_, Gates> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ports that the routes and this node's settings ask for.
    fn wanted(&self, routes: &Routes) -> BTreeMap<(String, Way), u16> {
        let groups = routes.groups.iter().filter(|_| self.settings.enabled);
        groups
            .flat_map(|(group, table)| {
                let ports = self.settings.ports.get(group).copied().unwrap_or(table.ports);
                let primary = ports.primary.map(|p| ((group.clone(), Way::Primary), p));
                primary
                    .into_iter()
                    .chain(ports.standbys.map(|p| ((group.clone(), Way::Standbys), p)))
            })
            .collect()
    }

    /// Opens, moves and closes ports and cuts who is connected to the wrong server. False if a port could not be opened.
    fn follow(&self, wanted: BTreeMap<(String, Way), u16>, workers: &Workers, stop: &CancellationToken) -> bool {
        let mut gates = self.gates();
        gates.retain(|key, gate| {
            gate.port.enforce();
            let stays = wanted.contains_key(key);
            if !stays {
                tracing::info!(group = %key.0, port = key.1.word(), "the proxy serves this port no longer");
                self.metrics.forget(&key.0, key.1);
            }
            stays
        });
        let mut complete = true;
        for ((group, way), number) in wanted {
            let gate = gates.entry((group.clone(), way)).or_insert_with(|| Gate {
                port: Arc::new(Port::new(
                    &group,
                    way,
                    self.routes.clone(),
                    &self.metrics,
                    self.settings.proxy_protocol_from.clone().into(),
                    self.settings.max_connections,
                )),
                wanted: number,
                listening: Err(String::new()),
                tried: Instant::now(),
            });
            let moved = gate.wanted != number;
            let first = gate.listening.as_ref().is_err_and(String::is_empty);
            if moved || first || gate.listening.is_err() && gate.tried.elapsed() >= BIND_AGAIN {
                (gate.wanted, gate.tried) = (number, Instant::now());
                let address = SocketAddr::new(self.settings.listen, number);
                let opened = open(address, &gate.port, workers, stop);
                match (&opened, &gate.listening) {
                    (Ok(l), _) => {
                        tracing::info!(group = %group, port = way.word(), address = %l.address, "the proxy listens");
                    }
                    (Err(e), Err(before)) if e == before => {}
                    (Err(e), _) => {
                        tracing::error!(group = %group, port = way.word(), "the proxy cannot listen on {address}: {e}");
                    }
                }
                gate.listening = opened;
            }
            complete &= gate.listening.is_ok();
        }
        complete
    }
}

/// Listens, and serves who comes.
fn open(
    address: SocketAddr,
    port: &Arc<Port>,
    workers: &Workers,
    stop: &CancellationToken,
) -> Result<Listening, String> {
    let listener = socket::listen(address).map_err(|e| e.to_string())?;
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    let stop = stop.child_token();
    let (port, on, until) = (port.clone(), workers.clone(), stop.clone());
    workers.spawn(async move {
        if let Ok(listener) = TcpListener::from_std(listener) {
            tokio::select! {
                () = until.cancelled() => {}
                () = accept(listener, port, on) => {}
            }
        }
    });
    Ok(Listening { address, stop })
}

async fn accept(listener: TcpListener, port: Arc<Port>, workers: Workers) {
    loop {
        let accepted = listener
            .accept()
            .await
            .and_then(|(stream, peer)| Ok((stream.into_std()?, peer)));
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                if let Some(more) = port.told.may() {
                    tracing::warn!(group = %port.group, like_it = more, "a connection cannot be accepted: {e}");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let here = port.clone();
        match port.room.clone().try_acquire_owned() {
            Ok(place) => workers.spawn(async move {
                if let Ok(stream) = TcpStream::from_std(stream) {
                    session::serve(here, stream, peer).await;
                }
                drop(place);
            }),
            Err(_) => {
                port.counts.refuse(metrics::Refused::Full);
                if let Some(more) = port.told.may() {
                    tracing::warn!(group = %port.group, port = port.way.word(), like_it = more, "all connections are in use");
                }
                if let Ok(place) = port.polite.clone().try_acquire_owned() {
                    workers.spawn(async move {
                        if let Ok(stream) = TcpStream::from_std(stream) {
                            session::turn_away(here, stream, peer).await;
                        }
                        drop(place);
                    });
                }
            }
        }
    }
}

/// Keeps what anybody can cause from filling the log.
#[derive(Default)]
struct Quiet(Mutex<(Option<Instant>, u64)>);

impl Quiet {
    /// Whether it may be told now; if so, how often it was not.
    fn may(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0.is_some_and(|last| last.elapsed() < QUIET) {
            state.1 += 1;
            return None;
        }
        state.0 = Some(Instant::now());
        Some(std::mem::take(&mut state.1))
    }
}
