//! A group of real PostgreSQL under real daemons, guards and ZooKeeper: what clients were promised holds through the loss
//! of a postmaster, a daemon and a node, and everything comes back without a hand.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod adoption;
mod config;
mod coordinator;
mod cuts;
mod deleted;
mod disk;
mod divergence;
mod floors;
mod frozen;
mod hands;
mod interrupted;
mod leftover;
mod nodes;
mod operations;
mod ports;
mod replaced;
mod rig;
mod seals;
mod starved;
mod writer;

use anyhow::{Result, ensure};
use ha_proto::v1;

use rig::Group;

/// Every row that was acknowledged is there, once.
pub(crate) async fn nothing_is_lost(group: &Group, writer: writer::Writer) -> Result<u64> {
    let acknowledged = writer.finish()?;
    ensure!(!acknowledged.is_empty(), "nothing was ever acknowledged");
    let there = group.rows().await?;
    let lost: Vec<_> = acknowledged.iter().filter(|n| !there.contains(n)).collect();
    ensure!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    Ok(acknowledged.len() as u64)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_postmaster_is_succeeded_and_comes_back_as_a_standby() -> Result<()> {
    let group = Group::create().await?;
    let first = group.whole().await?;
    let writer = group.writer(&first);
    writer.wrote(20).await?;
    group.kill_postmaster(&first)?;
    let second = group.primary_other_than(&first).await?;
    writer.wrote_more(20).await?;
    let whole = group.whole().await?;
    ensure!(whole == second, "{second} became primary, and {whole} is");
    nothing_is_lost(&group, writer).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_moves_the_primary_and_back() -> Result<()> {
    let group = Group::create().await?;
    let first = group.whole().await?;
    let writer = group.writer(&first);
    writer.wrote(20).await?;
    group.switchover("").await?;
    let second = group.primary_other_than(&first).await?;
    writer.wrote_more(20).await?;
    group.whole().await?;
    group.switchover(&first).await?;
    let third = group.primary_other_than(&second).await?;
    ensure!(third == first, "{first} was asked for, and {third} is primary");
    writer.wrote_more(20).await?;
    group.whole().await?;
    nothing_is_lost(&group, writer).await?;
    Ok(())
}

/// Protocol R9: the daemon's end, however it comes, leaves guard and server running.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_daemon_leaves_its_primary_serving() -> Result<()> {
    let mut group = Group::create().await?;
    let first = group.whole().await?;
    let before = group.group().await?.record.unwrap_or_default().epoch;
    let writer = group.writer(&first);
    writer.wrote(20).await?;
    let postmaster = group.postmaster(&first)?;
    group.cluster.node(&first).restart()?;
    writer.wrote_more(50).await?;
    let after = group.whole().await?;
    let epoch = group.group().await?.record.unwrap_or_default().epoch;
    ensure!(
        (after.as_str(), epoch) == (first.as_str(), before),
        "{after} is primary of epoch {epoch}, {first} was of {before}"
    );
    ensure!(group.postmaster(&first)? == postmaster, "another postmaster runs");
    nothing_is_lost(&group, writer).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_node_is_succeeded_and_rejoins() -> Result<()> {
    let mut group = Group::create().await?;
    let first = group.whole().await?;
    let writer = group.writer(&first);
    writer.wrote(20).await?;
    group.outlives(&first, &writer).await?;
    let state = group.group().await?;
    let rejoined = state.instances.iter().find(|i| i.node == first);
    ensure!(
        rejoined.is_some_and(|i| i.state() == v1::InstanceState::Streaming && i.timeline > 1),
        "{rejoined:?}"
    );
    nothing_is_lost(&group, writer).await?;
    Ok(())
}
