//! What an instance's files say: its directory, the end of its log, and the epochs of its timelines.
//!
//! The epoch of a timeline is on disk, in the marks, before it is told to anybody: after a crash nobody could tell any more
//! which of two servers made a timeline of the same number.

use std::path::Path;

use ha_core::database::local::{self, Directory};
use ha_core::database::{Branch, Lineage, Lsn, Names};

use super::kept::off_thread;
use crate::postgres::conf;
use crate::postgres::control_data::ControlData;
use crate::postgres::history::History;
use crate::postgres::instance::{Found, Instance};
use crate::postgres::{PgError, Result, wal};

/// What the files say.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Disk {
    /// The data directory.
    pub(super) directory: Directory,
    /// Its control file.
    pub(super) control: Option<ControlData>,
    /// The end of its log, and the histories of its timelines.
    pub(super) log: Option<(Lsn, Lineage)>,
    /// Whom it would stream from.
    pub(super) upstream: Option<local::Upstream>,
    /// Whom its commits would wait for.
    pub(super) names: Names,
    /// A start makes a standby.
    pub(super) standby: bool,
    /// Former directories are kept beside it.
    pub(super) kept: bool,
}

/// What helps to tell the epochs of timelines.
#[derive(Debug, Clone, Default)]
pub(super) struct Clues {
    /// Lineages of the record: what its primary's timelines are.
    pub(super) lineages: Vec<Lineage>,
    /// Whom the instance receives from now, if it runs.
    pub(super) upstream: Option<local::Upstream>,
}

pub(super) fn upstream(u: conf::Upstream) -> local::Upstream {
    local::Upstream {
        node: u.node,
        epoch: u.epoch,
    }
}

/// Looks at an instance's files. With a server running, the log reaches at least what was on disk when this began.
pub(super) async fn look(instance: &Instance, clues: &Clues) -> Result<Disk> {
    let found = instance.inspect().await?;
    let (stored, names) = match conf::stored(&instance.place).await {
        Ok(stored) => stored,
        // It was never configured.
        Err(PgError::Files { .. }) => (None, Names::Closed),
        Err(e) => return Err(e),
    };
    let stored = stored.map(upstream);
    let data = instance.place.data.clone();
    let (directory, control) = match found {
        Found::Empty => (Directory::Empty, None),
        Found::Incomplete { .. } => (Directory::Incomplete, None),
        Found::Foreign { why } => {
            return Err(PgError::Refused {
                what: data.display().to_string(),
                why,
            });
        }
        Found::Cluster { control, .. } => (
            Directory::Present {
                system_id: control.system_id,
            },
            Some(*control),
        ),
    };
    let kept = !instance.marks.work().await?.kept.is_empty();
    let mut log = None;
    if let Some(control) = &control {
        // The control file is not asked for twice: in a switchover clients wait for this.
        let end = wal::log_end(&data, control).await?;
        // What counts as flushed must be: the server may have died between a write and its flush.
        let wal = data.join("pg_wal");
        off_thread(move || sync_wal(&wal)).await?;
        let clues = Clues {
            upstream: clues.upstream.clone().or_else(|| stored.clone()),
            ..clues.clone()
        };
        log = Some((end.end, lineage(instance, &end.history, &clues).await?));
    }
    Ok(Disk {
        directory,
        control,
        log,
        upstream: stored,
        names,
        standby: conf::is_standby(&data),
        kept,
    })
}

/// Flushes the newest segments; those before were flushed when they were finished.
fn sync_wal(wal: &Path) -> Result<()> {
    let failed = |e: std::io::Error| PgError::Files {
        what: wal.display().to_string(),
        why: e.to_string(),
    };
    let mut names: Vec<_> = std::fs::read_dir(wal)
        .map_err(failed)?
        .flatten()
        .filter(|e| e.file_name().len() == 24)
        .filter_map(|e| Some((e.metadata().ok()?.modified().ok()?, e.path())))
        .collect();
    names.sort_unstable();
    for (_, path) in names.iter().rev().take(3) {
        match std::fs::File::open(path) {
            Ok(file) => file.sync_all().map_err(failed)?,
            // Recycled meanwhile by a server that runs.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed(e)),
        }
    }
    Ok(())
}

/// The lineage of a history, with the epochs of its timelines, which are in the marks when this returns.
pub(super) async fn lineage(instance: &Instance, history: &History, clues: &Clues) -> Result<Lineage> {
    let marks = instance.marks.get();
    let standby = conf::is_standby(&instance.place.data);
    let mut all = Vec::new();
    for (timeline, fork) in history.branches() {
        let known = marks.timelines.get(&timeline).copied();
        let (epoch, sure) = match known {
            Some(epoch) => (epoch, false),
            None => epoch(timeline, fork, marks.promotion, standby, clues),
        };
        if sure {
            instance.marks.add_timeline(timeline, epoch).await?;
        }
        all.push(Branch { epoch, timeline, fork });
    }
    Ok(Lineage(all))
}

/// The epoch that made a timeline, and whether that is to be remembered. A timeline that nobody announced was made here if
/// the instance was to be promoted and receives from nobody; otherwise it was received. What a standby received is in the
/// marks before it stops receiving, so that what a server that is none holds beside them was made past had, whatever its
/// number and its fork: it is of no epoch.
fn epoch(timeline: u32, fork: Lsn, promotion: Option<u64>, standby: bool, clues: &Clues) -> (u64, bool) {
    let recorded = clues
        .lineages
        .iter()
        .flat_map(|l| &l.0)
        .find(|b| b.timeline == timeline && b.fork == fork)
        .map(|b| b.epoch);
    match (promotion, &clues.upstream, recorded) {
        // One of the epoch of its own promotion, or nobody's else.
        (Some(own), None, Some(epoch)) if epoch <= own => (epoch, true),
        (Some(own), None, _) if timeline > 1 => (own, true),
        (None, None, Some(epoch)) if timeline > 1 && epoch > 0 && !standby => (0, true),
        (_, _, Some(epoch)) => (epoch, true),
        (_, Some(from), None) if timeline > 1 => (from.epoch, true),
        // From before the group was: nothing is known.
        _ => (0, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_of_timelines() {
        let branch = |epoch, timeline, fork| Branch {
            epoch,
            timeline,
            fork: Lsn(fork),
        };
        let record = Clues {
            lineages: vec![Lineage(vec![branch(1, 1, 0), branch(6, 3, 50)])],
            upstream: None,
        };
        let from = |clues: &Clues, epoch| Clues {
            upstream: Some(local::Upstream {
                node: "n2".into(),
                epoch,
            }),
            ..clues.clone()
        };
        // Received from the record's primary.
        assert_eq!(epoch(3, Lsn(50), None, true, &from(&record, 6)), (6, true));
        // Made here by a promotion that nobody recorded, with the same number and the same fork as another's.
        assert_eq!(epoch(3, Lsn(50), Some(5), false, &record), (5, true));
        assert_eq!(epoch(1, Lsn(0), Some(5), false, &record), (1, true));
        // Received before it was recorded.
        assert_eq!(epoch(4, Lsn(70), Some(5), true, &from(&record, 7)), (7, true));
        // A sealed standby's.
        assert_eq!(epoch(3, Lsn(50), None, true, &record), (6, true));
        // Made by hand, with the same number and the same fork as another's.
        assert_eq!(epoch(3, Lsn(50), None, false, &record), (0, true));
        assert_eq!(epoch(1, Lsn(0), None, false, &record), (1, true));
        // From before the group.
        assert_eq!(epoch(2, Lsn(9), None, false, &Clues::default()), (0, false));
        assert_eq!(epoch(1, Lsn(0), None, false, &Clues::default()), (0, false));
    }
}
