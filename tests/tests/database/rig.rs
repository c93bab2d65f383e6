//! A cluster with one group on it, and the faults. Whatever becomes of a test, nothing of it is left
//! running.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use controlplane::postgres::provision::verifier;
use ha_proto::v1;
use ha_tests::cluster::{Cluster, Options, Place};
use ha_tests::netns::Network;
use ha_tests::zookeeper::{ZkOptions, free_port};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};
use tokio_postgres::{Config, NoTls};

use crate::writer::Writer;

const PASSWORD: &str = "of a test";
pub(crate) const GROUP: &str = "main";
pub(crate) const NO_PROXY: &str = "[proxy]\nenabled = false\n";
/// The node of a network that has ZooKeeper.
pub(crate) const ZOOKEEPER: u8 = 3;
/// A group is made, or whole again, within this time on a machine that is busy with other tests.
const WHOLE: Duration = Duration::from_secs(150);

pub(crate) struct Group {
    pub(crate) cluster: Cluster,
    pub(crate) hosts: Vec<(String, u16)>,
}

impl Drop for Group {
    fn drop(&mut self) {
        for daemon in &mut self.cluster.daemons {
            daemon.kill9();
        }
        let dirs: Vec<String> = self
            .cluster
            .daemons
            .iter()
            .map(|d| d.dir.display().to_string())
            .collect();
        // By what they are, each time anew: a number that was kept might be another's by now.
        for _ in 0..100 {
            let left: Vec<i32> = dirs.iter().flat_map(|d| processes_of(d)).collect();
            if left.is_empty() {
                return;
            }
            for pid in left {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Processes that were told of this directory, or work in it.
pub(crate) fn processes_of(dir: &str) -> Vec<i32> {
    let inside = format!("{dir}/");
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    let of = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let told = String::from_utf8_lossy(&line).contains(&inside);
        told || std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(dir))
    };
    pids.filter(of).collect()
}

impl Group {
    /// A group on three nodes, with the role and database `app`.
    pub(crate) async fn create() -> Result<Group> {
        Group::create_with(Vec::new(), |_| ()).await
    }

    /// The same where the nodes run in these places, and with changes to what is wanted of the group.
    pub(crate) async fn create_with(places: Vec<Place>, change: impl FnOnce(&mut v1::GroupSpec)) -> Result<Group> {
        Group::create_in(NO_PROXY, places, change).await
    }

    /// The same with this in each node's had.toml.
    pub(crate) async fn create_in(
        config: &str,
        places: Vec<Place>,
        change: impl FnOnce(&mut v1::GroupSpec),
    ) -> Result<Group> {
        let options = Options {
            config: config.to_owned(),
            places,
            ..Options::default()
        };
        Group::create_on(options, |_, spec| {
            change(spec);
            Ok(())
        })
        .await
    }

    /// The same on nodes that something is done to before the group is made.
    pub(crate) async fn create_on_found(
        places: Vec<Place>,
        change: impl FnOnce(&Cluster, &mut v1::GroupSpec) -> Result<()>,
    ) -> Result<Group> {
        let options = Options {
            config: NO_PROXY.to_owned(),
            places,
            ..Options::default()
        };
        Group::create_on(options, change).await
    }

    /// A group on the first three nodes of a network; ZooKeeper has the fourth.
    pub(crate) async fn create_on_network(network: &Network) -> Result<Group> {
        let place = |node| Place {
            host: network.address(node),
            // Nobody else is there.
            ports: (7400, 7401),
            under: network.under(node),
        };
        let options = Options {
            config: NO_PROXY.to_owned(),
            places: (0..3).map(place).collect(),
            zookeeper: ZkOptions {
                bind: network.address(ZOOKEEPER),
                under: network.under(ZOOKEEPER),
                ..ZkOptions::default()
            },
            ..Options::default()
        };
        Group::create_on(options, |_, _| Ok(())).await
    }

    /// The same on such a cluster. The group's own port is that of the last node.
    pub(crate) async fn create_on(
        options: Options,
        change: impl FnOnce(&Cluster, &mut v1::GroupSpec) -> Result<()>,
    ) -> Result<Group> {
        let alone = options.places.iter().any(|p| p.ports.0 != 0);
        let cluster = Cluster::start(Options {
            subscribers: false,
            ..options
        })
        .await?;
        let mut group = Group {
            cluster,
            hosts: Vec::new(),
        };
        let open = |dir: &std::path::Path| std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755));
        open(group.cluster.dir())?;
        let mut members = Vec::new();
        for daemon in &group.cluster.daemons {
            open(&daemon.dir)?;
            let host = daemon.address.rsplit_once(':').context("no port")?.0.to_owned();
            let port = if alone { 5432 } else { free_port(&host)? };
            members.push(v1::InstanceSpec {
                node: daemon.name.clone(),
                role: v1::InstanceRole::Sync.into(),
                port: port.into(),
                ..v1::InstanceSpec::default()
            });
            group.hosts.push((host, port));
        }
        let role = v1::DatabaseRoleSpec {
            name: "app".into(),
            verifier: verifier(PASSWORD),
            has_password: true,
            ..v1::DatabaseRoleSpec::default()
        };
        let database = v1::DatabaseSpec {
            name: "app".into(),
            owner: "app".into(),
            ..v1::DatabaseSpec::default()
        };
        let mut spec = v1::GroupSpec {
            port: group.hosts.last().map_or(0, |(_, port)| u32::from(*port)),
            durability: v1::Durability::Quorum.into(),
            members,
            roles: vec![role],
            databases: vec![database],
            hba: vec![
                "host all all 127.0.0.0/8 scram-sha-256".into(),
                "host all all 10.88.0.0/24 scram-sha-256".into(),
            ],
            parameters: [("shared_buffers".to_owned(), "16MB".to_owned())].into(),
            ..v1::GroupSpec::default()
        };
        change(&group.cluster, &mut spec)?;
        let request = v1::CreateGroupRequest {
            name: GROUP.into(),
            spec: Some(spec),
            ..v1::CreateGroupRequest::default()
        };
        group.cluster.admin()?.create_group(request).await?;
        Ok(group)
    }

    pub(crate) async fn group(&self) -> Result<v1::Group> {
        let request = v1::GetGroupRequest { name: GROUP.into() };
        Ok(self.cluster.admin()?.get_group(request).await?)
    }

    pub(crate) async fn until(&self, what: &str, wanted: impl Fn(&v1::Group) -> bool) -> Result<v1::Group> {
        let limit = Instant::now() + WHOLE;
        loop {
            let seen = self.group().await;
            if let Ok(group) = &seen
                && wanted(group)
            {
                return Ok(group.clone());
            }
            if Instant::now() > limit {
                bail!("{what}: not after {WHOLE:?}\n{seen:?}\n{}", self.cluster.tails());
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the group is healthy: it has a primary that takes writes, and two voters that stream from it. Returns the primary.
    pub(crate) async fn whole(&self) -> Result<String> {
        let group = self
            .until("the group is whole", |g| {
                let record = g.record.clone().unwrap_or_default();
                let streams = g.instances.iter().filter(|i| i.state() == v1::InstanceState::Streaming);
                let running = g.instances.iter().filter(|i| i.state() == v1::InstanceState::Running);
                let voters = record.rules.last().map_or(0, |r| r.voters.len());
                record.phase() == v1::GroupPhase::Steady
                    && record.rules.len() == 1
                    && g.health() == v1::GroupHealth::Healthy
                    && (voters, streams.count(), running.count()) == (2, 2, 1)
            })
            .await?;
        Ok(group.record.unwrap_or_default().primary)
    }

    /// Waits for a primary that takes writes and is another one.
    pub(crate) async fn primary_other_than(&self, old: &str) -> Result<String> {
        let group = self
            .until(&format!("another than {old} is primary"), |g| {
                let record = g.record.clone().unwrap_or_default();
                let other = !record.primary.is_empty() && record.primary != old;
                other && record.phase() == v1::GroupPhase::Steady
            })
            .await?;
        Ok(group.record.unwrap_or_default().primary)
    }

    /// Kills a primary's node, sees another take over and write, and starts the node again: it must not be primary again.
    /// Returns the new primary, with the group whole.
    pub(crate) async fn outlives(&mut self, first: &str, writer: &Writer) -> Result<String> {
        self.kill_node(first)?;
        let second = self.primary_other_than(first).await?;
        writer.wrote_more(20).await?;
        self.cluster.node(first).start()?;
        let whole = self.whole().await?;
        ensure!(whole == second, "{second} became primary, and {whole} is");
        Ok(second)
    }

    pub(crate) async fn switchover(&self, to: &str) -> Result<()> {
        let request = v1::SwitchoverRequest {
            group: GROUP.into(),
            to: to.into(),
            ..v1::SwitchoverRequest::default()
        };
        self.cluster.admin()?.switchover(request).await?;
        Ok(())
    }

    pub(crate) fn dir(&self, node: &str) -> Result<std::path::PathBuf> {
        let daemon = self.cluster.daemons.iter().find(|d| d.name == node);
        Ok(daemon.context("there is no such node")?.dir.clone())
    }

    pub(crate) fn postmaster(&self, node: &str) -> Result<i32> {
        let file = self
            .dir(node)?
            .join("state/postgres")
            .join(GROUP)
            .join("data/postmaster.pid");
        let text = std::fs::read_to_string(file)?;
        Ok(text.lines().next().unwrap_or_default().trim().parse()?)
    }

    pub(crate) fn kill_postmaster(&self, node: &str) -> Result<()> {
        kill(Pid::from_raw(self.postmaster(node)?), Signal::SIGKILL)?;
        Ok(())
    }

    /// Every process of a node at once: daemon, guard, postmaster and what it started.
    pub(crate) fn kill_node(&mut self, node: &str) -> Result<()> {
        let dir = self.dir(node)?.display().to_string();
        self.cluster.node(node).kill9();
        // A postmaster may start another process between a look and its own end.
        for _ in 0..500 {
            let left = processes_of(&dir);
            if left.is_empty() {
                return Ok(());
            }
            for pid in left {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("something of {node} does not end")
    }

    /// For one connection as the role `app` at this address.
    pub(crate) fn client(host: &str, port: u16) -> Config {
        let mut config = Config::new();
        config
            .host(host)
            .port(port)
            .user("app")
            .password(PASSWORD)
            .dbname("app");
        config.connect_timeout(Duration::from_secs(1));
        config
    }

    fn config(&self) -> Config {
        let mut config = Config::new();
        for (host, port) in &self.hosts {
            config.host(host).port(*port);
        }
        config
            .user("app")
            .password(PASSWORD)
            .dbname("app")
            .connect_timeout(Duration::from_secs(1))
            .target_session_attrs(tokio_postgres::config::TargetSessionAttrs::ReadWrite);
        config
    }

    /// Clients that write numbers, one at each instance.
    pub(crate) fn writer(&self, _first: &str) -> Writer {
        let each = self.hosts.iter().map(|(host, port)| Group::client(host, *port));
        Writer::start(each.collect())
    }

    /// The numbers that are there.
    pub(crate) async fn rows(&self) -> Result<BTreeSet<i64>> {
        let (client, connection) = self.config().connect(NoTls).await?;
        let connection = tokio::spawn(connection);
        let rows = client.query("SELECT n FROM numbers", &[]).await?;
        connection.abort();
        Ok(rows.iter().map(|r| r.get(0)).collect())
    }
}
