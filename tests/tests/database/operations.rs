//! Operations of operators go on when the master is lost, and keep their steps.

use std::time::Duration;

use anyhow::{Result, ensure};
use ha_proto::v1;
use ha_tests::cluster::LIMIT;
use tokio::time::{Instant, sleep};

use crate::nothing_is_lost;
use crate::rig::{GROUP, Group};

async fn operation(group: &Group, id: &str) -> Option<v1::Operation> {
    let request = v1::GetOperationRequest { id: id.into() };
    group.cluster.admin().ok()?.get_operation(request).await.ok()
}

fn texts(op: &v1::Operation) -> Vec<String> {
    op.steps.iter().map(|s| s.text.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_outlives_the_master() -> Result<()> {
    let mut group = Group::create().await?;
    let first = group.whole().await?;
    let writer = group.writer(&first);
    writer.wrote(20).await?;
    let request = v1::RestartRequest {
        group: GROUP.into(),
        rolling: true,
        ..v1::RestartRequest::default()
    };
    let id = group.cluster.admin()?.restart(request).await?.operation_id;
    // The master is killed once an instance was restarted; the daemon alone, its PostgreSQL goes on.
    let limit = Instant::now() + LIMIT;
    let before = loop {
        if let Some(op) = operation(&group, &id).await {
            let steps = texts(&op);
            ensure!(op.finished_unix_ms == 0, "it was too fast: {steps:?}");
            if steps.iter().any(|s| s.ends_with(" restarted")) {
                break steps;
            }
        }
        ensure!(Instant::now() < limit, "nothing was restarted");
        sleep(Duration::from_millis(5)).await;
    };
    let master = group.cluster.master().await?;
    group.cluster.node(&master).restart()?;
    let limit = Instant::now() + 3 * LIMIT;
    let op = loop {
        if let Some(op) = operation(&group, &id).await.filter(|op| op.finished_unix_ms != 0) {
            break op;
        }
        ensure!(Instant::now() < limit, "it does not end\n{}", group.cluster.tails());
        sleep(Duration::from_millis(100)).await;
    };
    let after = texts(&op);
    ensure!(op.state() == v1::OperationState::Succeeded, "{op:#?}");
    for step in &before {
        ensure!(after.iter().filter(|s| *s == step).count() == 1, "{step}: {after:#?}");
    }
    for node in ["n1", "n2", "n3"] {
        let restarted = format!("{node} restarted");
        ensure!(after.contains(&restarted), "{restarted}: {after:#?}");
    }
    writer.wrote_more(20).await?;
    group.whole().await?;
    nothing_is_lost(&group, writer).await?;
    Ok(())
}
