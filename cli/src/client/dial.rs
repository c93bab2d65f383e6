//! Connecting: TCP and mutual TLS to whichever endpoint answers first.
//!
//! Each endpoint gets a short head start over the next, so that a node that hangs costs a fraction of a second. Only the
//! cluster's own authority is trusted, whatever the address.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use ha_proto::codes;
use ha_proto::v1::Bundle;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::CliError;

/// Head start of an endpoint over the one after it.
const HEAD_START: Duration = Duration::from_millis(150);
/// Longest time that one endpoint gets for TCP and TLS together.
pub(crate) const LIMIT: Duration = Duration::from_secs(3);

/// An encrypted connection to a node.
pub(crate) struct Connection {
    /// The endpoint as it was given.
    pub(crate) endpoint: String,
    /// The node's name from its certificate; empty if it has none.
    pub(crate) node: String,
    pub(crate) stream: TlsStream<TcpStream>,
}

/// Why an endpoint did not answer.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) endpoint: String,
    pub(crate) why: String,
    pub(crate) wrong_cluster: bool,
}

/// Dials as one user of one cluster.
#[derive(Clone)]
pub(crate) struct Dialler {
    tls: TlsConnector,
    name: ServerName<'static>,
    cluster: String,
}

impl Dialler {
    /// # Errors
    /// `HA0005` if the bundle's certificates cannot be used.
    pub(crate) fn new(bundle: &Bundle) -> Result<Self, CliError> {
        let bad = |why: String| {
            CliError::new(
                codes::BAD_BUNDLE,
                format!("the bundle of user {} cannot be used", bundle.name),
            )
            .why(why)
        };
        let mut roots = rustls::RootCertStore::empty();
        for der in CertificateDer::pem_slice_iter(bundle.ca.as_bytes()) {
            roots
                .add(der.map_err(|e| bad(e.to_string()))?)
                .map_err(|e| bad(e.to_string()))?;
        }
        let chain = CertificateDer::pem_slice_iter(bundle.certificate.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| bad(e.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(bundle.key.as_bytes()).map_err(|e| bad(e.to_string()))?;
        let mut config =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|e| bad(e.to_string()))?
                .with_root_certificates(roots)
                .with_client_auth_cert(chain, key)
                .map_err(|e| bad(e.to_string()))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = ServerName::try_from(format!("had.{}", bundle.cluster)).map_err(|e| bad(e.to_string()))?;
        Ok(Self {
            tls: TlsConnector::from(Arc::new(config)),
            name,
            cluster: bundle.cluster.clone(),
        })
    }

    /// The first endpoint that answers.
    ///
    /// # Errors
    /// The reason of each, when none does.
    pub(crate) async fn any(&self, endpoints: &[String], limit: Duration) -> Result<Connection, Vec<Refusal>> {
        let mut running = FuturesUnordered::new();
        let mut waiting = endpoints.iter();
        let mut refusals = Vec::new();
        if let Some(endpoint) = waiting.next() {
            running.push(self.one(endpoint, limit));
        }
        loop {
            let more = waiting.len() > 0;
            let started = tokio::select! {
                biased;
                done = running.next() => match done {
                    Some(Ok(connection)) => return Ok(connection),
                    Some(Err(refusal)) => {
                        refusals.push(refusal);
                        waiting.next()
                    }
                    None => return Err(refusals),
                },
                () = tokio::time::sleep(HEAD_START), if more => waiting.next(),
            };
            if let Some(endpoint) = started {
                running.push(self.one(endpoint, limit));
            }
        }
    }

    /// This endpoint alone.
    ///
    /// # Errors
    /// Why it did not answer.
    pub(crate) async fn one(&self, endpoint: &str, limit: Duration) -> Result<Connection, Refusal> {
        let limit = limit.min(LIMIT);
        let refuse = |why: String, wrong_cluster| Refusal {
            endpoint: endpoint.to_owned(),
            why,
            wrong_cluster,
        };
        let connect = async {
            let tcp = TcpStream::connect(endpoint)
                .await
                .map_err(|e| refuse(describe_io(&e), false))?;
            let _ = tcp.set_nodelay(true);
            let stream = self.tls.connect(self.name.clone(), tcp).await.map_err(|e| {
                let (why, wrong) = self.describe_tls(&e);
                refuse(why, wrong)
            })?;
            let node = node_name(&stream);
            Ok(Connection {
                endpoint: endpoint.to_owned(),
                node,
                stream,
            })
        };
        match tokio::time::timeout(limit, connect).await {
            Ok(result) => result,
            Err(_) => Err(refuse(format!("no answer within {:.1} s", limit.as_secs_f32()), false)),
        }
    }

    fn describe_tls(&self, error: &std::io::Error) -> (String, bool) {
        use rustls::{CertificateError, Error};
        match error.get_ref().and_then(|e| e.downcast_ref::<Error>()) {
            Some(Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)) => (
                format!(
                    "its certificate was not signed by the authority of cluster {}",
                    self.cluster
                ),
                true,
            ),
            Some(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => (
                format!("its certificate is not of a node of cluster {}", self.cluster),
                true,
            ),
            Some(Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. })) => {
                ("its certificate has expired".into(), false)
            }
            Some(Error::InvalidMessage(_)) => ("what answers there does not speak TLS".into(), false),
            Some(e) => (e.to_string(), false),
            None => (describe_io(error), false),
        }
    }
}

/// The words for the usual failures, without the operating system's numbers.
fn describe_io(error: &std::io::Error) -> String {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".into(),
        ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof => "the connection was closed".into(),
        ErrorKind::TimedOut => "no answer".into(),
        ErrorKind::HostUnreachable => "no route to the host".into(),
        ErrorKind::NetworkUnreachable => "the network is unreachable".into(),
        _ => {
            let text = error.to_string();
            text.split(" (os error").next().unwrap_or(&text).to_owned()
        }
    }
}

/// `<node>` of `node:<node>`, the common name in the server's certificate.
fn node_name(stream: &TlsStream<TcpStream>) -> String {
    let (_, session) = stream.get_ref();
    let certificate = session.peer_certificates().and_then(|c| c.first());
    let Some((_, x509)) = certificate.and_then(|c| x509_parser::parse_x509_certificate(c).ok()) else {
        return String::new();
    };
    let common = x509.subject().iter_common_name().next().and_then(|cn| cn.as_str().ok());
    common
        .and_then(|c| c.strip_prefix("node:"))
        .unwrap_or_default()
        .to_owned()
}
