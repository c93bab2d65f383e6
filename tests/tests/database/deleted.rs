//! Data that an operator wants gone are gone, and nothing else is.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use ha_proto::v1;
use ha_tests::cluster::LIMIT;
use tokio::time::{Instant, sleep};

use crate::rig::{GROUP, Group};

async fn gone(path: &std::path::Path) -> Result<()> {
    let limit = Instant::now() + LIMIT;
    while path.exists() {
        ensure!(Instant::now() < limit, "{} is still there", path.display());
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_are_deleted_where_they_are_hads_own_and_that_was_confirmed() -> Result<()> {
    let group = Group::create().await?;
    let first = group.whole().await?;
    let others = group.others(&first);
    let (ended, foreign) = (&others[0], &others[1]);

    // One instance, by its node's name.
    let assign = |confirm: &str| v1::AssignInstanceRequest {
        group: GROUP.into(),
        node: ended.clone(),
        role: v1::InstanceRole::None.into(),
        delete_data: true,
        confirm: confirm.into(),
        ..v1::AssignInstanceRequest::default()
    };
    let work = group.work(ended)?;
    let unconfirmed = group.cluster.admin()?.assign_instance(assign("")).await;
    ensure!(unconfirmed.is_err_and(|e| e.to_string().contains("HA0423")));
    ensure!(work.join("data/PG_VERSION").exists());
    group.cluster.admin()?.assign_instance(assign(ended)).await?;
    gone(&work).await?;
    group
        .until("one standby is left", |g| {
            let streams = g.instances.iter().filter(|i| i.state() == v1::InstanceState::Streaming);
            g.instances.len() == 2 && streams.count() == 1
        })
        .await?;
    // It can have another one.
    let back = v1::AssignInstanceRequest {
        role: v1::InstanceRole::Sync.into(),
        delete_data: false,
        ..assign("")
    };
    group.cluster.admin()?.assign_instance(back).await?;
    group.whole().await?;

    // The group: what is not had's own stays, and the node says why.
    let stays = group.work(foreign)?;
    let link = stays.join("data/pg_tblspc/1");
    std::os::unix::fs::symlink("/", &link)?;
    let remove = v1::RemoveGroupRequest {
        name: GROUP.into(),
        confirm: GROUP.into(),
        delete_data: true,
        options: None,
    };
    let operation = group.cluster.admin()?.remove_group(remove).await?.operation_id;
    for node in [&first, ended] {
        gone(&group.work(node)?).await?;
    }
    let get = || v1::GetOperationRequest { id: operation.clone() };
    let state = group.cluster.admin()?.get_operation(get()).await?;
    ensure!(state.finished_unix_ms == 0, "{foreign} still has its data: {state:?}");
    ensure!(stays.join("data/PG_VERSION").exists());
    std::fs::remove_file(&link)?;
    gone(&stays).await?;
    let limit = Instant::now() + LIMIT;
    while group.cluster.admin()?.get_operation(get()).await?.finished_unix_ms == 0 {
        if Instant::now() > limit {
            bail!("the removal does not end");
        }
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}
