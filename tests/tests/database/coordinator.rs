//! ZooKeeper is lost, and the database goes on: by leases for moments, by its standbys' grants for longer (protocol R13).

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::Instant;

use crate::hands::Fault;
use crate::nothing_is_lost;
use crate::rig::Group;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zookeeper_killed_or_gone_for_a_minute_disturbs_no_write() -> Result<()> {
    let mut group = Group::create().await?;
    let first = group.whole().await?;
    let writer = group.writer(&first);

    let fault = Fault::begin("ZooKeeper killed and restarted at once", &group, &writer).await?;
    group.cluster.zookeeper.servers[0].restart().await?;
    writer.wrote_more(20).await?;
    group.cluster.healthy().await?;
    fault.disturbed_nobody(&group, &writer).await?;

    let fault = Fault::begin("ZooKeeper gone for a minute", &group, &writer).await?;
    let postmaster = group.postmaster(&first)?;
    group.cluster.zookeeper.servers[0].kill();
    let back = Instant::now() + Duration::from_secs(60);
    while Instant::now() < back {
        writer.wrote_more(20).await?;
    }
    group.cluster.zookeeper.servers[0].restart().await?;
    group.cluster.healthy().await?;
    ensure!(group.postmaster(&first)? == postmaster, "another postmaster runs");
    fault.disturbed_nobody(&group, &writer).await?;

    // The grants that were given bind nobody any more.
    let fault = Fault::begin("postmaster killed after ZooKeeper was gone", &group, &writer).await?;
    group.kill_postmaster(&first)?;
    let second = fault.succeeded(&group, &writer).await?;
    fault.heals_under(&second, &group, &writer).await?;
    nothing_is_lost(&group, writer).await?;
    Ok(())
}
