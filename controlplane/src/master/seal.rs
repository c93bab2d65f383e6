//! Sealing and reading stored values: a new master writes its term into each before it acts on any.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use ha_core::{Change, Envelope, MasterRecord, StoredError, change_name, decode, encode, is_write};
use serde::{Serialize, de::DeserializeOwned};

use super::store::{StoreError, Stored};
use crate::coordination::{CoordError, Coordinator, CreateMode, resolve};

/// Reads and seals under way at once.
pub(super) const PARALLEL: usize = 32;

type Result<T> = std::result::Result<T, StoreError>;

/// Seals one znode: its term becomes ours, so that a deposed master's later write fails.
pub(super) async fn seal<T: Serialize + DeserializeOwned + Clone>(
    c: &dyn Coordinator,
    path: &str,
    term: u64,
) -> Result<std::result::Result<Stored<T>, StoredError>> {
    loop {
        let (bytes, stat) = read(c, path).await?;
        let mut envelope = match decode::<Envelope<T>>(path, &bytes) {
            Ok(e) => e,
            Err(e) => return Ok(Err(e)),
        };
        if envelope.term > term {
            return match leading_term(c).await? {
                // Every term begins in the master's record: nobody can have written this.
                Some(led) if led < envelope.term => Ok(Err(StoredError::Malformed {
                    path: path.to_owned(),
                    why: format!("it has term {}, and the cluster is in term {led}", envelope.term),
                })),
                _ => Err(StoreError::Deposed(path.to_owned())),
            };
        }
        if envelope.term == term {
            return Ok(Ok(Stored {
                envelope,
                version: stat.version,
            }));
        }
        envelope.term = term;
        envelope.write = uuid::Uuid::new_v4().to_string();
        let write = envelope.write.clone();
        match resolve::compare_and_set(c, path, &encode(&envelope), stat.version, |b| is_write(b, &write)).await {
            Ok(stat) => {
                return Ok(Ok(Stored {
                    envelope,
                    version: stat.version,
                }));
            }
            // The one before us was still writing.
            Err(CoordError::BadVersion(_)) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// The term in the master's record, if that can be read.
async fn leading_term(c: &dyn Coordinator) -> Result<Option<u64>> {
    let (bytes, _) = read(c, "/master").await?;
    Ok(decode::<MasterRecord>("/master", &bytes).ok().map(|r| r.term))
}

/// Reads, waiting out a broken connection.
pub(super) async fn read(
    c: &dyn Coordinator,
    path: &str,
) -> std::result::Result<(Vec<u8>, crate::coordination::Stat), CoordError> {
    loop {
        match c.read(path).await {
            Err(CoordError::Unavailable(_) | CoordError::Unknown(_)) => resolve::wait_live(c).await?,
            other => return other,
        }
    }
}

pub(super) async fn children(c: &dyn Coordinator, path: &str) -> std::result::Result<Vec<String>, CoordError> {
    loop {
        match c.children(path).await {
            Err(CoordError::Unavailable(_) | CoordError::Unknown(_)) => resolve::wait_live(c).await?,
            other => return other,
        }
    }
}

/// A single value that cannot be read is led without, and left as it is: changing it is refused until it is mended.
pub(super) fn or_damaged<T>(
    path: &str,
    sealed: std::result::Result<Stored<T>, StoredError>,
    damaged: &mut BTreeMap<String, StoredError>,
) -> Stored<T> {
    sealed.unwrap_or_else(|e| {
        tracing::error!("{e}; it is left as it is");
        damaged.insert(path.to_owned(), e);
        Stored {
            envelope: Envelope::empty(),
            version: -1,
        }
    })
}

/// Values that were sealed, and values that cannot be read, by name and path.
pub(super) type Sealed<T> = (BTreeMap<String, Stored<T>>, Vec<(String, StoredError)>);

pub(super) async fn seal_folder<T: Serialize + DeserializeOwned + Clone + Send>(
    c: &dyn Coordinator,
    folder: &str,
    term: u64,
) -> Result<Sealed<T>> {
    let names = children(c, folder).await?;
    let mut sealed = stream::iter(names)
        .map(|name| async move {
            let path = format!("{folder}/{name}");
            let result = seal::<T>(c, &path, term).await?;
            Ok::<_, StoreError>((name, path, result))
        })
        .buffer_unordered(PARALLEL);
    let (mut good, mut bad) = (BTreeMap::new(), Vec::new());
    while let Some((name, path, result)) = sealed.try_next().await? {
        match result {
            Ok(stored) => drop(good.insert(name, stored)),
            Err(e) => bad.push((path, e)),
        }
    }
    Ok((good, bad))
}

/// Reads the entries `from..=to` of the change log, leaving out those that are gone or cannot be read.
///
/// # Errors
/// What the coordinator reports.
pub(super) async fn read_changes(
    c: &dyn Coordinator,
    from: u64,
    to: u64,
) -> std::result::Result<Vec<Change>, CoordError> {
    let mut entries = stream::iter(from..=to)
        .map(|seq| async move {
            let path = format!("/changes/{}", change_name(seq));
            match read(c, &path).await {
                Ok((bytes, _)) => Ok(decode::<Change>(&path, &bytes).ok().filter(|change| change.seq == seq)),
                Err(CoordError::NotFound(_)) => Ok(None),
                Err(e) => Err(e),
            }
        })
        .buffered(PARALLEL);
    let mut changes = Vec::new();
    while let Some(entry) = entries.try_next().await? {
        changes.extend(entry);
    }
    Ok(changes)
}

/// Makes sure of a folder: a cluster may have been made by a version that did not know it.
pub(super) async fn folder(c: &dyn Coordinator, path: &str) -> Result<()> {
    loop {
        match resolve::create(c, path, b"", CreateMode::Persistent, |_, _| true).await {
            Ok(_) | Err(CoordError::Exists(_)) => return Ok(()),
            Err(CoordError::Unavailable(_)) => resolve::wait_live(c).await?,
            Err(e) => return Err(e.into()),
        }
    }
}
