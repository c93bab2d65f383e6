//! The cluster's certificate authority as a node knows it: its certificate only. Nothing but what it signed is believed;
//! no public authority ever is.

use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::identity::Credential;

/// What verifies certificates of one cluster.
#[derive(Debug, Clone)]
pub(crate) struct Authority {
    pub(crate) cluster: String,
    pub(crate) cluster_id: String,
    /// Its certificate, PEM.
    pub(crate) pem: String,
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) clients: Arc<dyn ClientCertVerifier>,
    pub(crate) servers: Arc<WebPkiServerVerifier>,
}

impl Authority {
    /// From the PEM of the authority's certificate. The error is a reason in words.
    pub(crate) fn new(pem: &str, cluster: &str, cluster_id: &str) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        roots
            .add(single(pem)?)
            .map_err(|e| format!("it is not a certificate authority: {e}"))?;
        let (roots, provider) = (Arc::new(roots), Arc::new(rustls::crypto::ring::default_provider()));
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
        let servers = WebPkiServerVerifier::builder_with_provider(roots, provider.clone());
        Ok(Self {
            cluster: cluster.to_owned(),
            cluster_id: cluster_id.to_owned(),
            pem: pem.to_owned(),
            provider,
            clients: clients.build().map_err(|e| e.to_string())?,
            servers: servers.build().map_err(|e| e.to_string())?,
        })
    }

    /// The name under which daemons verify each other.
    pub(crate) fn server_name(&self, node: &str) -> Result<ServerName<'static>, String> {
        ServerName::try_from(format!("{node}.had.{}", self.cluster)).map_err(|e| e.to_string())
    }

    /// Whether this authority signed the certificate, for a daemon to be dialled and to dial with. Its time is left
    /// aside: an expired certificate is still the node's, and is told as expired.
    pub(crate) fn signed(&self, der: &CertificateDer<'_>, credential: &Credential) -> Result<(), String> {
        let at = u64::try_from(credential.not_after_ms / 1000).unwrap_or_default();
        let at = UnixTime::since_unix_epoch(Duration::from_secs(at));
        let name = self.server_name(credential.identity.name())?;
        let told = |e: rustls::Error| match e {
            rustls::Error::InvalidCertificate(
                rustls::CertificateError::UnknownIssuer | rustls::CertificateError::BadSignature,
            ) => "another certificate authority signed it".to_owned(),
            e => e.to_string(),
        };
        self.clients.verify_client_cert(der, &[], at).map_err(told)?;
        self.servers
            .verify_server_cert(der, &[], &name, &[], at)
            .map_err(told)?;
        Ok(())
    }
}

/// The one certificate in a PEM text.
pub(crate) fn single(pem: &str) -> Result<CertificateDer<'static>, String> {
    let mut all = CertificateDer::pem_slice_iter(pem.as_bytes());
    match (all.next(), all.next()) {
        (Some(Ok(one)), None) => Ok(one),
        (None, _) => Err("there is no certificate in PEM form".into()),
        (Some(Err(e)), _) => Err(format!("it is not a certificate in PEM form: {e:?}")),
        (Some(Ok(_)), Some(_)) => Err("there is more than one certificate".into()),
    }
}
