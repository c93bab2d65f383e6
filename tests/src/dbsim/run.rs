//! A run from its seed to its end: build the group, disturb it, heal, and see that all is well; and many of them.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rand::Rng as _;

use super::faults::Profile;
use super::world::{Event, MS, SECOND, Time, World};
use super::{Options, Scene, generator};

/// After the faults everything must be well within so long.
const WELL_WITHIN: Time = 90 * SECOND;
/// And stay well for so long.
const STAYS_WELL: Time = SECOND;

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The rule that did not hold.
    pub violation: Option<String>,
    /// What happened, one line each, where lines were kept.
    pub trace: String,
    /// Equal for equal runs.
    pub digest: u64,
    /// Faults that were planned.
    pub faults: usize,
    /// Events.
    pub events: u64,
    /// Primaries that became steady.
    pub primaries: u64,
    /// Commits that clients were told of.
    pub acknowledged: u64,
    /// True time of the run.
    pub time: Time,
    /// True time from the end of the faults until everything was well.
    pub healed: Time,
    /// What kind of run it was, in words.
    pub scene: String,
}

/// Runs one seed.
pub fn run(seed: u64, options: &Options) -> Outcome {
    let mut rng = generator(seed);
    let scene = Scene::draw(&mut rng, options);
    let until = scene.until;
    let words = format!(
        "{:?}, {} nodes, {:?}, T {:?}, detect {:?}",
        scene.profile, scene.nodes, scene.durability, scene.timing.session_timeout, scene.timing.detect
    );
    let quiet = scene.profile == Profile::Quiet;
    let faults = scene.plan.len();
    let mut world = World::new(rng.random(), scene, options.trace);
    let traits = world.traits;
    world.say(None, format_args!("{words}, {traits:?}"));
    world.begin_all();
    world.run_until(until);
    let before = world.zk.truth().record.state.epoch;
    if world.check.violation.is_none() {
        world.heal();
    }
    let mut healed = 0;
    let mut well_since = None;
    while world.check.violation.is_none() {
        let next = world.now + 250 * MS;
        world.run_until(next);
        let missing = world.missing();
        match (&missing, well_since) {
            (None, None) => {
                healed = world.now - until;
                well_since = Some(world.now);
            }
            (None, Some(since)) if world.now >= since + STAYS_WELL => break,
            (None, Some(_)) => {}
            (Some(_), _) => well_since = None,
        }
        if let Some(missing) = missing
            && world.now > until + WELL_WITHIN
        {
            let instances = world.describe();
            world.wrong(format!(
                "not well {} s after the faults: {missing}\n{instances}",
                WELL_WITHIN / SECOND
            ));
        }
    }
    if quiet
        && world.check.violation.is_none()
        && (world.check.primaries > 1 || before != world.zk.truth().record.state.epoch)
    {
        let primaries = world.check.primaries;
        world.wrong(format!("{primaries} primaries without any fault"));
    }
    Outcome {
        seed,
        violation: world.check.violation.clone(),
        digest: world.trace.digest(),
        faults,
        events: world.events,
        primaries: world.check.primaries,
        acknowledged: world.check.acknowledged,
        time: world.now,
        healed,
        scene: words,
        trace: std::mem::take(&mut world.trace).take(),
    }
}

impl World {
    fn begin_all(&mut self) {
        for n in 0..self.machines.len() {
            let drift = self.scene.drift;
            let machine = &mut self.machines[n];
            machine.up = true;
            machine.drift = self.rng.random_range(-drift..=drift);
            machine.offset = self.rng.random_range(SECOND..1000 * SECOND);
            machine.wall_offset = 1_700_000_000 * SECOND + self.rng.random_range(0..SECOND);
            let after = self.between(0, 300 * MS);
            self.after(after, Event::StartDaemon(n));
            self.after(after, Event::Client(n));
        }
        for index in 0..self.scene.plan.len() {
            let at = self.scene.plan[index].at;
            self.after(at, Event::Fault(index * 2));
        }
    }

    /// Where each instance stands, for people.
    pub fn describe(&self) -> String {
        let mut lines = Vec::new();
        for n in 0..self.machines.len() {
            let instance = &self.pg[n];
            let phase = instance
                .server
                .as_ref()
                .map(|s| (s.phase, s.conf, s.receiver.map(|r| r.from + 1), s.refused));
            let daemon = self.daemons[n].as_ref();
            let waits = daemon.map(|d| d.waits.clone());
            lines.push(format!(
                "    n{}: {phase:?} log {:?} torn {} marks {:?} task {:?} failed {:?} waits {waits:?}",
                n + 1,
                instance.disk.flushed,
                instance.disk.torn,
                self.kept[n].marks,
                daemon.and_then(|d| d.task.clone()),
                daemon.and_then(|d| d.failed.clone()),
            ));
        }
        lines.join("\n")
    }
}

impl Outcome {
    /// What to tell of a run that failed: the rule, and the command that shows how it came about.
    pub fn complaint(&self) -> String {
        let violation = self.violation.as_deref().unwrap_or("nothing was wrong");
        format!(
            "seed {} ({}): {violation}\n    replay: make sim DB=1 SEEDS={}",
            self.seed, self.scene, self.seed
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
    /// Faults.
    pub faults: u64,
    /// Events.
    pub events: u64,
    /// Primaries that became steady.
    pub primaries: u64,
    /// Commits acknowledged.
    pub acknowledged: u64,
    /// True time, in seconds.
    pub seconds: u64,
    /// Longest time until everything was well after the faults had ended, and its seed.
    pub slowest: (Time, u64),
    /// Runs that failed, lowest seeds first.
    pub failed: Vec<Outcome>,
}

impl Totals {
    /// One line about all of them.
    pub fn summary(&self) -> String {
        format!(
            "{} runs, {} failed: {} h of simulated time, {} events, {} faults, {} primaries, {} acknowledged commits; all \
             well at the latest {:.1} s after the faults ended (seed {})",
            self.runs,
            self.failed.len(),
            self.seconds / 3600,
            self.events,
            self.faults,
            self.primaries,
            self.acknowledged,
            self.slowest.0 as f64 / 1e6,
            self.slowest.1,
        )
    }

    fn add(&mut self, outcome: Outcome) {
        self.runs += 1;
        self.faults += outcome.faults as u64;
        self.events += outcome.events;
        self.primaries += outcome.primaries;
        self.acknowledged += outcome.acknowledged;
        self.seconds += outcome.time / SECOND;
        self.slowest = self.slowest.max((outcome.healed, outcome.seed));
        if outcome.violation.is_some() {
            self.failed.push(outcome);
        }
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
            lock().add(outcome);
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
