//! An instance's machine: from the record that it read and its own PostgreSQL, the next steps.
//!
//! Every step that cannot be taken back (start as a primary, promote, open) wants a fresh read of the record (R2) and a
//! lease. A step back (seal, stop, close) needs neither. The steps of one decision are independent of each other; what
//! must follow something else is ordered only once that was seen done.

mod action;
mod follow;
mod lead;
mod seal;
mod tell;

use std::time::Duration;

pub use action::{Action, MemberDecision, StartAs};
pub use tell::report;

use super::local::{Local, RecordRead};
use super::spec::GroupSpec;
use super::{Timing, Weaken};

/// All that an instance decides upon.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// Its own PostgreSQL.
    pub local: &'a Local,
    /// The record, if it could be read.
    pub record: Option<&'a RecordRead>,
    /// The spec, if it could be read.
    pub spec: Option<&'a GroupSpec>,
    /// Now, on this machine's monotonic clock.
    pub now: Duration,
    /// The times.
    pub timing: &'a Timing,
    /// Rules left out; none in the product.
    pub weaken: &'a Weaken,
}

/// Decides what an instance does next.
pub fn decide(situation: &Situation<'_>) -> MemberDecision {
    let _ = situation;
    MemberDecision::default()
}
