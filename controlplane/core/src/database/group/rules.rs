//! The rule of durability of a steady group: who should vote, when a joint is left, turned back or added to (R6, R7).

use std::time::Duration;

use super::Draft;
use super::view::View;
use crate::database::durability::{can_acknowledge, may_leave, need};
use crate::database::local::{PrimaryReport, Report};
use crate::database::record::{Nodes, PhaseTime, Rule};
use crate::database::spec::Durability;
use crate::model::Severity;

/// Leaves the joint for the applied rule, once it carries the log by itself.
pub(super) fn leave(view: &View<'_>, primary: &PrimaryReport) -> Option<Draft> {
    if !view.record.joint() || !may_leave(view.record, primary, view.weaken) {
        return None;
    }
    let mut next = view.record.clone();
    let applying = next.applying;
    next.rules.retain(|r| r.id == applying);
    done(&mut next, view);
    let text = format!("durable by {}", describe(next.rules.first()));
    Some(Draft::new(next, &text))
}

/// The primary is open: the failover, if there was one, is over.
pub(super) fn opened(view: &View<'_>, primary: &PrimaryReport) -> Option<Draft> {
    let open = view.record.last.as_ref().is_some_and(|l| !l.done);
    if view.record.joint() || !open || !may_leave(view.record, primary, view.weaken) {
        return None;
    }
    let mut next = view.record.clone();
    done(&mut next, view);
    let reason = next.reason.clone();
    Some(Draft::new(next, &reason))
}

fn done(next: &mut crate::database::GroupState, view: &View<'_>) {
    let at_ms = view.since_start();
    if let Some(last) = next.last.as_mut().filter(|l| !l.done) {
        last.done = true;
        last.phases.push(PhaseTime {
            name: "open".to_owned(),
            at_ms,
        });
    }
}

/// A rule for people.
pub(super) fn describe(rule: Option<&Rule>) -> String {
    match rule {
        Some(r) if r.need > 0 => {
            let voters: Vec<_> = r.voters.iter().map(String::as_str).collect();
            format!("ANY {} of ({})", r.need, voters.join(", "))
        }
        Some(_) => "the primary alone".to_owned(),
        None => "no rule".to_owned(),
    }
}

/// Since when a voter is gone; zero while it is there.
fn gone(view: &View<'_>, node: &str) -> Duration {
    let since = view.memory.gone_since.get(node);
    since.map_or(Duration::ZERO, |at| view.now().saturating_sub(*at))
}

/// Who should vote, and how many of them are asked.
fn wanted(view: &View<'_>, report: &Report, primary: &PrimaryReport, before: &Rule) -> (Nodes, u32) {
    if view.spec.durability == Durability::Async {
        return (Nodes::new(), 0);
    }
    let limit = View::limit(view.spec.limits.degrade_after_ms);
    let end = report.log.map_or(0, |l| l.lsn.0);
    let close = |n: &String| {
        let flushed = primary.flushed.get(n);
        flushed.is_some_and(|l| end.saturating_sub(l.0) <= view.spec.limits.max_switchover_lag)
    };
    let able = |n: &String| view.may_vote(n) && report.node != *n;
    let joins = view
        .record
        .instances
        .keys()
        .filter(|n| able(n) && (close(n) || before.voters.contains(*n)));
    let mut voters: Nodes = joins
        .filter(|n| primary.flushed.contains_key(*n) || gone(view, n) < limit)
        .cloned()
        .collect();
    let kept = |n: &&String| **n != report.node && view.record.instances.contains_key(*n);
    if voters.is_empty() {
        // Writes wait for the voters there were: for good under `quorum-strict`, else until they were gone too long.
        let strict = view.spec.durability == Durability::QuorumStrict;
        let waits = |n: &&String| strict || gone(view, n) < limit;
        let voting = |n: &&String| {
            !matches!(
                view.spec.role(n),
                crate::database::RoleWanted::None | crate::database::RoleWanted::Async
            )
        };
        voters = before
            .voters
            .iter()
            .filter(kept)
            .filter(voting)
            .filter(waits)
            .cloned()
            .collect();
    }
    if view.weaken.primary_votes {
        voters.insert(report.node.clone());
    }
    let need = need(voters.len(), view.spec.durability);
    (voters, need)
}

/// Leaves the other rules out at once, where that rule of the protocol is broken on purpose.
fn one_step(view: &View<'_>, next: &mut crate::database::GroupState) {
    if view.weaken.joint_one_step {
        let applying = next.applying;
        next.rules.retain(|r| r.id == applying);
    }
}

/// The next change of the rule, if one is due.
pub(super) fn change(view: &View<'_>, report: &Report, primary: &PrimaryReport) -> Result<Draft, String> {
    let Some(applying) = view.record.rule() else {
        return Err("the record has no rule to apply".to_owned());
    };
    let node = &report.node;
    let streaming: Nodes = primary.flushed.keys().cloned().collect();
    let (voters, need) = wanted(view, report, primary, applying);
    let same = applying.voters == voters && applying.need == need && applying.primaries.contains(node);
    if view.record.joint() {
        if can_acknowledge(applying, &streaming) || same {
            return Err(format!("waiting until {} have flushed", describe(Some(applying))));
        }
        // An older rule of this primary that still has its standbys is turned back to. That is a change of `applying`
        // alone: the newer rule leaves once the primary confirmed the older one.
        let older = view.record.rules.iter().find(|r| {
            r.id != applying.id
                && r.primaries == Nodes::from([node.clone()])
                && r.need > 0
                && can_acknowledge(r, &streaming)
        });
        let stuck = view
            .memory
            .joint_since
            .map_or(Duration::ZERO, |(_, at)| view.now().saturating_sub(at));
        if let Some(older) = older.filter(|_| stuck > view.timing.detect) {
            let mut next = view.record.clone();
            next.applying = older.id;
            one_step(view, &mut next);
            let text = format!("back to {}: the newer rule's standbys are gone", describe(Some(older)));
            return Ok(Draft::new(next, &text));
        }
        if view.record.rules.len() >= 8 {
            return Err("too many unresolved rules; waiting for their standbys".to_owned());
        }
    }
    if same {
        return Err(String::new());
    }
    let mut next = view.record.clone();
    next.append_rule(voters, need, Nodes::from([node.clone()]));
    one_step(view, &mut next);
    let was = describe(Some(applying));
    let text = format!("{} instead of {was}", describe(next.rule()));
    let drops = need < applying.need && need == 0 && view.spec.durability != Durability::Async;
    next.degraded = (need == 0 && view.spec.durability != Durability::Async).then(|| text.clone());
    let draft = Draft::new(next, &text);
    Ok(if drops {
        draft.event(
            "db.degraded",
            Severity::Error,
            format!("commits are on {node} alone from now on: {text}"),
        )
    } else {
        draft.event("db.rule", Severity::Info, format!("a commit waits for {text}"))
    })
}
