//! kill -9 at every step: of a switchover, of a rejoin, of the making of a group. The moments are random; the seed is
//! printed, and HA_TEST_SEED repeats one.

use std::time::Duration;

use anyhow::{Result, ensure};
use ha_proto::v1;
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::sleep;

use crate::hands::signal;
use crate::nothing_is_lost;
use crate::rig::{GROUP, Group, processes_of};

/// How often each is interrupted in one test.
const ROUNDS: usize = 3;

fn random() -> Result<StdRng> {
    let seed: u64 = match std::env::var("HA_TEST_SEED") {
        Ok(seed) => seed.parse()?,
        Err(_) => rand::random(),
    };
    eprintln!("HA_TEST_SEED={seed}");
    Ok(StdRng::seed_from_u64(seed))
}

/// Kills a node's daemon, its guard, its postmaster, or all of it, and starts what an operator's service manager would.
async fn kill_something(group: &mut Group, random: &mut StdRng, node: &str) -> Result<()> {
    let dir = group.dir(node)?.display().to_string();
    let what = random.random_range(0..4);
    let names = ["daemon", "guard", "postmaster", "node"];
    eprintln!("kill -9: {} of {node}", names[what]);
    match what {
        0 => group.cluster.node(node).kill9(),
        1 => {
            let guard = |pid: &i32| {
                let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&line).split('\0').any(|word| word == "guard")
            };
            let guards: Vec<i32> = processes_of(&dir).into_iter().filter(guard).collect();
            signal(&guards, Signal::SIGKILL);
        }
        2 => {
            let _ = group.kill_postmaster(node);
        }
        _ => group.kill_node(node)?,
    }
    sleep(Duration::from_millis(random.random_range(0..3000))).await;
    if !group.cluster.node(node).is_running()? {
        group.cluster.node(node).start()?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_killed_at_any_moment_ends_with_a_whole_group() -> Result<()> {
    let mut random = random()?;
    let mut group = Group::create().await?;
    let first = group.whole().await?;
    let writer = group.writer(&first);
    writer.wrote(20).await?;
    for _ in 0..ROUNDS {
        let nodes = group.cluster.names();
        let node = nodes[random.random_range(0..nodes.len())].clone();
        let wait = Duration::from_millis(random.random_range(0..800));
        let switch = group.switchover("");
        let _ = tokio::time::timeout(wait, switch).await;
        sleep(Duration::from_millis(random.random_range(0..400))).await;
        kill_something(&mut group, &mut random, &node).await?;
        group.whole().await?;
        writer.wrote_more(20).await?;
    }
    nothing_is_lost(&group, writer).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejoin_killed_at_any_moment_ends_with_a_whole_group() -> Result<()> {
    let mut random = random()?;
    let mut group = Group::create().await?;
    let mut primary = group.whole().await?;
    let writer = group.writer(&primary);
    writer.wrote(20).await?;
    for round in 0..ROUNDS {
        let former = primary.clone();
        if round % 2 == 0 {
            group.kill_node(&former)?;
            group.primary_other_than(&former).await?;
            group.cluster.node(&former).start()?;
        } else {
            group.kill_postmaster(&former)?;
            group.primary_other_than(&former).await?;
        }
        writer.wrote_more(20).await?;
        sleep(Duration::from_millis(random.random_range(0..4000))).await;
        kill_something(&mut group, &mut random, &former).await?;
        primary = group.whole().await?;
    }
    nothing_is_lost(&group, writer).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bootstrap_killed_at_any_moment_ends_with_a_whole_group() -> Result<()> {
    let mut random = random()?;
    let mut group = Group::create().await?;
    for _ in 0..ROUNDS {
        let nodes = group.cluster.names();
        let node = nodes[random.random_range(0..nodes.len())].clone();
        sleep(Duration::from_millis(random.random_range(0..3000))).await;
        kill_something(&mut group, &mut random, &node).await?;
    }
    let first = group.whole().await?;
    let writer = group.writer(&first);
    writer.wrote(20).await?;
    nothing_is_lost(&group, writer).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_whose_successor_is_killed_leaves_a_whole_group() -> Result<()> {
    let mut group = Group::create().await?;
    let first = group.whole().await?;
    let writer = group.writer(&first);
    writer.wrote(20).await?;
    let to = group.others(&first)[0].clone();
    let mut admin = group.cluster.admin()?;
    let request = v1::SwitchoverRequest {
        group: GROUP.into(),
        to: to.clone(),
        ..v1::SwitchoverRequest::default()
    };
    let switch = tokio::spawn(async move { admin.switchover(request).await });
    let begun = group
        .until("the switchover begins", |g| {
            let record = g.record.clone().unwrap_or_default();
            record.phase() != v1::GroupPhase::Steady || record.epoch > 1
        })
        .await?;
    ensure!(begun.record.is_some(), "there is no record");
    group.kill_node(&to)?;
    writer.wrote_more(20).await?;
    group.cluster.node(&to).start()?;
    group.whole().await?;
    writer.wrote_more(20).await?;
    switch.abort();
    let history = group.history().await?;
    let told = history
        .iter()
        .any(|e| e.from == first && e.kind() != v1::PrimaryChange::Bootstrap);
    ensure!(told, "the history does not tell of it: {history:?}");
    nothing_is_lost(&group, writer).await?;
    Ok(())
}
