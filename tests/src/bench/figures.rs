//! Figures and how they are printed.

use std::time::Duration;

/// Several runs of one measurement.
#[derive(Debug, Clone, Default)]
pub(super) struct Figures(Vec<f64>);

impl Figures {
    pub(super) fn push(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64());
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The value below which this share of the runs lies, in seconds.
    pub(super) fn at(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss
        )]
        let index = ((sorted.len().saturating_sub(1)) as f64 * share).round() as usize;
        sorted.get(index).copied().unwrap_or(f64::NAN)
    }

    pub(super) fn median(&self) -> f64 {
        self.at(0.5)
    }

    fn spread(&self) -> String {
        format!(
            "{} to {}, {} runs",
            seconds(self.at(0.0)),
            seconds(self.at(1.0)),
            self.len()
        )
    }
}

/// Seconds or milliseconds, whichever reads better.
pub(super) fn seconds(s: f64) -> String {
    if s < 1.0 {
        format!("{:.1} ms", s * 1000.0)
    } else {
        format!("{s:.2} s")
    }
}

/// One line: what, its median, its goal and whether it is met.
pub(super) fn against_goal(what: &str, figures: &Figures, goal: f64) {
    let mark = if figures.median() <= goal { "met" } else { "MISSED" };
    let (median, spread) = (seconds(figures.median()), figures.spread());
    println!(
        "  {what:<44} {median:>10}   goal {:>9}  {mark:<6}  ({spread})",
        seconds(goal)
    );
}

/// One line of a value that is not a time.
pub(super) fn value(what: &str, measured: f64, unit: &str, goal: f64) {
    let mark = if measured <= goal { "met" } else { "MISSED" };
    println!("  {what:<44} {measured:>7.2} {unit:<4} goal {goal:>6.2} {unit:<3} {mark}");
}

/// One line: what, its median, and the ratio to what it is compared with.
pub(super) fn beside(what: &str, figures: &Figures, other: Option<(&str, &Figures)>) {
    let (median, spread) = (seconds(figures.median()), figures.spread());
    let ratio = other.map_or(String::new(), |(name, o)| {
        format!("   {:.1} times as fast as {name}", o.median() / figures.median())
    });
    println!("  {what:<44} {median:>10}   ({spread}){ratio}");
}

/// Says on what machine all this is measured.
pub(crate) fn machine() {
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let model = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model
        .lines()
        .find_map(|l| l.strip_prefix("model name"))
        .unwrap_or("unknown processor");
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    println!(
        "machine: {cpus} cores,{}; load {load} before the first part",
        model.trim_start_matches([' ', '\t', ':'])
    );
}
