//! Where an instance's things lie, whose they are, and that the account which runs PostgreSQL can reach them.
//!
//! What PostgreSQL may not change (configuration, keys) lies in directories of the daemon's; the data, the log and the
//! socket lie in directories of the account that runs it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{PgError, Result, blocking};
use crate::platform::{Account, let_through, private_dir};

const LIMIT: Duration = Duration::from_secs(10);
/// Longest path of a unix socket that every system takes, in bytes.
const MAX_SOCKET: usize = 103;
/// Whom PostgreSQL runs as when the daemon is root and nothing is configured.
const USUAL_ACCOUNT: &str = "postgres";

/// The account that runs PostgreSQL: `run_as`, or `postgres` where the daemon is root, or the daemon's own.
///
/// # Errors
/// [`PgError::Refused`] if there is none, if it is root's, or if the daemon cannot lend it.
pub fn account(run_as: Option<&str>) -> Result<Account> {
    let what = "the account that runs PostgreSQL";
    let own = Account::own().map_err(|e| PgError::refused(what, e.to_string()))?;
    if !own.is_root() {
        return match run_as {
            Some(name) if name != own.name => Err(PgError::refused(
                what,
                format!(
                    "had runs as {} and cannot run anything as {name}: leave postgres.run_as out",
                    own.name
                ),
            )),
            _ => Ok(own),
        };
    }
    let name = run_as.unwrap_or(USUAL_ACCOUNT);
    let account = Account::named(name).map_err(|e| PgError::refused(what, e.to_string()))?;
    if account.is_root() {
        return Err(PgError::refused(
            what,
            "PostgreSQL refuses to run as root: set postgres.run_as",
        ));
    }
    Ok(account)
}

/// Where an instance's things lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The group's name.
    pub group: String,
    /// The data directory.
    pub data: PathBuf,
    /// Configuration, keys, log and copies on the way; below the data root.
    pub work: PathBuf,
    /// What the daemon alone may see: marks.
    pub marks: PathBuf,
    /// The directory of the socket that had connects to.
    pub socket_dir: PathBuf,
    /// The port, which is in the socket's name too.
    pub port: u16,
}

/// The directories that had.toml names, with the defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// What belongs to instances.
    pub data: PathBuf,
    /// Directory of the sockets' directories; none: below `data`.
    pub sockets: Option<PathBuf>,
    /// The daemon's state directory.
    pub state: PathBuf,
}

impl Place {
    /// The place of a group's instance. `data` is the data directory where the group names one.
    ///
    /// # Errors
    /// [`PgError::Refused`] if a path is not absolute or the socket's is too long.
    pub fn new(roots: &Roots, group: &str, data: Option<&Path>, port: u16) -> Result<Self> {
        ha_core::valid_name(group).map_err(|e| PgError::refused(format!("group {group:?}"), e.to_string()))?;
        let work = roots.data.join(group);
        let socket_dir = match &roots.sockets {
            Some(dir) => dir.join(group),
            None => work.join("run"),
        };
        let place = Self {
            group: group.to_owned(),
            data: data.map_or_else(|| work.join("data"), Path::to_owned),
            marks: roots.state.join("db").join(group),
            work,
            socket_dir,
            port,
        };
        for path in [&place.data, &place.work, &place.marks, &place.socket_dir] {
            // The paths stand in configuration files and in connection strings.
            let plain = path.to_str().is_some_and(|p| !p.contains(|c: char| c.is_control()));
            if !path.is_absolute() || !plain {
                return Err(PgError::refused(
                    format!("{:?}", path.display().to_string()),
                    "an absolute path without control characters is wanted",
                ));
            }
        }
        let socket = place.socket();
        if socket.as_os_str().len() > MAX_SOCKET {
            return Err(PgError::refused(
                socket.display().to_string(),
                format!("the path of a socket has at most {MAX_SOCKET} bytes: set postgres.socket_dir in had.toml"),
            ));
        }
        Ok(place)
    }

    /// The socket.
    pub fn socket(&self) -> PathBuf {
        self.socket_dir.join(format!(".s.PGSQL.{}", self.port))
    }

    /// The configuration that had owns.
    pub(super) fn conf(&self) -> PathBuf {
        self.work.join("conf")
    }

    /// The node's certificate and key, and the cluster's authority.
    pub(super) fn tls(&self) -> PathBuf {
        self.work.join("tls")
    }

    /// The server's log.
    pub fn log_dir(&self) -> PathBuf {
        self.work.join("log")
    }

    /// What the server says before its log is open, and where the guard appends it.
    pub fn start_log(&self) -> PathBuf {
        self.log_dir().join("start.log")
    }

    /// Directories beside the data directory, on the same file system, for its copies: `<data>.<name>`.
    pub(super) fn beside(&self, name: &str) -> PathBuf {
        let mut file = self.data.file_name().unwrap_or_default().to_owned();
        file.push(".");
        file.push(name);
        self.data.with_file_name(file)
    }

    /// Makes the directories and sees to it that the account can reach them.
    ///
    /// # Errors
    /// [`PgError::Files`]; [`PgError::Refused`] if a directory on the way is closed to the account.
    pub async fn prepare(&self, account: &Account) -> Result<()> {
        let (this, account) = (self.clone(), account.clone());
        blocking("preparing an instance's directories", LIMIT, move || {
            this.prepare_now(&account)
        })
        .await
    }

    /// Makes the directories and an empty data directory.
    #[cfg(test)]
    pub(super) async fn prepare_for_tests(&self, account: &Account) {
        self.prepare(account).await.unwrap();
        private_dir(&self.data).unwrap();
    }

    fn prepare_now(&self, account: &Account) -> Result<()> {
        let make = |dir: &Path| private_dir(dir).map(drop).map_err(PgError::files(dir));
        make(&self.marks)?;
        let own = Account::own().map_err(PgError::files(&self.work))?;
        for dir in [&self.work, &self.conf(), &self.tls()] {
            make(dir)?;
            if own != *account {
                let_through(dir).map_err(PgError::files(dir))?;
            }
        }
        // The data root and the state directory are the daemon's and made for itself alone.
        for dir in self.work.ancestors().skip(1).take(2) {
            let meta = dir.metadata().map_err(PgError::files(dir))?;
            if !account.may_enter(&meta) && own.owns(&meta) {
                let_through(dir).map_err(PgError::files(dir))?;
            }
        }
        for dir in [&self.log_dir(), &self.socket_dir] {
            if !dir.is_dir() {
                make(dir)?;
                account.give(dir).map_err(PgError::files(dir))?;
            }
        }
        for path in [&self.work, &self.socket_dir, &self.data] {
            reachable(path, account)?;
        }
        Ok(())
    }
}

/// Whether an account can pass through all that leads to a path.
fn reachable(path: &Path, account: &Account) -> Result<()> {
    for dir in path.ancestors().skip(1) {
        let Ok(meta) = dir.metadata() else { continue };
        if !account.may_enter(&meta) {
            return Err(PgError::refused(
                path.display().to_string(),
                format!(
                    "{} cannot pass through {}: open it with chmod o+x, or name another place in had.toml \
                     (postgres.data_root, postgres.socket_dir)",
                    account.name,
                    dir.display()
                ),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots(dir: &Path) -> Roots {
        Roots {
            data: dir.join("pg"),
            sockets: None,
            state: dir.join("state"),
        }
    }

    #[test]
    fn places_follow_from_the_roots() {
        let place = Place::new(&roots(Path::new("/srv")), "main", None, 5433).unwrap();
        assert_eq!(place.data, Path::new("/srv/pg/main/data"));
        assert_eq!(place.socket(), Path::new("/srv/pg/main/run/.s.PGSQL.5433"));
        assert_eq!(place.beside("x"), Path::new("/srv/pg/main/data.x"));
        let other = Place::new(&roots(Path::new("/srv")), "main", Some(Path::new("/v/15/main")), 1).unwrap();
        assert_eq!(other.beside("old"), Path::new("/v/15/main.old"));

        let long = format!("/{}", "x".repeat(90));
        for bad in [
            Place::new(&roots(Path::new(&long)), "main", None, 5432),
            Place::new(&roots(Path::new("srv")), "main", None, 5432),
            Place::new(&roots(Path::new("/srv")), "../main", None, 5432),
            Place::new(&roots(Path::new("/srv")), "main", Some(Path::new("/a\nb")), 5432),
        ] {
            assert!(matches!(bad, Err(PgError::Refused { .. })), "{bad:?}");
        }
    }

    #[cfg(all(test, unix))]
    #[tokio::test]
    async fn a_closed_directory_on_the_way_is_named() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(&roots(dir.path()), "main", None, 5432).unwrap();
        let own = Account::own().unwrap();
        place.prepare(&own).await.unwrap();
        place.prepare(&own).await.unwrap();
        assert_eq!(place.work.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        let Some(other) = own.is_root().then(|| Account::named("nobody").unwrap()) else {
            assert!(
                account(Some("root")).is_err(),
                "accounts are not lent without being root"
            );
            return;
        };
        // The directory above the data root is the daemon's too; the one above that may be anybody's.
        let deep = dir.path().join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::set_permissions(dir.path().join("a"), std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        let place = Place::new(&roots(&deep), "main", None, 5432).unwrap();
        let e = place.prepare(&other).await.unwrap_err().to_string();
        assert!(e.contains("nobody cannot pass through") && e.contains("/a:"), "{e}");
        std::fs::set_permissions(dir.path().join("a"), std::fs::Permissions::from_mode(0o711)).unwrap();
        place.prepare(&other).await.unwrap();
        assert!(other.owns(&place.log_dir().metadata().unwrap()));
        assert!(!other.owns(&place.conf().metadata().unwrap()));
    }
}
