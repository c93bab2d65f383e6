//! Standbys that were away for longer than log is kept for them.

use std::time::Duration;

use anyhow::{Result, ensure};
use ha_proto::v1;
use ha_tests::cluster::LIMIT;
use tokio::time::{Instant, sleep};

use crate::nothing_is_lost;
use crate::rig::Group;

const KEPT: u64 = 64 << 20;

/// The primary has removed the log that a standby needs: no slot, no archive has it. It is copied without a hand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_whose_log_was_removed_is_copied_afresh_by_itself() -> Result<()> {
    let change = |spec: &mut v1::GroupSpec| {
        spec.limits = Some(v1::GroupLimits {
            degrade_after_ms: Some(2000),
            slot_retention_bytes: Some(KEPT),
            ..v1::GroupLimits::default()
        });
    };
    let mut group = Group::create_with(Vec::new(), change).await?;
    let first = group.whole().await?;
    let writer = group.writer(&first);
    writer.wrote(20).await?;
    let gone = group.others(&first)[0].clone();
    let segment = "SELECT pg_walfile_name(pg_current_wal_lsn())";
    let needed = group.sql(&first, "app", segment).await?;
    group.kill_node(&gone)?;
    // As much as is kept, and more, until the log that it needs is gone.
    let oldest = "SELECT min(name) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'";
    let switch = "SELECT pg_logical_emit_message(false, 'test', ''); SELECT pg_switch_wal()";
    let limit = Instant::now() + LIMIT;
    while group.sql(&first, "app", oldest).await? <= needed {
        ensure!(Instant::now() < limit, "the log of {gone} is still there");
        for _ in 0..=KEPT >> 24 {
            group.sql(&first, "app", switch).await?;
        }
        group.sql(&first, "app", "CHECKPOINT").await?;
        sleep(Duration::from_millis(200)).await;
    }
    group.cluster.node(&gone).start()?;
    group.whole().await?;
    let events = group.events("db.rebuild").await?;
    ensure!(
        events
            .iter()
            .any(|e| e.text.starts_with(&gone) && e.text.contains("has removed the log")),
        "nothing tells why {gone} was copied: {events:?}"
    );
    let there = group.sql(&gone, "app", "SELECT count(*) > 20 FROM numbers").await?;
    ensure!(there == "t", "{gone} does not have what was written");
    nothing_is_lost(&group, writer).await?;
    Ok(())
}
