//! The steps of operations on groups: shown at once, stored while the group rests, and found again by the next master.
//!
//! A write to ZooKeeper takes time, and a group without a primary has none: what was noted during a change of primary is
//! stored after it. Should the master be lost in between, the change log has what happened.

use ha_core::{OperationKind, OperationRecord};
use ha_proto::v1;

use super::super::Master;
use super::super::hub::KEPT_CHANGES;
use super::super::store::StoreError;
use super::Databases;

impl Databases {
    /// The steps of an operation that are not stored yet.
    pub(in crate::master) fn take_steps(&mut self, operation: &str) -> Vec<(i64, String)> {
        self.steps.remove(operation).unwrap_or_default()
    }

    /// Adds them to an operation as it is shown.
    pub(in crate::master) fn add_steps(&self, operation: &str, shown: &mut v1::Operation) {
        let steps = self.steps.get(operation).into_iter().flatten();
        shown.steps.extend(steps.map(|(at, text)| v1::OperationStep {
            time_unix_ms: *at,
            text: text.clone(),
        }));
    }
}

impl Master<'_> {
    /// The steps of an operation, stored or not.
    pub(super) fn steps<'a>(&'a self, id: &str) -> impl DoubleEndedIterator<Item = &'a (i64, String)> {
        let op = self.store.ops.get(id).and_then(|s| s.envelope.value.as_ref());
        let stored = op.into_iter().flat_map(|op| &op.steps);
        stored.chain(self.databases.steps.get(id).into_iter().flatten())
    }

    /// A step of one operation.
    pub(super) fn note_step_of(&mut self, id: &str, text: String) {
        let now = self.wall_ms();
        self.databases.steps.entry(id.to_owned()).or_default().push((now, text));
        self.show_operation(id);
    }

    /// A step of the operations on a group.
    pub(super) fn note_step(&mut self, name: &str, text: &str) {
        for id in self.running_on(name) {
            let said = self.steps(&id).next_back().is_some_and(|(_, t)| t == text);
            if !said {
                self.note_step_of(&id, text.to_owned());
            }
        }
    }

    /// Stores what was noted about groups that rest.
    pub(super) async fn store_steps(&mut self) -> Result<(), StoreError> {
        let noted: Vec<String> = self.databases.steps.keys().cloned().collect();
        for id in noted {
            let op = self.store.ops.get(&id).and_then(|s| s.envelope.value.clone());
            let Some(mut op) = op.filter(|op| op.finished_ms.is_none()) else {
                self.databases.steps.remove(&id);
                continue;
            };
            if !self.group_rests(&op) {
                continue;
            }
            let steps = self.databases.take_steps(&id);
            op.steps.extend(steps.iter().cloned());
            if !self.store.keep_op(&id, op).await? {
                self.databases.steps.insert(id, steps);
            }
        }
        Ok(())
    }

    fn group_rests(&self, op: &OperationRecord) -> bool {
        let OperationKind::Database { group, .. } = &op.what else {
            return true;
        };
        let stored = self.store.groups.get(group).map(super::StoredGroup::record);
        stored.is_none_or(|r| r.phase == ha_core::database::Phase::Steady && r.last.as_ref().is_none_or(|l| l.done))
    }

    /// A new master takes up the steps that the last one had no time to store.
    pub(in crate::master) async fn recover_steps(&mut self) -> Result<(), StoreError> {
        let running = self.running().into_iter();
        let running: Vec<_> = running
            .filter_map(|(id, op)| match op.what {
                OperationKind::Database { group, .. } => Some((id, format!("db/{group}"), op.created_ms, op.steps)),
                _ => None,
            })
            .collect();
        if running.is_empty() {
            return Ok(());
        }
        let changes = self.store.recent(KEPT_CHANGES as u64).await?;
        for (id, subject, created_ms, steps) in running {
            // What was said before the operation began is no step of it: its beginning is in the log as well.
            let own = format!("op/{id}");
            let begun = changes.iter().find(|c| c.subject == own && c.kind == "op.begun");
            let from = begun.map_or(0, |c| c.seq);
            let since = steps.last().map_or(created_ms, |(at, _)| *at);
            let missed = changes.iter().filter(|c| {
                let new = c.time_ms >= since && !steps.iter().any(|(_, text)| *text == c.text);
                c.seq > from && c.subject == subject && new
            });
            let missed: Vec<_> = missed.map(|c| (c.time_ms, c.text.clone())).collect();
            if !missed.is_empty() {
                self.databases.steps.insert(id, missed);
            }
        }
        Ok(())
    }
}
