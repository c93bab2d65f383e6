//! The programs under test: `had` and `hactl` of the profile that this test was built with.
//!
//! Whoever runs one test alone gets programs of the present source as well: what is older than the source is built first,
//! once, whatever number of tests ask for it. `HA_TEST_BIN=DIR` tests the programs in DIR instead, as they are.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

/// Where the two programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The daemon.
    pub had: PathBuf,
    /// The command line.
    pub hactl: PathBuf,
}

/// The programs, built if need be.
///
/// # Errors
/// If they cannot be built, with what cargo said.
pub fn programs() -> Result<Programs> {
    static FOUND: OnceLock<Result<Programs, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| find().map_err(|e| format!("{e:#}")));
    found.clone().map_err(anyhow::Error::msg)
}

fn find() -> Result<Programs> {
    if let Some(dir) = std::env::var_os("HA_TEST_BIN").map(PathBuf::from) {
        return Ok(Programs {
            had: dir.join("had"),
            hactl: dir.join("hactl"),
        });
    }
    let (target, profile) = place()?;
    let dir = target.join(&profile);
    let programs = Programs {
        had: dir.join("had"),
        hactl: dir.join("hactl"),
    };
    let lock = File::create(target.join("test-programs.lock"))?;
    // Other test processes wait here while one builds.
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| e)?;
    if is_fresh(&programs)? {
        return Ok(programs);
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // Together with this package, so that the dependencies have the same features and nothing is built twice.
    command
        .args([
            "build",
            "--quiet",
            "-p",
            "ha-tests",
            "-p",
            "controlplane",
            "-p",
            "hactl",
        ])
        .args(["--bin", "had", "--bin", "hactl"])
        .arg("--target-dir")
        .arg(&target)
        .current_dir(root());
    if profile == Path::new("release") {
        command.arg("--release");
    }
    let output = command.output().context("cargo does not start")?;
    if !output.status.success() {
        bail!(
            "the programs cannot be built:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(programs)
}

/// The target directory and the profile's directory in it, from this program's own place.
fn place() -> Result<(PathBuf, PathBuf)> {
    let exe = std::env::current_exe()?;
    let mut dir = exe.parent().context("this program is nowhere")?;
    if dir.file_name().is_some_and(|n| n == "deps") {
        dir = dir.parent().context("this program is nowhere")?;
    }
    let profile = dir.file_name().context("no profile")?.into();
    Ok((dir.parent().context("no target directory")?.to_owned(), profile))
}

/// The workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Whether both programs are newer than all that they are made from.
fn is_fresh(programs: &Programs) -> Result<bool> {
    let built = |path: &Path| fs::metadata(path).and_then(|m| m.modified()).ok();
    let (Some(had), Some(hactl)) = (built(&programs.had), built(&programs.hactl)) else {
        return Ok(false);
    };
    let built = had.min(hactl);
    let root = root();
    for file in ["Cargo.toml", "Cargo.lock"] {
        if fs::metadata(root.join(file))?.modified()? > built {
            return Ok(false);
        }
    }
    for dir in ["proto", "controlplane", "cli"] {
        if newest(&root.join(dir))? > built {
            return Ok(false);
        }
    }
    Ok(true)
}

/// When a source file below `dir` was last changed.
fn newest(dir: &Path) -> Result<SystemTime> {
    let mut newest = SystemTime::UNIX_EPOCH;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() && entry.file_name() != "tests" {
            newest = newest.max(self::newest(&entry.path())?);
        } else if kind.is_file() {
            let path = entry.path();
            let source = path
                .extension()
                .is_some_and(|e| e == "rs" || e == "toml" || e == "proto");
            if source {
                // A file that goes away meanwhile is somebody's editor's.
                newest = newest.max(entry.metadata().and_then(|m| m.modified()).unwrap_or(newest));
            }
        }
    }
    Ok(newest)
}
