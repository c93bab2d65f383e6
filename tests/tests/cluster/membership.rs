//! Nodes that join, leave, are removed, or were never added, in a running cluster.

use std::process::Command;

use anyhow::{Result, ensure};
use ha_proto::v1::{NodeState, RemoveNodeRequest, UpdateNodeRequest};
use ha_tests::cluster::{Cluster, LIMIT, Options, is, master_of, state_of, term_of};

use crate::label;

#[tokio::test]
async fn nodes_join_and_are_removed_while_the_cluster_runs() -> Result<()> {
    let mut cluster = Cluster::start(Options {
        nodes: 2,
        ..Options::default()
    })
    .await?;
    let before = cluster.healthy().await?;
    let seq = cluster.revision().await?;
    for name in ["n3", "n4"] {
        cluster.add(name).await?;
    }
    cluster.healthy().await?;
    // One that is online cannot be removed; one that ended can.
    let remove = RemoveNodeRequest {
        name: "n3".into(),
        options: None,
    };
    let refused = cluster.admin()?.remove_node(remove.clone()).await;
    ensure!(refused.as_ref().is_err_and(|e| e.code() == "HA0303"), "{refused:?}");
    cluster.node("n3").kill9();
    cluster
        .wait_until("n3 is given up", |s| is(s, "n3", NodeState::Offline))
        .await?;
    cluster.admin()?.remove_node(remove).await?;
    cluster.forget("n3");
    cluster
        .wait_until("n3 is not shown any more", |s| {
            matches!(state_of(s, "n3"), None | Some(NodeState::Removed))
        })
        .await?;
    // Its name is free again, for another machine.
    cluster.add("n3").await?;
    let after = cluster.healthy().await?;
    ensure!(term_of(&after) == term_of(&before), "the master was disturbed");
    for name in ["n1", "n2", "n4"] {
        let away: Vec<_> = cluster
            .changes_since(seq)
            .await?
            .into_iter()
            .filter(|c| c.subject == format!("node/{name}"))
            .filter(|c| c.kind == "node.offline" || c.kind == "node.suspect")
            .collect();
        ensure!(away.is_empty(), "{away:?}");
    }
    cluster.finish().await
}

#[tokio::test]
async fn a_node_leaves_for_good() -> Result<()> {
    let mut cluster = Cluster::start(Options {
        nodes: 4,
        ..Options::default()
    })
    .await?;
    let before = cluster.healthy().await?;
    let member = cluster.members().await?.remove(0);
    leave(&mut cluster, &member).await?;
    let after = cluster.healthy().await?;
    ensure!(term_of(&after) == term_of(&before), "the master was disturbed");
    // The master as well: the others elect another at once.
    let master = cluster.master().await?;
    leave(&mut cluster, &master).await?;
    let after = cluster.healthy().await?;
    ensure!(term_of(&after) > term_of(&before) && master_of(&after) != master);
    let left: Vec<String> = cluster
        .changes()
        .await?
        .into_iter()
        .filter(|c| c.kind == "node.left")
        .map(|c| c.subject)
        .collect();
    ensure!(left == [format!("node/{member}"), format!("node/{master}")], "{left:?}");
    cluster.finish().await
}

/// `had leave` on the node: the daemon ends with success, and the node is no part of the cluster any more.
async fn leave(cluster: &mut Cluster, name: &str) -> Result<()> {
    let (had, config) = (cluster.programs().had.clone(), cluster.node(name).config());
    let command = move || {
        Command::new(had)
            .arg("--config")
            .arg(config)
            .args(["leave", "--reason", "its machine is sold"])
            .output()
    };
    let output = tokio::task::spawn_blocking(command).await??;
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() && said.contains("has left cluster test"),
        "{said}"
    );
    let status = cluster.node(name).ended(LIMIT).await?;
    ensure!(status.success(), "{status}: {}", cluster.node(name).tail(20));
    cluster.forget(name);
    let name = name.to_owned();
    cluster
        .wait_until("it has left", |s| {
            matches!(state_of(s, &name), None | Some(NodeState::Removed))
        })
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_node_that_was_not_added_is_shown_and_refused() -> Result<()> {
    let mut cluster = Cluster::start(Options {
        nodes: 2,
        ..Options::default()
    })
    .await?;
    let issued = cluster.authority.issue_node("n9")?;
    cluster.place("n9", &issued, None)?.start()?;
    let pending = cluster
        .wait_until("n9 is pending", |s| is(s, "n9", NodeState::Pending))
        .await?;
    ensure!(master_of(&pending) != "n9");
    // Nothing can be done with it, and it never leads: the only one left that could does not stand.
    let refused = label(&cluster, "n9", "x").await;
    ensure!(refused.is_err(), "{refused:?}");
    cluster.node("n9").kill9();
    cluster.forget("n9");
    cluster
        .wait_until("n9 is gone", |s| state_of(s, "n9").is_none())
        .await?;
    cluster.finish().await
}

#[tokio::test]
async fn preference_and_eligibility_decide_who_leads() -> Result<()> {
    let mut cluster = Cluster::start(Options::default()).await?;
    let members = cluster.members().await?;
    let (wanted, never) = (members[0].clone(), members[1].clone());
    let set = |name: &str, eligible: Option<bool>, preference: Option<i32>| UpdateNodeRequest {
        name: name.to_owned(),
        master_eligible: eligible,
        master_preference: preference,
        ..UpdateNodeRequest::default()
    };
    cluster.admin()?.update_node(set(&never, Some(false), None)).await?;
    cluster.admin()?.update_node(set(&wanted, None, Some(10))).await?;
    cluster
        .wait_until("the preferred one leads", |s| master_of(s) == wanted)
        .await?;
    cluster.healthy().await?;
    // Without it the one that is eligible leads, never the other; when it is back it leads again.
    cluster.node(&wanted).kill9();
    let led = cluster
        .wait_until("another leads", |s| !master_of(s).is_empty() && master_of(s) != wanted)
        .await?;
    ensure!(master_of(&led) != never);
    cluster.node(&wanted).start()?;
    cluster.wait_until("it leads again", |s| master_of(s) == wanted).await?;
    cluster.finish().await
}
