//! The road between the client crate and the servers: a relay on loopback that is the only server the crate knows.
//!
//! Left to itself the crate connects in a tight loop to a server that closes at once (any server without a quorum),
//! waits minutes on a host that swallows packets, takes two session timeouts to leave a frozen server, begins a *new*
//! session silently where the old one expired, and carries out requests that were queued while there was no connection.
//! The relay chooses the server, paces the attempts, cuts a connection that has fallen silent, ends the session where
//! the crate would replace it, and passes no request on before the connection has been given its identity.
//!
//! It must never connect the session to a server that grants another timeout, nor answer anyone but the session's own
//! client.

use std::collections::BTreeMap;
use std::future::pending;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::super::session::SessionCell;
use super::super::{CoordError, Result};
use super::probe::{check_granted, negotiate, unreachable};
use super::wire::{self, ConnectRequest, ConnectResponse};

/// Time between two rounds over the servers, and between two connections.
const PACE: Duration = Duration::from_millis(200);

/// How long a new local connection may take to say what it wants.
const GREETING: Duration = Duration::from_millis(500);

/// How long the server may take to confirm that a session is closed.
const CLOSING: Duration = Duration::from_secs(1);

const BUFFER: usize = 16 * 1024;

/// What the relay tells the session.
#[derive(Debug)]
pub(super) enum RelayEvent {
    /// Connection number n stands; it carries nothing before the identity was sent on it.
    Connected(u64),
    /// The connection broke.
    Disconnected,
    /// Every server was tried in vain for a new session.
    NoServer(CoordError),
    /// The session is over.
    Over(String),
}

pub(super) struct Relay {
    hosts: Vec<String>,
    session_timeout: Duration,
    cell: Arc<SessionCell>,
    events: mpsc::UnboundedSender<RelayEvent>,
    state: Mutex<State>,
    cut: Notify,
    closing: AtomicBool,
    drained: Notify,
}

struct State {
    /// The next server to try.
    next: usize,
    /// Attempts in vain since the last connection.
    failed: usize,
    failures: BTreeMap<String, CoordError>,
    not_before: Instant,
    /// Id and password of the session, once it exists.
    session: Option<(i64, Vec<u8>)>,
    connection: u64,
    /// The server connected to.
    host: Option<String>,
}

impl Relay {
    pub(super) fn new(
        hosts: Vec<String>,
        first: usize,
        session_timeout: Duration,
        cell: Arc<SessionCell>,
    ) -> (Arc<Relay>, mpsc::UnboundedReceiver<RelayEvent>) {
        let (events, receiver) = mpsc::unbounded_channel();
        let state = State {
            next: first,
            failed: 0,
            failures: BTreeMap::new(),
            not_before: Instant::now(),
            session: None,
            connection: 0,
            host: None,
        };
        let relay = Relay {
            hosts,
            session_timeout,
            cell,
            events,
            state: Mutex::new(state),
            cut: Notify::new(),
            closing: AtomicBool::new(false),
            drained: Notify::new(),
        };
        (Arc::new(relay), receiver)
    }

    /// The session's id, once it exists.
    pub(super) fn session_id(&self) -> Option<i64> {
        self.lock().session.as_ref().map(|(id, _)| *id)
    }

    /// Whether connection number `n` still stands.
    pub(super) fn stands(&self, n: u64) -> bool {
        let state = self.lock();
        state.connection == n && state.host.is_some()
    }

    /// The server connected to.
    pub(super) fn host(&self) -> Option<String> {
        self.lock().host.clone()
    }

    /// The number of the present connection.
    pub(super) fn connection(&self) -> u64 {
        self.lock().connection
    }

    /// Why servers could not be used, each by name.
    pub(super) fn complaint(&self) -> CoordError {
        complaint(self.lock().failures.values())
    }

    /// Cuts connection number `n`, so that the next server is tried.
    pub(super) fn cut(&self, n: u64) {
        if self.stands(n) {
            self.cut.notify_one();
        }
    }

    /// From now on the end of the client's side is the closing of the session, to be confirmed by the server.
    pub(super) fn begin_closing(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    /// Whether the session is being closed.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Waits until the closing is confirmed, or cannot be.
    pub(super) async fn closed(&self) {
        let _ = timeout(CLOSING, self.drained.notified()).await;
    }

    /// Serves the session's client until dropped.
    pub(super) async fn serve(self: Arc<Self>, listener: TcpListener) {
        let mut greetings = FuturesUnordered::new();
        let mut carried: Option<Pin<Box<dyn Future<Output = ()> + Send>>> = None;
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    // Who else on this machine connects here is let wait a moment, and no more than a few of them.
                    Ok((stream, _)) if greetings.len() < 8 => greetings.push(self.greet(stream)),
                    Ok(_) => {}
                    Err(_) => sleep(PACE).await,
                },
                Some(greeted) = greetings.next(), if !greetings.is_empty() => {
                    if let Some((stream, request, frame)) = greeted {
                        self.dropped();
                        let relay = self.clone();
                        carried = Some(Box::pin(async move { relay.carry(stream, request, frame).await }));
                    }
                }
                () = async { match &mut carried { Some(c) => c.await, None => pending().await } } => carried = None,
            }
        }
    }

    /// Hears what a new local connection wants; `None` unless it is this session's client.
    async fn greet(&self, mut stream: TcpStream) -> Option<(TcpStream, ConnectRequest, Vec<u8>)> {
        stream.set_nodelay(true).ok()?;
        let body = timeout(GREETING, wire::read_frame(&mut stream)).await.ok()?.ok()?;
        let request = ConnectRequest::parse(&body)?;
        let ours = match &self.lock().session {
            Some((id, password)) => request.session == *id && request.password == *password,
            None => request.session == 0,
        };
        ours.then(|| (stream, request, wire::framed(&body)))
    }

    /// Finds a server for the client's connection and carries it to its end.
    async fn carry(&self, mut client: TcpStream, request: ConnectRequest, frame: Vec<u8>) {
        let Some((server, response)) = self.find(&request, &frame).await else {
            // The client must not come again at once: its session is over, or there is no server for it.
            return pending().await;
        };
        if client.write_all(&response).await.is_ok() {
            let n = self.connection();
            let _ = self.events.send(RelayEvent::Connected(n));
            tokio::select! {
                () = self.pump(client, server) => {}
                () = self.cut.notified() => tracing::info!(connection = n, "the ZooKeeper connection was given up"),
            }
        }
        self.dropped();
        if self.is_closing() {
            self.drained.notify_one();
        }
    }

    /// A server took the session.
    fn connected(&self, host: String, response: ConnectResponse) {
        let mut state = self.lock();
        state.failed = 0;
        state.failures.clear();
        state.not_before = Instant::now() + PACE;
        state.session = Some((response.session, response.password));
        state.connection += 1;
        state.host = Some(host);
    }

    /// The connection is no more.
    fn dropped(&self) {
        let host = self.lock().host.take();
        if host.is_some() {
            self.cell.suspend();
            let _ = self.events.send(RelayEvent::Disconnected);
        }
    }

    /// Tries the servers in turn until one takes the session; `None` when there is nothing more to try for.
    async fn find(&self, request: &ConnectRequest, frame: &[u8]) -> Option<(TcpStream, Vec<u8>)> {
        loop {
            let (host, wait) = {
                let mut state = self.lock();
                let host = self.hosts.get(state.next % self.hosts.len().max(1))?.clone();
                state.next = state.next.wrapping_add(1);
                let round = state.failed > 0 && state.failed.is_multiple_of(self.hosts.len());
                (
                    host,
                    if round {
                        state.not_before.max(Instant::now() + PACE)
                    } else {
                        state.not_before
                    },
                )
            };
            sleep_until(wait).await;
            let limit = (self.session_timeout / 4).min(Duration::from_millis(1500));
            let failure = match timeout(limit, self.attempt(&host, request, frame)).await {
                Ok(Ok((stream, body, response))) => {
                    self.connected(host, response);
                    // A cut that was meant for an earlier connection is not for this one.
                    let _ = timeout(Duration::ZERO, self.cut.notified()).await;
                    return Some((stream, wire::framed(&body)));
                }
                Ok(Err(CoordError::SessionLost(why))) => {
                    let _ = self.events.send(RelayEvent::Over(why));
                    return None;
                }
                Ok(Err(e)) => e,
                Err(_) => CoordError::Unavailable(format!("{host}: no answer within {:.1} s", limit.as_secs_f64())),
            };
            tracing::debug!(host, error = %failure, "no session from this ZooKeeper server");
            let mut state = self.lock();
            state.failed += 1;
            state.failures.insert(host, failure);
            if request.session == 0 && state.failures.len() == self.hosts.len() {
                let _ = self
                    .events
                    .send(RelayEvent::NoServer(complaint(state.failures.values())));
                return None;
            }
        }
    }

    /// Tries one server.
    async fn attempt(
        &self,
        host: &str,
        request: &ConnectRequest,
        frame: &[u8],
    ) -> Result<(TcpStream, Vec<u8>, ConnectResponse)> {
        // The server sets the session's expiry by its own limits as soon as it takes it over: it is asked beforehand.
        if request.session != 0 {
            let (granted, _) = negotiate(host, self.session_timeout).await?;
            check_granted(host, self.session_timeout, granted)?;
        }
        let mut stream = TcpStream::connect(host).await.map_err(|e| unreachable(host, &e))?;
        let body = async {
            stream.set_nodelay(true)?;
            stream.write_all(frame).await?;
            wire::read_frame(&mut stream).await
        };
        let body = body.await.map_err(|e| unreachable(host, &e))?;
        let Some(response) = ConnectResponse::parse(&body) else {
            return Err(CoordError::Unavailable(format!("{host}: not a ZooKeeper server")));
        };
        if request.session != 0 && (response.timeout_ms <= 0 || response.session != request.session) {
            return Err(CoordError::SessionLost(format!("it expired, says {host}")));
        }
        let granted = Duration::from_millis(u64::try_from(response.timeout_ms).unwrap_or(0));
        if let Err(e) = check_granted(host, self.session_timeout, granted) {
            if request.session == 0 {
                let _ = stream.write_all(&wire::close_frame()).await;
                let _ = wire::read_frame(&mut stream).await;
            }
            return Err(e);
        }
        Ok((stream, body, response))
    }

    /// Carries bytes both ways until either side ends or the server falls silent over a request.
    async fn pump(&self, mut client: TcpStream, mut server: TcpStream) {
        let limit = self.session_timeout / 3;
        let Ok(first) = gate(&mut client).await else { return };
        if !matches!(timeout(limit, server.write_all(&first)).await, Ok(Ok(()))) {
            return;
        }
        // Since when requests wait for any byte of the server.
        let waiting = Mutex::new(Some(Instant::now()));
        let lock = || waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = Notify::new();
        let (mut client_read, mut client_write) = client.split();
        let (mut server_read, mut server_write) = server.split();
        let up = async {
            let mut buffer = vec![0; BUFFER];
            loop {
                match client_read.read(&mut buffer).await {
                    Ok(n) if n > 0 => {
                        lock().get_or_insert_with(Instant::now);
                        begun.notify_one();
                        if server_write.write_all(&buffer[..n]).await.is_err() {
                            return;
                        }
                    }
                    _ if self.is_closing() => return pending().await,
                    _ => return,
                }
            }
        };
        let down = async {
            let mut buffer = vec![0; BUFFER];
            while let Ok(n) = server_read.read(&mut buffer).await {
                *lock() = None;
                // A client that has gone after closing its session takes no more replies; the server's end is waited
                // for.
                let written = n > 0 && client_write.write_all(&buffer[..n]).await.is_ok();
                if n == 0 || (!written && !self.is_closing()) {
                    return;
                }
            }
        };
        let silent = async {
            loop {
                let since = *lock();
                match since {
                    None => begun.notified().await,
                    Some(at) => {
                        sleep_until(at + limit).await;
                        if *lock() == Some(at) {
                            return;
                        }
                    }
                }
            }
        };
        tokio::select! {
            () = up => {}
            () = down => {}
            () = silent => tracing::warn!(host = self.host(), "the ZooKeeper server fell silent"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses what the client sends until it sends its identity; returns that and what follows.
///
/// Such requests were queued in the client before the connection was made: their callers have been told that the
/// outcome is unknown, or will be now, and none may be carried out later.
async fn gate(client: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut buffered = Vec::new();
    let mut chunk = vec![0; BUFFER];
    loop {
        while let Some(body) = wire::take_frame(&mut buffered)? {
            match wire::request_header(&body) {
                Some((_, wire::OP_AUTH)) => {
                    let mut first = wire::framed(&body);
                    first.append(&mut buffered);
                    return Ok(first);
                }
                Some((xid, _)) => client.write_all(&wire::refusal(xid)).await?,
                None => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        let n = client.read(&mut chunk).await?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffered.extend_from_slice(&chunk[..n]);
    }
}

/// One error for all servers: what is misconfigured goes before what is merely away.
fn complaint<'a>(failures: impl Iterator<Item = &'a CoordError> + Clone) -> CoordError {
    if let Some(e) = failures.clone().find(|e| matches!(e, CoordError::Misconfigured(_))) {
        return e.clone();
    }
    let each: Vec<String> = failures
        .map(|e| match e {
            CoordError::Unavailable(why) => why.clone(),
            e => e.to_string(),
        })
        .collect();
    CoordError::Unavailable(if each.is_empty() {
        "no server was tried yet".into()
    } else {
        each.join("; ")
    })
}
