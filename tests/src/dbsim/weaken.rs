//! Rules left out on purpose, one at a time: a simulation that does not notice is not looking.

use ha_core::database::Weaken;

use super::{Options, Outcome, run, run_many};

/// A rule that can be left out.
#[derive(Debug, Clone, Copy)]
pub struct Switch {
    /// Its name.
    pub name: &'static str,
    /// The core without it.
    pub weaken: Weaken,
}

/// Names each switch after its field, so that a new field only has to be listed.
macro_rules! switches {
    ($($field:ident),+ $(,)?) => {
        /// Every rule that can be left out.
        pub fn all() -> Vec<Switch> {
            vec![$(Switch {
                name: stringify!($field),
                weaken: Weaken { $field: true, ..Weaken::default() },
            }),+]
        }
    };
}

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
    grant_no_promotion_wait,
    grant_forgotten,
    grant_from_receipt,
    grant_of_one,
    grant_unrecorded,
    primary_votes,
    joint_one_step,
    rebuild_in_joint,
    joint_forgotten,
);

/// Rules that stand behind another one: leaving one of them out alone lost nothing in any run so far, because the other
/// holds. They are kept, and listed here so that nobody takes them for proved.
///
/// `stale_reads`: names carry the epoch, sealed standbys acknowledge nothing, and a lease ends before its owner is replaced.
/// `no_truncation`: a timeline of a later epoch outranks a late promotion's. `grant_no_promotion_wait`: who is bound answers no
/// seal, and who answers none is not chosen. `joint_one_step`, `rebuild_in_joint`: nothing is chosen that lacks what was acknowledged
/// under the older rules, and a copy replaces a directory only when it is complete.
const SECOND_WALLS: [&str; 5] = [
    "stale_reads",
    "no_truncation",
    "grant_no_promotion_wait",
    "joint_one_step",
    "rebuild_in_joint",
];

/// Rules that any run may miss; the others have a story in [`super::scripts`].
const EVERYWHERE: [&str; 7] = [
    "open_starts",
    "no_show",
    "no_lineage_attach",
    "restart_unasked",
    "primary_votes",
    "joint_forgotten",
    "no_durability",
];

/// Seeds within which a rule that is left out has to be noticed.
const WITHIN: u64 = 8000;

impl Switch {
    /// Leaves the rule out, and goes where that shows.
    pub fn set(&self, options: &mut Options) {
        options.weaken = self.weaken;
        options.bias = (!EVERYWHERE.contains(&self.name)).then_some(self.name);
    }

    /// Whether it stands behind another rule.
    pub fn is_second_wall(&self) -> bool {
        SECOND_WALLS.contains(&self.name)
    }
}

/// Searches for a run that notices that the rule is missing, and is well with the rule kept.
pub fn notice(switch: &Switch) -> Option<Outcome> {
    let mut options = Options::default();
    switch.set(&mut options);
    let whole = Options {
        weaken: Weaken::default(),
        ..options.clone()
    };
    let mut from = 1;
    while from <= WITHIN {
        let totals = run_many(from..=WITHIN, &options, 1);
        let found = totals.failed.into_iter().next()?;
        if run(found.seed, &whole).violation.is_none() {
            return Some(found);
        }
        from = found.seed + 1;
    }
    None
}
