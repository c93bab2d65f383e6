//! What happened in a run, one line each, kept only where somebody is going to read it; and a digest that is equal for equal
//! runs, made of all events whether lines are kept or not.

use std::fmt::Arguments;
use std::fmt::Write as _;

use super::world::{N, Time};

/// The lines of one run.
#[derive(Debug, Default)]
pub struct Trace {
    lines: Option<String>,
    digest: u64,
}

impl Trace {
    /// A trace that keeps lines, or one that only digests.
    pub fn new(keep: bool) -> Self {
        Self {
            lines: keep.then(String::new),
            digest: 0xcbf2_9ce4_8422_2325,
        }
    }

    /// Whether lines are kept: what is costly to tell is told only then.
    pub fn keeps(&self) -> bool {
        self.lines.is_some()
    }

    /// Adds a line.
    pub fn say(&mut self, at: Time, who: Option<N>, what: Arguments<'_>) {
        let Some(lines) = &mut self.lines else { return };
        let _ = match who {
            Some(n) => writeln!(lines, "{:>10.4} n{}  {what}", at as f64 / 1e6, n + 1),
            None => writeln!(lines, "{:>10.4} --  {what}", at as f64 / 1e6),
        };
    }

    /// Stirs a number into the digest.
    pub fn stir(&mut self, value: u64) {
        self.digest = (self.digest ^ value)
            .wrapping_mul(0x0000_0100_0000_01b3)
            .rotate_left(23);
    }

    /// Equal for equal runs.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// The lines.
    pub fn take(self) -> String {
        self.lines.unwrap_or_default()
    }
}
