//! Who is who: bundles, certificates, identities, and the connections on which they are shown.
//!
//! What each role may do is decided in `ha_core::access`. Nothing here may log or return a key or the cluster secret.

mod authority;
mod bundle;
mod certificates;
mod dialer;
mod identity;
pub mod keys;
mod own;
mod secret;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod tls;

use std::path::Path;
use std::sync::Arc;

use ha_proto::codes;
use tokio_util::sync::CancellationToken;

pub use bundle::NodeBundle;
pub use dialer::Dialer;
pub(crate) use dialer::is_refused;
pub use identity::{BadCertificate, Credential, Identity};
pub use secret::{ClusterSecret, Secret};

use crate::error::ApiError;
use crate::platform::Clock;
use certificates::Certificates;

/// A node's certificate, its key and the cluster's authority, all PEM: for programs that read files.
#[derive(Debug, Clone)]
pub struct NodePem {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: Secret<String>,
    /// The authority's certificate.
    pub authority: String,
}

/// The node's own side of security: its certificates and what is made with them.
pub struct Security {
    certificates: Arc<Certificates>,
    cluster_id: String,
    server: Arc<rustls::ServerConfig>,
    dialer: Dialer,
}

impl std::fmt::Debug for Security {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Security")
            .field("certificate", &self.certificate())
            .finish_non_exhaustive()
    }
}

impl Security {
    /// From a bundle that was read from `path`; renewed certificates are kept in `<state_dir>/tls`. Blocks on the file
    /// system.
    ///
    /// # Errors
    /// [`codes::INTERNAL`] if TLS cannot be set up.
    pub fn new(
        bundle: &NodeBundle,
        path: &Path,
        state_dir: &Path,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, ApiError> {
        let certificates = Arc::new(Certificates::new(bundle, path, state_dir, clock));
        let failed = |e: rustls::Error| ApiError::new(&codes::INTERNAL, "TLS cannot be set up").why(e.to_string());
        let server = tls::server_config(&bundle.authority, certificates.current.clone()).map_err(failed)?;
        let client = tls::client_config(&bundle.authority, certificates.current.clone()).map_err(failed)?;
        Ok(Arc::new(Self {
            certificates,
            cluster_id: bundle.cluster_id.clone(),
            server,
            dialer: Dialer::new(bundle.authority.clone(), client),
        }))
    }

    /// Takes up certificates that change on disk, until `stop`. To be spawned.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        self.certificates.clone().watch(stop).await;
    }

    /// Looks at the certificates on disk now. Returns whether another one was taken up. Blocks on the file system.
    ///
    /// # Errors
    /// [`codes::BAD_BUNDLE`] if the bundle is of no use any more; the certificate in use stays in use.
    pub fn reload(&self) -> Result<bool, ApiError> {
        self.certificates.reload()
    }

    /// What the certificate in use says.
    pub fn certificate(&self) -> Credential {
        self.certificates.credential()
    }

    /// The certificate in use with its key, for PostgreSQL.
    pub fn pem(&self) -> NodePem {
        let (own, authority) = self.certificates.pem();
        NodePem {
            certificate: own.certificate_pem.clone(),
            key: own.key_pem.clone(),
            authority,
        }
    }

    /// Makes channels to other nodes.
    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// The cluster's id.
    pub(crate) fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// What is asked of those who call.
    pub(crate) fn server(&self) -> Arc<rustls::ServerConfig> {
        self.server.clone()
    }

    /// See [`Certificates::request`]; off the runtime's threads.
    pub(crate) async fn request_certificate(&self) -> Result<String, ApiError> {
        let certificates = self.certificates.clone();
        blocking(move || certificates.request()).await
    }

    /// See [`Certificates::install`]; off the runtime's threads.
    pub(crate) async fn install_certificate(&self, pem: String) -> Result<bool, ApiError> {
        let certificates = self.certificates.clone();
        blocking(move || certificates.install(&pem)).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let died = |_| {
        Err(ApiError::new(
            &codes::INTERNAL,
            "the node failed in handling its certificates",
        ))
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(died)
}
