//! The end of an instance's data, where an operator asked for that by name.
//!
//! Only what is the group's and had's own goes: the control file must have the group's system id, the configuration in the
//! directory must be had's, nothing of it may lie elsewhere. Whatever cannot be told so is left, with the reason.

use std::path::{Path, PathBuf};

use super::conf::HEAD;
use super::error::{PgError, Result, blocking};
use super::instance::{Found, Instance, REMOVE_LIMIT};
use crate::platform::sync_parent;

/// The name under which a data directory goes, after its own: what was begun is ended after a crash.
const GOING: &str = "had-removed";

impl Instance {
    /// Deletes the data directory, its kept former ones, and what had keeps beside it. The server is stopped. Done again, it
    /// does what is left to do. Returns whether there was a data directory.
    ///
    /// # Errors
    /// [`PgError::Refused`] if the directory is not the group's, is not had's own, holds more than can be told, or if a
    /// server runs in it: nothing was deleted then. [`PgError::Files`]: some of it may be gone.
    pub async fn erase(&self, system_id: u64) -> Result<bool> {
        let what = self.place.data.display().to_string();
        let refused = |why: String| PgError::refused(what.clone(), why);
        self.must_be_stopped(&what)?;
        let found = match self.inspect().await? {
            Found::Empty => false,
            Found::Cluster { control, .. } if control.system_id == system_id => true,
            Found::Cluster { control, .. } => {
                return Err(refused(format!(
                    "it is of system {}, the group was {system_id}",
                    control.system_id
                )));
            }
            Found::Incomplete { .. } => {
                return Err(refused(
                    "a copy or rewind of it was cut off: it has to be deleted by hand".to_owned(),
                ));
            }
            Found::Foreign { why } => return Err(refused(why)),
        };
        let (data, going) = (self.place.data.clone(), self.place.beside(GOING));
        blocking("deleting a data directory", REMOVE_LIMIT, move || {
            if found {
                own(&data).map_err(|why| PgError::refused(data.display().to_string(), why))?;
                remove(&going)?;
                std::fs::rename(&data, &going).map_err(PgError::files(&data))?;
                sync_parent(&going).map_err(PgError::files(&going))?;
            }
            remove(&going)
        })
        .await?;
        self.drop_kept().await?;
        let place = self.place.clone();
        let mut rest = vec![place.work.clone(), place.marks.clone(), place.socket_dir.clone()];
        // A data directory that lies in the work directory is gone by now; one of its own keeps the directory it lies in.
        rest.dedup();
        blocking("deleting an instance's files", REMOVE_LIMIT, move || {
            rest.iter().try_for_each(|dir| remove(dir))
        })
        .await?;
        Ok(found)
    }
}

/// Why a data directory is not one that had made its own, or holds what lies elsewhere.
fn own(data: &Path) -> std::result::Result<(), String> {
    let conf = std::fs::read_to_string(data.join("postgresql.conf")).map_err(|e| format!("postgresql.conf: {e}"))?;
    if !conf.starts_with(HEAD) {
        return Err("its postgresql.conf is not had's".to_owned());
    }
    let links = |dir: PathBuf| -> std::io::Result<Option<PathBuf>> {
        for entry in std::fs::read_dir(&dir)? {
            let entry = entry?;
            if entry.file_type()?.is_symlink() {
                return Ok(Some(entry.path()));
            }
        }
        Ok(None)
    };
    for dir in [data.to_owned(), data.join("pg_tblspc")] {
        let found = links(dir.clone()).map_err(|e| format!("{}: {e}", dir.display()))?;
        if let Some(link) = found {
            return Err(format!(
                "{} leads elsewhere: it has to be deleted by hand",
                link.display()
            ));
        }
    }
    Ok(())
}

/// Removes a directory with what is in it, following no links.
fn remove(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(PgError::files(dir)(e)),
        Err(_) => Ok(()),
        Ok(()) => match dir.parent().filter(|p| p.exists()) {
            Some(_) => sync_parent(dir).map_err(PgError::files(dir)),
            None => Ok(()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(dir: &Path, conf: &str) -> PathBuf {
        let data = dir.join("data");
        std::fs::create_dir_all(data.join("pg_tblspc")).unwrap();
        std::fs::write(data.join("postgresql.conf"), conf).unwrap();
        data
    }

    #[test]
    fn only_what_is_hads_own_may_go() {
        let dir = tempfile::tempdir().unwrap();
        let mine = data(dir.path(), &format!("{HEAD}include 'x'\n"));
        assert_eq!(own(&mine), Ok(()));
        std::fs::write(mine.join("postgresql.conf"), "port = 5432\n").unwrap();
        assert!(own(&mine).unwrap_err().contains("not had's"));
        std::fs::remove_file(mine.join("postgresql.conf")).unwrap();
        assert!(own(&mine).is_err());
    }

    #[cfg(all(test, unix))]
    #[test]
    fn what_lies_elsewhere_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let mine = data(dir.path(), HEAD);
        std::os::unix::fs::symlink(dir.path(), mine.join("pg_tblspc/16400")).unwrap();
        assert!(own(&mine).unwrap_err().contains("16400"));
        std::fs::remove_file(mine.join("pg_tblspc/16400")).unwrap();
        std::os::unix::fs::symlink(dir.path(), mine.join("pg_wal")).unwrap();
        assert!(own(&mine).unwrap_err().contains("pg_wal"));
        // Links are not followed.
        remove(&mine).unwrap();
        remove(&mine).unwrap();
        assert!(dir.path().exists());
    }
}
