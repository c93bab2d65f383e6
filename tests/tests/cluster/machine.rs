//! Machines that are not well: clocks that are hours apart, a disk that is full.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use ha_proto::v1::{NodeStatus, TransferMasterRequest};
use ha_tests::cluster::{Cluster, LIMIT, Options, master_of};
use tokio::time::{Duration, Instant, sleep};

use crate::{label, restarted, skipped};

const HOUR_MS: i64 = 3_600_000;

/// A library that moves a process's wall clock by `CLOCK_OFFSET_S` seconds, and no other clock of it.
fn clock_shim(dir: &Path) -> Result<PathBuf> {
    const SOURCE: &str = r#"
        #define _GNU_SOURCE
        #include <stdlib.h>
        #include <sys/syscall.h>
        #include <time.h>
        #include <unistd.h>
        int clock_gettime(clockid_t clock, struct timespec *at) {
            int failed = (int)syscall(SYS_clock_gettime, clock, at);
            const char *offset = getenv("CLOCK_OFFSET_S");
            if (!failed && offset && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
                at->tv_sec += atol(offset);
            return failed;
        }
        time_t time(time_t *out) {
            struct timespec at;
            clock_gettime(CLOCK_REALTIME, &at);
            if (out) *out = at.tv_sec;
            return at.tv_sec;
        }
    "#;
    let (source, library) = (dir.join("clock.c"), dir.join("clock.so"));
    fs::write(&source, SOURCE)?;
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &source])
        .output()
        .context("no C compiler")?;
    ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Ok(library)
}

fn status(state: &ha_proto::v1::ClusterState, name: &str) -> NodeStatus {
    let node = state.nodes.iter().find(|n| n.name == name);
    node.and_then(|n| n.status.clone()).unwrap_or_default()
}

#[tokio::test]
async fn clocks_that_are_hours_apart_raise_alerts_and_change_nothing_else() -> Result<()> {
    let mut cluster = Cluster::start(Options::default()).await?;
    let shim = clock_shim(cluster.dir())?;
    let members = cluster.members().await?;
    for (name, hours) in members.iter().zip([5, -7]) {
        let daemon = cluster.node(name);
        daemon.env = vec![
            ("LD_PRELOAD".into(), shim.display().to_string()),
            ("CLOCK_OFFSET_S".into(), (hours * HOUR_MS / 1000).to_string()),
        ];
        daemon.restart()?;
    }
    let skewed = |state: &ha_proto::v1::ClusterState, name: &str, hours: i64| {
        (status(state, name).clock_skew_ms - hours * HOUR_MS).abs() < 60_000
    };
    let state = cluster
        .wait_until("the skew is seen", |s| {
            skewed(s, &members[0], 5) && skewed(s, &members[1], -7)
        })
        .await?;
    cluster.healthy().await?;
    for name in &members {
        ensure!(
            state.alerts.iter().any(|a| a.id == format!("node/{name}/clock")),
            "{:?}",
            state.alerts
        );
    }
    // The one that lives in the future leads, and then the one that lives in the past.
    for name in &members {
        let request = TransferMasterRequest {
            to: name.clone(),
            options: None,
        };
        cluster.admin()?.transfer_master(request).await?;
        cluster.wait_until("it leads", |s| master_of(s) == name).await?;
        cluster.healthy().await?;
        label(&cluster, "n1", name).await?;
    }
    let seq = cluster.revision().await?;
    sleep(Duration::from_secs(3)).await;
    cluster
        .assert_none_since(seq, &["node.offline", "node.suspect", "master.elected"])
        .await?;
    cluster.finish().await
}

#[tokio::test]
async fn a_full_disk_is_told_and_costs_nothing_but_memory() -> Result<()> {
    const TEST: &str = "a_full_disk_is_told_and_costs_nothing_but_memory";
    let possible = Command::new("unshare")
        .args(["-m", "mount", "-t", "tmpfs", "none", "/mnt"])
        .output();
    if !possible.as_ref().is_ok_and(|o| o.status.success()) {
        skipped(TEST, "mounting a small file system takes root");
        return Ok(());
    }
    let record = tempfile::tempdir()?;
    let lines = record.path().join("seen");
    // The hook has to see every change, at least once and in order, whatever the disk does.
    let hook = format!(
        "[[on_change]]\nname = \"record\"\ncommand = [\"/bin/sh\", \"-c\", {:?}]\nkinds = [\"node.changed\"]\n",
        format!("echo $HA_SEQ >>{}.$HA_NODE", lines.display()),
    );
    let mut cluster = Cluster::start(Options {
        nodes: 2,
        config: hook,
        ..Options::default()
    })
    .await?;
    let name = cluster.members().await?.remove(0);
    // Its state moves to a file system of half a MiB in a mount namespace of its own, which goes with the process.
    let state_dir = cluster.node(&name).state_dir();
    let kept = cluster.dir().join("kept");
    let script = format!(
        "cp -a {0} {1} && mount -t tmpfs -o size=512k none {0} && cp -a {1}/. {0}/ && exec \"$@\"",
        state_dir.display(),
        kept.display()
    );
    cluster.node(&name).under = ["unshare", "-m", "sh", "-c", &script, "sh"].map(String::from).to_vec();
    let seq = cluster.revision().await?;
    cluster.node(&name).restart()?;
    restarted(&cluster, &name, seq).await?;
    let pid = cluster.node(&name).pid().context("it runs")?;
    let inside = PathBuf::from(format!("/proc/{pid}/root{}", state_dir.display()));
    let filler = inside.join("filler");
    label(&cluster, &name, "before").await?;
    fill(&filler)?;
    let seq = cluster.revision().await?;
    label(&cluster, &name, "full").await?;
    let state = cluster
        .wait_until("the full disk is told", |s| {
            status(s, &name).conditions.iter().any(|c| c.contains("disk full"))
        })
        .await?;
    ensure!(
        state.alerts.iter().any(|a| a.text.contains("disk full")),
        "{:?}",
        state.alerts
    );
    let log = cluster.node(&name).log();
    ensure!(log.contains("HA0808"), "the log does not say so");
    cluster.healthy().await?;
    label(&cluster, &name, "still-full").await?;
    fs::remove_file(&filler)?;
    cluster
        .wait_until("it is mended", |s| status(s, &name).conditions.is_empty())
        .await?;
    label(&cluster, &name, "mended").await?;
    cluster
        .assert_none_since(seq, &["node.offline", "node.suspect", "master.elected"])
        .await?;
    // Each change once, in order.
    let wanted: Vec<u64> = cluster
        .changes()
        .await?
        .into_iter()
        .filter(|c| c.kind == "node.changed")
        .map(|c| c.seq)
        .collect();
    for node in cluster.names() {
        let file = format!("{}.{node}", lines.display());
        let begun = Instant::now();
        loop {
            let text = fs::read_to_string(&file).unwrap_or_default();
            let seen: Vec<u64> = text.lines().filter_map(|l| l.parse().ok()).collect();
            if seen == wanted {
                break;
            }
            ensure!(
                begun.elapsed() < LIMIT,
                "{node}: the hook saw {seen:?}, the log has {wanted:?}"
            );
            sleep(Duration::from_millis(50)).await;
        }
    }
    cluster.finish().await
}

/// Writes until nothing fits any more.
fn fill(path: &Path) -> Result<()> {
    use std::io::Write as _;
    let mut file = fs::File::create(path)?;
    for block in [4096, 1] {
        loop {
            match file.write_all(&vec![0; block]) {
                Ok(()) => {}
                Err(e) if e.kind() == std::io::ErrorKind::StorageFull => break,
                Err(e) => bail!("{}: {e}", path.display()),
            }
        }
    }
    Ok(())
}
