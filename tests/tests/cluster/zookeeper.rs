//! ZooKeeper servers that are killed, frozen and healed under a cluster.

use anyhow::{Context, Result, ensure};
use ha_proto::v1::{GetInfoRequest, NodeState};
use ha_tests::cluster::{Cluster, Daemon, LIMIT, Options, SESSION, is, master_of};
use tokio::time::{Duration, Instant, sleep};

use crate::{PAST_THE_SESSION, label, skipped};

#[tokio::test]
async fn a_server_restarted_within_the_session_disturbs_nobody() -> Result<()> {
    let mut cluster = Cluster::start(Options::default()).await?;
    let mut quick = false;
    for round in 0..3 {
        let seq = cluster.revision().await?;
        let begun = Instant::now();
        cluster.zookeeper.servers[0].restart().await?;
        // On a machine that is too busy the server is away for longer than a session lives; that is another test.
        quick = begun.elapsed() < SESSION / 2;
        // Watches live on: what happens later still arrives everywhere.
        label(&cluster, "n2", &round.to_string()).await?;
        cluster.healthy().await?;
        cluster.assert_subscribers().await?;
        if quick {
            cluster
                .assert_none_since(seq, &["node.offline", "node.suspect"])
                .await?;
            break;
        }
    }
    if !quick {
        skipped(
            "the strict part of a restart within the session",
            "this machine is too slow for it",
        );
    }
    // The master's watch on those who register, and the candidates' watches on the master.
    cluster.add("n4").await?;
    cluster.healthy().await?;
    let master = cluster.master().await?;
    cluster.node(&master).kill9();
    cluster
        .wait_until("another leads", |s| !master_of(s).is_empty() && master_of(s) != master)
        .await?;
    cluster.node(&master).start()?;
    cluster.finish().await
}

#[tokio::test]
async fn a_server_frozen_past_the_session_leaves_no_master_and_heals() -> Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    let server = &cluster.zookeeper.servers[0];
    server.pause();
    let begun = Instant::now();
    no_sessions(&cluster).await?;
    sleep(PAST_THE_SESSION.saturating_sub(begun.elapsed())).await;
    server.resume();
    cluster.healthy().await?;
    label(&cluster, "n3", "thawed").await?;
    cluster.finish().await
}

#[tokio::test]
async fn an_ensemble_loses_the_connected_server_then_its_quorum_then_heals() -> Result<()> {
    let mut cluster = Cluster::start(Options {
        servers: 3,
        ..Options::default()
    })
    .await?;
    // A follower that holds a session, so that the servers need not elect a leader as well; the leader if there is none.
    let leader = cluster.zookeeper.leader().await.context("no leader")?;
    let mut connected = leader;
    for (i, server) in cluster.zookeeper.servers.iter().enumerate() {
        let consoles = server.four_letters("cons").await.unwrap_or_default();
        if i != leader && cluster.daemons.iter().any(|d| consoles.contains(&session_of(d))) {
            connected = i;
        }
    }
    let seq = cluster.revision().await?;
    cluster.zookeeper.servers[connected].kill();
    label(&cluster, "n1", "two-servers").await?;
    cluster.healthy().await?;
    cluster.assert_subscribers().await?;
    if connected != leader {
        cluster.assert_none_since(seq, &["node.offline"]).await?;
    }

    let second = (0..3)
        .find(|i| *i != connected && *i != leader)
        .unwrap_or((connected + 1) % 3);
    cluster.zookeeper.servers[second].kill();
    no_sessions(&cluster).await?;

    for i in [connected, second] {
        cluster.zookeeper.servers[i].start_again()?;
    }
    cluster.healthy().await?;
    let all = cluster
        .wait_until("all servers are seen", |s| {
            s.zookeeper.iter().filter(|z| z.reachable).count() == 3
        })
        .await?;
    ensure!(is(&all, "n1", NodeState::Online));
    label(&cluster, "n1", "healed").await?;
    cluster.finish().await
}

/// The session that a daemon last registered on, as the servers write it.
fn session_of(daemon: &Daemon) -> String {
    let log = daemon.log();
    let registered = log.lines().rev().find(|l| l.contains("\"registered\""));
    let id = registered.and_then(|l| {
        let digits = l.split("Some(").nth(1)?.split(')').next()?;
        digits.parse::<i64>().ok()
    });
    format!("sid=0x{:x}", id.unwrap_or_default())
}

/// Waits until no daemon has a session, and every one of them says so instead of answering for the master.
async fn no_sessions(cluster: &Cluster) -> Result<()> {
    let begun = Instant::now();
    for daemon in &cluster.daemons {
        loop {
            let bundle = cluster.bundle("admin")?;
            let mut client = cluster.client_at(&bundle, vec![daemon.address.clone()], Duration::from_secs(2))?;
            let info = client.get_info(GetInfoRequest::default()).await?;
            let state = client.get_state(Default::default()).await;
            if info.session == "lost" {
                let code = state.as_ref().err().map(|e| e.code().to_owned()).unwrap_or_default();
                ensure!(
                    ["HA0102", "HA0103"].contains(&code.as_str()),
                    "{} answers {state:?}",
                    daemon.name
                );
                break;
            }
            ensure!(begun.elapsed() < LIMIT, "{} has a session: {info:?}", daemon.name);
            sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(())
}
