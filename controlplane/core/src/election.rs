//! Who leads: a candidate's next step, from the queue of candidates and the `master` record.
//!
//! The record's holder leads while its election znode exists. Otherwise the candidate that a transfer names leads, and
//! otherwise the first in the queue. Raising the term by compare-and-set is what makes a candidate master: the queue only
//! decides who tries. Each candidate watches one other: the holder if it is next in line, its predecessor otherwise.

use crate::model::MasterRecord;

/// What a candidate does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Its own election znode is missing: create one.
    Enqueue,
    /// Raise the term and lead.
    Raise,
    /// Wait until this election znode or the `master` record changes.
    Wait {
        /// The election znode to watch.
        on: String,
    },
}

/// The queue position in an election znode's name, `c-<uuid>-<counter>`.
pub fn position(candidate: &str) -> Option<u64> {
    let (head, counter) = candidate.rsplit_once('-')?;
    (head.starts_with("c-") && counter.len() == 10).then(|| counter.parse().ok())?
}

/// The candidates in order of the queue. Names that are not candidacies are left out.
pub fn queue(children: &[String]) -> Vec<&str> {
    let mut queue: Vec<(u64, &str)> = children
        .iter()
        .filter_map(|c| Some((position(c)?, c.as_str())))
        .collect();
    queue.sort_unstable();
    queue.into_iter().map(|(_, c)| c).collect()
}

/// Decides the next step of the candidate `me`. `record` must have been read before `children`.
pub fn decide(me: &str, children: &[String], record: &MasterRecord) -> Step {
    let queue = queue(children);
    let Some(mine) = queue.iter().position(|c| *c == me) else {
        return Step::Enqueue;
    };
    let alive = |c: &str| queue.contains(&c);
    let leader = match (&record.transfer, &record.holder) {
        (Some(t), _) if alive(&t.candidate) => t.candidate.as_str(),
        (Some(_), _) => queue[0],
        (None, Some(h)) if alive(&h.candidate) => h.candidate.as_str(),
        (None, _) => queue[0],
    };
    if leader == me {
        return Step::Raise;
    }
    // The first of the others stands in for the leader and watches it; everybody else watches the one before.
    let predecessor = queue[..mine].iter().rev().find(|c| **c != leader);
    Step::Wait {
        on: predecessor.copied().unwrap_or(leader).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Holder, Transfer};
    use proptest::prelude::*;

    fn name(i: u64) -> String {
        format!("c-{:08x}-{i:010}", i.wrapping_mul(2_654_435_761) & 0xffff_ffff)
    }

    fn holder(c: &str) -> Option<Holder> {
        Some(Holder {
            node: "x".into(),
            candidate: c.into(),
            address: "a:1".into(),
            since_ms: 0,
        })
    }

    #[test]
    fn the_first_leads_an_empty_record() {
        let c = [name(7), name(2), name(5)];
        let record = MasterRecord::default();
        assert_eq!(decide(&name(2), &c, &record), Step::Raise);
        assert_eq!(decide(&name(5), &c, &record), Step::Wait { on: name(2) });
        assert_eq!(decide(&name(7), &c, &record), Step::Wait { on: name(5) });
        assert_eq!(decide(&name(9), &c, &record), Step::Enqueue);
    }

    #[test]
    fn a_living_holder_keeps_its_place_wherever_it_stands() {
        let c = [name(1), name(2), name(3)];
        let record = MasterRecord {
            holder: holder(&name(3)),
            ..Default::default()
        };
        assert_eq!(decide(&name(3), &c, &record), Step::Raise);
        assert_eq!(decide(&name(1), &c, &record), Step::Wait { on: name(3) });
        assert_eq!(decide(&name(2), &c, &record), Step::Wait { on: name(1) });
        assert_eq!(decide(&name(1), &c[..2], &record), Step::Raise);
    }

    #[test]
    fn a_transfer_prefers_its_target_and_survives_its_loss() {
        let t = Transfer {
            node: "t".into(),
            candidate: name(3),
        };
        let record = MasterRecord {
            transfer: Some(t),
            ..Default::default()
        };
        let c = [name(1), name(2), name(3)];
        assert_eq!(decide(&name(1), &c, &record), Step::Wait { on: name(3) });
        assert_eq!(decide(&name(3), &c, &record), Step::Raise);
        assert_eq!(decide(&name(1), &c[..2], &record), Step::Raise);
    }

    proptest! {
        /// Whatever the record says, exactly one candidate leads, and following the watches of the others always ends at
        /// it: so its loss wakes somebody.
        #[test]
        fn exactly_one_leads_and_every_watch_leads_to_it(
            ids in proptest::collection::btree_set(0u64..50, 1..12), h in 0u64..50, t in proptest::option::of(0u64..50)
        ) {
            let children: Vec<String> = ids.iter().map(|i| name(*i)).collect();
            let record = MasterRecord {
                holder: holder(&name(h)),
                transfer: t.map(|t| Transfer { node: "t".into(), candidate: name(t) }),
                ..Default::default()
            };
            let steps: std::collections::BTreeMap<_, _> =
                children.iter().map(|c| (c.clone(), decide(c, &children, &record))).collect();
            prop_assert_eq!(steps.values().filter(|s| **s == Step::Raise).count(), 1);
            for c in &children {
                let mut at = c.clone();
                let mut hops = 0;
                while let Step::Wait { on } = &steps[&at] {
                    at = on.clone();
                    hops += 1;
                    prop_assert!(hops <= children.len());
                }
                prop_assert_eq!(&steps[&at], &Step::Raise);
            }
        }
    }
}
