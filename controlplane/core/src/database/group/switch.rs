//! Switchovers: the checks, the stop, and back again when a step fails (protocol, "Switchover").
//!
//! The primary's proof of stop is the fence, and its stopped log the measure of what the successor must have: nobody is
//! sealed and nothing can be lost. Until the successor is named, every failure leads back to the old primary.

use super::elect::successor_rule;
use super::starved::starved;
use super::view::{Answer, View};
use super::{Draft, steady};
use crate::database::lineage::{Fit, LogEnd};
use crate::database::local::{PrimaryReport, Report};
use crate::database::observed::{Decision, Finished, Order, Request, Wanted};
use crate::database::record::{FailoverRecord, GroupState, How, Phase, PhaseTime, Promotion, Switchover};
use crate::database::spec::{Durability, RoleWanted};
use crate::model::Severity;
use crate::refusal::Refusal;

/// The next switchover that was asked for, once its time has come.
pub(super) fn requested(
    view: &View<'_>,
    report: &Report,
    primary: &PrimaryReport,
    decision: &mut Decision,
) -> Option<Draft> {
    let due = view.observed.requests.iter().find_map(|r| match &r.what {
        // One with a time of its own is not overtaken by what was asked for meanwhile.
        Wanted::Switchover { to, at_ms } if !steady::handled(view, &r.operation) => {
            let current = at_ms.is_some() || steady::newer(view).contains(r);
            at_ms
                .is_none_or(|at| view.observed.now_ms >= at)
                .then_some((r, to.as_deref()))
                .filter(|_| current)
        }
        // Its own successor.
        Wanted::Restart if steady::newer(view).contains(r) => Some((r, Some(report.node.as_str()))),
        _ => None,
    });
    let (request, to) = due?;
    let in_place = request.what == Wanted::Restart;
    // Right after a failover the voters are still coming back: that is waited for, not refused.
    if view.record.joint() {
        decision
            .reasons
            .push("the switchover waits until the rule of durability is settled".to_owned());
        return None;
    }
    let to = match successor(view, report, primary, to.filter(|_| !in_place)) {
        _ if in_place => report.node.clone(),
        Ok(Some(to)) => to,
        Ok(None) => {
            let result = Ok(format!("{} is primary already", report.node));
            decision.finished.push(Finished {
                operation: request.operation.clone(),
                result,
            });
            return None;
        }
        Err(refusal) => {
            let result = Err(refusal);
            decision.finished.push(Finished {
                operation: request.operation.clone(),
                result,
            });
            return None;
        }
    };
    if !checkpointed(view, request, report, primary) {
        decision.orders.push(Order::Checkpoint {
            node: report.node.clone(),
        });
        decision
            .reasons
            .push(format!("a checkpoint on {} before it stops", report.node));
        return None;
    }
    Some(stop(view, request, report, &to))
}

/// The checkpoint before the stop is done, or has had its time.
fn checkpointed(view: &View<'_>, request: &Request, report: &Report, primary: &PrimaryReport) -> bool {
    let Some((operation, since, at)) = &view.memory.checkpoint else {
        return false;
    };
    let done = primary.redo.is_some_and(|redo| redo >= *at);
    let waited = view.now().saturating_sub(*since);
    *operation == request.operation
        && report.log.is_some()
        && (done || waited > View::limit(view.spec.limits.stop_timeout_ms))
}

/// Whom to switch to: the one asked for, if it can be, or the best.
fn successor(
    view: &View<'_>,
    report: &Report,
    primary: &PrimaryReport,
    to: Option<&str>,
) -> Result<Option<String>, Refusal> {
    if to == Some(report.node.as_str()) {
        return Ok(None);
    }
    if let Some(why) = &primary.archiver_stuck {
        return Err(Refusal::new(
            "HA0412",
            format!(
                "no switchover: {} cannot be stopped quickly, for its archiver is stuck",
                report.node
            ),
        )
        .why(why)
        .next("mend archive_command, or: hactl db failover"));
    }
    let behind = |n: &str| {
        primary
            .flushed
            .get(n)
            .map(|l| report.log.map_or(0, |end| end.lsn.past(*l)))
    };
    let unable = |n: &str| able(view, n, behind(n));
    if let Some(to) = to {
        return match unable(to) {
            None => Ok(Some(to.to_owned())),
            Some(why) => {
                let mut refusal = Refusal::new("HA0412", format!("{to} cannot become primary: {why}"));
                if let Some(r) = view.report(to) {
                    if let Some(unfit) = &r.unfit {
                        refusal = refusal.why(unfit.why.clone());
                    }
                    refusal.why.extend(starved(view, r, primary));
                    if let Some((task, why)) = &r.failed {
                        refusal = refusal.why(format!("{task}: {why}"));
                    }
                    refusal = refusal.next(format!(
                        "hactl db reinit {to}              copy {to} afresh, then switch over"
                    ));
                }
                for other in view.standbys().filter(|n| *n != to && unable(n).is_none()) {
                    let behind = behind(other).unwrap_or(0);
                    refusal = refusal.next(format!(
                        "hactl db switchover --to {other}     {other} is {behind} B behind"
                    ));
                }
                Err(refusal)
            }
        };
    }
    let able = view
        .standbys()
        .filter(|n| view.spec.priority(n) > 0 && unable(n).is_none());
    let best = able.max_by_key(|n| {
        let preferred = view.spec.preferred() == Some(n.as_str());
        let key = (
            preferred,
            view.held(n).is_none(),
            view.spec.priority(n),
            u64::MAX - behind(n).unwrap_or(u64::MAX),
        );
        (key, std::cmp::Reverse((*n).clone()))
    });
    match best {
        Some(best) => Ok(Some(best.clone())),
        None => {
            let mut refusal = Refusal::new("HA0411", "no standby can become primary");
            for n in view.standbys() {
                refusal = refusal.why(format!(
                    "{n}: {}",
                    unable(n).unwrap_or_else(|| "its priority is 0".to_owned())
                ));
            }
            Err(refusal.next("hactl db status"))
        }
    }
}

/// Why a standby cannot take over now.
fn able(view: &View<'_>, node: &str, behind: Option<u64>) -> Option<String> {
    if !view.record.instances.contains_key(node) {
        return Some("it is no instance of the group".to_owned());
    }
    let Some(report) = view.recent(node) else {
        return Some("it does not report".to_owned());
    };
    if view.record.rebuilding(node) || report.unfit.is_some() {
        return Some("its data does not fit the primary's and is being rebuilt".to_owned());
    }
    let follow_only = view.spec.role(node) == RoleWanted::Async && view.spec.durability != Durability::Async;
    if follow_only || view.spec.role(node) == RoleWanted::None {
        return Some("its role is to follow only: hactl db assign gives it another".to_owned());
    }
    let limit = view.spec.limits.max_switchover_lag;
    match behind {
        None => Some("it does not stream from the primary in this epoch".to_owned()),
        Some(bytes) if bytes > limit => Some(format!(
            "it is {} MiB behind, the limit is {} MiB",
            bytes >> 20,
            limit >> 20
        )),
        Some(_) => None,
    }
}

fn stop(view: &View<'_>, request: &Request, report: &Report, to: &str) -> Draft {
    let mut next = view.record.clone();
    let now_ms = view.observed.now_ms;
    next.phase = Phase::Switching;
    next.switchover = Some(Switchover {
        operation: request.operation.clone(),
        to: to.to_owned(),
        started_ms: now_ms,
        incarnation: report.incarnation,
    });
    let in_place = to == report.node;
    let kind = if in_place { "restart in place" } else { "switchover" };
    next.last = Some(FailoverRecord {
        kind: kind.to_owned(),
        from: Some(report.node.clone()),
        to: Some(to.to_owned()),
        epoch: next.epoch,
        operation: request.operation.clone(),
        started_ms: now_ms,
        cause: "an operator asked for it".to_owned(),
        phases: vec![PhaseTime {
            name: "checked".to_owned(),
            at_ms: 0,
        }],
        ..FailoverRecord::default()
    });
    let text = if in_place {
        format!("{to} is restarted in place")
    } else {
        format!("switching from {} to {to}", report.node)
    };
    Draft::new(next, &text).event("db.switchover", Severity::Info, text)
}

/// What is decided while switching.
pub(super) fn decide(view: &View<'_>) -> Decision {
    let mut decision = Decision::default();
    let (Some(node), Some(switchover)) = (view.record.primary.as_deref(), view.record.switchover.as_ref()) else {
        return back(view, "the record names no switchover", None).decision();
    };
    let to = switchover.to.as_str();
    let limit = View::limit(view.spec.limits.stop_timeout_ms);
    let late = view.in_phase() > limit + view.timing.detect;
    decision.look_at = Some(view.phase_began() + limit + view.timing.detect);
    let proof = view.proof(node).filter(|p| p.incarnation == switchover.incarnation);
    let Some(proof) = proof else {
        // A primary that is not heard of may be lost for good; one that reports has its time.
        if view.proof(node).is_none() && view.recent(node).is_some() {
            if late {
                return back(view, &format!("{node} did not stop within {} s", limit.as_secs()), None).decision();
            }
            decision.reasons.push(format!("waiting for {node} to stop"));
            return decision;
        }
        if let Some(draft) = steady::lost(view, node, &mut decision.reasons) {
            return draft.decision();
        }
        return decision;
    };
    if to == node {
        let mut next = in_place(view, node, proof.incarnation);
        let at_ms = view.since_start();
        if let Some(last) = &mut next.last {
            last.phases.push(PhaseTime {
                name: "stopped".to_owned(),
                at_ms,
            });
        }
        let text = format!("{node} has stopped, and is started again");
        return Draft::new(next, &text)
            .event("db.promoting", Severity::Info, text)
            .decision();
    }
    if let Some(end) = proof.log
        && let Some(report) = caught_up(view, to, end)
    {
        return name(view, node, report, end, proof.incarnation).decision();
    }
    // A new master has heard nobody yet: that says nothing until agents could find it.
    let gone = view.recent(to).is_none() && view.now() >= view.observed.settled_at;
    if gone || late {
        let why = if gone {
            format!("{to} is lost")
        } else {
            format!("{to} did not receive the rest of the log within {} s", limit.as_secs())
        };
        return back(view, &why, Some(proof.incarnation)).decision();
    }
    decision
        .reasons
        .push(format!("{node} stopped; waiting for {to} to receive the rest"));
    decision
}

/// The successor's report, once it has everything that the stopped primary has.
fn caught_up<'a>(view: &View<'a>, to: &str, end: LogEnd) -> Option<&'a Report> {
    let report = view.recent(to)?;
    let fits = view.record.lineage.fit(&report.history, report.log?.lsn, None) == Fit::On;
    let whole = view.sound(report) && report.unfit.is_none() && !view.record.rebuilding(to);
    (whole && fits && report.standby && report.log.is_some_and(|l| l >= end)).then_some(report)
}

fn name(view: &View<'_>, from: &str, successor: &Report, end: LogEnd, stopped: u64) -> Draft {
    let mut next = view.record.clone();
    let to = successor.node.clone();
    next.epoch += 1;
    next.former = Some(from.to_owned());
    let follows = |n: &&String| **n != to && view.recent(n).is_some_and(|r| r.standby && view.sound(r));
    let mut answers: Vec<_> = view.standbys().filter(follows).cloned().collect();
    answers.push(from.to_owned());
    let answers: Vec<_> = answers
        .into_iter()
        .map(|node| Answer {
            node,
            rank: end,
            stopped: false,
        })
        .collect();
    let rule = successor_rule(view, &mut next, &to, &answers);
    next.phase = Phase::Promoting;
    next.primary = Some(to.clone());
    next.switchover = None;
    next.granters.clear();
    next.promotion = Some(Promotion {
        how: How::Promote,
        node: to.clone(),
        epoch: next.epoch,
        lineage: successor.history.clone(),
        end: successor.log.unwrap_or(end),
        rule: Some(rule),
        after_stop: None,
    });
    let at_ms = view.since_start();
    if let Some(last) = &mut next.last {
        last.epoch = next.epoch;
        last.decision = vec![
            format!("{from} (incarnation {stopped}) stopped at {end}"),
            format!("{to} has it all"),
        ];
        last.phases.push(PhaseTime {
            name: "stopped".to_owned(),
            at_ms,
        });
    }
    let text = format!("{from} stopped at {}; {to} becomes primary", end.lsn);
    Draft::new(next, &text).event("db.promoting", Severity::Info, text)
}

/// The stopped primary is started again where it is, in its epoch.
fn in_place(view: &View<'_>, node: &str, stopped: u64) -> GroupState {
    let mut next = view.record.clone();
    next.switchover = None;
    next.phase = Phase::Promoting;
    next.former = Some(node.to_owned());
    next.promotion = Some(Promotion {
        how: How::InPlace,
        node: node.to_owned(),
        epoch: next.epoch,
        lineage: next.lineage.clone(),
        end: view.proof(node).and_then(|p| p.log).unwrap_or_default(),
        rule: None,
        after_stop: Some(stopped),
    });
    next
}

/// Back to the primary there was, in its epoch (R3: a compare-and-set from the phase that is left). One that has stopped is
/// started again in place; one that may still be stopping is taken for running, and found stopped later if it did.
fn back(view: &View<'_>, why: &str, stopped: Option<u64>) -> Draft {
    let mut next = match (stopped, view.record.primary.as_deref()) {
        (Some(incarnation), Some(node)) => in_place(view, node, incarnation),
        _ => GroupState {
            switchover: None,
            phase: Phase::Steady,
            ..view.record.clone()
        },
    };
    if let Some(last) = &mut next.last {
        last.rolled_back = Some(why.to_owned());
        last.to = next.primary.clone();
    }
    let text = format!("switchover rolled back: {why}");
    Draft::new(next, &text).event("db.switchover", Severity::Warning, text)
}
