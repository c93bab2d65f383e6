//! The simulation of the failover protocol: many seeds, exact replay, quiet hours, proof that it notices each rule that is
//! left out, and a small world searched to its end.
//!
//! `HA_DBSIM_SEEDS=1-100000` or `HA_DBSIM_SEEDS=17` chooses other seeds; `make sim DB=1 SEEDS=17` shows one with its trace.

#![allow(clippy::unwrap_used)]

use ha_core::database::Weaken;
use ha_tests::dbsim::faults::Profile;
use ha_tests::dbsim::search::{Bounds, search};
use ha_tests::dbsim::weaken::{self, Noticed};
use ha_tests::dbsim::{self, Options, Outcome, Totals};

/// Seeds of a usual run.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=20_000;
/// Failing seeds after which no more are run.
const ENOUGH: usize = 5;

fn seeds() -> std::ops::RangeInclusive<u64> {
    let Ok(text) = std::env::var("HA_DBSIM_SEEDS") else {
        return SEEDS;
    };
    let (first, last) = text.split_once('-').unwrap_or((&text, &text));
    first.parse().unwrap()..=last.parse().unwrap()
}

fn complaints(totals: &Totals) -> String {
    let failed: Vec<String> = totals.failed.iter().map(Outcome::complaint).collect();
    failed.join("\n")
}

#[test]
fn dbsim_loses_no_commit_and_heals() {
    let totals = dbsim::run_many(seeds(), &Options::default(), ENOUGH);
    println!("{}", totals.summary());
    assert!(totals.failed.is_empty(), "\n{}", complaints(&totals));
}

#[test]
fn dbsim_without_faults_never_fails_over() {
    // An hour of simulated time.
    let options = Options {
        profile: Some(Profile::Quiet),
        seconds: 60,
        ..Options::default()
    };
    let totals = dbsim::run_many(1..=60, &options, ENOUGH);
    println!("{}", totals.summary());
    assert!(totals.failed.is_empty(), "\n{}", complaints(&totals));
    assert_eq!(totals.primaries, totals.runs);
    assert!(totals.seconds >= 3600);
}

#[test]
fn dbsim_replays_exactly() {
    for seed in 1..=100 {
        let (one, two) = (
            dbsim::run(seed, &Options::default()),
            dbsim::run(seed, &Options::default()),
        );
        assert_eq!(
            (one.digest, one.events),
            (two.digest, two.events),
            "seed {seed} went another way"
        );
    }
}

#[test]
fn dbsim_notices_each_rule_left_out() {
    let mut wrong = Vec::new();
    for switch in weaken::all() {
        match weaken::notice(&switch) {
            Noticed::By(found) => println!("{}: {}", switch.name, found.complaint()),
            Noticed::Nothing => wrong.push(format!("{} is left out and not noticed", switch.name)),
            Noticed::Alone(found) => wrong.push(format!(
                "{} is said to stand behind another rule, and is noticed without that: {}",
                switch.name,
                found.complaint()
            )),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn dbsim_search_finds_no_way_to_lose_a_commit() {
    let found = search(Bounds::usual(), Weaken::default());
    println!(
        "{} states in {} steps, up to {} steps deep",
        found.states, found.steps, found.depth
    );
    assert!(found.violation.is_none(), "{:#?}", found.violation);
    assert!(found.exhausted && found.states > 10_000, "{found:?}");
}

#[test]
fn dbsim_search_notices_rules_left_out() {
    let wanted = [
        ("no_durability", Bounds::deep()),
        ("no_receiver_end", Bounds::unheard()),
        ("open_starts", Bounds::deep()),
    ];
    for (name, bounds) in wanted {
        let switch = weaken::all().into_iter().find(|s| s.name == name).unwrap();
        let found = search(bounds, switch.weaken);
        let (violation, way) = found.violation.unwrap_or_else(|| panic!("{name} was not noticed"));
        println!("{name}: {violation}, by {}", way.join(", "));
    }
}
