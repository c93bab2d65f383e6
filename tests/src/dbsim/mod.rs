//! The seeded simulation of the failover protocol: the core's two machines against simulated servers, under faults.
//!
//! A plain loop over a queue of events, without any runtime, so that thousands of runs take seconds. Everything in a run
//! follows from its seed. What is simulated is what the core cannot decide about: PostgreSQL with its walsenders and
//! timelines, ZooKeeper, guards, clocks, links, clients. The decisions are the product's own code.

// What arrives at a handler was taken out of the queue for it.
#![allow(clippy::needless_pass_by_value)]

pub mod act;
pub mod check;
pub mod client;
pub mod daemon;
pub mod faults;
pub mod guard;
pub mod inside;
pub mod lead;
pub mod local;
pub mod postgres;
pub mod replication;
pub mod run;
pub mod scripts;
pub mod search;
pub mod tasks;
pub mod trace;
pub mod wal;
pub mod weaken;
pub mod world;
pub mod zookeeper;

use std::time::Duration;

use ha_core::database::{Durability, GroupSpec, Timing, Weaken};
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use faults::{Planned, Profile};
pub use run::{Outcome, Totals, run, run_many, shrink};
use world::{MS, SECOND, Time, Traits};

/// How a run is to be made.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The rule that is left out.
    pub weaken: Weaken,
    /// What kind of run; drawn where none is given.
    pub profile: Option<Profile>,
    /// Lines are kept.
    pub trace: bool,
    /// The trace is not wanted even of a single seed.
    pub brief: bool,
    /// The rule that is looked for: what makes its absence show is likelier.
    pub bias: Option<&'static str>,
    /// Planned faults that are left out, by number.
    pub without: Vec<usize>,
    /// True time of a quiet run, in seconds; as usual where 0.
    pub seconds: u64,
}

/// What a seed draws before anything runs.
#[derive(Debug, Clone)]
pub struct Scene {
    /// How many nodes.
    pub nodes: usize,
    /// Their names.
    pub names: Vec<String>,
    /// What a commit is worth.
    pub durability: Durability,
    /// The group.
    pub spec: GroupSpec,
    /// The times.
    pub timing: Timing,
    /// The rule that is left out.
    pub weaken: Weaken,
    /// How likely things are.
    pub traits: Traits,
    /// What kind of run.
    pub profile: Profile,
    /// The faults.
    pub plan: Vec<Planned>,
    /// When they are over.
    pub until: Time,
    /// Clocks run by so much differently, in millionths.
    pub drift: i64,
}

impl Scene {
    /// Draws one.
    pub fn draw(rng: &mut SmallRng, options: &Options) -> Self {
        let profile = Profile::draw(rng);
        let profile = options.profile.unwrap_or(profile);
        let nodes = match rng.random_range(0..10) {
            0 => 2,
            1 => 4,
            2 => 5,
            _ => 3,
        };
        let names: Vec<String> = (1..=nodes).map(|n| format!("n{n}")).collect();
        let durability = match rng.random_range(0..10) {
            0 => Durability::Async,
            1 | 2 => Durability::QuorumStrict,
            _ => Durability::Quorum,
        };
        let mut spec = GroupSpec::on(names.iter().map(String::as_str));
        spec.durability = durability;
        spec.limits.degrade_after_ms = rng.random_range(800..4000);
        spec.limits.promote_timeout_ms = 6000;
        spec.limits.stop_timeout_ms = 3000;
        spec.limits.start_timeout_ms = 8000;
        spec.limits.hold_down_ms = 10_000;
        spec.limits.flap_window_ms = 20_000;
        spec.limits.max_switchover_lag = 1000;
        spec.limits.max_failover_lag = 1000;
        let session = Duration::from_millis(rng.random_range(2000..=4000));
        let detect = Duration::from_millis(rng.random_range(1000..=1500));
        let quiet = profile == Profile::Quiet;
        let rare = |rng: &mut SmallRng, often: f64, most: f64| {
            if !quiet && rng.random_bool(often) {
                rng.random_range(0.0..most)
            } else {
                0.0
            }
        };
        let traits = Traits {
            latency: rng.random_range(MS..if quiet { 5 * MS } else { 20 * MS }),
            lossy: rare(rng, 0.3, 0.2),
            doubled: rare(rng, 0.3, 0.2),
            delayed: rare(rng, 0.3, 0.1),
            slow_promotion: rare(rng, 0.3, 0.9),
            lingering: rare(rng, 0.5, 1.0),
            late_reload: rare(rng, 0.4, 0.6),
            deaf_sender: rare(rng, 0.2, 0.3),
            zk_lag: if rng.random_bool(0.3) {
                rng.random_range(0..900 * MS)
            } else {
                5 * MS
            },
            zk_unknown: rare(rng, 0.3, 0.1),
            unseated: rare(rng, 0.1, 0.5),
            clients: if rng.random_bool(0.2) { 60 } else { 3 },
            lazy_fresh: rare(rng, 0.3, 1.0),
            client_every: rng.random_range(15 * MS..80 * MS),
            session: daemon::micros(session),
        };
        let from = if rng.random_bool(0.15) { 0 } else { 5 * SECOND };
        let until = from + rng.random_range(4 * SECOND..10 * SECOND);
        let mut plan = faults::draw(rng, profile, from, until);
        if durability == Durability::Async {
            // Without a quorum the lease is all there is, and it assumes that no machine stands still for long.
            plan.retain(|p| !matches!(p.what, faults::What::Freeze(_)));
        }
        let until = if options.seconds > 0 {
            options.seconds * SECOND
        } else {
            until
        };
        // Leases assume clocks that run alike; a quorum assumes nothing of them.
        let drift = match durability {
            Durability::Async => 300,
            Durability::Quorum | Durability::QuorumStrict if rng.random_bool(0.1) => 100_000,
            Durability::Quorum | Durability::QuorumStrict => 500,
        };
        let mut scene = Self {
            nodes,
            names,
            durability,
            spec,
            timing: Timing::new(session, detect),
            weaken: options.weaken,
            traits,
            profile,
            plan,
            until,
            drift,
        };
        if let Some(bias) = options.bias {
            scripts::bend(rng, &mut scene, bias);
        }
        let mut number = 0;
        scene.plan.retain(|_| {
            number += 1;
            !options.without.contains(&(number - 1))
        });
        scene
    }
}

/// The generator of a seed.
pub fn generator(seed: u64) -> SmallRng {
    SmallRng::seed_from_u64(seed)
}
