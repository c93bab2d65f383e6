//! Clusters of databases that ran without had, made by Debian's own tools: one is taken over with its rows and settings, and
//! one of another system is never touched. Needs root.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use ha_proto::v1;
use ha_tests::cluster::{Daemon, Place, own_address};
use ha_tests::skipped;

use crate::nothing_is_lost;
use crate::rig::Group;

/// Where Debian keeps things; each node has its own.
const DEBIANS: [&str; 3] = ["/etc/postgresql", "/var/lib/postgresql", "/var/log/postgresql"];

/// A node whose daemon sees directories of its own where Debian keeps clusters.
fn place() -> Place {
    // The last argument lies in the node's directory.
    let mounts = DEBIANS.map(|d| {
        format!("mkdir -p -m 755 \"$dir/debian{d}\" && chown postgres: \"$dir/debian{d}\" && mount --bind \"$dir/debian{d}\" {d}")
    });
    let script = format!(
        "for last; do :; done; dir=$(dirname \"$last\") && {} && exec \"$@\"",
        mounts.join(" && ")
    );
    let words = ["unshare", "-m", "--propagation", "private", "sh", "-c", &script, "sh"];
    Place {
        host: own_address(),
        ports: (0, 0),
        under: words.map(String::from).to_vec(),
    }
}

/// Runs a script at a node. Returns what it says.
fn at(node: &Daemon, script: &str) -> Result<String> {
    let mut words = node.under.clone();
    words.extend(["sh", "-euc", script].map(String::from));
    words.push(node.config().display().to_string());
    let output = Command::new(&words[0]).args(&words[1..]).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{script}: {said}");
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A cluster as an administrator of Debian has it, which has run and has been stopped.
fn by_debian(node: &Daemon, release: &str, rows: u32) -> Result<String> {
    let port = ha_tests::zookeeper::free_port("127.0.0.1")?;
    at(
        node,
        &format!(
            "pg_createcluster {release} main -p {port} -- --auth=trust >&2
             echo 'work_mem = 6MB' >/etc/postgresql/{release}/main/conf.d/tuning.conf
             echo 'host all all 127.0.0.0/8 scram-sha-256' >>/etc/postgresql/{release}/main/pg_hba.conf
             pg_ctlcluster --skip-systemctl-redirect {release} main start
             psql -X -q -U postgres -h /var/run/postgresql -p {port} \\
               -c 'CREATE TABLE found AS SELECT generate_series(1, {rows}) AS n'
             psql -X -q -A -t -U postgres -h /var/run/postgresql -p {port} \\
               -c 'SELECT system_identifier FROM pg_control_system()'
             pg_ctlcluster --skip-systemctl-redirect {release} main stop"
        ),
    )
}

/// Every file below, with what shows that it was written to.
fn files(dir: &Path, found: &mut BTreeMap<PathBuf, (u64, i64, i64, u32)>) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let meta = path.symlink_metadata()?;
        let size = if meta.is_dir() { 0 } else { meta.size() };
        found.insert(path.clone(), (size, meta.mtime(), meta.mtime_nsec(), meta.mode()));
        if meta.is_dir() {
            files(&path, found)?;
        }
    }
    Ok(())
}

fn all_files(dir: &Path) -> Result<BTreeMap<PathBuf, (u64, i64, i64, u32)>> {
    let mut found = BTreeMap::new();
    files(dir, &mut found)?;
    ensure!(found.len() > 500, "only {} files are in {}", found.len(), dir.display());
    Ok(found)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_of_debian_is_taken_over_and_one_of_another_system_never_touched() -> Result<()> {
    const NAME: &str = "a_cluster_of_debian_is_taken_over_and_one_of_another_system_never_touched";
    if !nix::unistd::geteuid().is_root() {
        skipped(NAME, "giving each node its own /etc/postgresql takes root");
        return Ok(());
    }
    if !Path::new("/usr/bin/pg_createcluster").exists() {
        skipped(NAME, "there is no pg_createcluster: apt install postgresql-common");
        return Ok(());
    }
    let bin = ha_tests::postgres::programs()?;
    let release = bin.parent().and_then(Path::file_name).context("no release")?;
    let release = release.to_string_lossy().into_owned();
    let places = (0..3).map(|_| place()).collect();
    let mut found = Vec::new();
    let group = Group::create_on_found(places, |cluster, spec| {
        found.push(by_debian(&cluster.daemons[0], &release, 1000)?);
        found.push(by_debian(&cluster.daemons[1], &release, 10)?);
        spec.directory = format!("/var/lib/postgresql/{release}/main");
        spec.members[0].role = v1::InstanceRole::Primary.into();
        Ok(())
    })
    .await?;
    ensure!(found[0] != found[1], "both are of one system");
    let foreign = group.dir("n2")?.join("debian");
    let before = all_files(&foreign)?;

    let state = group
        .until("n3 follows n1, and n2 says why it does not", |g| {
            let state = |n: &str| g.instances.iter().find(|i| i.node == n).map(v1::Instance::state);
            let refused = g.instances.iter().find(|i| i.node == "n2");
            let told = refused.is_some_and(|i| i.waits_for.contains("system"));
            let record = g.record.clone().unwrap_or_default();
            record.phase() == v1::GroupPhase::Steady
                && record.primary == "n1"
                && record.rules.last().is_some_and(|r| r.voters == ["n3"])
                && state("n3") == Some(v1::InstanceState::Streaming)
                && told
        })
        .await?;
    ensure!(
        state.health() != v1::GroupHealth::Healthy,
        "it is said to be healthy: {state:?}"
    );
    let id = state.record.unwrap_or_default().system_id.to_string();
    ensure!(
        id == found[0],
        "the group is of system {id}, and {} was found",
        found[0]
    );
    let writer = group.writer("n1");
    writer.wrote(20).await?;
    for node in ["n1", "n3"] {
        group
            .answers(node, "postgres", "SELECT count(*) FROM found", "1000")
            .await?;
    }
    group.answers("n1", "postgres", "SHOW work_mem", "6MB").await?;
    let etc = group
        .dir("n1")?
        .join("debian/etc/postgresql")
        .join(&release)
        .join("main");
    let start = std::fs::read_to_string(etc.join("start.conf"))?;
    ensure!(start.ends_with("disabled\n"), "Debian would start it: {start}");

    ensure!(all_files(&foreign)? == before, "the other system's files have changed");
    nothing_is_lost(&group, writer).await?;
    Ok(())
}
