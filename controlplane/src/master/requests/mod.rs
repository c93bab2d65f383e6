//! Requests of operators: each is checked, decided in core, stored, and answered when it is stored.
//!
//! A request id that an entry of the change log already carries is answered as done: the caller repeats a request whose
//! answer was lost with a master. So a request that takes several changes puts its id on the last one only.

mod access;
mod cluster;
mod nodes;

use std::collections::BTreeMap;

use ha_core::refusal::Refusal;
use ha_core::{NodeRecord, Severity};
use ha_proto::{codes, v1};

use super::handle::{Caller, Command, Request};
use super::store::{Draft, StoreError};
use super::{End, Master};
use crate::error::ApiError;

/// A request's answer, or why the master must end; and what ends it after the answer.
pub(in crate::master) type Done = Result<(v1::ChangeResult, Option<End>), Failed>;

/// How a request fails.
pub(in crate::master) enum Failed {
    /// It is refused; nothing was changed.
    Refused(ApiError),
    /// The master must end.
    Fatal(StoreError),
}

impl From<Refusal> for Failed {
    fn from(r: Refusal) -> Self {
        let code = codes::find(r.code).unwrap_or(&codes::INTERNAL);
        Self::Refused(ApiError {
            code,
            message: r.message,
            why: r.why,
            next: r.next,
        })
    }
}

impl From<ApiError> for Failed {
    fn from(e: ApiError) -> Self {
        Self::Refused(e)
    }
}

impl From<StoreError> for Failed {
    fn from(e: StoreError) -> Self {
        match e {
            StoreError::Value(text) => Self::Refused(ApiError::new(&codes::BAD_STORED, text)),
            e => Self::Fatal(e),
        }
    }
}

pub(in crate::master) fn unchanged(revision: u64) -> Done {
    Ok((
        v1::ChangeResult {
            changed: false,
            revision,
            ..v1::ChangeResult::default()
        },
        None,
    ))
}

pub(in crate::master) fn planned(plan: Vec<String>, revision: u64) -> Done {
    Ok((
        v1::ChangeResult {
            changed: true,
            revision,
            plan,
            ..v1::ChangeResult::default()
        },
        None,
    ))
}

impl Master<'_> {
    pub(in crate::master) async fn command(&mut self, command: Command) -> Result<Option<End>, StoreError> {
        match command {
            Command::Change { caller, request, reply } => match Box::pin(self.change(&caller, request)).await {
                Ok((result, end)) => {
                    // What was stored is shown before the caller hears of it, so that it reads its own change.
                    self.publish();
                    drop(reply.send(Ok(result)));
                    Ok(end)
                }
                Err(Failed::Refused(e)) => {
                    drop(reply.send(Err(e)));
                    Ok(None)
                }
                // Without an answer the caller repeats the request at the next master, under the same id.
                Err(Failed::Fatal(e)) => Err(e),
            },
            Command::Attached { node, stream } => self.attached(&node, stream).await.map(|()| None),
            Command::Detached { node, stream } => self.detached(&node, stream).await.map(|()| None),
            Command::Report { stream, report } => self.report(stream, *report).await.map(|()| None),
            Command::Question(question) => {
                self.answer(question);
                Ok(None)
            }
        }
    }

    async fn change(&mut self, caller: &Caller, request: Request) -> Done {
        if let Some(revision) = self.done_before(&caller.request_id) {
            let operation_id = self.operation_of(&caller.request_id).unwrap_or_default();
            return Ok((
                v1::ChangeResult {
                    changed: true,
                    revision,
                    operation_id,
                    ..Default::default()
                },
                None,
            ));
        }
        self.readable(&request)?;
        match request {
            Request::AddNode(r) => self.add_node(caller, r).await,
            Request::RemoveNode(r) => {
                self.remove_node(caller, &r.name, r.options.unwrap_or_default(), false)
                    .await
            }
            Request::LeaveNode { name, reason } => {
                let options = v1::ChangeOptions {
                    reason,
                    ..v1::ChangeOptions::default()
                };
                self.remove_node(caller, &name, options, true).await
            }
            Request::UpdateNode(r) => self.update_node(caller, r).await,
            Request::DrainNode(r) => self.drain_node(caller, r).await,
            Request::SetMaintenance(r) => self.set_maintenance(caller, r).await,
            Request::TransferMaster(r) => self.transfer_master(caller, r).await,
            Request::RecordUser(r) => self.record_user(caller, r).await,
            Request::RevokeUser(r) => self.revoke_user(caller, r).await,
            Request::CancelOperation(r) => self.cancel_operation(caller, r).await,
            Request::RecordDenied(d) => {
                self.note_denied(d).await?;
                self.result()
            }
            Request::Group(change) => Box::pin(self.change_group(caller, change)).await,
        }
    }

    /// A node whose record cannot be read is not a node that does not exist.
    fn readable(&self, request: &Request) -> Result<(), Failed> {
        let name = match request {
            Request::AddNode(r) => &r.name,
            Request::RemoveNode(r) => &r.name,
            Request::LeaveNode { name, .. } => name,
            Request::UpdateNode(r) => &r.name,
            Request::DrainNode(r) => &r.name,
            _ => return Ok(()),
        };
        match self.store.damaged.get(&format!("/nodes/{name}")) {
            Some(e) => Err(StoreError::Value(e.to_string()).into()),
            None => Ok(()),
        }
    }

    /// Revision of the change that a request with this id has made.
    fn done_before(&self, request: &str) -> Option<u64> {
        if request.is_empty() {
            return None;
        }
        let made = self.store.made_by(request);
        made.or_else(|| self.operation_of(request).map(|_| self.store.revision()))
    }

    fn operation_of(&self, request: &str) -> Option<String> {
        let by_request = |o: &ha_core::OperationRecord| !request.is_empty() && o.request == request;
        let found = self
            .store
            .ops
            .iter()
            .find(|(_, s)| s.envelope.value.as_ref().is_some_and(by_request));
        found.map(|(id, _)| id.clone())
    }

    pub(in crate::master) fn records(&self) -> BTreeMap<&str, &NodeRecord> {
        self.store
            .nodes
            .iter()
            .filter_map(|(n, s)| Some((n.as_str(), s.envelope.value.as_ref()?)))
            .collect()
    }

    /// Checks `--revision`.
    pub(in crate::master) fn expect_revision(&self, what: &str, wanted: u64, actual: u64) -> Result<(), Failed> {
        if wanted == 0 || wanted == actual {
            return Ok(());
        }
        let e = ApiError::new(
            &codes::REVISION_CONFLICT,
            format!("{what} is at revision {actual}, not {wanted}"),
        )
        .why("it was changed since you looked at it");
        Err(Failed::Refused(e))
    }

    pub(super) fn node_revision(&self, name: &str) -> u64 {
        let nodes = self.store.nodes.get(name).map_or(0, |s| s.envelope.revision());
        nodes.max(self.store.assignments.get(name).map_or(0, |s| s.envelope.revision()))
    }

    pub(in crate::master) fn draft(
        caller: &Caller,
        kind: &'static str,
        subject: impl Into<String>,
        text: impl Into<String>,
        reason: &str,
    ) -> Draft {
        Draft {
            kind,
            subject: subject.into(),
            severity: Severity::Info,
            text: text.into(),
            cause: reason.to_owned(),
            actor: caller.identity.to_string(),
            request: caller.request_id.clone(),
            part: None,
        }
    }

    pub(in crate::master) fn result(&self) -> Done {
        Ok((
            v1::ChangeResult {
                changed: true,
                revision: self.store.revision(),
                ..Default::default()
            },
            None,
        ))
    }

    /// Records a call that a node refused.
    pub(in crate::master) async fn note_denied(&mut self, d: v1::Denied) -> Result<(), StoreError> {
        let draft = Draft {
            actor: d.actor.clone(),
            ..Draft::master(
                "access.denied",
                d.actor.clone(),
                Severity::Warning,
                format!("{} refused to {}", d.method, d.actor),
            )
            .cause(format!("{}; from {}", d.why, d.peer))
        };
        self.store
            .note(draft, serde_json::Value::Null, serde_json::Value::Null)
            .await?;
        Ok(())
    }
}
