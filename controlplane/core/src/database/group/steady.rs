//! A group with a primary: whether it is still well, and the upkeep while it is.

use super::elect::{self, Begin, begin};
use super::view::View;
use super::{Draft, instances, rules, switch};
use crate::database::durability::{can_acknowledge, enough, missing, uncovered};
use crate::database::local::{PrimaryReport, Report};
use crate::database::observed::{Decision, Finished, Request, Wanted};
use crate::database::record::{Forced, Nodes};
use crate::refusal::Refusal;

/// What is decided while steady.
pub(super) fn decide(view: &View<'_>) -> Decision {
    let mut decision = Decision::default();
    let Some(node) = view.record.primary.as_deref() else {
        let how = Begin {
            cause: "the record names no primary".to_owned(),
            replace: false,
            forced: None,
        };
        return begin(view, how).decision();
    };
    decision.finished = ended(view);
    decision.finished.extend(overtaken(view));
    if let Some(draft) = by_hand(view, &mut decision) {
        return draft.onto(decision);
    }
    if let Some(draft) = lost(view, node, &mut decision.reasons) {
        return draft.onto(decision);
    }
    let Some((report, primary)) = view.primary() else {
        if decision.reasons.is_empty() {
            decision.reasons.push(format!(
                "{node} has not reported as the primary of epoch {} yet",
                view.record.epoch
            ));
        }
        return decision;
    };
    // Leaving a joint goes on while nothing else does: it takes nothing from anybody.
    if let Some(draft) = rules::leave(view, primary).or_else(|| rules::opened(view, primary)) {
        return draft.onto(decision);
    }
    if let Some(draft) = switch::requested(view, report, primary, &mut decision) {
        return draft.onto(decision);
    }
    if let Some(why) = view.paused() {
        decision.reasons.push(format!("{why}: nothing is changed by itself"));
        return decision;
    }
    if let Some(draft) = instances::sync(view) {
        return draft.onto(decision);
    }
    match rules::change(view, report, primary) {
        Ok(draft) => return draft.onto(decision),
        Err(why) if !why.is_empty() => decision.reasons.push(why),
        Err(_) => {}
    }
    if let Some(draft) = instances::rebuild(view, primary, &mut decision).or_else(|| instances::granters(view, primary))
    {
        return draft.onto(decision);
    }
    decision.reasons.extend(waits(view));
    decision
}

/// Requests that came to their end with the last failover.
fn ended(view: &View<'_>) -> Vec<Finished> {
    let Some(last) = view
        .record
        .last
        .as_ref()
        .filter(|l| !l.operation.is_empty() && (l.done || l.rolled_back.is_some()))
    else {
        return Vec::new();
    };
    let asked = view.observed.requests.iter().any(|r| r.operation == last.operation);
    let result = match (&last.rolled_back, &last.to) {
        (Some(why), _) => Err(Refusal::new("HA0415", "the switchover was rolled back").why(why)),
        (None, to) => Ok(format!("{} is primary", to.as_deref().unwrap_or("nobody"))),
    };
    let mut ended = Vec::new();
    if asked {
        ended.push(Finished {
            operation: last.operation.clone(),
            result,
        });
    }
    ended
}

/// Requests for a change of primary that came before the one the last change carried out: that one overtook them, and they
/// would go on overtaking each other.
fn overtaken(view: &View<'_>) -> Vec<Finished> {
    let all = &view.observed.requests;
    let at = all.iter().position(|r| handled(view, &r.operation)).unwrap_or(0);
    let changes = all[..at].iter().filter(|r| {
        !matches!(
            r.what,
            Wanted::Reinit { .. } | Wanted::Switchover { at_ms: Some(_), .. }
        )
    });
    let refusal = Refusal::new(
        "HA0408",
        "another change of primary was asked for later, and was carried out",
    );
    let end = |r: &Request| Finished {
        operation: r.operation.clone(),
        result: Err(refusal.clone()),
    };
    changes.map(end).collect()
}

/// Requests that nothing has overtaken.
pub(super) fn newer<'a>(view: &View<'a>) -> &'a [Request] {
    let all = &view.observed.requests;
    let at = all.iter().position(|r| handled(view, &r.operation));
    &all[at.map_or(0, |i| i + 1)..]
}

/// Whether a request was carried out by the last failover, or is being.
pub(super) fn handled(view: &View<'_>, operation: &str) -> bool {
    view.record.last.as_ref().is_some_and(|l| l.operation == operation)
}

fn by_hand(view: &View<'_>, decision: &mut Decision) -> Option<Draft> {
    for request in newer(view) {
        let Wanted::Failover { to, allow_data_loss } = &request.what else {
            continue;
        };
        if handled(view, &request.operation) {
            continue;
        }
        let forced = Forced {
            operation: request.operation.clone(),
            to: to.clone(),
            allow_data_loss: *allow_data_loss,
        };
        match elect::forced(view, &forced) {
            Ok(draft) => return Some(draft),
            Err(finished) => decision.finished.push(finished),
        }
    }
    None
}

/// Whether the primary is lost, and can be replaced: otherwise the reasons say what speaks against it.
pub(super) fn lost(view: &View<'_>, node: &str, reasons: &mut Vec<String>) -> Option<Draft> {
    let (cause, replace) = match view.suspicion(node) {
        Some((cause, down)) => {
            let stopped = view.proof(node).is_some();
            if !down && let Some(hold) = witnessed(view, node) {
                reasons.push(format!("no failover though {cause}: {hold}"));
                return None;
            }
            (cause, down && !stopped)
        }
        None => (isolated(view, node)?, true),
    };
    if let Some(why) = view.paused() {
        reasons.push(format!("no failover though {cause}: {why}"));
        return None;
    }
    let reach = view.within_reach();
    let open = uncovered(&view.record.rules, &reach, view.spec.durability);
    if let Some(rule) = open.first() {
        reasons.push(format!(
            "no failover though {cause}: acknowledged commits could be lost, it needs {}",
            missing(rule, &reach)
        ));
        return None;
    }
    if reach.is_empty() {
        reasons.push(format!("no failover though {cause}: no other instance is in reach"));
        return None;
    }
    Some(begin(
        view,
        Begin {
            cause,
            replace,
            forced: None,
        },
    ))
}

/// Standbys that still hear a suspect primary, if they are enough to acknowledge a commit with it.
fn witnessed(view: &View<'_>, node: &str) -> Option<String> {
    let hear = view.witnesses(node);
    if hear.is_empty() {
        return None;
    }
    let enough = view.record.rules.iter().any(|r| can_acknowledge(r, &hear));
    let list = hear.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    enough.then(|| format!("{list} still hear {node} on the replication link"))
}

/// The primary reports, but reaches too few of the standbys that would acknowledge for it, and those, who are in reach of
/// the master, do not hear it: clients wait for ever where another primary would serve them.
fn isolated(view: &View<'_>, node: &str) -> Option<String> {
    let (_, primary) = view.primary()?;
    let rule = view
        .record
        .rule()
        .filter(|r| r.need > 0 && primary.applied == Some(r.id))?;
    let streaming: Nodes = primary.flushed.keys().cloned().collect();
    if can_acknowledge(rule, &streaming) {
        return None;
    }
    let hear = view.witnesses(node);
    let cut_off = |v: &&String| {
        let gone = view
            .memory
            .gone_since
            .get(*v)
            .is_some_and(|at| view.now().saturating_sub(*at) >= view.timing.detect);
        let ready = view
            .recent(v)
            .is_some_and(|r| r.standby && r.task.is_none() && r.unfit.is_none() && r.failed.is_none());
        gone && ready && !hear.contains(*v)
    };
    let cut: Vec<_> = rule.voters.iter().filter(cut_off).map(String::as_str).collect();
    let enough = enough(rule).is_some_and(|n| n > 0 && cut.len() >= n);
    enough.then(|| format!("{node} is cut off from its standbys {}", cut.join(", ")))
}

/// What instances wait for, for people.
fn waits(view: &View<'_>) -> Vec<String> {
    let of = view.record.instances.keys().filter_map(|n| {
        let report: &Report = view.recent(n)?;
        report.waits.first().map(|w| format!("{n}: {w}"))
    });
    of.collect()
}

/// What a memory keeps of a steady primary's report.
pub(super) fn absent_voters(view: &View<'_>, primary: &PrimaryReport) -> Nodes {
    let voters = view.record.rules.iter().flat_map(|r| r.voters.iter());
    let all = voters
        .chain(view.record.instances.keys())
        .filter(|v| Some(v.as_str()) != view.record.primary.as_deref());
    all.filter(|v| !primary.flushed.contains_key(*v)).cloned().collect()
}
