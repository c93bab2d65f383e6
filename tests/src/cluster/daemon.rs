//! One `had` as a child process, with faults by signal.
//!
//! It must never touch a process it did not start, nor leave one behind: a daemon dies with the thread that started it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use controlplane::platform::{Clock, SystemClock};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::leases::{self, Interval};

/// A daemon and where it keeps its things.
#[derive(Debug)]
pub struct Daemon {
    /// The node's name.
    pub name: String,
    /// gRPC, host:port.
    pub address: String,
    /// HTTP, host:port.
    pub http: String,
    /// Its directory: bundle, configuration, state, logs.
    pub dir: PathBuf,
    /// A command to run it under, for instance `nsenter -n -t PID --`.
    pub under: Vec<String>,
    /// Added to its environment at the next start.
    pub env: Vec<(String, String)>,
    had: PathBuf,
    child: Option<Child>,
    runs: Vec<Run>,
}

/// One start of the daemon.
#[derive(Debug)]
struct Run {
    log: PathBuf,
    died_ns: Option<u64>,
}

impl Daemon {
    /// A daemon in `dir`, which has the bundle already. `more` is appended to its configuration. Starts nothing.
    ///
    /// # Errors
    /// If the configuration cannot be written.
    pub fn new(had: &Path, dir: &Path, name: &str, address: &str, http: &str, more: &str) -> Result<Daemon> {
        let daemon = Daemon {
            name: name.to_owned(),
            address: address.to_owned(),
            http: http.to_owned(),
            dir: dir.to_owned(),
            under: Vec::new(),
            env: Vec::new(),
            had: had.to_owned(),
            child: None,
            runs: Vec::new(),
        };
        let text = format!(
            "bundle = {:?}\nstate_dir = {:?}\n[listen]\ngrpc = {address:?}\nhttp = {http:?}\n\
             [log]\nlevel = \"debug\"\nformat = \"json\"\n{more}\n",
            daemon.bundle().display().to_string(),
            daemon.state_dir().display().to_string(),
        );
        fs::write(daemon.config(), text)?;
        Ok(daemon)
    }

    /// Its bundle.
    pub fn bundle(&self) -> PathBuf {
        self.dir.join("bundle.toml")
    }

    /// Its state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Its had.toml.
    pub fn config(&self) -> PathBuf {
        self.dir.join("had.toml")
    }

    /// The command that starts it, without its output.
    pub fn command(&self) -> Command {
        let mut words = self.under.clone();
        words.extend(["setpriv", "--pdeathsig", "KILL"].map(String::from));
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .arg(&self.had)
            .args(["--config".as_ref(), self.config().as_os_str()])
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null());
        command
    }

    /// Starts it; does not wait for anything.
    ///
    /// # Errors
    /// If it cannot be started, or runs.
    pub fn start(&mut self) -> Result<()> {
        if self.is_running()? {
            bail!("{} runs already", self.name);
        }
        let log = self.dir.join(format!("log.{}", self.runs.len() + 1));
        let file = File::create(&log)?;
        let child = self.command().stdout(file.try_clone()?).stderr(file).spawn();
        self.child = Some(child.context("had does not start")?);
        self.runs.push(Run { log, died_ns: None });
        Ok(())
    }

    /// Whether the process lives.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn is_running(&mut self) -> Result<bool> {
        let Some(child) = &mut self.child else { return Ok(false) };
        if child.try_wait()?.is_none() {
            return Ok(true);
        }
        self.died();
        Ok(false)
    }

    /// The process, while there is one.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Kills it and waits for its end.
    pub fn kill9(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
            self.died();
        }
    }

    /// Kills it and starts it again at once.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn restart(&mut self) -> Result<()> {
        self.kill9();
        self.start()
    }

    /// Stops the process as SIGSTOP does.
    pub fn sigstop(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Continues a stopped process.
    pub fn sigcont(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Asks it to end, as a service manager does before a restart.
    pub fn sigterm(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Waits until the process has ended.
    ///
    /// # Errors
    /// If it does not within `limit`, or never ran.
    pub async fn ended(&mut self, limit: Duration) -> Result<ExitStatus> {
        let begun = Instant::now();
        loop {
            let child = self.child.as_mut().context("it does not run")?;
            if let Some(status) = child.try_wait()? {
                self.died();
                return Ok(status);
            }
            if begun.elapsed() > limit {
                bail!("{} still runs after {limit:?}:\n{}", self.name, self.tail(30));
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn died(&mut self) {
        self.child = None;
        if let Some(run) = self.runs.last_mut() {
            run.died_ns = Some(boottime_ns());
        }
    }

    /// What the last start has logged.
    pub fn log(&self) -> String {
        self.runs.last().map_or_else(String::new, |run| read(&run.log))
    }

    /// What all starts have logged.
    pub fn logs(&self) -> String {
        self.runs.iter().map(|run| read(&run.log)).collect()
    }

    /// The last lines of importance, for people.
    pub fn tail(&self, lines: usize) -> String {
        let log = self.log();
        let important = |l: &&str| !l.contains("\"level\":\"DEBUG\"") && !l.contains("\"level\":\"TRACE\"");
        let mut last: Vec<String> = log.lines().rev().filter(important).take(lines).map(readable).collect();
        last.reverse();
        last.join("\n")
    }

    /// The intervals in which it held mastership.
    ///
    /// # Errors
    /// If a log cannot be read.
    pub fn leases(&self) -> Result<Vec<Interval>> {
        let mut all = Vec::new();
        for run in &self.runs {
            all.extend(leases::intervals(&self.name, &run.log, run.died_ns)?);
        }
        Ok(all)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// Now, ns on the clock that the daemons' lease lines have.
pub fn boottime_ns() -> u64 {
    u64::try_from(SystemClock.boottime().as_nanos()).unwrap_or(u64::MAX)
}

fn read(path: &Path) -> String {
    fs::read(path).map_or_else(|_| String::new(), |b| String::from_utf8_lossy(&b).into_owned())
}

/// A JSON log line as a person wants it.
fn readable(line: &str) -> String {
    let Ok(entry) = serde_json::from_str::<Value>(line) else {
        return line.to_owned();
    };
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let mut out = format!(
        "{} {} {}",
        text(&entry["timestamp"]),
        text(&entry["level"]),
        text(&entry["message"])
    );
    let said = ["timestamp", "level", "message", "target"];
    for (key, value) in entry.as_object().into_iter().flatten() {
        if !said.contains(&key.as_str()) {
            out += &format!(" {key}={value}");
        }
    }
    out
}
