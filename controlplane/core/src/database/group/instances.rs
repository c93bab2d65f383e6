//! The instances of a group: which there are, which may be rebuilt, which give grants.

use std::time::Duration;

use super::Draft;
use super::starved::{self, Due};
use super::view::View;
use crate::database::durability::asks_nobody;
use crate::database::local::{Directory, PrimaryReport};
use crate::database::observed::{Decision, Event, Finished, Wanted};
use crate::database::record::{InstanceState, Nodes, Rebuild};
use crate::database::spec::RoleWanted;
use crate::model::{Presence, Severity};
use crate::refusal::Refusal;

/// Brings the record's instances to what the spec wants: named ones, and as many more as `instances` asks for.
pub(super) fn sync(view: &View<'_>) -> Option<Draft> {
    let record = view.record;
    let removed = |n: &String| view.observed.removed.contains(n);
    let wants = |n: &String| view.spec.role(n) != RoleWanted::None && !removed(n);
    let named = view.spec.nodes.keys().filter(|n| wants(n));
    if let Some(new) = named.clone().find(|n| !record.instances.contains_key(*n)) {
        return Some(add(view, new, false, "is listed in the group's spec"));
    }
    // An instance leaves once it does not vote any more; the primary leaves by a switchover alone.
    let leaves = |n: &&String| {
        let listed = view.spec.nodes.contains_key(*n);
        let unwanted = (listed && !wants(n)) || (!listed && (!record.instances[*n].chosen || surplus(view)));
        (unwanted || removed(n)) && record.primary.as_deref() != Some(n.as_str()) && !record.votes(n)
    };
    if let Some(gone) = record.instances.keys().find(leaves).cloned() {
        return Some(remove(view, &gone, "is not wanted any more"));
    }
    let wanted = (view.spec.instances as usize).max(named.count());
    if view.spec.instances == 0 {
        return None;
    }
    let replace_after = Duration::from_millis(view.spec.limits.replace_after_ms);
    let lost = |n: &String| {
        let absent = view.seen(n).and_then(|s| s.absent_since);
        let settled = view.now() >= view.observed.settled_at;
        let absent = absent.is_some_and(|at| view.now().saturating_sub(at) >= replace_after);
        removed(n) || (settled && absent)
    };
    let living = record.instances.keys().filter(|n| !lost(n)).count();
    if living < wanted {
        let free = view.observed.candidates.iter().filter(|(n, c)| {
            let unlisted = !record.instances.contains_key(*n) && !view.spec.nodes.contains_key(*n);
            unlisted && c.schedulable && c.presence == Presence::Online
        });
        let least = free
            .min_by_key(|(n, c)| (c.crowded, c.load_milli, (*n).clone()))?
            .0
            .clone();
        return Some(add(
            view,
            &least,
            true,
            &format!("the group wants {wanted} instances and has {living}"),
        ));
    }
    let chosen_lost = |n: &&String| record.instances[*n].chosen && lost(n) && !record.votes(n);
    let gone = record.instances.keys().find(chosen_lost).cloned()?;
    (record.primary.as_deref() != Some(gone.as_str())).then(|| remove(view, &gone, "was lost and has been replaced"))
}

/// More instances live than are wanted: one that the master chose may go again.
fn surplus(view: &View<'_>) -> bool {
    let wanted = (view.spec.instances as usize).max(view.spec.nodes.len());
    view.record
        .instances
        .keys()
        .filter(|n| view.recent(n).is_some())
        .count()
        > wanted
}

fn add(view: &View<'_>, node: &str, chosen: bool, why: &str) -> Draft {
    let mut next = view.record.clone();
    next.instances.insert(
        node.to_owned(),
        InstanceState {
            since_ms: view.observed.now_ms,
            chosen,
            ..InstanceState::default()
        },
    );
    let text = format!("{node} becomes an instance: {why}");
    let reason = next.reason.clone();
    Draft::new(next, &reason).event("db.instance", Severity::Info, text)
}

fn remove(view: &View<'_>, node: &str, why: &str) -> Draft {
    let mut next = view.record.clone();
    next.instances.remove(node);
    let reason = next.reason.clone();
    Draft::new(next, &reason).event(
        "db.instance",
        Severity::Info,
        format!("{node} is no instance any more: {why}"),
    )
}

/// Orders rebuilds and takes them back.
///
/// R6 forbids to rewind or copy a voter while joint, for the copy it destroys may be the one an older rule counts on. The
/// order stands in the record before the directory changes, and an instance under that order answers for nobody's
/// durability (see `View::answers`); it is taken back only when the instance streams from this primary and has flushed
/// everything the primary was named with. So a rebuilt instance never stands in for what it lost. That makes it safe to
/// order one even while joint, which is done only where the joint cannot be left otherwise.
pub(super) fn rebuild(view: &View<'_>, primary: &PrimaryReport, decision: &mut Decision) -> Option<Draft> {
    let record = view.record;
    for request in &view.observed.requests {
        if let Wanted::Reinit { node } = &request.what
            && (record.primary.as_ref() == Some(node) || !record.instances.contains_key(node))
        {
            let refusal = if record.instances.contains_key(node) {
                Refusal::new("HA0410", format!("{node} is the primary")).next("hactl db switchover")
            } else {
                Refusal::new("HA0403", format!("{node} has no instance of the group")).next("hactl db status")
            };
            decision.finished.push(Finished {
                operation: request.operation.clone(),
                result: Err(refusal),
            });
        }
    }
    for node in view.standbys() {
        let Some(instance) = record.instances.get(node) else {
            continue;
        };
        let Some(report) = view.recent(node).filter(|r| r.epoch == record.epoch) else {
            continue;
        };
        let starves = starved::due(view, instance, report, primary);
        if let Some(Due::Later(why)) = &starves {
            decision.reasons.push(why.clone());
        }
        let starves = match starves {
            Some(Due::Now { why, times }) => Some((why, times)),
            Some(Due::Later(_)) | None => None,
        };
        if instance.rebuild.is_some() && starves.is_none() {
            let tip = record.promotion.as_ref().map(|p| p.end.lsn).unwrap_or_default();
            let on_branch = report.log.map(|l| l.epoch) == record.lineage.last().map(|b| b.epoch);
            let caught_up = primary.flushed.get(node).is_some_and(|l| *l >= tip);
            if report.unfit.is_none() && report.standby && on_branch && caught_up && report.task.is_none() {
                let mut next = record.clone();
                if let Some(i) = next.instances.get_mut(node) {
                    let order = i.rebuild.take().map(|r| r.operation).filter(|o| !o.is_empty());
                    let result = Ok(format!("{node} streams again"));
                    decision
                        .finished
                        .extend(order.map(|operation| Finished { operation, result }));
                    i.filled = true;
                }
                let reason = next.reason.clone();
                let text = follows(node, record.primary.as_deref().unwrap_or_default());
                return Some(Draft::new(next, &reason).event("db.rejoined", Severity::Info, text));
            }
            continue;
        }
        let foreign = matches!(report.directory, Directory::Present { .. }) && !view.sound(report);
        let asked = view
            .observed
            .requests
            .iter()
            .find(|r| matches!(&r.what, Wanted::Reinit { node: n } if n == node));
        if foreign {
            if let Some(request) = asked {
                let refusal = Refusal::new(
                    "HA0417",
                    format!("the directory on {node} is of another database system"),
                )
                .why("it is never touched")
                .next("move it away, then: hactl db reinit");
                let operation = request.operation.clone();
                decision.finished.push(Finished {
                    operation,
                    result: Err(refusal),
                });
            }
            continue;
        }
        let (copy, why, operation) = match (asked, &report.unfit, &starves) {
            (Some(r), _, _) => (true, "an operator asked for it".to_owned(), r.operation.clone()),
            (None, Some(unfit), _) => (unfit.copy, unfit.why.clone(), String::new()),
            (None, None, Some((why, _))) => (true, why.clone(), String::new()),
            (None, None, None) => continue,
        };
        let starves = starves.filter(|_| asked.is_none());
        let empty = matches!(report.directory, Directory::Empty);
        let stuck = view
            .memory
            .joint_since
            .map_or(Duration::ZERO, |(_, at)| view.now().saturating_sub(at));
        let past = stuck > Duration::from_millis(view.spec.limits.degrade_after_ms);
        // One that starves has a whole log, which an older rule may count on, however long the joint lasts.
        let past = past && starves.is_none();
        let blocked = record.joint() && record.votes(node) && !empty && !past && !view.weaken.rebuild_in_joint;
        // A voter is dropped from the rule first, where others are left to vote.
        let others = record
            .rules
            .iter()
            .all(|r| r.voters.iter().any(|v| v != node && view.may_vote(v)));
        if let Some((why, _)) = starves.as_ref().filter(|_| blocked) {
            let until = "it votes, and is copied afresh once the rule of durability is settled";
            decision.reasons.push(format!("{node}: {why}; {until}"));
        }
        if blocked
            || (record.votes(node) && !record.joint() && others && asked.is_none() && !view.weaken.rebuild_in_joint)
        {
            continue;
        }
        let mut next = record.clone();
        if let Some(i) = next.instances.get_mut(node) {
            if let Some((_, times)) = &starves {
                (i.starvations, i.starved_ms) = (times + 1, view.observed.now_ms);
            }
            i.rebuild = Some(Rebuild {
                copy,
                why: why.clone(),
                operation,
                since_ms: view.observed.now_ms,
            });
        }
        let reason = next.reason.clone();
        let verb = if copy { "copied afresh" } else { "rewound" };
        let (severity, again) = match starves {
            Some((_, times)) => (Severity::Warning, starved::again(times + 1)),
            None => (Severity::Info, String::new()),
        };
        let text = format!("{node} is {verb}: {why}{again}");
        return Some(Draft::new(next, &reason).event("db.rebuild", severity, text));
    }
    None
}

/// Keeps who is away, and tells of those that follow again. The end of a rebuild is told with the record that ends it.
pub(super) fn returned(view: &View<'_>, primary: &PrimaryReport, away: &mut Nodes) -> Vec<Event> {
    let record = view.record;
    let named = record.primary.as_deref().unwrap_or_default();
    let former = record.last.as_ref().filter(|l| l.done).and_then(|l| l.from.as_deref());
    away.retain(|n| n != named && record.instances.contains_key(n));
    let mut told = Vec::new();
    for (node, instance) in record.instances.iter().filter(|(n, _)| *n != named) {
        if !primary.flushed.contains_key(node) {
            // The others reconnect to a new primary within moments, and that is no news.
            if view.recent(node).is_none() || former == Some(node.as_str()) {
                away.insert(node.clone());
            }
        } else if away.remove(node) && instance.rebuild.is_none() {
            told.push(Event {
                kind: "db.rejoined",
                severity: Severity::Info,
                text: follows(node, named),
            });
        }
    }
    told
}

fn follows(node: &str, primary: &str) -> String {
    format!("{node} follows {primary} again")
}

/// The granters of an `async` or degraded group (R13).
///
/// The fence waits for the granters of the record; the primary lives by those of the record it read. So one write only adds
/// or only removes, only once the primary confirmed the set before it, and never removes the last one: whichever of the
/// two sets each side goes by, the smaller one is in both, and while it is bound by its promise the fence waits. From no
/// granter at all the primary lives by its lease alone, and any set may follow. A granter is added only after the primary
/// named it as one that streams from it in this epoch. A new primary begins with none, for the old one is fenced by then.
pub(super) fn granters(view: &View<'_>, primary: &PrimaryReport) -> Option<Draft> {
    let record = view.record;
    let able = |n: &&String| {
        let recent = view.recent(n).is_some_and(|r| r.epoch == record.epoch);
        (primary.grantable.contains(*n) || view.weaken.grant_unrecorded) && recent
    };
    let nobody = asks_nobody(record);
    let wanted: Nodes = view.standbys().filter(able).filter(|_| nobody).cloned().collect();
    if primary.granters != record.granters && !view.weaken.grant_unrecorded {
        return None;
    }
    let added: Nodes = record.granters.union(&wanted).cloned().collect();
    let set = if added == record.granters { wanted } else { added };
    if set == record.granters || (nobody && set.is_empty()) {
        return None;
    }
    let mut next = record.clone();
    next.granters = set;
    let reason = next.reason.clone();
    Some(Draft::new(next, &reason))
}
