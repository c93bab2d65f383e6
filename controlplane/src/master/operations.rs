//! Operations: requests that take time. Each step is stored, so the next master goes on where this one ended.

use ha_core::nodes::{Outcome, Patch, update};
use ha_core::{OperationKind, OperationRecord, OperationState, Presence, Severity};

use super::handle::Caller;
use super::hub::Update;
use super::store::{Draft, StoreError};
use super::{Master, view};

/// Finished operations kept.
const KEPT: usize = 100;

impl Master<'_> {
    /// Stores a new operation and returns its id.
    pub(super) async fn begin_operation(
        &mut self,
        caller: &Caller,
        what: OperationKind,
        steps: Vec<(i64, String)>,
        reason: &str,
        text: String,
    ) -> Result<String, StoreError> {
        // Sorts by the cluster's time, and short enough to type.
        let now_ms = u64::try_from(self.wall_ms()).unwrap_or(0);
        let time = uuid::Timestamp::from_unix(uuid::NoContext, now_ms / 1000, (now_ms % 1000) as u32 * 1_000_000);
        let id = uuid::Uuid::new_v7(time).simple().to_string();
        let id = format!("{}{}", &id[4..12], &id[28..32]);
        let record = OperationRecord {
            what,
            state: OperationState::Running,
            steps,
            actor: caller.identity.to_string(),
            reason: reason.to_owned(),
            created_ms: self.wall_ms(),
            finished_ms: None,
            error: None,
            request: caller.request_id.clone(),
            result: String::new(),
        };
        let draft = Self::draft(caller, "op.begun", format!("op/{id}"), text, reason);
        self.store.set_op(&id, record, draft).await?;
        self.show_operation(&id);
        Ok(id)
    }

    /// Stores how an operation ended.
    pub(super) async fn finish_operation(
        &mut self,
        id: &str,
        mut op: OperationRecord,
        state: OperationState,
        error: Option<(String, String)>,
        draft: Draft,
    ) -> Result<(), StoreError> {
        op.state = state;
        // As it stands, with the steps that were stored since the caller looked.
        if let Some(stored) = self.store.ops.get(id).and_then(|s| s.envelope.value.as_ref()) {
            op.steps.clone_from(&stored.steps);
        }
        op.steps.extend(self.databases.take_steps(id));
        op.steps.push((self.wall_ms(), draft.text.clone()));
        op.finished_ms = Some(self.wall_ms());
        op.error = error;
        self.store.set_op(id, op, draft).await?;
        self.show_operation(id);
        let before: Vec<String> = self.store.ops.keys().cloned().collect();
        self.store.trim_ops(KEPT).await;
        for gone in before.into_iter().filter(|id| !self.store.ops.contains_key(id)) {
            self.tell(Update::OperationGone(gone));
        }
        Ok(())
    }

    pub(super) fn running(&self) -> Vec<(String, OperationRecord)> {
        let all = self
            .store
            .ops
            .iter()
            .filter_map(|(id, s)| Some((id.clone(), s.envelope.value.clone()?)));
        all.filter(|(_, op)| op.finished_ms.is_none()).collect()
    }

    pub(super) fn show_operation(&self, id: &str) {
        if let Some(op) = self.store.ops.get(id).and_then(|s| s.envelope.value.as_ref()) {
            let mut shown = view::operation(id, op);
            self.databases.add_steps(id, &mut shown);
            self.tell(Update::Operation(shown));
        }
    }

    /// A new master settles the transfers that were under way: it either is their target or it is not.
    pub(super) async fn finish_transfers(&mut self) -> Result<(), StoreError> {
        let me = self.p.shared.me.node.clone();
        for (id, op) in self.running() {
            let OperationKind::TransferMaster { to, from_term } = op.what.clone() else {
                continue;
            };
            if self.won.term <= from_term {
                continue;
            }
            let subject = format!("op/{id}");
            if to == me {
                let draft = Draft::master(
                    "op.succeeded",
                    subject,
                    Severity::Info,
                    format!("{me} is master, term {}", self.won.term),
                );
                self.finish_operation(&id, op, OperationState::Succeeded, None, draft)
                    .await?;
            } else {
                let text = format!("{me} became master instead of {to}");
                let draft = Draft::master("op.failed", subject, Severity::Warning, text.clone());
                let error = Some(("HA0503".to_owned(), text));
                self.finish_operation(&id, op, OperationState::Failed, error, draft)
                    .await?;
            }
        }
        Ok(())
    }

    /// The drain of a node that is under way.
    pub(super) fn running_drain(&self, node: &str) -> Option<String> {
        let is = |op: &OperationRecord| matches!(&op.what, OperationKind::DrainNode { node: n, .. } if n == node);
        self.running().into_iter().find(|(_, op)| is(op)).map(|(id, _)| id)
    }

    /// Ends the drains of a node.
    pub(super) async fn cancel_drains(&mut self, node: &str) -> Result<(), StoreError> {
        while let Some(id) = self.running_drain(node) {
            let Some(op) = self.store.ops.get(&id).and_then(|s| s.envelope.value.clone()) else {
                return Ok(());
            };
            let text = format!("drain of {node} cancelled");
            let draft = Draft::master("op.cancelled", format!("op/{id}"), Severity::Info, text);
            self.finish_operation(&id, op, OperationState::Cancelled, None, draft)
                .await?;
        }
        Ok(())
    }

    /// Whether nothing that must be moved is left on a node: mastership, which moves by itself when another node can take
    /// it, and the primaries of database groups.
    pub(super) fn is_empty(&self, node: &str) -> bool {
        (node != self.p.shared.me.node || !self.another_may_lead()) && !self.primary_to_move(node)
    }

    fn another_may_lead(&self) -> bool {
        let me = self.p.shared.me.node.as_str();
        self.records().iter().any(|(n, r)| {
            *n != me && !r.removed && ha_core::membership::may_lead(&r.spec) && self.presence(n) == Presence::Online
        })
    }

    /// A node on which nothing is left is no longer being emptied; it stays cordoned.
    async fn end_draining(&mut self, node: &str) -> Result<(), StoreError> {
        let patch = Patch {
            draining: Some(false),
            ..Patch::default()
        };
        if let Ok(Outcome::Changed { record, .. }) = update(&self.records(), node, &patch) {
            let subject = format!("node/{node}");
            let draft = Draft::master("node.drained", subject, Severity::Info, format!("{node} drained"));
            self.store.set_node(node, *record, draft).await?;
        }
        Ok(())
    }

    /// Takes each operation as far as it can go now.
    pub(super) async fn advance_operations(&mut self) -> Result<(), StoreError> {
        // A master that died between the first change of a drain and its operation left a node that nobody would finish.
        let left: Vec<String> = self
            .records()
            .into_iter()
            .filter(|(_, r)| !r.removed && r.spec.draining)
            .filter(|(name, _)| self.running_drain(name).is_none() && self.is_empty(name))
            .map(|(name, _)| name.to_owned())
            .collect();
        for node in left {
            self.end_draining(&node).await?;
        }
        for (id, op) in self.running() {
            let OperationKind::DrainNode { node, deadline_ms } = op.what.clone() else {
                continue;
            };
            let subject = format!("op/{id}");
            let record = self.store.nodes.get(&node).and_then(|s| s.envelope.value.clone());
            if !record.is_some_and(|r| !r.removed && r.spec.draining) {
                let draft = Draft::master(
                    "op.cancelled",
                    subject,
                    Severity::Info,
                    format!("{node} is not to be drained any more"),
                );
                self.finish_operation(&id, op, OperationState::Cancelled, None, draft)
                    .await?;
            } else if self.is_empty(&node) {
                self.end_draining(&node).await?;
                let draft = Draft::master(
                    "op.succeeded",
                    subject,
                    Severity::Info,
                    format!("nothing is left on {node}"),
                );
                self.finish_operation(&id, op, OperationState::Succeeded, None, draft)
                    .await?;
            } else if deadline_ms.is_some_and(|d| d <= self.wall_ms()) {
                let text = format!("{node} was not empty in time; it stays cordoned");
                let draft = Draft::master("op.failed", subject, Severity::Warning, text.clone());
                self.finish_operation(
                    &id,
                    op,
                    OperationState::Failed,
                    Some(("HA0104".to_owned(), text)),
                    draft,
                )
                .await?;
            }
        }
        Ok(())
    }
}
