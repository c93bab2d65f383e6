//! What can be seen only on a process of its own: its CPU time, and what it does after it was stopped.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use controlplane::coordination::Connector;
use controlplane::platform::{Clock, SystemClock};
use ha_tests::zookeeper::{ZkServer, free_port};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::servers::{holder, lost};
use super::{T, connector};

const CASE: &str = "HA_TEST_COORDINATION_CASE";
const HOSTS: &str = "HA_TEST_COORDINATION_HOSTS";

// --- the child -------------------------------------------------------------------------------------------------------

/// The body of the child processes; does nothing unless started as one.
#[tokio::test]
async fn child() {
    let (Ok(case), Ok(hosts)) = (std::env::var(CASE), std::env::var(HOSTS)) else {
        return;
    };
    let connector = connector(hosts.split(',').map(str::to_owned).collect(), "process", "secret", T);
    match case.as_str() {
        "dead" => {
            used(Duration::from_secs(2), async {
                loop {
                    assert!(connector.connect().await.is_err());
                    sleep(Duration::from_millis(100)).await;
                }
            })
            .await;
        }
        "idle" => {
            let _held = holder(&connector).await;
            used(Duration::from_secs(3), std::future::pending::<()>()).await;
        }
        "broken" => {
            let held = holder(&connector).await;
            say("held");
            let mut state = held.state();
            state.changed().await.unwrap();
            used(Duration::from_secs(1), std::future::pending::<()>()).await;
        }
        "stopped" => {
            let held = holder(&connector).await;
            say("held");
            let mut last = SystemClock.boottime();
            loop {
                sleep(Duration::from_millis(5)).await;
                let now = SystemClock.boottime();
                if now - last > Duration::from_secs(2) {
                    break;
                }
                last = now;
            }
            say(&format!(
                "lease {}",
                held.lease().borrow().holds(SystemClock.boottime())
            ));
            say(&format!("lost {}", lost(&*held, T).await));
        }
        other => panic!("{other}"),
    }
}

fn say(line: &str) {
    println!("\n= {line}");
}

/// Tells which share of a core the process used while `what` went on.
async fn used<F: Future>(during: Duration, what: F) {
    let (begun, before) = (Instant::now(), cpu());
    let _ = timeout(during, what).await;
    say(&format!(
        "used {:.4}",
        (cpu() - before).as_secs_f64() / begun.elapsed().as_secs_f64()
    ));
}

/// CPU time this process has used.
fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let micros = |t: nix::sys::time::TimeVal| u64::try_from(t.tv_sec() * 1_000_000 + t.tv_usec()).unwrap();
    Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time()))
}

// --- the parent ------------------------------------------------------------------------------------------------------

struct Started {
    child: Child,
    lines: mpsc::UnboundedReceiver<String>,
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Started {
    fn new(case: &str, hosts: &[String]) -> Started {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["process::child", "--exact", "--nocapture"])
            .env(CASE, case)
            .env(HOSTS, hosts.join(","))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (tx, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if let Some(said) = line.strip_prefix("= ") {
                    let _ = tx.send(said.to_owned());
                }
            }
        });
        Started { child, lines }
    }

    /// What the child says next after this word.
    async fn hear(&mut self, word: &str) -> String {
        let line = timeout(Duration::from_secs(30), self.lines.recv())
            .await
            .expect("a word in time");
        let line = line.expect("the child lives");
        line.strip_prefix(word)
            .unwrap_or_else(|| panic!("{word} was expected, not {line}"))
            .trim()
            .to_owned()
    }

    async fn used(&mut self) -> f64 {
        self.hear("used").await.parse().unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }
}

#[tokio::test]
async fn servers_that_are_dead_or_close_at_once_burn_no_cpu() {
    let closing = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut hosts = vec![closing.local_addr().unwrap().to_string()];
    for _ in 0..2 {
        hosts.push(format!("127.0.0.1:{}", free_port("127.0.0.1").unwrap()));
    }
    let close = async { while closing.accept().await.is_ok() {} };
    let mut child = Started::new("dead", &hosts);
    let used = tokio::select! {
        used = child.used() => used,
        () = close => unreachable!("a listener does not end"),
    };
    assert!(used < 0.1, "{used} of a core");
}

#[tokio::test]
async fn an_idle_session_uses_next_to_nothing() {
    let server = ZkServer::start_default().await.unwrap();
    let used = Started::new("idle", &server.hosts()).used().await;
    assert!(used < 0.005, "{used} of a core");
}

#[tokio::test]
async fn a_broken_connection_burns_no_cpu() {
    let mut server = ZkServer::start_default().await.unwrap();
    let mut child = Started::new("broken", &server.hosts());
    child.hear("held").await;
    let address = server.address();
    server.kill();
    // First nobody listens there, then somebody who closes at once.
    sleep(Duration::from_millis(300)).await;
    let closing = tokio::net::TcpListener::bind(address).await.unwrap();
    let close = async { while closing.accept().await.is_ok() {} };
    let used = tokio::select! {
        used = child.used() => used,
        () = close => unreachable!("a listener does not end"),
    };
    assert!(used < 0.1, "{used} of a core");
}

#[tokio::test]
async fn a_process_stopped_past_its_session_continues_without_lease_and_session() {
    let server = ZkServer::start_default().await.unwrap();
    let mut child = Started::new("stopped", &server.hosts());
    child.hear("held").await;
    let watcher = connector(server.hosts(), "process", "secret", T)
        .connect()
        .await
        .unwrap();
    child.signal(Signal::SIGSTOP);
    let gone = async {
        while let (Some(_), watch) = watcher.read_and_watch("/n1").await.unwrap() {
            watch.fired().await;
        }
    };
    timeout(T * 2, gone).await.unwrap();
    child.signal(Signal::SIGCONT);
    assert_eq!(child.hear("lease").await, "false");
    child.hear("lost").await;
}
