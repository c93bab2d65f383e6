//! Mutual TLS: what both ends of every connection must show, and the door through which connections come in.
//!
//! Only TLS 1.3 and HTTP/2 are spoken, and nothing is resumed: each connection is verified anew, and the certificate in
//! use is looked up at each handshake, so that a renewed one counts at once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ServerConfig, SignatureScheme};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::authority::Authority;
use super::own::Own;

/// HTTP/2 as ALPN names it.
pub(crate) const H2: &[u8] = b"h2";
/// Time within which a connection must have shown who it is.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes under way at once. When one more comes the oldest is dropped: an honest one takes milliseconds, so who is
/// dropped is who does not go on.
const MAX_HANDSHAKES: usize = 1024;
/// Pause after the operating system refused a connection, usually for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Presents the certificate that is in use at the moment.
#[derive(Debug)]
struct Current(Arc<ArcSwap<Own>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().key.clone())
    }
}

impl ResolvesClientCert for Current {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().key.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// What this daemon asks of those who call it.
pub(crate) fn server_config(authority: &Authority, own: Arc<ArcSwap<Own>>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(authority.provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(authority.clients.clone())
        .with_cert_resolver(Arc::new(Current(own)));
    config.alpn_protocols = vec![H2.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// What this daemon asks of those whom it calls.
pub(crate) fn client_config(authority: &Authority, own: Arc<ArcSwap<Own>>) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut config = ClientConfig::builder_with_provider(authority.provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_webpki_verifier(authority.servers.clone())
        .with_client_cert_resolver(Arc::new(Current(own)));
    config.alpn_protocols = vec![H2.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Handshakes under way, oldest first.
#[derive(Default)]
struct Handshakes {
    next: u64,
    running: BTreeMap<u64, AbortHandle>,
}

/// Takes connections until `stop`, and hands over those that finished their handshake.
///
/// No peer can hold this up: handshakes run beside each other, each within a time limit, and their number is bounded.
pub(crate) async fn accept(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    stop: CancellationToken,
    on_connection: impl Fn(TlsStream<TcpStream>, SocketAddr) + Clone + Send + Sync + 'static,
    on_failure: impl Fn(SocketAddr, String) + Clone + Send + Sync + 'static,
) {
    let acceptor = TlsAcceptor::from(config);
    let handshakes = Arc::new(Mutex::new(Handshakes::default()));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (tcp, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                // The peer gone again is no problem of ours; no descriptors left is one that passes.
                tracing::debug!("a connection could not be taken: {e}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let _ = tcp.set_nodelay(true);
        let mut all = handshakes.lock().unwrap_or_else(PoisonError::into_inner);
        let id = all.next;
        all.next += 1;
        if all.running.len() >= MAX_HANDSHAKES
            && let Some((_, oldest)) = all.running.pop_first()
        {
            oldest.abort();
        }
        let (acceptor, handshakes) = (acceptor.clone(), handshakes.clone());
        let (on_connection, on_failure) = (on_connection.clone(), on_failure.clone());
        let task = tokio::spawn(async move {
            let outcome = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(tcp)).await;
            handshakes
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .running
                .remove(&id);
            match outcome {
                Ok(Ok(stream)) => on_connection(stream, peer),
                Ok(Err(e)) => on_failure(peer, e.to_string()),
                Err(_) => on_failure(peer, "the handshake took too long".into()),
            }
        });
        // The lock is still held, so the task cannot have removed itself before it is entered here.
        all.running.insert(id, task.abort_handle());
    }
    let all = std::mem::take(&mut *handshakes.lock().unwrap_or_else(PoisonError::into_inner));
    all.running.into_values().for_each(|task| task.abort());
}
