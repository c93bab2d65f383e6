//! Nodes are lost: the one that also leads the cluster, two of three, and a standby just when the others wait for its answer.

use anyhow::{Context as _, Result, ensure};
use ha_proto::v1;
use ha_tests::cluster::LIMIT;
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use crate::hands::{Fault, signal};
use crate::nothing_is_lost;
use crate::rig::{GROUP, Group};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_of_master_and_primary_or_two_of_three_killed_come_back() -> Result<()> {
    let mut group = Group::create().await?;
    let first = group.whole().await?;
    let writer = group.writer(&first);

    group.cluster.lead_at(&first).await?;
    let fault = Fault::begin("the node of master and primary killed", &group, &writer).await?;
    ensure!(
        group.cluster.master().await? == first,
        "the master moved away before the fault"
    );
    group.kill_node(&first)?;
    let second = fault.succeeded(&group, &writer).await?;
    group.cluster.node(&first).start()?;
    fault.heals_under(&second, &group, &writer).await?;

    // The survivor alone cannot know whether it has every acknowledged row.
    let fault = Fault::begin("primary and a standby killed", &group, &writer).await?;
    let first = fault.first.clone();
    let epoch = group.epoch().await?;
    let other = group.others(&first)[0].clone();
    group.kill_node(&first)?;
    group.kill_node(&other)?;
    group.told(fault.seq(), "node.offline").await?;
    let waits = group
        .until("the survivor says what it waits for", |g| !g.why_no_failover.is_empty())
        .await?;
    let record = waits.record.unwrap_or_default();
    ensure!(
        record.phase() != v1::GroupPhase::Steady || record.epoch == epoch,
        "one of three became primary: {record:?}"
    );
    for node in [&first, &other] {
        group.cluster.node(node).start()?;
    }
    group.whole().await.context("primary and a standby killed")?;
    writer.wrote_more(20).await?;
    for kind in ["node.online", "db.electing", "db.rejoined"] {
        group.told(fault.seq(), kind).await?;
    }
    fault.verdict("the survivor waited, and whole again");

    let fault = Fault::begin("both standbys killed", &group, &writer).await?;
    let epoch = group.epoch().await?;
    let others = group.others(&fault.first);
    for node in &others {
        group.kill_node(node)?;
    }
    for node in &others {
        group.told(fault.seq(), "node.offline").await?;
        group.cluster.node(node).start()?;
    }
    let whole = group.whole().await?;
    ensure!(
        whole == fault.first && group.epoch().await? == epoch,
        "{whole} is primary, {} lost its standbys",
        fault.first
    );
    writer.wrote_more(20).await?;
    fault.verdict("the primary kept, and whole again");
    nothing_is_lost(&group, writer).await?;
    Ok(())
}

/// The epoch before which a node refuses everything, as it is on its disk.
fn refused(group: &Group, node: &str) -> Result<u64> {
    let file = group.seen_by(node)?.join("state/db").join(GROUP).join("marks.json");
    let marks: serde_json::Value = serde_json::from_slice(&std::fs::read(file)?)?;
    marks["refused"].as_u64().context("the marks name no epoch")
}

/// A standby has refused the old epoch and cannot answer yet, for its WAL receiver does not end. Returns its receivers.
async fn sealing(group: &mut Group, first: &str, standby: &str) -> Result<Vec<i32>> {
    let epoch = group.epoch().await?;
    let receivers = group.titled(standby, "walreceiver")?;
    ensure!(receivers.len() == 1, "{receivers:?} receive");
    signal(&receivers, Signal::SIGSTOP);
    group.kill_node(first)?;
    let limit = Instant::now() + LIMIT;
    while refused(group, standby)? <= epoch {
        ensure!(Instant::now() < limit, "{standby} does not refuse epoch {epoch}");
        sleep(std::time::Duration::from_millis(2)).await;
    }
    let record = group.group().await?.record.unwrap_or_default();
    ensure!(
        record.phase() == v1::GroupPhase::Electing,
        "nobody waits for {standby}: {record:?}"
    );
    Ok(receivers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_killed_between_sealing_and_answering_answers_when_it_is_back() -> Result<()> {
    let mut group = Group::create().await?;
    let first = group.whole().await?;
    let writer = group.writer(&first);

    let fault = Fault::begin(
        "a standby's postmaster killed between sealing and answering",
        &group,
        &writer,
    )
    .await?;
    let standby = group.others(&first)[0].clone();
    sealing(&mut group, &first, &standby).await?;
    group.kill_postmaster(&standby)?;
    let second = fault.succeeded(&group, &writer).await?;
    group.cluster.node(&first).start()?;
    fault.heals_under(&second, &group, &writer).await?;

    let fault = Fault::begin(
        "a standby's daemon killed between sealing and answering",
        &group,
        &writer,
    )
    .await?;
    let first = fault.first.clone();
    let standby = group.others(&first)[0].clone();
    let receivers = sealing(&mut group, &first, &standby).await?;
    group.cluster.node(&standby).kill9();
    signal(&receivers, Signal::SIGCONT);
    group.cluster.node(&standby).start()?;
    let second = fault.succeeded(&group, &writer).await?;
    group.cluster.node(&first).start()?;
    fault.heals_under(&second, &group, &writer).await?;
    nothing_is_lost(&group, writer).await?;
    Ok(())
}
