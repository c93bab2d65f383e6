//! The measurements behind `make bench-failover`: how long an application cannot write, under each fault, with this project
//! and with its peers on the same machine, the same ZooKeeper and the same PostgreSQL, in one run.
//!
//! Each system runs on three nodes of a network of its own; the application is at the hub. What it loses is counted as well:
//! an acknowledged row that is missing afterwards is printed as such, whoever lost it.

mod autofailover;
mod client;
mod fault;
mod figures;
mod had;
mod node;
mod patroni;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::{Instant, sleep};

use crate::netns::{HUB, Network};
use crate::zookeeper::{ZkEnsemble, ZkOptions, ZkServer};

use self::client::Client;
use self::fault::{Blow, Fault, Where};
use self::figures::Table;

/// What is measured, in the order of the table.
const SYSTEMS: [&str; 3] = ["had", "patroni", "pg_auto_failover"];
/// Nodes of each system.
const NODES: u8 = 3;
/// Runs of each fault; `--runs N` for another number.
const RUNS: usize = 5;
/// How long a group may take to be whole again after a fault.
const HEAL: Duration = Duration::from_secs(180);
/// How long the slowest peer may take to write again.
const WRITE: Duration = Duration::from_secs(120);

/// A PostgreSQL group on three nodes, under some manager.
#[async_trait::async_trait(?Send)]
pub(crate) trait Managed {
    /// What it is.
    fn name(&self) -> String;
    /// The nodes' addresses and ports, for the application.
    fn hosts(&self) -> Vec<(String, u16)>;
    /// The same for an application that goes through the system's own proxies; empty if it has none.
    fn proxies(&self) -> Vec<(String, u16)> {
        Vec::new()
    }
    /// The node of the primary, if the manager names one.
    async fn primary(&self) -> Option<u8>;
    /// Whether there is one primary and two standbys stream from it.
    async fn whole(&self) -> bool;
    /// Moves the primary to another node on purpose. Returns when the manager says that it is done.
    async fn switchover(&mut self, from: u8, to: u8) -> Result<()>;
    /// Process id of the manager's daemon at a node.
    fn daemon(&self, node: u8) -> Option<nix::unistd::Pid>;
    /// Starts again what was killed at a node.
    async fn restart(&mut self, node: u8) -> Result<()>;
    /// Makes this node the one that decides for all, where the system has such a node apart from the primary's.
    async fn lead_at(&mut self, _: u8) -> Result<bool> {
        Ok(false)
    }
}

/// What is asked for on the command line.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Systems by name; all if empty.
    pub systems: Vec<String>,
    /// Faults by a part of their label; all if empty.
    pub faults: Vec<String>,
    /// Runs of each fault; the default if none.
    pub runs: Option<usize>,
}

impl Wanted {
    fn system(&self, name: &str) -> bool {
        self.systems.is_empty() || self.systems.iter().any(|s| s == name)
    }

    /// What is asked for of what this system knows, with its ZooKeeper at the hub or on the nodes.
    fn faults(&self, system: &str, on_nodes: bool) -> Vec<Fault> {
        let all = Fault::ALL.into_iter().filter(|f| {
            let asked = self.faults.is_empty() || self.faults.iter().any(|w| f.label().contains(w.as_str()));
            asked && f.applies(system) && f.on_nodes() == on_nodes
        });
        all.collect()
    }
}

/// Measures and prints.
///
/// # Errors
/// If networks cannot be made, or a system cannot be brought up at all.
pub fn run(wanted: &Wanted) -> Result<()> {
    Network::possible().map_err(|why| anyhow::anyhow!("no networks can be made here: {why}"))?;
    let mut table = Table::default();
    crate::bench::machine();
    for system in SYSTEMS.into_iter().filter(|s| wanted.system(s)) {
        for on_nodes in [false, true] {
            let faults = wanted.faults(system, on_nodes);
            if faults.is_empty() {
                continue;
            }
            // A thread and a network for each: nothing of one can disturb the next.
            let runs = wanted.runs.unwrap_or(RUNS);
            let thread = std::thread::spawn(move || {
                let network = Network::enter(NODES)?;
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(measure(system, &network, on_nodes, &faults, runs))
            });
            match thread.join().map_err(|_| anyhow::anyhow!("the measurement panicked"))? {
                Ok(figures) => figures.into_iter().for_each(|f| table.add(f)),
                Err(e) => println!("{system}: cannot be measured: {e:#}"),
            }
        }
    }
    table.print();
    Ok(())
}

/// One server at the hub, or one on each node.
async fn zookeeper(network: &Network, on_nodes: bool) -> Result<ZkEnsemble> {
    if on_nodes {
        let at = |node| ZkOptions {
            bind: network.address(node),
            under: network.under(node),
            ..ZkOptions::default()
        };
        return ZkEnsemble::start_each(&(0..NODES).map(at).collect::<Vec<_>>()).await;
    }
    let server = ZkServer::start(ZkOptions {
        bind: HUB.to_owned(),
        ..ZkOptions::default()
    });
    Ok(ZkEnsemble {
        servers: vec![server.await?],
    })
}

/// A system with its applications, under faults.
struct Rig<'a> {
    system: Box<dyn Managed>,
    network: &'a Network,
    zookeeper: ZkEnsemble,
    /// The application, and a second one through the proxies where there are any.
    clients: Vec<Client>,
}

async fn measure(
    name: &str,
    network: &Network,
    on_nodes: bool,
    faults: &[Fault],
    runs: usize,
) -> Result<Vec<figures::Column>> {
    let zookeeper = zookeeper(network, on_nodes).await?;
    let system: Box<dyn Managed> = match name {
        "had" => Box::new(had::Had::start(network, &zookeeper).await?),
        "patroni" => Box::new(patroni::Patroni::start(network, &zookeeper.connect_string()).await?),
        _ => Box::new(autofailover::AutoFailover::start(network).await?),
    };
    wait_whole(&*system).await.context("it never became whole")?;
    println!("{}: three nodes stream", system.name());
    let mut clients = vec![Client::start(system.hosts(), "bench_rows").await?];
    let mut columns = vec![figures::Column::new(system.name())];
    if !system.proxies().is_empty() {
        clients.push(Client::start(system.proxies(), "bench_rows_by_proxy").await?);
        columns.push(figures::Column::new(format!("{}, by its proxies", system.name())));
    }
    let mut rig = Rig {
        system,
        network,
        zookeeper,
        clients,
    };
    for fault in faults {
        let runs = match fault.blow {
            Blow::Coordinator => 1,
            _ => runs,
        };
        for _ in 0..runs {
            match rig.once(*fault).await {
                Ok(gaps) => columns.iter_mut().zip(gaps).for_each(|(c, gap)| c.push(*fault, gap)),
                Err(e) => {
                    println!("{}, {}: {e:#}", rig.system.name(), fault.label());
                    columns.iter_mut().for_each(|c| c.failed(*fault));
                    wait_whole(&*rig.system).await?;
                }
            }
        }
        columns.iter().for_each(|c| c.told(*fault));
    }
    for (column, client) in columns.iter_mut().zip(&rig.clients) {
        column.lost = client.missing().await?;
    }
    Ok(columns)
}

impl Rig<'_> {
    /// One fault, from a whole group to a whole group; for how long each application had nothing acknowledged.
    async fn once(&mut self, fault: Fault) -> Result<Vec<Duration>> {
        wait_whole(&*self.system).await?;
        if fault.at == Where::ZookeeperLeader {
            self.zookeeper_leads_at_primary().await?;
        }
        let primary = self.system.primary().await.context("no primary")?;
        for client in &self.clients {
            client.settle().await?;
        }
        if fault.at == Where::Master {
            // Last of all: the system may not leave it there.
            self.system.lead_at(primary).await?;
        }
        let begun = Instant::now();
        self.strike(fault.blow, primary).await?;
        let mut gaps = Vec::new();
        for client in &self.clients {
            gaps.push(client.gap(begun, WRITE).await?);
        }
        self.mend(fault.blow, primary).await?;
        Ok(gaps)
    }

    /// Moves the primary to the node of ZooKeeper's leader.
    async fn zookeeper_leads_at_primary(&mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let primary = self.system.primary().await.context("no primary")?;
            let leader = self.zookeeper.leader().await.context("no leader")?;
            let leader = u8::try_from(leader)?;
            if leader == primary {
                return Ok(());
            }
            ensure!(
                begun.elapsed() < HEAL,
                "the primary is never on the node of ZooKeeper's leader"
            );
            self.system.switchover(primary, leader).await?;
            wait_whole(&*self.system).await?;
        }
    }
}

async fn wait_whole(system: &dyn Managed) -> Result<()> {
    let begun = Instant::now();
    while !system.whole().await {
        ensure!(
            begun.elapsed() < HEAL,
            "{} is not whole after {} s",
            system.name(),
            HEAL.as_secs()
        );
        sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}
