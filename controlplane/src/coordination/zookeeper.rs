//! ZooKeeper's coordinator.

use std::time::Duration;

use super::{CoordError, Result};

/// How to reach the servers.
#[derive(Clone)]
pub struct ZooKeeperOptions {
    /// Servers, `host:port`.
    pub hosts: Vec<String>,
    /// The cluster's root, `/ha/<cluster>`.
    pub root: String,
    /// The session timeout.
    pub session_timeout: Duration,
    /// User of the access lists.
    pub digest_user: String,
    /// Password of that user.
    pub digest_password: String,
}

/// Opens sessions on real servers.
pub struct ZooKeeperConnector;

/// What a server says of itself.
pub struct ServerStatus;

/// Asks a server.
///
/// # Errors
/// Where it does not answer.
pub async fn probe_server(host: &str, _timeout: Duration) -> Result<ServerStatus> {
    Err(CoordError::Unavailable(host.into()))
}
