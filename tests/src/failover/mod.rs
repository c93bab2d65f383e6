//! The measurements behind `make bench-failover`: how long an application cannot write, under each fault, with this project
//! and with its peers on the same machine, the same ZooKeeper and the same PostgreSQL, in one run.
//!
//! Each system runs on three nodes of a network of its own; the application is at the hub. What it loses is counted as well:
//! an acknowledged row that is missing afterwards is printed as such, whoever lost it.

mod autofailover;
mod client;
mod figures;
mod node;
mod patroni;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use crate::netns::{HUB, Network};
use crate::zookeeper::{ZkOptions, ZkServer};

use self::client::Client;
use self::figures::Table;

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
}

/// What befalls the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// Another primary on purpose.
    Switchover,
    /// `kill -9` of the postmaster.
    Postmaster,
    /// `kill -9` of the manager's daemon, started again after a second.
    Daemon,
    /// `kill -9` of everything at the node; its kernel resets the connections.
    Node,
    /// The node cut off, in silence.
    Cut,
    /// SIGSTOP of everything at the node.
    Frozen,
    /// ZooKeeper killed, started again after the time that is measured.
    Coordinator,
}

impl Fault {
    /// In the order of the table.
    pub(crate) const ALL: [Fault; 7] = [
        Fault::Switchover,
        Fault::Postmaster,
        Fault::Daemon,
        Fault::Node,
        Fault::Cut,
        Fault::Frozen,
        Fault::Coordinator,
    ];

    fn goal(self) -> f64 {
        match self {
            Fault::Switchover | Fault::Postmaster => 0.3,
            Fault::Daemon | Fault::Coordinator => 0.0,
            Fault::Node => 0.5,
            Fault::Cut | Fault::Frozen => 2.0,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Fault::Switchover => "switchover",
            Fault::Postmaster => "postmaster killed",
            Fault::Daemon => "daemon killed, back after 1 s",
            Fault::Node => "all of the node killed",
            Fault::Cut => "node cut off",
            Fault::Frozen => "node frozen",
            Fault::Coordinator => "ZooKeeper gone for a minute",
        }
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

/// Measures and prints.
///
/// # Errors
/// If networks cannot be made, or a system cannot be brought up at all.
pub fn run(wanted: &Wanted) -> Result<()> {
    Network::possible().map_err(|why| anyhow::anyhow!("no networks can be made here: {why}"))?;
    let mut table = Table::default();
    crate::bench::machine();
    for system in ["patroni", "pg_auto_failover"] {
        if !wanted.systems.is_empty() && !wanted.systems.iter().any(|s| s == system) {
            continue;
        }
        // A thread and a network for each: nothing of one can disturb the next.
        let (asked, name) = (wanted.clone(), system.to_owned());
        let thread = std::thread::spawn(move || {
            let network = Network::enter(NODES)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(measure(&name, &network, &asked))
        });
        match thread.join().map_err(|_| anyhow::anyhow!("the measurement panicked"))? {
            Ok(figures) => table.add(figures),
            Err(e) => println!("{system}: cannot be measured: {e:#}"),
        }
    }
    table.print();
    Ok(())
}

async fn measure(name: &str, network: &Network, wanted: &Wanted) -> Result<figures::Column> {
    let mut zookeeper = ZkServer::start(ZkOptions {
        bind: HUB.to_owned(),
        ..ZkOptions::default()
    })
    .await?;
    let hosts = zookeeper.address();
    let mut system: Box<dyn Managed> = match name {
        "patroni" => Box::new(patroni::Patroni::start(network, &hosts).await?),
        _ => Box::new(autofailover::AutoFailover::start(network).await?),
    };
    wait_whole(&*system).await.context("it never became whole")?;
    println!("{}: three nodes stream", system.name());
    let mut column = figures::Column::new(system.name());
    let client = Client::start(system.hosts()).await?;
    let faults = Fault::ALL.into_iter().filter(|f| {
        let label = f.label();
        // pg_auto_failover has a monitor of its own in ZooKeeper's place.
        let applies = name != "pg_auto_failover" || *f != Fault::Coordinator;
        applies && (wanted.faults.is_empty() || wanted.faults.iter().any(|w| label.contains(w.as_str())))
    });
    for fault in faults {
        let runs = match fault {
            Fault::Coordinator => 1,
            _ => wanted.runs.unwrap_or(RUNS),
        };
        for _ in 0..runs {
            match once(fault, &mut *system, network, &mut zookeeper, &client).await {
                Ok(gap) => column.push(fault, gap),
                Err(e) => {
                    println!("{}, {}: {e:#}", system.name(), fault.label());
                    column.failed(fault);
                    wait_whole(&*system).await?;
                }
            }
        }
        column.told(fault);
    }
    let lost = client.missing().await?;
    column.lost = lost;
    Ok(column)
}

/// One fault, from a whole group to a whole group; how long nothing was acknowledged.
async fn once(
    fault: Fault,
    system: &mut dyn Managed,
    network: &Network,
    zookeeper: &mut ZkServer,
    client: &Client,
) -> Result<Duration> {
    wait_whole(system).await?;
    let primary = system.primary().await.context("no primary")?;
    client.settle().await?;
    let begun = Instant::now();
    match fault {
        Fault::Switchover => system.switchover(primary, (primary + 1) % NODES).await?,
        Fault::Postmaster => node::kill_postmaster(network, primary)?,
        Fault::Daemon => {
            let pid = system.daemon(primary).context("no daemon")?;
            nix::sys::signal::kill(pid, Signal::SIGKILL)?;
            sleep(Duration::from_secs(1)).await;
            system.restart(primary).await?;
        }
        Fault::Node => network.signal_all(primary, Signal::SIGKILL)?,
        Fault::Cut => network.cut(primary)?,
        Fault::Frozen => network.signal_all(primary, Signal::SIGSTOP)?,
        Fault::Coordinator => {
            zookeeper.kill();
            sleep(Duration::from_secs(60)).await;
            zookeeper.restart().await?;
        }
    }
    let gap = client.gap(begun, WRITE).await?;
    match fault {
        Fault::Node => system.restart(primary).await?,
        Fault::Cut => network.heal(primary)?,
        Fault::Frozen => network.signal_all(primary, Signal::SIGCONT)?,
        _ => {}
    }
    Ok(gap)
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
