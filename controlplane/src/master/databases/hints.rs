//! Messages to the agents that save time and decide nothing: sent if there is room, and forgotten.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use ha_core::database::Phase;
use ha_core::database::observed::Order;
use ha_proto::v1;
use ha_proto::v1::master_message::Body;
use tokio::sync::mpsc;

use super::super::Master;

/// The streams to the agents, by node: the hub opens them, the master may send a hint on each.
#[derive(Debug, Clone, Default)]
pub(in crate::master) struct Lines(Arc<Mutex<BTreeMap<String, mpsc::Sender<v1::MasterMessage>>>>);

impl Lines {
    /// A node's stream was opened.
    pub(in crate::master) fn open(&self, node: String, line: mpsc::Sender<v1::MasterMessage>) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.retain(|_, l| !l.is_closed());
        lines.insert(node, line);
    }

    fn send(&self, node: &str, message: v1::MasterMessage) {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get(node) {
            // A stream without room has the news behind what is already on its way.
            let _ = line.try_send(message);
        }
    }
}

/// The phase, as it travels.
pub(super) fn phase(phase: Phase) -> v1::GroupPhase {
    match phase {
        Phase::New => v1::GroupPhase::New,
        Phase::Bootstrapping => v1::GroupPhase::Bootstrapping,
        Phase::Electing => v1::GroupPhase::Electing,
        Phase::Promoting => v1::GroupPhase::Promoting,
        Phase::Steady => v1::GroupPhase::Steady,
        Phase::Switching => v1::GroupPhase::Switching,
    }
}

impl Master<'_> {
    pub(super) fn message(&self, node: &str, body: Body) {
        let message = v1::MasterMessage {
            term: self.won.term,
            server_unix_ms: self.wall_ms(),
            body: Some(body),
        };
        self.lines.send(node, message);
    }

    fn hint(&self, group: &str, revision: u64) -> Option<v1::GroupHint> {
        let state = &self.store.groups.get(group)?.state;
        let value = state.envelope.value.as_ref();
        Some(v1::GroupHint {
            group: group.to_owned(),
            record_version: u64::try_from(state.version).unwrap_or(0),
            epoch: value.map_or(0, |s| s.epoch),
            phase: phase(value.map_or(Phase::New, |s| s.phase)).into(),
            revision,
        })
    }

    /// Passes a decision's orders on.
    pub(super) fn send_orders(&self, group: &str, orders: &[Order]) {
        for order in orders {
            match order {
                Order::Look { node } => {
                    if let Some(hint) = self.hint(group, 0) {
                        self.message(node, Body::Group(hint));
                    }
                }
                Order::Checkpoint { node } => {
                    let group = group.to_owned();
                    self.message(node, Body::Checkpoint(v1::CheckpointHint { group }));
                }
            }
        }
    }

    /// Tells every node that a group's specification changed: the proxies are on all of them.
    pub(super) fn hint_spec(&self, group: &str) {
        let revision = self.store.groups.get(group).map_or(0, |g| g.spec.envelope.revision());
        let Some(hint) = self.hint(group, revision) else {
            return;
        };
        for node in self.members.keys() {
            self.message(node, Body::Group(hint.clone()));
        }
    }

    /// Orders a restart of one incarnation.
    pub(super) fn order_restart(&self, group: &str, node: &str, incarnation: u64, operation: &str) {
        let order = v1::RestartOrder {
            group: group.to_owned(),
            incarnation,
            operation_id: operation.to_owned(),
        };
        self.message(node, Body::Restart(order));
    }
}
