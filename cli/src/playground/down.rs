//! `hactl playground down`: ends the processes, then forgets the context and the data.

use std::time::{Duration, Instant};

use ha_proto::codes;

use super::control::{self, Request};
use super::place::{Place, Record};
use super::system::{self, Running};
use super::{DownArgs, guards, logs};
use crate::args::Globals;
use crate::context::Store;
use crate::error::{CliError, file_error};
use crate::output::Out;
use crate::output::notes::Notes;

/// Longest time for the supervisor to be gone after its children are.
const GONE: Duration = Duration::from_secs(5);

/// Runs `down`.
///
/// # Errors
/// `HA0902` if there is nothing to end, `HA0904` if it does not end.
pub(super) async fn run(args: &DownArgs, globals: &Globals) -> Result<(), CliError> {
    let notes = Out::new(globals).notes;
    let place = Place::find(args.place.dir.as_deref(), system::is_root())?;
    let record = Record::load(&place)?.ok_or_else(|| none(&place))?;
    end(&place, &record, args.keep, notes).await?;
    notes.say(&format!("playground {} is gone", record.cluster));
    Ok(())
}

/// There is no playground in this place.
pub(super) fn none(place: &Place) -> CliError {
    CliError::new(
        codes::PLAYGROUND_NONE,
        format!("there is no playground in {}", place.dir().display()),
    )
    .next("hactl playground up", "starts one")
}

/// Ends everything of this playground. Data and logs stay if `keep`.
///
/// # Errors
/// `HA0904` if a process does not end, `HA0002` if a file cannot be deleted.
pub(super) async fn end(place: &Place, record: &Record, keep: bool, notes: Notes) -> Result<(), CliError> {
    let lock = place.lock();
    let mut held = system::try_lock(&lock)?;
    if held.is_none() {
        let answer = control::ask(place, &Request::Down).await;
        let deadline = Instant::now() + GONE;
        let mut killed = false;
        loop {
            held = system::try_lock(&lock)?;
            if held.is_some() {
                break;
            }
            let late = Instant::now() >= deadline;
            if (answer.is_err() || late) && !killed {
                killed = true;
                // It hangs. What it wrote down is killed, as far as it still is what was written down.
                if let Some(running) = Running::load(&place.running()) {
                    notes.warn("the supervisor does not end by itself; its processes are killed");
                    running.kill();
                }
            } else if late {
                let error = CliError::new(codes::PLAYGROUND_FAILED, "the playground does not end");
                return Err(logs::explain(error, &place.log("supervisor")));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    forget_context(record, notes);
    if keep {
        notes.say(&format!("its logs are in {}", place.logs().display()));
        return Ok(());
    }
    clear(place, record, notes)?;
    // The lock goes last: until then nobody else takes the directory.
    let removed = std::fs::remove_file(&lock).and_then(|()| std::fs::remove_dir(place.dir()));
    removed.map_err(|e| file_error("delete", place.dir(), &e))?;
    drop(held);
    Ok(())
}

/// Takes the context away that the playground made; one of another cluster stays.
pub(super) fn forget_context(record: &Record, notes: Notes) {
    let store = Store::at(&record.contexts);
    let Ok(context) = store.load(&record.cluster) else {
        return;
    };
    if context.bundle.cluster_id == record.cluster_id
        && let Err(error) = store.remove(&record.cluster)
    {
        notes.warn(&format!("context {} stays: {error}", record.cluster));
    }
}

/// Clears the directory of a playground that does not run: kills what a crash may have left, and deletes everything but
/// the lock, which the caller holds.
///
/// # Errors
/// `HA0002` if something cannot be deleted.
pub(super) fn clear(place: &Place, record: &Record, notes: Notes) -> Result<(), CliError> {
    if let Some(running) = Running::load(&place.running()) {
        running.kill();
    }
    guards::kill(place);
    forget_context(record, notes);
    let dir = place.dir();
    let failed = |path: &std::path::Path, e: std::io::Error| file_error("delete", path, &e);
    let entries = std::fs::read_dir(dir).map_err(|e| failed(dir, e))?;
    // The record goes last, so that a directory that was cleared in part is still known for a playground's.
    let kept = [place.lock(), place.record()];
    for entry in entries
        .filter_map(Result::ok)
        .map(|e| e.path())
        .filter(|path| !kept.contains(path))
    {
        let directory = entry.symlink_metadata().is_ok_and(|m| m.is_dir());
        let removed = if directory {
            std::fs::remove_dir_all(&entry)
        } else {
            std::fs::remove_file(&entry)
        };
        removed.map_err(|e| failed(&entry, e))?;
    }
    std::fs::remove_file(place.record()).map_err(|e| failed(&place.record(), e))
}
