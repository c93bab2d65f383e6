//! Bytes that must not be seen: they have no text form, so no log, error or panic message can carry them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A secret value. `Debug` shows only that there is one.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    /// Takes a value in.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself: for the one place that needs it.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> std::fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

/// The cluster secret: 32 random bytes that every node of the cluster has.
pub type ClusterSecret = Secret<[u8; 32]>;

impl ClusterSecret {
    /// Reads the secret as it stands in bundles, base64 of 32 bytes.
    pub fn from_base64(text: &str) -> Option<Self> {
        STANDARD.decode(text.trim()).ok()?.try_into().ok().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_have_no_text_form() {
        let s = ClusterSecret::from_base64(&STANDARD.encode([7u8; 32])).unwrap();
        assert_eq!(
            format!("{s:?} {:?}", Secret::new("hunter2".to_owned())),
            "[secret] [secret]"
        );
        assert_eq!(s.expose(), &[7u8; 32]);
        for bad in ["", "AAAA", "not base64 at all!!", &STANDARD.encode([7u8; 33])] {
            assert!(ClusterSecret::from_base64(bad).is_none());
        }
    }
}
