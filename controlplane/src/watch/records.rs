//! The records every daemon keeps at hand: who is master, and who may do what.
//!
//! A stored value that cannot be read never replaces a good one.

use std::time::Duration;

use futures::future::{Either, select};
use ha_core::{AccessRecord, Envelope, MasterRecord, decode};
use ha_proto::codes;

use crate::coordination::{CoordError, Coordinator, resolve};
use crate::shared::SharedTx;

/// Path of the record of who leads.
pub(crate) const MASTER: &str = "/master";
/// Path of the record of users and revocations.
pub(crate) const ACCESS: &str = "/access";

/// Keeps `tx.master` and `tx.access` as ZooKeeper has them, as long as the session lives. Returns why it ended.
pub async fn follow_records(coordinator: &dyn Coordinator, tx: &SharedTx) -> CoordError {
    let master = follow(coordinator, MASTER, |bytes| {
        let record = match bytes {
            Some(bytes) => decode::<MasterRecord>(MASTER, bytes)?,
            None => MasterRecord::default(),
        };
        tx.master.send_if_modified(|held| {
            let changed = *held != record;
            *held = record;
            changed
        });
        Ok(())
    });
    let access = follow(coordinator, ACCESS, |bytes| {
        let record = match bytes {
            Some(bytes) => decode::<Envelope<AccessRecord>>(ACCESS, bytes)?
                .value
                .unwrap_or_default(),
            // Revocations are never lifted by a record that is missing.
            None => return Ok(()),
        };
        tx.access.send_if_modified(|held| {
            let changed = **held != record;
            if changed {
                *held = record.into();
            }
            changed
        });
        Ok(())
    });
    match select(std::pin::pin!(master), std::pin::pin!(access)).await {
        Either::Left((why, _)) | Either::Right((why, _)) => why,
    }
}

/// Reads a node at each of its changes; returns when the session is over.
async fn follow(
    coordinator: &dyn Coordinator,
    path: &str,
    mut take: impl FnMut(Option<&[u8]>) -> Result<(), ha_core::StoredError>,
) -> CoordError {
    let mut complained = None;
    loop {
        let watch = match coordinator.read_and_watch(path).await {
            Ok((value, watch)) => {
                let modified = value.as_ref().map(|(_, stat)| stat.modified);
                match take(value.as_ref().map(|(bytes, _)| &**bytes)) {
                    Ok(()) => complained = None,
                    // Once for each value, not once for each look at it.
                    Err(_) if complained == Some(modified) => {}
                    Err(e) => {
                        complained = Some(modified);
                        tracing::error!(code = codes::BAD_STORED.id, "{e}; the last good value stays in use");
                    }
                }
                watch
            }
            Err(e @ CoordError::SessionLost(_)) => return e,
            Err(e) => {
                tracing::debug!("{path} could not be read: {e}");
                if let Err(lost) = resolve::wait_live(coordinator).await {
                    return lost;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        watch.fired().await;
    }
}
