//! What the daemon costs while nothing happens.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::sleep;

use super::figures::value;
use crate::cluster::{Cluster, Options};

/// Time for start-up's memory to settle, and over which the processor's time is taken.
const SETTLE: Duration = Duration::from_secs(10);
const OVER: Duration = Duration::from_secs(30);

pub(super) async fn run() -> Result<()> {
    println!("\nhad while nothing happens (3 nodes; over {} s)", OVER.as_secs());
    let cluster = Cluster::start(Options {
        subscribers: false,
        ..Options::default()
    })
    .await?;
    let master = cluster.master().await?;
    sleep(SETTLE).await;
    let pids: Vec<(String, u32)> = cluster
        .daemons
        .iter()
        .filter_map(|d| Some((d.name.clone(), d.pid()?)))
        .collect();
    let before: Vec<f64> = pids.iter().map(|(_, pid)| cpu_seconds(*pid)).collect::<Result<_>>()?;
    let writes = zxid(&cluster).await?;
    sleep(OVER).await;
    for ((name, pid), before) in pids.iter().zip(before) {
        let role = if *name == master { "master" } else { "member" };
        let share = (cpu_seconds(*pid)? - before) / OVER.as_secs_f64() * 100.0;
        value(&format!("resident memory, {role}"), resident_mib(*pid)?, "MiB", 20.0);
        value(&format!("processor, {role}"), share, "%", 0.5);
    }
    // Three leases, each written every fifth of the session timeout, are all there should be.
    #[allow(clippy::cast_precision_loss)]
    let rate = (zxid(&cluster).await? - writes) as f64 / OVER.as_secs_f64();
    value("ZooKeeper transactions a second, 3 nodes", rate, "/s", 3.0 / 0.8 + 0.05);
    Ok(())
}

/// User and system time of a process.
fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in brackets, may hold anything.
    let rest = stat.rsplit_once(") ").context("stat has a name")?.1;
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks = |i: usize| {
        fields
            .get(i)
            .and_then(|f| f.parse::<f64>().ok())
            .context("stat has times")
    };
    // A hundred ticks a second on every Linux that Rust runs on.
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

fn resident_mib(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .context("a resident size")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib / 1024.0)
}

async fn zxid(cluster: &Cluster) -> Result<u64> {
    let server = cluster.zookeeper.servers.first().context("a server")?;
    let answer = server.four_letters("srvr").await.context("srvr is answered")?;
    let zxid = answer
        .lines()
        .find_map(|l| l.strip_prefix("Zxid: 0x"))
        .context("a zxid")?;
    Ok(u64::from_str_radix(zxid.trim(), 16)?)
}
