//! A node that is lost for good: the group keeps as many instances as it wants.

use std::time::Duration;

use anyhow::{Result, ensure};
use ha_proto::v1;
use ha_tests::cluster::{Cluster, LIMIT, Options};
use tokio::time::{Instant, sleep};

use crate::nothing_is_lost;
use crate::rig::{Group, NO_PROXY};

/// `node remove` says that it does not come back: another node gets an instance at once, without a hand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_nodes_instance_is_made_anew_on_another_node() -> Result<()> {
    let options = Options {
        nodes: 5,
        config: NO_PROXY.to_owned(),
        ..Options::default()
    };
    let change = |_: &Cluster, spec: &mut v1::GroupSpec| {
        spec.members.truncate(3);
        spec.instances = 3;
        spec.limits = Some(v1::GroupLimits {
            degrade_after_ms: Some(2000),
            ..v1::GroupLimits::default()
        });
        Ok(())
    };
    let mut group = Group::create_on(options, change).await?;
    let first = group.whole().await?;
    let writer = group.writer(&first);
    writer.wrote(20).await?;
    // Of the two that are left one takes no new work.
    let cordon = v1::UpdateNodeRequest {
        name: "n4".into(),
        cordoned: Some(true),
        ..v1::UpdateNodeRequest::default()
    };
    group.cluster.admin()?.update_node(cordon).await?;
    let members = ["n1", "n2", "n3"];
    let gone = members.into_iter().find(|n| *n != first).unwrap_or_default();
    group.kill_node(gone)?;
    // One that is online is not removed.
    let limit = Instant::now() + LIMIT;
    loop {
        let remove = v1::RemoveNodeRequest {
            name: gone.into(),
            ..v1::RemoveNodeRequest::default()
        };
        match group.cluster.admin()?.remove_node(remove).await {
            Ok(_) => break,
            Err(e) => ensure!(Instant::now() < limit, "{gone} cannot be removed: {e}"),
        }
        sleep(Duration::from_millis(200)).await;
    }
    let seen = group
        .until("n5 has the instance", |g| {
            let streams = |n: &str| {
                let mut of = g.instances.iter();
                of.any(|i| i.node == n && i.chosen && i.state() == v1::InstanceState::Streaming)
            };
            streams("n5") && !g.instances.iter().any(|i| i.node == gone || i.node == "n4")
        })
        .await?;
    ensure!(seen.instances.len() == 3, "{:?}", seen.instances);
    let whole = group.whole().await?;
    ensure!(whole == first, "{first} was well, and {whole} is primary");
    // What is configured can be changed on: nothing names the node that is gone.
    crate::config::set(&group, "work_mem", "6MB").await?;
    let there = "SELECT count(*) > 20 FROM numbers";
    let path = group.work("n5")?;
    ensure!(path.join("data/PG_VERSION").exists(), "n5 has no data");
    group.answers("n5", "app", there, "t").await?;
    writer.wrote_more(20).await?;
    nothing_is_lost(&group, writer).await?;
    Ok(())
}
