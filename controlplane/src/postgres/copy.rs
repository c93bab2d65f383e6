//! A fresh copy of another instance: made beside the data directory, put in its place when it is whole.
//!
//! The old directory is kept aside until the new one streams, whatever happens between; [`Instance::repair`] leads every
//! state that a crash can leave back to one directory that is whole, old or new. Nothing is removed here that was not a
//! copy of had's own, but by [`Instance::drop_kept`].

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::command::{Held, Tool};
use super::conf::{self, Settings, Source};
use super::control_data::ControlData;
use super::error::{PgError, Result, blocking};
use super::instance::{Instance, REMOVE_LIMIT};
use super::marks::{Step, Work};
use super::place::Place;
use crate::platform::sync_parent;

/// A copy of a large database takes long; it ends much sooner when it stands still.
const COPY_LIMIT: Duration = Duration::from_secs(7 * 86_400);
/// Without a word of progress for so long it has stalled. The source's checkpoint, before the first, is spread over less.
const STALL: Duration = Duration::from_secs(300);
const QUESTION_LIMIT: Duration = Duration::from_secs(10);
const FILES_LIMIT: Duration = Duration::from_secs(30);
/// Begins the names of copies, after the data directory's own.
const COPY: &str = "had-copy-";
const ASIDE: &str = "had-old-";
const TABLESPACES: &str = "had-tablespaces";

/// How far a copy is, in bytes; the total is the source's estimate.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Send + Sync);

impl Instance {
    /// Copies another instance and puts the copy in the place of the data directory; the server here is stopped. The
    /// next start is one of a standby with these settings. `system_id` is the group's.
    ///
    /// # Errors
    /// [`PgError::Refused`] if a server runs here or the source is of another system id: nothing was changed then.
    /// [`PgError::Tool`], [`PgError::TimedOut`], [`PgError::Files`]: the data directory is as it was, unless the two were
    /// changing places; [`Self::repair`] ends that.
    pub async fn copy(
        &self,
        source: &Source,
        settings: &Settings,
        system_id: u64,
        progress: Progress<'_>,
    ) -> Result<ControlData> {
        let held = self.gate.enter().await?;
        self.must_be_stopped("a fresh copy")?;
        self.finish_left_over().await?;
        let work = self.marks.work().await?;
        let id = uuid::Uuid::new_v4().simple().to_string();
        let beside = self.place.beside(&format!("{COPY}{}", &id[..12]));
        let begun = |step| Work {
            step: Some(step),
            kept: work.kept.clone(),
        };
        let copying = Step::Copy { beside: beside.clone() };
        // A directory that was being rewound stays incomplete until it is replaced.
        if !matches!(work.step, Some(Step::Rewind)) {
            self.marks.set_work(begun(copying)).await?;
        }
        let made = self.copy_to(&held, &beside, source, settings, &id, progress).await;
        let control = match made {
            Ok(control) if control.system_id == system_id => control,
            other => {
                self.remove(vec![beside.clone()]).await?;
                if !matches!(work.step, Some(Step::Rewind)) {
                    self.marks.set_work(Work { step: None, ..work }).await?;
                }
                return Err(match other {
                    Ok(control) => PgError::refused(
                        format!("the copy of {}", source.node),
                        format!("its system id is {}, and the group's is {system_id}", control.system_id),
                    ),
                    Err(e) => e,
                });
            }
        };
        let aside = self.place.beside(&format!("{ASIDE}{}", &id[..12]));
        self.marks.set_work(begun(Step::Swap { beside, aside })).await?;
        self.finish_left_over().await?;
        Ok(control)
    }

    async fn copy_to(
        &self,
        held: &Held,
        beside: &Path,
        source: &Source,
        settings: &Settings,
        id: &str,
        progress: Progress<'_>,
    ) -> Result<ControlData> {
        self.make_dir(beside).await?;
        let program = self.install.program("pg_basebackup");
        let conninfo = source.backup(&self.place.tls(), &settings.cluster);
        let mut tool = Tool::new(&program, &self.account, COPY_LIMIT)
            .arg("-D")
            .arg(beside)
            .arg("-d")
            .arg(conninfo)
            .args(["-X", "stream", "--checkpoint=fast", "--progress", "--no-password"]);
        if let Some(slot) = &settings.slot {
            tool = tool.args(["-S", slot]);
        }
        for (oid, location) in self.tablespaces(source, settings).await? {
            let here = self.place.beside(TABLESPACES).join(id).join(&oid);
            self.make_dir(&self.place.beside(TABLESPACES)).await?;
            self.make_dir(&self.place.beside(TABLESPACES).join(id)).await?;
            self.make_dir(&here).await?;
            tool = tool.arg(format!(
                "--tablespace-mapping={}={}",
                location.replace('=', "\\="),
                here.display().to_string().replace('=', "\\=")
            ));
        }
        let ended = watched(tool, held, progress).await?;
        ended.success("pg_basebackup")?;
        let place = Place {
            data: beside.to_owned(),
            ..self.place.clone()
        };
        let files = conf::render(&place, &self.account, settings)?;
        conf::write(&place, &self.account, files).await?;
        conf::set_standby(&place, &self.account, true).await?;
        ControlData::read(&self.install, &self.account, beside).await
    }

    /// Asks another instance something, by psql: a row a line, columns divided by tabs.
    pub(super) async fn ask(&self, source: &Source, cluster: &str, sql: &str) -> Result<String> {
        let program = self.install.program("psql");
        let told = Tool::new(&program, &self.account, QUESTION_LIMIT)
            .args(["-X", "-A", "-t", "-w", "-q", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-c"])
            .arg(sql)
            .arg("-d")
            .arg(source.rewind(&self.place.tls(), cluster))
            .run(None)
            .await?;
        Ok(told.stdout)
    }

    /// Whether another instance can be reached and lets this node in, for streaming and for rewinding.
    ///
    /// # Errors
    /// [`PgError::Tool`] with psql's words.
    pub async fn check_source(&self, source: &Source, cluster: &str) -> Result<()> {
        self.ask(source, cluster, "SELECT 1").await?;
        let program = self.install.program("psql");
        Tool::new(&program, &self.account, QUESTION_LIMIT)
            .args(["-X", "-w", "-q", "-t", "-c", "IDENTIFY_SYSTEM", "-d"])
            .arg(format!(
                "{} replication='true'",
                source.backup(&self.place.tls(), cluster)
            ))
            .run(None)
            .await
            .map(drop)
    }

    async fn tablespaces(&self, source: &Source, settings: &Settings) -> Result<Vec<(String, String)>> {
        let sql = include_str!("sql/tablespaces.sql");
        let told = self.ask(source, &settings.cluster, sql).await?;
        let rows = told.lines().filter_map(|l| l.split_once('\t'));
        Ok(rows.map(|(oid, at)| (oid.to_owned(), at.to_owned())).collect())
    }

    /// Ends what a crash left half done, and removes what copies left behind. To be called before anything else is done
    /// to the directory.
    ///
    /// # Errors
    /// [`PgError::Files`]; [`PgError::Refused`] if somebody else changed the directories meanwhile.
    pub async fn repair(&self) -> Result<()> {
        let _held = self.gate.enter().await?;
        self.must_be_stopped("mending the data directory").or_else(|e| {
            // A server that runs proves that its directory is whole.
            tracing::debug!("{e}");
            Ok(())
        })?;
        self.finish_left_over().await
    }

    async fn finish_left_over(&self) -> Result<()> {
        let work = self.marks.work().await?;
        let mut kept = work.kept.clone();
        let step = match work.step {
            None => None,
            Some(Step::Rewind) => Some(Step::Rewind),
            Some(Step::Create) => {
                self.must_be_stopped("mending the data directory")?;
                self.remove(vec![self.place.data.clone()]).await?;
                None
            }
            // The copy is removed below, with all others.
            Some(Step::Copy { .. }) => None,
            Some(Step::Swap { beside, aside }) => {
                self.must_be_stopped("mending the data directory")?;
                if self.swap(&beside, &aside).await? {
                    kept.push(aside);
                }
                // What was promised and made belongs to the old directory.
                self.marks.clear_promotion().await?;
                self.marks.set_timelines(Default::default()).await?;
                None
            }
        };
        let done = Work { step, kept };
        if done != self.marks.work().await? {
            self.marks.set_work(done.clone()).await?;
        }
        let place = self.place.clone();
        let left = blocking("looking for left-overs", FILES_LIMIT, move || left_overs(&place, &done)).await?;
        self.remove(left).await
    }

    /// Lets the copy and the data directory change places, from whatever point. Returns whether there is an old one.
    async fn swap(&self, beside: &Path, aside: &Path) -> Result<bool> {
        let (data, beside, aside) = (self.place.data.clone(), beside.to_owned(), aside.to_owned());
        blocking("putting the copy in place", FILES_LIMIT, move || {
            let rename = |from: &Path, to: &Path| {
                std::fs::rename(from, to)
                    .and_then(|()| sync_parent(to))
                    .map_err(PgError::files(from))
            };
            if beside.exists() {
                if data.exists() {
                    if aside.exists() {
                        return Err(PgError::refused(
                            data.display().to_string(),
                            format!(
                                "it exists although it was moved to {}, and {} waits for its place: somebody else \
                                 changed them",
                                aside.display(),
                                beside.display()
                            ),
                        ));
                    }
                    rename(&data, &aside)?;
                }
                rename(&beside, &data)?;
            }
            Ok(aside.exists())
        })
        .await
    }

    /// Removes the former data directories: the present one streams.
    ///
    /// # Errors
    /// [`PgError::Files`], [`PgError::TimedOut`].
    pub async fn drop_kept(&self) -> Result<()> {
        let work = self.marks.work().await?;
        if work.kept.is_empty() {
            return Ok(());
        }
        self.remove(work.kept.clone()).await?;
        let now = self.marks.work().await?;
        let kept = now.kept.into_iter().filter(|k| !work.kept.contains(k)).collect();
        self.marks.set_work(Work { kept, ..now }).await
    }

    async fn remove(&self, all: Vec<PathBuf>) -> Result<()> {
        if all.is_empty() {
            return Ok(());
        }
        blocking("removing directories", REMOVE_LIMIT, move || {
            for dir in all {
                match std::fs::remove_dir_all(&dir) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(PgError::files(&dir)(e)),
                    _ => sync_parent(&dir).map_err(PgError::files(&dir))?,
                }
            }
            Ok(())
        })
        .await
    }
}

/// Copies that nobody waits for, and directories of tablespaces that no data directory leads to.
fn left_overs(place: &Place, work: &Work) -> Result<Vec<PathBuf>> {
    let dir = place.data.parent().unwrap_or(Path::new("/"));
    let copies = place.beside(COPY);
    let prefix = copies.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut left = Vec::new();
    let entries = match std::fs::read_dir(dir) {
        // It is made with the data directory.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(left),
        entries => entries.map_err(PgError::files(dir))?,
    };
    for entry in entries {
        let name = entry.map_err(PgError::files(dir))?.file_name();
        let path = dir.join(&name);
        if name.to_string_lossy().starts_with(&prefix) && !work.kept.contains(&path) {
            left.push(path);
        }
    }
    let spaces = place.beside(TABLESPACES);
    if let Ok(entries) = std::fs::read_dir(&spaces) {
        let mut used = BTreeSet::new();
        for data in work.kept.iter().chain([&place.data]) {
            let links = std::fs::read_dir(data.join("pg_tblspc"));
            let links = links.into_iter().flatten().flatten();
            used.extend(links.filter_map(|l| std::fs::read_link(l.path()).ok()));
        }
        let unused = |p: &PathBuf| !used.iter().any(|u| u.starts_with(p));
        left.extend(entries.flatten().map(|e| e.path()).filter(unused));
    }
    Ok(left)
}

/// Runs a program that tells of its progress, and ends it when it tells nothing for too long.
pub(super) async fn watched(tool: Tool<'_>, held: &Held, progress: Progress<'_>) -> Result<super::command::Ended> {
    let name = tool.name();
    let heard = Mutex::new(Instant::now());
    let run = tool.finish(Some(held), |words| {
        *heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
        if let Some((done, total)) = parse_progress(&String::from_utf8_lossy(words)) {
            progress(done, total);
        }
    });
    let stalled = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let last = *heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if last.elapsed() > STALL {
                return;
            }
        }
    };
    tokio::select! {
        ended = run => ended,
        () = stalled => Err(PgError::TimedOut {
            what: format!("{name}, which made no progress"),
            limit: STALL,
        }),
    }
}

/// `  1234/56789 kB (2%), …`: bytes done and in all. The last one counts.
fn parse_progress(text: &str) -> Option<(u64, u64)> {
    let (before, _) = text.rsplit_once(" kB (")?;
    let word = before.split_whitespace().next_back()?;
    let (done, total) = word.split_once('/')?;
    let kb = |n: &str| n.parse::<u64>().ok().map(|n| n.saturating_mul(1024));
    Some((kb(done)?, kb(total)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read() {
        assert_eq!(
            parse_progress("    0/22783 kB (0%), 0/1 tablespace\r 8192/22783 kB (35%), 0/1 tablespace\r"),
            Some((8192 << 10, 22783 << 10))
        );
        assert_eq!(
            parse_progress("40977/40977 kB (100%) copied"),
            Some((40977 << 10, 40977 << 10))
        );
        assert_eq!(parse_progress("pg_basebackup: waiting for checkpoint"), None);
    }
}
