//! Running the program with a configuration of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ha_proto::v1::AccessRole;
use hactl::ca::{ClusterAuthority, DEFAULT_SESSION_TIMEOUT};
use hactl::context::Store;

/// A user's machine: a configuration directory, a working directory, and a cluster's authority.
pub(crate) struct Machine {
    dir: tempfile::TempDir,
    pub(crate) authority: ClusterAuthority,
}

/// What a run left.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Run {
    /// Panics with everything that was said unless the exit code is this.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e} in {}", self.out))
    }
}

impl Machine {
    /// A machine that knows no cluster.
    pub(crate) fn bare() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = ClusterAuthority::create("prod", &["zk1".into()], DEFAULT_SESSION_TIMEOUT).unwrap();
        std::fs::create_dir(dir.path().join("work")).unwrap();
        Self { dir, authority }
    }

    /// Adds the context `name` of user alice with this role and makes it current.
    pub(crate) fn context(&self, name: &str, role: AccessRole, endpoints: &[String]) {
        let issued = self.authority.issue_user("alice", role).unwrap();
        self.store()
            .add(name, &self.authority.user_bundle(&issued, endpoints.to_vec()), false)
            .unwrap();
        self.store().set_current(name).unwrap();
    }

    pub(crate) fn store(&self) -> Store {
        Store::at(self.dir.path().join("config"))
    }

    /// The directory in which the program runs.
    pub(crate) fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hactl"));
        command
            .args(args)
            .current_dir(self.work())
            .stdin(Stdio::null())
            .env_clear();
        command
            .env("HACTL_CONFIG_DIR", self.dir.path().join("config"))
            .env("TZ", "UTC")
            .env("NO_COLOR", "1");
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Run {
        self.command(args).output().unwrap().into()
    }

    /// As `run`, with the words of a line.
    pub(crate) fn hactl(&self, line: &str) -> Run {
        self.run(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// `text` with what differs between runs replaced.
    pub(crate) fn redact(&self, text: &str) -> String {
        let text = text.replace(&self.dir.path().display().to_string(), "DIR");
        let text = text.replace(&self.authority.cluster_id, "CLUSTER-ID");
        redact(&text)
    }
}

/// Replaces ports of loopback, and the moment a document was observed.
pub(crate) fn redact(text: &str) -> String {
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut line = line.to_owned();
        if let Some(at) = line.find("\"observedAt\": \"2") {
            let end = line[at + 16..].find('"').unwrap() + at + 16;
            line.replace_range(at + 15..end, "NOW");
        }
        let mut from = 0;
        while let Some(at) = line[from..].find("127.0.0.1:") {
            let start = from + at + "127.0.0.1:".len();
            let end = line[start..]
                .find(|c: char| !c.is_ascii_digit())
                .map_or(line.len(), |n| start + n);
            line.replace_range(start..end, "PORT");
            from = start;
        }
        lines.push(line);
    }
    lines.join("\n") + "\n"
}

pub(crate) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
