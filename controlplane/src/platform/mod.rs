//! What differs between operating systems, and the clocks. The only place with `cfg(unix)` and `cfg(windows)`.
//!
//! Nothing here knows the cluster. Nothing here may block for long, but [`disk`], which is why it is called off the
//! runtime's own threads.

mod account;
mod clock;
mod file;
pub mod guard;
mod private;
mod process;
pub mod service;
pub mod socket;
#[cfg(unix)]
mod unix;
mod usage;
#[cfg(windows)]
mod windows;

pub use account::{Account, let_through};
pub use clock::{Clock, SystemClock};
pub use file::{DirLock, write_atomic, write_atomic_for};
pub(crate) use file::{private_dir, sync_parent};
#[cfg(test)]
pub(crate) use private::set_mode;
pub use private::{Exposure, exposure};
pub use process::{children, hang_up, process_parent, process_start, terminate, working_dir};
#[cfg(unix)]
pub use unix::{Signals, boot_id, isolate, kill_tree, process_alive, unprotect};
pub use usage::{CpuTimes, Memory, available, cores, cpu_times, daemon_rss, disk, memory};
#[cfg(windows)]
pub use windows::{Signals, boot_id, isolate, kill_tree, process_alive, unprotect};

/// What the operating system, or whoever is at its keyboard, wants of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// End. It is a restart: the node's session is left alive.
    Stop,
    /// Read the configuration and the certificates again.
    Reload,
}

/// Where `had` looks for its configuration when none is named.
pub fn default_config() -> std::path::PathBuf {
    base("/etc/had", "config").join("had.toml")
}

/// Where `had` looks for its bundle when none is named.
pub fn default_bundle() -> std::path::PathBuf {
    base("/etc/had", "config").join("bundle.toml")
}

/// Where `had` keeps its state when no directory is named.
pub fn default_state_dir() -> std::path::PathBuf {
    base("/var/lib/had", "state")
}

#[cfg(unix)]
fn base(unix: &str, _: &str) -> std::path::PathBuf {
    unix.into()
}

#[cfg(windows)]
fn base(_: &str, windows: &str) -> std::path::PathBuf {
    let data = std::env::var_os("ProgramData").unwrap_or_else(|| r"C:\ProgramData".into());
    std::path::PathBuf::from(data).join("had").join(windows)
}

/// The operating system in a few words, for people: `Debian GNU/Linux 12 (bookworm), x86_64`.
pub fn os_description() -> String {
    let release = std::fs::read_to_string("/etc/os-release")
        .ok()
        .filter(|_| cfg!(unix))
        .unwrap_or_default();
    let pretty = release
        .lines()
        .find_map(|l| l.strip_prefix("PRETTY_NAME="))
        .map(|v| v.trim_matches('"').to_owned());
    let name = pretty.or_else(|| sysinfo::System::long_os_version().ok());
    let name = name.unwrap_or_else(|| std::env::consts::OS.to_owned());
    // It ends up in terminals and in a stored value.
    let name: String = name.chars().filter(|c| !c.is_control()).take(80).collect();
    format!("{name}, {}", std::env::consts::ARCH)
}

#[cfg(test)]
mod tests {
    #[test]
    fn os_is_described() {
        let os = super::os_description();
        assert!(os.ends_with(std::env::consts::ARCH) && os.len() > 8, "{os}");
    }
}
