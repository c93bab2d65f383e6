//! Files that survive a crash, and the lock on the state directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Replaces a file whole: readers see the old content or the new, also after a crash. Readable by the owner only.
///
/// The new content lies in `<path>.new` until it is complete; one writer a path.
///
/// # Errors
/// What the file system says. The old file is untouched then.
pub fn write_atomic(path: &Path, content: &[u8]) -> io::Result<()> {
    replace(path, content, |_| Ok(()))
}

/// As [`write_atomic`], for a file that belongs to another account from its first moment under its name.
///
/// # Errors
/// What the file system says. The old file is untouched then.
pub fn write_atomic_for(account: &super::Account, path: &Path, content: &[u8]) -> io::Result<()> {
    replace(path, content, |new| account.give(new))
}

fn replace(path: &Path, content: &[u8], finish: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let mut name = path
        .file_name()
        .ok_or_else(|| io::Error::other("no file name"))?
        .to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let written = write_new(&new, content)
        .and_then(|()| finish(&new))
        .and_then(|()| std::fs::rename(&new, path));
    if let Err(e) = written {
        let _ = std::fs::remove_file(&new);
        return Err(e);
    }
    sync_parent(path)
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    // A left-over might have another owner or mode: never write into it.
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Makes a rename durable, or that a file was made or removed.
#[cfg(unix)]
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(dir) if dir != Path::new("") => File::open(dir)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// Windows has no such call; its file system keeps renames in order.
#[cfg(windows)]
pub(crate) fn sync_parent(_: &Path) -> io::Result<()> {
    Ok(())
}

/// The right to use a state directory, held until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct DirLock {
    _held: File,
}

impl DirLock {
    /// Takes the lock of a directory, which must exist; `None` if another process has it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn acquire(dir: &Path) -> io::Result<Option<DirLock>> {
        let file = Self::open(dir)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(DirLock { _held: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }

    /// The directory itself is locked: that works on a full disk too.
    #[cfg(unix)]
    fn open(dir: &Path) -> io::Result<File> {
        File::open(dir)
    }

    #[cfg(windows)]
    fn open(dir: &Path) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join("lock"))
    }
}

/// Makes a directory (and what leads to it) that only its owner may enter, if it does not exist.
///
/// # Errors
/// What the file system says.
pub(crate) fn private_dir(dir: &Path) -> io::Result<PathBuf> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)?;
    Ok(dir.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = private_dir(&dir.path().join("a/b")).unwrap().join("token");
        write_atomic(&path, b"one").unwrap();
        std::fs::write(path.with_file_name("token.new"), "left over").unwrap();
        write_atomic(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(
                path.parent().unwrap().metadata().unwrap().permissions().mode() & 0o777,
                0o700
            );
        }
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        write_atomic(&path, b"one").unwrap();
        // Something that is in the way of the new file and cannot be removed as a file.
        std::fs::create_dir(dir.path().join("x.new")).unwrap();
        assert!(write_atomic(&path, b"two").is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
    }

    #[test]
    fn one_holder_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let first = DirLock::acquire(dir.path()).unwrap();
        assert!(first.is_some());
        assert!(DirLock::acquire(dir.path()).unwrap().is_none());
        drop(first);
        assert!(DirLock::acquire(dir.path()).unwrap().is_some());
        assert!(DirLock::acquire(&dir.path().join("none")).is_err());
    }
}
