//! The simulated world: true time, a queue of events, machines with clocks of their own, links that can be cut one way,
//! guards. It decides nothing: what the programs decide is theirs, what fails is [`super::faults`]'.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::Arguments;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use super::postgres::{Inside, Instance};
use super::replication::Stream;
use super::trace::Trace;
use super::wal::Tree;

/// True time, in microseconds.
pub type Time = u64;
/// A machine, and the instance on it.
pub type N = usize;
/// A millisecond.
pub const MS: Time = 1000;
/// A second.
pub const SECOND: Time = 1_000_000;

/// Something that happens at a time.
#[derive(Debug)]
pub enum Event {
    /// A planned fault begins or ends.
    Fault(usize),
    /// Inside the server of this incarnation.
    Inside(N, u32, Inside),
    /// On a replication connection.
    Stream(Stream),
    /// A receiver may have heard nothing for too long.
    Silence(N, u32),
    /// A client commits.
    Client(N),
    /// A guard looks at its deadline.
    Guard(N),
    /// For the daemon of this life.
    Daemon(N, u32, super::daemon::Wake),
    /// At the ZooKeeper servers.
    ZooKeeper(Box<super::zookeeper::Request>),
    /// A session may have expired.
    Expiry(u32),
    /// A daemon is started, by whatever restarts daemons.
    StartDaemon(N),
    /// A node comes back.
    Boot(N),
    /// A guard sees that its postmaster is dead.
    Noticed(N),
}

struct Queued {
    at: Time,
    number: u64,
    event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// A process of its own that outlives the daemon: the parent of the server.
#[derive(Debug, Clone, Copy, Default)]
pub struct Guard {
    /// It runs.
    pub alive: bool,
    /// Deadline on the machine's clock; none where the server needs no lease.
    pub deadline: Option<Time>,
    /// An earlier look at the deadline is still to come.
    pub armed: bool,
}

/// A machine.
#[derive(Debug, Default)]
pub struct Machine {
    /// It has power.
    pub up: bool,
    /// Its clock runs so much faster, in millionths.
    pub drift: i64,
    /// Its clock was here when the run began.
    pub offset: Time,
    /// Its wall clock was here when the run began.
    pub wall_offset: Time,
    /// Everything on it stands still until then.
    pub frozen_until: Time,
    /// Its daemon stands still until then.
    pub daemon_frozen_until: Time,
    /// The guard.
    pub guard: Guard,
    /// Lives of its daemon so far.
    pub lives: u32,
}

/// How likely things are in a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Traits {
    /// A message between machines takes up to so long.
    pub latency: Time,
    /// A remote call is lost.
    pub lossy: f64,
    /// A remote call arrives twice.
    pub doubled: f64,
    /// A remote call is much later than others.
    pub delayed: f64,
    /// A promotion takes long.
    pub slow_promotion: f64,
    /// Children outlive a killed postmaster.
    pub lingering: f64,
    /// A walsender reads a configuration late.
    pub late_reload: f64,
    /// A walsender hardly ever reads one.
    pub deaf_sender: f64,
    /// A ZooKeeper server lags up to so much behind.
    pub zk_lag: Time,
    /// The answer of ZooKeeper is lost.
    pub zk_unknown: f64,
    /// Mastership changes hands as soon as the record was written, wherever the group stands then.
    pub unseated: f64,
    /// Commits of one server that may wait at a time.
    pub clients: usize,
    /// What was read by R2 comes a while after what a lagging server says.
    pub lazy_fresh: f64,
    /// Between two commits of a client.
    pub client_every: Time,
    /// The session timeout T.
    pub session: Time,
}

impl Traits {
    /// Nothing goes wrong any more.
    pub fn calm(&mut self) {
        *self = Self {
            latency: self.latency.min(5 * MS),
            zk_lag: self.zk_lag.min(20 * MS),
            client_every: self.client_every,
            clients: self.clients,
            session: self.session,
            ..Self::default()
        };
    }
}

/// See the module.
pub struct World {
    /// True time.
    pub now: Time,
    queue: BinaryHeap<Reverse<Queued>>,
    numbers: u64,
    /// Everything that is drawn comes from here.
    pub rng: SmallRng,
    /// What happened.
    pub trace: Trace,
    /// How likely things are.
    pub traits: Traits,
    /// The machines.
    pub machines: Vec<Machine>,
    /// Their database instances.
    pub pg: Vec<Instance>,
    /// Their daemons.
    pub daemons: Vec<Option<super::daemon::Daemon>>,
    /// What their daemons keep on disk.
    pub kept: Vec<super::daemon::Kept>,
    /// ZooKeeper.
    pub zk: super::zookeeper::ZooKeeper,
    /// The truth about logs.
    pub tree: Tree,
    /// Links that are cut, from the first to the second.
    pub cuts: Vec<(N, N)>,
    /// Replication connections so far.
    pub connections: u32,
    /// What must hold.
    pub check: super::check::Check,
    /// What is asked of the run.
    pub scene: super::Scene,
    /// Events so far.
    pub events: u64,
    /// What operators ask for.
    pub requests: Vec<ha_core::database::observed::Request>,
    /// The cluster is in maintenance.
    pub maintenance: bool,
    /// Writes and requests so far, for their numbers.
    pub writes: u64,
    /// Whom each planned fault struck.
    pub struck: Vec<(N, N)>,
}

impl World {
    /// A world of machines that are off.
    pub fn new(seed: u64, scene: super::Scene, keep_trace: bool) -> Self {
        let n = scene.nodes;
        Self {
            now: 0,
            queue: BinaryHeap::with_capacity(256),
            numbers: 0,
            rng: SmallRng::seed_from_u64(seed),
            trace: Trace::new(keep_trace),
            traits: scene.traits,
            machines: (0..n).map(|_| Machine::default()).collect(),
            pg: (0..n).map(|_| Instance::default()).collect(),
            daemons: (0..n).map(|_| None).collect(),
            kept: (0..n).map(|_| super::daemon::Kept::default()).collect(),
            zk: super::zookeeper::ZooKeeper::new(n),
            tree: Tree::default(),
            cuts: Vec::new(),
            connections: 0,
            check: super::check::Check::default(),
            struck: vec![(0, 0); scene.plan.len()],
            scene,
            events: 0,
            requests: Vec::new(),
            maintenance: false,
            writes: 0,
        }
    }

    /// Schedules an event.
    pub fn after(&mut self, delay: Time, event: Event) {
        self.numbers += 1;
        let (at, number) = (self.now + delay, self.numbers);
        self.queue.push(Reverse(Queued { at, number, event }));
    }

    /// Runs until a time, or until something was wrong.
    pub fn run_until(&mut self, end: Time) {
        while self.check.violation.is_none() {
            match self.queue.peek() {
                Some(Reverse(next)) if next.at <= end => {}
                _ => break,
            }
            let Some(Reverse(queued)) = self.queue.pop() else { break };
            self.now = queued.at;
            let frozen = self.frozen_until(&queued.event);
            if frozen > self.now {
                // Its number keeps its place among what waits with it.
                self.queue.push(Reverse(Queued { at: frozen, ..queued }));
                continue;
            }
            self.events += 1;
            self.trace.stir(self.now ^ (queued.number << 40));
            self.happen(queued.event);
        }
        if self.check.violation.is_none() {
            self.now = self.now.max(end);
        }
    }

    fn frozen_until(&self, event: &Event) -> Time {
        match event {
            Event::Inside(n, ..) | Event::Silence(n, _) | Event::Client(n) | Event::Guard(n) | Event::Noticed(n) => {
                self.machines[*n].frozen_until
            }
            Event::Stream(Stream::Log { to, .. } | Stream::Confirm { to, .. } | Stream::Closed { to, .. }) => {
                self.machines[*to].frozen_until
            }
            Event::Stream(Stream::KeepAlive { from, .. }) => self.machines[*from].frozen_until,
            Event::Daemon(n, ..) => {
                let m = &self.machines[*n];
                m.frozen_until.max(m.daemon_frozen_until)
            }
            Event::StartDaemon(n) => self.machines[*n].frozen_until,
            Event::Fault(_) | Event::ZooKeeper(_) | Event::Expiry(_) | Event::Boot(_) => 0,
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Fault(index) => self.fault(index),
            Event::Inside(n, incarnation, what) => self.on_inside(n, incarnation, what),
            Event::Stream(what) => self.on_stream(what),
            Event::Silence(n, connection) => self.on_silence(n, connection),
            Event::Client(n) => self.client(n),
            Event::Guard(n) => self.guard_looks(n),
            Event::Daemon(n, life, wake) => self.daemon_wakes(n, life, wake),
            Event::ZooKeeper(request) => self.zookeeper(*request),
            Event::Expiry(session) => self.expire(session),
            Event::StartDaemon(n) => self.start_daemon(n),
            Event::Boot(n) => self.boot(n),
            Event::Noticed(n) => self.guard_notices(n),
        }
    }

    /// A line of the trace.
    pub fn say(&mut self, who: Option<N>, what: Arguments<'_>) {
        if self.trace.keeps() {
            let now = self.now;
            self.trace.say(now, who, what);
        }
    }

    /// A rule did not hold. The first one ends the run.
    pub fn wrong(&mut self, what: String) {
        self.say(None, format_args!("VIOLATION: {what}"));
        self.check.violation.get_or_insert(what);
    }

    /// A number of `low..high`.
    pub fn between(&mut self, low: Time, high: Time) -> Time {
        self.rng.random_range(low..high.max(low + 1))
    }

    /// True with this probability.
    pub fn chance(&mut self, p: f64) -> bool {
        p > 0.0 && self.rng.random_bool(p.min(1.0))
    }

    /// How long a message travels.
    pub fn latency(&mut self) -> Time {
        let most = self.traits.latency;
        self.between(MS / 10, most)
    }

    /// Whether messages from one machine to another are lost.
    pub fn cut(&self, from: N, to: N) -> bool {
        !self.machines[from].up || !self.machines[to].up || self.cuts.contains(&(from, to))
    }

    /// Whether everything on a machine stands still.
    pub fn is_frozen(&self, n: N) -> bool {
        self.machines[n].frozen_until > self.now
    }

    /// CLOCK_BOOTTIME of a machine.
    pub fn clock(&self, n: N) -> Time {
        let m = &self.machines[n];
        let drift = self.now as i64 * m.drift / 1_000_000;
        (m.offset as i64 + self.now as i64 + drift) as Time
    }

    /// True time that passes while a machine's clock advances by so much.
    pub fn true_span(&self, n: N, span: Time) -> Time {
        let drift = self.machines[n].drift;
        (span as i64 - span as i64 * drift / 1_000_000).max(0) as Time
    }
}
