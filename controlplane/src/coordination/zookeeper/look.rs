//! A glance at a server that leaves no trace: `srvr` and `conf` open no session, so watching the servers writes nothing.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::{CoordError, Result};
use super::probe::{unreachable, with_port};

/// Time for the whole glance.
const LIMIT: Duration = Duration::from_secs(2);
/// Longest answer that is read, bytes.
const MAX_ANSWER: u64 = 4096;

/// What a server tells of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerLook {
    /// `leader`, `follower`, `observer` or `standalone`; none where `srvr` is not allowed.
    pub mode: Option<String>,
    /// Its version; none where `srvr` is not allowed.
    pub version: Option<String>,
    /// The time after which it gives a silent leader up (`tickTime × syncLimit`); none where `conf` is not allowed, or
    /// where it runs alone.
    pub sync_timeout: Option<Duration>,
}

/// Asks a server what it is. Takes 4 s at most.
///
/// # Errors
/// [`CoordError::Unavailable`] with the reason if it does not answer, or serves nobody for want of a quorum.
pub async fn look_at_server(host: &str) -> Result<ServerLook> {
    let address = with_port(host);
    let answer = match timeout(LIMIT, ask(&address, b"srvr")).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(e)) => return Err(unreachable(&address, &e)),
        Err(_) => {
            return Err(CoordError::Unavailable(format!(
                "{address}: no answer in {} s",
                LIMIT.as_secs()
            )));
        }
    };
    if answer.contains("not currently serving requests") {
        return Err(CoordError::Unavailable(format!(
            "{address}: it has no quorum and serves nobody"
        )));
    }
    let settings = timeout(LIMIT, ask(&address, b"conf")).await;
    Ok(ServerLook {
        sync_timeout: settings.ok().and_then(|a| sync_timeout(&a.ok()?)),
        ..read(&answer)
    })
}

async fn ask(address: &str, command: &[u8; 4]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(command).await?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer).await?;
    Ok(answer)
}

/// From what `conf` says: `tickTime` in milliseconds, `syncLimit` in ticks.
fn sync_timeout(answer: &str) -> Option<Duration> {
    let value = |key: &str| {
        answer
            .lines()
            .find_map(|l| l.strip_prefix(key)?.trim().parse::<u64>().ok())
    };
    Some(Duration::from_millis(
        value("tickTime=")?.saturating_mul(value("syncLimit=")?),
    ))
}

fn read(answer: &str) -> ServerLook {
    let value = |key: &str| answer.lines().find_map(|l| l.strip_prefix(key)).map(str::trim);
    let clean = |v: &str| v.chars().filter(|c| !c.is_control()).take(40).collect::<String>();
    ServerLook {
        mode: value("Mode:").map(clean),
        version: value("Zookeeper version:")
            .and_then(|v| v.split(['-', ',']).next())
            .map(clean),
        sync_timeout: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let look =
            read("Zookeeper version: 3.8.0--1, built on 2022-11-11\nLatency min/avg/max: 0/0.0/0\nMode: follower\n");
        assert_eq!(look.mode.as_deref(), Some("follower"));
        assert_eq!(look.version.as_deref(), Some("3.8.0"));
        assert_eq!(
            read("srvr is not executed because it is not in the whitelist."),
            ServerLook::default()
        );
    }

    #[test]
    fn settings() {
        let ensemble = "clientPort=2181\ntickTime=500\nmaxClientCnxns=60\nserverId=1\ninitLimit=20\nsyncLimit=4\n";
        assert_eq!(sync_timeout(ensemble), Some(Duration::from_secs(2)));
        for alone in [
            "tickTime=500\nserverId=0\n",
            "conf is not executed because it is not in the whitelist.",
            "",
        ] {
            assert_eq!(sync_timeout(alone), None, "{alone}");
        }
    }
}
