//! What a path and a value must look like before anything is sent, so that both coordinators refuse the same requests.
//!
//! It must never let through what a ZooKeeper server would refuse by cutting the connection: that would cost the
//! session its watches over one bad request.

use super::{CoordError, Result};

/// The largest value, in bytes.
pub const MAX_VALUE: usize = 256 * 1024;

/// The longest path, in bytes.
const MAX_PATH: usize = 1024;

/// Checks a path inside the cluster's root; the empty path is the root itself.
pub(super) fn check_path(path: &str) -> Result<()> {
    if path.is_empty() {
        return Ok(());
    }
    let Some(rest) = path.strip_prefix('/') else {
        return Err(CoordError::Invalid(shown(path)));
    };
    let segments = rest.split('/').all(|s| !matches!(s, "" | "." | ".."));
    if segments && path.len() <= MAX_PATH && path.chars().all(allowed) {
        Ok(())
    } else {
        Err(CoordError::Invalid(shown(path)))
    }
}

/// Checks that a value is not too large.
pub(super) fn check_value(path: &str, data: &[u8]) -> Result<()> {
    if data.len() <= MAX_VALUE {
        Ok(())
    } else {
        let size = data.len();
        Err(CoordError::Invalid(format!(
            "{path}: a value of {size} bytes, the limit is {MAX_VALUE}"
        )))
    }
}

/// Checks that a version is one: ZooKeeper takes -1 for "whatever it is", which no caller may mean.
pub(super) fn check_version(path: &str, version: i32) -> Result<()> {
    if version >= 0 {
        Ok(())
    } else {
        Err(CoordError::Invalid(format!("{path}: version {version}")))
    }
}

/// The parent of a path that is not the root: `/a/b` lies in `/a`, and `/a` in the root.
pub(super) fn parent(path: &str) -> &str {
    path.rfind('/').map_or("", |cut| &path[..cut])
}

/// The characters a ZooKeeper server takes.
fn allowed(c: char) -> bool {
    !matches!(c, '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..)
}

/// A path made fit for an error message.
fn shown(path: &str) -> String {
    path.chars().take(80).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for good in ["", "/a", "/members/n1", "/a b/ü", "/election/c-"] {
            assert!(check_path(good).is_ok(), "{good:?}");
        }
        let long = format!("/{}", "x".repeat(MAX_PATH));
        for bad in [
            "a",
            "/",
            "/a/",
            "//a",
            "/a//b",
            "/./a",
            "/a/..",
            "/a\0b",
            "/a\nb",
            "/\u{7f}",
            "/\u{1f600}",
            &long,
        ] {
            assert!(matches!(check_path(bad), Err(CoordError::Invalid(_))), "{bad:?}");
        }
        assert_eq!((parent("/a/b"), parent("/a")), ("/a", ""));
    }

    #[test]
    fn values_and_versions() {
        assert!(check_value("/a", &vec![0; MAX_VALUE]).is_ok());
        assert!(check_value("/a", &vec![0; MAX_VALUE + 1]).is_err());
        assert!(check_version("/a", 0).is_ok());
        assert!(check_version("/a", -1).is_err());
    }
}
