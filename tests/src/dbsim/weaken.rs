//! Rules left out on purpose, one at a time: a simulation that does not notice is not looking.

use ha_core::database::Weaken;

use super::{Options, Outcome, run, run_many};

/// A rule that can be left out.
#[derive(Debug, Clone)]
pub struct Switch {
    /// Its name.
    pub name: &'static str,
    /// The core without it.
    pub weaken: Weaken,
    /// Where it stands behind another rule, which is left out with it: runs have to be well where one of the two is kept.
    /// The first of these lacks this rule alone, of which no run may notice anything.
    pub kept: Vec<Weaken>,
}

/// Leaves a rule out and keeps another one.
macro_rules! without {
    ($field:ident without $kept:ident) => {
        Weaken {
            $field: true,
            $kept: false,
            ..Weaken::default()
        }
    };
}

/// Names each switch after its field, so that a new field only has to be listed.
macro_rules! switches {
    ($($field:ident $(behind $other:ident)? $(beside $twin:ident)?),+ $(,)?) => {
        /// Every rule that can be left out, a second wall together with the wall before it.
        pub fn all() -> Vec<Switch> {
            vec![$(Switch {
                name: stringify!($field),
                weaken: Weaken { $field: true, $($other: true,)? $($twin: true,)? ..Weaken::default() },
                kept: vec![
                    $(without!($field without $other),)?
                    $(without!($field without $twin), without!($twin without $field),)?
                ],
            }),+]
        }
    };
}

// Leaving one of the two out alone cannot lose anything, and docs/protocol-databases.md says why ("Second walls"). Behind:
// the other rule left out alone is noticed too, for it alone carries this one. Beside: each holds what the other lets by.
switches!(
    open_starts,
    no_show,
    no_flush,
    no_durability,
    no_receiver_end,
    no_truncation,
    no_lineage_rank,
    no_lineage_attach,
    stale_reads,
    postmaster_is_proof,
    restart_unasked,
    absence_is_over,
    grant_no_seal_wait,
    grant_no_promotion_wait behind grant_no_seal_wait,
    grant_forgotten,
    grant_from_receipt,
    grant_of_one,
    grant_unrecorded,
    primary_votes,
    joint_one_step,
    rebuild_in_joint beside torn_answers,
    torn_answers,
    standby_stop_answers,
    joint_forgotten,
);

/// Rules that any run may miss; the others have a story in [`super::scripts`].
const EVERYWHERE: [&str; 5] = [
    "open_starts",
    "no_lineage_attach",
    "primary_votes",
    "joint_forgotten",
    "no_durability",
];

/// Seeds in which a second wall that is left out alone has to go unnoticed.
const WALLS: u64 = 1000;
/// Seeds within which a rule that is left out has to be noticed.
const WITHIN: u64 = 8000;

impl Switch {
    /// Leaves the rule out, and goes where that shows.
    pub fn set(&self, options: &mut Options) {
        options.weaken = self.weaken;
        options.bias = (!EVERYWHERE.contains(&self.name)).then_some(self.name);
    }
}

/// What came of leaving a rule out.
#[derive(Debug)]
pub enum Noticed {
    /// This run, which is well with the rule kept.
    By(Outcome),
    /// No run.
    Nothing,
    /// The rule is said to stand behind another one, and this run notices that it is missing while the other is kept.
    Alone(Outcome),
}

/// Searches for a run that notices that the rule is missing, and is well with the rule kept, or the one it stands behind.
pub fn notice(switch: &Switch) -> Noticed {
    let mut options = Options::default();
    switch.set(&mut options);
    let with = |weaken: Weaken| Options {
        weaken,
        ..options.clone()
    };
    if let Some(alone) = switch.kept.first() {
        let totals = run_many(1..=WALLS, &with(*alone), 1);
        if let Some(found) = totals.failed.into_iter().next() {
            return Noticed::Alone(found);
        }
    }
    let mut wells = switch.kept.clone();
    wells.push(Weaken::default());
    let mut from = 1;
    while from <= WITHIN {
        let Some(found) = run_many(from..=WITHIN, &options, 1).failed.into_iter().next() else {
            break;
        };
        if wells.iter().all(|w| run(found.seed, &with(*w)).violation.is_none()) {
            return Noticed::By(found);
        }
        from = found.seed + 1;
    }
    Noticed::Nothing
}
