//! One client: its first words, the wait for a server, the way there, and the end.
//!
//! Until it is led on, a client costs a socket and a few bytes, whoever it is; every wait has a limit and ends when the
//! client goes away.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::cancel;
use super::header::{self, Header};
use super::metrics::{One, Refused};
use super::opening::{self, Opening};
use super::port::{Port, Seat};
use super::relay::{End, relay};
use super::routes::Way;
use crate::platform::socket;

/// Time for a client's first packet.
const OPENING: Duration = Duration::from_secs(30);
/// Time for a server to take a connection, and what it is sent first.
const DIAL: Duration = Duration::from_secs(2);
/// Time for a server to say whether it encrypts.
const ANSWER: Duration = Duration::from_secs(30);
/// Time for a client to take what it is told last.
const FAREWELL: Duration = Duration::from_secs(3);
/// Between two attempts to reach a server that cannot be reached.
const MIN_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_millis(250);
/// What is made room for at first: most first packets are smaller.
const ROOM: usize = 512;

/// A client that was accepted.
pub(super) struct Client {
    stream: TcpStream,
    /// Where it comes from, as the proxy before us says if there is one.
    from: SocketAddr,
    /// What it sent and nobody was given yet.
    held: Vec<u8>,
}

/// Why a client is not served.
enum Bad {
    /// It went away.
    Gone,
    /// It sent what no client sends.
    Malformed(&'static str),
}

/// Why a client was led nowhere.
enum Nowhere {
    /// It went away, or the daemon ends.
    Gone,
    /// Time ran out: what happened, and a hint.
    TimeUp(String, String),
}

/// Serves a client to its end.
pub(super) async fn serve(port: Arc<Port>, stream: TcpStream, peer: SocketAddr) {
    let open = One::of(&port.counts.open);
    let _ = socket::tune(&stream);
    let mut client = Client {
        stream,
        from: peer,
        held: Vec::new(),
    };
    match timeout(OPENING, client.begin(&port)).await {
        Ok(Ok(opening)) => Box::pin(lead(&port, client, opening)).await,
        // Health checks connect and go.
        Ok(Err(Bad::Gone)) => {}
        Ok(Err(Bad::Malformed(why))) => malformed(&port, &client, why),
        Err(_) => malformed(&port, &client, "it said nothing in time"),
    }
    drop(open);
}

/// Tells a client for which there is no room so, as far as it listens.
pub(super) async fn turn_away(port: Arc<Port>, stream: TcpStream, peer: SocketAddr) {
    let mut client = Client {
        stream,
        from: peer,
        held: Vec::new(),
    };
    if let Ok(Ok(_)) = timeout(FAREWELL, client.begin(&port)).await {
        let message = format!("too many connections through the proxy of group {}", port.group);
        let hint = "max_connections in section [proxy] of had.toml is the limit of each port of a node";
        client.refuse(opening::TOO_MANY_CONNECTIONS, &message, hint).await;
    }
}

fn malformed(port: &Port, client: &Client, why: &str) {
    port.counts.refuse(Refused::Malformed);
    if let Some(more) = port.told.may() {
        tracing::warn!(
            group = %port.group, port = port.way.word(), client = %client.from, like_it = more,
            "a connection is closed: {why}"
        );
    }
}

/// From the first packet on.
async fn lead(port: &Arc<Port>, mut client: Client, mut opening: Opening) {
    if let Opening::Cancel(length) = opening {
        return cancel::pass(port, &client.held[..length]).await;
    }
    let (mut server, seat) = match connect(port, &mut client).await {
        Ok(led) => led,
        Err(Nowhere::Gone) => return,
        Err(Nowhere::TimeUp(message, hint)) => {
            port.counts.refuse(Refused::NoServer);
            if let Some(more) = port.told.may() {
                tracing::warn!(
                    group = %port.group, port = port.way.word(), client = %client.from, like_it = more,
                    "a client waited in vain: {message}"
                );
            }
            return client.refuse(opening::CANNOT_CONNECT_NOW, &message, &hint).await;
        }
    };
    port.counts.total.inc();
    loop {
        port.counts.to_server.add(client.held.len());
        let sent = async {
            server.write_all(&client.held).await?;
            // Bytes behind the question are the server's to judge; so is everything once it has said yes.
            let asks = opening == Opening::Encryption && client.held.len() == 8 && port.way == Way::Standbys;
            client.held = Vec::new();
            Ok::<_, io::Error>(asks)
        };
        let asks = tokio::select! {
            () = seat.cut.wait() => return,
            sent = timeout(DIAL, sent) => matches!(sent, Ok(Ok(true))),
        };
        // Of several standbys only one knows the query that is to be cancelled, and the request may come in the clear
        // after the server declined to encrypt.
        if !asks {
            break;
        }
        let next = async {
            let answer = timeout(ANSWER, server.read_u8()).await.ok()?.ok()?;
            timeout(DIAL, client.stream.write_u8(answer)).await.ok()?.ok()?;
            port.counts.to_client.add(1);
            if answer != b'N' {
                return Some(None);
            }
            match timeout(OPENING, client.packet()).await {
                Ok(Ok(opening)) => Some(Some(opening)),
                Ok(Err(Bad::Gone)) => None,
                Ok(Err(Bad::Malformed(why))) => {
                    malformed(port, &client, why);
                    None
                }
                Err(_) => None,
            }
        };
        let next = tokio::select! {
            () = seat.cut.wait() => return,
            next = next => next,
        };
        match next {
            None => return,
            Some(None) => break,
            Some(Some(Opening::Cancel(length))) => {
                drop((server, seat));
                return cancel::pass(port, &client.held[..length]).await;
            }
            Some(Some(next)) => opening = next,
        }
    }
    let end = relay(
        &mut client.stream,
        &mut server,
        &seat.cut,
        &port.counts.to_server,
        &port.counts.to_client,
    )
    .await;
    match end {
        End::Closed => {}
        End::Cut => tracing::debug!(group = %port.group, client = %client.from, server = seat.address(), "cut"),
        End::Client(e) => tracing::debug!(group = %port.group, client = %client.from, "the client broke off: {e}"),
        End::Server(e) => tracing::debug!(group = %port.group, server = seat.address(), "the server broke off: {e}"),
    }
}

/// A connection to a server that the routes name, when there is one.
async fn connect(port: &Arc<Port>, client: &mut Client) -> Result<(TcpStream, Seat), Nowhere> {
    let deadline = Instant::now() + port.patience();
    let mut routes = port.routes.clone();
    let (mut waiting, mut pause) = (None, MIN_PAUSE);
    let mut avoid: Vec<String> = Vec::new();
    let mut failed: Option<String> = None;
    loop {
        routes.mark_unchanged();
        let taken = port.take(&avoid);
        let has_server = taken.is_some();
        if let Some((seat, servers)) = taken {
            let dialled = tokio::select! {
                biased;
                () = seat.cut.wait() => continue,
                dialled = timeout(DIAL, TcpStream::connect(seat.address())) => dialled,
                () = client.gone() => return Err(Nowhere::Gone),
                () = sleep_until(deadline) => return Err(time_up(port, failed)),
            };
            let error = match dialled {
                Ok(Ok(server)) if port.still(&seat) => {
                    let _ = socket::tune(&server);
                    return Ok((server, seat));
                }
                Ok(Ok(_)) => continue,
                Ok(Err(e)) => e.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            failed = Some(format!("{} at {}: {error}", seat.node(), seat.address()));
            avoid.push(seat.address().to_owned());
            if avoid.len() < servers {
                continue;
            }
            avoid.clear();
        }
        let _ = waiting.get_or_insert_with(|| One::of(&port.counts.waiting));
        tokio::select! {
            changed = routes.changed() => match changed {
                Ok(()) if has_server => {}
                Ok(()) => pause = MIN_PAUSE,
                Err(_) => return Err(Nowhere::Gone),
            },
            () = sleep(pause), if has_server => pause = (pause * 2).min(MAX_PAUSE),
            () = client.gone() => return Err(Nowhere::Gone),
            () = sleep_until(deadline) => return Err(time_up(port, failed)),
        }
    }
}

fn time_up(port: &Port, failed: Option<String>) -> Nowhere {
    let routes = port.routes.borrow();
    let (mut message, hint) = match routes.groups.get(&port.group) {
        Some(table) => table.why_not(&port.group, port.way),
        None => (format!("there is no group {}", port.group), "hactl db list".to_owned()),
    };
    if let Some(failed) = failed {
        message = format!("{message} ({failed})");
    }
    Nowhere::TimeUp(message, hint)
}

impl Client {
    /// Reads until it is known what the client wants, past the header of a proxy that we trust.
    async fn begin(&mut self, port: &Port) -> Result<Opening, Bad> {
        if port.trusted.iter().any(|n| n.contains(self.from.ip())) {
            loop {
                match header::read(&self.held) {
                    Header::Incomplete => self.more().await?,
                    Header::Malformed(why) => return Err(Bad::Malformed(why)),
                    Header::Is(source, length) => {
                        self.held.drain(..length);
                        self.from = source.unwrap_or(self.from);
                        break;
                    }
                }
            }
        }
        self.packet().await
    }

    /// Reads until it is known what the next packet is.
    async fn packet(&mut self) -> Result<Opening, Bad> {
        loop {
            match opening::look(&self.held) {
                Opening::Incomplete => self.more().await?,
                Opening::Malformed(why) => return Err(Bad::Malformed(why)),
                opening => return Ok(opening),
            }
        }
    }

    async fn more(&mut self) -> Result<(), Bad> {
        if self.held.len() >= opening::MAX_READ {
            return Err(Bad::Malformed("its first packet is too long"));
        }
        self.held.reserve(ROOM);
        match self.stream.read_buf(&mut self.held).await {
            Ok(0) | Err(_) => Err(Bad::Gone),
            Ok(_) => Ok(()),
        }
    }

    /// Resolves when the client goes away. What it sends meanwhile is held, up to a limit; beyond it nothing is read.
    async fn gone(&mut self) {
        while self.more_or_full().await {}
    }

    async fn more_or_full(&mut self) -> bool {
        if self.held.len() >= opening::MAX_READ {
            return std::future::pending().await;
        }
        self.more().await.is_ok()
    }

    /// Tells the client that it is not served, in a way that it hears: what it asks first is answered, and what it still
    /// sends is read, for a connection closed over unread bytes takes the last words with it.
    async fn refuse(mut self, code: &str, message: &str, hint: &str) {
        let packet = opening::fatal(code, message, hint);
        let until = Instant::now() + FAREWELL;
        let told = async {
            while opening::look(&self.held) == Opening::Encryption {
                self.held.drain(..8);
                self.stream.write_u8(b'N').await?;
                if self.packet().await.is_err() {
                    return Ok(());
                }
            }
            self.stream.write_all(&packet).await?;
            self.stream.shutdown().await?;
            let mut rest = [0; 256];
            while self.stream.read(&mut rest).await? > 0 {}
            Ok::<_, io::Error>(())
        };
        let _ = timeout_at(until, told).await;
    }
}
