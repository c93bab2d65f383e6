//! Settling writes whose reply was lost.
//!
//! A lost reply is neither success nor failure. A compare-and-set is settled by a write id inside the value: read again;
//! if it is there, the write was carried out; if the version is still the expected one the first write may yet arrive, so
//! the *same* value is set again under the same version: one of the two wins, and both are this write. An ephemeral is
//! settled by its owner. (Rule R3 of the protocol.)

use super::{CoordError, Coordinator, CreateMode, Result, Stat};

/// How often an unknown outcome is looked at again before the session is given up.
const ATTEMPTS: usize = 5;

/// Compare-and-set that settles an unknown outcome.
///
/// `mine` recognises this very write in a stored value (by its write id).
///
/// # Errors
/// [`CoordError::BadVersion`] if another write came first; [`CoordError::Unknown`] if it could not be settled while the
/// session lived; whatever else the coordinator reports.
pub async fn compare_and_set(
    c: &dyn Coordinator,
    path: &str,
    data: &[u8],
    version: i32,
    mine: impl Fn(&[u8]) -> bool,
) -> Result<Stat> {
    let mut unknown = false;
    for _ in 0..ATTEMPTS {
        match c.compare_and_set(path, data, version).await {
            Ok(stat) => return Ok(stat),
            // After an unknown outcome a changed version may be one's own first write.
            Err(CoordError::BadVersion(p)) if unknown => {
                return match c.read(path).await {
                    Ok((stored, stat)) if mine(&stored) => Ok(stat),
                    Ok(_) => Err(CoordError::BadVersion(p)),
                    Err(CoordError::Unknown(_) | CoordError::Unavailable(_)) => continue,
                    Err(e) => Err(e),
                };
            }
            Err(CoordError::Unknown(_)) => unknown = true,
            Err(CoordError::Unavailable(_)) if unknown => {}
            Err(e) => return Err(e),
        }
        wait_live(c).await?;
    }
    Err(CoordError::Unknown(path.to_owned()))
}

/// Creates a node with a fixed name, settling an unknown outcome by `mine`.
///
/// # Errors
/// [`CoordError::Exists`] if somebody else's node is there, otherwise as [`compare_and_set`].
pub async fn create(
    c: &dyn Coordinator,
    path: &str,
    data: &[u8],
    mode: CreateMode,
    mine: impl Fn(&[u8], &Stat) -> bool,
) -> Result<Stat> {
    let mut unknown = false;
    for _ in 0..ATTEMPTS {
        match c.create(path, data, mode).await {
            Ok((_, stat)) => return Ok(stat),
            Err(CoordError::Exists(p)) if unknown => {
                return match c.read(path).await {
                    Ok((stored, stat)) if mine(&stored, &stat) => Ok(stat),
                    Ok(_) => Err(CoordError::Exists(p)),
                    Err(CoordError::Unknown(_) | CoordError::Unavailable(_) | CoordError::NotFound(_)) => continue,
                    Err(e) => Err(e),
                };
            }
            Err(CoordError::Unknown(_)) => unknown = true,
            Err(CoordError::Unavailable(_)) if unknown => {}
            Err(e) => return Err(e),
        }
        wait_live(c).await?;
    }
    Err(CoordError::Unknown(path.to_owned()))
}

/// Reads a node as it is now or later, never older: what a server that lags behind may answer otherwise (protocol R2).
///
/// # Errors
/// What the coordinator reports; nothing may be begun on it.
pub async fn read_fresh(c: &dyn Coordinator, path: &str) -> Result<(Vec<u8>, Stat)> {
    c.confirm().await?;
    c.read(path).await
}

/// Waits until the session is live again.
///
/// # Errors
/// [`CoordError::SessionLost`] once it is over.
pub async fn wait_live(c: &dyn Coordinator) -> Result<()> {
    use super::SessionState;
    let mut state = c.state();
    loop {
        match &*state.borrow_and_update() {
            SessionState::Live => return Ok(()),
            SessionState::Lost(why) => return Err(CoordError::SessionLost(why.clone())),
            SessionState::Suspended => {}
        }
        if state.changed().await.is_err() {
            return Err(CoordError::SessionLost("the session was dropped".into()));
        }
    }
}
