//! A network of nodes that can be cut, as a whole, from one another and in one direction: anonymous network namespaces,
//! joined by a bridge.
//!
//! The calling thread moves into a namespace of its own, which holds the bridge; each node gets one more, held by a child
//! process. Nothing has a name, so nothing can be left behind: all of it goes with the thread and its children. It must
//! never be used on a thread that does anything else afterwards, nor touch the machine's own network.

use std::future::Future;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The address of the bridge, where the calling thread is.
pub const HUB: &str = "10.88.0.254";

/// Nobody's: what is sent there is lost, and nobody is told.
const NOWHERE: &str = "02:00:00:00:00:ff";

/// An end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A node; the first is 0.
    Node(u8),
    /// Where the calling thread is.
    Hub,
}

/// Runs a test on a thread of its own in a network of `n` nodes, which ends with it. Where no network can be made it is not
/// run, and that is said.
///
/// # Errors
/// Those of the test, or if it panics.
pub fn inside<F>(name: &str, n: u8, test: fn(Network) -> F) -> Result<()>
where
    F: Future<Output = Result<()>> + 'static,
{
    if let Err(why) = Network::possible() {
        crate::skipped(name, &why);
        return Ok(());
    }
    let thread = std::thread::spawn(move || {
        let network = Network::enter(n)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(test(network))
    });
    thread.join().map_err(|_| anyhow!("the test panicked"))?
}

/// The network, held by the thread that made it.
#[derive(Debug)]
pub struct Network {
    nodes: Vec<Child>,
}

impl Network {
    /// Whether networks can be made here; the reason if not.
    pub fn possible() -> Result<(), String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("only root may make network namespaces".into());
        }
        let tried = Command::new("unshare")
            .args([
                "-n",
                "sh",
                "-c",
                "ip link add b0 type bridge && ip link add v0 type veth peer name v1",
            ])
            .stdin(Stdio::null())
            .output();
        match tried {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(e) => Err(e.to_string()),
        }
    }

    /// Moves the calling thread into a new network with `n` nodes. Threads and processes that it starts from now on are
    /// there as well.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn enter(n: u8) -> Result<Network> {
        unshare(CloneFlags::CLONE_NEWNET).context("no network namespace")?;
        ip("link set lo up")?;
        // An address of its own: it would borrow a port's, and take what is for that port when the port is cut off.
        ip("link add br0 address 02:00:00:00:00:fe type bridge")?;
        ip(&format!("addr add {HUB}/24 dev br0"))?;
        ip("link set br0 up")?;
        let mut network = Network { nodes: Vec::new() };
        for i in 0..n {
            network.add(i)?;
        }
        Ok(network)
    }

    fn add(&mut self, i: u8) -> Result<()> {
        let holder = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity"])
            .stdin(Stdio::null())
            .spawn()
            .context("no process to hold a namespace")?;
        let pid = holder.id();
        self.nodes.push(holder);
        wait_for_namespace(pid)?;
        ip(&format!("link add v{i} type veth peer name eth0 netns {pid}"))?;
        ip(&format!("link set v{i} master br0 up"))?;
        let inside = |what: &str| {
            let args = format!("--net --target {pid} -- ip {what}");
            run("nsenter", &args)
        };
        inside("link set lo up")?;
        inside(&format!("addr add {}/24 dev eth0", self.address(i)))?;
        inside("link set eth0 up")
    }

    /// The address of a node; the first is 0.
    pub fn address(&self, node: u8) -> String {
        format!("10.88.0.{}", node + 1)
    }

    /// The command that runs another one at a node.
    pub fn under(&self, node: u8) -> Vec<String> {
        let pid = self.nodes[usize::from(node)].id().to_string();
        ["nsenter", "--net", "--target", &pid, "--"].map(String::from).to_vec()
    }

    /// Everything that runs at a node, whoever started it.
    ///
    /// # Errors
    /// If the node's own holder is gone.
    pub fn processes(&self, node: u8) -> Result<Vec<Pid>> {
        let holder = self.nodes[usize::from(node)].id();
        let its = std::fs::read_link(format!("/proc/{holder}/ns/net")).context("the node is gone")?;
        let running = std::fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let at_node = |pid: &u32| {
            let here = std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|link| link == its);
            here && *pid != holder
        };
        Ok(running
            .filter(at_node)
            .filter_map(|pid| Some(Pid::from_raw(i32::try_from(pid).ok()?)))
            .collect())
    }

    /// Sends a signal to everything that runs at a node, until nothing new appears there.
    ///
    /// # Errors
    /// As [`Network::processes`].
    pub fn signal_all(&self, node: u8, signal: Signal) -> Result<()> {
        let mut told = std::collections::BTreeSet::new();
        loop {
            let new: Vec<Pid> = self.processes(node)?.into_iter().filter(|p| told.insert(*p)).collect();
            if new.is_empty() {
                return Ok(());
            }
            for pid in new {
                // One that has ended meanwhile needs no signal.
                let _ = kill(pid, signal);
            }
        }
    }

    /// Cuts a node off: nothing reaches it nor comes from it, and nobody is told.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn cut(&self, node: u8) -> Result<()> {
        ip(&format!("link set v{node} nomaster"))
    }

    /// Heals it.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn heal(&self, node: u8) -> Result<()> {
        ip(&format!("link set v{node} master br0"))
    }

    /// Loses every packet from one end to another, in this direction alone; nobody is told.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn lose(&self, from: End, to: End) -> Result<()> {
        self.neighbour(from, to, &format!("replace ADDR lladdr {NOWHERE} nud permanent"))
    }

    /// Lets the packets from one end to another pass again.
    ///
    /// # Errors
    /// If the system refuses, or they were not lost.
    pub fn pass(&self, from: End, to: End) -> Result<()> {
        self.neighbour(from, to, "del ADDR")
    }

    fn neighbour(&self, from: End, to: End, what: &str) -> Result<()> {
        let address = match to {
            End::Node(node) => self.address(node),
            End::Hub => HUB.to_owned(),
        };
        let what = what.replace("ADDR", &address);
        match from {
            End::Hub => ip(&format!("neigh {what} dev br0")),
            End::Node(node) => {
                let pid = self.nodes[usize::from(node)].id();
                run("nsenter", &format!("--net --target {pid} -- ip neigh {what} dev eth0"))
            }
        }
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // What outlives its parents on purpose has no place to be any more.
        for node in 0..self.nodes.len() {
            let _ = u8::try_from(node).map(|node| self.signal_all(node, Signal::SIGKILL));
        }
        for node in &mut self.nodes {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

/// The child has to have moved before a device can be given to it.
fn wait_for_namespace(pid: u32) -> Result<()> {
    let begun = Instant::now();
    let mine = std::fs::read_link("/proc/thread-self/ns/net")?;
    loop {
        let its = std::fs::read_link(format!("/proc/{pid}/ns/net"));
        if its.is_ok_and(|its| its != mine) {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < Duration::from_secs(10),
            "the namespace of {pid} does not come"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn ip(args: &str) -> Result<()> {
    run("ip", args)
}

fn run(program: &str, args: &str) -> Result<()> {
    let output = Command::new(program)
        .args(args.split_whitespace())
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{program} does not start"))?;
    if !output.status.success() {
        bail!("{program} {args}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
