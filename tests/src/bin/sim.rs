//! The seeded simulation by hand: `sim 1-10000` runs many seeds, `sim 17` one with its whole trace.

use std::process::ExitCode;
use std::time::Instant;

use ha_tests::sim::{self, Options, Weaken};

const USAGE: &str = "usage: sim SEED | FIRST-LAST [--calm] [--brief] [--weaken RULE] [--shrink]";

fn main() -> ExitCode {
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
