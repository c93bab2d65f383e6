//! What a data directory says of itself without a server: `pg_controldata`, `PG_VERSION`, the pid file.
//!
//! Nothing here changes a directory.

use std::path::Path;
use std::time::Duration;

use ha_core::database::{Lsn, floors};

use super::command::Tool;
use super::error::{PgError, Result};
use super::install::Install;
use crate::platform::{Account, process_parent, working_dir};

const LIMIT: Duration = Duration::from_secs(20);

/// How the server of a directory ended, as its control file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterState {
    /// As a primary, in order.
    ShutDown,
    /// As a standby, in order.
    ShutDownInRecovery,
    /// As a primary, or it runs.
    InProduction,
    /// As a standby, or it runs.
    InArchiveRecovery,
    /// While it recovered from a crash, or it does.
    InCrashRecovery,
    /// While it was stopping.
    ShuttingDown,
    /// While it was starting for the first time.
    StartingUp,
}

impl ClusterState {
    /// Whether it stopped in order.
    pub fn is_clean(self) -> bool {
        matches!(self, Self::ShutDown | Self::ShutDownInRecovery)
    }

    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "shut down" => Self::ShutDown,
            "shut down in recovery" => Self::ShutDownInRecovery,
            "in production" => Self::InProduction,
            "in archive recovery" => Self::InArchiveRecovery,
            "in crash recovery" => Self::InCrashRecovery,
            "shutting down" => Self::ShuttingDown,
            "starting up" => Self::StartingUp,
            _ => return None,
        })
    }
}

/// The settings whose values a standby must not have lower than its primary (protocol, upkeep), with the names under
/// which the control file remembers the primary's.
pub const FLOORS: [(&str, &str); 5] = [
    (floors::NAMES[0], "max_connections setting"),
    (floors::NAMES[1], "max_worker_processes setting"),
    (floors::NAMES[2], "max_wal_senders setting"),
    (floors::NAMES[3], "max_prepared_xacts setting"),
    (floors::NAMES[4], "max_locks_per_xact setting"),
];

/// What the control file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlData {
    /// Which cluster of databases it is; all instances of a group have the same.
    pub system_id: u64,
    /// How it ended.
    pub state: ClusterState,
    /// Where the last checkpoint is.
    pub checkpoint: Lsn,
    /// Where recovery from it begins.
    pub redo: Lsn,
    /// Its timeline.
    pub timeline: u32,
    /// How far a standby must recover before it is consistent; 0 for a primary.
    pub min_recovery_end: Lsn,
    /// That position's timeline; 0 for a primary.
    pub min_recovery_timeline: u32,
    /// It is the copy of a base backup that was never recovered to its end.
    pub backup_unfinished: bool,
    /// Whether pages have checksums.
    pub checksums: bool,
    /// Whether hint bits are logged, which pg_rewind needs where there are no checksums.
    pub wal_log_hints: bool,
    /// Bytes of a WAL segment.
    pub segment_size: u64,
    /// Values of [`FLOORS`], in that order.
    pub floors: [u32; 5],
}

impl ControlData {
    /// Reads a directory's control file.
    ///
    /// # Errors
    /// [`PgError::Tool`] or [`PgError::Unreadable`].
    pub async fn read(install: &Install, account: &Account, data: &Path) -> Result<Self> {
        let program = install.program("pg_controldata");
        let told = Tool::new(&program, account, LIMIT)
            .arg("-D")
            .arg(data)
            .run(None)
            .await?;
        if let Some(warning) = told.stdout.lines().find(|l| l.starts_with("WARNING:")) {
            // A wrong checksum: nothing in it can be believed.
            return Err(PgError::unreadable(
                format!("the control file of {}", data.display()),
                warning,
            ));
        }
        Self::parse(&told.stdout)
            .map_err(|key| PgError::unreadable(format!("the control file of {}", data.display()), key))
    }

    /// Reads what `pg_controldata` prints. The error names the line that is missing or wrong.
    fn parse(text: &str) -> std::result::Result<Self, String> {
        let value = |key: &str| -> std::result::Result<&str, String> {
            let mut lines = text.lines().filter_map(|l| l.split_once(':'));
            lines
                .find(|(k, _)| k.trim() == key)
                .map(|(_, v)| v.trim())
                .ok_or_else(|| format!("{key:?} is missing"))
        };
        fn number<T: std::str::FromStr>(key: &str, text: &str) -> std::result::Result<T, String> {
            text.parse().map_err(|_| format!("{key:?} is {text:?}"))
        }
        let lsn = |key: &str| value(key).and_then(|v| number::<Lsn>(key, v));
        let int = |key: &str| value(key).and_then(|v| number::<u32>(key, v));
        let state = value("Database cluster state")?;
        let mut floors = [0; 5];
        for (floor, (_, key)) in floors.iter_mut().zip(FLOORS) {
            *floor = int(key)?;
        }
        Ok(Self {
            system_id: number("system id", value("Database system identifier")?)?,
            state: ClusterState::parse(state).ok_or_else(|| format!("the state is {state:?}"))?,
            checkpoint: lsn("Latest checkpoint location")?,
            redo: lsn("Latest checkpoint's REDO location")?,
            timeline: int("Latest checkpoint's TimeLineID")?,
            min_recovery_end: lsn("Minimum recovery ending location")?,
            min_recovery_timeline: int("Min recovery ending loc's timeline")?,
            backup_unfinished: lsn("Backup start location")? != Lsn(0)
                || value("End-of-backup record required")? != "no",
            checksums: int("Data page checksum version")? > 0,
            wal_log_hints: value("wal_log_hints setting")? == "on",
            segment_size: number("segment size", value("Bytes per WAL segment")?)?,
            floors,
        })
    }

    /// Whether pg_rewind can work on it.
    pub fn can_rewind(&self) -> bool {
        self.checksums || self.wal_log_hints
    }
}

/// The major release of a data directory.
///
/// # Errors
/// [`PgError::Files`] if there is no `PG_VERSION`, [`PgError::Unreadable`].
pub fn major_release(data: &Path) -> Result<u32> {
    let path = data.join("PG_VERSION");
    let text = std::fs::read_to_string(&path).map_err(PgError::files(&path))?;
    let text = text.trim();
    text.parse()
        .map_err(|_| PgError::unreadable(path.display().to_string(), format!("{text:?} is no release")))
}

/// The number in a directory's pid file, where no postmaster runs there any more.
pub(super) fn former_postmaster(data: &Path) -> Option<u32> {
    pid_file(data).filter(|_| postmaster(data).is_none())
}

fn pid_file(data: &Path) -> Option<u32> {
    let text = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
    text.lines().next()?.trim().parse().ok()
}

/// The postmaster of a directory, if one runs. Its pid file is believed only if the process works in this directory.
pub fn postmaster(data: &Path) -> Option<u32> {
    let pid = pid_file(data)?;
    let here = std::fs::canonicalize(data).ok()?;
    let there = working_dir(pid)?;
    // A backend works there too, and its number may have become that of a former postmaster.
    let is_child = process_parent(pid).and_then(working_dir).is_some_and(|dir| dir == here);
    (there == here && !is_child).then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = include_str!("tests/controldata.txt");

    #[test]
    fn the_control_file_is_read() {
        let c = ControlData::parse(TEXT).unwrap();
        assert_eq!(c.system_id, 7_649_330_112_345_678_901);
        assert_eq!((c.state, c.timeline), (ClusterState::ShutDownInRecovery, 2));
        assert_eq!(c.redo, "0/3000028".parse().unwrap());
        assert_eq!(
            (c.min_recovery_end, c.min_recovery_timeline),
            ("0/30001A8".parse().unwrap(), 2)
        );
        assert!(c.checksums && !c.wal_log_hints && c.can_rewind() && !c.backup_unfinished);
        assert_eq!((c.segment_size, c.floors), (16 << 20, [100, 8, 10, 0, 64]));
        assert!(c.state.is_clean());
    }

    #[test]
    fn what_is_missing_is_named() {
        let text = TEXT.replace("Latest checkpoint's TimeLineID", "Latest checkpoint's Zeitlinie");
        assert_eq!(
            ControlData::parse(&text).unwrap_err(),
            "\"Latest checkpoint's TimeLineID\" is missing"
        );
        let text = TEXT.replace("shut down in recovery", "on holiday");
        assert_eq!(ControlData::parse(&text).unwrap_err(), "the state is \"on holiday\"");
        assert!(ControlData::parse("").is_err());
    }

    #[test]
    fn a_pid_file_alone_proves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(postmaster(dir.path()), None);
        std::fs::write(
            dir.path().join("postmaster.pid"),
            format!("{}\n/x\n", std::process::id()),
        )
        .unwrap();
        assert_eq!(postmaster(dir.path()), None, "this process works elsewhere");
        std::fs::write(dir.path().join("PG_VERSION"), "15\n").unwrap();
        assert_eq!(major_release(dir.path()), Ok(15));
    }
}
