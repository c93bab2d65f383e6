//! The intervals during which each daemon held mastership, from the daemons' own logs, and the proof that no two overlap.
//!
//! All daemons run on one machine, so that their boot-time clocks are one clock.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Mastership of one daemon in one term, ns of the boot-time clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interval {
    /// The daemon.
    pub node: String,
    /// The term.
    pub term: u64,
    /// When it began to act.
    pub from_ns: u64,
    /// When it ended, or up to when it might have acted.
    pub until_ns: u64,
}

/// Reads the intervals in one run's log. `died_ns` is when the process was killed: the dead hold no lease.
///
/// # Errors
/// If the log cannot be read.
pub(super) fn intervals(node: &str, log: &Path, died_ns: Option<u64>) -> Result<Vec<Interval>> {
    let text = fs::read(log).with_context(|| log.display().to_string())?;
    Ok(parse(node, &String::from_utf8_lossy(&text), died_ns))
}

fn parse(node: &str, text: &str, died_ns: Option<u64>) -> Vec<Interval> {
    let mut found: BTreeMap<u64, Interval> = BTreeMap::new();
    for line in text.lines().filter(|l| l.contains("had::lease")) {
        // A killed process may leave half a line.
        let Ok(entry) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        // Flattened or not.
        let fields = if entry["fields"].is_object() {
            &entry["fields"]
        } else {
            &entry
        };
        let message = fields["message"].as_str().unwrap_or_default();
        let number = |name: &str| match &fields[name] {
            Value::String(s) => s.parse::<u64>().ok(),
            n => n.as_u64(),
        };
        let Some(term) = number("term") else { continue };
        if let Some(from_ns) = number("from_ns") {
            found.entry(term).or_insert(Interval {
                node: node.to_owned(),
                term,
                from_ns,
                until_ns: from_ns,
            });
        }
        if let (Some(until), Some(interval)) = (number("until_ns"), found.get_mut(&term)) {
            // What was begun under a lease may go on up to its end; the last line is the truth about when it did end.
            interval.until_ns = if message.contains("ends") {
                until
            } else {
                until.max(interval.until_ns)
            };
        }
    }
    let clip = |mut i: Interval| {
        i.until_ns = i.until_ns.min(died_ns.unwrap_or(u64::MAX)).max(i.from_ns);
        i
    };
    found.into_values().map(clip).collect()
}

/// Fails if two intervals overlap, if two daemons held the same term, or if a later one has a lower term.
///
/// # Errors
/// With the two.
pub fn assert_disjoint(mut all: Vec<Interval>) -> Result<()> {
    all.sort_by_key(|i| (i.from_ns, i.term));
    for pair in all.windows(2) {
        let [a, b] = pair else { continue };
        ensure!(
            a.until_ns <= b.from_ns,
            "two masters at once: {} in term {} up to {} ns, {} in term {} from {} ns ({:.3} ms)",
            a.node,
            a.term,
            a.until_ns,
            b.node,
            b.term,
            b.from_ns,
            (a.until_ns - b.from_ns) as f64 / 1e6,
        );
        ensure!(a.term < b.term, "the terms do not rise: {a:?} then {b:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str, fields: &str) -> String {
        format!("{{\"level\":\"INFO\",\"fields\":{{\"message\":\"{message}\",{fields}}},\"target\":\"had::lease\"}}\n")
    }

    #[test]
    fn a_log_becomes_intervals() {
        let log = line("mastership begins", "\"term\":3,\"from_ns\":\"100\"")
            + "{\"half"
            + "\n"
            + &line("lease extended", "\"term\":3,\"until_ns\":\"500\"")
            + &line("lease extended", "\"term\":3,\"until_ns\":700");
        let one = |until_ns| {
            vec![Interval {
                node: "n1".into(),
                term: 3,
                from_ns: 100,
                until_ns,
            }]
        };
        assert_eq!(parse("n1", &log, None), one(700));
        assert_eq!(parse("n1", &log, Some(600)), one(600));
        let ended = log
            + &line(
                "mastership ends: given up",
                "\"term\":3,\"from_ns\":100,\"until_ns\":650",
            );
        assert_eq!(parse("n1", &ended, None), one(650));
    }

    #[test]
    fn overlaps_are_found() {
        let interval = |node: &str, term, from_ns, until_ns| Interval {
            node: node.into(),
            term,
            from_ns,
            until_ns,
        };
        assert!(assert_disjoint(vec![interval("b", 2, 20, 30), interval("a", 1, 10, 20)]).is_ok());
        assert!(assert_disjoint(vec![interval("a", 1, 10, 21), interval("b", 2, 20, 30)]).is_err());
        assert!(assert_disjoint(vec![interval("a", 2, 10, 20), interval("b", 1, 20, 30)]).is_err());
        assert!(assert_disjoint(vec![interval("a", 2, 10, 20), interval("b", 2, 20, 30)]).is_err());
    }
}
