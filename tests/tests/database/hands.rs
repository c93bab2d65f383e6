//! What a test does to single servers and processes of a group, past had: statements as the superuser, signals to what
//! PostgreSQL started, a look at the history.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ha_proto::v1;
use ha_tests::cluster::LIMIT;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::rig::{GROUP, Group, processes_of};

impl Group {
    /// Where the node sees its directory: it may have a file system of its own there.
    pub(crate) fn seen_by(&self, node: &str) -> Result<PathBuf> {
        let daemon = self.cluster.daemons.iter().find(|d| d.name == node);
        let daemon = daemon.context("there is no such node")?;
        match daemon.pid() {
            Some(pid) if !daemon.under.is_empty() => {
                Ok(PathBuf::from(format!("/proc/{pid}/root{}", daemon.dir.display())))
            }
            _ => Ok(daemon.dir.clone()),
        }
    }

    /// Where the node's instance has its things.
    pub(crate) fn work(&self, node: &str) -> Result<PathBuf> {
        Ok(self.seen_by(node)?.join("state/postgres").join(GROUP))
    }

    pub(crate) fn port(&self, node: &str) -> Result<u16> {
        let at = self.cluster.daemons.iter().position(|d| d.name == node);
        Ok(self.hosts[at.context("there is no such node")?].1)
    }

    /// psql as the superuser, through the node's own socket.
    pub(crate) fn psql(&self, node: &str, database: &str, text: &str) -> Result<Command> {
        let mut command = Command::new("psql");
        command
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres"])
            .arg("-h")
            .arg(self.work(node)?.join("run"))
            .args(["-p", &self.port(node)?.to_string(), "-d", database, "-c", text])
            .stdin(Stdio::null())
            .kill_on_drop(true);
        Ok(command)
    }

    /// What the server of this node answers the superuser.
    pub(crate) async fn sql(&self, node: &str, database: &str, text: &str) -> Result<String> {
        let output = self.psql(node, database, text)?.output().await?;
        ensure!(
            output.status.success(),
            "{text} on {node}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Waits until the server of this node gives this answer.
    pub(crate) async fn answers(&self, node: &str, database: &str, text: &str, wanted: &str) -> Result<()> {
        let limit = Instant::now() + LIMIT;
        loop {
            let seen = self.sql(node, database, text).await;
            if seen.as_ref().is_ok_and(|s| s == wanted) {
                return Ok(());
            }
            ensure!(
                Instant::now() < limit,
                "{text} on {node}: {wanted} is wanted, not {seen:?}\n{}",
                self.cluster.tails()
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Processes of the node's instance whose title has this word.
    pub(crate) fn titled(&self, node: &str, word: &str) -> Result<Vec<i32>> {
        let title = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            line.starts_with("postgres: ") && line.contains(word)
        };
        let dir = self.dir(node)?.display().to_string();
        Ok(processes_of(&dir).into_iter().filter(title).collect())
    }

    /// The other nodes.
    pub(crate) fn others(&self, node: &str) -> Vec<String> {
        let names = self.cluster.names();
        names.into_iter().filter(|n| n != node).collect()
    }

    /// The changes of primary, oldest first.
    pub(crate) async fn history(&self) -> Result<Vec<v1::HistoryEntry>> {
        let request = v1::HistoryRequest {
            group: GROUP.into(),
            ..v1::HistoryRequest::default()
        };
        Ok(self.cluster.admin()?.history(request).await?.entries)
    }

    /// The history tells of a failover between these two, with what it was decided from.
    pub(crate) async fn told_of_failover(&self, from: &str, to: &str) -> Result<()> {
        let entries = self.history().await?;
        let told = entries.iter().any(|e| {
            let kind = e.kind() == v1::PrimaryChange::Failover;
            let complete = !e.reason.is_empty() && !e.decision.is_empty() && e.finished_unix_ms > 0;
            kind && complete && e.error.is_empty() && (e.from.as_str(), e.to.as_str()) == (from, to)
        });
        ensure!(told, "nothing tells of a failover from {from} to {to}: {entries:?}");
        Ok(())
    }
}

pub(crate) fn signal(pids: &[i32], signal: Signal) {
    for pid in pids {
        let _ = kill(Pid::from_raw(*pid), signal);
    }
}

/// Whether the process is there and not merely unreaped.
pub(crate) fn lives(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.chars().next());
    state.flatten().is_some_and(|s| !matches!(s, 'Z' | 'X'))
}
