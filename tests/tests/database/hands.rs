//! What a test does to single servers and processes of a group, past had: statements as the superuser, signals to what
//! PostgreSQL started, a look at the history.

use std::collections::BTreeSet;
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
use crate::writer::{Mark, Writer};

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

    /// What the change log has of this kind.
    pub(crate) async fn events(&self, kind: &str) -> Result<Vec<v1::Change>> {
        let request = v1::ListChangesRequest {
            kind: kind.into(),
            limit: 200,
            ..v1::ListChangesRequest::default()
        };
        Ok(self.cluster.admin()?.list_changes(request).await?.changes)
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

impl Group {
    /// Everything of a node: daemon, guard, postmaster and what it started.
    pub(crate) fn signal_node(&self, node: &str, what: Signal) -> Result<()> {
        let dir = self.dir(node)?.display().to_string();
        let mut told = BTreeSet::new();
        // What has started another process meanwhile is found with it.
        loop {
            let new: Vec<i32> = processes_of(&dir).into_iter().filter(|p| told.insert(*p)).collect();
            if new.is_empty() {
                return Ok(());
            }
            signal(&new, what);
        }
    }

    /// The epoch of the record.
    pub(crate) async fn epoch(&self) -> Result<u64> {
        Ok(self.group().await?.record.unwrap_or_default().epoch)
    }

    /// Waits until an event of this kind came after `seq`.
    pub(crate) async fn told(&self, seq: u64, kind: &str) -> Result<()> {
        let limit = Instant::now() + LIMIT;
        loop {
            let events = self.cluster.changes_since(seq).await?;
            if events.iter().any(|e| e.kind == kind) {
                return Ok(());
            }
            let kinds: Vec<_> = events.iter().map(|e| (&e.kind, &e.text)).collect();
            ensure!(Instant::now() < limit, "nothing tells of {kind}: {kinds:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// One fault at a primary, from a whole group to a whole group. What does not hold is told with the fault's name.
pub(crate) struct Fault {
    name: &'static str,
    /// The primary.
    pub(crate) first: String,
    epoch: u64,
    seq: u64,
    mark: Mark,
    began: Instant,
}

impl Fault {
    /// The group is whole, and rows are written.
    pub(crate) async fn begin(name: &'static str, group: &Group, writer: &Writer) -> Result<Fault> {
        let first = group.whole().await.context(name)?;
        writer.wrote_more(20).await.context(name)?;
        Ok(Fault {
            name,
            first,
            epoch: group.epoch().await?,
            seq: group.cluster.revision().await?,
            mark: writer.mark(),
            began: Instant::now(),
        })
    }

    /// Another one becomes primary and takes writes while the fault lasts. Returns it.
    pub(crate) async fn succeeded(&self, group: &Group, writer: &Writer) -> Result<String> {
        let second = group.primary_other_than(&self.first).await.context(self.name)?;
        writer.wrote_more(20).await.context(self.name)?;
        Ok(second)
    }

    /// The fault is over: the group becomes whole under this successor, and its events tell what happened.
    pub(crate) async fn heals_under(self, second: &str, group: &Group, writer: &Writer) -> Result<()> {
        let name = self.name;
        let whole = group.whole().await.context(name)?;
        ensure!(whole == second, "{name}: {second} became primary, and {whole} is");
        writer.wrote_more(20).await.context(name)?;
        group.told_of_failover(&self.first, second).await.context(name)?;
        for kind in [
            "db.electing",
            "db.promoting",
            "db.primary",
            "db.failover",
            "db.rejoined",
        ] {
            group.told(self.seq, kind).await.context(name)?;
        }
        self.verdict("succeeded, and whole again");
        Ok(())
    }

    /// The fault is over, and nothing came of it: no write was disturbed, and nobody else became primary.
    pub(crate) async fn disturbed_nobody(self, group: &Group, writer: &Writer) -> Result<()> {
        let name = self.name;
        let whole = group.whole().await.context(name)?;
        let epoch = group.epoch().await?;
        ensure!(
            (whole.as_str(), epoch) == (self.first.as_str(), self.epoch),
            "{name}: {whole} is primary of epoch {epoch}, {} was of {}",
            self.first,
            self.epoch
        );
        writer.wrote_more(20).await.context(name)?;
        writer.never_interrupted_since(self.mark).context(name)?;
        let none = [
            "db.electing",
            "db.promoting",
            "db.primary",
            "db.failover",
            "db.degraded",
        ];
        group.cluster.assert_none_since(self.seq, &none).await.context(name)?;
        self.verdict("no write disturbed, nobody else primary");
        Ok(())
    }

    /// Says how it ended.
    pub(crate) fn verdict(&self, what: &str) {
        eprintln!("{}: {what} ({:.1} s)", self.name, self.began.elapsed().as_secs_f64());
    }

    /// What happened since it began, for what the test asks on its own.
    pub(crate) fn seq(&self) -> u64 {
        self.seq
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
