//! Which releases of PostgreSQL this machine has, and what they are known to get wrong.
//!
//! Nothing is installed here, and a data directory is only ever given to programs of its own major release.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::command::Tool;
use super::error::{PgError, Result};
use crate::platform::Account;

/// The oldest major release that had works with.
pub const OLDEST: u32 = 13;
/// Minor releases without the start-up race in which a synchronous wait is skipped (protocol R8).
const FLOOR: [(u32, u32); 5] = [(13, 21), (14, 18), (15, 13), (16, 9), (17, 5)];
/// Where distributions put them; `*` stands for a major release.
const USUAL: [&str; 4] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/pgsql/bin",
    "/usr/bin",
];
/// Without these an instance cannot be run.
const NEEDED: [&str; 7] = [
    "postgres",
    "initdb",
    "pg_controldata",
    "pg_basebackup",
    "pg_rewind",
    "pg_waldump",
    "psql",
];
const VERSION_LIMIT: Duration = Duration::from_secs(10);

/// A release, as 15.18.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Release {
    /// 15 of 15.18.
    pub major: u32,
    /// 18 of 15.18.
    pub minor: u32,
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Release {
    /// Finds the number in what `postgres --version` or the server says. A development version has the minor number 0.
    pub fn parse(text: &str) -> Option<Self> {
        let number = text
            .split_whitespace()
            .find(|w| w.starts_with(|c: char| c.is_ascii_digit()))?;
        let mut parts = number.split(|c: char| !c.is_ascii_digit());
        let major = parts.next()?.parse().ok()?;
        let rest = number.trim_start_matches(|c: char| c.is_ascii_digit());
        let dotted = rest.starts_with('.');
        let minor = parts
            .next()
            .filter(|_| dotted)
            .and_then(|m| m.parse().ok())
            .unwrap_or(0);
        Some(Self { major, minor })
    }

    /// What an operator should know of this release (protocol R8), or nothing.
    pub fn warning(self) -> Option<String> {
        let (_, floor) = FLOOR.iter().find(|(major, _)| *major == self.major)?;
        (self.minor < *floor).then(|| {
            format!(
                "PostgreSQL {self} can acknowledge a commit before its standbys have it, right after a start; {}.{floor} \
                 mends it",
                self.major
            )
        })
    }
}

/// The programs of one release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Install {
    /// Where they lie.
    pub bin: PathBuf,
    /// Which release they are.
    pub release: Release,
}

impl Install {
    /// The program of this name.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    async fn look(bin: &Path, account: &Account) -> Result<Self> {
        for name in NEEDED {
            let path = bin.join(name);
            if !path.is_file() {
                return Err(PgError::NotInstalled {
                    what: name.to_owned(),
                    why: format!("there is no {}", path.display()),
                });
            }
        }
        let postgres = bin.join("postgres");
        let told = Tool::new(&postgres, account, VERSION_LIMIT)
            .arg("--version")
            .run(None)
            .await?;
        let release = Release::parse(&told.stdout)
            .ok_or_else(|| PgError::unreadable(format!("the version of {}", postgres.display()), told.stdout.trim()))?;
        Ok(Self {
            bin: bin.to_owned(),
            release,
        })
    }
}

/// Finds the releases that had works with, newest first: in `configured` if one is given, otherwise in the usual places.
/// `account` runs the programs to ask for their version.
///
/// # Errors
/// [`PgError::NotInstalled`] with what is missing, if there is none.
pub async fn discover(configured: Option<&Path>, account: &Account) -> Result<Vec<Install>> {
    if let Some(bin) = configured {
        let found = Install::look(bin, account).await?;
        return if found.release.major < OLDEST {
            Err(PgError::NotInstalled {
                what: format!("PostgreSQL {OLDEST} or later"),
                why: format!("{} has {}", bin.display(), found.release),
            })
        } else {
            Ok(vec![found])
        };
    }
    let mut found: Vec<Install> = Vec::new();
    for pattern in USUAL {
        for bin in expand(pattern) {
            if let Ok(install) = Install::look(&bin, account).await
                && install.release.major >= OLDEST
                && !found.iter().any(|f| f.release == install.release)
            {
                found.push(install);
            }
        }
    }
    found.sort_by_key(|i| std::cmp::Reverse(i.release));
    if found.is_empty() {
        return Err(PgError::NotInstalled {
            what: format!("PostgreSQL {OLDEST} or later"),
            why: format!(
                "it was looked for in {}; postgres.bin_dir in had.toml names another place",
                USUAL.join(", ")
            ),
        });
    }
    Ok(found)
}

/// The release for a data directory of this major release, or for a new one (0: the newest).
///
/// # Errors
/// [`PgError::NotInstalled`].
pub fn choose(found: &[Install], major: u32) -> Result<&Install> {
    let fitting = found.iter().find(|i| major == 0 || i.release.major == major);
    fitting.ok_or_else(|| {
        let have: Vec<_> = found.iter().map(|i| i.release.to_string()).collect();
        PgError::NotInstalled {
            what: format!("PostgreSQL {major}"),
            why: format!("this node has {}", have.join(", ")),
        }
    })
}

/// The directories that a pattern with at most one `*` names.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else {
        return vec![pattern.into()];
    };
    let (dir, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let names = entries.flatten().filter_map(|e| e.file_name().into_string().ok());
    names
        .filter(|n| n.strip_prefix(prefix).is_some_and(|v| v.parse::<u32>().is_ok()))
        .map(|n| PathBuf::from(format!("{dir}/{n}{after}")))
        .filter(|p| p.is_dir())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        for (text, major, minor) in [
            ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", 15, 18),
            ("postgres (PostgreSQL) 13.2", 13, 2),
            ("17beta1 on x86_64", 17, 0),
            ("18devel", 18, 0),
        ] {
            assert_eq!(Release::parse(text), Some(Release { major, minor }), "{text}");
        }
        for text in ["", "postgres", "PostgreSQL x.y"] {
            assert_eq!(Release::parse(text), None, "{text}");
        }
    }

    #[test]
    fn old_minor_releases_are_told_of() {
        let warned = |major, minor| Release { major, minor }.warning().is_some();
        assert!(warned(13, 20) && warned(15, 12) && warned(17, 4));
        assert!(!warned(13, 21) && !warned(15, 18) && !warned(17, 5) && !warned(18, 0));
    }

    #[test]
    fn a_release_is_chosen_by_its_major_number() {
        let install = |major, minor| Install {
            bin: "/x".into(),
            release: Release { major, minor },
        };
        let found = [install(16, 9), install(15, 13)];
        assert_eq!(choose(&found, 0).unwrap().release.major, 16);
        assert_eq!(choose(&found, 15).unwrap().release.minor, 13);
        let e = choose(&found, 14).unwrap_err();
        assert_eq!(
            e.to_string(),
            "PostgreSQL 14 is not installed: this node has 16.9, 15.13"
        );
    }

    #[test]
    fn only_numbers_match_the_star() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["v15", "v16", "vx", "w17"] {
            std::fs::create_dir_all(dir.path().join(name).join("bin")).unwrap();
        }
        let pattern = format!("{}/v*/bin", dir.path().display());
        let mut found = expand(&pattern);
        found.sort();
        assert_eq!(found, [dir.path().join("v15/bin"), dir.path().join("v16/bin")]);
        assert!(expand("/nonexistent/*/bin").is_empty());
    }
}
