//! The seeded simulation: a cluster of real daemons' code on the in-memory coordinator, under faults, in virtual time.
//!
//! Everything in a run follows from its seed: who is there, what is asked, what fails when, and in which order futures are
//! polled. A run ends with the first rule that does not hold; [`run`] says which. Nothing here may know how the daemons
//! reach what they must reach: it looks at what was written, at who acts, and at what subscribers were handed.

pub mod agent;
pub mod client;
pub mod end;
pub mod executor;
pub mod faults;
pub mod ledger;
pub mod net;
pub mod trace;
pub mod watcher;
pub mod weaken;
pub mod world;

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use controlplane::coordination::{FaultPlan, MemoryServer};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::sleep;

use client::Clients;
use end::{End, Watched};
use faults::{Director, Planned};
use net::Net;
use trace::Trace;
pub use weaken::Weaken;
use world::{CLIENTS, FAULTS, Traits, World};

/// How a run is to be made.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// No faults, no requests but those that build the cluster.
    pub calm: bool,
    /// The rule that every daemon breaks.
    pub weaken: Option<Weaken>,
    /// The daemons' own log is part of the trace.
    pub verbose: bool,
    /// Planned faults that are left out, by number.
    pub without: Vec<usize>,
}

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The rule that did not hold.
    pub violation: Option<String>,
    /// What happened, one line each.
    pub trace: String,
    /// Equal for equal runs.
    pub digest: u64,
    /// Faults that were planned.
    pub faults: usize,
    /// Terms that began.
    pub terms: u64,
    /// Entries in the change log.
    pub changes: u64,
    /// Requests that were answered.
    pub requests: usize,
    /// Virtual time.
    pub time: Duration,
    /// Virtual time from the end of the faults until everything was well.
    pub healed: Duration,
    /// How often futures were polled.
    pub polls: u64,
}

/// Runs one seed.
pub fn run(seed: u64, options: &Options) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => panic!("no runtime: {e}"),
    };
    // What is still running when a violation ends the run is dropped inside the runtime.
    runtime.block_on(simulate(seed, options))
}

async fn simulate(seed: u64, options: &Options) -> Outcome {
    let trace = Trace::new();
    let log = options
        .verbose
        .then(|| tracing::subscriber::set_default(trace.subscriber()));
    let mut rng = SmallRng::seed_from_u64(seed);
    let scene = Scene::draw(&mut rng, options);
    let net = Net::new(SmallRng::seed_from_u64(rng.random()), scene.latency.clone());
    let server = MemoryServer::with_faults(rng.random(), scene.usual.clone());
    let world = World::new(rng.random(), scene.traits.clone(), server, net, trace.clone());
    let clients = Clients::new(&world);
    let healed: Rc<RefCell<Duration>> = Rc::default();
    let main = play(world.clone(), clients.clone(), scene.clone(), healed.clone());
    let checked = world.clone();
    let ended = world
        .x
        .run(rng.random(), main, move |polled| checked.check(polled))
        .await;
    let violation = match ended {
        Ok(()) => world.ledger().violation.clone(),
        Err(e) => Some(e),
    };
    let (terms, changes) = {
        let ledger = world.ledger();
        (ledger.terms, ledger.tail())
    };
    let outcome = Outcome {
        seed,
        violation,
        trace: trace.text(),
        digest: trace.digest(),
        faults: scene.plan.len(),
        terms,
        changes,
        requests: clients.asked.borrow().len(),
        time: trace.elapsed(),
        healed: *healed.borrow(),
        polls: world.x.polls(),
    };
    drop(log);
    world.demolish();
    outcome
}

/// What a seed draws before anything runs.
#[derive(Clone)]
struct Scene {
    traits: Traits,
    nodes: Vec<String>,
    latency: std::ops::Range<Duration>,
    usual: FaultPlan,
    plan: Vec<Planned>,
    until: Duration,
    operators: u32,
}

impl Scene {
    fn draw(rng: &mut SmallRng, options: &Options) -> Self {
        let timeout = Duration::from_secs(rng.random_range(2..=4));
        let nodes: Vec<String> = (1..=rng.random_range(3..=5)).map(|n| format!("n{n}")).collect();
        let ms = Duration::from_millis;
        let slow = if rng.random_bool(0.2) {
            rng.random_range(5..60)
        } else {
            rng.random_range(2..5)
        };
        let usual = FaultPlan {
            delay: ms(1)..ms(slow),
            ..FaultPlan::default()
        };
        let lag = if rng.random_bool(0.2) {
            rng.random_range(1..800)
        } else {
            0
        };
        let usual = FaultPlan {
            read_lag: Duration::ZERO..ms(lag),
            ..usual
        };
        let until = ms(rng.random_range(4000..14_000));
        let mut plan = faults::draw(rng, &nodes, timeout, until);
        let mut number = 0;
        plan.retain(|_| {
            number += 1;
            !options.calm && !options.without.contains(&(number - 1))
        });
        // A copy of the state directory is told from the original by its heartbeats only.
        let copies = plan.iter().any(|p| matches!(&p.what, faults::What::Twin(_, true, _)));
        let quick = plan.iter().any(|p| matches!(&p.what, faults::What::Overtaken(..)));
        let sees_dead = rng.random_bool(0.5) || quick;
        Self {
            traits: Traits {
                timeout,
                sees_dead: sees_dead && !copies,
                lossy: if rng.random_bool(0.3) {
                    rng.random_range(0.0..0.3)
                } else {
                    0.0
                },
                weaken: options.weaken,
            },
            nodes,
            latency: ms(0)..ms(rng.random_range(1..30)),
            usual,
            plan,
            until,
            operators: if options.calm { 0 } else { rng.random_range(1..4) },
        }
    }
}

/// The run itself: build, disturb, heal, and see that all is well.
async fn play(world: World, clients: Clients, scene: Scene, healed: Rc<RefCell<Duration>>) {
    let x = world.x.clone();
    let mut rng = world.fork_rng();
    for node in &scene.nodes {
        let machine = world.add_machine(node, node, &format!("token-{node}"));
        let world = world.clone();
        let after = Duration::from_millis(rng.random_range(0..1500));
        x.spawn(FAULTS, async move {
            sleep(after).await;
            world.start(&machine);
        });
    }
    let mut group = CLIENTS;
    let mut client = |name: &str| {
        group += 1;
        world.trace.name(group, name);
        group
    };
    // The cluster is built by somebody who adds its nodes one by one.
    {
        let (clients, nodes, mut rng) = (clients.clone(), scene.nodes.clone(), world.fork_rng());
        x.spawn(client("builder"), async move {
            for node in nodes.iter().skip(1) {
                clients.add(&mut rng, node, true).await;
            }
        });
    }
    for n in 1..=scene.operators {
        let wander = clients.clone().wander(world.fork_rng(), scene.nodes.clone());
        x.spawn(client(&format!("op{n}")), wander);
    }
    let watched = Watched::default();
    x.spawn(
        client("follower"),
        clients
            .clone()
            .follow("the follower".to_owned(), watched.followed.clone()),
    );
    x.spawn(
        client("watcher"),
        watcher::watch(world.clone(), "the watcher".to_owned(), watched.folded.clone()),
    );
    let director = Director {
        world: world.clone(),
        clients: clients.clone(),
        usual: scene.usual.clone(),
    };
    x.spawn(FAULTS, director.run(scene.plan.clone()));
    sleep(scene.until).await;
    let end = End {
        world,
        clients,
        nodes: scene.nodes,
        usual: scene.usual,
        watched,
    };
    *healed.borrow_mut() = end.heal_and_check(rng).await;
}

impl Outcome {
    /// What to tell of a run that failed: the rule, and the command that shows how it came about.
    pub fn complaint(&self) -> String {
        let violation = self.violation.as_deref().unwrap_or("nothing was wrong");
        format!(
            "seed {}: {violation}\n    replay: make sim SEEDS={}",
            self.seed, self.seed
        )
    }
}

/// The planned faults, by number, without which a seed fails all the same.
pub fn shrink(seed: u64, options: &Options) -> Vec<usize> {
    let first = run(seed, options);
    let mut without = options.without.clone();
    if first.violation.is_none() {
        return without;
    }
    for number in 0..first.faults + without.len() {
        let mut fewer = without.clone();
        fewer.push(number);
        let options = Options {
            without: fewer.clone(),
            ..options.clone()
        };
        if run(seed, &options).violation.is_some() {
            without = fewer;
        }
    }
    without
}

/// What came of many seeds.
#[derive(Debug, Default, Clone)]
pub struct Totals {
    /// Runs made.
    pub runs: u64,
    /// Faults, terms, changes, requests in all of them.
    pub faults: u64,
    /// Terms.
    pub terms: u64,
    /// Changes.
    pub changes: u64,
    /// Requests answered.
    pub requests: u64,
    /// Virtual time.
    pub time: Duration,
    /// Longest virtual time until everything was well after the faults had ended, and its seed.
    pub slowest: (Duration, u64),
    /// Runs that failed, lowest seeds first.
    pub failed: Vec<Outcome>,
}

impl Totals {
    /// One line about all of them.
    pub fn summary(&self) -> String {
        format!(
            "{} runs, {} failed: {} h of virtual time, {} faults, {} terms, {} changes, {} requests; all well at the \
             latest {:.1} s after the faults ended (seed {})",
            self.runs,
            self.failed.len(),
            self.time.as_secs() / 3600,
            self.faults,
            self.terms,
            self.changes,
            self.requests,
            self.slowest.0.as_secs_f64(),
            self.slowest.1,
        )
    }
}

/// Runs many seeds on all cores; stops early once `enough` of them have failed.
pub fn run_many(seeds: RangeInclusive<u64>, options: &Options, enough: usize) -> Totals {
    let next = AtomicU64::new(*seeds.start());
    let totals = Mutex::new(Totals::default());
    let lock = || totals.lock().unwrap_or_else(PoisonError::into_inner);
    let worker = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > *seeds.end() || lock().failed.len() >= enough {
                return;
            }
            let outcome = run(seed, options);
            let mut t = lock();
            t.runs += 1;
            t.faults += outcome.faults as u64;
            t.terms += outcome.terms;
            t.changes += outcome.changes;
            t.requests += outcome.requests as u64;
            t.time += outcome.time;
            t.slowest = t.slowest.max((outcome.healed, seed));
            if outcome.violation.is_some() {
                t.failed.push(outcome);
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(worker);
        }
    });
    let mut totals = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
    totals.failed.sort_by_key(|o| o.seed);
    totals
}
