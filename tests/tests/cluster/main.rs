//! Real daemons on real ZooKeeper: what a cluster must survive, what it must refuse, and what an operator does with it.
//!
//! Faults last as long as they are meant to last; what has to come of them is waited for.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod bundles;
mod certificates;
mod chaos;
mod cli;
mod faults;
mod machine;
mod membership;
mod partition;
mod values;
mod zookeeper;

use std::time::Duration;

use anyhow::{Result, ensure};
use ha_proto::v1::{ChangeOptions, ChangeResult, UpdateNodeRequest};
use ha_tests::cluster::{Cluster, LIMIT, SESSION};
use ha_tests::skipped;
use tokio::time::sleep;

/// Longer than a session lives without its holder.
const PAST_THE_SESSION: Duration = SESSION.saturating_mul(2);

/// Sets a label: a change of which every watcher has to learn.
async fn label(cluster: &Cluster, node: &str, value: &str) -> Result<ChangeResult> {
    let request = UpdateNodeRequest {
        name: node.to_owned(),
        set_labels: [("test".to_owned(), value.to_owned())].into(),
        options: Some(ChangeOptions {
            reason: "test".into(),
            ..ChangeOptions::default()
        }),
        ..UpdateNodeRequest::default()
    };
    Ok(cluster.admin()?.update_node(request).await?)
}

/// Waits until the log says that a new daemon serves this node.
async fn restarted(cluster: &Cluster, node: &str, seq: u64) -> Result<()> {
    let subject = format!("node/{node}");
    let begun = tokio::time::Instant::now();
    loop {
        let new = cluster.changes_since(seq).await?;
        let mut its = new.iter().filter(|c| c.subject == subject);
        if its.any(|c| c.kind == "node.restarted" || c.kind == "node.online") {
            cluster.healthy().await?;
            return Ok(());
        }
        ensure!(
            begun.elapsed() < LIMIT,
            "{node} is not back: {new:?}\n{}",
            cluster.tails()
        );
        sleep(Duration::from_millis(50)).await;
    }
}
