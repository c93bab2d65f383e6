//! What an instance keeps on disk beside PostgreSQL's own files: what it refused and promised. Each change is on disk,
//! with its directory, before the step that it announces.
//!
//! A file that cannot be read is never taken for an empty one: an instance that does not know what it promised must not
//! run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::{PgError, Result, blocking};
use crate::platform::{private_dir, write_atomic};

const LIMIT: Duration = Duration::from_secs(10);
const FILE: &str = "marks.json";
/// Work on the directory, see [`Work`].
const WORK: &str = "work.json";

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Marks {
    /// Every epoch below this one is refused (protocol step 3).
    #[serde(default)]
    pub refused: u64,
    /// The instance may have been promoted in this epoch (protocol step 7).
    #[serde(default)]
    pub promotion: Option<u64>,
    /// Number of the last start of the server; 0 before the first.
    #[serde(default)]
    pub incarnation: u64,
    /// The epoch that made each timeline of the directory's log, as far as it is known here.
    #[serde(default)]
    pub timelines: BTreeMap<u32, u64>,
}

/// Work on a data directory: what is under way, and what earlier work left to be kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Work {
    /// What was begun and has not ended.
    #[serde(default)]
    pub step: Option<Step>,
    /// Former data directories, kept until the present one streams.
    #[serde(default)]
    pub kept: Vec<PathBuf>,
}

/// A step of work on a data directory. What it leaves behind after a crash is told by this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// initdb. The directory holds nothing of value.
    Create,
    /// A base backup into a directory beside the data directory, which is as it was.
    Copy {
        /// The directory beside.
        beside: PathBuf,
    },
    /// The copy is complete; the directories change places.
    Swap {
        /// The directory beside.
        beside: PathBuf,
        /// Where the old one is to be kept.
        aside: PathBuf,
    },
    /// pg_rewind on the data directory itself. Until it ended well the directory must not be started.
    Rewind,
}

/// Reads and changes the marks of an instance.
#[derive(Debug, Clone)]
pub struct MarkStore {
    dir: PathBuf,
    present: Arc<Mutex<Marks>>,
}

impl MarkStore {
    /// Opens, or begins, the marks in a directory of the daemon's own.
    ///
    /// # Errors
    /// [`PgError::Files`]; [`PgError::Unreadable`] if the file is damaged.
    pub async fn open(dir: &Path) -> Result<Self> {
        let dir = dir.to_owned();
        blocking("reading the instance's marks", LIMIT, move || {
            private_dir(&dir).map_err(PgError::files(&dir))?;
            let present = read(&dir.join(FILE))?.unwrap_or_default();
            Ok(Self {
                dir,
                present: Arc::new(Mutex::new(present)),
            })
        })
        .await
    }

    /// What is on disk.
    pub fn get(&self) -> Marks {
        self.present.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the marks. They are on disk when this returns well; after an error either the old or the new ones are,
    /// and [`Self::get`] shows the old.
    ///
    /// # Errors
    /// [`PgError::Files`], [`PgError::TimedOut`].
    async fn change(&self, change: impl FnOnce(&mut Marks) + Send + 'static) -> Result<Marks> {
        let this = self.clone();
        blocking("writing the instance's marks", LIMIT, move || {
            // Held while writing: changes come one after the other, and each is made to what is on disk.
            let mut present = this.present.lock().unwrap_or_else(PoisonError::into_inner);
            let mut next = present.clone();
            change(&mut next);
            if next != *present {
                write(&this.dir.join(FILE), &next)?;
                present.clone_from(&next);
            }
            Ok(next)
        })
        .await
    }

    /// Refuses every epoch below `epoch`, for ever.
    ///
    /// # Errors
    /// [`PgError::Files`], [`PgError::TimedOut`].
    pub async fn refuse_below(&self, epoch: u64) -> Result<()> {
        self.change(move |m| m.refused = m.refused.max(epoch)).await.map(drop)
    }

    /// Marks that the instance is about to be promoted in `epoch`.
    ///
    /// # Errors
    /// [`PgError::Files`], [`PgError::TimedOut`].
    pub async fn promote_in(&self, epoch: u64) -> Result<()> {
        self.change(move |m| m.promotion = Some(epoch)).await.map(drop)
    }

    /// Takes the mark of a promotion away: its directory was rewound or replaced, or never held another's WAL.
    ///
    /// # Errors
    /// [`PgError::Files`], [`PgError::TimedOut`].
    pub async fn clear_promotion(&self) -> Result<()> {
        self.change(|m| m.promotion = None).await.map(drop)
    }

    /// Remembers which epochs made the timelines of the directory's log. What else was known of timelines is forgotten:
    /// they are not of this log.
    ///
    /// # Errors
    /// [`PgError::Files`], [`PgError::TimedOut`].
    pub async fn set_timelines(&self, timelines: BTreeMap<u32, u64>) -> Result<()> {
        self.change(move |m| m.timelines = timelines).await.map(drop)
    }

    /// Remembers the epoch of one more timeline.
    ///
    /// # Errors
    /// [`PgError::Files`], [`PgError::TimedOut`].
    pub async fn add_timeline(&self, timeline: u32, epoch: u64) -> Result<()> {
        let add = move |m: &mut Marks| {
            m.timelines.insert(timeline, epoch);
        };
        self.change(add).await.map(drop)
    }

    /// Takes the number of the next start.
    ///
    /// # Errors
    /// [`PgError::Files`], [`PgError::TimedOut`].
    pub async fn next_incarnation(&self) -> Result<u64> {
        self.change(|m| m.incarnation += 1).await.map(|m| m.incarnation)
    }

    /// The work on the directory that is under way, or was when a daemon ended.
    ///
    /// # Errors
    /// [`PgError::Files`], [`PgError::Unreadable`].
    pub async fn work(&self) -> Result<Work> {
        let path = self.dir.join(WORK);
        let read = move || read(&path).map(Option::unwrap_or_default);
        blocking("reading the instance's marks", LIMIT, read).await
    }

    /// Notes the work on the directory.
    ///
    /// # Errors
    /// [`PgError::Files`], [`PgError::TimedOut`].
    pub(super) async fn set_work(&self, work: Work) -> Result<()> {
        let path = self.dir.join(WORK);
        blocking("writing the instance's marks", LIMIT, move || write(&path, &work)).await
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match std::fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(PgError::files(path))?,
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|e| PgError::unreadable(path.display().to_string(), e.to_string()))
}

fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec(value).map_err(|e| PgError::unreadable("the marks", e.to_string()))?;
    write_atomic(path, &text).map_err(PgError::files(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn marks_outlive_the_daemon() {
        let dir = tempfile::tempdir().unwrap();
        let store = MarkStore::open(dir.path()).await.unwrap();
        assert_eq!(store.get(), Marks::default());
        store.refuse_below(7).await.unwrap();
        store.refuse_below(5).await.unwrap();
        store.promote_in(8).await.unwrap();
        store.set_timelines([(1, 1), (2, 4)].into()).await.unwrap();
        store.add_timeline(3, 8).await.unwrap();
        assert_eq!(store.next_incarnation().await.unwrap(), 1);
        assert_eq!(store.next_incarnation().await.unwrap(), 2);
        let beside = dir.path().join("data.copy");
        let work = Work {
            step: Some(Step::Copy { beside }),
            kept: vec!["/old".into()],
        };
        store.set_work(work.clone()).await.unwrap();

        let again = MarkStore::open(dir.path()).await.unwrap();
        let expected = Marks {
            refused: 7,
            promotion: Some(8),
            incarnation: 2,
            timelines: [(1, 1), (2, 4), (3, 8)].into(),
        };
        assert_eq!(again.get(), expected);
        assert_eq!(again.work().await.unwrap(), work);
        again.clear_promotion().await.unwrap();
        again.set_work(Work::default()).await.unwrap();
        assert_eq!(again.work().await.unwrap(), Work::default());
        assert_eq!(MarkStore::open(dir.path()).await.unwrap().get().promotion, None);
    }

    #[tokio::test]
    async fn damaged_marks_are_no_marks_to_start_from() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), b"{\"refused\":").unwrap();
        let e = MarkStore::open(dir.path()).await.unwrap_err();
        assert!(matches!(e, PgError::Unreadable { .. }), "{e}");
    }

    #[tokio::test]
    async fn a_mark_that_cannot_be_written_is_not_shown() {
        let dir = tempfile::tempdir().unwrap();
        let store = MarkStore::open(dir.path()).await.unwrap();
        std::fs::create_dir(dir.path().join("marks.json.new")).unwrap();
        assert!(store.refuse_below(3).await.is_err());
        assert_eq!(store.get().refused, 0);
    }
}
