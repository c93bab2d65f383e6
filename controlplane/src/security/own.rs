//! A certificate of this node together with its key, verified to belong together and to the cluster.

use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;

use super::authority::{Authority, single};
use super::identity::{Credential, Identity};
use super::secret::Secret;

/// The node's certificate and key.
#[derive(Clone)]
pub(crate) struct Own {
    pub(crate) credential: Credential,
    pub(crate) key: Arc<CertifiedKey>,
    /// The certificate, PEM.
    pub(crate) certificate_pem: String,
    /// Its key, PEM.
    pub(crate) key_pem: Secret<String>,
}

impl std::fmt::Debug for Own {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Own")
            .field("serial", &self.credential.serial)
            .finish_non_exhaustive()
    }
}

impl Own {
    /// Checks that the certificate is this node's, was signed by the cluster's authority, and that the key is its key.
    /// The error is a reason in words that quotes nothing of the key.
    pub(crate) fn load(authority: &Authority, node: &str, certificate: &str, key: &str) -> Result<Self, String> {
        let der = single(certificate)?;
        let credential = Credential::of_cluster(&der, &authority.cluster_id).map_err(|e| e.to_string())?;
        let wanted = Identity::Node { name: node.to_owned() };
        if credential.identity != wanted {
            return Err(format!(
                "it is the certificate of {}, not of {wanted}",
                credential.identity
            ));
        }
        authority.signed(&der, &credential)?;
        let key_pem = Secret::new(key.to_owned());
        let key =
            PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| "the key is not a private key in PEM form")?;
        let key = CertifiedKey::from_der(vec![der], key, &authority.provider).map_err(|e| match e {
            rustls::Error::InconsistentKeys(_) => "the key is not the certificate's".to_owned(),
            _ => "the key is of no use with this certificate".to_owned(),
        })?;
        Ok(Self {
            credential,
            key: Arc::new(key),
            certificate_pem: certificate.to_owned(),
            key_pem,
        })
    }

    /// Order of preference: within its time first, then the one issued last.
    pub(crate) fn rank(&self, now_ms: i64) -> (bool, i64, i64) {
        let issued = ha_core::access::issued_ms(&self.credential.serial).unwrap_or_default();
        (self.credential.is_timely(now_ms), issued, self.credential.not_after_ms)
    }
}
