//! Who else on the machine may touch a file.

use std::fs::Metadata;

/// How far a file that holds a secret is open to others than its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exposure {
    /// The owner's alone.
    Private,
    /// Its group may read it.
    Group,
    /// Everybody may read it, or others than the owner may write it.
    Others,
}

/// How far this file is open.
#[cfg(unix)]
pub fn exposure(file: &Metadata) -> Exposure {
    use std::os::unix::fs::PermissionsExt as _;
    match file.permissions().mode() {
        mode if mode & 0o027 != 0 => Exposure::Others,
        mode if mode & 0o040 != 0 => Exposure::Group,
        _ => Exposure::Private,
    }
}

/// Windows inherits access lists from the directory, which the installer makes private.
#[cfg(windows)]
pub fn exposure(_: &Metadata) -> Exposure {
    Exposure::Private
}

/// Opens a file to others, or closes it, for tests. False where that has no meaning.
#[cfg(all(test, unix))]
pub(crate) fn set_mode(path: &std::path::Path, mode: u32) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).is_ok()
}

#[cfg(all(test, windows))]
pub(crate) fn set_mode(_: &std::path::Path, _: u32) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exposure_follows_the_mode() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (mode, expected) in [
            (0o600, Exposure::Private),
            (0o400, Exposure::Private),
            (0o440, Exposure::Group),
            (0o640, Exposure::Group),
            (0o660, Exposure::Others),
            (0o644, Exposure::Others),
            (0o602, Exposure::Others),
        ] {
            if set_mode(file.path(), mode) {
                assert_eq!(exposure(&file.path().metadata().unwrap()), expected, "{mode:o}");
            }
        }
    }
}
