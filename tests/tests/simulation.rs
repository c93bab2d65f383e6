//! The seeded simulation: many seeds, exact replay, and proof that it notices broken rules.
//!
//! `HA_SIM_SEEDS=1-100000` or `HA_SIM_SEEDS=17` chooses other seeds; `make sim SEEDS=17` shows one with its whole trace.

#![allow(clippy::unwrap_used)]

use ha_tests::sim::{self, Options, Totals, Weaken};

/// Seeds of a usual run.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=10_000;
/// Failing seeds after which no more are run.
const ENOUGH: usize = 5;
/// Seeds within which a broken rule has to be noticed.
const NOTICED_WITHIN: u64 = 1000;

fn seeds() -> std::ops::RangeInclusive<u64> {
    let Ok(text) = std::env::var("HA_SIM_SEEDS") else {
        return SEEDS;
    };
    let (first, last) = text.split_once('-').unwrap_or((&text, &text));
    first.parse().unwrap()..=last.parse().unwrap()
}

fn complaints(totals: &Totals) -> String {
    let failed: Vec<String> = totals.failed.iter().map(sim::Outcome::complaint).collect();
    failed.join("\n")
}

#[test]
fn sim_holds_under_faults() {
    let totals = sim::run_many(seeds(), &Options::default(), ENOUGH);
    println!("{}", totals.summary());
    assert!(totals.failed.is_empty(), "\n{}", complaints(&totals));
}

#[test]
fn sim_of_a_calm_cluster_has_one_master() {
    let options = Options {
        calm: true,
        ..Options::default()
    };
    let totals = sim::run_many(1..=100, &options, ENOUGH);
    assert!(totals.failed.is_empty(), "\n{}", complaints(&totals));
    assert_eq!(totals.terms, totals.runs);
}

#[test]
fn sim_replays_exactly() {
    for seed in 1..=200 {
        let (one, two) = (sim::run(seed, &Options::default()), sim::run(seed, &Options::default()));
        if one.digest != two.digest {
            let pairs = one.trace.lines().zip(two.trace.lines());
            let (a, b) = pairs.clone().find(|(a, b)| a != b).unwrap_or_default();
            panic!("seed {seed} went another way:\n{a}\n{b}");
        }
    }
}

#[test]
fn sim_notices_each_broken_rule() {
    for weaken in Weaken::ALL {
        let options = Options {
            weaken: Some(weaken),
            ..Options::default()
        };
        let totals = sim::run_many(1..=NOTICED_WITHIN, &options, 1);
        let Some(first) = totals.failed.first() else {
            panic!("{weaken:?} was not noticed within {NOTICED_WITHIN} seeds");
        };
        println!(
            "{weaken:?}: seed {}: {}",
            first.seed,
            first.violation.as_deref().unwrap_or_default()
        );
    }
}
