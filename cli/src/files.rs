//! Files that hold secrets or that must never be half-written: created whole, readable by their owner only.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use ha_proto::codes;

use crate::error::{CliError, file_error};

/// Creates `dir` and what is above it, for its owner only.
///
/// # Errors
/// `HA0002` with the directory.
pub fn create_private_dir(dir: &Path) -> Result<(), CliError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(|e| file_error("create", dir, &e))
}

/// Writes a new file of mode 600, whole or not at all.
///
/// # Errors
/// `HA0008` if `path` exists; `HA0002` if it cannot be written.
pub fn write_new(path: &Path, text: &str) -> Result<(), CliError> {
    if path.symlink_metadata().is_ok() {
        return Err(exists(path));
    }
    let temporary = write_beside(path, text)?;
    // A link never replaces what is there, a rename does.
    let linked = std::fs::hard_link(&temporary, path);
    let done = match linked {
        Ok(()) => {
            let _ = std::fs::remove_file(&temporary);
            Ok(())
        }
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            let _ = std::fs::remove_file(&temporary);
            return Err(exists(path));
        }
        // Not every file system has links.
        Err(_) => std::fs::rename(&temporary, path),
    };
    if let Err(e) = done {
        let _ = std::fs::remove_file(&temporary);
        return Err(file_error("write", path, &e));
    }
    sync_dir(path);
    Ok(())
}

/// Writes a file of mode 600 in place of what is there, whole or not at all.
///
/// # Errors
/// `HA0002` if it cannot be written.
pub fn replace(path: &Path, text: &str) -> Result<(), CliError> {
    let temporary = write_beside(path, text)?;
    if let Err(e) = std::fs::rename(&temporary, path) {
        let _ = std::fs::remove_file(&temporary);
        return Err(file_error("write", path, &e));
    }
    sync_dir(path);
    Ok(())
}

/// The file's text, at most 1 MiB of it.
///
/// # Errors
/// `HA0002` with the file and the reason.
pub fn read(path: &Path) -> Result<String, CliError> {
    use std::io::Read as _;
    const LIMIT: u64 = 1 << 20;
    let read = || -> std::io::Result<String> {
        let mut text = String::new();
        std::fs::File::open(path)?.take(LIMIT + 1).read_to_string(&mut text)?;
        if text.len() as u64 > LIMIT {
            return Err(std::io::Error::other("larger than 1 MiB"));
        }
        Ok(text)
    };
    read().map_err(|e| file_error("read", path, &e))
}

fn exists(path: &Path) -> CliError {
    CliError::new(codes::EXISTS_LOCALLY, format!("{} exists already", path.display()))
        .why("hactl does not overwrite keys and certificates")
        .next(
            format!("mv {0} {0}.old", path.display()),
            "put the old one aside, then try again",
        )
        .detail("path", path.display().to_string())
}

fn write_beside(path: &Path, text: &str) -> Result<PathBuf, CliError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let temporary = path.with_file_name(format!(".{name}.{}.tmp", uuid::Uuid::new_v4().simple()));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let write = || -> std::io::Result<()> {
        let mut file = options.open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    if let Err(e) = write() {
        let _ = std::fs::remove_file(&temporary);
        return Err(file_error("write", path, &e));
    }
    Ok(temporary)
}

/// Makes the directory entry durable where the system can.
fn sync_dir(path: &Path) {
    #[cfg(unix)]
    if let Some(dir) = path.parent() {
        let dir = if dir.as_os_str().is_empty() {
            Path::new(".")
        } else {
            dir
        };
        if let Ok(dir) = std::fs::File::open(dir) {
            let _ = dir.sync_all();
        }
    }
    #[cfg(not(unix))]
    let _ = path;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_is_private_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n1.bundle");
        write_new(&path, "one").unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        let error = write_new(&path, "two").unwrap_err();
        assert!(error.is(codes::EXISTS_LOCALLY));
        assert_eq!(read(&path).unwrap(), "one");
        replace(&path, "three").unwrap();
        assert_eq!(read(&path).unwrap(), "three");
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            1,
            "no temporary file is left"
        );
    }

    #[test]
    fn a_missing_directory_is_an_error_that_names_the_file() {
        let error = write_new(Path::new("/nonexistent/x.bundle"), "x").unwrap_err();
        assert!(error.is(codes::BAD_FILE) && error.message().contains("/nonexistent/x.bundle"));
    }
}
