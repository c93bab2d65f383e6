//! Positions in a group's log and the history of its timelines: what may be compared with what (protocol step 4).
//!
//! PostgreSQL numbers timelines, and two servers can make the same number; the epoch that made a timeline tells them
//! apart. Positions of different lineages must never be compared by their numbers alone.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A position in the log, in bytes. Prints as PostgreSQL does: `0/5A1F0380`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lsn(pub u64);

impl Lsn {
    /// How far `self` is past `other`, in bytes; 0 if it is not.
    pub fn past(self, other: Lsn) -> u64 {
        self.0.saturating_sub(other.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:08X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// Text that is no position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a log position: {0:?}")]
pub struct LsnError(pub String);

impl FromStr for Lsn {
    type Err = LsnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text.split_once('/');
        let half = |h: &str| {
            let hex = !h.is_empty() && h.bytes().all(|b| b.is_ascii_hexdigit());
            hex.then(|| u32::from_str_radix(h, 16).ok()).flatten()
        };
        parts
            .and_then(|(high, low)| Some(Lsn(u64::from(half(high)?) << 32 | u64::from(half(low)?))))
            .ok_or_else(|| LsnError(text.to_owned()))
    }
}

/// The end of an instance's log: the epoch that created the timeline of its last record, and where that record ends.
/// The order is the order of rank, once both were truncated to the same [`Lineage`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogEnd {
    /// Epoch that created the timeline.
    pub epoch: u64,
    /// End of the last record.
    pub lsn: Lsn,
}

impl fmt::Display for LogEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of epoch {}", self.lsn, self.epoch)
    }
}

/// A timeline, the epoch that created it, and where it leaves the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Branch {
    /// Epoch that created it.
    pub epoch: u64,
    /// PostgreSQL's number of it.
    pub timeline: u32,
    /// Where it begins; 0 for the first.
    pub fork: Lsn,
}

/// A history of timelines, oldest first: the record's, or that of one instance's own log, whose last branch is the one
/// its last record is on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lineage(pub Vec<Branch>);

/// How a directory stands to a lineage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// It lies on the lineage: streaming goes on where its log ends.
    On,
    /// Its timelines lie on the lineage, but its log goes past the point where the lineage left them.
    Past {
        /// The last position they share.
        shared: Lsn,
    },
    /// It has a timeline that the lineage does not have.
    Off,
}

impl Lineage {
    /// The newest branch.
    pub fn last(&self) -> Option<&Branch> {
        self.0.last()
    }

    /// The newest branch's timeline, 0 if there is none.
    pub fn timeline(&self) -> u32 {
        self.last().map_or(0, |b| b.timeline)
    }

    /// The lineage with one more branch.
    #[must_use]
    pub fn with(&self, branch: Branch) -> Self {
        let mut all = self.0.clone();
        all.push(branch);
        Self(all)
    }

    /// Whether an epoch created one of its timelines.
    pub fn has_epoch(&self, epoch: u64) -> bool {
        self.0.iter().any(|b| b.epoch == epoch)
    }

    fn common(&self, other: &Lineage) -> usize {
        self.0.iter().zip(&other.0).take_while(|(a, b)| a == b).count()
    }

    /// Truncates the end of a log with the history `own` to this lineage: what lies on a timeline that this lineage does
    /// not have, or past the point where it left one, raises nobody's rank (protocol step 6).
    pub fn truncate(&self, own: &Lineage, end: LogEnd) -> LogEnd {
        let common = self.common(own);
        let Some(last) = common.checked_sub(1).and_then(|i| self.0.get(i)) else {
            return LogEnd::default();
        };
        let forks = [self.0.get(common), own.0.get(common)];
        let lsn = forks.into_iter().flatten().map(|b| b.fork).fold(end.lsn, Lsn::min);
        LogEnd { epoch: last.epoch, lsn }
    }

    /// How a log with the history `own` that ends at `end` stands to this lineage, whose own log reached `tip` when it
    /// was last seen; without a tip the newest branch has no end.
    pub fn fit(&self, own: &Lineage, end: Lsn, tip: Option<Lsn>) -> Fit {
        let common = self.common(own);
        if common == 0 || common < own.0.len() {
            return Fit::Off;
        }
        let limit = self.0.get(common).map(|b| b.fork).or(tip);
        match limit {
            Some(limit) if end > limit => Fit::Past { shared: limit },
            _ => Fit::On,
        }
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, b) in self.0.iter().enumerate() {
            let arrow = if i == 0 { "" } else { " -> " };
            write!(f, "{arrow}{} (epoch {}, from {})", b.timeline, b.epoch, b.fork)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn branch(epoch: u64, timeline: u32, fork: u64) -> Branch {
        Branch {
            epoch,
            timeline,
            fork: Lsn(fork),
        }
    }

    fn lineage(of: &[(u64, u32, u64)]) -> Lineage {
        Lineage(of.iter().map(|(e, t, f)| branch(*e, *t, *f)).collect())
    }

    fn end(epoch: u64, lsn: u64) -> LogEnd {
        LogEnd { epoch, lsn: Lsn(lsn) }
    }

    #[test]
    fn positions_print_as_postgresql_does() {
        for (lsn, text) in [
            (0x5A1F_0380, "0/5A1F0380"),
            (0, "0/00000000"),
            (u64::MAX, "FFFFFFFF/FFFFFFFF"),
        ] {
            assert_eq!(Lsn(lsn).to_string(), text);
            assert_eq!(text.parse(), Ok(Lsn(lsn)));
        }
        assert_eq!("16/B374D848".parse(), Ok(Lsn(0x16_B374_D848)));
        for bad in ["", "/", "0/", "/0", "0", "g/0", "0/+1", "100000000/0", "0/0/0"] {
            assert!(bad.parse::<Lsn>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ends_are_truncated_to_the_recorded_lineage() {
        let recorded = lineage(&[(1, 1, 0), (3, 2, 100)]);
        for (own, at, want) in [
            // On the newest branch everything counts.
            (lineage(&[(1, 1, 0), (3, 2, 100)]), end(3, 500), end(3, 500)),
            // On an older branch, up to the point where the lineage left it.
            (lineage(&[(1, 1, 0)]), end(1, 80), end(1, 80)),
            (lineage(&[(1, 1, 0)]), end(1, 900), end(1, 100)),
            // A promotion that never became steady raises nobody's rank, whether it left early or late.
            (lineage(&[(1, 1, 0), (2, 2, 90)]), end(2, 900), end(1, 90)),
            (
                lineage(&[(1, 1, 0), (3, 2, 100), (4, 3, 300)]),
                end(4, 900),
                end(3, 300),
            ),
            // The same timeline number of another epoch is another timeline.
            (lineage(&[(1, 1, 0), (2, 2, 100)]), end(2, 900), end(1, 100)),
            // Nothing in common is nothing.
            (lineage(&[(7, 1, 0)]), end(7, 900), end(0, 0)),
            (Lineage::default(), end(0, 900), end(0, 0)),
        ] {
            assert_eq!(recorded.truncate(&own, at), want, "{own} {at}");
        }
    }

    #[test]
    fn what_can_follow_the_lineage() {
        let to = lineage(&[(1, 1, 0), (3, 2, 100)]);
        let past = |l| Fit::Past { shared: Lsn(l) };
        for (own, at, tip, want) in [
            (lineage(&[(1, 1, 0)]), 80, None, Fit::On),
            (lineage(&[(1, 1, 0)]), 100, None, Fit::On),
            (lineage(&[(1, 1, 0)]), 101, None, past(100)),
            (lineage(&[(1, 1, 0), (3, 2, 100)]), 500, None, Fit::On),
            (lineage(&[(1, 1, 0), (3, 2, 100)]), 500, Some(400), past(400)),
            (lineage(&[(1, 1, 0), (2, 2, 100)]), 120, None, Fit::Off),
            (lineage(&[(1, 1, 0), (3, 2, 100), (4, 3, 300)]), 310, None, Fit::Off),
            (Lineage::default(), 0, None, Fit::Off),
        ] {
            assert_eq!(to.fit(&own, Lsn(at), tip.map(Lsn)), want, "{own} {at}");
        }
    }

    /// A history in which each branch begins at or after the one before, and a log that ends past the last fork.
    fn history() -> impl Strategy<Value = (Lineage, u64)> {
        (proptest::collection::vec((1u64..4, 0u64..50), 1..5), 0u64..50).prop_map(|(steps, tail)| {
            let mut at = (0, 0, 0);
            let mut all = Vec::new();
            for (i, (epoch, fork)) in steps.into_iter().enumerate() {
                at = (at.0 + epoch, at.1 + 1, if i == 0 { 0 } else { at.2 + fork });
                all.push(branch(at.0, at.1, at.2));
            }
            (Lineage(all), at.2 + tail)
        })
    }

    proptest! {
        /// Truncating twice is truncating once; nothing is ever gained; a log on the lineage itself loses nothing.
        #[test]
        fn truncation_only_takes_away((own, lsn) in history(), (other, _) in history()) {
            let log = end(own.last().unwrap().epoch, lsn);
            let cut = other.truncate(&own, log);
            prop_assert!(cut.lsn <= log.lsn);
            prop_assert!(cut.epoch <= log.epoch);
            prop_assert_eq!(other.truncate(&own, LogEnd { epoch: log.epoch, lsn: cut.lsn }), cut);
            prop_assert_eq!(own.truncate(&own, log), log);
        }

        /// What fits loses nothing by truncation, and so may be compared by its rank.
        #[test]
        fn what_fits_is_not_truncated((own, lsn) in history(), (other, _) in history()) {
            let log = end(own.last().unwrap().epoch, lsn);
            if other.fit(&own, log.lsn, None) == Fit::On {
                prop_assert_eq!(other.truncate(&own, log), log);
            }
        }

        /// Positions survive their text.
        #[test]
        fn text_round_trip(lsn: u64) {
            prop_assert_eq!(Lsn(lsn).to_string().parse::<Lsn>(), Ok(Lsn(lsn)));
        }
    }
}
