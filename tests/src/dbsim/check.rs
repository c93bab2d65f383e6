//! What must hold at every step, and what must hold at the end (protocol, "Invariants"). The checks look at the truth: at
//! logs, at the newest record, at who told a client that a commit is done. They share no code with what they check.

use std::rc::Rc;

use ha_core::database::record::{GroupState, How, Phase as Stage};
use ha_core::database::{Durability, RoleWanted};

use super::postgres::{Names, Phase};
use super::wal::Pos;
use super::world::{N, Time, World};

/// What was seen so far.
#[derive(Debug, Default)]
pub struct Check {
    /// The first rule that did not hold.
    pub violation: Option<String>,
    /// The newest acknowledged commit that must survive, and who acknowledged it.
    pub covered: Option<(Pos, N)>,
    /// Commits acknowledged.
    pub acknowledged: u64,
    /// When the last one was.
    pub last: Time,
    /// The longest time without one, and when it ended; counted from the first.
    pub longest_gap: (Time, Time),
    named: Vec<(u64, N)>,
    opened: Vec<(u64, N)>,
    term: u64,
    /// Promotions and restarts that became steady.
    pub primaries: u64,
    /// An operator allowed that commits are lost, in the failover under way.
    pub loss_allowed: bool,
}

impl World {
    /// Index of a node by name.
    pub fn node(&self, name: &str) -> Option<N> {
        let n: usize = name.strip_prefix('n')?.parse().ok()?;
        n.checked_sub(1).filter(|n| *n < self.machines.len())
    }

    fn node_of(&self, name: Option<&String>) -> Option<N> {
        self.node(name?)
    }

    /// A client was told that its commit is done.
    pub fn acknowledged(&mut self, n: N, at: Pos) {
        self.check.acknowledged += 1;
        let gap = self.now.saturating_sub(self.check.last);
        if self.check.last > 0 && gap > self.check.longest_gap.0 {
            self.check.longest_gap = (gap, self.now);
        }
        self.check.last = self.now;
        let record = self.zk.truth().record.state.clone();
        let primary = match record.phase {
            Stage::Electing => self.node_of(record.former.as_ref()),
            Stage::New | Stage::Bootstrapping | Stage::Promoting => None,
            Stage::Steady | Stage::Switching => self.node_of(record.primary.as_ref()),
        };
        if primary != Some(n) {
            // Late news of what the new primary has too harms nobody.
            let successor = self
                .node_of(record.primary.as_ref().or(record.former.as_ref()))
                .filter(|c| *c != n);
            let has = |c: N| self.pg[c].disk.flushed.is_some_and(|end| self.tree.contains(end, at));
            if !successor.is_some_and(has) {
                self.wrong(format!(
                    "n{} acknowledged {}/{}, but the record (epoch {}, {:?}) names {:?}",
                    n + 1,
                    at.branch,
                    at.lsn,
                    record.epoch,
                    record.phase,
                    record.primary
                ));
                return;
            }
        }
        if self.scene.durability == Durability::Async {
            return;
        }
        if let Some((before, by)) = self.check.covered {
            if self.tree.contains(before, at) {
                return;
            }
            if !self.tree.contains(at, before) {
                self.wrong(format!(
                    "n{} acknowledged {}/{} on a log without {}/{}, which n{} had acknowledged",
                    n + 1,
                    at.branch,
                    at.lsn,
                    before.branch,
                    before.lsn,
                    by + 1
                ));
                return;
            }
        }
        self.check.covered = Some((at, n));
    }

    /// The record changed.
    pub fn record_set(&mut self, by: N, term: u64, before: &Rc<GroupState>, after: &Rc<GroupState>) {
        if self.trace.keeps() {
            let rules: Vec<String> = after
                .rules
                .iter()
                .map(|r| {
                    let mark = if r.id == after.applying { "*" } else { "" };
                    format!("{mark}{}:{} of {:?} by {:?}", r.id, r.need, r.voters, r.primaries)
                })
                .collect();
            self.say(
                Some(by),
                format_args!(
                    "RECORD term {term} epoch {} {:?} primary {:?} rules [{}] granters {:?}: {}",
                    after.epoch,
                    after.phase,
                    after.primary,
                    rules.join("; "),
                    after.granters,
                    after.reason
                ),
            );
        }
        if term < self.check.term {
            self.wrong(format!(
                "a master of term {term} wrote after one of term {}",
                self.check.term
            ));
        }
        self.check.term = term;
        if after.epoch < before.epoch {
            self.wrong(format!("the epoch fell from {} to {}", before.epoch, after.epoch));
        }
        for rule in &after.rules {
            if rule.need > 0
                && rule
                    .voters
                    .iter()
                    .any(|v| after.applying == rule.id && after.primary.as_ref() == Some(v))
            {
                self.wrong(format!("the primary votes in rule {}: {:?}", rule.id, rule.voters));
            }
        }
        let Some(primary) = self.node_of(after.primary.as_ref()) else {
            return;
        };
        match self.check.named.iter().find(|(e, _)| *e == after.epoch) {
            Some((_, named)) if *named != primary => {
                let what = format!(
                    "epoch {} has two primaries: n{}, n{}",
                    after.epoch,
                    named + 1,
                    primary + 1
                );
                self.wrong(what);
            }
            Some(_) => {}
            None => self.check.named.push((after.epoch, primary)),
        }
        let named = after.phase == Stage::Promoting && before.phase != Stage::Promoting;
        let opens = after.phase == Stage::Steady && matches!(before.phase, Stage::Promoting | Stage::Bootstrapping);
        if opens {
            self.check.primaries += 1;
        }
        if (named || opens) && self.scene.durability != Durability::Async && !self.check.loss_allowed {
            self.has_all(primary, if named { "named" } else { "steady" });
        }
        if opens {
            self.check.loss_allowed = false;
        }
        if let (true, Some(promotion)) = (named, &after.promotion)
            && promotion.how == How::Promote
            && self.pg[primary].disk.system.is_none()
        {
            self.wrong(format!("n{} is promoted without a directory", primary + 1));
        }
    }

    fn has_all(&mut self, n: N, why: &str) {
        let Some((covered, by)) = self.check.covered else {
            return;
        };
        let end = self.pg[n].disk.flushed;
        if !end.is_some_and(|end| self.tree.contains(end, covered)) {
            self.wrong(format!(
                "n{} is {why}, and its log ({end:?}) is without {}/{}, which n{} acknowledged",
                n + 1,
                covered.branch,
                covered.lsn,
                by + 1
            ));
        }
    }

    /// A primary takes names over under which it can acknowledge.
    pub fn opened(&mut self, n: N, names: Names) {
        let epoch = match names {
            Names::Any { epoch, .. } => epoch,
            Names::Empty | Names::Closed => return,
        };
        match self.check.opened.iter().find(|(e, _)| *e == epoch) {
            Some((_, other)) if *other != n => {
                let what = format!("n{} and n{} both opened in epoch {epoch}", other + 1, n + 1);
                self.wrong(what);
            }
            Some(_) => {}
            None => self.check.opened.push((epoch, n)),
        }
    }

    /// A data directory is about to be deleted for good.
    pub fn deleted(&mut self, n: N) {
        let streams = self.pg[n]
            .answers()
            .is_some_and(|s| s.receiver.is_some() || s.phase == Phase::Primary);
        if !streams {
            self.wrong(format!(
                "n{} deleted a directory before its replacement streamed",
                n + 1
            ));
        }
    }

    /// Why the group is not whole; `None` where it is.
    pub fn missing(&self) -> Option<String> {
        let record = &self.zk.truth().record.state;
        if record.phase != Stage::Steady {
            return Some(format!("the record is {:?}: {}", record.phase, record.reason));
        }
        let Some(primary) = self.node_of(record.primary.as_ref()) else {
            return Some("no primary".to_owned());
        };
        let serves = self.pg[primary].answers().is_some_and(|s| s.phase == Phase::Primary);
        if !serves {
            return Some(format!("n{} is no primary", primary + 1));
        }
        let [rule] = record.rules.as_slice() else {
            return Some(format!("{} rules", record.rules.len()));
        };
        for n in (0..self.machines.len()).filter(|n| *n != primary) {
            let name = &self.scene.names[n];
            if self.scene.spec.role(name) == RoleWanted::None || !record.instances.contains_key(name) {
                continue;
            }
            let server = self.pg[n].answers();
            let receiver = server.and_then(|s| s.receiver);
            if !receiver.is_some_and(|r| r.from == primary && r.name_epoch == record.epoch) {
                return Some(format!(
                    "n{} does not stream from n{} in epoch {}",
                    n + 1,
                    primary + 1,
                    record.epoch
                ));
            }
            let votes = self.scene.durability != Durability::Async && self.scene.spec.role(name) != RoleWanted::Async;
            if votes && !rule.voters.contains(name) {
                return Some(format!("n{} does not vote", n + 1));
            }
        }
        if self.now > self.check.last + 1_000_000 {
            return Some(format!(
                "nothing was acknowledged since {:.3}",
                self.check.last as f64 / 1e6
            ));
        }
        None
    }
}
