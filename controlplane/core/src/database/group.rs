//! The master's machine: from the spec, the record and what is observed, the next record.
//!
//! It never acts: whatever is to happen stands in the record it returns, and agents act on the record they read. One
//! decision changes one thing. What it must never do: name a primary while another could still acknowledge, or one that
//! may lack an acknowledged commit.

mod elect;
mod first;
mod instances;
mod promote;
mod rules;
mod starved;
mod steady;
mod switch;
#[cfg(test)]
mod tests;
mod view;

use super::durability::can_acknowledge;
use super::local::Report;
use super::observed::{Decision, Event, Memory, Observed, Order, Wanted};
use super::record::{GroupState, Nodes, Phase};
use super::spec::GroupSpec;
use super::{Timing, Weaken};
use crate::model::Severity;
use view::View;

/// A record to write, with what is told of it.
struct Draft {
    next: GroupState,
    events: Vec<Event>,
}

impl Draft {
    fn new(mut next: GroupState, reason: &str) -> Self {
        reason.clone_into(&mut next.reason);
        Self {
            next,
            events: Vec::new(),
        }
    }

    fn event(mut self, kind: &'static str, severity: Severity, text: impl Into<String>) -> Self {
        self.events.push(Event {
            kind,
            severity,
            text: text.into(),
        });
        self
    }

    fn decision(self) -> Decision {
        self.onto(Decision::default())
    }

    fn onto(self, mut decision: Decision) -> Decision {
        decision.reasons.insert(0, self.next.reason.clone());
        decision.write = Some(Box::new(self.next));
        decision.events.extend(self.events);
        decision
    }
}

/// Decides what becomes of a group. The same arguments give the same decision, and once its write stands the next decision
/// is another one or none: nothing is written twice.
pub fn decide(
    spec: &GroupSpec,
    record: &GroupState,
    observed: &Observed,
    memory: &mut Memory,
    timing: &Timing,
    weaken: &Weaken,
) -> Decision {
    if !observed.sealed {
        return Decision {
            reasons: vec!["this master has not written its term into the record yet".to_owned()],
            ..Decision::default()
        };
    }
    if spec.removed {
        return Decision {
            reasons: vec!["the group was removed".to_owned()],
            ..Decision::default()
        };
    }
    let told = note(spec, record, observed, memory, timing, weaken);
    let view = View {
        spec,
        record,
        observed,
        memory,
        timing,
        weaken,
    };
    let mut decision = match record.phase {
        Phase::New => first::decide(&view),
        Phase::Bootstrapping | Phase::Promoting => promote::decide(&view),
        Phase::Steady => steady::decide(&view),
        Phase::Electing => elect::decide(&view),
        Phase::Switching => switch::decide(&view),
    };
    decision.events.extend(told);
    if let Some(next) = &mut decision.write {
        if (next.epoch, next.phase) != (record.epoch, record.phase) {
            next.since_ms = observed.now_ms;
        }
        let nodes = next
            .instances
            .keys()
            .chain(record.instances.keys())
            .collect::<std::collections::BTreeSet<_>>();
        decision
            .orders
            .extend(nodes.into_iter().map(|n| Order::Look { node: n.clone() }));
    } else {
        let tick = observed.now + timing.detect / 3;
        decision.look_at = Some(decision.look_at.map_or(tick, |at| at.clamp(observed.now, tick)));
    }
    decision
}

/// Keeps what later decisions need of this observation. Returns what operators are told of it.
fn note(
    spec: &GroupSpec,
    record: &GroupState,
    observed: &Observed,
    memory: &mut Memory,
    timing: &Timing,
    weaken: &Weaken,
) -> Vec<Event> {
    let now = observed.now;
    if memory
        .phase_since
        .is_none_or(|(e, p, _)| (e, p) != (record.epoch, record.phase))
    {
        memory.phase_since = Some((record.epoch, record.phase, now));
    }
    memory
        .gone_since
        .retain(|n, _| record.instances.contains_key(n) || record.votes(n));
    let before = memory.clone();
    let view = View {
        spec,
        record,
        observed,
        memory: &before,
        timing,
        weaken,
    };
    let Some((report, primary)) = view.primary().filter(|_| record.phase == Phase::Steady) else {
        return Vec::new();
    };
    let told = instances::returned(&view, primary, &mut memory.away);
    let absent = steady::absent_voters(&view, primary);
    memory.gone_since.retain(|n, _| absent.contains(n));
    for node in absent {
        memory.gone_since.entry(node).or_insert(now);
    }
    let streaming: Nodes = primary.flushed.keys().cloned().collect();
    let stuck = record.joint() && record.rule().is_some_and(|r| !can_acknowledge(r, &streaming));
    memory.joint_since = match memory.joint_since {
        Some((rule, at)) if stuck && rule == record.applying => Some((rule, at)),
        _ => stuck.then_some((record.applying, now)),
    };
    if let Some(end) = report.log {
        memory.last_primary_log = Some(end.lsn);
        let lag = |n: &String| primary.flushed.get(n).map(|l| (n.clone(), end.lsn.past(*l)));
        let known: Vec<_> = record.instances.keys().filter_map(lag).collect();
        memory.lag.extend(known);
        let due = observed.requests.iter().find(|r| match r.what {
            Wanted::Switchover { at_ms, .. } => at_ms.is_none_or(|at| observed.now_ms >= at),
            Wanted::Restart => true,
            Wanted::Failover { .. } | Wanted::Reinit { .. } => false,
        });
        memory.checkpoint = match (due, memory.checkpoint.take()) {
            (Some(r), Some(c)) if c.0 == r.operation => Some(c),
            (Some(r), _) => Some((r.operation.clone(), now, end.lsn)),
            (None, _) => None,
        };
    }
    told
}

fn starves(view: &View<'_>, report: &Report) -> Option<String> {
    let (_, primary) = view.primary().filter(|_| view.record.phase == Phase::Steady)?;
    starved::starved(view, report, primary)
}

/// Why a standby can never stream again as it is: its primary has removed log that it needs. None if it can, or while that
/// is not known.
pub fn starved(
    spec: &GroupSpec,
    record: &GroupState,
    observed: &Observed,
    memory: &Memory,
    timing: &Timing,
    node: &str,
) -> Option<String> {
    let view = View {
        spec,
        record,
        observed,
        memory,
        timing,
        weaken: &Weaken::default(),
    };
    starves(&view, view.recent(node)?)
}

/// Why there is no failover, or what the group waits for: the group's reasons, then a line for each instance.
pub fn explain(
    spec: &GroupSpec,
    record: &GroupState,
    observed: &Observed,
    memory: &Memory,
    timing: &Timing,
) -> Vec<String> {
    let weaken = Weaken::default();
    let mut lines = decide(spec, record, observed, &mut memory.clone(), timing, &weaken).reasons;
    let view = View {
        spec,
        record,
        observed,
        memory,
        timing,
        weaken: &weaken,
    };
    for node in record.instances.keys() {
        let said = match view.report(node) {
            None => "has not reported to this master".to_owned(),
            Some(_) if view.recent(node).is_none() => "does not report any more".to_owned(),
            Some(r) if r.primary.is_some() => "runs as primary".to_owned(),
            Some(r) if starves(&view, r).is_some() => starves(&view, r).unwrap_or_default(),
            Some(r) => match (&r.streams, r.waits.first()) {
                (Some(from), _) => format!("streams from {} in epoch {}", from.node, from.epoch),
                (None, Some(wait)) => wait.clone(),
                (None, None) => "does not stream".to_owned(),
            },
        };
        let suspect = view.suspicion(node).filter(|_| record.primary.as_deref() == Some(node));
        let suspect = suspect.map_or(String::new(), |(why, _)| format!("; suspect: {why}"));
        lines.push(format!("{node}: {said}{suspect}"));
    }
    lines.dedup();
    lines
}
