//! Operations on groups: what core is asked for on their behalf, and when each is over.

use std::time::Duration;

use ha_core::database::local::Server;
use ha_core::database::observed::{Finished, Order, Request, Wanted};
use ha_core::database::record::FailoverRecord;
use ha_core::database::{GroupState, Phase, RoleWanted};
use ha_core::{DatabaseOperation, OperationKind, OperationRecord, OperationState, Severity};

use super::super::Master;
use super::super::store::{Draft, StoreError};
use super::decide::{pause_ms, seconds};
use super::restart::Restarts;

/// A drain that a group refused is asked for again after this time.
const AGAIN: Duration = Duration::from_secs(5);

impl Master<'_> {
    /// What operators ask of a group, oldest first.
    pub(super) fn group_requests(&self, name: &str, record: &GroupState) -> Vec<Request> {
        let mut running = self.running();
        running.sort_by_key(|(id, op)| (op.created_ms, id.clone()));
        let mut requests = Vec::new();
        for (id, op) in running {
            let what = match &op.what {
                OperationKind::Database { group, what } if group == name => self.wanted(name, &id, what, record),
                // One that was refused is asked for again after a while.
                OperationKind::DrainNode { node, .. } => {
                    let refused = self.databases.refused.get(&(name.to_owned(), id.clone()));
                    let again = refused.is_none_or(|at| self.now() >= *at + AGAIN);
                    self.leaves(name, node, record).filter(|_| again)
                }
                _ => None,
            };
            requests.extend(what.map(|what| Request { operation: id, what }));
        }
        requests
    }

    fn wanted(&self, name: &str, id: &str, what: &DatabaseOperation, record: &GroupState) -> Option<Wanted> {
        match what {
            DatabaseOperation::Switchover { to, at_ms } => Some(Wanted::Switchover {
                to: to.clone(),
                at_ms: *at_ms,
            }),
            DatabaseOperation::Failover { to, allow_data_loss } => Some(Wanted::Failover {
                to: to.clone(),
                allow_data_loss: *allow_data_loss,
            }),
            DatabaseOperation::Reinit { node } => Some(Wanted::Reinit { node: node.clone() }),
            // The primary there is to be goes by a switchover, once its instance is one of the group's.
            DatabaseOperation::Assign { node, role } => {
                let leads = record.primary.as_ref() == Some(node);
                let other = *role == RoleWanted::Primary && record.phase != Phase::New && !leads;
                (other && record.instances.contains_key(node)).then(|| Wanted::Switchover {
                    to: Some(node.clone()),
                    at_ms: None,
                })
            }
            DatabaseOperation::Restart { targets, lowers, .. } if !lowers.is_empty() => self
                .primary_comes_down(name, targets, record)
                .then_some(Wanted::Restart),
            DatabaseOperation::Restart { targets, .. } => self
                .primary_is_next(name, targets, record)
                .filter(|_| !self.restarts_in_place(name, id))
                .map(|_| Wanted::Switchover { to: None, at_ms: None }),
            DatabaseOperation::Create | DatabaseOperation::Remove => None,
        }
    }

    /// A node that is being emptied is not to be the primary, where another instance can be.
    fn leaves(&self, name: &str, node: &str, record: &GroupState) -> Option<Wanted> {
        let leads = record.primary.as_deref() == Some(node) && record.phase == Phase::Steady;
        let others = record.instances.keys().filter(|n| n.as_str() != node);
        let able = others.into_iter().any(|n| self.streams(name, n, record));
        (leads && able).then_some(Wanted::Switchover { to: None, at_ms: None })
    }

    /// A group whose primary would have to leave this node first, and can.
    pub(in crate::master) fn primary_to_move(&self, node: &str) -> bool {
        let of = self.store.groups.iter().filter(|(_, g)| g.live().is_some());
        of.into_iter()
            .any(|(name, g)| self.leaves(name, node, &g.record()).is_some())
    }

    /// A standby that streams in the record's epoch.
    pub(super) fn streams(&self, group: &str, node: &str, record: &GroupState) -> bool {
        let instance = self.databases.groups.get(group).and_then(|g| g.instances.get(node));
        let fresh = self.members.get(node).is_some_and(|m| m.stream.is_some());
        instance.filter(|_| fresh).is_some_and(|i| {
            let from = i.report.streams.as_ref();
            from.is_some_and(|u| u.epoch == record.epoch && record.primary.as_ref() == Some(&u.node))
        })
    }

    fn operation(&self, id: &str) -> Option<OperationRecord> {
        self.store.ops.get(id).and_then(|s| s.envelope.value.clone())
    }

    /// A checkpoint that was ordered is a step that people wait for.
    pub(super) fn note_checkpoint(&mut self, name: &str, orders: &[Order]) {
        for order in orders {
            if let Order::Checkpoint { node } = order {
                self.note_step(name, &format!("checkpoint on {node}"));
            }
        }
    }

    /// Core says how a request ended.
    pub(super) async fn end_request(&mut self, name: &str, finished: Finished) -> Result<(), StoreError> {
        let id = finished.operation;
        let Some(op) = self.operation(&id).filter(|op| op.finished_ms.is_none()) else {
            return Ok(());
        };
        match (&op.what, &finished.result) {
            // A drain goes on whatever a group refused; a restart goes on with the former primary.
            (OperationKind::DrainNode { .. }, _) => {
                let now = self.now();
                self.databases.refused.insert((name.to_owned(), id), now);
                return Ok(());
            }
            (
                OperationKind::Database {
                    what: DatabaseOperation::Restart { .. },
                    ..
                },
                result,
            ) => {
                let result = result.clone();
                return self.restart_switched(name, &id, result).await;
            }
            // What was assigned is more than the switchover.
            (
                OperationKind::Database {
                    what: DatabaseOperation::Assign { .. },
                    ..
                },
                Ok(_),
            ) => return Ok(()),
            _ => {}
        }
        match finished.result {
            Ok(text) => {
                let last = self.store.groups.get(name).and_then(|g| g.record().last);
                let last = last.filter(|l| l.operation == id);
                self.succeed(&id, op, outcome(last.as_ref()), text).await
            }
            Err(refusal) => {
                let mut text = refusal.message.clone();
                if let Some(why) = refusal.why.first() {
                    text = format!("{text}: {why}");
                }
                self.fail(&id, op, refusal.code, text).await
            }
        }
    }

    pub(super) async fn succeed(
        &mut self,
        id: &str,
        mut op: OperationRecord,
        result: String,
        text: String,
    ) -> Result<(), StoreError> {
        op.result = result;
        let draft = Draft::master("op.succeeded", format!("op/{id}"), Severity::Info, text);
        self.finish_operation(id, op, OperationState::Succeeded, None, draft)
            .await
    }

    pub(super) async fn fail(
        &mut self,
        id: &str,
        op: OperationRecord,
        code: &str,
        text: String,
    ) -> Result<(), StoreError> {
        let draft = Draft::master("op.failed", format!("op/{id}"), Severity::Warning, text.clone());
        let error = Some((code.to_owned(), text));
        self.finish_operation(id, op, OperationState::Failed, error, draft)
            .await
    }

    /// Ends the operations on a group that are over by what is seen, and takes the others on.
    pub(super) async fn advance_group(&mut self, name: &str) -> Result<(), StoreError> {
        for id in self.running_on(name) {
            let Some(op) = self.operation(&id) else { continue };
            let OperationKind::Database { what, .. } = op.what.clone() else {
                continue;
            };
            let Some(stored) = self.store.groups.get(name) else {
                continue;
            };
            let record = stored.record();
            let removed = stored.live().is_none();
            match what {
                DatabaseOperation::Remove => {
                    let deletes = stored.spec.envelope.value.as_ref().is_some_and(|s| s.delete_data);
                    if !(self.any_runs(name) || deletes && self.any_tells(name)) {
                        let text = removed_text(name, deletes, &self.away(&record));
                        self.succeed(&id, op, String::new(), text).await?;
                    }
                }
                _ if removed => {
                    let text = format!("group {name} was removed");
                    let draft = Draft::master("op.cancelled", format!("op/{id}"), Severity::Info, text);
                    self.finish_operation(&id, op, OperationState::Cancelled, None, draft)
                        .await?;
                }
                DatabaseOperation::Create => {
                    if self.complete(name, &record) {
                        let text = format!("group {name} has a primary, and its standbys stream");
                        self.succeed(&id, op, String::new(), text).await?;
                    }
                }
                DatabaseOperation::Assign { node, role } => {
                    if self.assigned(name, &node, role, &record) {
                        let text = format!("{node} is {}", role_word(role));
                        self.succeed(&id, op, String::new(), text).await?;
                    }
                }
                DatabaseOperation::Restart {
                    targets,
                    rolling,
                    lowers,
                } => {
                    let how = Restarts {
                        targets: &targets,
                        rolling,
                        lowers: !lowers.is_empty(),
                    };
                    self.advance_restart(name, &id, op, how, &record).await?;
                }
                DatabaseOperation::Switchover { .. }
                | DatabaseOperation::Failover { .. }
                | DatabaseOperation::Reinit { .. } => {}
            }
        }
        Ok(())
    }

    /// Some node that is there tells of an instance still, or of why it cannot delete it.
    fn any_tells(&self, name: &str) -> bool {
        let here = |n: &&String| self.members.get(*n).is_some_and(|m| m.stream.is_some());
        let group = self.databases.groups.get(name);
        group.is_some_and(|g| g.instances.keys().chain(g.unread.keys()).any(|n| here(&n)))
    }

    /// Nodes with an instance that do not report.
    fn away(&self, record: &GroupState) -> Vec<String> {
        let here = |n: &&String| self.members.get(*n).is_some_and(|m| m.stream.is_some());
        record.instances.keys().filter(|n| !here(n)).cloned().collect()
    }

    /// Some instance of a group still runs, as far as its node told and is there to tell.
    fn any_runs(&self, name: &str) -> bool {
        let Some(group) = self.databases.groups.get(name) else {
            return false;
        };
        let here = |n: &String| self.members.get(n).is_some_and(|m| m.stream.is_some());
        let runs = |(n, i): (&String, &super::Instance)| here(n) && i.report.server != Server::Stopped;
        group.instances.iter().any(runs)
    }

    /// The group has an open primary, and every instance that it should have streams.
    fn complete(&self, name: &str, record: &GroupState) -> bool {
        let done = record.last.as_ref().is_some_and(|l| l.done);
        let Some(primary) = record
            .primary
            .as_ref()
            .filter(|_| record.phase == Phase::Steady && done)
        else {
            return false;
        };
        let spec = self.store.groups.get(name).and_then(|g| g.live());
        let listed = spec.into_iter().flat_map(|s| &s.nodes);
        let wanted = listed.filter(|(_, i)| i.role != RoleWanted::None).map(|(n, _)| n);
        let there = |n: &String| record.instances.contains_key(n) && (n == primary || self.streams(name, n, record));
        wanted.into_iter().all(there)
            && record
                .instances
                .keys()
                .all(|n| n == primary || self.streams(name, n, record))
    }

    fn assigned(&self, name: &str, node: &str, role: RoleWanted, record: &GroupState) -> bool {
        if record.phase == Phase::New {
            return true;
        }
        let primary = record.primary.as_deref() == Some(node) && record.phase == Phase::Steady;
        let votes = record.rules.iter().all(|r| r.voters.contains(node));
        let spec = self.store.groups.get(name).and_then(|g| g.live());
        let voteless = spec.is_some_and(|s| s.durability == ha_core::database::Durability::Async);
        match role {
            RoleWanted::None => {
                let deletes = spec.is_some_and(|s| s.nodes.get(node).is_some_and(|i| i.delete_data));
                let group = self.databases.groups.get(name);
                let told = group.is_some_and(|g| g.instances.contains_key(node) || g.unread.contains_key(node));
                !(record.instances.contains_key(node) || deletes && told)
            }
            RoleWanted::Primary => primary && record.last.as_ref().is_some_and(|l| l.done),
            RoleWanted::Sync => primary || (self.streams(name, node, record) && (votes || voteless)),
            RoleWanted::Async => primary || (self.streams(name, node, record) && !record.votes(node)),
        }
    }
}

fn removed_text(name: &str, deletes: bool, away: &[String]) -> String {
    match (deletes, away) {
        (false, _) => format!("group {name} removed; its data directories are left where they are"),
        (true, []) => format!("group {name} removed with its data"),
        (true, away) => {
            let away = away.join(", ");
            format!("group {name} removed with its data; those on {away} are deleted when it is back")
        }
    }
}

pub(super) fn role_word(role: RoleWanted) -> &'static str {
    match role {
        RoleWanted::Primary => "primary",
        RoleWanted::Sync => "a synchronous standby",
        RoleWanted::Async => "an asynchronous standby",
        RoleWanted::None => "no instance any more",
    }
}

/// What came of a change of primary, for people.
fn outcome(last: Option<&FailoverRecord>) -> String {
    let Some(last) = last else { return String::new() };
    let pause = pause_ms(last).map(|ms| format!("writes paused for {}", seconds(ms)));
    let loss = last
        .loss_bytes
        .map(|b| format!("up to {b} bytes of log may have been lost"));
    pause.into_iter().chain(loss).collect::<Vec<_>>().join("; ")
}
