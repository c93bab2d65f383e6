//! Real ZooKeeper servers and ensembles as child processes, for tests: on free ports, in directories of their own, with
//! faults by signal.
//!
//! It must never touch a process it did not start, nor leave one behind: a server dies with the thread that started it.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// How long a server, or an ensemble, may take to serve.
const READY: Duration = Duration::from_secs(40);

/// How a server is run.
#[derive(Debug, Clone)]
pub struct ZkOptions {
    /// The address the server binds.
    pub bind: String,
    /// Its tick, in milliseconds.
    pub tick_ms: u32,
    /// The shortest session timeout it grants, in milliseconds.
    pub min_session_ms: u32,
    /// The longest session timeout it grants, in milliseconds.
    pub max_session_ms: u32,
    /// Limit of the Java heap, in MiB.
    pub heap_mb: u32,
    /// A command to run the server under, for instance `ip netns exec NAME`.
    pub under: Vec<String>,
}

impl Default for ZkOptions {
    fn default() -> Self {
        ZkOptions {
            bind: "127.0.0.1".into(),
            tick_ms: 500,
            min_session_ms: 1000,
            max_session_ms: 60_000,
            heap_mb: 128,
            under: Vec::new(),
        }
    }
}

/// One server.
#[derive(Debug)]
pub struct ZkServer {
    options: ZkOptions,
    port: u16,
    dir: tempfile::TempDir,
    child: Option<Child>,
}

impl ZkServer {
    /// Starts a standalone server and waits until it serves.
    ///
    /// # Errors
    /// If it does not, with its log.
    pub async fn start(options: ZkOptions) -> Result<ZkServer> {
        let mut last = None;
        // A free port may be gone by the time Java binds it.
        for _ in 0..3 {
            let port = match options.under.is_empty() {
                true => free_port(&options.bind)?,
                // A host of its own, where nobody else is.
                false => 2181,
            };
            let mut server = ZkServer::prepare(options.clone(), port, "")?;
            server.spawn()?;
            match server.ready().await {
                Ok(()) => return Ok(server),
                Err(e) => last = Some(e),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("no attempt was made")))
    }

    /// Starts a standalone server with the default options.
    ///
    /// # Errors
    /// If it does not serve, with its log.
    pub async fn start_default() -> Result<ZkServer> {
        ZkServer::start(ZkOptions::default()).await
    }

    fn prepare(options: ZkOptions, port: u16, more: &str) -> Result<ZkServer> {
        let keep = std::env::var_os("HA_TEST_KEEP").is_some();
        let dir = tempfile::Builder::new().prefix("zk-").disable_cleanup(keep).tempdir()?;
        let data = dir.path().join("data");
        fs::create_dir(&data)?;
        let server = ZkServer {
            options,
            port,
            dir,
            child: None,
        };
        server.configure(more)?;
        Ok(server)
    }

    fn configure(&self, more: &str) -> Result<()> {
        let o = &self.options;
        let config = format!(
            "tickTime={}\ndataDir={}\nclientPort={}\nclientPortAddress={}\n4lw.commands.whitelist=*\nadmin.enableServer=false\n\
             maxClientCnxns=0\nminSessionTimeout={}\nmaxSessionTimeout={}\nsnapCount=100000\nautopurge.snapRetainCount=3\n{more}",
            o.tick_ms,
            self.dir.path().join("data").display(),
            self.port,
            o.bind,
            o.min_session_ms,
            o.max_session_ms,
        );
        fs::write(self.dir.path().join("zoo.cfg"), config)?;
        Ok(())
    }

    fn spawn(&mut self) -> Result<()> {
        ensure!(
            Path::new("/usr/share/java/zookeeper.jar").exists(),
            "ZooKeeper is not installed: apt-get install zookeeper"
        );
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut words = self.options.under.clone();
        words.extend(["setpriv", "--pdeathsig", "KILL", "java"].map(String::from));
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .args([
                "-Xms32m",
                &format!("-Xmx{}m", self.options.heap_mb),
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
            ])
            .args([
                "-XX:MaxMetaspaceSize=64m",
                "-Xss256k",
                "-Dzookeeper.admin.enableServer=false",
            ])
            .args(["-Dzookeeper.preAllocSize=1024", "-Dzookeeper.extendedTypesEnabled=true"])
            .args(["-Dzookeeper.closeSessionTxn.enabled=false", "-Dzookeeper.forceSync=no"])
            .args(["-cp", "/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-simple.jar"])
            .args(["org.apache.zookeeper.server.quorum.QuorumPeerMain", "zoo.cfg"])
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.child = Some(command.spawn().context("java does not start")?);
        Ok(())
    }

    /// Waits until the server serves clients.
    ///
    /// # Errors
    /// If it ends or takes too long, with its log.
    pub async fn ready(&mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            if self.mode().await.is_some() {
                return Ok(());
            }
            let ended = match &mut self.child {
                Some(child) => child.try_wait()?.is_some(),
                None => true,
            };
            if ended || begun.elapsed() > READY {
                let log = fs::read_to_string(self.log()).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(20).collect();
                bail!(
                    "the ZooKeeper server at {} does not serve:\n{}",
                    self.address(),
                    tail.join("\n")
                );
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// `standalone`, `leader` or `follower`; `None` while it serves nobody.
    pub async fn mode(&self) -> Option<String> {
        let text = self.four_letters("srvr").await?;
        text.lines().find_map(|l| l.strip_prefix("Mode: ")).map(str::to_owned)
    }

    /// The answer to a four-letter command.
    pub async fn four_letters(&self, word: &str) -> Option<String> {
        let ask = async {
            let mut stream = TcpStream::connect(self.address()).await.ok()?;
            stream.write_all(word.as_bytes()).await.ok()?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await.ok()?;
            Some(text)
        };
        timeout(Duration::from_secs(1), ask).await.ok().flatten()
    }

    /// `host:port` for clients.
    pub fn address(&self) -> String {
        format!("{}:{}", self.options.bind, self.port)
    }

    /// The servers a client is to be given.
    pub fn connect_string(&self) -> String {
        self.address()
    }

    /// The servers a client is to be given, one by one.
    pub fn hosts(&self) -> Vec<String> {
        vec![self.address()]
    }

    /// The server's process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// The server's log.
    pub fn log(&self) -> std::path::PathBuf {
        self.dir.path().join("server.log")
    }

    /// Stops the process as SIGSTOP does, and returns when all of it has stopped.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
        if let Some(pid) = self.pid().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WUNTRACED));
        }
    }

    /// Continues a stopped process.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Kills the process and waits for its end.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts the killed server again on the same port and data, without waiting for it to serve.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_again(&mut self) -> Result<()> {
        self.kill();
        self.spawn()
    }

    /// Kills the server, starts it again and waits until it serves.
    ///
    /// # Errors
    /// If it does not serve, with its log.
    pub async fn restart(&mut self) -> Result<()> {
        self.start_again()?;
        self.ready().await
    }

    /// Changes the session timeouts it grants; they count from the next start.
    ///
    /// # Errors
    /// If the configuration cannot be written.
    pub fn set_session_limits(&mut self, min_ms: u32, max_ms: u32) -> Result<()> {
        self.options.min_session_ms = min_ms;
        self.options.max_session_ms = max_ms;
        self.configure("")
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

impl Drop for ZkServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Several servers that agree.
#[derive(Debug)]
pub struct ZkEnsemble {
    /// The servers, in the order of their ids, which begin with 1.
    pub servers: Vec<ZkServer>,
}

impl ZkEnsemble {
    /// Starts `n` servers and waits until all of them serve.
    ///
    /// # Errors
    /// If they do not, with a log.
    pub async fn start(n: usize) -> Result<ZkEnsemble> {
        ZkEnsemble::start_with(n, &ZkOptions::default()).await
    }

    /// Starts `n` servers with these options.
    ///
    /// # Errors
    /// If they do not serve, with a log.
    pub async fn start_with(n: usize, options: &ZkOptions) -> Result<ZkEnsemble> {
        ZkEnsemble::start_each(&vec![options.clone(); n]).await
    }

    /// Starts one server with each of these options and waits until all of them serve.
    ///
    /// # Errors
    /// If they do not serve, with a log.
    pub async fn start_each(options: &[ZkOptions]) -> Result<ZkEnsemble> {
        let mut last = None;
        for _ in 0..3 {
            match ZkEnsemble::attempt(options).await {
                Ok(ensemble) => return Ok(ensemble),
                Err(e) => last = Some(e),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("no attempt was made")))
    }

    async fn attempt(options: &[ZkOptions]) -> Result<ZkEnsemble> {
        let mut ports = Vec::new();
        for o in options {
            ports.push(match o.under.is_empty() {
                true => [free_port(&o.bind)?, free_port(&o.bind)?, free_port(&o.bind)?],
                // A host of its own, where nobody else is.
                false => [2181, 2888, 3888],
            });
        }
        let mut more = String::from("initLimit=20\nsyncLimit=4\nstandaloneEnabled=false\n");
        for (i, (o, p)) in options.iter().zip(&ports).enumerate() {
            let bind = &o.bind;
            more += &format!("server.{}={bind}:{}:{};{bind}:{}\n", i + 1, p[1], p[2], p[0]);
        }
        let mut servers = Vec::new();
        for (i, (o, p)) in options.iter().zip(&ports).enumerate() {
            let mut server = ZkServer::prepare(o.clone(), p[0], "")?;
            // The client port is in the server lines.
            let config = fs::read_to_string(server.dir.path().join("zoo.cfg"))?;
            let config: Vec<&str> = config.lines().filter(|l| !l.starts_with("clientPort")).collect();
            fs::write(
                server.dir.path().join("zoo.cfg"),
                format!("{}\n{more}", config.join("\n")),
            )?;
            fs::write(server.dir.path().join("data/myid"), format!("{}\n", i + 1))?;
            server.spawn()?;
            servers.push(server);
        }
        for server in &mut servers {
            server.ready().await?;
        }
        Ok(ZkEnsemble { servers })
    }

    /// The servers a client is to be given.
    pub fn connect_string(&self) -> String {
        self.hosts().join(",")
    }

    /// The servers a client is to be given, one by one.
    pub fn hosts(&self) -> Vec<String> {
        self.servers.iter().map(ZkServer::address).collect()
    }

    /// The index of the leader.
    pub async fn leader(&self) -> Option<usize> {
        for (i, server) in self.servers.iter().enumerate() {
            if server.pid().is_some() && server.mode().await.as_deref() == Some("leader") {
                return Some(i);
            }
        }
        None
    }
}

/// A port that is free on `bind` and outside the range from which the system takes ports for outgoing connections.
///
/// # Errors
/// If none is found.
pub fn free_port(bind: &str) -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id().wrapping_mul(137) % 12_000).unwrap_or(0);
    for _ in 0..2000 {
        let offset = (start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed))) % 12_000;
        let port = 20_000 + offset;
        if std::net::TcpListener::bind((bind, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port on {bind}")
}
