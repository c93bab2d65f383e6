//! From an observation to the next record, and what follows from a record that was written.

use std::time::Duration;

use ha_core::database::group;
use ha_core::database::observed::{Decision, Event};
use ha_core::database::record::FailoverRecord;
use ha_core::database::{GroupState, Weaken};
use ha_core::{OperationKind, Severity};

use super::super::Master;
use super::super::store::{Draft, StoreError};
use super::store::Past;

/// Decisions on one group in a row, before others have their turn.
const ROUNDS: usize = 16;
/// When a write that had no connection is tried again at the latest.
const AGAIN: Duration = Duration::from_millis(50);
/// How long no failover could be made before that is put into the change log.
const HELD: Duration = Duration::from_millis(500);
/// Longest cause in the change log.
const MAX_CAUSE: usize = 600;
/// How a reason begins that says why there is no failover though something is wrong.
pub(super) const NO_FAILOVER: &str = "no failover though ";

impl Master<'_> {
    /// Decides on every group that something happened to, or whose time has come.
    pub(in crate::master) async fn decide_databases(&mut self) -> Result<(), StoreError> {
        let now = self.now();
        let due: Vec<String> = self
            .databases
            .groups
            .iter()
            .filter(|(_, g)| g.due || g.look_at.is_some_and(|at| at <= now))
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            self.decide_group(&name).await?;
            self.advance_group(&name).await?;
            self.show_group(&name);
        }
        self.store_steps().await
    }

    async fn decide_group(&mut self, name: &str) -> Result<(), StoreError> {
        for _ in 0..ROUNDS {
            let Some(decision) = self.decide_once(name) else {
                return Ok(());
            };
            let more = !decision.finished.is_empty();
            if !self.carry_out(name, decision).await? && !more {
                return Ok(());
            }
        }
        if let Some(group) = self.databases.groups.get_mut(name) {
            group.due = true;
        }
        Ok(())
    }

    /// Core's decision; none where there is nothing to decide on.
    fn decide_once(&mut self, name: &str) -> Option<Decision> {
        {
            let group = self.databases.groups.get_mut(name)?;
            group.due = false;
            group.look_at = None;
        }
        if self.store.damaged_group(name).is_some() {
            return None;
        }
        let stored = self.store.groups.get(name)?;
        let spec = stored.live()?.clone();
        let record = stored.record();
        let observed = self.observed(name, &spec, &record);
        let silence = self.next_silence(name, observed.now);
        let timing = self.timing();
        let group = self.databases.groups.get_mut(name)?;
        let decision = group::decide(
            &spec,
            &record,
            &observed,
            &mut group.memory,
            &timing,
            &Weaken::default(),
        );
        group.look_at = decision.look_at.into_iter().chain(silence).min();
        group.reasons.clone_from(&decision.reasons);
        Some(decision)
    }

    /// Carries a decision out; whether a record was written.
    async fn carry_out(&mut self, name: &str, decision: Decision) -> Result<bool, StoreError> {
        let Some(next) = decision.write else {
            self.send_orders(name, &decision.orders);
            self.note_checkpoint(name, &decision.orders);
            for finished in decision.finished {
                self.end_request(name, finished).await?;
            }
            let told = !decision.events.is_empty();
            for event in decision.events {
                let null = serde_json::Value::Null;
                self.store.note(draft(name, event), null.clone(), null).await?;
            }
            if told {
                self.publish();
            }
            self.note_held(name, &decision.reasons).await?;
            return Ok(false);
        };
        let before = self.store.groups.get(name).map(super::StoredGroup::record);
        let before = before.unwrap_or_default();
        let reasons: Vec<&str> = decision.reasons.iter().skip(1).map(String::as_str).collect();
        let mut cause = reasons.join("; ");
        if cause.len() > MAX_CAUSE {
            let end = (0..=MAX_CAUSE).rev().find(|i| cause.is_char_boundary(*i)).unwrap_or(0);
            cause.truncate(end);
        }
        let mut events = decision.events.into_iter().map(|e| draft(name, e));
        let main = events.next().map(|d| d.cause(cause));
        let told: Vec<String> = main.iter().map(|d| d.text.clone()).collect();
        let next = *next;
        if !self.store.set_record(name, next.clone(), main).await? {
            if let Some(group) = self.databases.groups.get_mut(name) {
                group.due = false;
                group.look_at = Some(self.p.shared.clock.boottime() + AGAIN);
            }
            return Ok(false);
        }
        self.send_orders(name, &decision.orders);
        self.store.settle().await?;
        for further in events {
            let null = serde_json::Value::Null;
            self.store.note(further, null.clone(), null).await?;
        }
        tracing::debug!(group = name, epoch = next.epoch, phase = ?next.phase, reason = %next.reason, "record written");
        self.publish();
        self.show_group(name);
        let text = told.into_iter().next().or_else(|| {
            let other = next.reason != before.reason;
            other.then(|| next.reason.clone())
        });
        if let Some(text) = text {
            self.note_step(name, &text);
        }
        self.keep_end(name, &before, &next).await?;
        for finished in decision.finished {
            self.end_request(name, finished).await?;
        }
        Ok(true)
    }

    /// A failover, switchover or start that ended with this write goes into the history.
    async fn keep_end(&mut self, name: &str, before: &GroupState, next: &GroupState) -> Result<(), StoreError> {
        let Some(last) = &next.last else { return Ok(()) };
        let over = |l: &FailoverRecord| l.done || l.rolled_back.is_some();
        let known = before.last.as_ref().is_some_and(|l| l == last);
        if !over(last) || known {
            return Ok(());
        }
        self.keep_past(name, next, last).await?;
        if !last.done || last.kind == "first primary" {
            return Ok(());
        }
        let to = last.to.as_deref().unwrap_or("nobody");
        let gap = pause_ms(last).map_or(String::new(), |ms| format!(", writes paused for {}", seconds(ms)));
        let text = match last.kind.as_str() {
            "abort" => format!("{to} goes on as primary of epoch {}{gap}", next.epoch),
            "restart in place" => format!("{to} is primary again, epoch {}{gap}", next.epoch),
            kind => format!("{kind} over: {to} is primary of epoch {}{gap}", next.epoch),
        };
        let kind = match last.kind.as_str() {
            "switchover" => "db.switched",
            _ => "db.failover",
        };
        let draft = Draft::master(kind, format!("db/{name}"), Severity::Info, text).cause(last.cause.clone());
        let json = |l: &FailoverRecord| serde_json::to_value(l).unwrap_or_default();
        self.store.note(draft, serde_json::Value::Null, json(last)).await?;
        self.publish();
        Ok(())
    }

    async fn keep_past(&mut self, name: &str, next: &GroupState, last: &FailoverRecord) -> Result<(), StoreError> {
        let actor = self
            .store
            .ops
            .get(&last.operation)
            .and_then(|s| s.envelope.value.as_ref());
        let history = self.store.groups.get(name).map(|g| g.history.envelope.value.as_ref());
        let from_epoch = history.flatten().and_then(|h| h.last()).map_or(0, |p| p.what.epoch);
        let branch = next.lineage.last().copied();
        let past = Past {
            what: last.clone(),
            finished_ms: self.wall_ms(),
            from_epoch: from_epoch.min(last.epoch),
            timeline: next.timeline,
            fork: branch.map_or(0, |b| b.fork.0),
            actor: actor.map_or(String::new(), |op| op.actor.clone()),
        };
        self.store.keep_past(name, past).await
    }

    /// A change of primary that ended just before its master did may be missing in the history.
    pub(in crate::master) async fn complete_histories(&mut self) -> Result<(), StoreError> {
        let names: Vec<String> = self.store.groups.keys().cloned().collect();
        for name in names {
            let Some(stored) = self.store.groups.get(&name) else {
                continue;
            };
            let record = stored.record();
            let Some(last) = record.last.clone().filter(|l| l.done) else {
                continue;
            };
            let kept = stored.history.envelope.value.as_ref();
            if kept.is_none_or(|h| !h.iter().any(|p| p.what == last)) {
                self.keep_past(&name, &record, &last).await?;
            }
        }
        Ok(())
    }

    /// Why nothing is done about a lost primary belongs into the change log, once, when it lasts.
    async fn note_held(&mut self, name: &str, reasons: &[String]) -> Result<(), StoreError> {
        let now = self.now();
        let Some(group) = self.databases.groups.get_mut(name) else {
            return Ok(());
        };
        let why = reasons.iter().find_map(|r| r.strip_prefix(NO_FAILOVER));
        // The wording before the colon changes with each look: the rest is why.
        let Some((cause, why)) = why.map(|w| w.split_once(": ").unwrap_or((w, ""))) else {
            group.held = None;
            return Ok(());
        };
        match &mut group.held {
            Some((held, since, told)) if held == why => {
                if *told || now < *since + HELD {
                    return Ok(());
                }
                *told = true;
            }
            _ => {
                group.held = Some((why.to_owned(), now, false));
                return Ok(());
            }
        }
        let text = format!("no failover: {why}");
        let draft = Draft::master("db.held", format!("db/{name}"), Severity::Warning, text).cause(cause);
        let null = serde_json::Value::Null;
        self.store.note(draft, null.clone(), null).await?;
        self.publish();
        Ok(())
    }

    /// The operations on a group that are under way.
    pub(super) fn running_on(&self, name: &str) -> Vec<String> {
        let on = |what: &OperationKind| matches!(what, OperationKind::Database { group, .. } if group == name);
        let ops = self.running().into_iter().filter(|(_, op)| on(&op.what));
        ops.map(|(id, _)| id).collect()
    }
}

fn draft(name: &str, event: Event) -> Draft {
    Draft::master(event.kind, format!("db/{name}"), event.severity, event.text)
}

/// How long nobody took writes, as the master saw it: from the beginning to the last part.
pub(super) fn pause_ms(last: &FailoverRecord) -> Option<u64> {
    let open = |name: &str| last.phases.iter().rev().find(|p| p.name == name).map(|p| p.at_ms);
    open("primary").filter(|_| last.done)
}

/// Milliseconds as people read them.
pub(super) fn seconds(ms: u64) -> String {
    format!("{}.{:02} s", ms / 1000, ms % 1000 / 10)
}
