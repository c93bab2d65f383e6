//! A guard with something to guard, and a look at what runs that does not go through the guard.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use controlplane::coordination::Lease;
use controlplane::guard::{Client, Options, Start, Status};
use controlplane::platform::{Clock as _, SystemClock};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::watch;

pub(crate) const TOKEN: &str = "7a0dd3a2-9d44-4e05-9a0e-000000000001";
/// Long enough for a machine that is busy with other tests; nothing waits that long without a reason.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// One node's state directory and a place to work in. What was started in it ends with it.
pub(crate) struct Rig {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) cgroups: bool,
    pub(crate) lease: watch::Sender<Lease>,
}

pub(crate) fn now() -> Duration {
    SystemClock.boottime()
}

pub(crate) fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap()
}

impl Rig {
    pub(crate) fn new(cgroups: bool) -> Rig {
        Self::in_dir(cgroups, tempfile::Builder::new().prefix("had-guard").tempdir().unwrap())
    }

    pub(crate) fn in_dir(cgroups: bool, dir: tempfile::TempDir) -> Rig {
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let rig = Rig {
            dir,
            cgroups,
            lease: watch::channel(Lease::default()).0,
        };
        std::fs::create_dir(rig.state_dir()).unwrap();
        std::fs::create_dir(rig.work()).unwrap();
        std::fs::write(rig.state_dir().join("token"), format!("{TOKEN}\n")).unwrap();
        rig
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Everything that is guarded works here, and nothing else does.
    pub(crate) fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    pub(crate) fn guard_dir(&self) -> PathBuf {
        controlplane::guard::directory(&self.state_dir(), "main")
    }

    pub(crate) fn options(&self, run: u64) -> Options {
        Options {
            state_dir: self.state_dir(),
            group: "main".into(),
            token: TOKEN.into(),
            run,
            program: Some(env!("CARGO_BIN_EXE_had").into()),
            cgroups: self.cgroups,
            lease: self.lease.subscribe(),
        }
    }

    /// A daemon in its first run.
    pub(crate) async fn client(&self) -> Client {
        self.client_of(1).await
    }

    pub(crate) async fn client_of(&self, run: u64) -> Client {
        let client = Client::attach(self.options(run));
        client.attached(PATIENCE).await.unwrap();
        client
    }

    /// A shell script as the postmaster.
    pub(crate) fn script(&self, incarnation: u64, script: &str, until: Option<Duration>) -> Start {
        Start {
            incarnation,
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())]),
            cwd: self.work(),
            run_as: None,
            log: self.work().join("log"),
            until: until.map(ns),
        }
    }

    /// Moves the lease, as an acknowledged heartbeat does.
    pub(crate) fn lease_until(&self, until: Duration) {
        self.lease.send_replace(Lease { until: Some(until) });
    }

    /// Everything that works in the place for it, found without the guard's help: zombies are not among it.
    pub(crate) fn running(&self) -> Vec<i32> {
        let work = self.work();
        let in_it = |pid: &i32| std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(&work));
        processes().filter(in_it).collect()
    }

    /// The guards of this rig.
    pub(crate) fn guards(&self) -> Vec<i32> {
        let state = self.state_dir().display().to_string();
        let is_guard = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            line.contains("\0guard\0") && line.contains(&state)
        };
        processes().filter(is_guard).collect()
    }

    /// What the fake backends have committed.
    pub(crate) fn commits(&self) -> u64 {
        std::fs::metadata(self.work().join("commits")).map_or(0, |m| m.len())
    }

    pub(crate) async fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let limit = now() + PATIENCE;
        while !is_so() {
            assert!(
                now() < limit,
                "it never came to this: {what}\n{}",
                read(&self.work().join("log"))
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Nothing runs, and nothing is committed from now on.
    pub(crate) fn assert_stopped(&self) {
        let commits = self.commits();
        let left = self.running();
        assert!(left.is_empty(), "{left:?} outlived the proof");
        assert_eq!(self.commits(), commits);
    }
}

fn processes() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok())
}

impl Drop for Rig {
    fn drop(&mut self) {
        // By what they are, each time anew: a number that was kept might be another's by now.
        for _ in 0..200 {
            let left: Vec<i32> = self.guards().into_iter().chain(self.running()).collect();
            if left.is_empty() {
                break;
            }
            for pid in left {
                send(pid, Signal::SIGKILL);
                send(pid, Signal::SIGCONT);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // The control group that a killed guard did not remove.
        let place = read(&self.guard_dir().join("tree"));
        if let Some(cgroup) = place.lines().nth(1).filter(|dir| !dir.is_empty()) {
            let _ = std::fs::remove_dir(cgroup);
        }
    }
}

pub(crate) fn send(pid: i32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid), signal);
}

pub(crate) fn pid(status: &Status) -> i32 {
    i32::try_from(status.pid.unwrap()).unwrap()
}

pub(crate) fn guard_pid(status: &Status) -> i32 {
    i32::try_from(status.guard).unwrap()
}

/// Backends that lead sessions of their own, ignore every polite request and commit in a loop, forking all the time; the
/// postmaster ignores them too.
pub(crate) const STUBBORN: &str = "trap '' TERM INT QUIT; for i in 1 2 3; do \
    setsid sh -c 'while :; do echo x >>commits; sleep 0.002; done' & done; \
    (setsid setsid sh -c 'while :; do echo y >>commits; sleep 0.002; done' &) & \
    while :; do sleep 60 & wait $!; done";

/// A postmaster that ends at SIGINT and SIGQUIT, and its backend with it.
pub(crate) const POLITE: &str = "setsid sh -c 'while :; do echo x >>commits; sleep 0.002; done' & backend=$!; \
    trap 'echo fast >>log; kill -9 $backend; exit 0' INT; trap 'echo quit >>log; kill -9 $backend; exit 2' QUIT; \
    while :; do sleep 60 & wait $!; done";

/// Waits until the script has begun its work.
pub(crate) async fn busy(rig: &Rig) {
    let before = rig.commits();
    rig.until("the backends commit", || rig.commits() > before + 8).await;
}

pub(crate) fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
