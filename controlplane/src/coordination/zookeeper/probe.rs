//! Asking one server, without the client crate: does it serve, and which session timeout does it grant?
//!
//! It must never leave a session behind on the server, nor wait longer than its limit.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::super::{CoordError, Result};
use super::look::look_at_server;
use super::wire::{self, ConnectRequest, ConnectResponse};

/// The longest a server is waited for.
const LIMIT: Duration = Duration::from_secs(2);

/// What one server says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerStatus {
    /// The server asked, `host:port`.
    pub host: String,
    /// The session timeout it grants when asked for the cluster's.
    pub negotiated_timeout: Duration,
    /// How long it took to open a session, which is one write agreed on by the ensemble.
    pub latency: Duration,
    /// `leader`, `follower`, `observer` or `standalone`, if it tells.
    pub mode: Option<String>,
    /// Its version, if it tells.
    pub version: Option<String>,
}

/// Asks one server for a session of `session_timeout`, closes that again, and reads what `srvr` says where it is
/// allowed. Takes 4 s at most.
///
/// # Errors
/// [`CoordError::Unavailable`], naming the server and the reason, where it grants no session.
pub async fn probe_server(host: &str, session_timeout: Duration) -> Result<ServerStatus> {
    let address = with_port(host);
    let (negotiated_timeout, latency) = negotiate(&address, session_timeout).await?;
    let look = look_at_server(&address).await.unwrap_or_default();
    Ok(ServerStatus {
        host: address,
        negotiated_timeout,
        latency,
        mode: look.mode,
        version: look.version,
    })
}

/// The timeout a server grants, and the time that took.
pub(super) async fn negotiate(address: &str, session_timeout: Duration) -> Result<(Duration, Duration)> {
    let asked = timeout(LIMIT, ask(address, session_timeout)).await;
    match asked {
        Ok(Ok(granted)) => Ok(granted),
        Ok(Err(e)) => Err(unreachable(address, &e)),
        Err(_) => Err(CoordError::Unavailable(format!(
            "{address}: no answer within {} s",
            LIMIT.as_secs()
        ))),
    }
}

async fn ask(address: &str, session_timeout: Duration) -> std::io::Result<(Duration, Duration)> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let begun = Instant::now();
    stream
        .write_all(&ConnectRequest::new_session(session_timeout).frame())
        .await?;
    let response = ConnectResponse::parse(&wire::read_frame(&mut stream).await?).ok_or_else(not_zookeeper)?;
    let latency = begun.elapsed();
    let granted = u64::try_from(response.timeout_ms).map_err(|_| not_zookeeper())?;
    // The answer is waited for: only then is the session gone.
    stream.write_all(&wire::close_frame()).await?;
    let _ = wire::read_frame(&mut stream).await;
    Ok((Duration::from_millis(granted), latency))
}

/// Refuses a server that grants another session timeout than was asked for: leases are computed from it.
pub(super) fn check_granted(address: &str, asked: Duration, granted: Duration) -> Result<()> {
    if asked == granted {
        return Ok(());
    }
    let setting = if granted > asked {
        "minSessionTimeout"
    } else {
        "maxSessionTimeout"
    };
    Err(CoordError::Misconfigured(format!(
        "the ZooKeeper server {address} grants a session timeout of {:.1} s where the cluster uses {:.1} s, so leases would be \
         wrong: change {setting} there (without it, 2 to 20 times tickTime are granted)",
        granted.as_secs_f64(),
        asked.as_secs_f64(),
    )))
}

/// Why a server cannot be used, with its name.
pub(super) fn unreachable(address: &str, e: &std::io::Error) -> CoordError {
    use std::io::ErrorKind::{ConnectionRefused, ConnectionReset, UnexpectedEof};
    CoordError::Unavailable(match e.kind() {
        ConnectionRefused => format!("{address}: connection refused"),
        UnexpectedEof | ConnectionReset => {
            format!("{address}: it closed the connection (without a quorum it serves nobody)")
        }
        _ => format!("{address}: {e}"),
    })
}

/// The address with ZooKeeper's port where none is given.
pub(super) fn with_port(host: &str) -> String {
    let host = host.trim();
    let named = host.rsplit_once(':').is_some_and(|(h, port)| {
        port.parse::<u16>().is_ok() && (!h.contains(':') || (h.starts_with('[') && h.ends_with(']')))
    });
    match host {
        _ if named => host.to_owned(),
        _ if host.contains(':') && !host.starts_with('[') => format!("[{host}]:2181"),
        _ => format!("{host}:2181"),
    }
}

fn not_zookeeper() -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, "not a ZooKeeper server")
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[test]
    fn ports() {
        for (given, address) in [
            ("zk1", "zk1:2181"),
            ("zk1:22", "zk1:22"),
            ("10.0.0.1", "10.0.0.1:2181"),
            ("::1", "[::1]:2181"),
            ("[::1]:3", "[::1]:3"),
            ("[::1]", "[::1]:2181"),
        ] {
            assert_eq!(with_port(given), address);
        }
    }

    #[test]
    fn another_timeout_is_refused_by_name() {
        let s = Duration::from_secs;
        assert!(check_granted("zk1:2181", s(6), s(6)).is_ok());
        let e = check_granted("zk1:2181", s(6), s(10)).unwrap_err().to_string();
        assert!(
            e.contains("zk1:2181") && e.contains("minSessionTimeout") && e.contains("6.0 s"),
            "{e}"
        );
        assert!(
            check_granted("zk1:2181", s(6), s(4))
                .unwrap_err()
                .to_string()
                .contains("maxSessionTimeout")
        );
    }

    #[tokio::test]
    async fn a_silent_server_and_one_that_talks_nonsense_are_named() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap().to_string();
        let e = probe_server(&address, Duration::from_secs(6))
            .await
            .unwrap_err()
            .to_string();
        assert!(e.contains(&address) && e.contains("no answer"), "{e}");
        let nonsense = tokio::spawn(async move {
            // The first in the queue is the question above, given up by now.
            for _ in 0..2 {
                let (mut stream, _) = silent.accept().await.unwrap();
                let _ = stream.write_all(&[0xff; 64]).await;
                let _ = stream.read(&mut [0; 64]).await;
            }
        });
        let e = probe_server(&address, Duration::from_secs(6))
            .await
            .unwrap_err()
            .to_string();
        assert!(e.contains("not a ZooKeeper server"), "{e}");
        nonsense.abort();
    }
}
