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

/// How long the peer has acknowledged nothing although something was sent; none: all was acknowledged, zero: it answers.
///
/// The system gives up after a quarter of an hour; the time limit that it can be given (`TCP_USER_TIMEOUT`) also ends
/// connections to peers that are well and just do not read for a while, such as a client that works on what it got.
#[cfg(target_os = "linux")]
pub fn unanswered(stream: &TcpStream) -> Option<Duration> {
    use std::os::fd::AsRawFd as _;
    /// A peer whose window is closed answers each question whether it has opened.
    const MISSED: u8 = 4;
    let fd = stream.as_raw_fd();
    let mut left: libc::c_int = 0;
    // SAFETY: a zeroed tcp_info is one, for it is made of integers.
    #[allow(unsafe_code)]
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).ok()?;
    // SAFETY: the descriptor is open while `stream` is borrowed; both calls write into variables of the sizes they are told.
    #[allow(unsafe_code)]
    let asked = unsafe {
        libc::ioctl(fd, libc::TIOCOUTQ, &raw mut left) == 0
            && libc::getsockopt(
                fd,
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                (&raw mut info).cast(),
                &raw mut length,
            ) == 0
    };
    if !asked || left == 0 {
        return None;
    }
    let silent = info.tcpi_unacked > 0 || info.tcpi_probes >= MISSED;
    Some(Duration::from_millis(if silent {
        info.tcpi_last_ack_recv.into()
    } else {
        0
    }))
}

/// What Linux tells is not told elsewhere: the system's own limit is what there is.
#[cfg(not(target_os = "linux"))]
pub fn unanswered(_: &TcpStream) -> Option<Duration> {
    None
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

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use nix::sched::{CloneFlags, unshare};
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{TcpListener, TcpStream};

    use super::unanswered;

    #[test]
    fn files_get_room() {
        // The limit is the process's: it is only raised again here.
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let low = soft.min(900);
        setrlimit(Resource::RLIMIT_NOFILE, low, hard).unwrap();
        assert_eq!(super::room_for_files(low - 1), low, "it is never lowered");
        assert_eq!(super::room_for_files(low + 1), (low + 1).min(hard));
        assert_eq!(super::room_for_files(u64::MAX), hard);
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (client, listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_is_not_silent() {
        let (mut writer, reader) = pair().await;
        assert_eq!(unanswered(&writer), None);
        let block = vec![0; 1 << 20];
        let fill = async { while writer.write_all(&block).await.is_ok() {} };
        let full = tokio::time::timeout(Duration::from_millis(1500), fill).await;
        assert!(full.is_err(), "the reader takes nothing");
        let silence = unanswered(&writer).expect("there is much that was not taken");
        assert!(silence < Duration::from_millis(1000), "{silence:?}");
        drop(reader);
    }

    /// In a network of the thread's own, whose only link can be taken down. Only root may make one.
    #[test]
    fn a_peer_that_vanished_is_silent() {
        if !nix::unistd::geteuid().is_root() || unshare(CloneFlags::CLONE_NEWNET).is_err() {
            eprintln!("not tested: this user may not make a network");
            return;
        }
        let lo = |state: &str| {
            Command::new("ip")
                .args(["link", "set", "lo", state])
                .status()
                .unwrap()
                .success()
        };
        assert!(lo("up"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (mut writer, _reader) = pair().await;
            writer.write_all(b"before").await.unwrap();
            let begun = Instant::now();
            while unanswered(&writer).is_some() {
                assert!(begun.elapsed() < Duration::from_secs(10), "it was acknowledged");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert!(lo("down"));
            let _ = writer.write_all(b"after").await;
            let begun = Instant::now();
            while unanswered(&writer).unwrap_or_default() < Duration::from_secs(1) {
                assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", unanswered(&writer));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
}
