//! Where an instance's log ends, read from its WAL on disk (protocol step 4).
//!
//! A server that restarted has forgotten what it had flushed and acknowledged before, and one that is stopped cannot be
//! asked. Reads only; may run beside a server, and then finds at least what was on disk when it began.

mod crc;
mod reader;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use ha_core::database::Lsn;

use self::reader::{Reader, Record, Step};
use super::control_data::ControlData;
use super::error::{PgError, Result, blocking};
use super::history::{self, History};

/// Reading takes a tenth of a second; a disk that takes longer than this does not answer.
const LIMIT: Duration = Duration::from_secs(30);

/// The end of a log on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskLog {
    /// End of the last whole record.
    pub end: Lsn,
    /// The timeline of that record and those it comes from.
    pub history: History,
}

impl DiskLog {
    /// The timeline of the last record.
    pub fn timeline(&self) -> u32 {
        self.history.timeline
    }
}

/// Finds the end of the log of a data directory whose control file was just read.
///
/// # Errors
/// [`PgError::Unreadable`] if the last checkpoint is not in the WAL; [`PgError::Files`]; [`PgError::TimedOut`].
pub async fn log_end(data: &Path, control: &ControlData) -> Result<DiskLog> {
    let (wal, control) = (data.join("pg_wal"), control.clone());
    blocking("reading the end of the log", LIMIT, move || find(&wal, &control)).await
}

/// The timelines of a data directory up to its newest.
///
/// # Errors
/// [`PgError::Files`], [`PgError::Unreadable`].
pub async fn history(data: &Path, timeline: u32) -> Result<History> {
    let wal = data.join("pg_wal");
    blocking("reading a timeline's history", LIMIT, move || {
        History::read(&wal, timeline)
    })
    .await
}

fn find(wal: &Path, control: &ControlData) -> Result<DiskLog> {
    let mut found = None;
    // The newest timeline first: a server that starts here follows it, if it comes from where the server was.
    for timeline in timelines(wal, control)?.into_iter().rev() {
        let history = match History::read(wal, timeline) {
            Ok(history) => history,
            Err(e) if timeline == control.timeline => return Err(e),
            Err(_) => continue,
        };
        let comes_from_here = match history.end_of(control.timeline) {
            None => false,
            Some(end) => end.is_none_or(|end| control.redo < end),
        };
        if !comes_from_here {
            continue;
        }
        let Some(last) = last_record(wal, control, &history) else {
            continue;
        };
        let own = history.timeline_at(last.start);
        let log = DiskLog {
            end: last.end,
            history: history.up_to(own).unwrap_or(history),
        };
        if own == timeline {
            return Ok(log);
        }
        // The timeline is announced, or its first segment is there, but none of its records.
        found = Some(log);
    }
    found.ok_or_else(|| {
        PgError::unreadable(
            wal.display().to_string(),
            format!(
                "the last checkpoint, at {} on timeline {}, is not in it",
                control.redo, control.timeline
            ),
        )
    })
}

/// Every timeline that the directory of WAL knows of.
fn timelines(wal: &Path, control: &ControlData) -> Result<BTreeSet<u32>> {
    let mut all = BTreeSet::from([control.timeline]);
    if control.min_recovery_timeline > 0 {
        all.insert(control.min_recovery_timeline);
    }
    for entry in std::fs::read_dir(wal).map_err(PgError::files(wal))? {
        let entry = entry.map_err(PgError::files(wal))?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
            continue;
        };
        let segment = name.len() == 24 && name.bytes().all(|b| b.is_ascii_hexdigit());
        let of_segment = segment.then(|| u32::from_str_radix(&name[..8], 16).ok()).flatten();
        all.extend(of_segment.or_else(|| history::timeline_of(&name)).filter(|t| *t > 0));
    }
    Ok(all)
}

/// The last whole record on the way from the checkpoint along a history.
fn last_record(wal: &Path, control: &ControlData, history: &History) -> Option<Record> {
    let size = control.segment_size;
    let mut reader = Reader::new(wal, history, size, control.system_id);
    let first = control.redo.0 / size;
    if !reader.has_segment(first) {
        return None;
    }
    let mut newest = first;
    while reader.has_segment(newest + 1) {
        newest += 1;
    }
    // A segment is on disk before the next is begun: only the last two need to be read record by record.
    let mut from = control.redo;
    for segment in (first + 1..newest).rev() {
        if let Some(start) = reader.first_record(segment) {
            from = start;
            break;
        }
    }
    walk(&mut reader, from)
}

fn walk(reader: &mut Reader<'_>, from: Lsn) -> Option<Record> {
    let (mut at, mut before, mut last) = (from, None, None);
    loop {
        match reader.record(at, before) {
            Step::Whole(record) => {
                (at, before) = (record.end, Some(record.start));
                last = Some(record);
            }
            Step::GivenUp(page) => (at, before) = (page, None),
            Step::End => return last,
        }
    }
}
