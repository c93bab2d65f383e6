//! Certificates for tests. Compiled into tests only.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};

/// A certificate authority.
pub(crate) struct TestCa {
    pub(crate) cluster: String,
    pub(crate) cluster_id: String,
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate is to say.
#[derive(Clone)]
pub(crate) struct Leaf {
    kind: String,
    name: String,
    issued_ms: i64,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
    uris: Option<Vec<String>>,
}

/// A certificate and its key.
#[derive(Clone)]
pub(crate) struct TestCert {
    pub(crate) der: Vec<u8>,
    pub(crate) pem: String,
    pub(crate) key: String,
    pub(crate) serial: String,
}

impl Leaf {
    pub(crate) fn node(name: &str) -> Self {
        let now = OffsetDateTime::now_utc();
        Self {
            kind: "node".into(),
            name: name.into(),
            issued_ms: (now.unix_timestamp_nanos() / 1_000_000) as i64,
            not_before: now - Duration::hours(24),
            not_after: now + Duration::days(365),
            uris: None,
        }
    }

    pub(crate) fn user(name: &str, role: &str) -> Self {
        Self {
            kind: format!("user/{role}"),
            ..Self::node(name)
        }
    }

    pub(crate) fn issued(self, ms: i64) -> Self {
        Self { issued_ms: ms, ..self }
    }

    /// Ended an hour ago.
    pub(crate) fn expired(self) -> Self {
        Self {
            not_after: OffsetDateTime::now_utc() - Duration::hours(1),
            ..self
        }
    }

    /// Valid until so many seconds from now.
    pub(crate) fn until(self, seconds: i64) -> Self {
        Self {
            not_after: OffsetDateTime::now_utc() + Duration::seconds(seconds),
            ..self
        }
    }

    /// Valid from so many seconds ago.
    pub(crate) fn since(self, seconds: i64) -> Self {
        Self {
            not_before: OffsetDateTime::now_utc() - Duration::seconds(seconds),
            ..self
        }
    }

    pub(crate) fn uris(self, uris: Vec<String>) -> Self {
        Self {
            uris: Some(uris),
            ..self
        }
    }
}

impl TestCa {
    pub(crate) fn new(cluster: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("{cluster} ha CA"));
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            cluster: cluster.into(),
            cluster_id: uuid::Uuid::new_v4().to_string(),
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    fn params(&self, leaf: &Leaf) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.not_before = leaf.not_before;
        params.not_after = leaf.not_after;
        params.distinguished_name = DistinguishedName::new();
        let of_node = leaf.kind == "node";
        let name = if of_node {
            format!("node:{}", leaf.name)
        } else {
            leaf.name.clone()
        };
        params.distinguished_name.push(DnType::CommonName, name);
        let mut serial = leaf.issued_ms.to_be_bytes()[2..].to_vec();
        serial.extend_from_slice(&uuid::Uuid::new_v4().as_bytes()[..10]);
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let mut names = Vec::new();
        let uri = if let Some(role) = leaf.kind.strip_prefix("user/") {
            format!("ha://{}/user/{}/{role}", self.cluster_id, leaf.name)
        } else {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
            names.push(format!("had.{}", self.cluster));
            names.push(format!("{}.had.{}", leaf.name, self.cluster));
            format!("ha://{}/node/{}", self.cluster_id, leaf.name)
        };
        let uris = leaf.uris.clone().unwrap_or_else(|| vec![uri]);
        params.subject_alt_names = uris
            .into_iter()
            .map(|u| SanType::URI(u.try_into().unwrap()))
            .chain(names.into_iter().map(|n| SanType::DnsName(n.try_into().unwrap())))
            .collect();
        params
    }

    pub(crate) fn issue(&self, leaf: &Leaf) -> TestCert {
        let key = KeyPair::generate().unwrap();
        let params = self.params(leaf);
        let serial = super::keys::hex(&params.serial_number.as_ref().unwrap().to_bytes());
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        TestCert {
            der: cert.der().to_vec(),
            pem: cert.pem(),
            key: key.serialize_pem(),
            serial,
        }
    }

    /// Signs a request.
    pub(crate) fn sign(&self, leaf: &Leaf, csr_pem: &str) -> String {
        let request = rcgen::CertificateSigningRequestParams::from_pem(csr_pem).unwrap();
        self.params(leaf)
            .signed_by(&request.public_key, &self.issuer)
            .unwrap()
            .pem()
    }

    /// A node's bundle.
    pub(crate) fn bundle(&self, node: &str, cert: &TestCert) -> ha_proto::v1::Bundle {
        ha_proto::v1::Bundle {
            version: 1,
            kind: "node".into(),
            name: node.into(),
            cluster: self.cluster.clone(),
            cluster_id: self.cluster_id.clone(),
            ca: self.pem.clone(),
            certificate: cert.pem.clone(),
            key: cert.key.clone(),
            endpoints: vec!["127.0.0.1:7400".into()],
            zookeeper: vec!["127.0.0.1:2181".into()],
            secret: base64::engine::general_purpose::STANDARD.encode([7; 32]),
            session_timeout_ms: 4000,
            bootstrap: None,
        }
    }

    /// Writes a node's bundle as its owner's private file.
    pub(crate) fn write_bundle(&self, dir: &Path, node: &str, cert: &TestCert) -> PathBuf {
        let path = dir.join(format!("{node}.toml"));
        let text = toml::to_string(&self.bundle(node, cert)).unwrap();
        crate::platform::write_atomic(&path, text.as_bytes()).unwrap();
        path
    }
}

/// The certificate in a PEM text.
pub(crate) fn der(pem: &str) -> rustls_pki_types::CertificateDer<'static> {
    super::authority::single(pem).unwrap()
}
