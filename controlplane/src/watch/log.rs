//! Reading the change log in ZooKeeper, `changes/c-<seq>`.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use ha_core::{Change, change_name, change_seq, decode};
use ha_proto::codes;

use super::Answer;
use crate::coordination::{CoordError, Coordinator, Result};

const CHANGES: &str = "/changes";
/// Entries read at once.
const CHUNK: u64 = 64;
/// Reads under way at once.
const IN_FLIGHT: usize = 8;
/// A coordination call is bounded itself; this bounds the sum.
const LIMIT: Duration = Duration::from_secs(30);

enum Read {
    Entry(Box<Change>),
    Missing,
    Damaged,
}

/// Reads entries from `from` on, at most up to `to`; fewer are no error.
///
/// # Errors
/// What the session says.
pub async fn read(coordinator: &dyn Coordinator, from: u64, to: u64) -> Result<Answer> {
    tokio::time::timeout(LIMIT, read_chunk(coordinator, from, to))
        .await
        .unwrap_or_else(|_| {
            Err(CoordError::Unavailable(
                "the change log could not be read in time".into(),
            ))
        })
}

async fn read_chunk(coordinator: &dyn Coordinator, from: u64, to: u64) -> Result<Answer> {
    let to = to.min(from.saturating_add(CHUNK - 1));
    let mut reads = stream::iter(from..=to)
        .map(|seq| entry(coordinator, seq))
        .buffered(IN_FLIGHT);
    let mut entries = Vec::new();
    while let Some(read) = reads.next().await {
        match read? {
            Read::Entry(change) => entries.push(*change),
            // What comes after it is asked for again, then from it on.
            Read::Missing | Read::Damaged if !entries.is_empty() => break,
            Read::Damaged => return Ok(Answer::Hole { from, to: from }),
            Read::Missing => {
                drop(reads);
                return missing(coordinator, from).await;
            }
        }
    }
    Ok(Answer::Entries(entries))
}

/// Why the entry `from` is not there.
async fn missing(coordinator: &dyn Coordinator, from: u64) -> Result<Answer> {
    let kept = numbers(coordinator).await?;
    let Some(next) = kept.iter().copied().filter(|seq| *seq >= from).min() else {
        return Ok(Answer::NotYet);
    };
    Ok(match kept.iter().min() {
        // It came between the two reads.
        _ if next == from => Answer::NotYet,
        Some(first) if *first > from => Answer::Trimmed { kept: *first },
        _ => Answer::Hole { from, to: next - 1 },
    })
}

/// Number of the newest entry; 0 if there is none.
///
/// # Errors
/// What the session says.
pub async fn newest(coordinator: &dyn Coordinator) -> Result<u64> {
    Ok(numbers(coordinator).await?.into_iter().max().unwrap_or(0))
}

async fn numbers(coordinator: &dyn Coordinator) -> Result<Vec<u64>> {
    match coordinator.children(CHANGES).await {
        Ok(names) => Ok(names.iter().filter_map(|n| change_seq(n)).collect()),
        Err(CoordError::NotFound(_)) => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

async fn entry(coordinator: &dyn Coordinator, seq: u64) -> Result<Read> {
    let path = format!("{CHANGES}/{}", change_name(seq));
    let bytes = match coordinator.read(&path).await {
        Ok((bytes, _)) => bytes,
        Err(CoordError::NotFound(_)) => return Ok(Read::Missing),
        Err(e) => return Err(e),
    };
    Ok(match decode::<Change>(&path, &bytes) {
        Ok(change) if change.seq == seq => Read::Entry(Box::new(change)),
        Ok(change) => {
            damaged(&format!("{path}: holds the number {}", change.seq));
            Read::Damaged
        }
        Err(e) => {
            damaged(&e.to_string());
            Read::Damaged
        }
    })
}

fn damaged(why: &str) {
    tracing::error!(
        code = codes::BAD_STORED.id,
        "an entry of the change log is left out: {why}"
    );
}
