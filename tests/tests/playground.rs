//! The playground with real processes: it comes up, mends itself, cleans up after a crash, and leaves nothing behind.

#![allow(clippy::unwrap_used)]
#![cfg(unix)]

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use ha_tests::cluster::{LIMIT, Programs, programs};
use serde_json::Value;

/// A playground in a directory of its own, which ends with the test.
struct Playground {
    programs: Programs,
    dir: tempfile::TempDir,
}

impl Playground {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("pg-").tempdir().unwrap();
        // Open to the unprivileged user that the processes run as when root runs the tests.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self {
            programs: programs().unwrap(),
            dir,
        }
    }

    fn place(&self) -> PathBuf {
        self.dir.path().join("playground")
    }

    fn contexts(&self) -> PathBuf {
        self.dir.path().join("config")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.programs.hactl);
        command
            .args(args)
            .env("HACTL_CONFIG_DIR", self.contexts())
            .env("HACTL_PLAYGROUND_DIR", self.place())
            .env_remove("HACTL_CONTEXT")
            .env_remove("HACTL_OUTPUT");
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "hactl {}: {output:?}", args.join(" "));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Exit code and standard error of a command that fails.
    fn fails(&self, args: &[&str]) -> (Option<i32>, String) {
        let output = self.run(args);
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }

    fn up(&self, nodes: &str) {
        let output = self.run(&["playground", "up", "--detach", "--no-database", "--nodes", nodes]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn status(&self) -> Vec<Value> {
        let text = self.ok(&["-o", "json", "playground", "status"]);
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(document["kind"], "PlaygroundProcessList");
        document["items"].as_array().unwrap().clone()
    }

    fn process(&self, name: &str) -> Value {
        self.status().into_iter().find(|p| p["name"] == name).unwrap()["status"].clone()
    }

    /// Every process of the playground, the supervisor first.
    fn pids(&self) -> Vec<i32> {
        let text = std::fs::read_to_string(self.place().join("running.json")).unwrap();
        let running: Value = serde_json::from_str(&text).unwrap();
        let pid = |p: &Value| i32::try_from(p["pid"].as_i64().unwrap()).unwrap();
        let children = running["children"].as_array().unwrap().iter().map(pid);
        std::iter::once(pid(&running["supervisor"])).chain(children).collect()
    }
}

impl Drop for Playground {
    fn drop(&mut self) {
        let _ = self.run(&["playground", "down"]);
    }
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "it never became so: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn kill(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
}

fn is_alive(pid: &i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !matches!(rest.split_whitespace().next(), None | Some("Z" | "X")))
}

#[test]
fn it_lives_mends_itself_and_goes_without_a_trace() {
    let playground = Playground::new();
    playground.up("3");
    let states: Vec<_> = playground
        .status()
        .iter()
        .map(|p| p["status"]["health"].clone())
        .collect();
    assert_eq!(states, ["standalone", "online, master", "online", "online"]);
    playground.ok(&["cluster", "status", "--check"]);

    // Whoever runs the tests as root still gets unprivileged processes, and nobody else reads the keys.
    let bundle = playground.place().join("data/n1/bundle.toml").metadata().unwrap();
    assert_eq!(bundle.permissions().mode() & 0o777, 0o600);
    for pid in playground.pids() {
        assert_ne!(
            std::fs::metadata(format!("/proc/{pid}")).unwrap().uid(),
            0,
            "process {pid} runs as root"
        );
    }

    let (code, error) = playground.fails(&["playground", "up"]);
    assert!(code == Some(9) && error.contains("HA0901"), "{code:?} {error}");

    let before = playground.process("n2")["pid"].as_i64().unwrap();
    kill(i32::try_from(before).unwrap(), nix::sys::signal::Signal::SIGKILL);
    until("n2 runs again", || {
        let now = playground.process("n2");
        now["pid"].as_i64().is_some_and(|pid| pid != before) && now["health"] == "online"
    });
    assert_eq!(playground.process("n2")["restarts"], 1);

    // A node that left is not started again.
    let config = playground.place().join("data/n3/had.toml");
    let left = Command::new(&playground.programs.had)
        .arg("--config")
        .arg(config)
        .arg("leave")
        .output()
        .unwrap();
    assert!(left.status.success(), "{left:?}");
    until("n3 has ended", || playground.process("n3")["state"] == "ended");
    assert_eq!(playground.process("n3")["lastExit"], "exit code 0");
    playground.ok(&["wait", "cluster", "--for", "healthy"]);

    let pids = playground.pids();
    playground.ok(&["playground", "down"]);
    let alive: Vec<_> = pids.iter().filter(|pid| is_alive(pid)).collect();
    assert!(alive.is_empty(), "still there: {alive:?}");
    assert!(!playground.place().exists());
    assert!(!playground.contexts().join("contexts/playground").exists());
    let (code, error) = playground.fails(&["playground", "down"]);
    assert!(code == Some(5) && error.contains("HA0902"), "{code:?} {error}");
}

#[test]
fn what_a_crash_leaves_is_cleared() {
    let playground = Playground::new();
    playground.up("1");
    let pids = playground.pids();
    kill(pids[0], nix::sys::signal::Signal::SIGKILL);
    // On Linux the kernel ends the children with their supervisor.
    until("the children have ended", || !pids.iter().any(is_alive));
    let (code, error) = playground.fails(&["playground", "status"]);
    assert!(code == Some(5) && error.contains("HA0902"), "{code:?} {error}");
    playground.up("2");
    assert_eq!(playground.status().len(), 3);
    playground.ok(&["cluster", "status", "--check"]);
}

#[test]
fn a_supervisor_that_hangs_is_ended_all_the_same() {
    let playground = Playground::new();
    playground.up("1");
    let pids = playground.pids();
    kill(pids[0], nix::sys::signal::Signal::SIGSTOP);
    playground.ok(&["playground", "down"]);
    until("all have ended", || !pids.iter().any(is_alive));
    assert!(!playground.place().exists());
}

#[test]
fn in_the_foreground_it_ends_with_its_terminal() {
    use nix::sys::signal::Signal::{SIGINT, SIGKILL};
    for (signal, ready) in [(SIGINT, "Ctrl-C ends"), (SIGKILL, "Ctrl-C ends"), (SIGINT, "serves on")] {
        let playground = Playground::new();
        let said = playground.dir.path().join("said");
        let mut up = playground.command(&["playground", "up", "--no-database", "--nodes", "1"]);
        let mut up = up
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&said).unwrap())
            .spawn()
            .unwrap();
        until(ready, || std::fs::read_to_string(&said).unwrap().contains(ready));
        let pids = playground.pids();
        kill(i32::try_from(up.id()).unwrap(), signal);
        let status = up.wait().unwrap();
        until("all have ended", || !pids.iter().any(is_alive));
        if signal == SIGINT {
            assert_eq!(status.code(), Some(if ready == "serves on" { 130 } else { 0 }));
            assert!(!playground.place().exists());
            assert!(!playground.contexts().join("contexts/playground").exists());
        }
    }
}

/// Process ids of the servers and guards of a playground: what works in a directory below it or runs its copy of had.
fn database_processes(place: &std::path::Path) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let link = |name: &str| std::fs::read_link(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let server = link("exe").ends_with("postgres") && link("cwd").starts_with(place);
        server || link("exe") == place.join("bin").join("had")
    })
    .collect()
}

#[test]
fn its_database_serves_and_goes_with_it() {
    let playground = Playground::new();
    let up = ["playground", "up", "--detach", "--nodes", "2", "--timeout", "180s"];
    let output = playground.run(&up);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    playground.ok(&["wait", "db/main", "--for", "whole", "--timeout", "120s"]);
    assert!(playground.ok(&["db", "dsn"]).starts_with("postgresql://app@"));
    let place = playground.place();
    let running = database_processes(&place);
    assert!(running.len() >= 4, "two servers and their guards: {running:?}");
    playground.ok(&["playground", "down"]);
    assert_eq!(database_processes(&place), Vec::<i32>::new());
    assert!(!place.exists());
}

#[test]
fn it_refuses_what_is_not_its_own() {
    let playground = Playground::new();
    std::fs::create_dir(playground.place()).unwrap();
    std::fs::write(playground.place().join("precious"), "x").unwrap();
    let (code, error) = playground.fails(&["playground", "up", "--detach"]);
    assert!(
        code == Some(9) && error.contains("HA0008") && error.contains("not empty"),
        "{code:?} {error}"
    );
    std::fs::remove_file(playground.place().join("precious")).unwrap();

    playground.ok(&[
        "cluster",
        "init",
        "--cluster",
        "mine",
        "--zookeeper",
        "zk",
        "--node",
        "n1=10.0.0.1",
        "--out",
    ]
    .into_iter()
    .chain([playground.dir.path().to_str().unwrap()])
    .collect::<Vec<_>>());
    let (code, error) = playground.fails(&["playground", "up", "--detach", "--cluster", "mine"]);
    assert!(
        code == Some(9) && error.contains("HA0008") && error.contains("context mine"),
        "{code:?} {error}"
    );
    playground.ok(&["context", "list"]);
}

#[test]
fn it_says_what_is_missing() {
    let playground = Playground::new();
    let output = playground
        .command(&["playground", "up", "--detach"])
        .env("PATH", "/nonexistent")
        .env_remove("JAVA_HOME")
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("HA0903") && error.contains("apt-get install") && error.contains("default-jre-headless"));
    assert!(!playground.place().exists(), "it began all the same");
}
