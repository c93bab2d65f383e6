//! Processes as `/proc` shows them, and signals that cannot hit another process of the same number.
//!
//! What is on the way of a stop takes no memory from the allocator: a machine without memory is when it matters.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use nix::sys::signal::Signal;

/// A short text on the stack.
pub(super) struct Small {
    text: [u8; 96],
    length: usize,
}

impl Small {
    /// Writes it; what does not fit is cut off, and nothing here is that long.
    pub(super) fn new(arguments: std::fmt::Arguments<'_>) -> Small {
        let mut small = Small {
            text: [0; 96],
            length: 0,
        };
        let _ = small.write_fmt(arguments);
        small
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[..self.length]).unwrap_or_default()
    }
}

impl std::fmt::Write for Small {
    fn write_str(&mut self, s: &str) -> std::fmt::Result {
        let end = self.length + s.len();
        let place = self.text.get_mut(self.length..end).ok_or(std::fmt::Error)?;
        place.copy_from_slice(s.as_bytes());
        self.length = end;
        Ok(())
    }
}

/// Calls `each` with every child of a process, in the order of their creation. False if the kernel does not tell.
pub(super) fn children(pid: i32, mut each: impl FnMut(i32)) -> bool {
    let path = Small::new(format_args!("/proc/{pid}/task/{pid}/children"));
    let Ok(mut file) = File::open(path.as_str()) else {
        return false;
    };
    let mut buffer = [0u8; 4096];
    let mut number = 0i32;
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return false,
        };
        for byte in &buffer[..read] {
            if byte.is_ascii_digit() {
                number = number.wrapping_mul(10).wrapping_add(i32::from(byte - b'0'));
            } else if number > 0 {
                each(number);
                number = 0;
            }
        }
    }
    if number > 0 {
        each(number);
    }
    true
}

/// The parent of a process.
pub(super) fn parent(pid: i32) -> Option<i32> {
    let path = Small::new(format_args!("/proc/{pid}/stat"));
    let mut buffer = [0u8; 512];
    let read = File::open(path.as_str()).and_then(|mut f| f.read(&mut buffer)).ok()?;
    // The name stands in brackets and may hold anything, brackets too.
    let text = &buffer[..read];
    let after = text.iter().rposition(|b| *b == b')')?;
    let rest = std::str::from_utf8(text.get(after + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// The same as [`children`] where the kernel was built without that list.
pub(super) fn children_by_search(pid: i32, mut each: impl FnMut(i32)) {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return;
    };
    for entry in entries.flatten() {
        let Some(other) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else {
            continue;
        };
        if parent(other) == Some(pid) {
            each(other);
        }
    }
}

/// A process, whatever becomes of its number.
pub(super) struct PidFd(OwnedFd);

impl PidFd {
    /// Takes hold of the process that has this number now.
    ///
    /// # Errors
    /// If there is none, or the kernel is older than 5.3.
    #[allow(unsafe_code)]
    pub(super) fn open(pid: i32) -> io::Result<PidFd> {
        // SAFETY: the call takes two numbers and returns a new descriptor or -1.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        match i32::try_from(fd) {
            // SAFETY: the descriptor was just made and belongs to nobody else.
            Ok(fd) if fd >= 0 => Ok(PidFd(unsafe { OwnedFd::from_raw_fd(fd) })),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Sends it a signal; nothing happens if it is gone.
    #[allow(unsafe_code)]
    pub(super) fn signal(&self, signal: Signal) {
        // SAFETY: no pointer but a null one that the call allows.
        unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.0.as_raw_fd(),
                signal as i32,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            );
        }
    }
}

/// Every process, this one excepted, that holds a lock on this very file by a descriptor that it inherited or opened.
/// Another that merely has the file open does not count.
pub(super) fn lock_holders(name: &str, inode: u64) -> Vec<PidFd> {
    let me = std::process::id().to_string();
    let mut holders = Vec::new();
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return holders;
    };
    for process in processes.flatten() {
        let pid = process.file_name();
        let Some(pid) = pid.to_str().filter(|p| *p != me) else {
            continue;
        };
        // Taken hold of before it is looked at: what is found is true of this process, not of its number.
        let Some(held) = pid.parse().ok().and_then(|n| PidFd::open(n).ok()) else {
            continue;
        };
        if holds_lock(pid, name, inode) {
            holders.push(held);
        }
    }
    holders
}

fn holds_lock(pid: &str, name: &str, inode: u64) -> bool {
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    let end = format!(":{inode}");
    descriptors.flatten().any(|fd| {
        let target = std::fs::read_link(fd.path()).unwrap_or_default();
        let is_named = target.file_name().is_some_and(|n| n == name);
        let info = || std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", fd.file_name().display()));
        is_named
            && info().is_ok_and(|info| {
                let mut locks = info.lines().filter(|l| l.starts_with("lock:") && l.contains("FLOCK"));
                locks.any(|l| l.split_ascii_whitespace().any(|word| word.ends_with(&end)))
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_and_parents() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let me = i32::try_from(std::process::id()).unwrap();
        assert_eq!(parent(pid), Some(me));
        let mut found = Vec::new();
        children_by_search(me, |c| found.push(c));
        assert!(found.contains(&pid));
        PidFd::open(pid).unwrap().signal(Signal::SIGKILL);
        assert!(!child.wait().unwrap().success());
        assert!(PidFd::open(pid).is_err());
        assert_eq!(parent(i32::MAX), None);
    }

    #[test]
    fn numbers_of_children_are_read() {
        // Of the process that every machine has and that is never without children while tests run under it.
        let mut first = Vec::new();
        if children(1, |c| first.push(c)) {
            assert!(
                first.iter().all(|c| parent(*c) == Some(1) || parent(*c).is_none()),
                "{first:?}"
            );
        }
        assert!(!children(i32::MAX, |_| ()));
    }

    #[test]
    fn a_lock_tells_its_holders_from_readers() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tree");
        let file = File::create(&path).unwrap();
        let inode = file.metadata().unwrap().ino();
        let run = |script: &str| {
            let mut command = std::process::Command::new("sh");
            command.args(["-c", script]).current_dir(dir.path());
            command.spawn().unwrap()
        };
        let mut reader = run("exec sleep 60 <tree");
        let mut holder = run("exec 9<tree; flock -n 9; exec sleep 60");
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let holders = loop {
            let holders = lock_holders("tree", inode);
            if !holders.is_empty() {
                break holders;
            }
            assert!(std::time::Instant::now() < until, "the holder was not found");
        };
        for held in &holders {
            held.signal(Signal::SIGKILL);
        }
        assert!(!holder.wait().unwrap().success());
        assert!(reader.try_wait().unwrap().is_none(), "who only reads is not touched");
        reader.kill().unwrap();
        reader.wait().unwrap();
    }
}
