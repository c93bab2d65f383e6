//! Restarts of a group's instances: standbys by an order to stop that incarnation, the primary after a switchover.
//!
//! Nothing here starts a server: an instance that stopped follows the record again by its own decision. An order is sent
//! until the incarnation is seen replaced.

use std::collections::BTreeMap;
use std::time::Duration;

use ha_core::database::floors::{self, Floors};
use ha_core::database::local::Server;
use ha_core::database::{GroupState, Phase};
use ha_core::refusal::Refusal;
use ha_core::{OperationKind, OperationRecord};

use super::super::Master;
use super::super::store::StoreError;

/// An order that was not followed is sent again after this time.
const AGAIN: Duration = Duration::from_secs(1);
/// An instance that is not back after this time, in milliseconds, ends the operation.
const LIMIT_MS: i64 = 180_000;
/// The step that says that the primary is restarted in place.
const IN_PLACE: &str = "is restarted in place: no other instance can take over";

/// What a restart is about.
pub(super) struct Restarts<'a> {
    /// The incarnations that are to be replaced.
    pub(super) targets: &'a BTreeMap<String, u64>,
    /// One after the other.
    pub(super) rolling: bool,
    /// The primary is to have less than its standbys, and comes first, in place.
    pub(super) lowers: bool,
}

impl Master<'_> {
    /// What an instance runs with of what a standby must not have lower than its primary.
    fn floors(&self, group: &str, node: &str) -> Option<Floors> {
        let told = &self.databases.groups.get(group)?.instances.get(node)?.wire.floors;
        told.as_slice().try_into().ok()
    }

    fn wanted_floors(&self, group: &str) -> Floors {
        let spec = self.store.groups.get(group).and_then(|g| g.live());
        spec.map_or(floors::DEFAULTS, |s| floors::wanted(&s.parameters))
    }

    /// What the primary is to have less of, if it is among those that are restarted.
    pub(super) fn lowers(&self, group: &str, record: &GroupState, one: Option<&str>) -> Vec<String> {
        let primary = record.primary.as_deref();
        let concerned = primary.filter(|p| one.is_none_or(|o| o == *p));
        let runs = concerned.and_then(|p| self.floors(group, p));
        let lower = runs.map(|runs| floors::lower(&self.wanted_floors(group), &runs));
        lower.into_iter().flatten().map(str::to_owned).collect()
    }

    /// It runs with more than is wanted.
    pub(super) fn above(&self, group: &str, node: &str) -> bool {
        let runs = self.floors(group, node);
        runs.is_some_and(|runs| !floors::lower(&self.wanted_floors(group), &runs).is_empty())
    }

    /// It runs with less than is wanted.
    fn below(&self, group: &str, node: &str) -> bool {
        let runs = self.floors(group, node);
        runs.is_some_and(|runs| !floors::lower(&runs, &self.wanted_floors(group)).is_empty())
    }

    /// What it is to come down to stands in its configuration: a standby knows what its primary has from the log alone.
    fn is_told(&self, group: &str, node: &str) -> bool {
        let instance = self.databases.groups.get(group).and_then(|g| g.instances.get(node));
        let waits = |i: &super::Instance| {
            let mut pending = i.wire.pending_restart.iter();
            pending.any(|p| floors::NAMES.contains(&p.parameter.as_str()))
        };
        !self.above(group, node) || instance.is_some_and(waits)
    }

    fn left<'a>(&self, group: &str, targets: &'a BTreeMap<String, u64>, record: &GroupState) -> Vec<(&'a str, u64)> {
        let left = targets
            .iter()
            .filter(|(n, old)| !self.restarted(group, n, **old, record));
        left.map(|(n, old)| (n.as_str(), *old)).collect()
    }

    /// The primary's turn has come, where it comes before its standbys.
    pub(super) fn primary_comes_down(&self, group: &str, targets: &BTreeMap<String, u64>, record: &GroupState) -> bool {
        let left = self.left(group, targets, record);
        let names: Vec<&str> = left.iter().map(|(n, _)| *n).collect();
        let primary = record.primary.as_deref();
        let turn = floors::turn(&names, primary, true, |n| self.below(group, n));
        left.iter()
            .any(|(n, old)| primary == Some(n) && turn.contains(n) && self.incarnation(group, n) == Some(*old))
    }

    fn incarnation(&self, group: &str, node: &str) -> Option<u64> {
        let instance = self.databases.groups.get(group)?.instances.get(node)?;
        Some(instance.report.incarnation)
    }

    /// The incarnation was replaced, and the new one does what the record wants.
    fn restarted(&self, group: &str, node: &str, old: u64, record: &GroupState) -> bool {
        if !record.instances.contains_key(node) {
            return true;
        }
        let newer = self.incarnation(group, node).is_some_and(|i| i > old);
        let leads = record.primary.as_deref() == Some(node) && record.phase == Phase::Steady;
        newer && (leads || self.streams(group, node, record))
    }

    /// The primary, if it is the one that is left to be restarted.
    pub(super) fn primary_is_next<'a>(
        &self,
        group: &str,
        targets: &'a BTreeMap<String, u64>,
        record: &GroupState,
    ) -> Option<&'a str> {
        let mut left = targets
            .iter()
            .filter(|(n, old)| !self.restarted(group, n, **old, record));
        let (node, old) = left.next()?;
        let primary = record.primary.as_ref() == Some(node) && left.next().is_none();
        (primary && self.incarnation(group, node) == Some(*old)).then_some(node.as_str())
    }

    /// It was decided that the primary is restarted where it is.
    pub(super) fn restarts_in_place(&self, group: &str, id: &str) -> bool {
        let said = self.steps(id).any(|(_, t)| t.ends_with(IN_PLACE));
        let record = self.store.groups.get(group).map(super::StoredGroup::record);
        said || record.is_some_and(|r| r.instances.len() < 2)
    }

    /// The switchover before the primary's turn is over, or was refused.
    pub(super) async fn restart_switched(
        &mut self,
        group: &str,
        id: &str,
        result: Result<String, Refusal>,
    ) -> Result<(), StoreError> {
        let Err(refusal) = result else { return Ok(()) };
        let Some(op) = self.store.ops.get(id).and_then(|s| s.envelope.value.clone()) else {
            return Ok(());
        };
        let OperationKind::Database { what, .. } = &op.what else {
            return Ok(());
        };
        let forced =
            matches!(what, ha_core::DatabaseOperation::Restart { rolling: false, lowers, .. } if lowers.is_empty());
        if forced {
            let primary = self.store.groups.get(group).and_then(|g| g.record().primary);
            let text = format!("{} {IN_PLACE}", primary.unwrap_or_default());
            self.note_step_of(id, text);
            return Ok(());
        }
        let why = refusal.why.first().cloned().unwrap_or_default();
        let text = format!("the primary was not restarted: {}: {why}", refusal.message);
        self.fail(id, op, "HA0420", text).await
    }

    /// Orders what is next.
    pub(super) async fn advance_restart(
        &mut self,
        group: &str,
        id: &str,
        op: OperationRecord,
        how: Restarts<'_>,
        record: &GroupState,
    ) -> Result<(), StoreError> {
        let Restarts {
            targets,
            rolling,
            lowers,
        } = how;
        let left = self.left(group, targets, record);
        for node in targets.keys().filter(|n| !left.iter().any(|(l, _)| l == n)) {
            let text = format!("{node} restarted");
            if !self.steps(id).any(|(_, t)| *t == text) {
                self.note_step_of(id, text);
            }
        }
        if left.is_empty() {
            self.databases.restarts.remove(id);
            let names: Vec<&str> = targets.keys().map(String::as_str).collect();
            let text = format!("{} restarted", names.join(", "));
            return self.succeed(id, op, String::new(), text).await;
        }
        let begun = self.steps(id).next_back().map_or(op.created_ms, |(at, _)| *at);
        if self.wall_ms() > begun.saturating_add(LIMIT_MS) {
            let names: Vec<&str> = left.iter().map(|(n, _)| *n).collect();
            let text = format!("{} did not come back in time", names.join(", "));
            self.databases.restarts.remove(id);
            return self.fail(id, op, "HA0420", text).await;
        }
        // One at a time, and only while the group is whole enough to spare one.
        if rolling && (record.phase != Phase::Steady || record.joint()) {
            return Ok(());
        }
        let now = self.now();
        if self.databases.restarts.get(id).is_some_and(|at| now < *at + AGAIN) {
            return Ok(());
        }
        let in_place = !lowers && self.restarts_in_place(group, id);
        let primary = record.primary.as_deref();
        let names: Vec<&str> = left.iter().map(|(n, _)| *n).collect();
        let turn = floors::turn(&names, primary, lowers, |n| self.below(group, n));
        // The primary goes by a request of the group's: a switchover, or its own stop and start.
        let may = |node: &str| {
            let comes = primary != Some(node) || (in_place && left.len() == 1);
            turn.contains(&node) && comes && (!lowers || self.is_told(group, node))
        };
        let runs = |node: &str| {
            let instance = self.databases.groups.get(group).and_then(|g| g.instances.get(node));
            instance.is_some_and(|i| i.report.server == Server::Running)
        };
        let ordered: Vec<&(&str, u64)> = left
            .iter()
            .filter(|(n, old)| may(n) && runs(n) && self.incarnation(group, n) == Some(*old))
            .take(if rolling { 1 } else { usize::MAX })
            .collect();
        // A rolling restart waits for the one that is on its way back.
        let away = left
            .iter()
            .any(|(n, old)| self.incarnation(group, n) != Some(*old) || !runs(n));
        if ordered.is_empty() || (rolling && away) {
            return Ok(());
        }
        for (node, old) in ordered {
            self.order_restart(group, node, *old, id);
        }
        self.databases.restarts.insert(id.to_owned(), now);
        Ok(())
    }
}
