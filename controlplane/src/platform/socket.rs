//! What a long-lived TCP connection needs of the operating system.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpStream;

/// A peer that is silent for so long is asked whether it is still there, at this interval, and is given up after this many
/// questions: half a minute altogether.
const IDLE: Duration = Duration::from_secs(15);
const INTERVAL: Duration = Duration::from_secs(5);
const QUESTIONS: u32 = 3;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// Small messages are sent at once, and a peer that vanished is noticed.
///
/// # Errors
/// If the system refuses, for instance because the peer is gone already.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(IDLE).with_interval(INTERVAL);
    SockRef::from(stream).set_tcp_keepalive(&with_retries(keepalive))
}

#[cfg(unix)]
fn with_retries(keepalive: TcpKeepalive) -> TcpKeepalive {
    keepalive.with_retries(QUESTIONS)
}

#[cfg(windows)]
fn with_retries(keepalive: TcpKeepalive) -> TcpKeepalive {
    // Older releases cannot be told; ten is what they take.
    let _ = QUESTIONS;
    keepalive
}

/// Listens, with room for a crowd that comes back all at once after a failover.
///
/// # Errors
/// If the address is taken or not this machine's.
pub fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    share(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// A port can be taken over while connections of its former listener still close.
#[cfg(unix)]
fn share(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_address(true)
}

/// Windows does so by itself; there the option would let anybody in.
#[cfg(windows)]
fn share(_: &Socket) -> io::Result<()> {
    Ok(())
}

/// Lets the process have at least so many open files, as far as its hard limit allows; how many it may have then.
#[cfg(unix)]
pub fn room_for_files(wanted: u64) -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return wanted;
    };
    if soft >= wanted {
        return soft;
    }
    let new = wanted.min(hard);
    match setrlimit(Resource::RLIMIT_NOFILE, new, hard) {
        Ok(()) => new,
        Err(_) => soft,
    }
}

/// Windows has no such limit.
#[cfg(windows)]
pub fn room_for_files(wanted: u64) -> u64 {
    wanted
}

#[cfg(all(test, unix))]
mod tests {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    #[test]
    fn files_get_room() {
        // The limit is the process's: nextest gives this test one of its own, and elsewhere it is only ever raised back.
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let low = soft.min(900);
        setrlimit(Resource::RLIMIT_NOFILE, low, hard).unwrap();
        assert_eq!(super::room_for_files(low - 1), low, "it is never lowered");
        assert_eq!(super::room_for_files(low + 1), (low + 1).min(hard));
        assert_eq!(super::room_for_files(u64::MAX), hard);
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    }
}
