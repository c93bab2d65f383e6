//! An instance's machine: from the record that it read and its own PostgreSQL, the next steps.
//!
//! Every step that cannot be taken back (start as a primary, promote, open) wants a fresh read of the record (R2) and a
//! lease. A step back (seal, stop, close) needs neither. The steps of one decision are independent of each other; what
//! must follow something else is ordered only once that was seen done.

mod action;
mod follow;
mod lead;
mod seal;
mod tell;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use action::{Action, MemberDecision, StartAs};
pub use tell::report;

use super::grants;
use super::local::{Directory, Local, RecordRead, Server};
use super::names::Names;
use super::record::{GroupState, Nodes, Phase};
use super::spec::GroupSpec;
use super::{Timing, Weaken};

/// All that an instance decides upon.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// Its own PostgreSQL.
    pub local: &'a Local,
    /// The record, if it could be read.
    pub record: Option<&'a RecordRead>,
    /// The spec, if it could be read.
    pub spec: Option<&'a GroupSpec>,
    /// Now, on this machine's monotonic clock.
    pub now: Duration,
    /// The times.
    pub timing: &'a Timing,
    /// Rules left out; none in the product.
    pub weaken: &'a Weaken,
}

impl<'a> Situation<'a> {
    fn state(&self) -> Option<&'a GroupState> {
        self.record.map(|r| &r.state)
    }

    /// The record may enable what cannot be taken back.
    fn fresh(&self) -> bool {
        self.record.is_some_and(|r| r.fresh) || self.weaken.stale_reads
    }

    /// Names that an instance starts and is promoted with: closed (R5).
    fn first_names(&self) -> Names {
        match self.state().and_then(|s| Some((s, s.rule()?))) {
            Some((state, rule)) if self.weaken.open_starts => Names::of(rule, state.epoch),
            _ => Names::Closed,
        }
    }

    /// Up to when this instance's server may live as a primary.
    fn deadline(&self) -> Option<Duration> {
        let local = self.local;
        match self.state() {
            Some(state) => grants::deadline(&local.node, state, local.lease_until, &local.grants_held, self.weaken),
            None => local.lease_until,
        }
    }

    /// The lease, or grants, hold now.
    fn holds(&self) -> bool {
        self.deadline().is_some_and(|until| self.now < until)
    }
}

impl MemberDecision {
    fn wait(&mut self, why: impl Into<String>) {
        self.waits.push(why.into());
    }

    fn act(&mut self, action: Action) {
        self.actions.push(action);
    }
}

/// Decides what an instance does next.
pub fn decide(situation: &Situation<'_>) -> MemberDecision {
    let s = situation;
    let mut next = MemberDecision::default();
    // A server that runs, starts or is to start as a primary lives by the deadline; a standby's guard has none.
    let leads = s.local.was_primary || s.local.is_primary() || named(s);
    next.deadline = s.deadline().filter(|_| leads);
    if s.local.server == Server::Orphaned {
        next.wait("the postmaster is gone; what is left of its tree is being killed");
        next.act(Action::Reap);
        return next;
    }
    if s.spec.is_some_and(|spec| spec.removed) {
        next.wait("the group was removed; its directory stays");
        stop(s, &mut next, false, "the group was removed");
        return next;
    }
    let Some(state) = s.state() else {
        next.wait("the record could not be read yet");
        return next;
    };
    if state.epoch < s.local.marks.refused {
        next.wait(format!(
            "the record read is of epoch {}, {} is the lowest that is not refused",
            state.epoch, s.local.marks.refused
        ));
        return next;
    }
    if let (Some(own), Directory::Present { system_id }) = (state.system_id, s.local.directory)
        && own != system_id
    {
        next.wait(format!(
            "the data directory is of system {system_id}, the group is {own}: it is never touched"
        ));
        return next;
    }
    let node = s.local.node.as_str();
    let mine = state.primary.as_deref() == Some(node);
    if state.phase != Phase::New && !state.instances.contains_key(node) && !mine {
        next.wait("no instance is wanted here");
        stop(s, &mut next, false, "no instance is wanted here");
        return next;
    }
    match state.phase {
        Phase::New => next.wait("the group has no primary yet"),
        Phase::Electing => seal::electing(s, state, &mut next),
        Phase::Bootstrapping | Phase::Promoting if mine => lead::become_primary(s, state, &mut next),
        Phase::Steady if mine => lead::serve(s, state, &mut next),
        Phase::Switching if mine => lead::switch(s, state, &mut next),
        Phase::Bootstrapping | Phase::Promoting | Phase::Steady | Phase::Switching => {
            follow::follow(s, state, &mut next);
        }
    }
    slots(s, state, &mut next);
    if let Some(until) = next.deadline.filter(|_| s.local.is_primary()) {
        next.look_at = Some(until.max(s.now));
    }
    next
}

fn named(s: &Situation<'_>) -> bool {
    s.state()
        .is_some_and(|r| r.primary.as_deref() == Some(s.local.node.as_str()))
}

/// Stops the server if it runs and is not being stopped.
fn stop(s: &Situation<'_>, next: &mut MemberDecision, immediate: bool, why: &str) {
    if matches!(s.local.server, Server::Running | Server::Starting) {
        next.act(Action::Stop {
            immediate,
            why: why.to_owned(),
        });
    }
}

/// Every running instance keeps WAL for every other, so that a new primary can serve them at once. A slot that holds back
/// more than the limit is given up: its instance is copied afresh, and the disk does not fill.
fn slots(s: &Situation<'_>, state: &GroupState, next: &mut MemberDecision) {
    if s.local.server != Server::Running || s.local.task.is_some() {
        return;
    }
    let limit = s.spec.map_or(u64::MAX, |spec| spec.limits.slot_retention);
    let streams = |n: &String| s.local.walsenders.iter().any(|w| w.node == *n && w.streaming);
    let affordable = |n: &String| s.local.slots.get(n).is_none_or(|held| *held <= limit) || streams(n);
    let others = state.instances.keys().filter(|n| **n != s.local.node && affordable(n));
    let wanted: Nodes = others.cloned().collect();
    if !s.local.slots.keys().eq(wanted.iter()) {
        next.act(Action::Slots { nodes: wanted });
    }
}
