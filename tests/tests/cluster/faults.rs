//! Daemons that are killed, stopped, restarted and told to end.

use anyhow::{Result, ensure};
use ha_proto::v1::NodeState;
use ha_tests::cluster::{Cluster, Daemon, LIMIT, Options, is, master_of, term_of};
use tokio::time::sleep;

use crate::{PAST_THE_SESSION, label, restarted};

/// The endpoints of all nodes but one.
fn others(cluster: &Cluster, name: &str) -> Vec<String> {
    let others = cluster.daemons.iter().filter(|d| d.name != name);
    others.map(|d| d.address.clone()).collect()
}

/// Waits until the others lead the cluster without `name`, in a later term if it led.
async fn without(cluster: &Cluster, name: &str) -> Result<()> {
    cluster
        .wait_at(others(cluster, name), &format!("{name} is given up"), |s| {
            is(s, name, NodeState::Offline) && !master_of(s).is_empty() && master_of(s) != name
        })
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_killed_master_is_replaced_and_comes_back_as_a_member() -> Result<()> {
    let mut cluster = Cluster::start(Options::default()).await?;
    let before = cluster.healthy().await?;
    let master = master_of(&before).to_owned();
    let seq = cluster.revision().await?;
    cluster.node(&master).kill9();
    without(&cluster, &master).await?;
    // Its machine says that nobody listens any more: neither its lease nor its session was waited for.
    let told = cluster.changes_since(seq).await?;
    let elected = told.iter().find(|c| c.kind == "master.elected");
    ensure!(
        elected.is_some_and(|c| c.cause.ends_with("its daemon has ended")),
        "{elected:?}"
    );
    // The new one acts.
    let other = cluster.master().await?;
    label(&cluster, &other, "without").await?;
    cluster.node(&master).start()?;
    let after = cluster.healthy().await?;
    ensure!(term_of(&after) > term_of(&before));
    ensure!(master_of(&after) != master, "coming back does not take mastership back");
    cluster.finish().await
}

#[tokio::test]
async fn a_killed_member_is_offline_until_it_returns() -> Result<()> {
    let mut cluster = Cluster::start(Options::default()).await?;
    let before = cluster.healthy().await?;
    let member = cluster.members().await?.remove(0);
    let seq = cluster.revision().await?;
    cluster.node(&member).kill9();
    without(&cluster, &member).await?;
    cluster.node(&member).start()?;
    let after = cluster.healthy().await?;
    ensure!(term_of(&after) == term_of(&before), "the master was disturbed");
    let subject = format!("node/{member}");
    let told = cluster.changes_since(seq).await?;
    let told: Vec<&str> = told
        .iter()
        .filter(|c| c.subject == subject)
        .map(|c| c.kind.as_str())
        .collect();
    ensure!(
        told.contains(&"node.offline") && told.last() == Some(&"node.online"),
        "{told:?}"
    );
    cluster.finish().await
}

#[tokio::test]
async fn a_member_that_is_back_within_its_session_was_never_offline() -> Result<()> {
    let mut cluster = Cluster::start(Options::default()).await?;
    let before = cluster.healthy().await?;
    let member = cluster.members().await?.remove(0);
    for round in 1..=3 {
        let seq = cluster.revision().await?;
        cluster.node(&member).restart()?;
        restarted(&cluster, &member, seq).await?;
        label(&cluster, &member, &round.to_string()).await?;
        cluster.assert_none_since(seq, &["node.offline"]).await?;
    }
    let after = cluster.healthy().await?;
    ensure!(term_of(&after) == term_of(&before), "the master was disturbed");
    cluster.finish().await
}

#[tokio::test]
async fn a_killed_master_that_is_back_at_once_was_never_offline() -> Result<()> {
    let mut cluster = Cluster::start(Options::default()).await?;
    let before = cluster.healthy().await?;
    let master = master_of(&before).to_owned();
    let seq = cluster.revision().await?;
    cluster.node(&master).restart()?;
    let new_term = cluster
        .wait_until("another term has begun", |s| {
            term_of(s) > term_of(&before) && !master_of(s).is_empty()
        })
        .await;
    new_term?;
    cluster.healthy().await?;
    cluster.assert_none_since(seq, &["node.offline"]).await?;
    cluster.finish().await
}

#[tokio::test]
async fn a_master_told_to_end_hands_over_and_is_back_within_its_session() -> Result<()> {
    let mut cluster = Cluster::start(Options::default()).await?;
    let before = cluster.healthy().await?;
    let master = master_of(&before).to_owned();
    let seq = cluster.revision().await?;
    cluster.node(&master).sigterm();
    let status = cluster.node(&master).ended(LIMIT).await?;
    ensure!(status.success(), "{status}: {}", cluster.node(&master).tail(20));
    cluster.node(&master).start()?;
    let after = cluster.healthy().await?;
    ensure!(term_of(&after) > term_of(&before) && master_of(&after) != master);
    restarted(&cluster, &master, seq).await?;
    cluster.assert_none_since(seq, &["node.offline"]).await?;
    let cause = cluster.changes_since(seq).await?;
    let elected = cause.iter().find(|c| c.kind == "master.elected");
    ensure!(
        elected.is_some_and(|c| c.cause == "the last master stepped down"),
        "{elected:?}"
    );
    cluster.finish().await
}

#[tokio::test]
async fn a_member_told_to_end_announces_its_restart() -> Result<()> {
    let mut cluster = Cluster::start(Options::default()).await?;
    let before = cluster.healthy().await?;
    let member = cluster.members().await?.remove(0);
    let seq = cluster.revision().await?;
    cluster.node(&member).sigterm();
    let status = cluster.node(&member).ended(LIMIT).await?;
    ensure!(status.success(), "{status}: {}", cluster.node(&member).tail(20));
    cluster.node(&member).start()?;
    restarted(&cluster, &member, seq).await?;
    let kinds: Vec<String> = cluster.changes_since(seq).await?.into_iter().map(|c| c.kind).collect();
    ensure!(kinds.iter().any(|k| k == "node.restarting"), "{kinds:?}");
    ensure!(!kinds.iter().any(|k| k == "node.offline"), "{kinds:?}");
    let after = cluster.healthy().await?;
    ensure!(term_of(&after) == term_of(&before), "the master was disturbed");
    cluster.finish().await
}

#[tokio::test]
async fn a_master_stopped_past_its_session_leads_no_more_when_it_goes_on() -> Result<()> {
    let mut cluster = Cluster::start(Options::default()).await?;
    let master = cluster.master().await?;
    cluster.node(&master).sigstop();
    without(&cluster, &master).await?;
    let other = cluster
        .wait_at(others(&cluster, &master), "another leads", |s| master_of(s) != master)
        .await?;
    let other = master_of(&other).to_owned();
    cluster.node(&master).sigcont();
    cluster.healthy().await?;
    // What it believes now is what the others believe.
    let own = vec![cluster.node(&master).address.clone()];
    let believed = cluster
        .wait_at(own, "it follows another", |s| master_of(s) == other)
        .await?;
    ensure!(is(&believed, &master, NodeState::Online));
    label(&cluster, &master, "back").await?;
    cluster.finish().await
}

#[tokio::test]
async fn a_member_stopped_past_its_session_comes_back_by_itself() -> Result<()> {
    let mut cluster = Cluster::start(Options::default()).await?;
    let before = cluster.healthy().await?;
    let member = cluster.members().await?.remove(0);
    cluster.node(&member).sigstop();
    without(&cluster, &member).await?;
    label(&cluster, &member, "asleep").await?;
    sleep(PAST_THE_SESSION / 4).await;
    cluster.node(&member).sigcont();
    let after = cluster.healthy().await?;
    ensure!(term_of(&after) == term_of(&before), "the master was disturbed");
    cluster.finish().await
}

#[tokio::test]
async fn all_daemons_killed_at_once_come_back_to_the_same_cluster() -> Result<()> {
    let mut cluster = Cluster::start(Options::default()).await?;
    label(&cluster, "n1", "kept").await?;
    let seq = cluster.revision().await?;
    cluster.daemons.iter_mut().for_each(Daemon::kill9);
    for name in cluster.names() {
        cluster.node(&name).start()?;
    }
    let state = cluster.healthy().await?;
    let kept = state.nodes.iter().find(|n| n.name == "n1").and_then(|n| n.spec.clone());
    ensure!(kept.is_some_and(|s| s.labels.get("test").is_some_and(|v| v == "kept")));
    ensure!(cluster.revision().await? > seq);
    cluster.finish().await
}
