//! What befalls the primary, and what else is on its node when it does.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use tokio::time::sleep;

use super::{NODES, Rig, node};

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Blow {
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

/// What is on the primary's node besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Where {
    /// Nothing that decides, as the system has it; ZooKeeper is at the hub.
    Apart,
    /// The node that decides for all.
    Master,
    /// The leader of ZooKeeper, whose servers are on the nodes.
    ZookeeperLeader,
}

/// A row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fault {
    pub(crate) at: Where,
    pub(crate) blow: Blow,
}

const fn fault(at: Where, blow: Blow) -> Fault {
    Fault { at, blow }
}

impl Fault {
    /// In the order of the table.
    pub(crate) const ALL: [Fault; 13] = [
        fault(Where::Apart, Blow::Switchover),
        fault(Where::Apart, Blow::Postmaster),
        fault(Where::Apart, Blow::Daemon),
        fault(Where::Apart, Blow::Node),
        fault(Where::Apart, Blow::Cut),
        fault(Where::Apart, Blow::Frozen),
        fault(Where::Apart, Blow::Coordinator),
        fault(Where::Master, Blow::Node),
        fault(Where::Master, Blow::Cut),
        fault(Where::Master, Blow::Frozen),
        fault(Where::ZookeeperLeader, Blow::Node),
        fault(Where::ZookeeperLeader, Blow::Cut),
        fault(Where::ZookeeperLeader, Blow::Frozen),
    ];

    /// The gap wanted, s; none where no budget can promise one.
    pub(super) fn goal(self) -> Option<f64> {
        match (self.at, self.blow) {
            (Where::ZookeeperLeader, _) => None,
            (_, Blow::Switchover | Blow::Postmaster) => Some(0.3),
            (_, Blow::Daemon | Blow::Coordinator) => Some(0.0),
            (Where::Apart, Blow::Node) => Some(0.5),
            (Where::Apart, Blow::Cut | Blow::Frozen) => Some(2.0),
            (Where::Master, Blow::Node) => Some(1.0),
            (Where::Master, Blow::Cut | Blow::Frozen) => Some(3.0),
        }
    }

    pub(super) fn label(self) -> String {
        let blow = match self.blow {
            Blow::Switchover => "switchover",
            Blow::Postmaster => "postmaster killed",
            Blow::Daemon => "daemon killed, back after 1 s",
            Blow::Node => "all of the node killed",
            Blow::Cut => "node cut off",
            Blow::Frozen => "node frozen",
            Blow::Coordinator => "ZooKeeper gone for a minute",
        };
        match self.at {
            Where::Apart => blow.to_owned(),
            Where::Master => format!("{blow}, with the master"),
            Where::ZookeeperLeader => format!("{blow}, with ZooKeeper's leader"),
        }
    }

    /// Whether ZooKeeper's servers are on the nodes.
    pub(super) fn on_nodes(self) -> bool {
        self.at == Where::ZookeeperLeader
    }

    /// Whether it can befall this system: Patroni's primary decides for itself, and pg_auto_failover has a monitor at the hub in
    /// ZooKeeper's place.
    pub(super) fn applies(self, system: &str) -> bool {
        match self.at {
            Where::Master => system == "had",
            Where::ZookeeperLeader => system != "pg_auto_failover",
            Where::Apart => self.blow != Blow::Coordinator || system != "pg_auto_failover",
        }
    }
}

impl Rig<'_> {
    /// Lets it happen.
    pub(super) async fn strike(&mut self, blow: Blow, primary: u8) -> Result<()> {
        match blow {
            Blow::Switchover => self.system.switchover(primary, (primary + 1) % NODES).await,
            Blow::Postmaster => node::kill_postmaster(self.network, primary),
            Blow::Daemon => {
                let pid = self.system.daemon(primary).context("no daemon")?;
                kill(pid, Signal::SIGKILL)?;
                sleep(Duration::from_secs(1)).await;
                self.system.restart(primary).await
            }
            Blow::Node => self.network.signal_all(primary, Signal::SIGKILL),
            Blow::Cut => self.network.cut(primary),
            Blow::Frozen => self.network.signal_all(primary, Signal::SIGSTOP),
            Blow::Coordinator => {
                let servers = &mut self.zookeeper.servers;
                servers.iter_mut().for_each(crate::zookeeper::ZkServer::kill);
                sleep(Duration::from_secs(60)).await;
                for server in servers {
                    server.start_again()?;
                }
                Ok(())
            }
        }
    }

    /// Gives back what the group needs to be whole.
    pub(super) async fn mend(&mut self, blow: Blow, primary: u8) -> Result<()> {
        match blow {
            Blow::Node => {
                // With one server a node, that one went as well.
                if self.zookeeper.servers.len() > 1 {
                    self.zookeeper.servers[usize::from(primary)].start_again()?;
                }
                self.system.restart(primary).await
            }
            Blow::Cut => self.network.heal(primary),
            Blow::Frozen => self.network.signal_all(primary, Signal::SIGCONT),
            Blow::Switchover | Blow::Postmaster | Blow::Daemon | Blow::Coordinator => Ok(()),
        }
    }
}
