//! A former primary whose log is not a part of its successor's comes back.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use ha_tests::cluster::LIMIT;
use nix::sys::signal::Signal;

use crate::hands::signal;
use crate::nothing_is_lost;
use crate::rig::Group;

/// Looks all the time for a whole data directory below the instance's.
struct Watch {
    seen_none: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Watch {
    fn begin(work: PathBuf) -> Watch {
        let seen_none = Arc::new(AtomicBool::new(false));
        let seen = seen_none.clone();
        let task = tokio::spawn(async move {
            loop {
                // Twice: it may be renamed while one looks.
                if !has_data(&work) && !has_data(&work) {
                    seen.store(true, Ordering::Relaxed);
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        Watch { seen_none, task }
    }

    fn finish(self) -> Result<()> {
        self.task.abort();
        let none = self.seen_none.load(Ordering::Relaxed);
        ensure!(!none, "there was a moment without any data directory");
        Ok(())
    }
}

fn has_data(work: &Path) -> bool {
    let entries = std::fs::read_dir(work).into_iter().flatten().flatten();
    let mut dirs = entries.map(|e| e.path());
    dirs.any(|d| d.join("global/pg_control").exists())
}

/// Writes what no standby receives, and kills the node.
async fn diverge(group: &mut Group, first: &str) -> Result<()> {
    let senders = group.titled(first, "walsender")?;
    ensure!(senders.len() >= 2, "{senders:?} send to the standbys");
    signal(&senders, Signal::SIGSTOP);
    let here = "SET synchronous_commit = local; CREATE TABLE only_here AS SELECT generate_series(1, 10000) AS n";
    group.sql(first, "app", here).await?;
    group.sql(first, "app", "SELECT pg_switch_wal()").await?;
    group.kill_node(first)
}

async fn has_no_other_rows(group: &Group) -> Result<()> {
    for node in group.cluster.names() {
        group
            .answers(&node, "app", "SELECT to_regclass('only_here') IS NULL", "t")
            .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_with_writes_that_never_replicated_is_rewound() -> Result<()> {
    let mut group = Group::create().await?;
    let first = group.whole().await?;
    let writer = group.writer(&first);
    writer.wrote(20).await?;
    diverge(&mut group, &first).await?;
    let second = group.primary_other_than(&first).await?;
    writer.wrote_more(20).await?;
    let watch = Watch::begin(group.work(&first)?);
    group.cluster.node(&first).start()?;
    let whole = group.whole().await?;
    ensure!(whole == second, "{second} became primary, and {whole} is");
    has_no_other_rows(&group).await?;
    watch.finish()?;
    group.told_of_failover(&first, &second).await?;
    let log = group.cluster.node(&first).logs();
    ensure!(log.contains("pg_rewind: done"), "its log does not tell of a rewind");
    nothing_is_lost(&group, writer).await?;
    Ok(())
}

/// The number of its timeline is its successor's, and pg_rewind takes that for "nothing to do".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_made_the_same_timeline_number_is_copied_afresh() -> Result<()> {
    let mut group = Group::create().await?;
    let first = group.whole().await?;
    let writer = group.writer(&first);
    writer.wrote(20).await?;
    group.kill_node(&first)?;
    let second = group.primary_other_than(&first).await?;
    writer.wrote_more(20).await?;
    let work = group.work(&first)?;
    promote_by_hand(&work, group.port(&first)?)?;
    let watch = Watch::begin(work);
    group.cluster.node(&first).start()?;
    let whole = group.whole().await?;
    ensure!(whole == second, "{second} became primary, and {whole} is");
    has_no_other_rows(&group).await?;
    watch.finish()?;
    nothing_is_lost(&group, writer).await?;
    Ok(())
}

/// What nobody should do to a server that had manages: it is started past had, promoted and written to.
fn promote_by_hand(work: &Path, port: u16) -> Result<()> {
    let data = work.join("data");
    let run = work.join("run");
    let owner = nix::unistd::geteuid().is_root();
    let as_postgres = |program: &str, args: &[&str]| -> Result<()> {
        let mut words = vec![program];
        if owner {
            words.splice(0..0, ["runuser", "-u", "postgres", "--"]);
        }
        words.extend(args);
        let output = Command::new(words[0]).args(&words[1..]).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{words:?}: {said}");
        Ok(())
    };
    let bin = ha_tests::postgres::programs()?;
    let pg_ctl = bin.join("pg_ctl").display().to_string();
    let data = data.display().to_string();
    let options = format!("-k {} -p {port} -c hot_standby=on", run.display());
    // To PostgreSQL a killed postmaster runs until somebody has reaped it.
    let lock = std::fs::read_to_string(format!("{data}/postmaster.pid"))?;
    let former = format!("/proc/{}", lock.lines().next().unwrap_or_default().trim());
    let limit = std::time::Instant::now() + LIMIT;
    while Path::new(&former).exists() {
        ensure!(std::time::Instant::now() < limit, "{former} is not reaped");
        std::thread::sleep(Duration::from_millis(20));
    }
    as_postgres("touch", &[&format!("{data}/standby.signal")])?;
    let log = format!("{}/by-hand.log", run.display());
    as_postgres(&pg_ctl, &["-D", &data, "-w", "-l", &log, "-o", &options, "start"])?;
    as_postgres(&pg_ctl, &["-D", &data, "-w", "promote"])?;
    let statement = "SET synchronous_commit = local; CREATE TABLE only_here AS SELECT generate_series(1, 10000) AS n";
    let output = Command::new("psql")
        .args([
            "-X",
            "-U",
            "postgres",
            "-d",
            "app",
            "-p",
            &port.to_string(),
            "-c",
            statement,
            "-h",
        ])
        .arg(&run)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let stopped = as_postgres(&pg_ctl, &["-D", &data, "-w", "-m", "fast", "stop"]);
    ensure!(output.status.success(), "{said}");
    stopped
}
