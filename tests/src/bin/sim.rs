//! The seeded simulations by hand: `sim 1-10000` runs many seeds, `sim 17` one with its whole trace; `sim db 17` is the
//! simulation of the database protocol.

use std::process::ExitCode;
use std::time::Instant;

use ha_tests::dbsim;
use ha_tests::sim::{self, Options, Weaken};

const USAGE: &str = "usage: sim [db] SEED | FIRST-LAST [--calm] [--brief] [--weaken RULE] [--shrink]";

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("db") {
        return database();
    }
    match arguments() {
        Ok((first, last, options, flags)) => go(first, last, &options, &flags),
        Err(e) => {
            eprintln!("{e}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

#[derive(Default)]
struct Flags {
    brief: bool,
    shrink: bool,
}

fn arguments() -> Result<(u64, u64, Options, Flags), String> {
    let (mut options, mut flags, mut seeds) = (Options::default(), Flags::default(), None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--calm" => options.calm = true,
            "--brief" => flags.brief = true,
            "--shrink" => flags.shrink = true,
            "--weaken" => {
                let name = arguments.next().unwrap_or_default();
                let known = Weaken::ALL.into_iter().find(|w| format!("{w:?}") == name);
                options.weaken = Some(known.ok_or_else(|| format!("rules: {:?}", Weaken::ALL))?);
            }
            text => {
                let (first, last) = text.split_once('-').unwrap_or((text, text));
                let number = |t: &str| t.parse::<u64>().map_err(|e| format!("{t:?}: {e}"));
                seeds = Some((number(first)?, number(last)?));
            }
        }
    }
    let (first, last) = seeds.ok_or("which seeds?")?;
    Ok((first, last, options, flags))
}

fn go(first: u64, last: u64, options: &Options, flags: &Flags) -> ExitCode {
    if first == last {
        let mut options = options.clone();
        if flags.shrink {
            options.without = sim::shrink(first, &options);
        }
        options.verbose = !flags.brief;
        let outcome = sim::run(first, &options);
        print!("{}", outcome.trace);
        println!(
            "seed {first}: {} s of virtual time, {} faults, {} terms, {} changes, well after {:.1} s, {} polls",
            outcome.time.as_secs(),
            outcome.faults,
            outcome.terms,
            outcome.changes,
            outcome.healed.as_secs_f64(),
            outcome.polls,
        );
        return match outcome.violation {
            Some(violation) => {
                println!("VIOLATION: {violation}");
                ExitCode::FAILURE
            }
            None => ExitCode::SUCCESS,
        };
    }
    let begun = Instant::now();
    let totals = sim::run_many(first..=last, options, 20);
    println!("{} in {:.1} s", totals.summary(), begun.elapsed().as_secs_f64());
    for failed in &totals.failed {
        println!("{}", failed.complaint());
    }
    if totals.failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// `sim db`.
fn database() -> ExitCode {
    let (mut options, mut seeds, mut shrink) = (dbsim::Options::default(), None, false);
    let mut arguments = std::env::args().skip(2);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--calm" => options.profile = Some(dbsim::faults::Profile::Quiet),
            "--brief" => options.brief = true,
            "--shrink" => shrink = true,
            "--weaken" => {
                let name = arguments.next().unwrap_or_default();
                let Some(switch) = dbsim::weaken::all().into_iter().find(|s| s.name == name) else {
                    let names: Vec<&str> = dbsim::weaken::all().iter().map(|s| s.name).collect();
                    eprintln!("rules: {}", names.join(" "));
                    return ExitCode::from(2);
                };
                switch.set(&mut options);
            }
            text => {
                let (first, last) = text.split_once('-').unwrap_or((text, text));
                seeds = first.parse::<u64>().ok().zip(last.parse::<u64>().ok());
            }
        }
    }
    let Some((first, last)) = seeds else {
        eprintln!("which seeds?\n{USAGE}");
        return ExitCode::from(2);
    };
    let begun = Instant::now();
    if first != last {
        let totals = dbsim::run_many(first..=last, &options, 20);
        println!("{} in {:.1} s", totals.summary(), begun.elapsed().as_secs_f64());
        totals
            .failed
            .iter()
            .for_each(|failed| println!("{}", failed.complaint()));
        return ExitCode::from(u8::from(!totals.failed.is_empty()));
    }
    if shrink {
        options.without = dbsim::shrink(first, &options);
    }
    options.trace = !options.brief;
    let outcome = dbsim::run(first, &options);
    print!("{}", outcome.trace);
    println!(
        "seed {first} ({}): {:.1} s of simulated time, {} events, {} faults, {} primaries, {} acknowledged commits, well \
         after {:.1} s",
        outcome.scene,
        outcome.time as f64 / 1e6,
        outcome.events,
        outcome.faults,
        outcome.primaries,
        outcome.acknowledged,
        outcome.healed as f64 / 1e6,
    );
    match outcome.violation {
        Some(violation) => {
            println!("VIOLATION: {violation}");
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}
