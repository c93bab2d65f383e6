//! Commands as whole processes, beside those of the peers where they are installed.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use super::figures::{Figures, beside};
use crate::cluster::{Cluster, Options};

/// Runs of a command of ours, and of a peer's, which takes a hundred times as long.
const RUNS: usize = 25;
const PEER_RUNS: usize = 5;
const ZKCLI: &str = "/usr/share/zookeeper/bin/zkCli.sh";

pub(super) async fn run() -> Result<()> {
    println!("\ncommands as whole processes (goal of node list: 30 ms)");
    let cluster = Cluster::start(Options {
        subscribers: false,
        ..Options::default()
    })
    .await?;
    let home = tempfile::tempdir()?;
    let bundle = home.path().join("admin.bundle");
    hactl::bundle::write_new(&bundle, &cluster.bundle("admin")?)?;
    let program = &cluster.programs().hactl;
    let hactl = |args: &[&str]| {
        let mut command = Command::new(program);
        command
            .args(args)
            .env("HACTL_CONFIG_DIR", home.path().join("config"))
            .env_remove("HACTL_CONTEXT");
        command
    };
    let added = hactl(&["context", "add", "--bundle"]).arg(&bundle).output()?;
    ensure!(
        added.status.success(),
        "context add: {}",
        String::from_utf8_lossy(&added.stderr)
    );

    let list = time(|| hactl(&["node", "list"]), RUNS)?;
    let version = time(|| hactl(&["version"]), RUNS)?;
    let zkcli = match Path::new(ZKCLI).exists() {
        true => {
            let server = cluster.zookeeper.connect_string();
            let ls = || {
                let mut command = Command::new(ZKCLI);
                command.args(["-server", &server, "ls", "/"]);
                command
            };
            time(ls, PEER_RUNS)
                .map_err(|e| println!("  zkCli.sh cannot be measured: {e}"))
                .ok()
        }
        false => None,
    };
    beside("hactl node list", &list, zkcli.as_ref().map(|z| ("zkCli.sh ls /", z)));
    beside("hactl version", &version, None);
    if let Some(zkcli) = &zkcli {
        beside("zkCli.sh ls /", zkcli, None);
    }
    match patroni() {
        Some(patronictl) => match time(|| list_of(&patronictl), PEER_RUNS) {
            Ok(figures) => {
                beside("patronictl list", &figures, None);
                beside("hactl node list", &list, Some(("patronictl list", &figures)));
            }
            Err(e) => println!("  patronictl list cannot be measured: {e}"),
        },
        None => println!("  patronictl list                              not installed"),
    }
    Ok(())
}

/// The `patronictl` in the search path, if one is configured (PATRONICTL_CONFIG_FILE).
fn patroni() -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|d| d.join("patronictl"))
        .find(|p| p.exists())
}

fn list_of(patronictl: &Path) -> Command {
    let mut command = Command::new(patronictl);
    command.arg("list");
    command
}

fn time(command: impl Fn() -> Command, runs: usize) -> Result<Figures> {
    let mut figures = Figures::default();
    // The first run warms the caches and is not counted.
    for run in 0..=runs {
        let begun = Instant::now();
        let status = command()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let elapsed = begun.elapsed();
        let status = status.context("it cannot be started")?;
        ensure!(status.success(), "it ended with {status}");
        if run > 0 {
            figures.push(elapsed);
        }
    }
    Ok(figures)
}
