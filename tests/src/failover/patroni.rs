//! Patroni, synchronous, tuned to its minimum: ttl 20, loop 1, retry 3, a dead primary replaced and not restarted.
//!
//! `.ci/peers` installs it; HA_PEERS names the directory of its Python environment.

use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::{Managed, node};
use crate::netns::Network;

const POSTGRES: u16 = 5432;
const REST: u16 = 8008;

pub(super) struct Patroni {
    dir: tempfile::TempDir,
    nodes: Vec<Node>,
}

struct Node {
    address: String,
    under: Vec<String>,
    daemon: Option<Child>,
}

impl Patroni {
    pub(super) async fn start(network: &Network, zookeeper: &str) -> Result<Patroni> {
        let dir = tempfile::Builder::new().prefix("patroni-").tempdir()?;
        node::give(dir.path())?;
        let mut patroni = Patroni { dir, nodes: Vec::new() };
        for i in 0..super::NODES {
            let address = network.address(i);
            let home = patroni.home(i);
            std::fs::create_dir(&home)?;
            node::give(&home)?;
            std::fs::write(home.join("patroni.yml"), patroni.config(i, &address, zookeeper))?;
            patroni.nodes.push(Node {
                address,
                under: network.under(i),
                daemon: None,
            });
            patroni.spawn(i)?;
            if i == 0 {
                // The first makes the cluster; the others copy from it.
                patroni.wait_leader().await?;
                patroni.make_application()?;
            }
        }
        Ok(patroni)
    }

    fn home(&self, i: u8) -> PathBuf {
        self.dir.path().join(format!("n{}", i + 1))
    }

    fn program() -> Result<PathBuf> {
        let peers = std::env::var_os("HA_PEERS").context("HA_PEERS names no directory: make bench-failover sets it")?;
        let program = Path::new(&peers).join("bin/patroni");
        ensure!(program.exists(), "{} is not there", program.display());
        Ok(program)
    }

    fn config(&self, i: u8, address: &str, zookeeper: &str) -> String {
        let home = self.home(i);
        let home = home.display();
        let bin = node::BIN;
        format!(
            "scope: bench
name: n{n}
log: {{level: INFO}}
zookeeper: {{hosts: ['{zookeeper}']}}
restapi: {{listen: '{address}:{REST}', connect_address: '{address}:{REST}'}}
bootstrap:
  dcs:
    ttl: 20
    loop_wait: 1
    retry_timeout: 3
    primary_start_timeout: 0
    synchronous_mode: true
    postgresql:
      use_pg_rewind: true
      use_slots: true
      parameters: {{max_connections: 100, wal_log_hints: 'on', hot_standby: 'on'}}
  initdb: [{{encoding: UTF8}}, data-checksums]
postgresql:
  listen: '{address}:{POSTGRES}'
  connect_address: '{address}:{POSTGRES}'
  data_dir: {home}/data
  bin_dir: {bin}
  pgpass: {home}/pgpass
  authentication:
    superuser: {{username: postgres, password: postgres}}
    replication: {{username: replicator, password: replicator}}
    rewind: {{username: rewinder, password: rewinder}}
  parameters: {{unix_socket_directories: '{home}'}}
  pg_hba:
    - local all all trust
    - host all all 10.88.0.0/24 trust
    - host replication all 10.88.0.0/24 trust
",
            n = i + 1
        )
    }

    fn spawn(&mut self, i: u8) -> Result<()> {
        let home = self.home(i);
        let program = Self::program()?;
        let at = &mut self.nodes[usize::from(i)];
        if let Some(mut old) = at.daemon.take() {
            let _ = old.kill();
            let _ = old.wait();
        }
        let mut command = node::command(&at.under, &home, &program.to_string_lossy());
        command.arg(home.join("patroni.yml"));
        at.daemon = Some(node::start(command, &home.join("patroni.log"))?);
        Ok(())
    }

    async fn wait_leader(&self) -> Result<()> {
        let begun = Instant::now();
        while self.primary().await.is_none() {
            ensure!(
                begun.elapsed() < Duration::from_secs(60),
                "Patroni makes no primary; its log ends with\n{}",
                tail(&self.home(0).join("patroni.log"))
            );
            sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    fn make_application(&self) -> Result<()> {
        let home = self.home(0);
        let sql = [
            "create role app login superuser password 'app'",
            "create database app owner app",
        ];
        for sql in sql {
            let mut psql = node::command(&self.nodes[0].under, &home, &format!("{}/psql", node::BIN));
            psql.args([
                "-h",
                &home.to_string_lossy(),
                "-U",
                "postgres",
                "-d",
                "postgres",
                "-c",
                sql,
            ]);
            node::finish(psql)?;
        }
        Ok(())
    }

    /// The members as any node sees them.
    async fn members(&self) -> Option<Vec<Value>> {
        for n in &self.nodes {
            let Ok(Some(answer)) = timeout(Duration::from_secs(1), http(&n.address, "GET", "/cluster", "")).await
            else {
                continue;
            };
            if let Some(members) = answer.get("members").and_then(Value::as_array) {
                return Some(members.clone());
            }
        }
        None
    }
}

impl Drop for Patroni {
    fn drop(&mut self) {
        for n in &mut self.nodes {
            if let Some(daemon) = &mut n.daemon {
                let _ = daemon.kill();
                let _ = daemon.wait();
            }
        }
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

/// One request to a REST API; what it answers if that is JSON.
async fn http(address: &str, method: &str, path: &str, body: &str) -> Option<Value> {
    let mut stream = TcpStream::connect((address, REST)).await.ok()?;
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let plain = Value::String(format!("{}: {body}", head.lines().next().unwrap_or_default()));
    Some(serde_json::from_str(body).unwrap_or(plain))
}

fn number(member: &Value) -> Option<u8> {
    let name = member.get("name")?.as_str()?;
    name.strip_prefix('n')?.parse::<u8>().ok()?.checked_sub(1)
}

fn is(member: &Value, key: &str, any: &[&str]) -> bool {
    member
        .get(key)
        .and_then(Value::as_str)
        .is_some_and(|v| any.contains(&v))
}

#[async_trait::async_trait(?Send)]
impl Managed for Patroni {
    fn name(&self) -> String {
        "Patroni".to_owned()
    }

    fn hosts(&self) -> Vec<(String, u16)> {
        self.nodes.iter().map(|n| (n.address.clone(), POSTGRES)).collect()
    }

    async fn primary(&self) -> Option<u8> {
        let members = self.members().await?;
        let leader = members
            .iter()
            .find(|m| is(m, "role", &["leader"]) && is(m, "state", &["running"]));
        leader.and_then(number)
    }

    async fn whole(&self) -> bool {
        let Some(members) = self.members().await else {
            return false;
        };
        let streaming = members.iter().filter(|m| is(m, "state", &["streaming"])).count();
        let synchronous = members.iter().any(|m| is(m, "role", &["sync_standby"]));
        let leader = members
            .iter()
            .any(|m| is(m, "role", &["leader"]) && is(m, "state", &["running"]));
        leader && synchronous && streaming == usize::from(super::NODES) - 1
    }

    async fn switchover(&mut self, from: u8, _: u8) -> Result<()> {
        // In synchronous mode only the synchronous standby may take over.
        let members = self.members().await.context("nobody answers")?;
        let to = members
            .iter()
            .find(|m| is(m, "role", &["sync_standby"]))
            .and_then(number);
        let to = to.context("no synchronous standby")?;
        let body = format!("{{\"leader\": \"n{}\", \"candidate\": \"n{}\"}}", from + 1, to + 1);
        let address = self.nodes[usize::from(from)].address.clone();
        let answer = http(&address, "POST", "/switchover", &body).await;
        let answer = answer.context("no answer")?.to_string();
        ensure!(answer.contains("Successfully"), "refused: {answer}");
        Ok(())
    }

    fn daemon(&self, node: u8) -> Option<Pid> {
        let child = self.nodes[usize::from(node)].daemon.as_ref()?;
        i32::try_from(child.id()).ok().map(Pid::from_raw)
    }

    async fn restart(&mut self, node: u8) -> Result<()> {
        self.spawn(node)
    }
}
