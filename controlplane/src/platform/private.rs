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
