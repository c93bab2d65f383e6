//! What the service manager is told. Without one, nothing happens.

use std::time::Duration;

/// A word to the service manager.
#[derive(Debug, Clone, Copy)]
pub enum Notice<'a> {
    /// The daemon serves.
    Ready,
    /// It is ending.
    Stopping,
    /// One line for `systemctl status`.
    Status(&'a str),
    /// It is alive.
    Alive,
}

/// Tells the service manager. A failure is not worth a word: the manager has its own time limits.
#[cfg(unix)]
pub fn notify(notice: Notice<'_>) {
    use sd_notify::NotifyState;
    let line;
    let state = match notice {
        Notice::Ready => NotifyState::Ready,
        Notice::Stopping => NotifyState::Stopping,
        Notice::Alive => NotifyState::Watchdog,
        Notice::Status(text) => {
            line = text.replace(|c: char| c.is_control(), " ");
            NotifyState::Status(&line)
        }
    };
    let _ = sd_notify::notify(&[state]);
}

/// There is none to tell.
#[cfg(windows)]
pub fn notify(_: Notice<'_>) {}

/// How often [`Notice::Alive`] must be given, if the service manager wants it at all: half of its limit.
#[cfg(unix)]
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
        .map(|limit| limit / 2)
        .filter(|d| !d.is_zero())
}

/// Nobody watches.
#[cfg(windows)]
pub fn watchdog() -> Option<Duration> {
    None
}

/// Whether standard error is the service manager's journal, which adds times itself.
pub fn logs_to_journal() -> bool {
    std::env::var_os("JOURNAL_STREAM").is_some()
}

/// What the service manager gave to the daemon in its environment and no command that it starts may have.
pub const PRIVATE_ENVIRONMENT: [&str; 6] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
];
