//! The start of a postmaster: everything that happens between fork and exec.
//!
//! The guard has one thread, so the child may do what it likes there. Whatever fails ends the start with nothing running.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::unistd::{Gid, Uid, chdir, getppid, setgid, setgroups, setsid, setuid};

use super::super::{Launch, RunAs};

/// Marks of memory pressure that a postmaster keeps, if the guard has as much, and its children give up.
const OOM_POSTMASTER: i32 = -900;

/// Starts it, with `lock` and, where there is one, `entrance` (of a control group) handed to the child. `dead` was the last
/// postmaster here.
///
/// # Errors
/// Whatever failed, in the child too.
pub(super) fn spawn(launch: &Launch<'_>, lock: &File, entrance: Option<&File>, dead: Option<u32>) -> io::Result<u32> {
    let mut command = Command::new(launch.program);
    command
        .args(launch.args)
        .env_clear()
        // PostgreSQL's own children are to be killed for memory before anything else of it is.
        .env("PG_OOM_ADJUST_FILE", "/proc/self/oom_score_adj")
        .env("PG_OOM_ADJUST_VALUE", "0")
        // PostgreSQL takes the number in its `postmaster.pid` for a postmaster that runs, be it another process by now or
        // a zombie that nobody reaps, and refuses to start; unless it is told that this is its own grandparent. The end
        // of that one is proved, and PostgreSQL still looks at its other lock, the shared memory.
        .envs(dead.map(|pid| ("PG_GRANDPARENT_PID", pid.to_string())))
        .envs(launch.env)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = InChild {
        guard: i32::try_from(std::process::id()).unwrap_or(i32::MAX),
        lock: lock.try_clone()?,
        entrance: entrance.map(File::try_clone).transpose()?,
        run_as: launch.run_as.cloned(),
        cwd: launch.cwd.to_owned(),
        log: launch.log.to_owned(),
    };
    // SAFETY: the guard has one thread, so no lock of the allocator or the library can be held across the fork.
    #[allow(unsafe_code)]
    let command = unsafe { command.pre_exec(move || child.prepare()) };
    // The handle is let go: the guard reaps all its children in one place.
    command.spawn().map(|child| child.id())
}

struct InChild {
    guard: i32,
    lock: File,
    entrance: Option<File>,
    run_as: Option<RunAs>,
    cwd: PathBuf,
    log: PathBuf,
}

impl InChild {
    fn prepare(&mut self) -> io::Result<()> {
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
        setsid()?;
        calm_down();
        if let Some(entrance) = &mut self.entrance {
            entrance.write_all(b"0")?;
        }
        // This descriptor is what the whole tree inherits: see `Tree`.
        fcntl(&self.lock, FcntlArg::F_SETFD(FdFlag::empty()))?;
        self.lock.write_all(format!("{}\n", std::process::id()).as_bytes())?;
        if let Some(who) = &self.run_as {
            become_user(who)?;
        }
        chdir(&self.cwd)?;
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&self.log)?;
        nix::unistd::dup2_stdout(&log)?;
        nix::unistd::dup2_stderr(&log)?;
        // Changing the user has taken it away, so it comes last: the guard's death is the postmaster's. SIGQUIT and not
        // SIGKILL, for only a postmaster that lives takes its backends along.
        set_pdeathsig(Signal::SIGQUIT)?;
        if getppid().as_raw() != self.guard {
            return Err(io::Error::other("the guard is gone"));
        }
        Ok(())
    }
}

/// Gives up what makes the guard more important than others.
#[allow(unsafe_code)]
fn calm_down() {
    // SAFETY: numbers only. A nice value may always be raised.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, 0);
    }
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    if own.trim().parse().is_ok_and(|n: i32| n < OOM_POSTMASTER) {
        let _ = std::fs::write("/proc/self/oom_score_adj", OOM_POSTMASTER.to_string());
    }
}

fn become_user(who: &RunAs) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(who.uid), Gid::from_raw(who.gid));
    if uid == Uid::effective() && gid == Gid::effective() && !uid.is_root() {
        return Ok(());
    }
    let groups: Vec<Gid> = who.groups.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups)?;
    setgid(gid)?;
    setuid(uid)?;
    Ok(())
}
