//! Windows: console events, the boot time, process trees.

use std::io;
use std::process::{Command, Stdio};

use tokio::signal::windows::{
    CtrlBreak, CtrlC, CtrlClose, CtrlShutdown, ctrl_break, ctrl_c, ctrl_close, ctrl_shutdown,
};

use super::Signal;

/// Tells one boot of the machine from the next. The boot time is reckoned from the clock, so it is rounded.
pub fn boot_id() -> String {
    format!("boot-{}", sysinfo::System::boot_time().unwrap_or_default() / 10 * 10)
}

/// The console's events. While a value exists they do nothing else.
#[derive(Debug)]
pub struct Signals {
    c: CtrlC,
    close: CtrlClose,
    shutdown: CtrlShutdown,
    pause: CtrlBreak,
}

impl Signals {
    /// Takes the events over.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            c: ctrl_c()?,
            close: ctrl_close()?,
            shutdown: ctrl_shutdown()?,
            pause: ctrl_break()?,
        })
    }

    /// The next one. Ctrl-Break is what a hangup is elsewhere.
    pub async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.c.recv() => Signal::Stop,
            _ = self.close.recv() => Signal::Stop,
            _ = self.shutdown.recv() => Signal::Stop,
            _ = self.pause.recv() => Signal::Reload,
        }
    }
}

/// Keeps the console's events away from a command that is to be started, for [`kill_tree`].
pub fn isolate(command: &mut tokio::process::Command) {
    const CREATE_NEW_PROCESS_GROUP: u32 = 0x0000_0200;
    command.creation_flags(CREATE_NEW_PROCESS_GROUP);
}

/// Windows protects nobody from running out of memory.
pub fn unprotect(_: u32) {}

/// Kills a process and what it started, as far as Windows still knows who started what.
pub fn kill_tree(pid: u32) {
    let kill = Command::new("taskkill")
        .args(["/T", "/F", "/PID", &pid.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    // It needs no waiting for: the caller waits for the process itself.
    drop(kill);
}

/// Whether a process of this number exists. Numbers are used again: only a `false` proves something.
pub fn process_alive(pid: u32) -> bool {
    use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};
    if pid == 0 {
        return true;
    }
    let pid = Pid::from_u32(pid);
    let Ok(mut system) = System::new() else { return true };
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), true, ProcessRefreshKind::nothing());
    system.process(pid).is_some()
}
