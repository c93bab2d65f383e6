//! Faults in any order and on top of each other. `HA_CHAOS_SECONDS=600` goes on for longer, `HA_CHAOS_SEED=N` repeats the
//! order of faults (not their timing) of a run that failed.
//!
//! The daemons get no rest. Of the ZooKeeper servers one at a time is killed or frozen, and the next only when all of them
//! serve again: release 3.8.0 loses acknowledged writes when a follower falls out while it catches up with a new leader
//! (ZOOKEEPER-4643, ZOOKEEPER-4646), which no client can mend.

use std::time::Duration;

use anyhow::{Context, Result};
use ha_proto::v1::{TransferMasterRequest, UpdateNodeRequest};
use ha_tests::cluster::{Cluster, Options};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::{Instant, sleep};

/// What goes on at the moment, to be undone at its time.
enum Undo {
    Start(usize),
    Continue(usize),
    StartServer(usize),
    ThawServer(usize),
}

fn set(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test]
async fn faults_on_top_of_each_other_leave_one_master_and_a_whole_log() -> Result<()> {
    let seed = set("HA_CHAOS_SEED").unwrap_or_else(|| rand::rng().random());
    let length = Duration::from_secs(set("HA_CHAOS_SECONDS").unwrap_or(30));
    let mut cluster = Cluster::start(Options {
        servers: 3,
        ..Options::default()
    })
    .await?;
    let what = run(&mut cluster, StdRng::seed_from_u64(seed), length).await;
    let what = what.with_context(|| format!("HA_CHAOS_SEED={seed}"))?;
    let told = || format!("HA_CHAOS_SEED={seed}; faults: {}", what.join(", "));
    cluster.finish().await.with_context(told)
}

async fn all_serve(cluster: &Cluster) -> bool {
    for server in &cluster.zookeeper.servers {
        if server.mode().await.is_none() {
            return false;
        }
    }
    true
}

/// Makes faults for this long, undoes them all, and returns what they were.
async fn run(cluster: &mut Cluster, mut rng: StdRng, length: Duration) -> Result<Vec<String>> {
    let begun = Instant::now();
    let mut done = Vec::new();
    let mut pending: Vec<(Instant, Undo)> = Vec::new();
    while begun.elapsed() < length || !pending.is_empty() {
        let now = Instant::now();
        let (due, later): (Vec<_>, Vec<_>) = pending.into_iter().partition(|(at, _)| *at <= now);
        pending = later;
        for (_, undo) in due {
            match undo {
                Undo::Start(i) => cluster.daemons[i].start()?,
                Undo::Continue(i) => cluster.daemons[i].sigcont(),
                Undo::StartServer(i) => cluster.zookeeper.servers[i].start_again()?,
                Undo::ThawServer(i) => cluster.zookeeper.servers[i].resume(),
            }
        }
        if begun.elapsed() < length {
            let busy_node = |i: usize| {
                let its = |u: &Undo| matches!(u, Undo::Start(n) | Undo::Continue(n) if *n == i);
                pending.iter().any(|(_, u)| its(u))
            };
            let (node, server) = (rng.random_range(0..3), rng.random_range(0..3));
            // Now shorter than a lease, now longer than a session.
            let away = Duration::from_millis(if rng.random_bool(0.5) {
                rng.random_range(10..1500)
            } else {
                rng.random_range(2000..9000)
            });
            let undo_at = Instant::now() + away;
            let kind = rng.random_range(0..8);
            done.push(format!("{kind}:{node}/{server} {} ms", away.as_millis()));
            match kind {
                0 if !busy_node(node) => {
                    cluster.daemons[node].kill9();
                    pending.push((undo_at, Undo::Start(node)));
                }
                1 if !busy_node(node) => {
                    cluster.daemons[node].sigterm();
                    cluster.daemons[node].ended(Duration::from_secs(20)).await?;
                    pending.push((undo_at, Undo::Start(node)));
                }
                2 | 3 if !busy_node(node) => {
                    cluster.daemons[node].sigstop();
                    pending.push((undo_at, Undo::Continue(node)));
                }
                4 if all_serve(cluster).await => {
                    cluster.zookeeper.servers[server].kill();
                    pending.push((undo_at, Undo::StartServer(server)));
                }
                5 if all_serve(cluster).await => {
                    cluster.zookeeper.servers[server].pause();
                    pending.push((undo_at, Undo::ThawServer(server)));
                }
                // Requests, which may fail as long as the faults last.
                6 => {
                    let mut client =
                        cluster.client_at(&cluster.bundle("admin")?, cluster.endpoints(), Duration::from_secs(1))?;
                    let _ = client.transfer_master(TransferMasterRequest::default()).await;
                }
                7 => {
                    let mut client =
                        cluster.client_at(&cluster.bundle("admin")?, cluster.endpoints(), Duration::from_secs(1))?;
                    let request = UpdateNodeRequest {
                        name: format!("n{}", node + 1),
                        set_labels: [("chaos".to_owned(), done.len().to_string())].into(),
                        ..UpdateNodeRequest::default()
                    };
                    let _ = client.update_node(request).await;
                }
                _ => {}
            }
        }
        sleep(Duration::from_millis(rng.random_range(50..800))).await;
    }
    Ok(done)
}
