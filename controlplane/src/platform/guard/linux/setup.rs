//! How the guard's process comes to be: apart from the daemon, awake when others starve, and the parent of all orphans.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::sys::prctl::{set_child_subreaper, set_name};
use nix::unistd::{ForkResult, dup2_stderr, dup2_stdin, dup2_stdout, fork, pipe, setsid};

/// A guard that was detached tells by this that it serves, and lets go of whoever started it.
pub(crate) struct Started(OwnedFd);

/// Leaves the caller's session and process group: forks, and returns in the child. The parent waits for
/// [`Started::serving`] and ends the process with 0, or with 1 if the child ended before.
///
/// # Errors
/// What the operating system says.
#[allow(unsafe_code)]
pub(crate) fn detach() -> io::Result<Started> {
    let (reads, writes) = pipe()?;
    // SAFETY: this runs before the process has a second thread, so the child may go on as the parent could.
    match unsafe { fork() }? {
        ForkResult::Parent { .. } => {
            drop(writes);
            let mut byte = [0];
            let serves = File::from(reads).read(&mut byte).is_ok_and(|n| n == 1);
            std::process::exit(i32::from(!serves));
        }
        ForkResult::Child => {
            setsid()?;
            Ok(Started(writes))
        }
    }
}

impl Started {
    /// Tells that the guard serves. From here on its words go to `log`.
    ///
    /// # Errors
    /// If that cannot be opened.
    pub(crate) fn serving(self, log: &Path) -> io::Result<()> {
        let log = OpenOptions::new().append(true).create(true).mode(0o600).open(log)?;
        let nothing = File::open("/dev/null")?;
        dup2_stdin(&nothing)?;
        dup2_stdout(&log)?;
        dup2_stderr(&log)?;
        let _ = File::from(self.0).write_all(b"R");
        // No file system is kept from being unmounted.
        std::env::set_current_dir("/")
    }
}

/// Makes this process what a guard must be. What makes it more important than others is taken as far as it is permitted.
///
/// # Errors
/// If it cannot become the parent of orphans.
#[allow(unsafe_code)]
pub(crate) fn prepare() -> io::Result<()> {
    set_child_subreaper(true)?;
    let _ = set_name(c"had-guard");
    // Whoever has it as -1000 is never killed for memory; unprivileged, it stays as it was inherited.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
    // SAFETY: the structure is complete and outlives the call; the others take numbers.
    unsafe {
        // Only what is there, and only as it is touched: the program's file is large, what a guard uses of it is not.
        libc::mlockall(libc::MCL_CURRENT | libc::MCL_ONFAULT);
        let mut parameters: libc::sched_param = std::mem::zeroed();
        parameters.sched_priority = 1;
        let policy = libc::SCHED_RR | libc::SCHED_RESET_ON_FORK;
        if libc::sched_setscheduler(0, policy, &raw const parameters) != 0 {
            libc::setpriority(libc::PRIO_PROCESS, 0, -20);
        }
    }
    Ok(())
}

/// This program, for another process of it; also after an upgrade has replaced its file.
///
/// # Errors
/// If the operating system does not tell.
pub(crate) fn program() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?.into_os_string();
    let text = path.to_string_lossy();
    Ok(match text.strip_suffix(" (deleted)") {
        Some(replaced) => PathBuf::from(OsString::from(replaced)),
        None => PathBuf::from(path),
    })
}

/// The unit that is to run a guard, if this process is a service of systemd: whatever it starts itself would end with it.
pub(crate) fn supervised(group: &str) -> Option<String> {
    let running = Path::new("/run/systemd/system").is_dir();
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    (running && is_service(&groups)).then(|| format!("had-guard@{group}.service"))
}

fn is_service(groups: &str) -> bool {
    let mut lines = groups.lines().filter_map(|l| l.splitn(3, ':').nth(2));
    lines.any(|path| {
        path.split('/')
            .any(|unit| unit.ends_with(".service") && !unit.starts_with("user@"))
    })
}

/// The command that starts a guard of its own, away from this process.
pub(crate) fn detached(program: &Path) -> tokio::process::Command {
    tokio::process::Command::new(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_told_from_a_session() {
        assert!(is_service("0::/system.slice/had.service\n"));
        assert!(is_service("1:name=systemd:/system.slice/had.service/sub\n0::/\n"));
        assert!(!is_service("0::/user.slice/user-0.slice/session-3.scope\n"));
        assert!(!is_service(
            "0::/user.slice/user-1.slice/user@1.service/app.slice/x.scope\n"
        ));
        assert!(!is_service("9:name=systemd:/\n0::/\n"));
    }
}
