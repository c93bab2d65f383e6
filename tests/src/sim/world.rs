//! The machines of a simulated cluster and the processes on them: started, stopped, killed, and what is asked of each.

mod machine;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use controlplane::coordination::{Connector, MemoryConnector, MemoryServer};
use controlplane::master::handle::Handle;
use controlplane::platform::Clock;
use controlplane::registration::Facts;
use controlplane::session::{self, Bootstrap, Options};
use controlplane::shared::{Me, Shared};
use ha_core::{AccessRole, Resources, UserRecord};
use ha_proto::codes;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::watch;
use tokio::time::Instant;

use super::agent;
use super::executor::{Executor, Group};
use super::ledger::{Ledger, Run, Sprung};
use super::net::Net;
use super::trace::Trace;
use super::weaken::{Weaken, weakened};

pub use machine::{Machine, Process, Seen};

/// Name of every simulated cluster.
pub const CLUSTER: &str = "sim";
/// Process numbers from here on are clients.
pub const CLIENTS: Group = 1_000_000;
/// The process of those who make faults.
pub const FAULTS: Group = CLIENTS - 1;
/// No process has this number: whoever registered with it is known to be gone.
const NO_PROCESS: u32 = 1 << 30;
/// Wall clock of a machine whose clock is right, ms.
const EPOCH_MS: i64 = 1_800_000_000_000;

/// A machine's clocks.
struct MachineClock {
    begun: Instant,
    up_since: Duration,
    ahead_ms: i64,
}

impl Clock for MachineClock {
    fn boottime(&self) -> Duration {
        self.up_since + self.begun.elapsed()
    }

    fn wall_ms(&self) -> i64 {
        let elapsed = i64::try_from(self.begun.elapsed().as_millis()).unwrap_or(i64::MAX);
        EPOCH_MS + self.ahead_ms + elapsed
    }
}

/// Fixed traits of a run.
#[derive(Debug, Clone)]
pub struct Traits {
    /// The session timeout.
    pub timeout: Duration,
    /// A restarted daemon can tell that its predecessor is gone.
    pub sees_dead: bool,
    /// Probability that a message of the report stream is lost, 0 to 1.
    pub lossy: f64,
    /// The rule that is broken, if any.
    pub weaken: Option<Weaken>,
}

/// See the module. Clones are the same cluster.
#[derive(Clone)]
pub struct World(Rc<Inner>);

/// What the parts of a simulation share.
pub struct Inner {
    /// The run's traits.
    pub traits: Traits,
    /// Runs the processes.
    pub x: Executor,
    /// The in-memory ZooKeeper.
    pub server: MemoryServer,
    /// What happened.
    pub trace: Trace,
    /// The links between daemons.
    pub net: Net,
    ledger: Arc<Mutex<Ledger>>,
    begun: Instant,
    machines: RefCell<Vec<Rc<Machine>>>,
    next_group: Cell<Group>,
    next_stream: Cell<u64>,
    rng: RefCell<SmallRng>,
    acting: RefCell<BTreeMap<Group, u64>>,
    /// Traps that spring when the server has nothing more in store for a client, by number.
    fuses: RefCell<BTreeMap<u32, String>>,
    /// Who was caught by which trap.
    caught: watch::Sender<BTreeMap<u32, String>>,
    /// No faults any more: clients finish what they do and begin nothing new.
    pub calm: Cell<bool>,
}

impl std::ops::Deref for World {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl World {
    /// A world without machines.
    pub fn new(seed: u64, traits: Traits, server: MemoryServer, net: Net, trace: Trace) -> Self {
        let ledger = Arc::new(Mutex::new(Ledger::new(trace.clone(), traits.timeout)));
        let seen = ledger.clone();
        server.observe(move |commit| lock(&seen).commit(commit));
        Self(Rc::new(Inner {
            traits,
            x: Executor::new(),
            server,
            trace,
            net,
            ledger,
            begun: Instant::now(),
            machines: RefCell::default(),
            next_group: Cell::new(1),
            next_stream: Cell::new(0),
            rng: RefCell::new(SmallRng::seed_from_u64(seed ^ 0x5eed_0001)),
            acting: RefCell::default(),
            fuses: RefCell::default(),
            caught: watch::Sender::new(BTreeMap::new()),
            calm: Cell::new(false),
        }))
    }

    /// Adds a machine for `node`. A twin has a name of its own, and perhaps a copy of the state directory.
    pub fn add_machine(&self, node: &str, label: &str, token: &str) -> Rc<Machine> {
        let mut rng = self.rng.borrow_mut();
        let ahead_ms = match rng.random_range(0..3) {
            0 => 0,
            1 => rng.random_range(-3_600_000..3_600_000),
            _ => rng.random_range(-36_000_000..36_000_000),
        };
        let clock = Arc::new(MachineClock {
            begun: self.begun,
            up_since: Duration::from_millis(rng.random_range(1000..1_000_000)),
            ahead_ms,
        });
        let machine = Rc::new(Machine {
            node: node.to_owned(),
            label: label.to_owned(),
            clock,
            token: token.to_owned(),
            boot_id: format!("boot-{label}"),
            starts: Cell::new(0),
            wanted: Cell::new(false),
            process: RefCell::new(None),
            seen: RefCell::default(),
        });
        self.machines.borrow_mut().push(machine.clone());
        machine
    }

    /// Every machine, twins included.
    pub fn machines(&self) -> Vec<Rc<Machine>> {
        self.machines.borrow().clone()
    }

    /// The machine of that label.
    pub fn machine(&self, label: &str) -> Option<Rc<Machine>> {
        self.machines.borrow().iter().find(|m| m.label == label).cloned()
    }

    /// What was written, and what was wrong with it.
    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    /// A generator of its own for some part of the run.
    pub fn fork_rng(&self) -> SmallRng {
        SmallRng::seed_from_u64(self.rng.borrow_mut().random())
    }

    /// A new number of a report stream.
    pub fn next_stream(&self) -> u64 {
        self.next_stream.set(self.next_stream.get() + 1);
        self.next_stream.get()
    }

    /// A new process number.
    pub fn new_group(&self, name: &str) -> Group {
        let group = self.next_group.get();
        self.next_group.set(group + 1);
        self.trace.name(group, name);
        group
    }

    /// Starts the daemon, unless it runs.
    pub fn start(&self, machine: &Rc<Machine>) {
        machine.wanted.set(true);
        if machine.process.borrow().is_some() {
            return;
        }
        let starts = machine.starts.get() + 1;
        machine.starts.set(starts);
        let group = self.new_group(&machine.label);
        let run = format!("{}-run-{starts}", machine.label);
        self.trace.say(&machine.label, format!("starts (number {starts})"));
        let me = Me {
            node: machine.node.clone(),
            cluster: CLUSTER.to_owned(),
            cluster_id: "5151".to_owned(),
            address: address(&machine.node),
            http_address: format!("{}:7601", machine.label),
            boot_id: machine.boot_id.clone(),
            token: machine.token.clone(),
            run: run.clone(),
            started_ms: machine.clock.wall_ms(),
        };
        let (shared, tx) = Shared::new(me, machine.clock.clone());
        let connector = MemoryConnector::new(&self.server, &machine.label, machine.clock.clone(), self.traits.timeout)
            .with_spawner(self.x.spawner(group));
        let mut connector: Arc<dyn Connector> = Arc::new(connector);
        if let Some(weaken) = self.traits.weaken {
            connector = weakened(connector, weaken);
        }
        let options = Options {
            bootstrap: (machine.label == "n1").then(|| bootstrap(EPOCH_MS)),
            facts: Facts {
                capacity: Resources {
                    cpu_milli: 4000,
                    memory: 8 << 30,
                    disk: 100 << 30,
                },
                os: "simulated".to_owned(),
                pid: if self.traits.sees_dead { NO_PROCESS } else { 0 },
            },
            zookeeper: Vec::new(),
        };
        {
            let mut ledger = self.ledger();
            let token = machine.token.clone();
            ledger.runs.insert(run.clone(), Run { token, alive: true });
            ledger.clients.insert(machine.label.clone(), run);
        }
        *machine.process.borrow_mut() = Some(Rc::new(Process {
            group,
            shared: shared.clone(),
        }));
        agent::spawn(self, machine, group, &shared);
        let (world, machine) = (self.clone(), machine.clone());
        self.x.spawn(group, async move {
            let ended = Box::pin(session::run(connector, shared, tx, options)).await;
            world.ended(&machine, group, &ended);
        });
    }

    /// A daemon ended by itself.
    fn ended(&self, machine: &Rc<Machine>, group: Group, ended: &Result<(), controlplane::error::ApiError>) {
        match ended {
            Ok(()) => self.trace.say(&machine.label, "ends"),
            Err(e) => {
                self.trace.say(&machine.label, format!("ends: {e}"));
                if e.code.id != codes::NAME_IN_USE.id {
                    self.ledger().wrong(format!("{} ended by itself: {e}", machine.label));
                }
            }
        }
        self.bury(machine, group);
        if ended.is_err() {
            let (world, machine) = (self.clone(), machine.clone());
            self.x.spawn(0, async move {
                tokio::time::sleep(Duration::from_millis(500)).await;
                if machine.wanted.get() {
                    world.start(&machine);
                }
            });
        }
    }

    fn bury(&self, machine: &Machine, group: Group) {
        *machine.process.borrow_mut() = None;
        let mut ledger = self.ledger();
        let run = ledger.clients.get(&machine.label).cloned();
        if let Some(run) = run.and_then(|run| ledger.runs.get_mut(&run)) {
            run.alive = false;
        }
        drop(ledger);
        if let Some(term) = self.acting.borrow_mut().remove(&group) {
            self.trace.say(&machine.label, format!("no longer acts (term {term})"));
        }
        self.x.kill(group);
    }

    /// Ends every process, so that nothing holds anything of the run any more.
    pub fn demolish(&self) {
        for group in 0..self.next_group.get() {
            self.x.kill(group);
        }
        self.x.kill(FAULTS);
        for group in CLIENTS..CLIENTS + 100 {
            self.x.kill(group);
        }
        self.machines.borrow_mut().clear();
    }

    /// Kills the daemon, if it runs.
    pub fn crash(&self, machine: &Machine) {
        machine.wanted.set(false);
        if let Some(process) = machine.process() {
            self.trace.say(&machine.label, "killed");
            self.bury(machine, process.group);
        }
    }

    /// The process that acts as master on the machine where another daemon believes the master to be.
    pub fn master_handle(&self) -> Option<Handle> {
        let entries: Vec<Rc<Process>> = self
            .machines()
            .iter()
            .filter_map(|m| m.process())
            .filter(|p| !self.x.is_paused(p.group))
            .collect();
        if entries.is_empty() {
            return None;
        }
        let entry = &entries[self.rng.borrow_mut().random_range(0..entries.len())];
        let holder = entry.shared.master.borrow().holder.clone()?;
        if !self.net.is_up(&entry.shared.me.node, &holder.node) {
            return None;
        }
        self.handle_on(&holder.node)
    }

    /// The master's handle on that node's machine, if its daemon acts.
    pub fn handle_on(&self, node: &str) -> Option<Handle> {
        let machines = self.machines();
        let mut processes = machines.iter().filter(|m| m.node == node).filter_map(|m| m.process());
        processes.find_map(|p| p.shared.handle.borrow().clone())
    }

    /// The process that acts on that node.
    pub fn acting_on(&self, node: &str) -> Option<Rc<Process>> {
        let machines = self.machines();
        let mut processes = machines.iter().filter(|m| m.node == node).filter_map(|m| m.process());
        processes.find(|p| p.shared.handle.borrow().is_some())
    }

    /// The machine whose daemon acts as master and whose lease holds.
    pub fn master(&self) -> Option<Rc<Machine>> {
        self.machines()
            .into_iter()
            .find(|m| acts_on(m, self.traits.timeout).is_some())
    }

    /// How many act as master.
    pub fn masters(&self) -> usize {
        self.machines
            .borrow()
            .iter()
            .filter(|m| acts_on(m, self.traits.timeout).is_some())
            .count()
    }

    /// Checks what must hold at every moment. `polled` is the process that may have changed.
    ///
    /// # Errors
    /// The first violation.
    pub fn check(&self, polled: Group) -> Result<(), String> {
        if polled != 0 && polled < FAULTS {
            self.check_masters(polled);
        }
        let mut ledger = self.ledger();
        if let Some(violation) = &ledger.violation {
            return Err(violation.clone());
        }
        let mut sprung = std::mem::take(&mut ledger.sprung);
        drop(ledger);
        self.fuses.borrow_mut().retain(|number, client| {
            let waits = self.server.ordered(client) > 0;
            if !waits {
                let (number, client) = (*number, client.clone());
                sprung.push(Sprung { number, client });
            }
            waits
        });
        for Sprung { number, client } in sprung {
            // It is stopped before it can do anything more; whoever set the trap goes on from there.
            if let Some(process) = self.machine(&client).and_then(|m| m.process()) {
                self.x.pause(process.group);
            }
            self.caught.send_modify(|caught| drop(caught.insert(number, client)));
        }
        Ok(())
    }

    /// Has a machine caught as soon as every fault that was ordered for its requests has befallen one.
    pub fn light_fuse(&self, number: u32, label: &str) {
        self.fuses.borrow_mut().insert(number, label.to_owned());
    }

    /// Takes every trap away that waits on the server's faults.
    pub fn douse_fuses(&self) {
        self.fuses.borrow_mut().clear();
    }

    /// Waits until a trap has caught somebody, who stands still then; the machine's label.
    pub async fn caught(&self, number: u32) -> String {
        let mut caught = self.caught.subscribe();
        loop {
            if let Some(label) = caught.borrow_and_update().get(&number) {
                return label.clone();
            }
            // The sender lives as long as this value.
            let _ = caught.changed().await;
        }
    }

    fn check_masters(&self, polled: Group) {
        let machines = self.machines.borrow();
        let runs = |m: &Machine| m.process.borrow().as_ref().is_some_and(|p| p.group == polled);
        let Some(machine) = machines.iter().find(|m| runs(m)) else {
            return;
        };
        let before = self.acting.borrow().get(&polled).copied();
        let now = acts_on(machine, self.traits.timeout);
        if now != before {
            match now {
                Some(term) => self.trace.say(&machine.label, format!("acts as master (term {term})")),
                None => self
                    .trace
                    .say(&machine.label, format!("no longer acts (term {})", before.unwrap_or(0))),
            }
            let mut acting = self.acting.borrow_mut();
            match now {
                Some(term) => acting.insert(polled, term),
                None => acting.remove(&polled),
            };
        }
        let Some(term) = now else { return };
        for other in machines.iter().filter(|m| !Rc::ptr_eq(m, machine)) {
            if let Some(theirs) = acts_on(other, self.traits.timeout) {
                self.ledger().wrong(format!(
                    "two masters: {} in term {term} and {} in term {theirs}",
                    machine.label, other.label
                ));
            }
        }
    }
}

/// The term in which a machine's daemon acts.
fn acts_on(machine: &Machine, timeout: Duration) -> Option<u64> {
    machine.process.borrow().as_ref().and_then(|p| acts(p, timeout))
}

/// The term in which a process acts: it shows a handle, and on its own clock the lease holds for as long as mastership does.
fn acts(process: &Process, timeout: Duration) -> Option<u64> {
    let term = process.shared.handle.borrow().as_ref()?.term;
    let coordinator = process.shared.coordinator.borrow();
    let lease = *coordinator.as_ref()?.lease().borrow();
    let until = ha_core::lease::mastership_until(lease.until?, timeout);
    (process.shared.clock.boottime() < until).then_some(term)
}

/// A node's address.
pub fn address(node: &str) -> String {
    format!("{node}:7600")
}

fn bootstrap(created_ms: i64) -> Bootstrap {
    let record = |role| UserRecord {
        role,
        serials: vec!["01".to_owned()],
        expires_ms: created_ms + 365 * 24 * 3_600_000,
        created_ms,
        revoked_ms: None,
    };
    Bootstrap {
        user: ("admin".to_owned(), record(Some(AccessRole::Admin))),
        node: record(None),
        created_ms,
    }
}

fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    // A violation found under the lock ends the run by itself.
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}
