//! A thousand nodes on one ZooKeeper server: how long they take to register, and how long a change takes to reach them all.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use controlplane::security::NodeBundle;
use futures::{StreamExt, TryStreamExt, stream};
use ha_proto::v1::{AccessRole, AddNodeRequest, NodeSpec, NodeState, RecordUserRequest, UpdateNodeRequest};
use hactl::ca::Issued;
use tokio::time::sleep;

use super::figures::{Figures, against_goal, seconds};
use super::nodes::{self, Arrivals, Way};
use crate::cluster::{Cluster, Options, is, master_of};

/// Simulated nodes; HA_BENCH_NODES=N for another number.
const NODES: usize = 1000;
/// Changes whose way to every reader is measured.
const CHANGES: usize = 30;
/// Connections opened at once.
const PARALLEL: usize = 16;

pub(super) async fn run() -> Result<()> {
    let nodes = std::env::var("HA_BENCH_NODES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(NODES);
    println!("\n{nodes} simulated nodes on one ZooKeeper server, their report streams to one master");
    let mut options = Options {
        nodes: 1,
        subscribers: false,
        ..Options::default()
    };
    options.zookeeper.heap_mb = options.zookeeper.heap_mb.max(512);
    let cluster = Cluster::start(options).await?;
    let first = cluster.daemons.first().context("the first node")?;
    let bundle = NodeBundle::read(&first.bundle())?;
    let master = first.address.clone();
    let mut admin = cluster.admin()?;

    let issued: Vec<Issued> = (0..nodes)
        .map(|i| cluster.authority.issue_node(&format!("s{i}")))
        .collect::<Result<_, _>>()?;
    let begun = Instant::now();
    for (i, node) in issued.iter().enumerate() {
        admin.add_node(request(node, i)).await?;
    }
    println!(
        "  {:<44} {:>10}",
        "added, one call after the other",
        seconds(begun.elapsed().as_secs_f64())
    );

    let begun = Instant::now();
    let sessions: Vec<nodes::Session> = stream::iter(issued.iter().enumerate())
        .map(|(i, node)| {
            let bundle = &bundle;
            async move { nodes::register(bundle, &node.name, &address(i)).await }
        })
        .buffer_unordered(PARALLEL)
        .try_collect()
        .await?;
    println!(
        "  {:<44} {:>10}",
        "sessions, registrations and leases",
        seconds(begun.elapsed().as_secs_f64())
    );

    let way = Way {
        cluster: bundle.cluster.clone(),
        authority: cluster.bundle("admin")?.ca,
        master,
    };
    let (agents, watchers) = (Arrivals::default(), Arrivals::default());
    let begun = Instant::now();
    let mut tasks: Vec<_> = stream::iter(&issued)
        .map(|node| nodes::report(&way, node, agents.clone()))
        .buffer_unordered(PARALLEL)
        .try_collect()
        .await?;
    cluster
        .wait_until("every simulated node is online", |s| {
            !master_of(s).is_empty() && issued.iter().all(|n| is(s, &n.name, NodeState::Online))
        })
        .await?;
    println!(
        "  {:<44} {:>10}",
        "report streams open, every node online",
        seconds(begun.elapsed().as_secs_f64())
    );
    settle(&cluster).await?;
    let figures = measure(&mut admin, &agents, nodes).await?;
    against_goal("a change to every node, p50", &share(&figures, 0.50), 0.25);
    against_goal("a change to every node, p99", &share(&figures, 0.99), 0.25);

    let user = cluster.authority.issue_user("bench-watcher", AccessRole::Viewer)?;
    let recorded = RecordUserRequest {
        name: user.name.clone(),
        role: AccessRole::Viewer.into(),
        serial: user.serial.clone(),
        expires_unix_ms: user.expires_unix_ms,
        ..RecordUserRequest::default()
    };
    admin.record_user(recorded).await?;
    let opened: Vec<_> = stream::iter(0..nodes)
        .map(|_| nodes::watch(&way, &user, watchers.clone()))
        .buffer_unordered(PARALLEL)
        .try_collect()
        .await?;
    tasks.extend(opened);
    settle(&cluster).await?;
    let figures = measure(&mut admin, &watchers, nodes).await?;
    against_goal(
        &format!("the same to {nodes} dashboards as well, p50"),
        &share(&figures, 0.50),
        0.25,
    );
    against_goal(
        &format!("the same to {nodes} dashboards as well, p99"),
        &share(&figures, 0.99),
        0.25,
    );

    for task in tasks {
        task.abort();
    }
    stream::iter(sessions)
        .for_each_concurrent(PARALLEL, nodes::Session::end)
        .await;
    Ok(())
}

fn address(i: usize) -> String {
    format!("127.77.{}.{}:7400", i / 250, i % 250 + 1)
}

fn request(node: &Issued, i: usize) -> AddNodeRequest {
    AddNodeRequest {
        name: node.name.clone(),
        spec: Some(NodeSpec {
            address: address(i),
            ..NodeSpec::default()
        }),
        certificate_serial: node.serial.clone(),
        certificate_expires_unix_ms: node.expires_unix_ms,
        ..AddNodeRequest::default()
    }
}

/// Waits until the change log stands still.
async fn settle(cluster: &Cluster) -> Result<()> {
    let mut before = cluster.revision().await?;
    loop {
        sleep(Duration::from_secs(2)).await;
        let now = cluster.revision().await?;
        if now == before {
            return Ok(());
        }
        before = now;
    }
}

/// From the moment the change is asked for to its arrival at each reader.
async fn measure(admin: &mut hactl::client::Client, arrivals: &Arrivals, readers: usize) -> Result<Figures> {
    let mut figures = Figures::default();
    for i in 0..CHANGES {
        // Set and removed in turn, so that each request is a change.
        let label = ("bench".to_owned(), "on".to_owned());
        let request = UpdateNodeRequest {
            name: "n1".to_owned(),
            set_labels: (i % 2 == 0).then_some(label).into_iter().collect(),
            remove_labels: (i % 2 == 1).then(|| "bench".to_owned()).into_iter().collect(),
            ..UpdateNodeRequest::default()
        };
        let begun = Instant::now();
        let seq = admin.update_node(request).await?.revision;
        let limit = begun + Duration::from_secs(20);
        while arrivals.of(seq).len() < readers && Instant::now() < limit {
            sleep(Duration::from_millis(20)).await;
        }
        let seen = arrivals.of(seq);
        anyhow::ensure!(
            seen.len() >= readers,
            "change {seq} reached {} of {readers} readers",
            seen.len()
        );
        for at in seen {
            figures.push(at.duration_since(begun));
        }
        sleep(Duration::from_millis(211)).await;
    }
    Ok(figures)
}

/// A share of the figures as a figure of its own.
fn share(figures: &Figures, at: f64) -> Figures {
    let mut one = Figures::default();
    one.push(Duration::from_secs_f64(figures.at(at)));
    one
}
