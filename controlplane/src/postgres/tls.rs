//! The node's certificate for PostgreSQL: its own copy, in a directory of its own, so that a server and libpq can read it.
//!
//! Certificate and key lie in one file: a renewal changes both at once, and a reload never finds a pair that does not
//! belong together.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{PgError, Result, blocking};
use super::place::Place;
use crate::platform::{Account, write_atomic_for};
pub use crate::security::NodePem;

const LIMIT: Duration = Duration::from_secs(10);

/// Certificate and key.
pub(super) fn own_file(tls: &Path) -> PathBuf {
    tls.join("node.pem")
}

/// The cluster's authority.
pub(super) fn authority_file(tls: &Path) -> PathBuf {
    tls.join("ca.pem")
}

/// Installs them for an instance. Returns whether they are others than before: a running server takes them over with a
/// reload, and connections that exist keep what they were made with.
///
/// # Errors
/// [`PgError::Files`].
pub async fn install(place: &Place, account: &Account, pem: NodePem) -> Result<bool> {
    let (tls, account) = (place.tls(), account.clone());
    blocking("installing the node's certificate", LIMIT, move || {
        let own = format!("{}\n{}\n", pem.certificate.trim_end(), pem.key.expose().trim_end());
        let mut changed = false;
        for (path, text) in [(authority_file(&tls), &pem.authority), (own_file(&tls), &own)] {
            if std::fs::read(&path).ok().as_deref() != Some(text.as_bytes()) {
                write_atomic_for(&account, &path, text.as_bytes()).map_err(PgError::files(&path))?;
                changed = true;
            }
        }
        Ok(changed)
    })
    .await
}
