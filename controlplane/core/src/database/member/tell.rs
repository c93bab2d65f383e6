//! What an instance tells the master: made of the same observations its own decisions are made of.

use super::Situation;
use crate::database::local::Report;

/// The report.
pub fn report(situation: &Situation<'_>) -> Report {
    Report {
        node: situation.local.node.clone(),
        ..Report::default()
    }
}
