//! Accounts of the operating system: which one runs a child and owns its files.
//!
//! PostgreSQL refuses to run as root, so a daemon that is root lends its children another account. One that is not root
//! has its own only.

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};

/// An account that commands can run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its home directory.
    pub home: PathBuf,
    uid: u32,
    gid: u32,
    own: bool,
}

#[cfg(unix)]
impl Account {
    /// The account of this process.
    ///
    /// # Errors
    /// If the operating system does not know it.
    pub fn own() -> io::Result<Self> {
        let uid = nix::unistd::geteuid();
        let known = nix::unistd::User::from_uid(uid).map_err(io::Error::from)?;
        Ok(match known {
            Some(user) => Self::from_user(user),
            // A container may run with a number that has no name.
            None => Self {
                name: uid.to_string(),
                home: "/".into(),
                uid: uid.as_raw(),
                gid: nix::unistd::getegid().as_raw(),
                own: true,
            },
        })
    }

    /// The account of this name.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    pub fn named(name: &str) -> io::Result<Self> {
        let user = nix::unistd::User::from_name(name).map_err(io::Error::from)?;
        user.map(Self::from_user)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("there is no account {name:?}")))
    }

    fn from_user(user: nix::unistd::User) -> Self {
        Self {
            own: user.uid == nix::unistd::geteuid(),
            name: user.name,
            home: user.dir,
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
        }
    }

    /// Whether it is root's.
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// Makes a command run as this account. Other groups than its first are left behind.
    pub fn apply(&self, command: &mut tokio::process::Command) {
        if !self.own {
            command.gid(self.gid).uid(self.uid);
        }
    }

    /// What another process, the guard, needs to run as this account; none if it is the own one. Unlike [`Account::apply`]
    /// this keeps the account's other groups: a server may read its key by one of them.
    pub fn run_as(&self) -> Option<super::guard::RunAs> {
        if self.own {
            return None;
        }
        let gid = nix::unistd::Gid::from_raw(self.gid);
        let name = std::ffi::CString::new(self.name.as_str()).unwrap_or_default();
        let groups = nix::unistd::getgrouplist(&name, gid).unwrap_or_else(|_| vec![gid]);
        Some(super::guard::RunAs {
            uid: self.uid,
            gid: self.gid,
            groups: groups.into_iter().map(nix::unistd::Gid::as_raw).collect(),
        })
    }

    /// Gives a file or directory to this account.
    ///
    /// # Errors
    /// What the file system says.
    pub fn give(&self, path: &Path) -> io::Result<()> {
        if self.own {
            return Ok(());
        }
        std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid))
    }

    /// Whether a file belongs to this account.
    pub fn owns(&self, file: &Metadata) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        file.uid() == self.uid
    }

    /// Whether this account may pass through a directory.
    pub fn may_enter(&self, dir: &Metadata) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        let bit = match dir {
            _ if self.uid == 0 => return true,
            d if d.uid() == self.uid => 0o100,
            d if d.gid() == self.gid => 0o010,
            _ => 0o001,
        };
        dir.mode() & bit != 0
    }
}

#[cfg(windows)]
impl Account {
    /// The account of this process.
    ///
    /// # Errors
    /// Never here.
    pub fn own() -> io::Result<Self> {
        Ok(Self {
            name: std::env::var("USERNAME").unwrap_or_default(),
            home: std::env::var_os("USERPROFILE").unwrap_or_default().into(),
            uid: 1,
            gid: 1,
            own: true,
        })
    }

    /// The account of this name.
    ///
    /// # Errors
    /// `Unsupported`, unless it is the one of this process: Windows lends no accounts.
    pub fn named(name: &str) -> io::Result<Self> {
        let own = Self::own()?;
        if own.name.eq_ignore_ascii_case(name) {
            Ok(own)
        } else {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    /// Whether it is root's.
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    /// None: it is the account of this process.
    pub fn run_as(&self) -> Option<super::guard::RunAs> {
        None
    }

    /// Nothing to do: it is the account of this process.
    pub fn apply(&self, _: &mut tokio::process::Command) {}

    /// Nothing to do.
    ///
    /// # Errors
    /// Never here.
    pub fn give(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    /// Access lists say more than owners do.
    pub fn owns(&self, _: &Metadata) -> bool {
        self.own && self.gid == 1
    }

    /// Everybody may pass.
    pub fn may_enter(&self, _: &Metadata) -> bool {
        true
    }
}

/// Lets other accounts pass through a directory, without letting them see what is in it.
///
/// # Errors
/// What the file system says.
#[cfg(unix)]
pub fn let_through(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = dir.metadata()?.permissions().mode() & 0o7777;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode | 0o011))
}

/// Nothing to do.
///
/// # Errors
/// Never here.
#[cfg(windows)]
pub fn let_through(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn own_account_is_found_and_owns_what_it_makes() {
        let own = Account::own().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let meta = dir.path().metadata().unwrap();
        assert!(own.owns(&meta) && own.may_enter(&meta) && own.own);
        own.give(dir.path()).unwrap();
        assert!(Account::named("no-such-account-here").is_err());
        assert_eq!(Account::named(&own.name).unwrap(), own);
    }

    #[test]
    fn others_pass_once_they_are_let_through() {
        let dir = tempfile::tempdir().unwrap();
        let other = Account {
            name: "other".into(),
            home: "/".into(),
            uid: 12345,
            gid: 12345,
            own: false,
        };
        let closed = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(dir.path(), closed).unwrap();
        assert!(!other.may_enter(&dir.path().metadata().unwrap()));
        let_through(dir.path()).unwrap();
        assert!(other.may_enter(&dir.path().metadata().unwrap()));
        assert!(!other.owns(&dir.path().metadata().unwrap()));
    }
}
