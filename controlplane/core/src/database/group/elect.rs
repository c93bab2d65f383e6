//! Elections: sealing the old epoch, counting answers, choosing (protocol, failover steps 3 to 7).

use super::Draft;
use super::view::{Answer, View};
use crate::database::durability::{missing, need, uncovered};
use crate::database::local::Server;
use crate::database::observed::{Decision, Finished};
use crate::database::record::{FailoverRecord, Forced, GroupState, How, Nodes, Phase, PhaseTime, Promotion};
use crate::database::spec::{Durability, RoleWanted};
use crate::model::Severity;
use crate::refusal::Refusal;

/// How an election begins.
pub(super) struct Begin {
    /// What began it.
    pub(super) cause: String,
    /// The former primary is to be replaced even if it answers.
    pub(super) replace: bool,
    /// An operator asked for it.
    pub(super) forced: Option<Forced>,
}

/// The record that seals the present epoch.
///
/// Coming from a promotion that never became steady, the rule made for it is left out again: a primary acknowledges only
/// after it read a steady record of its epoch, and this write replaces the promoting one by version, so there never was one.
pub(super) fn begin(view: &View<'_>, how: Begin) -> Draft {
    let mut next = view.record.clone();
    let steady = view.has_primary();
    let named = next.primary.take();
    if steady {
        next.former = named.clone();
    }
    if !steady && let Some(made) = next.promotion.as_ref().and_then(|p| p.rule) {
        if next.rules.iter().any(|r| r.id != made) {
            next.rules.retain(|r| r.id != made);
        }
        next.applying = next.rules.last().map_or(0, |r| r.id);
    }
    if view.weaken.joint_forgotten {
        let applying = next.applying;
        next.rules.retain(|r| r.id == applying);
    }
    next.epoch += 1;
    next.phase = Phase::Electing;
    next.switchover = None;
    next.replace = how.replace || how.forced.is_some();
    let now_ms = view.observed.now_ms;
    if how.forced.is_none()
        && let Some(failed) = &named
    {
        let limits = &view.spec.limits;
        let instance = next.instances.entry(failed.clone()).or_default();
        let window = i64::try_from(limits.flap_window_ms).unwrap_or(i64::MAX);
        instance.failures_ms.retain(|at| now_ms - at < window);
        instance.failures_ms.push(now_ms);
        let surplus = instance.failures_ms.len().saturating_sub(64);
        instance.failures_ms.drain(..surplus);
        if limits.flap_count > 0 && instance.failures_ms.len() >= limits.flap_count as usize {
            instance.held_until_ms =
                Some(now_ms.saturating_add(i64::try_from(limits.hold_down_ms).unwrap_or(i64::MAX)));
        }
    }
    // A failed promotion belongs to the failover it was part of, a primary lost during a switchover to the switchover.
    let going_on = !steady || view.record.phase == Phase::Switching;
    let continued = view.record.last.clone().filter(|l| going_on && !l.done);
    let mut last = continued.unwrap_or_else(|| FailoverRecord {
        kind: "failover".to_owned(),
        from: named.clone(),
        started_ms: now_ms,
        cause: how.cause.clone(),
        ..FailoverRecord::default()
    });
    if let Some(forced) = &how.forced {
        last.operation.clone_from(&forced.operation);
    }
    last.to = None;
    last.epoch = next.epoch;
    next.last = Some(last);
    if how.forced.is_some() {
        next.forced = how.forced;
    }
    Draft::new(next, &how.cause).event(
        "db.electing",
        Severity::Warning,
        format!("looking for a new primary: {}", how.cause),
    )
}

/// Whether an answer may become the primary.
fn eligible(view: &View<'_>, node: &str) -> Result<(), String> {
    let forced = view.record.forced.as_ref();
    if forced.and_then(|f| f.to.as_deref()) == Some(node) {
        return Ok(());
    }
    match view.spec.role(node) {
        RoleWanted::None => return Err("no instance is wanted there".to_owned()),
        RoleWanted::Async if view.spec.durability != Durability::Async => {
            return Err("its role is to follow only".to_owned());
        }
        _ => {}
    }
    if view.spec.priority(node) == 0 {
        return Err("its priority is 0".to_owned());
    }
    Ok(())
}

/// Whether every covered commit is in the log of this answer: the answers that are no better than it are enough.
fn complete(view: &View<'_>, answers: &[Answer], candidate: &Answer) -> Result<(), String> {
    let below: Nodes = answers
        .iter()
        .filter(|a| a.rank <= candidate.rank)
        .map(|a| a.node.clone())
        .collect();
    if view.weaken.no_durability {
        return Ok(());
    }
    let open = uncovered(&view.record.rules, &below, view.spec.durability);
    match open.first() {
        None => Ok(()),
        Some(rule) => Err(format!(
            "it may lack acknowledged commits: still needs {}",
            missing(rule, &below)
        )),
    }
}

/// What is decided while electing.
pub(super) fn decide(view: &View<'_>) -> Decision {
    if let Some(draft) = abort(view) {
        return draft.decision();
    }
    let answers = view.answers();
    let mut reasons = Vec::new();
    let mut lines = Vec::new();
    let fence = view.fenced(&view.sealed());
    let forced = view.record.forced.as_ref();
    let lossy = forced.is_some_and(|f| f.allow_data_loss);
    let target = forced
        .and_then(|f| f.to.as_deref())
        .filter(|_| view.in_phase() < view.timing.detect * 4);
    let mut best: Option<&Answer> = None;
    let mut in_place: Option<&Answer> = None;
    for answer in &answers {
        let node = &answer.node;
        let verdict = complete(view, &answers, answer)
            .or_else(|why| if lossy { Ok(()) } else { Err(why) })
            .and_then(|()| eligible(view, node))
            .and_then(|()| {
                view.recent(node)
                    .map(|_| ())
                    .ok_or_else(|| "it does not report any more".to_owned())
            })
            .and_then(|()| match target {
                Some(t) if t != node => Err(format!("the operator wants {t}")),
                _ => Ok(()),
            })
            .and_then(|()| within_loss(view, node));
        let held = view
            .held(node)
            .map_or(String::new(), |_| ", held down: it failed too often".to_owned());
        let line = match &verdict {
            Ok(()) => format!("{node}: {}, priority {}{held}", answer.rank, view.spec.priority(node)),
            Err(why) => format!("{node}: {}, not chosen: {why}", answer.rank),
        };
        lines.push(line);
        if verdict.is_err() {
            continue;
        }
        if answer.stopped {
            in_place = Some(answer);
        } else if best.is_none_or(|b| better(view, answer, b)) {
            best = Some(answer);
        }
    }
    let silent = view
        .record
        .instances
        .keys()
        .filter(|n| !answers.iter().any(|a| a.node == **n));
    lines.extend(silent.map(|n| format!("{n}: {}", unanswered(view, n))));
    let fence = match fence {
        Ok(how) => how,
        Err(why) => {
            reasons.push(format!("no new primary yet: {why}"));
            reasons.extend(lines);
            return Decision {
                reasons,
                ..Decision::default()
            };
        }
    };
    // A standby that reports but has not answered yet may make the restart in place unnecessary.
    let coming = view.record.instances.keys().filter(|n| {
        let late = !answers.iter().any(|a| a.node == **n) && eligible(view, n).is_ok();
        late && view
            .recent(n)
            .is_some_and(|r| view.sound(r) && r.server != Server::Orphaned && r.unfit.is_none())
    });
    let patient = view.in_phase() < view.timing.detect && coming.count() > 0;
    let chosen = best.or(in_place.filter(|_| !patient));
    let Some(chosen) = chosen else {
        let first = if patient {
            "waiting for answers"
        } else {
            "no instance may become primary yet"
        };
        reasons.push(first.to_owned());
        reasons.extend(lines);
        return Decision {
            reasons,
            ..Decision::default()
        };
    };
    lines.insert(0, format!("{fence}; chose {}", chosen.node));
    name_primary(view, chosen, &answers, lines).decision()
}

/// In `async` groups a standby that was far behind when the primary was last well is not promoted by itself.
fn within_loss(view: &View<'_>, node: &str) -> Result<(), String> {
    let by_hand = view.record.forced.is_some();
    let limit = view.spec.limits.max_failover_lag;
    match view.memory.lag.get(node) {
        Some(lag) if view.spec.durability == Durability::Async && !by_hand && *lag > limit => {
            Err(format!("it was last seen {lag} bytes behind, the limit is {limit}"))
        }
        _ => Ok(()),
    }
}

/// Why an instance is not among the answers.
fn unanswered(view: &View<'_>, node: &str) -> String {
    let Some(report) = view.report(node) else {
        return "has not reported to this master".to_owned();
    };
    if view.recent(node).is_none() {
        return "does not report".to_owned();
    }
    if view.record.rebuilding(node) {
        return "is being rebuilt, which counts for nothing".to_owned();
    }
    if !view.sound(report) {
        return "has no data of this group".to_owned();
    }
    match report.waits.first() {
        Some(wait) => wait.clone(),
        None if report.sealed == Some(view.record.epoch) => "sealed, the end of its log is not known yet".to_owned(),
        None => "has not answered yet".to_owned(),
    }
}

/// The order of choice: log, then priority, then load, then name. One that failed too often comes last among those that
/// have every covered commit; where commits may be lost the log comes first all the same.
fn better(view: &View<'_>, a: &Answer, b: &Answer) -> bool {
    let lossy =
        view.spec.durability == Durability::Async || view.record.forced.as_ref().is_some_and(|f| f.allow_data_loss);
    let key = |x: &Answer| {
        let fit = view.held(&x.node).is_none();
        let load = u32::MAX - view.load(&x.node);
        (lossy || fit, x.rank, fit, view.spec.priority(&x.node), load)
    };
    key(a) > key(b) || (key(a) == key(b) && a.node < b.node)
}

/// The former primary turned out to be well, and nobody was named: it goes on, in an epoch of its own.
fn abort(view: &View<'_>) -> Option<Draft> {
    let former = view.record.former.as_deref()?;
    if view.record.replace && (view.record.forced.is_some() || view.in_phase() < view.timing.detect * 7) {
        return None;
    }
    let seen = view.seen(former)?;
    let (report, at) = seen.report.as_ref()?;
    let primary = report.primary.as_ref()?;
    let well = seen.registered
        && view.recent(former).is_some()
        && *at > view.phase_began()
        && report.epoch == view.record.epoch
        && report.runs_as_primary()
        && view.started_since(report)
        && report.history == view.record.lineage
        && view.proof(former).is_none()
        && !primary.probe_failed;
    if !well {
        return None;
    }
    let mut next = view.record.clone();
    next.epoch += 1;
    next.phase = Phase::Steady;
    next.primary = Some(former.to_owned());
    next.replace = false;
    finish(&mut next, view, "abort", former);
    if let Some(i) = next.instances.get_mut(former) {
        i.failures_ms.pop();
        i.held_until_ms = i.held_until_ms.filter(|_| view.held(former).is_none());
    }
    let why = format!("{former} is well; it stays primary");
    Some(Draft::new(next, &why).event("db.abort", Severity::Info, why))
}

/// Notes in the failover's record who is primary now.
pub(super) fn finish(next: &mut GroupState, view: &View<'_>, kind: &str, to: &str) {
    let at_ms = view.since_start();
    let epoch = next.epoch;
    if let Some(last) = &mut next.last {
        last.to = Some(to.to_owned());
        last.epoch = epoch;
        if !kind.is_empty() {
            last.kind = kind.to_owned();
        }
        last.phases.push(PhaseTime {
            name: "primary".to_owned(),
            at_ms,
        });
    }
}

/// The record that names a primary (step 7). A standby is given a rule of those that answered, the stopped former primary
/// counted as one to come; with nobody, the voters stay whom they were, and only their absence degrades them (R7).
fn name_primary(view: &View<'_>, chosen: &Answer, answers: &[Answer], decision: Vec<String>) -> Draft {
    let mut next = view.record.clone();
    let node = chosen.node.clone();
    let report = view.report(&node);
    let how = if chosen.stopped { How::InPlace } else { How::Promote };
    // Whatever ran there before is not what this write makes a primary.
    let proof = report.and_then(|r| r.stopped.as_ref());
    let end = proof
        .and_then(|p| p.log)
        .or_else(|| report.and_then(|r| r.log))
        .unwrap_or(chosen.rank);
    let mut rule = None;
    if how == How::Promote {
        rule = Some(successor_rule(view, &mut next, &node, answers));
    }
    next.phase = Phase::Promoting;
    next.primary = Some(node.clone());
    next.granters.clear();
    next.promotion = Some(Promotion {
        how,
        node: node.clone(),
        epoch: next.epoch,
        lineage: report.map(|r| r.history.clone()).unwrap_or_default(),
        end,
        rule,
        after_stop: proof.map(|p| p.incarnation),
    });
    let at_ms = view.since_start();
    let lossy = view.spec.durability == Durability::Async || next.forced.as_ref().is_some_and(|f| f.allow_data_loss);
    let loss = view
        .memory
        .last_primary_log
        .filter(|_| lossy && how == How::Promote)
        .map(|l| l.past(end.lsn));
    if let Some(last) = &mut next.last {
        last.to = Some(node.clone());
        if how == How::InPlace {
            last.kind = "restart in place".to_owned();
        }
        last.loss_bytes = loss;
        last.decision = decision;
        last.phases.push(PhaseTime {
            name: "chosen".to_owned(),
            at_ms,
        });
    }
    let verb = if how == How::InPlace {
        "is started again in place"
    } else {
        "becomes primary"
    };
    let text = format!("{node} {verb}: its log ends at {end}");
    Draft::new(next, &text).event("db.promoting", Severity::Warning, text)
}

/// Appends the rule for a new primary and returns its number. Its voters are those that answered, and those whose answer was
/// not needed: a rule without them would have to be changed at once, and clients wait for each change. Whom a rule names
/// promises nothing by that; what one acknowledges, it acknowledges to the new primary.
pub(super) fn successor_rule(view: &View<'_>, next: &mut GroupState, primary: &str, answers: &[Answer]) -> u64 {
    let answered = answers.iter().map(|a| &a.node);
    let coming = view.standbys_up_to(answers.iter().find(|a| a.node == primary).map(|a| a.rank));
    let mut voters: Nodes = answered.chain(coming).filter(|n| view.may_vote(n)).cloned().collect();
    voters.remove(primary);
    if voters.is_empty() {
        let before = view
            .record
            .rules
            .iter()
            .flat_map(|r| r.voters.iter().chain(&r.primaries));
        voters = before.filter(|n| *n != primary && view.may_vote(n)).cloned().collect();
    }
    if view.weaken.primary_votes {
        voters.insert(primary.to_owned());
    }
    if view.weaken.joint_forgotten {
        let applying = next.applying;
        next.rules.retain(|r| r.id == applying);
    }
    let need = need(voters.len(), view.spec.durability);
    next.append_rule(voters, need, Nodes::from([primary.to_owned()]));
    next.applying
}

/// Whether a failover that an operator asked for can begin.
pub(super) fn forced(view: &View<'_>, forced: &Forced) -> Result<Draft, Finished> {
    let refuse = |refusal: Refusal| Finished {
        operation: forced.operation.clone(),
        result: Err(refusal),
    };
    if let Some(to) = &forced.to {
        let known = view.record.instances.contains_key(to);
        if !known || view.recent(to).is_none() || view.record.primary.as_deref() == Some(to) {
            let why = if known {
                "it is the primary already, or does not report"
            } else {
                "it is no instance of the group"
            };
            return Err(refuse(
                Refusal::new("HA0412", format!("{to} cannot become primary"))
                    .why(why)
                    .next("hactl db status"),
            ));
        }
    }
    let present = view.record.primary.as_deref().unwrap_or_default();
    if !forced.allow_data_loss && view.primary().is_some_and(|(_, p)| p.open) && view.suspicion(present).is_none() {
        return Err(refuse(
            Refusal::new("HA0413", format!("{present} is healthy")).next("hactl db switchover"),
        ));
    }
    let reach = view.within_reach();
    let open = uncovered(&view.record.rules, &reach, view.spec.durability);
    // The present primary, if it still answers, stops when the record says so, and its data is then counted as well.
    let primary = view.record.primary.iter().filter(|p| view.recent(p).is_some()).cloned();
    let with_primary: Nodes = reach.iter().cloned().chain(primary).collect();
    let still = uncovered(&view.record.rules, &with_primary, view.spec.durability);
    if let (false, Some(rule), true) = (forced.allow_data_loss, still.first(), !open.is_empty()) {
        return Err(refuse(
            Refusal::new("HA0414", "a failover now may lose acknowledged commits")
                .why(format!("needs {}", missing(rule, &with_primary)))
                .why(estimate(view))
                .next("hactl db failover --allow-data-loss"),
        ));
    }
    Ok(begin(
        view,
        Begin {
            cause: "an operator asked for it".to_owned(),
            replace: true,
            forced: Some(forced.clone()),
        },
    ))
}

/// How much a failover now may lose, as far as this master can know.
pub(super) fn estimate(view: &View<'_>) -> String {
    let lag = view.standbys().filter_map(|n| view.memory.lag.get(n)).min();
    match lag {
        Some(bytes) => format!("when the primary was last heard, the nearest standby was {bytes} bytes behind"),
        None => "this master never heard the primary: it cannot estimate the loss".to_owned(),
    }
}
