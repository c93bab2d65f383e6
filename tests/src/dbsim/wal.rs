//! The truth about write-ahead logs: positions in a tree of branches.
//!
//! Each promotion makes a branch. PostgreSQL knows branches by their timeline's number only, and two servers may make the
//! same number; here they stay apart, which is how the checks tell what PostgreSQL cannot.

/// A branch of the tree.
pub type BranchId = u16;

/// A place in a log: the branch of the record that ends there, and its LSN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pos {
    /// Branch of the last record.
    pub branch: BranchId,
    /// LSN at which that record ends.
    pub lsn: u64,
}

/// What one promotion (or initdb) made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Branch {
    /// Where it left its parent.
    pub parent: Option<Pos>,
    /// The number that its maker gave it.
    pub timeline: u32,
    /// The epoch of the promotion marker that its maker had.
    pub epoch: u64,
}

/// All branches of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Tree(pub Vec<Branch>);

impl Tree {
    /// Adds a branch.
    pub fn add(&mut self, branch: Branch) -> BranchId {
        self.0.push(branch);
        BranchId::try_from(self.0.len() - 1).unwrap_or(BranchId::MAX)
    }

    /// One branch.
    pub fn get(&self, id: BranchId) -> Branch {
        self.0[usize::from(id)]
    }

    /// Timeline number at a position.
    pub fn timeline(&self, at: Pos) -> u32 {
        self.get(at.branch).timeline
    }

    /// The branches below a tip, the newest first, each with the last LSN of it that lies below the tip.
    pub fn path(&self, tip: Pos) -> impl Iterator<Item = Pos> {
        let mut next = Some(tip);
        std::iter::from_fn(move || {
            let at = next?;
            next = self.get(at.branch).parent.map(|fork| Pos {
                branch: fork.branch,
                lsn: fork.lsn.min(at.lsn),
            });
            Some(at)
        })
    }

    /// Whether the log that ends at `tip` holds the record that ends at `at`.
    pub fn contains(&self, tip: Pos, at: Pos) -> bool {
        self.path(tip).any(|p| p.branch == at.branch && at.lsn <= p.lsn)
    }

    /// The last position that both logs hold; `None` where they have nothing in common.
    pub fn common(&self, a: Pos, b: Pos) -> Option<Pos> {
        self.path(a).find_map(|p| {
            let other = self.path(b).find(|q| q.branch == p.branch)?;
            Some(Pos {
                branch: p.branch,
                lsn: p.lsn.min(other.lsn),
            })
        })
    }

    /// What PostgreSQL itself compares before it streams from `of` to a server whose log ends at `at`: numbers and fork
    /// points of timelines, nothing else.
    pub fn looks_like_prefix(&self, of: Pos, at: Pos) -> bool {
        let timeline = self.timeline(at);
        self.path(of).any(|p| self.timeline(p) == timeline && at.lsn <= p.lsn)
    }

    /// Where `pg_rewind` takes the logs to have parted: nowhere if both end on a timeline of the same number, else at the
    /// last timeline of which number and beginning agree; `None` where nothing does.
    pub fn apparent_fork(&self, target: Pos, source: Pos) -> Option<Pos> {
        if self.timeline(target) == self.timeline(source) {
            return Some(target);
        }
        let begin = |p: Pos| self.get(p.branch).parent.map(|f| f.lsn);
        self.path(target).find_map(|p| {
            let same = |q: &Pos| self.timeline(*q) == self.timeline(p) && begin(*q) == begin(p);
            let other = self.path(source).find(same)?;
            Some(Pos {
                branch: p.branch,
                lsn: p.lsn.min(other.lsn),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pos(branch: BranchId, lsn: u64) -> Pos {
        Pos { branch, lsn }
    }

    fn tree() -> Tree {
        let mut tree = Tree::default();
        let root = tree.add(Branch {
            parent: None,
            timeline: 1,
            epoch: 1,
        });
        // Two servers promoted, one at 10 and one at 12, and both called it timeline 2.
        tree.add(Branch {
            parent: Some(pos(root, 10)),
            timeline: 2,
            epoch: 2,
        });
        tree.add(Branch {
            parent: Some(pos(root, 12)),
            timeline: 2,
            epoch: 2,
        });
        tree
    }

    #[test]
    fn a_log_holds_what_lies_below_its_tip() {
        let tree = tree();
        assert!(tree.contains(pos(1, 20), pos(0, 10)));
        assert!(!tree.contains(pos(1, 20), pos(0, 11)));
        assert!(tree.contains(pos(2, 20), pos(0, 11)));
        assert!(!tree.contains(pos(1, 20), pos(2, 15)));
        assert_eq!(tree.common(pos(1, 20), pos(2, 30)), Some(pos(0, 10)));
        assert_eq!(tree.common(pos(1, 20), pos(1, 30)), Some(pos(1, 20)));
    }

    #[test]
    fn equal_numbers_deceive_postgresql() {
        let tree = tree();
        assert!(tree.looks_like_prefix(pos(2, 30), pos(1, 20)));
        assert!(!tree.contains(pos(2, 30), pos(1, 20)));
        assert_eq!(tree.apparent_fork(pos(1, 20), pos(2, 30)), Some(pos(1, 20)));
    }
}
