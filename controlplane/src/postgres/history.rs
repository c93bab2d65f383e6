//! Timelines as PostgreSQL writes them: history files, and where one timeline leaves another.
//!
//! Numbers of timelines are PostgreSQL's own and can be made twice; which epoch made one is in [`marks`](super::marks).

use std::path::{Path, PathBuf};

use ha_core::database::Lsn;

use super::error::{PgError, Result};

/// A timeline that another one left at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fork {
    /// The timeline that was left.
    pub timeline: u32,
    /// Where: the first position that is not on it any more.
    pub at: Lsn,
}

/// A timeline and those it comes from, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct History {
    /// The timeline.
    pub timeline: u32,
    /// Those before it, each with the point where the next one left it.
    pub forks: Vec<Fork>,
}

impl History {
    /// The first timeline, which comes from none.
    pub fn first() -> Self {
        Self {
            timeline: 1,
            forks: Vec::new(),
        }
    }

    /// Where the timeline itself begins; 0 for the first.
    pub fn begin(&self) -> Lsn {
        self.forks.last().map_or(Lsn(0), |f| f.at)
    }

    /// The timeline that holds a position, on the way to this one. A fork's position belongs to the later one.
    pub fn timeline_at(&self, lsn: Lsn) -> u32 {
        let fork = self.forks.iter().find(|f| lsn < f.at);
        fork.map_or(self.timeline, |f| f.timeline)
    }

    /// Up to where one of its timelines goes: `None` if it is not one of them; the last one has no end.
    pub fn end_of(&self, timeline: u32) -> Option<Option<Lsn>> {
        if timeline == self.timeline {
            return Some(None);
        }
        let fork = self.forks.iter().find(|f| f.timeline == timeline);
        fork.map(|f| Some(f.at))
    }

    /// Its timelines with where each begins, oldest first.
    pub fn branches(&self) -> Vec<(u32, Lsn)> {
        let mut begin = Lsn(0);
        let mut all = Vec::with_capacity(self.forks.len() + 1);
        for fork in &self.forks {
            all.push((fork.timeline, begin));
            begin = fork.at;
        }
        all.push((self.timeline, begin));
        all
    }

    /// The history of an older timeline of this one.
    pub fn up_to(&self, timeline: u32) -> Option<Self> {
        if timeline == self.timeline {
            return Some(self.clone());
        }
        let at = self.forks.iter().position(|f| f.timeline == timeline)?;
        Some(Self {
            timeline,
            forks: self.forks[..at].to_vec(),
        })
    }

    /// Reads a history file's text.
    ///
    /// # Errors
    /// [`PgError::Unreadable`] with the line.
    pub fn parse(timeline: u32, text: &str) -> Result<Self> {
        let mut forks: Vec<Fork> = Vec::new();
        let wrong =
            |line: &str| PgError::unreadable(format!("the history of timeline {timeline}"), format!("{line:?}"));
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut words = line.split_whitespace();
            let fork = match (words.next().map(str::parse), words.next().map(str::parse)) {
                (Some(Ok(timeline)), Some(Ok(at))) => Fork { timeline, at },
                _ => return Err(wrong(line)),
            };
            let grows = forks
                .last()
                .is_none_or(|l| l.timeline < fork.timeline && l.at <= fork.at);
            if !grows || fork.timeline >= timeline {
                return Err(wrong(line));
            }
            forks.push(fork);
        }
        Ok(Self { timeline, forks })
    }

    /// Reads the history of a timeline from a directory of WAL. The first needs no file.
    ///
    /// # Errors
    /// [`PgError::Files`], [`PgError::Unreadable`].
    pub fn read(wal: &Path, timeline: u32) -> Result<Self> {
        if timeline == 1 {
            return Ok(Self::first());
        }
        let path = file(wal, timeline);
        let text = std::fs::read_to_string(&path).map_err(PgError::files(&path))?;
        Self::parse(timeline, &text)
    }
}

fn file(wal: &Path, timeline: u32) -> PathBuf {
    wal.join(format!("{timeline:08X}.history"))
}

/// The timeline of a history file's name.
pub(super) fn timeline_of(name: &str) -> Option<u32> {
    let number = name.strip_suffix(".history").filter(|n| n.len() == 8)?;
    u32::from_str_radix(number, 16).ok().filter(|t| *t > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "1\t0/5000110\tno recovery target specified\n\n2\t0/7000000\tno recovery target specified\n";

    fn lsn(text: &str) -> Lsn {
        text.parse().unwrap()
    }

    #[test]
    fn a_history_is_read() {
        let h = History::parse(3, TEXT).unwrap();
        assert_eq!(h.begin(), lsn("0/7000000"));
        assert_eq!(
            h.branches(),
            [(1, Lsn(0)), (2, lsn("0/5000110")), (3, lsn("0/7000000"))]
        );
        assert_eq!(
            [h.timeline_at(lsn("0/5000109")), h.timeline_at(lsn("0/5000110"))],
            [1, 2]
        );
        assert_eq!(h.timeline_at(lsn("1/0")), 3);
        assert_eq!(h.end_of(2), Some(Some(lsn("0/7000000"))));
        assert_eq!((h.end_of(3), h.end_of(4)), (Some(None), None));
        assert_eq!(h.up_to(2).unwrap().branches(), [(1, Lsn(0)), (2, lsn("0/5000110"))]);
        assert_eq!(History::first().branches(), [(1, Lsn(0))]);
        assert_eq!(History::first().timeline_at(lsn("9/9")), 1);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "1",
            "x\t0/0",
            "1\t0-0",
            "2\t0/1\n1\t0/2",
            "1\t0/2\n2\t0/1",
            "3\t0/1",
            "4\t0/1",
        ] {
            assert!(History::parse(3, text).is_err(), "{text}");
        }
        assert_eq!(timeline_of("0000000A.history"), Some(10));
        for name in ["00000000.history", "A.history", "0000000A", "0000000Z.history"] {
            assert_eq!(timeline_of(name), None, "{name}");
        }
    }
}
