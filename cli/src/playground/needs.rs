//! Finds what a playground is made from: Java, ZooKeeper's classes and the daemon.

use std::path::{Path, PathBuf};

use ha_proto::codes;

use crate::error::CliError;

/// Classes of ZooKeeper elsewhere than where Debian keeps them, as a class path.
const CLASSPATH: &str = "HACTL_ZOOKEEPER_CLASSPATH";
/// What Debian's packages install. The first names, in its manifest, what else it needs.
const JARS: [&str; 2] = ["/usr/share/java/zookeeper.jar", "/usr/share/java/slf4j-simple.jar"];

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Needs {
    /// The Java launcher.
    pub(super) java: PathBuf,
    /// The class path of ZooKeeper.
    pub(super) classpath: String,
    /// The daemon.
    pub(super) had: PathBuf,
    /// This program.
    pub(super) hactl: PathBuf,
}

/// Looks for everything.
///
/// # Errors
/// `HA0903` with all that is missing.
pub(super) fn find() -> Result<Needs, CliError> {
    let set = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let home = set("JAVA_HOME").map(|home| Path::new(&home).join("bin").join("java"));
    let java = home.filter(|java| java.is_file()).or_else(|| in_path("java"));
    let classpath = set(CLASSPATH).or_else(|| JARS.iter().all(|jar| Path::new(jar).is_file()).then(|| JARS.join(":")));
    let hactl = std::env::current_exe().and_then(std::fs::canonicalize).ok();
    let beside = hactl
        .as_ref()
        .map(|hactl| hactl.with_file_name("had"))
        .filter(|had| had.is_file());
    let had = beside.or_else(|| in_path("had"));
    match (java, classpath, had, hactl) {
        (Some(java), Some(classpath), Some(had), Some(hactl)) => Ok(Needs {
            java,
            classpath,
            had,
            hactl,
        }),
        (java, classpath, had, _) => Err(missing(java.is_some(), classpath.is_some(), had.is_some())),
    }
}

fn missing(java: bool, classes: bool, had: bool) -> CliError {
    let mut error = CliError::new(
        codes::PLAYGROUND_NEEDS,
        "something that the playground needs is not installed",
    );
    let mut packages = Vec::new();
    if !java {
        error = error.why("there is no java: neither in JAVA_HOME nor in PATH");
        packages.push("default-jre-headless");
    }
    if !classes {
        error = error.why(format!("there is no ZooKeeper: neither {} nor {CLASSPATH}", JARS[0]));
        packages.push("zookeeper");
    }
    if !had {
        error = error.why("there is no had: neither beside hactl nor in PATH");
    }
    if !packages.is_empty() {
        error = error.next(
            format!("apt-get install --no-install-recommends {}", packages.join(" ")),
            "as root, on Debian",
        );
    }
    if !had {
        error = error.next(
            "cargo build -p controlplane",
            "builds it beside a hactl that cargo built",
        );
    }
    error
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_missing_is_told_at_once() {
        let error = missing(false, false, false);
        assert_eq!(error.reasons().len(), 3);
        assert!(
            error.next_steps()[0]
                .command
                .ends_with("default-jre-headless zookeeper")
        );
        assert!(
            missing(true, true, false).next_steps()[0]
                .command
                .starts_with("cargo build")
        );
    }
}
