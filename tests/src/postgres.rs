//! Real PostgreSQL servers as child processes, unmanaged: a primary and its standbys on loopback, with free ports and
//! directories of their own, for tests of what stands in front of servers.
//!
//! It must never touch a server it did not start, nor leave one behind.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};

use crate::zookeeper::free_port;

/// How long a server may take to start, to stop, or to be promoted.
const LIMIT: Duration = Duration::from_secs(60);
const HOST: &str = "127.0.0.1";

/// The newest PostgreSQL's programs on this machine.
///
/// # Errors
/// If there is none.
pub fn programs() -> Result<PathBuf> {
    let installed =
        fs::read_dir("/usr/lib/postgresql").context("PostgreSQL is not installed: apt install postgresql")?;
    let newest = installed.filter_map(|entry| {
        let bin = entry.ok()?.path().join("bin");
        let major: u32 = bin.parent()?.file_name()?.to_str()?.parse().ok()?;
        bin.join("initdb").exists().then_some((major, bin))
    });
    Ok(newest
        .max()
        .context("PostgreSQL is not installed: apt install postgresql")?
        .1)
}

/// One server. Anybody on this machine may connect as `postgres`.
#[derive(Debug)]
pub struct Postgres {
    /// Where it listens.
    pub port: u16,
    bin: PathBuf,
    dir: tempfile::TempDir,
    child: Option<Child>,
}

impl Postgres {
    /// Makes and starts a primary, with these lines in its configuration. It has a certificate and takes TLS.
    ///
    /// # Errors
    /// If it cannot be made or does not start.
    pub fn start(config: &str) -> Result<Self> {
        let mut server = Self::prepare()?;
        let data = server.data();
        server.run(
            "initdb",
            &["-D", &data, "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8"],
        )?;
        let certificate = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
        server.write("server.crt", &certificate.cert.pem())?;
        server.write("server.key", &certificate.signing_key.serialize_pem())?;
        let own = "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nfsync = off\nssl = on\n";
        server.write("postgresql.auto.conf", &format!("{own}{config}\n"))?;
        server.launch()?;
        Ok(server)
    }

    /// Makes and starts a standby of this primary.
    ///
    /// # Errors
    /// If it cannot be made or does not start.
    pub fn standby(&self) -> Result<Self> {
        let mut server = Self::prepare()?;
        let source = format!("host={HOST} port={} user=postgres", self.port);
        let data = server.data();
        server.run(
            "pg_basebackup",
            &["-D", &data, "-d", &source, "-R", "-X", "stream", "-c", "fast"],
        )?;
        server.launch()?;
        Ok(server)
    }

    fn prepare() -> Result<Self> {
        let bin = programs()?;
        let dir = tempfile::Builder::new().prefix("ha-pg-").tempdir()?;
        if geteuid().is_root() {
            let user = User::from_name("postgres")?.context("there is no user postgres")?;
            std::os::unix::fs::chown(dir.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        }
        Ok(Self {
            port: free_port(HOST)?,
            bin,
            dir,
            child: None,
        })
    }

    fn data(&self) -> String {
        self.dir.path().join("data").display().to_string()
    }

    /// Its address for clients.
    pub fn address(&self) -> String {
        format!("{HOST}:{}", self.port)
    }

    /// One of its programs, as the user that PostgreSQL may run as; it ends with the calling thread.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        if geteuid().is_root() {
            command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
        }
        command
            .arg("--pdeathsig=KILL")
            .arg(self.bin.join(program))
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, program: &str, args: &[&str]) -> Result<()> {
        let output = self.command(program).args(args).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{program}: {said}");
        Ok(())
    }

    /// Writes a file into the data directory as its owner.
    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = Path::new(&self.data()).join(name);
        let mut options = OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::mode(options.create(true).append(true), 0o600);
        options.open(&path)?.write_all(text.as_bytes())?;
        let owner = fs::metadata(self.dir.path())?;
        use std::os::unix::fs::MetadataExt as _;
        std::os::unix::fs::chown(&path, Some(owner.uid()), Some(owner.gid()))?;
        Ok(())
    }

    fn launch(&mut self) -> Result<()> {
        let log = fs::File::create(self.dir.path().join("log"))?;
        let child = self
            .command("postgres")
            .args(["-D", &self.data(), "-p", &self.port.to_string()])
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        self.until("it takes connections", || self.sql("select 1").is_ok())
    }

    fn until(&self, what: &str, condition: impl Fn() -> bool) -> Result<()> {
        let begun = Instant::now();
        while !condition() {
            if begun.elapsed() > LIMIT {
                let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                bail!("not in time: {what}\n{log}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// What a statement answers, asked directly.
    ///
    /// # Errors
    /// What the server or psql said.
    pub fn sql(&self, statement: &str) -> Result<String> {
        let output = self.psql(self.port, "").args(["-Atqc", statement]).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{said}");
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// A psql that connects to a port of this machine, with more of a connection string.
    pub fn psql(&self, port: u16, more: &str) -> Command {
        let mut command = Command::new(self.bin.join("psql"));
        let to = format!("host={HOST} port={port} user=postgres dbname=postgres connect_timeout=60 {more}");
        command.args(["-X", "-v", "ON_ERROR_STOP=1", &to]).stdin(Stdio::null());
        command
    }

    /// One of PostgreSQL's client programs.
    pub fn client(&self, program: &str) -> Command {
        Command::new(self.bin.join(program))
    }

    /// Makes a standby a primary.
    ///
    /// # Errors
    /// If it does not become one.
    pub fn promote(&self) -> Result<()> {
        self.sql("select pg_promote(true, 60)")?;
        self.until("it is out of recovery", || {
            self.sql("select pg_is_in_recovery()").is_ok_and(|answer| answer == "f")
        })
    }

    /// Stops it: sessions are told and ended.
    ///
    /// # Errors
    /// If it does not end in time.
    pub fn stop(&mut self) -> Result<()> {
        self.end(Signal::SIGINT)
    }

    fn end(&mut self, signal: Signal) -> Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        // setpriv became the postmaster.
        kill(Pid::from_raw(i32::try_from(child.id())?), signal)?;
        let begun = Instant::now();
        while child.try_wait()?.is_none() {
            if begun.elapsed() > LIMIT {
                child.kill()?;
                child.wait()?;
                bail!("the server did not end by {signal}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // An immediate stop ends every process of the server, which a kill of the postmaster would not at once.
        let _ = self.end(Signal::SIGQUIT);
    }
}
