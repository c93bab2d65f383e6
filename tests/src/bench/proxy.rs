//! The proxy beside HAProxy and beside no proxy at all: the same PostgreSQL, the same pgbench, turn by turn in one run.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use controlplane::proxy::routes::{Ports, Routes, Server, Table};
use controlplane::proxy::{Metrics, Proxy, Settings};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::figures::Figures;
use crate::postgres::Postgres;
use crate::zookeeper::free_port;

/// Rounds, in each of which every way has its turn.
const ROUNDS: usize = 11;
const SECONDS: u32 = 2;
const CLIENTS: u32 = 8;
/// What is sent in bulk, a turn.
const BULK: usize = 1 << 30;
/// Connections whose memory is measured.
const IDLE: usize = 1000;
/// Threads of HAProxy and of the proxy.
const THREADS: usize = 2;

const WAYS: [&str; 3] = ["direct", "HAProxy", "had's proxy"];

pub(super) async fn run() -> Result<()> {
    println!("\nthe proxy beside HAProxy (PostgreSQL with fsync off; {THREADS} threads each; {ROUNDS} rounds in turn)");
    let postgres = Postgres::start("shared_buffers = '256MB'\nmax_connections = 300")?;
    let made = postgres
        .client("pgbench")
        .args(["-i", "-q", "-s", "10", "-h", "127.0.0.1", "-U", "postgres", "-p"])
        .args([&postgres.port.to_string(), "postgres"])
        .output()?;
    ensure!(
        made.status.success(),
        "pgbench -i: {}",
        String::from_utf8_lossy(&made.stderr)
    );
    let front = Front::before(&postgres.address())?;
    for (what, script) in [("pgbench -S", "-S"), ("pgbench -N", "-N"), ("pgbench -S -C", "-SC")] {
        let mut figures: [Figures; 3] = Default::default();
        let mut spent = [(0.0, 0.0); 3];
        for round in 0..ROUNDS {
            for turn in 0..WAYS.len() {
                // Who begins changes, so that none is always the one that follows a checkpoint.
                let way = (turn + round) % WAYS.len();
                let port = [postgres.port, front.haproxy, front.proxy()?][way];
                let before = front.processor(way)?;
                let (each, number) = transaction(&postgres, port, script)?;
                figures[way].push(each);
                spent[way].0 += front.processor(way)? - before;
                spent[way].1 += number;
            }
        }
        for (way, (time, transactions)) in WAYS.iter().zip(spent).skip(1) {
            let each = time / transactions * 1e6;
            println!(
                "  {:<44} {each:>9.1} µs",
                format!("{what}, {way}, processor a transaction")
            );
        }
        print(what, &figures, |s| format!("{:.0} tps", f64::from(CLIENTS) / s));
    }
    drop(postgres);

    let echo = TcpListener::bind("127.0.0.1:0")?;
    let address = echo.local_addr()?;
    std::thread::spawn(move || serve_bulk(&echo));
    let front = Front::before(&address.to_string())?;
    let mut figures: [Figures; 3] = Default::default();
    for round in 0..ROUNDS {
        for turn in 0..WAYS.len() {
            let way = (turn + round) % WAYS.len();
            let port = [address.port(), front.haproxy, front.proxy()?][way];
            figures[way].push(bulk(port)?);
        }
    }
    #[allow(clippy::cast_precision_loss)]
    print("one connection, 1 GiB to the client", &figures, |s| {
        format!("{:.2} GB/s", BULK as f64 / s / 1e9)
    });
    idle(&front)
}

/// Both proxies before one server.
struct Front {
    haproxy: u16,
    ours: Proxy,
    stop: CancellationToken,
    child: Child,
    _dir: tempfile::TempDir,
    _routes: watch::Sender<Arc<Routes>>,
}

impl Front {
    fn before(server: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let haproxy = free_port("127.0.0.1")?;
        let file = dir.path().join("haproxy.cfg");
        let text = format!(
            "global\n  nbthread {THREADS}\n  maxconn 4000\ndefaults\n  mode tcp\n  timeout connect 2s\n  timeout client 1h\n  \
             timeout server 1h\nlisten primary\n  bind 127.0.0.1:{haproxy}\n  server n1 {server}\n"
        );
        std::fs::write(&file, text)?;
        let program = ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy", "/usr/bin/haproxy"];
        let program = program.iter().find(|p| Path::new(p).exists());
        let program = program.context("HAProxy is not installed: .ci/need haproxy")?;
        let child = Command::new(program)
            .args(["-db", "-f"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let table = Table {
            epoch: 1,
            steady: true,
            primary: Some(Server {
                node: "n1".into(),
                address: server.to_owned(),
                ..Server::default()
            }),
            ports: Ports {
                primary: Some(0),
                standbys: None,
            },
            ..Table::default()
        };
        let groups = [("main".to_owned(), table)].into();
        let (routes, seen) = watch::channel(Arc::new(Routes { groups }));
        let settings = Settings {
            listen: [127, 0, 0, 1].into(),
            threads: THREADS,
            max_connections: 2 * IDLE,
            ..Settings::default()
        };
        let ours = Proxy::new(settings, seen, Metrics::default());
        let stop = CancellationToken::new();
        tokio::spawn(ours.clone().run(stop.clone()));
        let front = Self {
            haproxy,
            ours,
            stop,
            child,
            _dir: dir,
            _routes: routes,
        };
        let begun = Instant::now();
        while front.proxy().is_err() || TcpStream::connect(("127.0.0.1", haproxy)).is_err() {
            ensure!(begun.elapsed() < Duration::from_secs(10), "the proxies do not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(front)
    }

    /// Seconds of processor time that a way has used: of HAProxy's process, of the proxy's threads.
    fn processor(&self, way: usize) -> Result<f64> {
        match way {
            0 => Ok(0.0),
            1 => ticks(&std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?),
            _ => {
                let mut sum = 0.0;
                for thread in std::fs::read_dir("/proc/self/task")? {
                    // A thread may have ended since it was listed.
                    let stat = std::fs::read_to_string(thread?.path().join("stat")).unwrap_or_default();
                    if stat.contains("(had-proxy)") {
                        sum += ticks(&stat)?;
                    }
                }
                Ok(sum)
            }
        }
    }

    fn proxy(&self) -> Result<u16> {
        let status = self.ours.status();
        let address = status.first().and_then(|p| p.address);
        Ok(address.context("the proxy does not listen")?.port())
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.stop.cancel();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A turn: the time of a transaction of one client, and how many there were.
fn transaction(postgres: &Postgres, port: u16, script: &str) -> Result<(Duration, f64)> {
    let output = postgres
        .client("pgbench")
        .args(["-n", script, "-h", "127.0.0.1", "-U", "postgres"])
        .args(["-T", &SECONDS.to_string(), "-c", &CLIENTS.to_string(), "-j", "2"])
        .args(["-p", &port.to_string(), "postgres"])
        .env("PGSSLMODE", "disable")
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let tps = text
        .lines()
        .find_map(|l| l.strip_prefix("tps = ")?.split(' ').next()?.parse::<f64>().ok());
    let tps = tps.with_context(|| format!("pgbench: {}", String::from_utf8_lossy(&output.stderr)))?;
    Ok((
        Duration::from_secs_f64(f64::from(CLIENTS) / tps),
        tps * f64::from(SECONDS),
    ))
}

/// To each client that asks for it, a great deal; then it stays, as those do that ask for nothing.
fn serve_bulk(listener: &TcpListener) {
    let mut idle = Vec::new();
    while let Ok((mut client, _)) = listener.accept() {
        let mut asked = [0; 9];
        if client.read_exact(&mut asked).is_err() {
            continue;
        }
        if asked[8] != b'b' {
            let _ = client.write_all(b"!");
            idle.push(client);
            continue;
        }
        std::thread::spawn(move || {
            let block = vec![7u8; 256 * 1024];
            let mut left = BULK;
            while left > 0 && client.write_all(&block).is_ok() {
                left -= block.len();
            }
            let _ = client.read(&mut asked);
        });
    }
}

/// A session's first packet, as far as it matters, and what the server above is to do.
fn hello(port: u16, what: u8) -> Result<TcpStream> {
    let mut client = TcpStream::connect(("127.0.0.1", port))?;
    client.write_all(&[0, 0, 0, 9, 0, 3, 0, 0, what])?;
    Ok(client)
}

fn bulk(port: u16) -> Result<Duration> {
    let begun = Instant::now();
    let mut client = hello(port, b'b')?;
    let mut block = vec![0u8; 256 * 1024];
    let mut left = BULK;
    while left > 0 {
        let n = client.read(&mut block)?;
        ensure!(n > 0, "the connection ended early");
        left = left.saturating_sub(n);
    }
    Ok(begun.elapsed())
}

/// What a connection costs that does nothing. The clients and the server are in this process too, and hold but a descriptor.
fn idle(front: &Front) -> Result<()> {
    let before = resident_kib()?;
    let mut clients = Vec::new();
    for _ in 0..IDLE {
        let mut client = hello(front.proxy()?, b'i')?;
        client.read_exact(&mut [0])?;
        clients.push(client);
    }
    #[allow(clippy::cast_precision_loss)]
    let each = (resident_kib()? - before) / clients.len() as f64;
    println!(
        "  {:<44} {each:>7.1} KiB   ({} connections)",
        "the proxy's memory for an idle connection",
        clients.len()
    );
    Ok(())
}

/// User and system time in a line of `stat`; a hundred ticks a second on every Linux that Rust runs on.
fn ticks(stat: &str) -> Result<f64> {
    let (_, rest) = stat.rsplit_once(") ").context("stat has a name")?;
    let field = |i: usize| rest.split(' ').nth(i).and_then(|f| f.parse::<f64>().ok());
    Ok((field(11).context("user time")? + field(12).context("system time")?) / 100.0)
}

fn resident_kib() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .context("a resident size")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}

fn print(what: &str, figures: &[Figures; 3], show: impl Fn(f64) -> String) {
    let [_, haproxy, ours] = figures;
    for (way, figure) in WAYS.iter().zip(figures) {
        let spread = format!("{} to {}", show(figure.at(1.0)), show(figure.at(0.0)));
        println!(
            "  {:<44} {:>12}   ({spread})",
            format!("{what}, {way}"),
            show(figure.median())
        );
    }
    let ratio = haproxy.median() / ours.median();
    let mark = if ratio >= 1.0 { "met" } else { "MISSED" };
    println!(
        "  {:<44} {ratio:>12.3}   goal 1.000  {mark}",
        format!("{what}, the proxy to HAProxy")
    );
}
