//! A control group for the tree, where the kernel and its owner allow one: it kills everything in it at once.
//!
//! It is an addition. The proof of a stop does not rest on it, for in containers there is often none.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

/// The tree's own group.
pub(super) struct Cgroup {
    dir: PathBuf,
    kill: File,
    events: File,
    procs: File,
}

impl Cgroup {
    /// Makes one below the guard's own. None where that cannot be, for whatever reason.
    pub(super) fn make(name: &str) -> Option<Cgroup> {
        let dir = own()?.join(name);
        std::fs::create_dir(&dir).ok()?;
        Self::open(&dir)
            .inspect_err(|_| {
                let _ = std::fs::remove_dir(&dir);
            })
            .ok()
    }

    /// Opens one that exists.
    ///
    /// # Errors
    /// If there is none, or the kernel cannot kill one (before 5.14).
    pub(super) fn open(dir: &Path) -> io::Result<Cgroup> {
        let write = |name: &str| OpenOptions::new().write(true).open(dir.join(name));
        Ok(Cgroup {
            kill: write("cgroup.kill")?,
            procs: write("cgroup.procs")?,
            events: File::open(dir.join("cgroup.events"))?,
            dir: dir.to_owned(),
        })
    }

    /// Where it is.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What a process writes `0` to, to enter it.
    pub(super) fn entrance(&self) -> &File {
        &self.procs
    }

    /// Kills everything in it.
    pub(super) fn kill(&self) {
        let _ = (&self.kill).write_all(b"1");
    }

    /// Whether there is nothing in it. A group that is gone has nothing in it.
    pub(super) fn is_empty(&self) -> bool {
        let mut buffer = [0u8; 256];
        let mut events = &self.events;
        let read = events.rewind().and_then(|()| events.read(&mut buffer));
        match read {
            Ok(n) => {
                let text = std::str::from_utf8(&buffer[..n]).unwrap_or_default();
                text.lines().any(|l| l == "populated 0")
            }
            Err(e) => e.raw_os_error() == Some(libc::ENODEV),
        }
    }

    /// Removes it once it is empty.
    pub(super) fn remove(self) {
        let _ = std::fs::remove_dir(&self.dir);
    }
}

/// The directory of this process's own group in the unified hierarchy.
fn own() -> Option<PathBuf> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    place(&groups, &mounts)
}

fn place(groups: &str, mounts: &str) -> Option<PathBuf> {
    let group = groups.lines().find_map(|l| l.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        kind.starts_with("cgroup2 ").then_some(())?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let below = Path::new(group).strip_prefix(root).ok()?;
        Some(Path::new(point).join(below))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_place_is_found() {
        let mounts = "28 24 0:25 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs rw\n\
            30 28 0:27 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        let groups = "1:name=systemd:/x\n0::/system.slice/had-guard@main.service\n";
        let expected = "/sys/fs/cgroup/unified/system.slice/had-guard@main.service";
        assert_eq!(place(groups, mounts), Some(PathBuf::from(expected)));
        let bound = "30 28 0:27 /docker/x /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        assert_eq!(place("0::/docker/x/y", bound), Some(PathBuf::from("/sys/fs/cgroup/y")));
        assert_eq!(place("0::/other", bound), None);
        assert_eq!(place("1:cpu:/\n", mounts), None);
    }
}
