//! pg_auto_failover with its defaults: its monitor at the hub, where ZooKeeper is for the others.

use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{Managed, node};
use crate::netns::{HUB, Network};

const POSTGRES: u16 = 5432;
const MONITOR: u16 = 6000;
const PROGRAM: &str = "/usr/bin/pg_autoctl";

pub(super) struct AutoFailover {
    dir: tempfile::TempDir,
    monitor: Option<Child>,
    nodes: Vec<Node>,
}

struct Node {
    address: String,
    under: Vec<String>,
    daemon: Option<Child>,
}

impl AutoFailover {
    pub(super) async fn start(network: &Network) -> Result<AutoFailover> {
        ensure!(std::path::Path::new(PROGRAM).exists(), "{PROGRAM} is not there");
        let dir = tempfile::Builder::new().prefix("autofailover-").tempdir()?;
        node::give(dir.path())?;
        let mut system = AutoFailover {
            dir,
            monitor: None,
            nodes: Vec::new(),
        };
        let home = system.home("monitor")?;
        let mut command = node::command(&[], &home, PROGRAM);
        command.args(["create", "monitor", "--no-ssl", "--auth", "trust", "--run"]);
        command.args(["--hostname", HUB, "--pgport", &MONITOR.to_string()]);
        command.arg("--pgdata").arg(home.join("data"));
        system.monitor = Some(node::start(command, &home.join("log"))?);
        system.wait("the monitor", |s| s.nodes_seen().is_some()).await?;
        for i in 0..super::NODES {
            system.nodes.push(Node {
                address: network.address(i),
                under: network.under(i),
                daemon: None,
            });
            let (name, home) = (format!("n{}", i + 1), system.home(&format!("n{}", i + 1))?);
            let mut command = node::command(&network.under(i), &home, PROGRAM);
            command.args(["create", "postgres", "--no-ssl", "--auth", "trust", "--run"]);
            command.args(["--name", &name, "--hostname", &network.address(i)]);
            command.args(["--listen", &network.address(i), "--pgport", &POSTGRES.to_string()]);
            command.args(["--username", "app", "--dbname", "app"]);
            command.arg("--pgdata").arg(home.join("data"));
            command.arg("--monitor");
            command.arg(format!("postgres://autoctl_node@{HUB}:{MONITOR}/pg_auto_failover"));
            system.nodes[usize::from(i)].daemon = Some(node::start(command, &home.join("log"))?);
            let wanted = usize::from(i) + 1;
            system
                .wait(&name, |s| s.nodes_seen().is_some_and(|n| settled(&n) == wanted))
                .await?;
            system.let_in(i)?;
        }
        Ok(system)
    }

    fn home(&self, name: &str) -> Result<PathBuf> {
        let home = self.dir.path().join(name);
        if !home.exists() {
            std::fs::create_dir(&home)?;
            node::give(&home)?;
        }
        Ok(home)
    }

    /// Lets the application in from the hub, whoever is primary.
    fn let_in(&self, i: u8) -> Result<()> {
        use std::io::Write as _;
        let home = self.home(&format!("n{}", i + 1))?;
        let mut hba = std::fs::File::options()
            .append(true)
            .open(home.join("data/pg_hba.conf"))?;
        writeln!(hba, "host all all 10.88.0.0/24 trust")?;
        let mut command = node::command(
            &self.nodes[usize::from(i)].under,
            &home,
            &format!("{}/pg_ctl", node::BIN),
        );
        command.args(["reload", "-D"]).arg(home.join("data"));
        node::finish(command)?;
        Ok(())
    }

    async fn wait(&self, what: &str, done: impl Fn(&Self) -> bool) -> Result<()> {
        let begun = Instant::now();
        while !done(self) {
            ensure!(begun.elapsed() < Duration::from_secs(120), "{what} does not come up");
            sleep(Duration::from_millis(300)).await;
        }
        Ok(())
    }

    /// The nodes as the monitor sees them.
    fn nodes_seen(&self) -> Option<Vec<Value>> {
        let home = self.home("monitor").ok()?;
        let mut command = node::command(&[], &home, PROGRAM);
        command
            .args(["show", "state", "--json", "--pgdata"])
            .arg(home.join("data"));
        let text = node::finish(command).ok()?;
        serde_json::from_str::<Value>(&text).ok()?.as_array().cloned()
    }

    fn spawn(&mut self, i: u8) -> Result<()> {
        let home = self.home(&format!("n{}", i + 1))?;
        let at = &mut self.nodes[usize::from(i)];
        if let Some(mut old) = at.daemon.take() {
            let _ = old.kill();
            let _ = old.wait();
        }
        let mut command = node::command(&at.under, &home, PROGRAM);
        command.args(["run", "--pgdata"]).arg(home.join("data"));
        at.daemon = Some(node::start(command, &home.join("log"))?);
        Ok(())
    }
}

fn state<'a>(node: &'a Value, key: &str) -> &'a str {
    node.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Nodes that are what they are to be.
fn settled(nodes: &[Value]) -> usize {
    let wanted = ["primary", "secondary", "single"];
    nodes
        .iter()
        .filter(|n| {
            let (now, goal) = (state(n, "current_group_state"), state(n, "assigned_group_state"));
            now == goal && wanted.contains(&now)
        })
        .count()
}

impl Drop for AutoFailover {
    fn drop(&mut self) {
        let children = self.nodes.iter_mut().filter_map(|n| n.daemon.as_mut());
        for child in children.chain(self.monitor.as_mut()) {
            if let Ok(pid) = i32::try_from(child.id()) {
                // It ends its PostgreSQL only when it is asked to.
                let _ = nix::sys::signal::kill(Pid::from_raw(pid), nix::sys::signal::Signal::SIGQUIT);
            }
            let _ = child.wait();
        }
    }
}

#[async_trait::async_trait(?Send)]
impl Managed for AutoFailover {
    fn name(&self) -> String {
        "pg_auto_failover".to_owned()
    }

    fn hosts(&self) -> Vec<(String, u16)> {
        self.nodes.iter().map(|n| (n.address.clone(), POSTGRES)).collect()
    }

    async fn primary(&self) -> Option<u8> {
        let nodes = self.nodes_seen()?;
        let primary = nodes.iter().find(|n| state(n, "current_group_state") == "primary")?;
        let name = state(primary, "nodename");
        name.strip_prefix('n')?.parse::<u8>().ok()?.checked_sub(1)
    }

    async fn whole(&self) -> bool {
        let nodes = self.nodes_seen().unwrap_or_default();
        let primary = nodes.iter().any(|n| state(n, "current_group_state") == "primary");
        primary && settled(&nodes) == usize::from(super::NODES)
    }

    async fn switchover(&mut self, _: u8, _: u8) -> Result<()> {
        let home = self.home("monitor")?;
        let mut command = node::command(&[], &home, PROGRAM);
        command
            .args(["perform", "switchover", "--pgdata"])
            .arg(home.join("data"));
        // The rows go on meanwhile.
        tokio::task::spawn_blocking(move || node::finish(command))
            .await?
            .map(drop)
            .context("the switchover failed")
    }

    fn daemon(&self, node: u8) -> Option<Pid> {
        let child = self.nodes[usize::from(node)].daemon.as_ref()?;
        i32::try_from(child.id()).ok().map(Pid::from_raw)
    }

    async fn restart(&mut self, node: u8) -> Result<()> {
        self.spawn(node)
    }
}
