//! Standbys are sealed while they cannot replay: replay is paused, or a query is in its way. A receiver that went on would
//! acknowledge commits of the old primary.

use std::process::Stdio;

use anyhow::Result;
use ha_proto::v1;

use crate::nothing_is_lost;
use crate::rig::Group;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standbys_whose_replay_is_paused_are_sealed_and_one_takes_over() -> Result<()> {
    let mut group = Group::create().await?;
    let first = group.whole().await?;
    let writer = group.writer(&first);
    writer.wrote(20).await?;
    for node in group.others(&first) {
        group.sql(&node, "app", "SELECT pg_wal_replay_pause()").await?;
        group
            .answers(&node, "app", "SELECT pg_get_wal_replay_pause_state()", "paused")
            .await?;
    }
    writer.wrote_more(20).await?;
    let second = group.outlives(&first, &writer).await?;
    group.told_of_failover(&first, &second).await?;
    nothing_is_lost(&group, writer).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standbys_with_a_query_in_conflict_are_sealed_and_one_takes_over() -> Result<()> {
    let change = |spec: &mut v1::GroupSpec| {
        spec.parameters
            .insert("max_standby_streaming_delay".into(), "-1".into());
        spec.parameters.insert("max_standby_archive_delay".into(), "-1".into());
    };
    let mut group = Group::create_with(Vec::new(), change).await?;
    let first = group.whole().await?;
    let writer = group.writer(&first);
    writer.wrote(20).await?;
    group
        .sql(
            &first,
            "app",
            "CREATE TABLE old AS SELECT generate_series(1, 1000) AS n",
        )
        .await?;
    let mut queries = Vec::new();
    for node in group.others(&first) {
        group.answers(&node, "app", "SELECT count(*) FROM old", "1000").await?;
        let mut query = group.psql(&node, "app", "SELECT count(*), pg_sleep(600) FROM old")?;
        queries.push(query.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        let asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        group.answers(&node, "app", asleep, "1").await?;
    }
    group.sql(&first, "app", "DELETE FROM old").await?;
    group.sql(&first, "app", "VACUUM (TRUNCATE off) old").await?;
    for node in group.others(&first) {
        let blocked = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'startup' \
            AND wait_event_type IN ('IPC', 'Lock', 'BufferPin') AND wait_event LIKE 'RecoveryConflict%'";
        group.answers(&node, "app", blocked, "1").await?;
    }
    writer.wrote_more(20).await?;
    group.outlives(&first, &writer).await?;
    nothing_is_lost(&group, writer).await?;
    drop(queries);
    Ok(())
}
