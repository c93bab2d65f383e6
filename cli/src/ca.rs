//! The cluster's certificate authority, which lives with the operator who made the cluster and nowhere else.
//!
//! It signs offline. It must never send its key anywhere, and never copy a name, a role or a usage out of a request that
//! it signs: what a certificate says is decided here.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use ha_proto::codes;
use ha_proto::v1::{AccessRole, Bootstrap, Bundle};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::error::CliError;
use crate::{bundle, files, names};

/// How long a node's or user's certificate is valid unless something else is asked for.
pub const DEFAULT_VALIDITY: Duration = Duration::from_secs(365 * 86_400);
/// Session timeout that a new cluster asks of ZooKeeper.
pub const DEFAULT_SESSION_TIMEOUT: Duration = Duration::from_millis(4_000);

const AUTHORITY_VALIDITY: time::Duration = time::Duration::days(3_650);
/// Clocks may be hours apart.
const AUTHORITY_BACKDATED: time::Duration = time::Duration::hours(48);
const LEAF_BACKDATED: time::Duration = time::Duration::hours(24);

/// Everything that signs for a cluster, and what its nodes' bundles hold besides certificates.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterAuthority {
    version: u32,
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's id, a UUID.
    pub cluster_id: String,
    /// ZooKeeper servers, host:port.
    pub zookeeper: Vec<String>,
    /// Milliseconds.
    pub session_timeout_ms: u64,
    /// Base64 of 32 bytes.
    pub secret: String,
    /// PEM of the authority's certificate.
    pub ca: String,
    /// PEM of its PKCS #8 key.
    ca_key: String,
}

impl std::fmt::Debug for ClusterAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterAuthority")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

/// From when to when a certificate is valid.
#[derive(Debug, Clone, Copy)]
pub struct Validity {
    /// First moment.
    pub not_before: OffsetDateTime,
    /// Last moment.
    pub not_after: OffsetDateTime,
}

impl Validity {
    /// From a day ago until `length` from now.
    pub fn lasting(length: Duration) -> Self {
        let now = OffsetDateTime::now_utc();
        Self {
            not_before: now - LEAF_BACKDATED,
            not_after: now + length,
        }
    }
}

impl Default for Validity {
    fn default() -> Self {
        Self::lasting(DEFAULT_VALIDITY)
    }
}

/// A certificate that was just signed.
#[derive(Clone)]
pub struct Issued {
    /// The node's or user's name.
    pub name: String,
    /// PEM.
    pub certificate: String,
    /// PEM of the PKCS #8 key; empty where the holder keeps its key to itself.
    pub key: String,
    /// Lower-case hexadecimal, as on the wire.
    pub serial: String,
    /// Milliseconds since 1970.
    pub expires_unix_ms: i64,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued")
            .field("name", &self.name)
            .field("serial", &self.serial)
            .finish_non_exhaustive()
    }
}

fn failed(what: &str, error: impl std::fmt::Display) -> CliError {
    CliError::new(codes::INTERNAL, format!("cannot {what}")).why(error.to_string())
}

impl ClusterAuthority {
    /// A new authority with a key, an id and a secret of its own. Writes nothing.
    ///
    /// # Errors
    /// `HA0007` for a bad name, `HA0009` for a bad server or timeout.
    pub fn create(cluster: &str, zookeeper: &[String], session_timeout: Duration) -> Result<Self, CliError> {
        names::check_name("cluster", cluster)?;
        if zookeeper.is_empty() {
            return Err(CliError::new(codes::BAD_VALUE, "no ZooKeeper server was named"));
        }
        let zookeeper = zookeeper
            .iter()
            .map(|server| names::address(server, names::ZOOKEEPER_PORT))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| CliError::new(codes::BAD_VALUE, "a ZooKeeper server is malformed").why(e))?;
        if !(Duration::from_millis(500)..=Duration::from_secs(60)).contains(&session_timeout) {
            return Err(CliError::new(codes::BAD_VALUE, "the session timeout is out of range")
                .why("it lies between 500ms and 60s; every ZooKeeper server must grant exactly this"));
        }
        let key = new_key()?;
        let now = OffsetDateTime::now_utc();
        let mut params = CertificateParams::default();
        params.not_before = now - AUTHORITY_BACKDATED;
        params.not_after = now + AUTHORITY_VALIDITY;
        params.serial_number = Some(new_serial(now)?);
        params.distinguished_name = common_name(&format!("{cluster} ha CA"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let certificate = params
            .self_signed(&key)
            .map_err(|e| failed("make the certificate authority", e))?;
        Ok(Self {
            version: bundle::VERSION,
            cluster: cluster.to_owned(),
            cluster_id: uuid::Uuid::new_v4().to_string(),
            zookeeper,
            session_timeout_ms: u64::try_from(session_timeout.as_millis()).unwrap_or(u64::MAX),
            secret: base64::engine::general_purpose::STANDARD.encode(random::<32>()?),
            ca: certificate.pem(),
            ca_key: key.serialize_pem(),
        })
    }

    /// Reads the authority from its file.
    ///
    /// # Errors
    /// `HA0002` if it cannot be read, `HA0005` if it is not one.
    pub fn load(path: &Path) -> Result<Self, CliError> {
        let text = files::read(path)?;
        let bad = |why: String| {
            CliError::new(
                codes::BAD_BUNDLE,
                format!("{} is not a certificate authority of hactl", path.display()),
            )
            .why(why)
            .detail("path", path.display().to_string())
        };
        let this: Self = toml::from_str(&text).map_err(|e| bad(e.message().to_owned()))?;
        if this.version != bundle::VERSION {
            return Err(bad(format!(
                "it has version {}, this program knows version {}",
                this.version,
                bundle::VERSION
            )));
        }
        if !names::is_name(&this.cluster) || this.zookeeper.is_empty() || this.secret.is_empty() {
            return Err(bad("it is not complete".into()));
        }
        this.issuer()
            .map_err(|e| bad(e.reasons().first().cloned().unwrap_or_default()))?;
        Ok(this)
    }

    /// Writes the authority to a new file of mode 600.
    ///
    /// # Errors
    /// `HA0008` if the file exists, `HA0002` if it cannot be written.
    pub fn save_new(&self, path: &Path) -> Result<(), CliError> {
        let text = toml::to_string(self).map_err(|e| failed("write the certificate authority", e))?;
        files::write_new(
            path,
            &format!(
                "# The certificate authority of cluster {}. Whoever has this file is admin.\n{text}",
                self.cluster
            ),
        )
    }

    /// A key and a certificate for a node.
    ///
    /// # Errors
    /// `HA0007` for a bad name.
    pub fn issue_node(&self, name: &str) -> Result<Issued, CliError> {
        self.issue_node_valid(name, Validity::default())
    }

    /// As [`Self::issue_node`], with a validity of its own.
    ///
    /// # Errors
    /// `HA0007` for a bad name.
    pub fn issue_node_valid(&self, name: &str, validity: Validity) -> Result<Issued, CliError> {
        names::check_name("node", name)?;
        let key = new_key()?;
        self.sign(name, self.node_params(name, validity)?, &key, key.serialize_pem())
    }

    /// A key and a certificate for a user.
    ///
    /// # Errors
    /// `HA0007` for a bad name, `HA0009` for no role.
    pub fn issue_user(&self, name: &str, role: AccessRole) -> Result<Issued, CliError> {
        self.issue_user_valid(name, role, Validity::default())
    }

    /// As [`Self::issue_user`], with a validity of its own.
    ///
    /// # Errors
    /// `HA0007` for a bad name, `HA0009` for no role.
    pub fn issue_user_valid(&self, name: &str, role: AccessRole, validity: Validity) -> Result<Issued, CliError> {
        names::check_name("user", name)?;
        if role == AccessRole::Unspecified {
            return Err(CliError::new(
                codes::BAD_VALUE,
                "a user has the role viewer, operator or admin",
            ));
        }
        let key = new_key()?;
        let uri = format!("ha://{}/user/{name}/{}", self.cluster_id, role.word());
        let mut params = leaf_params(name, validity);
        params.subject_alt_names = vec![SanType::URI(
            uri.try_into().map_err(|e| failed("name the certificate", e))?,
        )];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(name, params, &key, key.serialize_pem())
    }

    /// Signs a node's request for a new certificate. Only the key is taken from the request, and only if the request
    /// proves possession of it and it is an ECDSA P-256 key.
    ///
    /// # Errors
    /// `HA0009` if the request is not acceptable.
    pub fn sign_node_request(&self, name: &str, csr_pem: &str, validity: Validity) -> Result<Issued, CliError> {
        names::check_name("node", name)?;
        let refuse = |why: String| {
            CliError::new(
                codes::BAD_VALUE,
                format!("the certificate request of node {name} is not acceptable"),
            )
            .why(why)
        };
        if csr_pem.len() > 16 * 1024 {
            return Err(refuse("it is larger than 16 KiB".into()));
        }
        let request = CertificateSigningRequestParams::from_pem(csr_pem).map_err(|e| refuse(e.to_string()))?;
        let key = &request.public_key;
        // An uncompressed point on P-256; the algorithm alone would let a key on another curve through.
        let p256 = key.algorithm() == &rcgen::PKCS_ECDSA_P256_SHA256
            && key.der_bytes().len() == 65
            && key.der_bytes().first() == Some(&4);
        if !p256 {
            return Err(refuse("its key is not an ECDSA P-256 key".into()));
        }
        self.sign(name, self.node_params(name, validity)?, key, String::new())
    }

    /// The join bundle of a node: `address` is its gRPC endpoint; the first node's bundle also has a `bootstrap`.
    pub fn node_bundle(&self, issued: &Issued, address: &str, bootstrap: Option<Bootstrap>) -> Bundle {
        Bundle {
            zookeeper: self.zookeeper.clone(),
            secret: self.secret.clone(),
            bootstrap,
            ..self.bundle(bundle::Kind::Node, issued, vec![address.to_owned()])
        }
    }

    /// A user's bundle, which knows these endpoints of the cluster.
    pub fn user_bundle(&self, issued: &Issued, endpoints: Vec<String>) -> Bundle {
        self.bundle(bundle::Kind::User, issued, endpoints)
    }

    /// What the first node's bundle says of those for whom the cluster was made.
    pub fn bootstrap(node: &Issued, user: &Issued) -> Bootstrap {
        Bootstrap {
            user: user.name.clone(),
            user_serial: user.serial.clone(),
            user_expires_unix_ms: user.expires_unix_ms,
            node_serial: node.serial.clone(),
            node_expires_unix_ms: node.expires_unix_ms,
            created_unix_ms: names::now_ms(),
        }
    }

    fn bundle(&self, kind: bundle::Kind, issued: &Issued, endpoints: Vec<String>) -> Bundle {
        Bundle {
            version: bundle::VERSION,
            kind: kind.word().to_owned(),
            name: issued.name.clone(),
            cluster: self.cluster.clone(),
            cluster_id: self.cluster_id.clone(),
            ca: self.ca.clone(),
            certificate: issued.certificate.clone(),
            key: issued.key.clone(),
            endpoints,
            session_timeout_ms: self.session_timeout_ms,
            ..Bundle::default()
        }
    }

    fn node_params(&self, name: &str, validity: Validity) -> Result<CertificateParams, CliError> {
        let text = |s: String| s.try_into().map_err(|e| failed("name the certificate", e));
        // PostgreSQL 13 knows a certificate by its common name alone, and no user's name has a colon: whatever a user is
        // called, its certificate never passes for a node's.
        let mut params = leaf_params(&format!("node:{name}"), validity);
        params.subject_alt_names = vec![
            SanType::URI(text(format!("ha://{}/node/{name}", self.cluster_id))?),
            SanType::DnsName(text(format!("had.{}", self.cluster))?),
            SanType::DnsName(text(format!("{name}.had.{}", self.cluster))?),
        ];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        Ok(params)
    }

    fn sign(
        &self,
        name: &str,
        mut params: CertificateParams,
        key: &impl PublicKeyData,
        key_pem: String,
    ) -> Result<Issued, CliError> {
        let serial = new_serial(OffsetDateTime::now_utc())?;
        params.serial_number = Some(serial.clone());
        let expires = params.not_after;
        let certificate = params
            .signed_by(key, &self.issuer()?)
            .map_err(|e| failed("sign the certificate", e))?;
        Ok(Issued {
            name: name.to_owned(),
            certificate: certificate.pem(),
            key: key_pem,
            serial: hex(&serial.to_bytes()),
            expires_unix_ms: expires.unix_timestamp() * 1000,
        })
    }

    fn issuer(&self) -> Result<Issuer<'static, KeyPair>, CliError> {
        let key = KeyPair::from_pem(&self.ca_key).map_err(|e| failed("read the authority's key", e))?;
        Issuer::from_ca_cert_pem(&self.ca, key).map_err(|e| failed("read the authority's certificate", e))
    }
}

fn new_key() -> Result<KeyPair, CliError> {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(|e| failed("make a key", e))
}

fn leaf_params(name: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = validity.not_before;
    params.not_after = validity.not_after;
    params.distinguished_name = common_name(name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}

fn common_name(name: &str) -> DistinguishedName {
    let mut dn = DistinguishedName::new();
    dn.push(DnType::CommonName, name);
    dn
}

/// Six bytes of the time of issue in milliseconds, then ten random ones; the first bit is 0 until the year 6429.
fn new_serial(now: OffsetDateTime) -> Result<SerialNumber, CliError> {
    let ms = u64::try_from(now.unix_timestamp_nanos() / 1_000_000)
        .unwrap_or(0)
        .to_be_bytes();
    let mut bytes = [0; 16];
    bytes[..6].copy_from_slice(&ms[2..]);
    bytes[0] &= 0x7f;
    bytes[6..].copy_from_slice(&random::<10>()?);
    Ok(SerialNumber::from_slice(&bytes))
}

fn random<const N: usize>() -> Result<[u8; N], CliError> {
    use rand::TryRngCore as _;
    let mut bytes = [0; N];
    rand::rngs::OsRng
        .try_fill_bytes(&mut bytes)
        .map_err(|e| failed("get random bytes from the system", e))?;
    Ok(bytes)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests;
