//! Taking over a cluster of databases that ran without had, Debian's split layout included.
//!
//! Its data is not changed. Its settings and its lines of pg_hba.conf stay in force below those of the group's spec, on this
//! instance, and are handed to the caller, who may put them into the spec for all. Its own files are kept beside, and whoever else starts it from them finds it closed (protocol R5, R11).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::conf::{self, Settings, parameters, text};
use super::control_data::ControlData;
use super::error::{PgError, Result, blocking, one_line};
use super::instance::{Found, Instance};
use super::place::Place;
use crate::platform::{Account, write_atomic, write_atomic_for};

const LIMIT: Duration = Duration::from_secs(30);
/// Where Debian keeps configuration: a directory a release, in it one a cluster.
pub const DEBIAN: &str = "/etc/postgresql";
const BEFORE: &str = "postgresql.conf.before-had";
/// Settings that had to do with where and how it ran, not with what it did.
const LEFT_BEHIND: [&str; 3] = ["stats_temp_directory", "lc_messages", "log_destination"];

/// What was taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adoption {
    /// What the directory says of itself.
    pub control: ControlData,
    /// Parameters for the group's spec.
    pub parameters: BTreeMap<String, String>,
    /// Parameters that were left behind, with the reason.
    pub left: BTreeMap<String, String>,
    /// Lines of pg_hba.conf for the group's spec.
    pub hba: Vec<String>,
    /// Lines that were left behind, each with the reason.
    pub hba_left: Vec<String>,
}

/// What stays in force on this instance, below what the group's spec says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Carried {
    parameters: BTreeMap<String, String>,
    hba: Vec<String>,
}

const CARRIED: &str = "carried.json";

impl Carried {
    pub(super) async fn read(place: &Place) -> Result<Self> {
        let path = place.marks.join(CARRIED);
        blocking("reading what was taken over", LIMIT, move || {
            match std::fs::read(&path) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
                text => serde_json::from_slice(&text.map_err(PgError::files(&path))?)
                    .map_err(|e| PgError::unreadable(path.display().to_string(), e.to_string())),
            }
        })
        .await
    }

    async fn write(&self, place: &Place) -> Result<()> {
        let path = place.marks.join(CARRIED);
        let text = serde_json::to_vec(self).map_err(|e| PgError::unreadable("what is taken over", e.to_string()))?;
        blocking("keeping what is taken over", LIMIT, move || {
            write_atomic(&path, &text).map_err(PgError::files(&path))
        })
        .await
    }

    /// The settings with these below them.
    pub(super) fn below(&self, settings: &Settings) -> Settings {
        let mut merged = settings.clone();
        for (name, value) in &self.parameters {
            merged.parameters.entry(name.clone()).or_insert_with(|| value.clone());
        }
        if merged.hba.is_empty() {
            merged.hba.clone_from(&self.hba);
        }
        merged
    }
}

/// What is read of the files as they were.
#[derive(Default)]
struct Original {
    parameters: BTreeMap<String, String>,
    left: BTreeMap<String, String>,
    hba: Vec<String>,
    hba_left: Vec<String>,
}

impl Instance {
    /// Whether the data directory's configuration is had's.
    ///
    /// # Errors
    /// [`PgError::Files`].
    pub async fn is_adopted(&self) -> Result<bool> {
        let path = self.place.data.join("postgresql.conf");
        blocking("looking at the configuration", LIMIT, move || {
            match std::fs::read(&path) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
                text => Ok(text.map_err(PgError::files(&path))?.starts_with(conf::HEAD.as_bytes())),
            }
        })
        .await
    }

    /// Takes the data directory over; its server is stopped. `system_id` is the group's, if it has one already. The
    /// settings' parameters and lines hold over those that are found. `debian` is [`DEBIAN`] but in tests. Can be
    /// repeated: it finds the same parameters and lines again.
    ///
    /// # Errors
    /// [`PgError::Refused`] if a server runs there, if it belongs to another account, is no cluster, or is one of another
    /// system id; nothing was changed then. [`PgError::Files`], [`PgError::Unreadable`].
    pub async fn adopt(&self, system_id: Option<u64>, settings: &Settings, debian: &Path) -> Result<Adoption> {
        let _held = self.gate.enter().await?;
        let what = format!("taking over {}", self.place.data.display());
        self.must_be_stopped(&what)?;
        let control = match self.inspect().await? {
            Found::Cluster { control, .. } => *control,
            other => {
                return Err(PgError::refused(
                    what,
                    format!("there is no cluster to take over: {other:?}"),
                ));
            }
        };
        if system_id.is_some_and(|id| id != control.system_id) {
            return Err(PgError::refused(
                what,
                format!("its system id is {}, and it is not this group's", control.system_id),
            ));
        }
        let (data, account, debian) = (self.place.data.clone(), self.account.clone(), debian.to_owned());
        let original = blocking("reading the configuration to take over", LIMIT, move || {
            let meta = data.metadata().map_err(PgError::files(&data))?;
            if !account.owns(&meta) {
                return Err(PgError::refused(
                    data.display().to_string(),
                    format!("it does not belong to {}, who runs PostgreSQL", account.name),
                ));
            }
            take_over(&data, &account, &debian)
        })
        .await?;
        // In this order: while the directory's configuration is not had's, all of this is done again.
        let carried = Carried {
            parameters: original.parameters.clone(),
            hba: original.hba.clone(),
        };
        carried.write(&self.place).await?;
        self.set_carried(carried);
        self.configure(settings).await?;
        Ok(Adoption {
            control,
            parameters: original.parameters,
            left: original.left,
            hba: original.hba,
            hba_left: original.hba_left,
        })
    }
}

fn take_over(data: &Path, account: &Account, debian: &Path) -> Result<Original> {
    let (own, before) = (data.join("postgresql.conf"), data.join(BEFORE));
    let is_hads = std::fs::read_to_string(&own).is_ok_and(|t| t.starts_with(conf::HEAD));
    if own.exists() && !is_hads && !before.exists() {
        let text = std::fs::read(&own).map_err(PgError::files(&own))?;
        write_atomic_for(account, &before, &text).map_err(PgError::files(&before))?;
    }
    let split = debian_directory(data, debian)?;
    let (main, dir) = match &split {
        Some(dir) => (dir.join("postgresql.conf"), dir.as_path()),
        None => (before, data),
    };
    let mut original = Original::default();
    if main.exists() {
        // What had appended to Debian's file includes its own.
        let mut lines = text::read_without(&main, &own)?;
        let auto = data.join("postgresql.auto.conf");
        if auto.exists() {
            lines.extend(text::read(&auto)?);
        }
        let hba = lines
            .iter()
            .rev()
            .find(|l| l.name == "hba_file")
            .map(|l| dir.join(&l.value));
        let hba = hba.filter(|h| h.exists());
        read_hba(&hba.unwrap_or_else(|| dir.join("pg_hba.conf")), &mut original)?;
        let settings = lines.into_iter().map(|l| (l.name, l.value));
        (original.parameters, original.left) = parameters::carried(settings);
        for name in LEFT_BEHIND {
            if original.parameters.remove(name).is_some() {
                original
                    .left
                    .insert(name.to_owned(), "it belongs to how it was run before".into());
            }
        }
    }
    if let Some(dir) = split {
        close_debian(&dir, &own, account)?;
    }
    Ok(original)
}

fn read_hba(path: &Path, original: &mut Original) -> Result<()> {
    let text = match std::fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        text => text.map_err(PgError::files(path))?,
    };
    for line in String::from_utf8_lossy(&text).lines() {
        match conf::access::checked(&[line.to_owned()]) {
            Ok(good) => original.hba.extend(good),
            Err(e) => original.hba_left.push(one_line(&e.to_string())),
        }
    }
    Ok(())
}

/// The directory in which Debian keeps the configuration of a data directory: the one whose `data_directory` it is.
fn debian_directory(data: &Path, debian: &Path) -> Result<Option<PathBuf>> {
    let dirs = |dir: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|e| e.path()).filter(|p| p.is_dir()).collect()
    };
    let here = std::fs::canonicalize(data).map_err(PgError::files(data))?;
    for cluster in dirs(debian).iter().flat_map(|release| dirs(release)) {
        let main = cluster.join("postgresql.conf");
        let Ok(lines) = plain_lines(&main) else { continue };
        let named = lines.iter().rev().find(|l| l.0 == "data_directory");
        if named.is_some_and(|(_, dir)| std::fs::canonicalize(dir).is_ok_and(|d| d == here)) {
            return Ok(Some(cluster));
        }
    }
    Ok(None)
}

/// The settings of a file alone, without what it includes and without minding what is malformed.
fn plain_lines(path: &Path) -> Result<Vec<(String, String)>> {
    let text = std::fs::read(path).map_err(PgError::files(path))?;
    let text = String::from_utf8_lossy(&text).into_owned();
    Ok(text.lines().filter_map(text::setting).collect())
}

/// Keeps Debian's own tools from starting what had runs now, and should they all the same, it is closed.
fn close_debian(dir: &Path, own: &Path, account: &Account) -> Result<()> {
    let start = dir.join("start.conf");
    let text = "# had runs this cluster; nobody else must start it.\ndisabled\n";
    if std::fs::read(&start).ok().as_deref() != Some(text.as_bytes()) {
        write_atomic_for(account, &start, text.as_bytes()).map_err(PgError::files(&start))?;
    }
    let main = dir.join("postgresql.conf");
    let line = format!("include {}", text::quoted(&own.display().to_string()));
    let present = std::fs::read(&main).map_err(PgError::files(&main))?;
    if !String::from_utf8_lossy(&present).lines().any(|l| l == line) {
        let mut all = present;
        all.extend_from_slice(format!("\n# Added by had, which runs this cluster now.\n{line}\n").as_bytes());
        write_atomic_for(account, &main, &all).map_err(PgError::files(&main))?;
    }
    Ok(())
}
