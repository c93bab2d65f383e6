//! The order of changes, whatever comes in: by hand, and by any interleaving of pieces.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

pub(crate) fn change(seq: u64) -> Change {
    let mut c = gap_entry(seq, seq, "", 0);
    c.kind = "node.online".into();
    c.after = serde_json::Value::Null;
    c
}

fn seqs(applied: &Applied) -> Vec<u64> {
    applied.changes.iter().map(|c| c.seq).collect()
}

fn streamed(seqs: impl IntoIterator<Item = u64>) -> Input {
    Input::Streamed(seqs.into_iter().map(change).collect())
}

#[test]
fn begins_where_the_master_stands() {
    let mut a = Applier::new(None);
    assert_eq!(a.want(), None);
    assert_eq!(
        a.apply(Input::Tail(41), 0),
        Applied {
            began: Some(41),
            ..Applied::default()
        }
    );
    assert_eq!((a.cursor(), a.want()), (Some(41), None));
    assert_eq!(seqs(&a.apply(streamed([42, 43]), 0)), [42, 43]);
}

#[test]
fn begins_with_what_is_streamed_first() {
    let mut a = Applier::new(None);
    let applied = a.apply(streamed([42, 43]), 0);
    assert_eq!((applied.began, seqs(&applied)), (Some(41), vec![42, 43]));
    assert_eq!(a.apply(streamed([44]), 0).began, None);
}

#[test]
fn reads_what_lies_between() {
    let mut a = Applier::new(Some(3));
    a.apply(Input::Tail(6), 0);
    assert_eq!(a.want(), Some(Want::Entries { from: 4, to: 6 }));
    assert!(a.apply(streamed([7]), 0).changes.is_empty());
    assert_eq!(a.want(), Some(Want::Entries { from: 4, to: 6 }));
    assert_eq!(
        seqs(&a.apply(Input::Log(Answer::Entries(vec![change(4), change(5)])), 0)),
        [4, 5]
    );
    assert_eq!(a.want(), Some(Want::Entries { from: 6, to: 6 }));
    assert_eq!(seqs(&a.apply(Input::Log(Answer::Entries(vec![change(6)])), 0)), [6, 7]);
    assert_eq!(a.want(), None);
    assert!(a.apply(streamed([5, 6, 7]), 0).changes.is_empty(), "repeated");
}

#[test]
fn what_was_trimmed_becomes_one_entry() {
    let mut a = Applier::new(Some(3));
    a.apply(Input::Tail(20), 0);
    let applied = a.apply(Input::Log(Answer::Trimmed { kept: 11 }), 77);
    assert_eq!(seqs(&applied), [10]);
    let gap = &applied.changes[0];
    assert_eq!(
        (gap.kind.as_str(), gap.text.as_str(), gap.time_ms),
        (LOG_GAP, "changes 4 to 10 are no longer kept", 77)
    );
    assert_eq!(gap.after, serde_json::json!({"from": 4, "to": 10}));
    assert_eq!(a.want(), Some(Want::Entries { from: 11, to: 20 }));
    // A late answer changes nothing.
    assert!(a.apply(Input::Log(Answer::Trimmed { kept: 11 }), 78).changes.is_empty());
}

#[test]
fn a_hole_is_bridged_only_where_it_is() {
    let mut a = Applier::new(Some(3));
    a.apply(Input::Tail(9), 0);
    assert!(
        a.apply(Input::Log(Answer::Hole { from: 6, to: 7 }), 0)
            .changes
            .is_empty(),
        "not at the cursor"
    );
    a.apply(streamed([5]), 0);
    assert_eq!(
        seqs(&a.apply(Input::Log(Answer::Hole { from: 4, to: 6 }), 0)),
        [4, 5],
        "5 was there"
    );
}

#[test]
fn a_deposed_master_is_not_believed() {
    let mut a = Applier::new(Some(50));
    a.apply(Input::Tail(40), 0);
    assert_eq!(a.want(), Some(Want::Newest));
    assert_eq!(a.apply(Input::Log(Answer::Newest(50)), 0), Applied::default());
    assert_eq!((a.cursor(), a.want()), (Some(50), None));
}

#[test]
fn a_log_that_was_started_over_is_followed() {
    let mut a = Applier::new(Some(50));
    a.apply(Input::Tail(10), 0);
    a.apply(streamed([11, 12]), 0);
    let applied = a.apply(Input::Log(Answer::Newest(11)), 0);
    assert_eq!((applied.restarted, seqs(&applied)), (Some(10), vec![11]));
    assert_eq!(applied.changes[0].kind, LOG_GAP);
    assert_eq!(
        a.want(),
        Some(Want::Entries { from: 12, to: 12 }),
        "heard, but after the log was looked at"
    );
    assert_eq!(seqs(&a.apply(Input::Log(Answer::Entries(vec![change(12)])), 0)), [12]);
    assert_eq!(seqs(&a.apply(streamed([13]), 0)), [13]);
}

#[test]
fn a_flood_is_bounded() {
    let mut a = Applier::new(Some(0));
    a.apply(streamed(2..=5000), 0);
    assert_eq!(a.pending.len(), PENDING);
    let applied = a.apply(streamed([1]), 0);
    assert_eq!(applied.changes.len(), PENDING + 1);
    assert_eq!(
        a.want(),
        Some(Want::Entries {
            from: PENDING as u64 + 2,
            to: 5000
        })
    );
}

/// One thing that happens to a node.
#[derive(Debug, Clone)]
enum Step {
    /// The log grows.
    Append(u64),
    /// The oldest entries are trimmed.
    Trim(u64),
    /// A master (perhaps one that lags behind) says where the log ends.
    Welcome(u64),
    /// A piece of the log comes by the stream: from so far before the end, so many, perhaps backwards.
    Stream(u64, u64, bool),
    /// What is wanted is read, as far as this.
    Read(u64),
    /// An answer from before comes once more.
    Stale,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1..6u64).prop_map(Step::Append),
        1 => (0..4u64).prop_map(Step::Trim),
        2 => (0..8u64).prop_map(Step::Welcome),
        4 => (0..12u64, 1..6u64, any::<bool>()).prop_map(|(back, n, rev)| Step::Stream(back, n, rev)),
        3 => (1..5u64).prop_map(Step::Read),
        1 => Just(Step::Stale),
    ]
}

/// A node's view of a log that holds `kept..=end`.
struct World {
    applier: Applier,
    kept: u64,
    end: u64,
    seen: Vec<Change>,
    last_answer: Option<Answer>,
}

impl World {
    fn apply(&mut self, input: Input) {
        let applied = self.applier.apply(input, 0);
        assert_eq!(applied.restarted, None);
        self.seen.extend(applied.changes);
    }

    fn answer(&mut self, most: u64) {
        let answer = match self.applier.want() {
            None => return,
            Some(Want::Newest) => Answer::Newest(self.end),
            Some(Want::Entries { from, .. }) if from > self.end => Answer::NotYet,
            Some(Want::Entries { from, .. }) if from < self.kept => Answer::Trimmed { kept: self.kept },
            Some(Want::Entries { from, to }) => {
                Answer::Entries((from..=to.min(self.end).min(from + most - 1)).map(change).collect())
            }
        };
        // Where the log ends is asked anew each time; entries and what is known of them stay as they are.
        if !matches!(answer, Answer::Newest(_)) {
            self.last_answer = Some(answer.clone());
        }
        self.apply(Input::Log(answer));
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Append(n) => self.end += n,
            Step::Trim(n) => self.kept = (self.kept + n).min(self.end + 1),
            Step::Welcome(behind) => self.apply(Input::Tail(self.end.saturating_sub(behind))),
            Step::Stream(back, n, backwards) => {
                let from = self.end.saturating_sub(back).max(1);
                let mut batch: Vec<Change> = (from..from + n).filter(|s| *s <= self.end).map(change).collect();
                if backwards {
                    batch.reverse();
                }
                self.apply(Input::Streamed(batch));
            }
            Step::Read(most) => self.answer(most),
            Step::Stale => {
                if let Some(answer) = self.last_answer.clone() {
                    self.apply(Input::Log(answer));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn each_number_once_and_in_order(start in 0..5u64, steps in prop::collection::vec(step(), 1..80)) {
        let mut world = World {
            applier: Applier::new(Some(start)), kept: 1, end: start, seen: Vec::new(), last_answer: None,
        };
        let mut trimmed = 0;
        for step in &steps {
            world.take(step);
            trimmed = world.kept - 1;
        }
        // The faults stop, a master is there: all there is arrives.
        world.apply(Input::Tail(world.end));
        for _ in 0..1000 {
            world.answer(3);
        }
        prop_assert_eq!(world.applier.want(), None);
        prop_assert_eq!(world.applier.cursor(), Some(world.end));
        let mut next = start + 1;
        let mut lost = BTreeSet::new();
        for c in &world.seen {
            if c.kind == LOG_GAP {
                prop_assert_eq!(c.after["from"].as_u64(), Some(next));
                lost.extend(next..=c.seq);
            } else {
                prop_assert_eq!(c.seq, next);
            }
            next = c.seq + 1;
        }
        prop_assert_eq!(next, world.end + 1);
        prop_assert!(lost.iter().all(|s| *s <= trimmed), "only what was trimmed is missing");
    }
}
