//! The guard's ears: control connections, signals, children and the clock, in one wait.
//!
//! Nothing that a connection sends or fails to read may hold up the wait: reads and what is kept for slow readers are
//! bounded, and whoever exceeds the bounds is cut off.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::geteuid;

use super::super::{CONNECTIONS, Happening};

const SOCKET: &str = "control";
/// How much is read of one connection in one turn.
const TURN: usize = 16 << 10;
/// How much is kept for one that does not read.
const BACKLOG: usize = 256 << 10;

/// The daemon's end of a control connection.
pub(crate) type Link = tokio::net::UnixStream;

/// Reaches the guard whose directory this is. Bounded in time by the caller.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] or [`io::ErrorKind::ConnectionRefused`] if none listens.
pub(crate) async fn connect(dir: &Path) -> io::Result<Link> {
    // A socket's path is short by the kernel's will; a directory may be as deep as it likes.
    let held = std::fs::File::open(dir)?;
    Link::connect(format!("/proc/self/fd/{}/{SOCKET}", held.as_raw_fd())).await
}

struct Connection {
    number: u64,
    stream: UnixStream,
    trusted: bool,
    input: Vec<u8>,
    output: Vec<u8>,
    /// It is cut off once what was said to it is sent.
    last_words: bool,
}

/// See the module.
pub(crate) struct Port {
    listener: UnixListener,
    signals: SignalFd,
    timer: TimerFd,
    connections: Vec<Connection>,
    next: u64,
    longest: usize,
}

impl Port {
    /// Listens in the guard's directory, which only its owner may enter, and takes over the process' signals. Lines are at
    /// most `longest` bytes.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) fn open(dir: &Path, longest: usize) -> io::Result<Port> {
        let held = std::fs::File::open(dir)?;
        let path = format!("/proc/self/fd/{}/{SOCKET}", held.as_raw_fd());
        // The directory's lock is ours: whoever bound this is gone.
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        let mut mask = SigSet::empty();
        for signal in [
            Signal::SIGCHLD,
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGQUIT,
            Signal::SIGHUP,
        ] {
            mask.add(signal);
        }
        mask.thread_block()?;
        Ok(Port {
            listener,
            signals: SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?,
            // It counts suspended time and fires right after.
            timer: TimerFd::new(
                ClockId::CLOCK_BOOTTIME,
                TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC,
            )?,
            connections: Vec::with_capacity(CONNECTIONS + 1),
            next: 0,
            longest,
        })
    }

    /// Waits until something happens, or until this time of CLOCK_BOOTTIME. Never longer; at once if it is over already.
    ///
    /// # Errors
    /// If the operating system no longer lets it wait.
    pub(crate) fn wait(&mut self, until: Option<Duration>, happenings: &mut Vec<Happening>) -> io::Result<()> {
        match until {
            // Zero would disarm it; a time that is over fires at once.
            Some(at) => self.timer.set(
                Expiration::OneShot(TimeSpec::from_duration(at.max(Duration::from_nanos(1)))),
                TimerSetTimeFlags::TFD_TIMER_ABSTIME,
            )?,
            None => self.timer.unset()?,
        }
        let waits_for = |c: &Connection| match (c.last_words, c.output.is_empty()) {
            (true, _) => PollFlags::POLLOUT,
            (false, true) => PollFlags::POLLIN,
            (false, false) => PollFlags::POLLIN | PollFlags::POLLOUT,
        };
        let mut polled = [const { None }; CONNECTIONS + 3];
        polled[0] = Some(PollFd::new(self.timer.as_fd(), PollFlags::POLLIN));
        polled[1] = Some(PollFd::new(self.signals.as_fd(), PollFlags::POLLIN));
        polled[2] = Some(PollFd::new(self.listener.as_fd(), PollFlags::POLLIN));
        for (place, c) in polled[3..].iter_mut().zip(&self.connections) {
            *place = Some(PollFd::new(c.stream.as_fd(), waits_for(c)));
        }
        let mut count = 3 + self.connections.len();
        let mut fds: Vec<PollFd<'_>> = polled.into_iter().take(count).flatten().collect();
        count = fds.len();
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        let mut ready = [false; CONNECTIONS + 3];
        for (ready, fd) in ready.iter_mut().zip(&fds) {
            *ready = fd.any().unwrap_or(true);
        }
        drop(fds);
        if ready[1] {
            while let Ok(Some(info)) = self.signals.read_signal() {
                let number = i32::try_from(info.ssi_signo).unwrap_or(0);
                if matches!(number, libc::SIGTERM | libc::SIGINT | libc::SIGQUIT) {
                    happenings.push(Happening::Terminate);
                }
            }
        }
        for (at, _) in ready[3..count].iter().enumerate().filter(|(_, ready)| **ready) {
            self.attend(at, happenings);
        }
        self.connections.retain(|c| {
            let open = c.number != 0;
            open && !(c.last_words && c.output.is_empty())
        });
        if ready[2] {
            self.accept();
        }
        Ok(())
    }

    /// Takes one new connection, of the guard's own user or root.
    fn accept(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else {
            return;
        };
        let peer = getsockopt(&stream, PeerCredentials);
        let is_ours = peer.is_ok_and(|p| p.uid() == geteuid().as_raw() || p.uid() == 0);
        if !is_ours || stream.set_nonblocking(true).is_err() {
            return;
        }
        if self.connections.len() >= CONNECTIONS {
            // Whoever has not said who it is goes first, the oldest before others.
            let goes = self.connections.iter().position(|c| !c.trusted).unwrap_or(0);
            self.connections.remove(goes);
        }
        self.next += 1;
        self.connections.push(Connection {
            number: self.next,
            stream,
            trusted: false,
            input: Vec::new(),
            output: Vec::new(),
            last_words: false,
        });
    }

    /// Reads and writes what one connection has ready. Its number is 0 if it is gone.
    fn attend(&mut self, at: usize, happenings: &mut Vec<Happening>) {
        let longest = self.longest;
        let Some(c) = self.connections.get_mut(at) else { return };
        if flush(c).is_err() {
            happenings.push(Happening::Gone(std::mem::take(&mut c.number)));
            return;
        }
        if c.last_words {
            return;
        }
        let mut buffer = [0u8; TURN];
        match c.stream.read(&mut buffer) {
            Ok(0) => happenings.push(Happening::Gone(std::mem::take(&mut c.number))),
            Ok(n) => {
                c.input.extend_from_slice(&buffer[..n]);
                let mut from = 0;
                while let Some(length) = c.input[from..].iter().position(|b| *b == b'\n') {
                    happenings.push(Happening::Line(c.number, c.input[from..from + length].to_vec()));
                    from += length + 1;
                }
                c.input.drain(..from);
                if c.input.len() > longest {
                    c.input = Vec::new();
                    happenings.push(Happening::TooLong(c.number));
                }
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => happenings.push(Happening::Gone(std::mem::take(&mut c.number))),
        }
    }

    /// Says a line to a connection; one that does not read is cut off. False if it is gone.
    pub(crate) fn say(&mut self, number: u64, line: &[u8]) -> bool {
        let Some(at) = self.connections.iter().position(|c| c.number == number) else {
            return false;
        };
        let c = &mut self.connections[at];
        c.output.extend_from_slice(line);
        c.output.push(b'\n');
        let open = flush(c).is_ok() && c.output.len() <= BACKLOG;
        if !open {
            self.connections.remove(at);
        }
        open
    }

    /// This connection is the daemon's; it is not cut off for others.
    pub(crate) fn trust(&mut self, number: u64) {
        for c in &mut self.connections {
            c.trusted |= c.number == number;
        }
    }

    /// Ends a connection after what was said to it.
    pub(crate) fn end(&mut self, number: u64) {
        for c in &mut self.connections {
            if c.number == number {
                c.last_words = true;
                c.trusted = false;
            }
        }
        self.connections.retain(|c| !(c.last_words && c.output.is_empty()));
    }
}

fn flush(c: &mut Connection) -> io::Result<()> {
    while !c.output.is_empty() {
        match c.stream.write(&c.output) {
            Ok(n) => drop(c.output.drain(..n)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
