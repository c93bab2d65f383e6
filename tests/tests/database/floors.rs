//! Parameters that a standby must not have lower than its primary: whatever the order of restarts, replay goes on.

use anyhow::{Result, ensure};
use ha_proto::v1;

use crate::config::set;
use crate::nothing_is_lost;
use crate::rig::{GROUP, Group};

const SHOW: &str = "SHOW max_connections";

async fn restart(group: &Group, node: &str) -> Result<()> {
    let request = v1::RestartRequest {
        group: GROUP.into(),
        node: node.into(),
        rolling: true,
        pending_only: true,
        ..v1::RestartRequest::default()
    };
    group.cluster.admin()?.restart(request).await?;
    Ok(())
}

fn pending(i: &v1::Instance) -> bool {
    i.pending_restart.iter().any(|p| p.parameter == "max_connections")
}

/// Lowered, it is lowered on the primary first, in place: no standby could bring the lower value along.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lower_value_begins_with_the_primary_which_stays_where_it_is() -> Result<()> {
    let group = Group::create().await?;
    let first = group.whole().await?;
    let writer = group.writer(&first);
    writer.wrote(20).await?;
    set(&group, "max_connections", "60").await?;
    group
        .until("the primary waits for a restart", |g| {
            g.instances.iter().any(|i| i.node == first && pending(i))
        })
        .await?;
    restart(&group, "").await?;
    for node in group.cluster.names() {
        group.answers(&node, "app", SHOW, "60").await?;
    }
    let whole = group.whole().await?;
    ensure!(whole == first, "{first} was to stay primary, and {whole} is");
    for node in group.others(&first) {
        let paused = group.sql(&node, "app", "SELECT pg_is_wal_replay_paused()").await?;
        ensure!(paused == "f", "replay on {node} is paused");
    }
    let history = group.history().await?;
    ensure!(
        history
            .iter()
            .any(|e| e.kind() == v1::PrimaryChange::Restart && e.error.is_empty()),
        "{history:?}"
    );
    writer.wrote_more(20).await?;
    nothing_is_lost(&group, writer).await?;
    Ok(())
}

/// A failover in the middle of a rolling restart can make one primary that has more than the others: they follow by
/// themselves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_runs_with_less_than_its_new_primary_starts_again_by_itself() -> Result<()> {
    let group = Group::create().await?;
    let first = group.whole().await?;
    let writer = group.writer(&first);
    writer.wrote(20).await?;
    set(&group, "max_connections", "130").await?;
    group
        .until("all wait for a restart", |g| g.instances.iter().all(pending))
        .await?;
    let others = group.others(&first);
    let (raised, late) = (&others[0], &others[1]);
    restart(&group, raised).await?;
    group.answers(raised, "app", SHOW, "130").await?;
    group.whole().await?;
    group.answers(late, "app", SHOW, "100").await?;
    group.switchover(raised).await?;
    group.primary_other_than(&first).await?;
    group.answers(late, "app", SHOW, "130").await?;
    writer.wrote_more(20).await?;
    group.whole().await?;
    group.answers(&first, "app", SHOW, "130").await?;
    let count = group.sql(raised, "app", "SELECT max(n) FROM numbers").await?;
    let reached = format!("SELECT max(n) >= {count} FROM numbers");
    group.answers(late, "app", &reached, "t").await?;
    nothing_is_lost(&group, writer).await?;
    Ok(())
}
