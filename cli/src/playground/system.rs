//! What the playground asks of the operating system: users, locks, signals to processes that are known to be the right
//! ones. The only place of the playground that does.

use std::fs::File;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use ha_proto::codes;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, Uid, User};

use crate::error::{CliError, file_error};

/// Who the processes run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    /// Name.
    pub(super) name: String,
    /// User id.
    pub(super) uid: u32,
    /// Group id.
    pub(super) gid: u32,
}

/// Whether this is root.
pub(super) fn is_root() -> bool {
    Uid::effective().is_root()
}

fn account(user: User) -> Account {
    Account {
        name: user.name,
        uid: user.uid.as_raw(),
        gid: user.gid.as_raw(),
    }
}

/// Who calls.
pub(super) fn invoker() -> Account {
    let uid = Uid::effective();
    match User::from_uid(uid) {
        Ok(Some(user)) => account(user),
        _ => Account {
            name: uid.to_string(),
            uid: uid.as_raw(),
            gid: nix::unistd::Gid::effective().as_raw(),
        },
    }
}

/// For root, the unprivileged user that the processes are to run as: whoever called sudo, or nobody.
pub(super) fn unprivileged() -> Option<Account> {
    let sudo = std::env::var("SUDO_USER")
        .ok()
        .filter(|name| !name.is_empty() && name != "root");
    let names = sudo.iter().map(String::as_str).chain(["nobody"]);
    names
        .filter_map(|name| User::from_name(name).ok().flatten())
        .map(account)
        .find(|a| a.uid != 0)
}

/// Whether `account` may pass through `dir` and all above it, by their modes.
pub(super) fn may_pass(account: &Account, dir: &Path) -> bool {
    dir.ancestors().all(|dir| match dir.metadata() {
        Ok(meta) => {
            let bit = if meta.uid() == account.uid {
                0o100
            } else if meta.gid() == account.gid {
                0o010
            } else {
                0o001
            };
            meta.permissions().mode() & bit != 0
        }
        // What does not exist yet is made passable.
        Err(e) => e.kind() == std::io::ErrorKind::NotFound,
    })
}

/// Gives `path` and everything below it to `account`. Links are given away themselves, never what they lead to. Does
/// nothing for a caller who owns everything anyway.
///
/// # Errors
/// `HA0002` with what cannot be given away.
pub(super) fn give_all(path: &Path, account: &Account) -> Result<(), CliError> {
    if is_root() { give(path, account) } else { Ok(()) }
}

fn give(path: &Path, account: &Account) -> Result<(), CliError> {
    std::os::unix::fs::lchown(path, Some(account.uid), Some(account.gid))
        .map_err(|e| file_error("change the owner of", path, &e))?;
    if path.symlink_metadata().is_ok_and(|m| m.is_dir()) {
        let entries = std::fs::read_dir(path).map_err(|e| file_error("read", path, &e))?;
        for entry in entries.filter_map(Result::ok) {
            give(&entry.path(), account)?;
        }
    }
    Ok(())
}

/// Opens the lock file and takes the lock; `None` if another process has it. The lock is held as long as the file is
/// open in any process that inherited it.
///
/// # Errors
/// `HA0002` if the file cannot be opened.
pub(super) fn try_lock(path: &Path) -> Result<Option<File>, CliError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)
        .map_err(|e| file_error("open", path, &e))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(e)) => Err(file_error("lock", path, &e)),
    }
}

/// A process that cannot be mistaken for another one that got its number later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Process {
    /// Its id.
    pub(super) pid: u32,
    /// When the kernel started it, in its own units; 0 where that cannot be known.
    pub(super) started: u64,
}

impl Process {
    /// The process that has this id now.
    pub(super) fn now(pid: u32) -> Self {
        Self {
            pid,
            started: started(pid).unwrap_or(0),
        }
    }

    /// Whether it is this very process that still runs.
    pub(super) fn is_alive(self) -> bool {
        self.started != 0 && started(self.pid) == Some(self.started)
    }

    /// Asks it to end, if it is still this very process.
    pub(super) fn terminate(self) {
        if self.is_alive() {
            let _ = signal(self.pid, Signal::SIGTERM);
        }
    }

    /// Kills it, if it is still this very process.
    pub(super) fn kill(self) {
        if self.is_alive() {
            let _ = signal(self.pid, Signal::SIGKILL);
        }
    }
}

/// What a supervisor runs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Running {
    /// The supervisor itself.
    pub(super) supervisor: Process,
    /// Its children.
    pub(super) children: Vec<Process>,
}

impl Running {
    /// Reads what a supervisor wrote last; `None` if it wrote nothing that can be read.
    pub(super) fn load(path: &Path) -> Option<Self> {
        serde_json::from_str(&crate::files::read(path).ok()?).ok()
    }

    /// Kills all of it that is still there.
    pub(super) fn kill(&self) {
        self.supervisor.kill();
        for child in &self.children {
            child.kill();
        }
    }
}

/// The kernel's start time of a process that runs; `None` for one that is gone or waits to be reaped.
fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything.
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

fn signal(pid: u32, signal: Signal) -> nix::Result<()> {
    let pid = i32::try_from(pid).map_err(|_| nix::errno::Errno::ESRCH)?;
    nix::sys::signal::kill(Pid::from_raw(pid), signal)
}

/// Asks an unreaped child of this process to end.
pub(super) fn terminate(child: &std::process::Child) {
    let _ = signal(child.id(), Signal::SIGTERM);
}

/// How an own child ended, if it did. What is left of the process group that it led is killed first: while the child
/// is not reaped its number, and so the group's, cannot mean anything else.
pub(super) fn reap(child: &mut std::process::Child) -> Option<super::child::Exit> {
    #[cfg(target_os = "linux")]
    {
        use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
        let pid = Pid::from_raw(i32::try_from(child.id()).ok()?);
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        if matches!(waitid(Id::Pid(pid), flags), Ok(WaitStatus::StillAlive)) {
            return None;
        }
        let _ = nix::sys::signal::killpg(pid, Signal::SIGKILL);
    }
    match child.try_wait() {
        Ok(None) => None,
        Ok(Some(status)) => Some(exit(status)),
        Err(_) => Some(super::child::Exit::NotStarted),
    }
}

/// Makes this process independent of the terminal and of whoever started it.
pub(super) fn detach() {
    // Fails only for the leader of a group, which is independent already.
    let _ = nix::unistd::setsid();
}

/// Ends this process with the one that started it, `parent`.
pub(super) fn end_with_parent(parent: u32) {
    #[cfg(target_os = "linux")]
    {
        let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGTERM);
        if nix::unistd::getppid().as_raw().unsigned_abs() != parent {
            let _ = nix::sys::signal::raise(Signal::SIGTERM);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = parent;
}

/// Lets `command` run as the leader of a process group that dies with the thread that starts it.
pub(super) fn leash(command: &mut Command) {
    command.process_group(0);
    #[cfg(target_os = "linux")]
    {
        let parent = nix::unistd::getpid();
        // SAFETY: between fork and exec only async-signal-safe system calls are made: prctl and getppid.
        #[allow(unsafe_code)]
        unsafe {
            command.pre_exec(move || {
                nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
                // The parent may have gone before the call above.
                if nix::unistd::getppid() != parent {
                    return Err(std::io::Error::other("the supervisor has gone"));
                }
                Ok(())
            });
        }
    }
}

/// Lets `command` run as `account`.
pub(super) fn run_as(command: &mut Command, account: &Account) {
    command.uid(account.uid).gid(account.gid);
}

fn exit(status: std::process::ExitStatus) -> super::child::Exit {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => super::child::Exit::Code(code),
        (None, Some(signal)) => super::child::Exit::Signal(signal),
        (None, None) => super::child::Exit::Code(-1),
    }
}

/// Checks that `dir` is a directory that belongs to one of those who may use it, and no link to somewhere else.
///
/// # Errors
/// `HA0008` if it is not.
pub(super) fn check_owner(dir: &Path, owners: &[&Account]) -> Result<(), CliError> {
    let meta = dir.symlink_metadata().map_err(|e| file_error("use", dir, &e))?;
    if meta.is_dir() && owners.iter().any(|a| a.uid == meta.uid()) {
        return Ok(());
    }
    Err(
        CliError::new(codes::EXISTS_LOCALLY, format!("{} is somebody else's", dir.display()))
            .next("hactl playground up --dir DIR", "with a directory of your own"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_more_than_its_number() {
        let me = Process::now(std::process::id());
        assert!(me.is_alive());
        assert!(
            !Process {
                started: me.started + 1,
                ..me
            }
            .is_alive()
        );
        assert!(!Process { started: 0, ..me }.is_alive());
    }

    #[test]
    fn a_process_that_ended_is_not_alive() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::now(child.id());
        assert!(process.is_alive());
        process.kill();
        child.wait().unwrap();
        assert!(!process.is_alive());
    }

    #[test]
    fn a_lock_belongs_to_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = try_lock(&path).unwrap();
        assert!(held.is_some());
        assert!(try_lock(&path).unwrap().is_none());
        drop(held);
        assert!(try_lock(&path).unwrap().is_some());
    }

    #[test]
    fn a_closed_directory_is_not_passed() {
        let dir = tempfile::tempdir().unwrap();
        let other = Account {
            name: "other".into(),
            uid: 54_321,
            gid: 54_321,
        };
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!may_pass(&other, dir.path()));
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        assert_eq!(
            may_pass(&other, dir.path()),
            may_pass(&other, dir.path().parent().unwrap())
        );
    }
}
