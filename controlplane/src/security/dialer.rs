//! Calls from daemon to daemon: with this node's certificate, to a node that must prove that it is the one meant.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ha_core::{valid_address, valid_name};
use ha_proto::codes;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use super::authority::Authority;
use crate::error::ApiError;

/// Time to reach a node and finish the handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection over which calls are under way is probed this often, and given up when no answer comes within
/// [`PROBE_TIMEOUT`]: a node that fell silent must not hold its callers.
const PROBE_EVERY: Duration = Duration::from_secs(1);
const PROBE_TIMEOUT: Duration = Duration::from_millis(1500);
/// A machine that is there refuses within a round trip.
const REFUSAL_TIMEOUT: Duration = Duration::from_millis(300);
/// Bytes in flight a stream and a connection. Reports and deltas are small.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
/// Channels kept, and for how long after their last use.
const MAX_KEPT: usize = 16;
const KEEP: Duration = Duration::from_secs(300);

struct Kept {
    node: String,
    address: String,
    channel: Channel,
    used: Instant,
}

/// Makes channels to other nodes.
#[derive(Clone)]
pub struct Dialer {
    authority: Authority,
    config: Arc<ClientConfig>,
    kept: Arc<Mutex<Vec<Kept>>>,
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dialer")
    }
}

impl Dialer {
    pub(crate) fn new(authority: Authority, config: Arc<ClientConfig>) -> Self {
        Self {
            authority,
            config,
            kept: Arc::default(),
        }
    }

    /// A channel to the node `node` at `address`, which connects when it is first used and again whenever the connection
    /// is lost, each time with the certificate in use at that moment. Channels of the same node and address are shared.
    ///
    /// Calls have no time limit but their own: set one, or send `grpc-timeout`. Needs a running runtime.
    ///
    /// # Errors
    /// [`codes::BAD_VALUE`] if the name or the address is malformed.
    pub fn channel(&self, node: &str, address: &str) -> Result<Channel, ApiError> {
        let bad = |e: String| ApiError::new(&codes::BAD_VALUE, "a node's address is malformed").why(e);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some(found) = kept.iter_mut().find(|k| k.node == node && k.address == address) {
            found.used = now;
            return Ok(found.channel.clone());
        }
        valid_name(node).map_err(|e| bad(format!("{node:?}: {e}")))?;
        valid_address(address).map_err(|e| bad(format!("{address:?}: {e}")))?;
        let name = self.authority.server_name(node).map_err(bad)?;
        // TLS is made by the connector below: to tonic it is a plain connection.
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|e| bad(e.to_string()))?;
        let (config, target) = (self.config.clone(), address.to_owned());
        let channel = endpoint
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keep_alive_interval(PROBE_EVERY)
            .keep_alive_timeout(PROBE_TIMEOUT)
            .buffer_size(64)
            .connect_with_connector_lazy(tower::service_fn(move |_| {
                let (config, target, name) = (config.clone(), target.clone(), name.clone());
                async move {
                    let connect = connect(config, target, name);
                    tokio::time::timeout(CONNECT_TIMEOUT, connect)
                        .await
                        .map_err(|_| timed_out())?
                        .map(TokioIo::new)
                }
            }));
        kept.retain(|k| now.duration_since(k.used) < KEEP);
        if kept.len() >= MAX_KEPT
            && let Some(oldest) = kept.iter().enumerate().min_by_key(|(_, k)| k.used).map(|(i, _)| i)
        {
            kept.swap_remove(oldest);
        }
        kept.push(Kept {
            node: node.to_owned(),
            address: address.to_owned(),
            channel: channel.clone(),
            used: now,
        });
        Ok(channel)
    }
}

/// Whether a connection to this address is refused by the machine itself: nothing listens there.
pub(crate) async fn is_refused(address: &str) -> bool {
    let tried = tokio::time::timeout(REFUSAL_TIMEOUT, TcpStream::connect(address)).await;
    matches!(tried, Ok(Err(e)) if e.kind() == std::io::ErrorKind::ConnectionRefused)
}

fn timed_out() -> std::io::Error {
    std::io::Error::new(
        std::io::ErrorKind::TimedOut,
        format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()),
    )
}

async fn connect(
    config: Arc<ClientConfig>,
    address: String,
    name: rustls_pki_types::ServerName<'static>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(&address).await?;
    tcp.set_nodelay(true)?;
    let tls = TlsConnector::from(config).connect(name, tcp).await?;
    if tls.get_ref().1.alpn_protocol() != Some(super::tls::H2) {
        return Err(std::io::Error::other("the other end does not speak HTTP/2"));
    }
    Ok(tls)
}
