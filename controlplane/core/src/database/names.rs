//! `synchronous_standby_names` as this program writes and reads it (protocol R4, R5).
//!
//! A name carries the epoch, so that what is left over from another epoch matches nothing; and an instance that may not
//! acknowledge waits for a standby that never exists. Never empty unless the record says that the primary alone is enough.

use std::collections::BTreeSet;
use std::fmt;

use super::record::{Nodes, Rule};

/// A value of `synchronous_standby_names`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Names {
    /// No commit waits for anybody.
    Empty,
    /// Every commit waits for ever: `ANY 1 (closed)`.
    Closed,
    /// `ANY need ("n2_e7", …)`.
    Any {
        /// How many must have flushed.
        need: u32,
        /// Their epoch.
        epoch: u64,
        /// The nodes.
        voters: Nodes,
    },
    /// Something that this program did not write.
    Other(String),
}

/// The `application_name` under which an instance streams: of the node and the epoch (R4). Base backups and rewinds use
/// none that looks like it.
pub fn application_name(node: &str, epoch: u64) -> String {
    format!("{node}_e{epoch}")
}

/// The node and epoch in an `application_name`.
pub fn parse_application_name(name: &str) -> Option<(&str, u64)> {
    let (node, epoch) = name.rsplit_once("_e")?;
    let plain = epoch.bytes().all(|b| b.is_ascii_digit()) && !epoch.starts_with('0');
    (!node.is_empty() && plain).then(|| Some((node, epoch.parse().ok()?)))?
}

impl Names {
    /// What a rule asks for in an epoch; closed if it has not enough voters.
    pub fn of(rule: &Rule, epoch: u64) -> Self {
        if rule.need == 0 {
            return Self::Empty;
        }
        if rule.voters.len() < rule.need as usize {
            return Self::Closed;
        }
        Self::Any {
            need: rule.need,
            epoch,
            voters: rule.voters.clone(),
        }
    }

    /// Reads a value as `SHOW` prints it.
    pub fn parse(text: &str) -> Self {
        let text = text.trim();
        if text.is_empty() {
            return Self::Empty;
        }
        Self::parse_any(text).unwrap_or_else(|| Self::Other(text.to_owned()))
    }

    fn parse_any(text: &str) -> Option<Self> {
        let (need, list) = text.strip_prefix("ANY ")?.split_once('(')?;
        let need = need.trim().parse().ok()?;
        let list = list.strip_suffix(')')?;
        if need == 1 && list.trim() == "closed" {
            return Some(Self::Closed);
        }
        let mut epochs = BTreeSet::new();
        let mut voters = Nodes::new();
        for name in list.split(',') {
            let name = name.trim().strip_prefix('"')?.strip_suffix('"')?;
            let (node, epoch) = parse_application_name(name)?;
            epochs.insert(epoch);
            voters.insert(node.to_owned());
        }
        let epoch = epochs.pop_first().filter(|_| epochs.is_empty())?;
        Some(Self::Any { need, epoch, voters })
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => Ok(()),
            Self::Closed => f.write_str("ANY 1 (closed)"),
            Self::Any { need, epoch, voters } => {
                write!(f, "ANY {need} (")?;
                for (i, v) in voters.iter().enumerate() {
                    let comma = if i == 0 { "" } else { ", " };
                    write!(f, "{comma}\"{}\"", application_name(v, *epoch))?;
                }
                f.write_str(")")
            }
            Self::Other(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(voters: &[&str], need: u32) -> Rule {
        Rule {
            id: 1,
            voters: voters.iter().map(|v| (*v).to_owned()).collect(),
            need,
            primaries: Nodes::from(["p".to_owned()]),
        }
    }

    #[test]
    fn names_of_rules() {
        for (rule, text) in [
            (rule(&["n2", "n3"], 1), r#"ANY 1 ("n2_e7", "n3_e7")"#),
            (rule(&["n2", "n3", "n-4"], 2), r#"ANY 2 ("n-4_e7", "n2_e7", "n3_e7")"#),
            (rule(&[], 0), ""),
            // Asking for more than there are can only wait: never an empty list, which PostgreSQL would refuse.
            (rule(&[], 1), "ANY 1 (closed)"),
            (rule(&["n2"], 2), "ANY 1 (closed)"),
        ] {
            let names = Names::of(&rule, 7);
            assert_eq!(names.to_string(), text);
            assert_eq!(Names::parse(text), names);
        }
    }

    #[test]
    fn what_others_wrote_is_told_apart() {
        for text in [
            "*",
            "n2_e7",
            "ANY 1 (n2)",
            "FIRST 1 (\"n2_e7\")",
            "ANY 1 (\"n2_e7\", \"n3_e8\")",
            "ANY x (\"n2_e7\")",
        ] {
            assert_eq!(Names::parse(text), Names::Other(text.to_owned()));
        }
        for bad in ["n2", "n2_e", "_e7", "n2_e07", "n2_ex", "n2_e0"] {
            assert_eq!(parse_application_name(bad), None, "{bad}");
        }
        assert_eq!(parse_application_name("a_e1_e22"), Some(("a_e1", 22)));
    }

    proptest! {
        /// What is set is what `SHOW` is read as; no rule that asks somebody ever becomes empty (R5).
        #[test]
        fn round_trip(voters in proptest::collection::btree_set("[a-z][a-z0-9-]{0,8}", 0..5), need in 0u32..5, epoch in 1u64..1000) {
            let rule = Rule { id: 1, voters, need, primaries: Nodes::new() };
            let names = Names::of(&rule, epoch);
            prop_assert_eq!(Names::parse(&names.to_string()), names.clone());
            prop_assert_eq!(names == Names::Empty, need == 0);
        }
    }
}
