//! The master's machine: from the spec, the record and what is observed, the next record.
//!
//! It never acts: whatever is to happen stands in the record it returns, and agents act on the record they read. One
//! decision changes one thing. What it must never do: name a primary while another could still acknowledge, or one that
//! may lack an acknowledged commit.

use super::observed::{Decision, Memory, Observed};
use super::record::GroupState;
use super::spec::GroupSpec;
use super::{Timing, Weaken};

/// Decides what becomes of a group.
pub fn decide(
    spec: &GroupSpec,
    record: &GroupState,
    observed: &Observed,
    memory: &mut Memory,
    timing: &Timing,
    weaken: &Weaken,
) -> Decision {
    let _ = (spec, record, observed, memory, timing, weaken);
    Decision::default()
}

/// Why there is no failover, or what the group waits for: one line for the group, then one an instance.
pub fn explain(spec: &GroupSpec, record: &GroupState, observed: &Observed, memory: &Memory, timing: &Timing) -> Vec<String> {
    let mut memory = memory.clone();
    decide(spec, record, observed, &mut memory, timing, &Weaken::default()).reasons
}
