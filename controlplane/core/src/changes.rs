//! The numbered change log: what a crash left out of it, and what may leave it.
//!
//! A master makes one change at a time: it sets the value with the change embedded, then appends the entry named by the
//! change's number. So at most one entry is ever missing, and the value that lacks it says what it was.

use crate::model::{Change, change_seq};

/// Entries kept in the log.
pub const KEEP: u64 = 4096;
/// Entries trimmed at once, so that trimming is rare.
pub const TRIM_STEP: u64 = 256;

/// The number of the newest entry among a log's znode names; 0 if there is none.
pub fn tail(names: &[String]) -> u64 {
    names.iter().filter_map(|n| change_seq(n)).max().unwrap_or(0)
}

/// The entries that values embed and the log lacks, in order: those numbered after `tail`.
pub fn missing<'a>(embedded: impl IntoIterator<Item = &'a Change>, tail: u64) -> Vec<Change> {
    let mut missing: Vec<Change> = embedded.into_iter().filter(|c| c.seq > tail).cloned().collect();
    missing.sort_by_key(|c| c.seq);
    missing.dedup_by_key(|c| c.seq);
    missing
}

/// The numbers that may leave the log, oldest first; empty until [`TRIM_STEP`] have piled up.
pub fn trimmable(names: &[String], keep: u64) -> Vec<u64> {
    let tail = tail(names);
    let mut seqs: Vec<u64> = names
        .iter()
        .filter_map(|n| change_seq(n))
        .filter(|s| s + keep <= tail)
        .collect();
    if (seqs.len() as u64) < TRIM_STEP {
        return Vec::new();
    }
    seqs.sort_unstable();
    seqs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FORMAT, Severity, change_name};
    use proptest::prelude::*;

    fn change(seq: u64) -> Change {
        Change {
            v: FORMAT,
            seq,
            time_ms: 0,
            kind: "k".into(),
            subject: "s".into(),
            severity: Severity::Info,
            text: String::new(),
            before: serde_json::Value::Null,
            after: serde_json::Value::Null,
            cause: String::new(),
            actor: "master".into(),
            term: 1,
            request: String::new(),
            write: String::new(),
        }
    }

    #[test]
    fn names_round_trip() {
        assert_eq!(change_seq(&change_name(42)), Some(42));
        for hostile in ["c-", "c-42", "x-000000000042", "c-00000000004x", "c-0000000000421"] {
            assert_eq!(change_seq(hostile), None, "{hostile}");
        }
    }

    proptest! {
        #[test]
        fn what_is_missing_continues_the_log(embedded in proptest::collection::vec(1u64..40, 0..20), tail in 0u64..40) {
            let changes: Vec<Change> = embedded.iter().map(|s| change(*s)).collect();
            let missing = missing(&changes, tail);
            prop_assert!(missing.windows(2).all(|w| w[0].seq < w[1].seq));
            for s in &embedded {
                prop_assert_eq!(missing.iter().any(|c| c.seq == *s), *s > tail);
            }
        }

        #[test]
        fn trimming_keeps_the_newest(first in 1u64..1000, count in 0u64..600, keep in 1u64..400) {
            let names: Vec<String> = (first..first + count).map(change_name).collect();
            let out = trimmable(&names, keep);
            let newest = tail(&names);
            prop_assert!(out.iter().all(|s| s + keep <= newest));
            prop_assert!(out.is_empty() || out.len() as u64 >= TRIM_STEP);
            prop_assert!(out.windows(2).all(|w| w[0] < w[1]));
        }
    }
}
