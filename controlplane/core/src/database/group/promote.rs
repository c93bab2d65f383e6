//! From a named primary to a steady one, and back to an election when it fails on the way.

use super::Draft;
use super::elect::{Begin, begin};
use super::view::View;
use crate::database::lineage::Lineage;
use crate::database::local::{Directory, Server};
use crate::database::observed::Decision;
use crate::database::record::{How, Phase, PhaseTime};
use crate::model::Severity;

/// What is decided while promoting or bootstrapping.
pub(super) fn decide(view: &View<'_>) -> Decision {
    let (Some(node), Some(promotion)) = (view.record.primary.as_deref(), view.record.promotion.as_ref()) else {
        return begin(view, named_nobody()).decision();
    };
    if let Some((lineage, system_id)) = made(view, node) {
        return steady(view, node, lineage, system_id).decision();
    }
    let creating = matches!(promotion.how, How::Create | How::Adopt);
    match failed(view, node) {
        // Nobody else has the data: the first primary is waited for, and started again where it failed.
        Some(why) if creating => Decision {
            reasons: vec![format!("the first primary is not there yet: {why}")],
            ..Decision::default()
        },
        Some(why) => {
            let how = Begin {
                cause: why,
                replace: view.record.replace,
                forced: None,
            };
            begin(view, how).decision()
        }
        None => {
            let wait = view.report(node).and_then(|r| r.waits.first().cloned());
            let wait = wait.map_or(String::new(), |w| format!(" ({w})"));
            Decision {
                reasons: vec![format!("waiting for {node} to become primary{wait}")],
                look_at: Some(view.phase_began() + View::limit(view.spec.limits.promote_timeout_ms)),
                ..Decision::default()
            }
        }
    }
}

fn named_nobody() -> Begin {
    Begin {
        cause: "the record names no primary".to_owned(),
        replace: false,
        forced: None,
    }
}

/// The lineage that the named primary has as a primary, once it is one.
fn made(view: &View<'_>, node: &str) -> Option<(Lineage, Option<u64>)> {
    let promotion = view.record.promotion.as_ref()?;
    let report = view.recent(node)?;
    let primary = report.primary.as_ref()?;
    if report.epoch != view.record.epoch || !report.runs_as_primary() || !view.started_since(report) {
        return None;
    }
    let Directory::Present { system_id } = report.directory else {
        return None;
    };
    let lineage = match promotion.how {
        How::Promote => {
            let branch = primary.promoted.filter(|b| b.epoch == view.record.epoch)?;
            promotion.lineage.with(branch)
        }
        How::InPlace => {
            primary.recovered?;
            promotion.lineage.clone()
        }
        // What it had before the group, other directories may have as well: they fit without a copy then.
        How::Create | How::Adopt => {
            report.history.last()?;
            report.history.clone()
        }
    };
    Some((lineage, Some(system_id)))
}

/// Why the named primary will not become one.
fn failed(view: &View<'_>, node: &str) -> Option<String> {
    let limit = View::limit(view.spec.limits.promote_timeout_ms);
    if view.in_phase() > limit {
        return Some(format!("{node} did not become primary within {} s", limit.as_secs()));
    }
    if let Some((why, _)) = view.suspicion(node) {
        return Some(why);
    }
    let report = view.recent(node).filter(|r| r.epoch == view.record.epoch)?;
    if report.server == Server::Orphaned {
        return Some(format!("the postmaster on {node} is gone"));
    }
    // One that stopped before it had a timeline of its own is started and promoted again; with one, nobody can tell any
    // more what of it others have, and it must be chosen anew.
    let promotion = view.record.promotion.as_ref().filter(|p| p.how == How::Promote);
    if promotion.is_some_and(|p| report.server == Server::Stopped && report.history != p.lineage) {
        return Some(format!("PostgreSQL on {node} stopped while it was promoted"));
    }
    let (task, why) = report.failed.as_ref()?;
    Some(format!("{node} could not become primary: {task}: {why}"))
}

/// The record that lets the primary open.
fn steady(view: &View<'_>, node: &str, lineage: Lineage, system_id: Option<u64>) -> Draft {
    let mut next = view.record.clone();
    let first = next.phase == Phase::Bootstrapping;
    next.phase = Phase::Steady;
    next.former = Some(node.to_owned());
    next.timeline = lineage.timeline();
    next.lineage = lineage;
    next.forced = None;
    next.replace = false;
    if next.system_id.is_none() {
        next.system_id = system_id;
    }
    if let Some(i) = next.instances.get_mut(node) {
        i.filled = true;
        i.rebuild = None;
    }
    let at_ms = view.since_start();
    if let Some(last) = &mut next.last {
        last.to = Some(node.to_owned());
        last.epoch = next.epoch;
        last.phases.push(PhaseTime {
            name: "primary".to_owned(),
            at_ms,
        });
    }
    let text = format!("{node} is primary of epoch {}, timeline {}", next.epoch, next.timeline);
    let kind = if first { "db.created" } else { "db.primary" };
    Draft::new(next, &text).event(kind, Severity::Info, text)
}
