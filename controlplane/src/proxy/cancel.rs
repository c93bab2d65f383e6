//! Requests to cancel a query: a connection of their own, which knows a key and no server.
//!
//! The proxy does not know who holds the key, for it does not read what servers say, so every server that may is asked.
//! Those that do not know the key ignore it.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::port::Port;

/// Time for the servers to take it. No client waits for a new primary with this: its query ended with the old one.
const LIMIT: Duration = Duration::from_secs(5);

/// Passes the request on, and returns when every server has dealt with it.
pub(super) async fn pass(port: &Arc<Port>, request: &[u8]) {
    // More at once than this are no clients with second thoughts.
    let Ok(_place) = port.cancels.try_acquire() else {
        return;
    };
    port.counts.cancels.inc();
    let servers = port.cancel_targets();
    let asked = servers.iter().map(|address| timeout(LIMIT, ask(address, request)));
    for (address, asked) in servers.iter().zip(futures::future::join_all(asked).await) {
        if !matches!(asked, Ok(Ok(()))) {
            tracing::debug!(group = %port.group, server = %address, "a request to cancel a query did not get there");
        }
    }
}

async fn ask(address: &str, request: &[u8]) -> std::io::Result<()> {
    let mut server = TcpStream::connect(address).await?;
    server.write_all(request).await?;
    // A server closes the connection when it has sent the signal.
    let mut nothing = [0; 64];
    while server.read(&mut nothing).await? > 0 {}
    Ok(())
}
