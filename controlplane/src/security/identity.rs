//! Who a certificate says its bearer is: its SAN URI `ha://<cluster_id>/node/<name>` or
//! `ha://<cluster_id>/user/<name>/<role>`.
//!
//! Certificates are read after their signature was verified, and are taken for hostile all the same: whatever the bytes,
//! the answer is an identity or a reason, never a panic.

use ha_core::access::Bearer;
use ha_core::{AccessRole, valid_name};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use super::keys::hex;

/// Greatest certificate that is looked at, in bytes; ours have some 500.
const MAX_CERTIFICATE: usize = 16 * 1024;

/// Who a certificate says its bearer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// A node's daemon.
    Node {
        /// The node's name.
        name: String,
    },
    /// A person or a script.
    User {
        /// The user's name.
        name: String,
        /// What it may do.
        role: AccessRole,
    },
}

impl std::fmt::Display for Identity {
    /// `node/n1` or `user/alice`, as actors are written in the change log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Node { name } => write!(f, "node/{name}"),
            Self::User { name, .. } => write!(f, "user/{name}"),
        }
    }
}

impl Identity {
    /// The node's or user's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Node { name } | Self::User { name, .. } => name,
        }
    }

    /// The role, of users.
    pub fn role(&self) -> Option<AccessRole> {
        match self {
            Self::Node { .. } => None,
            Self::User { role, .. } => Some(*role),
        }
    }

    /// As the rules of access see it.
    pub fn bearer(&self) -> Bearer<'_> {
        match self {
            Self::Node { name } => Bearer::Node(name),
            Self::User { name, role } => Bearer::User(name, *role),
        }
    }

    /// The form in which a node vouches for the caller of a proxied call: `node/<name>` or `user/<name>/<role>`.
    pub fn vouched(&self) -> String {
        match self {
            Self::Node { name } => format!("node/{name}"),
            Self::User { name, role } => format!("user/{name}/{}", role.word()),
        }
    }

    /// Reads [`Identity::vouched`].
    pub fn from_vouched(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let (kind, name, role) = (parts.next()?, parts.next()?, parts.next());
        valid_name(name).ok()?;
        let name = name.to_owned();
        match (kind, role, parts.next()) {
            ("node", None, None) => Some(Self::Node { name }),
            ("user", Some(role), None) => Some(Self::User {
                name,
                role: AccessRole::from_word(role)?,
            }),
            _ => None,
        }
    }
}

/// What is of interest in a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Its bearer.
    pub identity: Identity,
    /// The cluster that it belongs to.
    pub cluster_id: String,
    /// Its serial number, 32 hexadecimal digits.
    pub serial: String,
    /// First moment of its validity, ms.
    pub not_before_ms: i64,
    /// Last moment of its validity, ms.
    pub not_after_ms: i64,
}

/// Why a certificate names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCertificate {
    /// Not a certificate.
    #[error("it is not an X.509 certificate")]
    Unreadable,
    /// No usable `ha://` name, or more than one.
    #[error("it names no node and no user of a cluster")]
    Nameless,
    /// It belongs to another cluster.
    #[error("it belongs to the cluster with the id {0}")]
    OtherCluster(String),
}

impl Credential {
    /// Reads a certificate, whatever its cluster.
    ///
    /// # Errors
    /// [`BadCertificate`] with the reason.
    pub fn read(der: &[u8]) -> Result<Self, BadCertificate> {
        if der.len() > MAX_CERTIFICATE {
            return Err(BadCertificate::Unreadable);
        }
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| BadCertificate::Unreadable)?;
        if !rest.is_empty() {
            return Err(BadCertificate::Unreadable);
        }
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| BadCertificate::Nameless)?;
        let names = names.ok_or(BadCertificate::Nameless)?;
        let mut uris = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix("ha://"),
            _ => None,
        });
        // A certificate with two names would be one caller to one reader and another to the next.
        let (Some(uri), None) = (uris.next(), uris.next()) else {
            return Err(BadCertificate::Nameless);
        };
        let (cluster_id, bearer) = uri.split_once('/').ok_or(BadCertificate::Nameless)?;
        let identity = Identity::from_vouched(bearer).ok_or(BadCertificate::Nameless)?;
        if !is_cluster_id(cluster_id) {
            return Err(BadCertificate::Nameless);
        }
        // DER drops leading zeros of a number, and adds one before a first bit that is set.
        let serial = hex(certificate.raw_serial());
        let serial = format!("{:0>32}", serial.trim_start_matches('0'));
        let ms = |t: i64| t.saturating_mul(1000);
        Ok(Self {
            identity,
            cluster_id: cluster_id.to_owned(),
            serial,
            not_before_ms: ms(certificate.validity().not_before.timestamp()),
            not_after_ms: ms(certificate.validity().not_after.timestamp()),
        })
    }

    /// Reads a certificate of this cluster.
    ///
    /// # Errors
    /// [`BadCertificate`] with the reason.
    pub fn of_cluster(der: &[u8], cluster_id: &str) -> Result<Self, BadCertificate> {
        let this = Self::read(der)?;
        if this.cluster_id == cluster_id {
            Ok(this)
        } else {
            Err(BadCertificate::OtherCluster(this.cluster_id))
        }
    }

    /// Whether the certificate is within its time.
    pub fn is_timely(&self, now_ms: i64) -> bool {
        (self.not_before_ms..=self.not_after_ms).contains(&now_ms)
    }
}

/// A cluster's id appears in errors and on screens: it is held to the form of a UUID.
pub(crate) fn is_cluster_id(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Leaf, TestCa};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn vouched_identities_round_trip() {
        for text in ["node/n1", "user/alice/viewer", "user/bob-2/admin"] {
            assert_eq!(Identity::from_vouched(text).map(|i| i.vouched()).as_deref(), Some(text));
        }
        for bad in [
            "",
            "node",
            "node/",
            "node/n1/admin",
            "user/alice",
            "user/alice/root",
            "user/alice/admin/x",
            "user//admin",
            "user/a b/admin",
            "node/\u{1b}[2J",
            "User/alice/admin",
        ] {
            assert_eq!(Identity::from_vouched(bad), None, "{bad}");
        }
    }

    #[test]
    fn certificates_are_read() {
        let ca = TestCa::new("prod");
        let cert = ca.issue(&Leaf::user("alice", "operator").issued(0x0102_0304_0506));
        let c = Credential::of_cluster(&cert.der, &ca.cluster_id).unwrap();
        assert_eq!(
            c.identity,
            Identity::User {
                name: "alice".into(),
                role: AccessRole::Operator
            }
        );
        assert_eq!(c.serial, cert.serial);
        assert_eq!(ha_core::access::issued_ms(&c.serial), Some(0x0102_0304_0506));
        assert!(c.is_timely(crate::platform::Clock::wall_ms(&crate::platform::SystemClock)));
        let other = "00000000-0000-0000-0000-000000000000";
        assert!(matches!(
            Credential::of_cluster(&cert.der, other),
            Err(BadCertificate::OtherCluster(_))
        ));
    }

    #[test]
    fn certificates_with_no_or_several_or_strange_names_are_refused() {
        let ca = TestCa::new("prod");
        let id = ca.cluster_id.clone();
        for uris in [
            vec![],
            vec!["https://example.org/".to_owned()],
            vec![
                format!("ha://{id}/user/alice/admin"),
                format!("ha://{id}/user/alice/viewer"),
            ],
            vec![format!("ha://{id}/user/alice/root")],
            vec![format!("ha://{id}/user/alice/admin?x=1")],
            vec![format!("ha://{id}/user/../admin")],
            vec![format!("ha://{id}")],
            vec!["ha://short/node/n1".to_owned()],
            vec![format!("ha://{id}/node/{}", "a".repeat(64))],
        ] {
            let cert = ca.issue(&Leaf::node("n1").uris(uris.clone()));
            assert_eq!(Credential::read(&cert.der), Err(BadCertificate::Nameless), "{uris:?}");
        }
    }

    proptest! {
        #[test]
        fn hostile_certificates_never_panic(
            garbage in proptest::collection::vec(any::<u8>(), 0..600),
            edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            cut in any::<prop::sample::Index>(),
        ) {
            static CERT: std::sync::LazyLock<Vec<u8>> =
                std::sync::LazyLock::new(|| TestCa::new("prod").issue(&Leaf::node("n1")).der);
            let _ = Credential::read(&garbage);
            let mut bytes = CERT.clone();
            for (at, value) in edits {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            let _ = Credential::read(&bytes);
            let cut = cut.index(bytes.len());
            let _ = Credential::read(&bytes[..cut]);
        }
    }
}
