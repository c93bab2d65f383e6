//! Rules of durability: how many standbys, when enough of them answered, when a rule may be left (protocol R4 to R7, step 5).

use super::record::{Nodes, Rule};
use super::spec::Durability;

/// How many of `voters` must flush a commit: a majority of the voters and the primary, the primary having it anyway.
/// With `need` of `voters`, writes go on while voters − need are gone, and a failover succeeds while need − 1 are.
pub fn need(voters: usize, durability: Durability) -> u32 {
    match durability {
        Durability::Async => 0,
        Durability::Quorum => u32::try_from(voters.div_ceil(2)).unwrap_or(u32::MAX),
        Durability::QuorumStrict => u32::try_from(voters.div_ceil(2).max(1)).unwrap_or(u32::MAX),
    }
}

/// How many voters of a rule must have answered so that every commit acknowledged under it is among the answers:
/// |voters| − need + 1. None if no number of answers says anything, because the rule asks nobody.
pub fn enough(rule: &Rule) -> Option<usize> {
    let need = rule.need as usize;
    (need > 0).then(|| (rule.voters.len() + 1).saturating_sub(need))
}

/// Whether these answers are enough under one rule.
pub fn answered(rule: &Rule, answers: &Nodes) -> bool {
    enough(rule).is_some_and(|n| rule.voters.intersection(answers).count() >= n)
}
