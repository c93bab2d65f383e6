//! Rules left out on purpose, one at a time: a simulation that does not notice is not looking.

use ha_core::database::Weaken;

use super::faults::Profile;
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

/// Where a rule is most likely to be missed, and how many seeds may be needed.
#[derive(Debug, Clone, Copy)]
struct Search {
    profiles: &'static [Profile],
    seeds: u64,
}

impl Switch {
    /// Leaves the rule out.
    pub fn set(&self, options: &mut Options) {
        options.weaken = self.weaken;
        options.bias = Some(self.name);
    }

    fn search(&self) -> Search {
        let profiles: &'static [Profile] = match self.name {
            name if name.starts_with("grant_") => &[Profile::Links],
            "no_receiver_end" | "no_truncation" | "no_lineage_rank" | "no_lineage_attach" | "no_durability" => {
                &[Profile::Failover, Profile::Storm]
            }
            "no_flush" | "no_show" | "joint_one_step" | "rebuild_in_joint" | "joint_forgotten" | "primary_votes" => {
                &[Profile::Voters, Profile::Storm]
            }
            _ => &[Profile::Failover, Profile::Storm, Profile::Links, Profile::Voters],
        };
        Search { profiles, seeds: 4000 }
    }
}

/// Searches for a run that notices that the rule is missing.
pub fn notice(switch: &Switch) -> Option<Outcome> {
    let search = switch.search();
    for profile in search.profiles {
        let mut options = Options {
            profile: Some(*profile),
            ..Options::default()
        };
        switch.set(&mut options);
        let whole = Options {
            weaken: Weaken::default(),
            ..options.clone()
        };
        let mut from = 1;
        while from <= search.seeds {
            let totals = run_many(from..=search.seeds, &options, 1);
            let Some(found) = totals.failed.into_iter().next() else {
                break;
            };
            // What goes wrong with the rule kept proves nothing about it.
            if run(found.seed, &whole).violation.is_none() {
                return Some(found);
            }
            from = found.seed + 1;
        }
    }
    None
}
