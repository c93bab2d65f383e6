//! Instances of one group on this machine, in a directory of their own, started as the guard would start them. Whatever
//! becomes of a test, nothing of them is left running.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use ha_core::database::{Lsn, Names};
use tokio::process::{Child, Command};

use crate::platform::{Account, children, isolate, let_through};
use crate::postgres::conf::{Settings, Source};
use crate::postgres::connection::Connection;
use crate::postgres::control::{self, slot_name};
use crate::postgres::install::{self, Install};
use crate::postgres::instance::Instance;
use crate::postgres::place::{self, Place, Roots};
use crate::postgres::probe::{Probe, Prober};
use crate::postgres::provision;
use crate::postgres::tls;
use crate::security::testing::{Leaf, TestCa};
use crate::security::{NodePem, Secret};

pub(super) const SOON: Duration = Duration::from_secs(30);
/// How long something is watched that must not happen.
pub(super) const A_WHILE: Duration = Duration::from_millis(400);

/// A group.
pub(super) struct Rig {
    dir: tempfile::TempDir,
    pub(super) ca: TestCa,
    pub(super) account: Account,
    pub(super) install: Install,
}

/// One of its instances.
pub(super) struct Node {
    pub(super) name: String,
    pub(super) instance: Instance,
    pub(super) settings: Settings,
    pub(super) prober: Prober,
    server: Option<Child>,
}

impl Rig {
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let_through(dir.path()).unwrap();
        let account = place::account(None).unwrap();
        let found = install::discover(None, &account).await.unwrap();
        Self {
            dir,
            ca: TestCa::new("prod"),
            install: install::choose(&found, 0).unwrap().clone(),
            account,
        }
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn place(&self, name: &str, data: Option<&Path>) -> Place {
        let home = self.dir.path().join(name);
        std::fs::create_dir_all(&home).unwrap();
        let_through(&home).unwrap();
        let roots = Roots {
            data: home.join("pg"),
            sockets: None,
            state: home.join("state"),
        };
        Place::new(&roots, "main", data, free_port()).unwrap()
    }

    /// An instance whose data directory is `data`, or none yet.
    pub(super) async fn node_at(&self, name: &str, data: Option<&Path>) -> Node {
        let place = self.place(name, data);
        let instance = Instance::open(place.clone(), self.install.clone(), self.account.clone())
            .await
            .unwrap();
        tls::install(&place, &self.account, self.pem(&Leaf::node(name)))
            .await
            .unwrap();
        let mut settings = Settings::closed(self.install.release, "prod", name);
        settings.nodes = ["n1", "n2", "n3"].map(str::to_owned).into();
        settings.parameters = [
            ("shared_buffers", "16MB"),
            ("min_wal_size", "32MB"),
            ("max_connections", "40"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
        Node {
            name: name.to_owned(),
            instance,
            settings,
            prober: Prober::new(place),
            server: None,
        }
    }

    pub(super) async fn node(&self, name: &str) -> Node {
        self.node_at(name, None).await
    }

    pub(super) fn pem(&self, leaf: &Leaf) -> NodePem {
        let cert = self.ca.issue(leaf);
        NodePem {
            certificate: cert.pem,
            key: Secret::new(cert.key),
            authority: self.ca.pem.clone(),
        }
    }

    /// A primary of epoch 1 that waits for nobody, with had's roles.
    pub(super) async fn primary(&self, name: &str) -> Node {
        let mut node = self.node(name).await;
        node.instance.create(&node.settings).await.unwrap();
        node.start(false).await;
        let connection = node.prober.connection(SOON).await.unwrap();
        provision::own_roles(connection).await.unwrap();
        node
    }

    /// A standby of this primary in this epoch, streaming.
    pub(super) async fn standby(&self, name: &str, of: &mut Node, epoch: u64) -> Node {
        let mut node = self.node(name).await;
        node.follow(of, epoch).await;
        let id = of.probe().await.system_id;
        let source = of.source();
        node.instance
            .copy(&source, &node.settings, id, &|_, _| ())
            .await
            .unwrap();
        node.start(true).await;
        of.streams_to(name, epoch).await;
        node.instance.drop_kept().await.unwrap();
        node
    }
}

impl Node {
    pub(super) fn source(&self) -> Source {
        Source {
            node: self.name.clone(),
            host: "127.0.0.1".into(),
            port: self.instance.place.port,
        }
    }

    /// Sets whom it is to stream from and makes the slot for it there.
    pub(super) async fn follow(&mut self, of: &mut Node, epoch: u64) {
        let slot = slot_name(&self.name).unwrap();
        let present = of.probe().await.slots;
        let connection = of.prober.connection(SOON).await.unwrap();
        control::keep_slots(connection, &[slot.clone()].into(), &present)
            .await
            .unwrap();
        self.settings.upstream = Some((of.source(), epoch));
        self.settings.slot = Some(slot);
    }

    /// Starts as the guard does and waits until it answers.
    pub(super) async fn start(&mut self, standby: bool) {
        self.launch(standby).await;
        self.answers().await;
    }

    pub(super) async fn launch(&mut self, standby: bool) {
        let listen = ["127.0.0.1".to_owned()];
        let plan = self
            .instance
            .plan_start(&self.settings, standby, &listen)
            .await
            .unwrap();
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&plan.log)
            .unwrap();
        let mut command = Command::new(&plan.program);
        command
            .args(&plan.args)
            .env_clear()
            .envs(&plan.env)
            .current_dir(&plan.cwd)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        plan.account.apply(&mut command);
        isolate(&mut command);
        self.server = Some(command.spawn().unwrap());
        self.prober.close();
    }

    pub(super) async fn answers(&mut self) {
        let began = Instant::now();
        while let Err(e) = self.prober.probe(SOON).await {
            let ended = self.server.as_mut().unwrap().try_wait().unwrap();
            if ended.is_some() || began.elapsed() > SOON {
                panic!("{} does not answer ({ended:?}): {e}\n{}", self.name, self.log());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(super) fn log(&self) -> String {
        let dir = self.instance.place.log_dir();
        let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
        files
            .map(|f| String::from_utf8_lossy(&std::fs::read(f.path()).unwrap_or_default()).into_owned())
            .collect()
    }

    fn postmaster(&self) -> u32 {
        self.server.as_ref().unwrap().id().unwrap()
    }

    pub(super) fn signal(&self, pid: u32, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
        let _ = nix::sys::signal::kill(pid, signal);
    }

    /// A fast stop.
    pub(super) async fn stop(&mut self) {
        self.signal(self.postmaster(), nix::sys::signal::Signal::SIGINT);
        self.ended().await;
    }

    /// All of its processes die at once.
    pub(super) async fn kill(&mut self) {
        self.kill_now();
        self.ended().await;
    }

    fn kill_now(&self) {
        if let Some(pid) = self.server.as_ref().and_then(Child::id) {
            for child in children(pid).into_iter().map(|(p, _)| p).chain([pid]) {
                self.signal(child, nix::sys::signal::Signal::SIGKILL);
            }
        }
    }

    async fn ended(&mut self) {
        let wait = self.server.as_mut().unwrap().wait();
        tokio::time::timeout(SOON, wait).await.unwrap().unwrap();
        self.server = None;
        self.prober.close();
    }

    pub(super) async fn probe(&mut self) -> Probe {
        self.prober.probe(SOON).await.unwrap()
    }

    /// Waits until something is so.
    pub(super) async fn until(&mut self, what: &str, wanted: impl Fn(&Probe) -> bool) -> Probe {
        let began = Instant::now();
        loop {
            let probe = self.probe().await;
            if wanted(&probe) {
                return probe;
            }
            assert!(
                began.elapsed() < SOON,
                "{}: not {what}: {probe:#?}\n{}",
                self.name,
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(super) async fn streams_to(&mut self, node: &str, epoch: u64) {
        let name = format!("{node}_e{epoch}");
        let streaming = |p: &Probe| p.senders.iter().any(|s| s.name == name && s.state == "streaming");
        self.until(&format!("streaming to {name}"), streaming).await;
    }

    /// Writes the configuration that the settings ask for and sees the names in force.
    pub(super) async fn set_names(&mut self, names: Names) -> crate::postgres::Result<control::InForce> {
        self.settings.names = names.clone();
        self.instance.configure(&self.settings).await?;
        let place = self.instance.place.clone();
        let connection = self.prober.connection(SOON).await?;
        let limit = Duration::from_secs(3);
        control::reload_until(&place, connection, "the names", limit, |f| f.names == names).await
    }

    /// A client's statement that waits for standbys as clients' do.
    pub(super) async fn client(&self, sql: &str, limit: Duration) -> crate::postgres::Result<()> {
        let mut connection = Connection::open(&self.instance.place, SOON).await?;
        let as_client = "SET synchronous_commit = on; SET search_path = public";
        connection.run("client", as_client, SOON).await?;
        connection.run("client", sql, limit).await
    }

    /// A statement that waits for nobody.
    pub(super) async fn local(&self, sql: &str) {
        let mut connection = Connection::open(&self.instance.place, SOON).await.unwrap();
        connection.run("local", "SET search_path = public", SOON).await.unwrap();
        connection.run("local", sql, SOON).await.unwrap();
    }

    pub(super) async fn ask(&self, sql: &str) -> String {
        let mut connection = Connection::open(&self.instance.place, SOON).await.unwrap();
        connection.run("ask", "SET search_path = public", SOON).await.unwrap();
        connection.text("test", sql, &[], SOON).await.unwrap()
    }

    /// Waits until a standby has replayed this.
    pub(super) async fn replayed(&mut self, lsn: Lsn) {
        self.until("there", |p| p.replayed >= Some(lsn)).await;
    }

    pub(super) fn data(&self) -> PathBuf {
        self.instance.place.data.clone()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill_now();
        // Its directory is removed right after: nothing may write to it any more.
        if let Some(child) = &mut self.server {
            for _ in 0..500 {
                if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

pub(super) fn any(voters: &[&str], epoch: u64) -> Names {
    Names::Any {
        need: 1,
        epoch,
        voters: voters.iter().map(|v| (*v).to_owned()).collect(),
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
