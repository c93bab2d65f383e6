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
