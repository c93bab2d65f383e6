//! Unix: signals, the boot id, process groups.

use std::io;

use nix::sys::signal::{Signal as Sig, killpg};
use nix::unistd::Pid;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use super::Signal;

/// Tells one boot of the machine from the next.
pub fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    match id.trim() {
        "" => format!("boot-{}", sysinfo::System::boot_time().unwrap_or_default()),
        id => id.to_owned(),
    }
}

/// The signals of the process. While a value exists they do nothing else.
#[derive(Debug)]
pub struct Signals {
    terminate: Stream,
    interrupt: Stream,
    hangup: Stream,
}

impl Signals {
    /// Takes the signals over.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.hangup.recv() => Signal::Reload,
        }
    }
}

/// Puts a command that is to be started into a process group of its own, for [`kill_tree`].
pub fn isolate(command: &mut tokio::process::Command) {
    command.process_group(0);
}

/// Makes a process that was just started as likely to be killed for memory as any other, whatever protects this one.
pub fn unprotect(pid: u32) {
    let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), "0");
}

/// Kills a process that was started with [`isolate`] and whatever it started that did not leave its group. The process
/// must not have been waited for yet, or its number may be another's.
pub fn kill_tree(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().filter(|p| *p > 1) {
        let _ = killpg(Pid::from_raw(pid), Sig::SIGKILL);
    }
}

/// Whether a process of this number runs. Numbers are used again: only a `false` proves something. One that has ended and
/// that nobody has asked for yet runs no more.
pub fn process_alive(pid: u32) -> bool {
    match i32::try_from(pid) {
        Ok(pid) if pid > 0 => {
            let exists = nix::sys::signal::kill(Pid::from_raw(pid), None) != Err(nix::errno::Errno::ESRCH);
            exists && !has_ended(pid)
        }
        // No process has such a number, but that proves nothing about whoever wrote it.
        _ => true,
    }
}

/// Whether the process has ended and only its parent's question for how is missing.
fn has_ended(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name before it may hold anything.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    matches!(state, Some('Z' | 'X'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_id_is_stable() {
        let id = boot_id();
        assert!(!id.is_empty() && !id.contains(char::is_whitespace), "{id}");
        assert_eq!(id, boot_id());
    }

    #[test]
    fn processes_are_found() {
        assert!(process_alive(std::process::id()));
        assert!(process_alive(1), "it exists, though it may be another's");
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let limit = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while process_alive(child.id()) {
            assert!(
                std::time::Instant::now() < limit,
                "it has ended, though nobody waited for it"
            );
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        child.wait().unwrap();
        assert!(!process_alive(child.id()));
        assert!(process_alive(0) && process_alive(u32::MAX));
    }

    #[tokio::test]
    async fn hangup_is_a_reload() {
        let mut signals = Signals::new().unwrap();
        nix::sys::signal::raise(Sig::SIGHUP).unwrap();
        assert_eq!(signals.next().await, Signal::Reload);
    }
}
