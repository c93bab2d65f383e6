//! A postmaster and everything it started, to the last process.
//!
//! Two things make its end provable. The guard is a subreaper: whoever loses a parent in the tree becomes the guard's child,
//! so the tree is empty exactly when the guard has no children left to wait for. And every process of the tree inherits a
//! descriptor that locks the file `tree`: should the guard die, the next one knows by that lock whether anything is left,
//! and finds who holds it. Sessions and process groups serve neither purpose, for each backend leads its own.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::super::{Exit, Launch, Reaped};
use super::cgroup::Cgroup;
use super::proc::{self, PidFd};
use super::spawn;

const LOCK: &str = "tree";

/// The tree of one guard; at most one at a time.
pub(crate) struct Tree {
    lock: PathBuf,
    cgroups: bool,
    what: What,
    /// Room for the numbers of processes, so that a stop needs no memory.
    room: Vec<i32>,
    /// The kernel keeps no lists of children.
    by_search: bool,
}

enum What {
    Nothing,
    /// Started by this guard.
    Own {
        postmaster: Option<Pid>,
        cgroup: Option<Cgroup>,
    },
    /// Started by an earlier guard, which died.
    Left {
        file: File,
        inode: u64,
        cgroup: Option<Cgroup>,
    },
}

impl Tree {
    /// For the guard whose directory this is. `cgroups`: whether to make control groups.
    pub(crate) fn new(dir: &Path, cgroups: bool) -> Tree {
        Tree {
            lock: dir.join(LOCK),
            cgroups,
            what: What::Nothing,
            room: Vec::with_capacity(1 << 14),
            by_search: !proc::children(own_pid(), |_| ()),
        }
    }

    /// Whether something that an earlier guard started still runs. If so, that is the tree from now on.
    ///
    /// # Errors
    /// If the lock cannot be looked at.
    pub(crate) fn left_over(&mut self, boot: &str) -> io::Result<bool> {
        let mut file = match OpenOptions::new().read(true).write(true).open(&self.lock) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(e),
        };
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        let mut lines = text.lines();
        let same_boot = lines.next() == Some(boot);
        let cgroup = lines.next().filter(|dir| same_boot && !dir.is_empty());
        let cgroup = cgroup.and_then(|dir| Cgroup::open(Path::new(dir)).ok());
        let inode = file.metadata()?.ino();
        self.what = What::Left { file, inode, cgroup };
        if self.reap().empty {
            self.cleared();
            return Ok(false);
        }
        Ok(true)
    }

    /// Starts a postmaster.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if something an earlier guard started still runs; else what failed. Nothing runs then.
    pub(crate) fn start(&mut self, launch: &Launch<'_>) -> io::Result<u32> {
        let mut lock = self.claim()?;
        let dead = last_postmaster(&mut lock);
        let name = format!("had-guard-{}-{}", std::process::id(), launch.incarnation);
        let cgroup = self.cgroups.then(|| Cgroup::make(&name)).flatten();
        let started = write_place(&lock, launch.boot, cgroup.as_ref())
            .and_then(|()| spawn::spawn(launch, &lock, cgroup.as_ref().map(Cgroup::entrance), dead));
        match started {
            Ok(pid) => {
                let postmaster = i32::try_from(pid).ok().map(Pid::from_raw);
                self.what = What::Own { postmaster, cgroup };
                Ok(pid)
            }
            Err(e) => {
                // A child that failed before its exec was waited for by whoever forked it.
                if let Some(cgroup) = cgroup {
                    cgroup.remove();
                }
                Err(e)
            }
        }
    }

    /// The lock for a new tree. Having it proves that none of an earlier one lives.
    fn claim(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&self.lock)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }

    /// Asks the postmaster for a fast stop.
    pub(crate) fn interrupt(&mut self) {
        // Not reaped yet, so the number is still its own.
        if let What::Own {
            postmaster: Some(pid), ..
        } = &self.what
        {
            let _ = kill(*pid, Signal::SIGINT);
        }
    }

    /// SIGQUIT to the postmaster and its children: they need not wait for it to pass the word on.
    pub(crate) fn quit(&mut self) {
        self.signal(Signal::SIGQUIT);
    }

    /// SIGKILL to everything.
    pub(crate) fn kill(&mut self) {
        if let What::Own {
            cgroup: Some(cgroup), ..
        }
        | What::Left {
            cgroup: Some(cgroup), ..
        } = &self.what
        {
            cgroup.kill();
        }
        self.signal(Signal::SIGKILL);
    }

    /// Signals two generations: the guard's children, and theirs, which are all of PostgreSQL's own processes. Whatever
    /// is further down has another parent as soon as these are dead, and is then a child itself.
    fn signal(&mut self, signal: Signal) {
        let me = own_pid();
        match &self.what {
            What::Nothing => {}
            What::Left { inode, .. } => {
                for process in proc::lock_holders(LOCK, *inode) {
                    process.signal(signal);
                }
            }
            What::Own { postmaster, .. } => {
                let room = &mut self.room;
                room.clear();
                list(self.by_search, me, room);
                let parents = room.len();
                for at in 0..parents {
                    list(self.by_search, room[at], room);
                }
                // The postmaster first: it must not take its children's end for crashes and start them anew.
                if let Some(pid) = postmaster {
                    let _ = kill(*pid, signal);
                }
                for (at, pid) in room.iter().enumerate() {
                    if at < parents {
                        // A child that was not reaped keeps its number.
                        if Some(Pid::from_raw(*pid)) != *postmaster {
                            let _ = kill(Pid::from_raw(*pid), signal);
                        }
                    } else if let Ok(process) = PidFd::open(*pid) {
                        // Whose number it is now is decided after it is held.
                        if proc::parent(*pid).is_some_and(|p| p == me || room[..parents].contains(&p)) {
                            process.signal(signal);
                        }
                    }
                }
            }
        }
    }

    /// Reaps who ended, and says what is left.
    pub(crate) fn reap(&mut self) -> Reaped {
        let mut reaped = Reaped::default();
        match &mut self.what {
            What::Nothing => {}
            What::Own { postmaster, cgroup } => {
                loop {
                    let status = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                        Ok(WaitStatus::StillAlive) => break,
                        Ok(status) => status,
                        Err(Errno::EINTR) => continue,
                        Err(_) => {
                            // No child is left, so no process of the tree is, dead or alive.
                            reaped.empty = true;
                            break;
                        }
                    };
                    let (pid, exit) = match status {
                        WaitStatus::Exited(pid, code) => (
                            pid,
                            Exit {
                                code: Some(code),
                                signal: None,
                            },
                        ),
                        WaitStatus::Signaled(pid, signal, _) => (
                            pid,
                            Exit {
                                code: None,
                                signal: Some(signal as i32),
                            },
                        ),
                        _ => continue,
                    };
                    reaped.any = true;
                    if Some(pid) == *postmaster {
                        *postmaster = None;
                        reaped.exit = Some(exit);
                    }
                }
                if let Some(cgroup) = cgroup {
                    reaped.empty &= cgroup.is_empty();
                }
            }
            What::Left { file, cgroup, .. } => {
                reaped.empty = file.try_lock().is_ok() && cgroup.as_ref().is_none_or(Cgroup::is_empty);
            }
        }
        reaped
    }

    /// Whether its end has to be looked for: nobody tells of the death of another's children.
    pub(crate) fn needs_looking(&self) -> bool {
        match &self.what {
            What::Nothing => false,
            What::Own { postmaster, cgroup } => postmaster.is_none() && cgroup.is_some(),
            What::Left { .. } => true,
        }
    }

    /// Lets go of a tree that is empty.
    pub(crate) fn cleared(&mut self) {
        match std::mem::replace(&mut self.what, What::Nothing) {
            What::Own { cgroup, .. } | What::Left { cgroup, .. } => {
                if let Some(cgroup) = cgroup {
                    cgroup.remove();
                }
            }
            What::Nothing => {}
        }
    }

    /// Goes the way of a stop without a tree, so that its code and its room are in memory when they are needed.
    pub(crate) fn rehearse(&mut self) {
        self.room.resize(self.room.capacity(), 0);
        self.what = What::Own {
            postmaster: None,
            cgroup: None,
        };
        self.signal(Signal::SIGKILL);
        self.what = What::Nothing;
    }
}

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).unwrap_or(i32::MAX)
}

/// Adds a process' children. Beyond the room is not beyond the stop: who is left out is found when it has lost its parent.
fn list(by_search: bool, pid: i32, room: &mut Vec<i32>) {
    let keep = |child| {
        if room.len() < room.capacity() {
            room.push(child);
        }
    };
    if by_search {
        proc::children_by_search(pid, keep);
    } else {
        proc::children(pid, keep);
    }
}

/// The process that was the last postmaster, which runs no more: see [`write_place`] and `spawn`.
fn last_postmaster(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.read_to_string(&mut text).ok()?;
    text.lines().nth(2)?.parse().ok()
}

/// Notes for a later guard in which boot and which control group the tree is. The postmaster adds its own number.
fn write_place(mut lock: &File, boot: &str, cgroup: Option<&Cgroup>) -> io::Result<()> {
    let dir = cgroup.map(|c| c.dir().display().to_string()).unwrap_or_default();
    lock.rewind()?;
    lock.set_len(0)?;
    lock.write_all(format!("{boot}\n{dir}\n").as_bytes())
}
