//! One instance on this node: its place, its programs, its marks; and what its data directory is.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::adopt::Carried;
use super::command::{Gate, Held, Tool};
use super::conf::{self, Settings};
use super::control_data::{ControlData, major_release, postmaster};
use super::error::{PgError, Result, blocking, one_line};
use super::install::Install;
use super::marks::{MarkStore, Step, Work};
use super::place::Place;
use super::wal::{self, DiskLog};
use crate::platform::{Account, private_dir, sync_parent};

const FILES_LIMIT: Duration = Duration::from_secs(30);
const CREATE_LIMIT: Duration = Duration::from_secs(300);
/// Removing a large directory takes time; nothing waits for it but the next step of the same work.
pub(super) const REMOVE_LIMIT: Duration = Duration::from_secs(3600);

/// What a data directory is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// There is none, or nothing is in it.
    Empty,
    /// Work on it did not end. It counts for nothing until the work is done again.
    Incomplete {
        /// What was begun.
        step: Step,
    },
    /// A cluster of databases.
    Cluster {
        /// Its major release.
        major: u32,
        /// What it says of itself.
        control: Box<ControlData>,
    },
    /// Something else. had does not touch it.
    Foreign {
        /// What is in it.
        why: String,
    },
}

/// One instance on this node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Where its things lie.
    pub place: Place,
    /// The programs that run it.
    pub install: Install,
    /// Whom they run as.
    pub account: Account,
    /// What it refused and promised.
    pub marks: MarkStore,
    pub(super) gate: Gate,
    /// What was taken over with the data directory.
    carried: Arc<Mutex<Carried>>,
}

impl Instance {
    /// Makes the instance's directories where they are missing and reads its marks. The data directory is not touched.
    ///
    /// # Errors
    /// [`PgError::Files`], [`PgError::Refused`], [`PgError::Unreadable`].
    pub async fn open(place: Place, install: Install, account: Account) -> Result<Self> {
        place.prepare(&account).await?;
        let marks = MarkStore::open(&place.marks).await?;
        let gate = Gate::new(&place.marks);
        let carried = Carried::read(&place).await?;
        Ok(Self {
            carried: Arc::new(Mutex::new(carried)),
            place,
            install,
            account,
            marks,
            gate,
        })
    }

    /// The control file.
    ///
    /// # Errors
    /// [`PgError::Tool`], [`PgError::Unreadable`].
    pub async fn control(&self) -> Result<ControlData> {
        ControlData::read(&self.install, &self.account, &self.place.data).await
    }

    /// What the data directory is.
    ///
    /// # Errors
    /// [`PgError::Files`], [`PgError::Tool`], [`PgError::Unreadable`]: then nothing may be done to it.
    pub async fn inspect(&self) -> Result<Found> {
        let work = self.marks.work().await?;
        match work.step {
            Some(step @ (Step::Create | Step::Rewind | Step::Swap { .. })) => return Ok(Found::Incomplete { step }),
            Some(Step::Copy { .. }) | None => {}
        }
        let data = self.place.data.clone();
        let held = blocking("looking at the data directory", FILES_LIMIT, move || look(&data)).await?;
        match held {
            Content::Nothing => Ok(Found::Empty),
            Content::Other(why) => Ok(Found::Foreign { why }),
            Content::Cluster(major) if major != self.install.release.major => Err(PgError::refused(
                self.place.data.display().to_string(),
                format!(
                    "it is of PostgreSQL {major}, and {} was chosen to run it",
                    self.install.release
                ),
            )),
            Content::Cluster(major) => Ok(Found::Cluster {
                major,
                control: Box::new(self.control().await?),
            }),
        }
    }

    /// The end of its log on disk. With a server running it is at least what was on disk when the call began.
    ///
    /// # Errors
    /// As [`wal::log_end`] and [`Self::control`].
    pub async fn log_end(&self) -> Result<DiskLog> {
        let control = self.control().await?;
        wal::log_end(&self.place.data, &control).await
    }

    /// The postmaster that runs in the data directory, if one does.
    pub fn postmaster(&self) -> Option<u32> {
        postmaster(&self.place.data)
    }

    pub(super) fn must_be_stopped(&self, what: &str) -> Result<()> {
        match self.postmaster() {
            Some(pid) => Err(PgError::refused(what, format!("a server runs there (process {pid})"))),
            None => Ok(()),
        }
    }

    /// Makes a new cluster of databases: checksums, UTF-8, and nobody enters but through the socket. The directory must
    /// be empty.
    ///
    /// # Errors
    /// [`PgError::Refused`] if the directory is not empty; [`PgError::Tool`]. What a failure leaves is removed by
    /// [`Self::repair`].
    pub async fn create(&self, settings: &Settings) -> Result<ControlData> {
        let held = self.gate.enter().await?;
        match self.inspect().await? {
            Found::Empty => {}
            other => {
                return Err(PgError::refused(
                    format!("initdb in {}", self.place.data.display()),
                    format!("it is not empty: {other:?}"),
                ));
            }
        }
        let work = self.marks.work().await?;
        let begun = Work {
            step: Some(Step::Create),
            kept: work.kept.clone(),
        };
        self.marks.set_work(begun).await?;
        self.make_dir(&self.place.data).await?;
        // A locale that sorts the same on every machine and after every upgrade of its C library.
        let made = self.initdb(&held, "C.UTF-8").await;
        if let Err(e) = made {
            let unknown = matches!(&e, PgError::Tool { why, .. } if why.contains("locale"));
            if !unknown {
                return Err(e);
            }
            self.initdb(&held, "C").await?;
        }
        self.configure(settings).await?;
        conf::set_standby(&self.place, &self.account, false).await?;
        let control = self.control().await?;
        let done = Work {
            step: None,
            kept: work.kept,
        };
        self.marks.set_work(done).await?;
        Ok(control)
    }

    async fn initdb(&self, held: &Held, locale: &str) -> Result<()> {
        let program = self.install.program("initdb");
        Tool::new(&program, &self.account, CREATE_LIMIT)
            .arg("-D")
            .arg(&self.place.data)
            .args([
                "--data-checksums",
                "--encoding=UTF8",
                "--auth-local=peer",
                "--auth-host=reject",
            ])
            .arg(format!("--username={}", conf::access::SUPERUSER))
            .arg(format!("--locale={locale}"))
            .run(Some(held))
            .await
            .map(drop)
    }

    /// Writes the configuration. Returns whether it changed.
    ///
    /// # Errors
    /// As [`conf::render`] and [`conf::write`].
    pub async fn configure(&self, settings: &Settings) -> Result<bool> {
        let files = conf::render(&self.place, &self.account, &self.with_carried(settings))?;
        conf::write(&self.place, &self.account, files).await
    }

    /// The settings with what was taken over with the directory, where they do not say otherwise.
    fn with_carried(&self, settings: &Settings) -> Settings {
        let carried = self.carried.lock().unwrap_or_else(PoisonError::into_inner);
        carried.below(settings)
    }

    pub(super) fn set_carried(&self, carried: Carried) {
        *self.carried.lock().unwrap_or_else(PoisonError::into_inner) = carried;
    }

    /// Asks the programs themselves whether a server could start with these settings: values, not only names, are
    /// checked. The directory must hold a cluster; nothing in it changes.
    ///
    /// # Errors
    /// [`PgError::Refused`] with the server's words.
    pub async fn check(&self, settings: &Settings) -> Result<()> {
        let trial = Place {
            work: self.place.work.join("trial"),
            ..self.place.clone()
        };
        let files = conf::render(&trial, &self.account, &self.with_carried(settings))?;
        conf::write_trial(&trial, &self.account, files).await?;
        let program = self.install.program("postgres");
        let tried = Tool::new(&program, &self.account, FILES_LIMIT)
            .arg("-D")
            .arg(&self.place.data)
            .arg("-c")
            .arg(format!("config_file={}", conf::run_file(&trial).display()))
            .args(["-C", "data_directory"])
            .finish(None, |_| ())
            .await?;
        if tried.code == Some(0) {
            return Ok(());
        }
        // What is wrong stands before the line that says that something is.
        let telling = tried.stderr.lines().find_map(|l| l.split_once("LOG:"));
        let why = telling.map_or_else(|| tried.failure("postgres").to_string(), |(_, why)| one_line(why));
        Err(PgError::refused("the group's parameters", why))
    }

    /// Makes an empty directory of the account's, and what leads to it where it is missing.
    pub(super) async fn make_dir(&self, dir: &Path) -> Result<()> {
        let (dir, account) = (dir.to_owned(), self.account.clone());
        blocking("making a directory", FILES_LIMIT, move || {
            let mut missing: Vec<&Path> = dir.ancestors().skip(1).take_while(|d| !d.exists()).collect();
            missing.reverse();
            for dir in missing.into_iter().chain([dir.as_path()]) {
                private_dir(dir).map_err(PgError::files(dir))?;
                account.give(dir).map_err(PgError::files(dir))?;
                sync_parent(dir).map_err(PgError::files(dir))?;
            }
            Ok(())
        })
        .await
    }
}

enum Content {
    Nothing,
    Cluster(u32),
    Other(String),
}

fn look(data: &Path) -> Result<Content> {
    let entries = match std::fs::read_dir(data) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Content::Nothing),
        entries => entries.map_err(PgError::files(data))?,
    };
    let mut first = None;
    for entry in entries {
        let name = entry.map_err(PgError::files(data))?.file_name();
        // What a new file system has in it from the start.
        if name != "lost+found" {
            first.get_or_insert(name);
        }
    }
    let Some(first) = first else {
        return Ok(Content::Nothing);
    };
    if data.join("PG_VERSION").is_file() && data.join("global/pg_control").is_file() {
        return major_release(data).map(Content::Cluster);
    }
    Ok(Content::Other(format!(
        "{} holds {} and no cluster of databases",
        data.display(),
        Path::new(&first).display()
    )))
}
