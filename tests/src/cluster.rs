//! A cluster of real `had` daemons on real ZooKeeper servers, for tests: built as an operator builds one, on addresses of
//! its own, with faults by signal, subscribers that must miss nothing, and the proof that no two masters overlapped.
//!
//! Every test ends with [`Cluster::finish`], which shows what every fault must leave: all nodes online without a hand, no
//! change lost, no two masters.

mod daemon;
mod leases;
mod look;
mod programs;
mod subscriber;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use ha_proto::v1::{AccessRole, AddNodeRequest, Bootstrap, Bundle, NodeSpec, NodeState, RecordUserRequest};
use hactl::bundle;
use hactl::ca::{ClusterAuthority, Issued};
use hactl::client::Client;
use hactl::output::notes::Notes;

pub use daemon::{Daemon, boottime_ns};
pub use leases::{Interval, assert_disjoint};
pub use look::{is, master_of, state_of, term_of};
pub use programs::{Programs, programs};
pub use subscriber::Subscriber;

use crate::zookeeper::{ZkEnsemble, ZkOptions, ZkServer, free_port};

/// The session timeout of these clusters.
pub const SESSION: Duration = Duration::from_secs(4);
/// How long what has to come may take on a loaded machine.
pub const LIMIT: Duration = Duration::from_secs(60);

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// Number of nodes: n1, n2, …
    pub nodes: usize,
    /// Number of ZooKeeper servers.
    pub servers: usize,
    /// How they are run.
    pub zookeeper: ZkOptions,
    /// Appended to each had.toml; tables only. `{host}` stands for the node's address.
    pub config: String,
    /// Where each node listens and under what command it runs; by default a loopback address of its own.
    pub places: Vec<Place>,
    /// Follow the change log through every node from the beginning.
    pub subscribers: bool,
}

/// Where a node runs.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its address.
    pub host: String,
    /// Its gRPC and HTTP ports; chosen if 0.
    pub ports: (u16, u16),
    /// A command to run it under.
    pub under: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            nodes: 3,
            servers: 1,
            zookeeper: ZkOptions::default(),
            config: String::new(),
            places: Vec::new(),
            subscribers: true,
        }
    }
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    /// Its nodes, in the order in which they were added.
    pub daemons: Vec<Daemon>,
    /// The ZooKeeper servers.
    pub zookeeper: ZkEnsemble,
    /// Who signs for it.
    pub authority: ClusterAuthority,
    /// Everybody who follows the change log.
    pub subscribers: Vec<Subscriber>,
    gone: Vec<Daemon>,
    placed: usize,
    options: Options,
    programs: Programs,
    users: BTreeMap<String, Bundle>,
    dir: tempfile::TempDir,
}

impl Cluster {
    /// Starts a cluster and waits until it is healthy.
    ///
    /// # Errors
    /// If it does not become so, with the logs' ends.
    pub async fn start(options: Options) -> Result<Cluster> {
        let mut cluster = Cluster::prepared(options).await?;
        cluster.join().await?;
        Ok(cluster)
    }

    /// Starts a cluster on ZooKeeper servers that somebody else keeps, and waits until it is healthy.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub async fn start_on(options: Options, hosts: Vec<String>) -> Result<Cluster> {
        let none = ZkEnsemble { servers: Vec::new() };
        let mut cluster = Cluster::prepare(options, programs()?, none, &hosts)?;
        cluster.join().await?;
        Ok(cluster)
    }

    async fn join(&mut self) -> Result<()> {
        let cluster = self;
        cluster.begin().await?;
        for i in 2..=cluster.options.nodes {
            let name = format!("n{i}");
            cluster.add(&name).await?;
        }
        cluster.healthy().await?;
        if cluster.options.subscribers {
            let mut endpoints: Vec<Vec<String>> = vec![cluster.endpoints()];
            endpoints.extend(cluster.endpoints().into_iter().map(|e| vec![e]));
            for endpoints in endpoints {
                cluster.subscribe(endpoints)?;
            }
        }
        Ok(())
    }

    /// Starts the ZooKeeper servers of a cluster, and no node.
    ///
    /// # Errors
    /// If they do not serve, or the programs cannot be built.
    pub async fn prepared(options: Options) -> Result<Cluster> {
        let programs = programs()?;
        let zookeeper = match options.servers {
            1 => ZkEnsemble {
                servers: vec![ZkServer::start(options.zookeeper.clone()).await?],
            },
            n => ZkEnsemble::start_with(n, &options.zookeeper).await?,
        };
        let hosts = zookeeper.hosts();
        Cluster::prepare(options, programs, zookeeper, &hosts)
    }

    fn prepare(options: Options, programs: Programs, zookeeper: ZkEnsemble, hosts: &[String]) -> Result<Cluster> {
        // HA_TEST_KEEP=1 keeps the daemons' logs for whoever looks for a defect.
        let keep = std::env::var_os("HA_TEST_KEEP").is_some();
        let dir = tempfile::Builder::new().prefix("ha-").disable_cleanup(keep).tempdir()?;
        let authority = ClusterAuthority::create("test", hosts, SESSION)?;
        Ok(Cluster {
            daemons: Vec::new(),
            zookeeper,
            authority,
            subscribers: Vec::new(),
            gone: Vec::new(),
            placed: 0,
            options,
            programs,
            users: BTreeMap::new(),
            dir,
        })
    }

    /// The first node makes the cluster, for the user `admin`.
    async fn begin(&mut self) -> Result<()> {
        let user = self.authority.issue_user("admin", AccessRole::Admin)?;
        self.users
            .insert("admin".into(), self.authority.user_bundle(&user, Vec::new()));
        let issued = self.authority.issue_node("n1")?;
        let bootstrap = ClusterAuthority::bootstrap(&issued, &user);
        self.place("n1", &issued, Some(bootstrap))?;
        self.node("n1").start()?;
        self.wait_until("n1 leads", |s| {
            is(s, "n1", NodeState::Online) && !master_of(s).is_empty()
        })
        .await?;
        Ok(())
    }

    /// Adds a node to the running cluster and starts it; does not wait until it is online.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn add(&mut self, name: &str) -> Result<()> {
        let issued = self.authority.issue_node(name)?;
        let daemon = self.place(name, &issued, None)?;
        let request = AddNodeRequest {
            name: name.to_owned(),
            spec: Some(NodeSpec {
                address: daemon.address.clone(),
                master_eligible: true,
                ..NodeSpec::default()
            }),
            options: None,
            certificate_serial: issued.serial.clone(),
            certificate_expires_unix_ms: issued.expires_unix_ms,
        };
        self.admin()?.add_node(request).await?;
        self.node(name).start()
    }

    /// Writes a node's bundle and configuration, and keeps its daemon, without recording the node or starting it.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn place(&mut self, name: &str, issued: &Issued, bootstrap: Option<Bootstrap>) -> Result<&mut Daemon> {
        let place = match self.options.places.get(self.daemons.len()) {
            Some(place) => place.clone(),
            None => Place {
                host: own_address(),
                ports: (0, 0),
                under: Vec::new(),
            },
        };
        let port = |p: u16| if p == 0 { free_port(&place.host) } else { Ok(p) };
        let (grpc, http) = (port(place.ports.0)?, port(place.ports.1)?);
        let address = format!("{}:{grpc}", place.host);
        let bundle = self.authority.node_bundle(issued, &address, bootstrap);
        self.placed += 1;
        let dir = self.dir.path().join(format!("{}-{name}", self.placed));
        std::fs::create_dir(&dir)?;
        let http = format!("{}:{http}", place.host);
        let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
        let config = self.options.config.replace("{host}", host);
        let mut daemon = Daemon::new(&self.programs.had, &dir, name, &address, &http, &config)?;
        daemon.under = place.under;
        bundle::write_new(&daemon.bundle(), &bundle)?;
        self.daemons.push(daemon);
        self.daemons.last_mut().context("it was pushed")
    }

    /// The daemon of this node. Panics if there is none: the test is wrong.
    pub fn node(&mut self, name: &str) -> &mut Daemon {
        let found = self.daemons.iter_mut().rev().find(|d| d.name == name);
        found.unwrap_or_else(|| panic!("the test has no node {name}"))
    }

    /// The test ends without this node: its daemon is killed if it still runs, and not asked for any more.
    pub fn forget(&mut self, name: &str) {
        let Some(i) = self.daemons.iter().rposition(|d| d.name == name) else {
            return;
        };
        let mut gone = self.daemons.remove(i);
        gone.kill9();
        self.subscribers.retain(|s| s.name() != gone.address);
        self.gone.push(gone);
    }

    /// Where the harness keeps its files.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// The programs that are tested.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// The gRPC endpoints of all nodes.
    pub fn endpoints(&self) -> Vec<String> {
        self.daemons.iter().map(|d| d.address.clone()).collect()
    }

    /// The names of all nodes.
    pub fn names(&self) -> Vec<String> {
        self.daemons.iter().map(|d| d.name.clone()).collect()
    }

    /// A client of the operator who made the cluster, which tries all nodes.
    ///
    /// # Errors
    /// If the bundle cannot be used.
    pub fn admin(&self) -> Result<Client> {
        self.client_at(&self.bundle("admin")?, self.endpoints(), LIMIT)
    }

    /// A client of a user with this role, who is made known to the cluster first.
    ///
    /// # Errors
    /// If that is refused.
    pub async fn client(&mut self, role: AccessRole) -> Result<Client> {
        let name = role.word().to_owned();
        if !self.users.contains_key(&name) {
            let bundle = self.add_user(&name, role).await?;
            self.users.insert(name.clone(), bundle);
        }
        self.client_at(&self.bundle(&name)?, self.endpoints(), LIMIT)
    }

    /// Adds a user and returns the bundle.
    ///
    /// # Errors
    /// If that is refused.
    pub async fn add_user(&mut self, name: &str, role: AccessRole) -> Result<Bundle> {
        let issued = self.authority.issue_user(name, role)?;
        let request = RecordUserRequest {
            name: name.to_owned(),
            role: role.into(),
            serial: issued.serial.clone(),
            expires_unix_ms: issued.expires_unix_ms,
            ..RecordUserRequest::default()
        };
        self.admin()?.record_user(request).await?;
        Ok(self.authority.user_bundle(&issued, self.endpoints()))
    }

    /// The bundle of a user of this cluster.
    ///
    /// # Errors
    /// If there is no such user.
    pub fn bundle(&self, user: &str) -> Result<Bundle> {
        let mut bundle = self.users.get(user).with_context(|| format!("no user {user}"))?.clone();
        bundle.endpoints = self.endpoints();
        Ok(bundle)
    }

    /// A client with this bundle and these endpoints, which tries for `limit`.
    ///
    /// # Errors
    /// If the bundle cannot be used.
    pub fn client_at(&self, bundle: &Bundle, endpoints: Vec<String>, limit: Duration) -> Result<Client> {
        Ok(Client::from_bundle(bundle, endpoints, limit, Notes::silent())?)
    }

    /// Begins to follow the change log through these endpoints.
    ///
    /// # Errors
    /// If the bundle cannot be used.
    pub fn subscribe(&mut self, endpoints: Vec<String>) -> Result<()> {
        let name = endpoints.join(",");
        let client = self.client_at(&self.bundle("admin")?, endpoints, Duration::from_secs(2))?;
        self.subscribers.push(Subscriber::start(name, client));
        Ok(())
    }
}

/// A loopback address that no other test process uses.
pub fn own_address() -> String {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    let pid = std::process::id();
    let last = NEXT.fetch_add(1, Ordering::Relaxed) % 250 + 2;
    format!("127.{}.{}.{last}", 64 + (pid >> 8) % 128, pid % 256)
}
