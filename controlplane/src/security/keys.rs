//! What is derived from the cluster secret. Each use has its own derivation, so that one that leaks opens nothing else.

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::secret::{ClusterSecret, Secret};

/// User name of ZooKeeper's digest scheme.
pub const ZOOKEEPER_USER: &str = "had";

/// The password of ZooKeeper's digest scheme, in hexadecimal.
pub fn zookeeper_password(secret: &ClusterSecret) -> Secret<String> {
    Secret::new(hex(&derive(secret, b"zookeeper-digest")))
}

/// The key that seals secrets which are stored in the cluster.
pub fn sealing_key(secret: &ClusterSecret) -> Secret<[u8; 32]> {
    Secret::new(derive(secret, b"seal"))
}

fn derive(secret: &ClusterSecret, label: &[u8]) -> [u8; 32] {
    // HMAC takes keys of every length, so neither branch is ever taken for a 32-byte key but the first.
    Hmac::<Sha256>::new_from_slice(secret.expose()).map_or([0; 32], |mut mac| {
        mac.update(label);
        mac.finalize().into_bytes().into()
    })
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, b| {
            let _ = write!(text, "{b:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derivations_are_fixed_and_apart() {
        let secret = ClusterSecret::new([1; 32]);
        // Reckoned with openssl: printf zookeeper-digest | openssl dgst -sha256 -mac HMAC -macopt hexkey:0101…
        assert_eq!(
            zookeeper_password(&secret).expose(),
            "1db72bc869b898df199d0e0af69c9775e504d95884e4eb86d4b919faa4980d2d"
        );
        assert_ne!(
            hex(sealing_key(&secret).expose()),
            *zookeeper_password(&secret).expose()
        );
    }
}
