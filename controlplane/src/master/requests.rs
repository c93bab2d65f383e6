//! Requests of operators: each is checked, decided in core, stored, and answered when it is stored.
//!
//! A request id that an object's last change already carries is answered as done: the caller repeats a request whose
//! answer was lost with a master.

use std::collections::{BTreeMap, BTreeSet};

use ha_core::access::{self, Issued};
use ha_core::nodes::{self, Outcome, Patch};
use ha_core::refusal::Refusal;
use ha_core::{
    AccessRecord, ClusterRecord, Maintenance, NodeRecord, OperationKind, OperationState, Presence, Severity, Transfer,
    membership,
};
use ha_proto::{codes, v1};

use super::handle::{Caller, Command, Request};
use super::hub::Update;
use super::store::{Draft, StoreError};
use super::{End, Master, view};
use crate::error::ApiError;

/// A request's answer, or why the master must end; and what ends it after the answer.
type Done = Result<(v1::ChangeResult, Option<End>), Failed>;

/// How a request fails.
pub(super) enum Failed {
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

fn unchanged(revision: u64) -> Done {
    Ok((
        v1::ChangeResult {
            changed: false,
            revision,
            ..v1::ChangeResult::default()
        },
        None,
    ))
}

fn planned(plan: Vec<String>, revision: u64) -> Done {
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

fn no_options() -> v1::ChangeOptions {
    v1::ChangeOptions::default()
}

impl Master<'_> {
    pub(super) async fn command(&mut self, command: Command) -> Result<Option<End>, StoreError> {
        match command {
            Command::Change { caller, request, reply } => match self.change(&caller, request).await {
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
        match request {
            Request::AddNode(r) => self.add_node(caller, r).await,
            Request::RemoveNode(r) => {
                self.remove_node(caller, &r.name, r.options.unwrap_or_default(), false)
                    .await
            }
            Request::LeaveNode { name, reason } => {
                let options = v1::ChangeOptions { reason, ..no_options() };
                self.remove_node(caller, &name, options, true).await
            }
            Request::UpdateNode(r) => self.update_node(caller, r).await,
            Request::DrainNode(r) => self.drain_node(caller, r).await,
            Request::SetMaintenance(r) => self.set_maintenance(caller, r).await,
            Request::TransferMaster(r) => self.transfer_master(caller, r).await,
            Request::RecordUser(r) => self.record_user(caller, r).await,
            Request::RevokeUser(r) => self.revoke_user(caller, r).await,
            Request::CancelOperation(r) => self.cancel_operation(caller, r).await,
            Request::RecordDenied(d) => self.record_denied(d).await,
        }
    }

    /// Revision of the change that a request with this id has made.
    fn done_before(&self, request: &str) -> Option<u64> {
        if request.is_empty() {
            return None;
        }
        let s = &self.store;
        let changes = s
            .nodes
            .values()
            .filter_map(|x| x.envelope.change.as_ref())
            .chain(s.assignments.values().filter_map(|x| x.envelope.change.as_ref()))
            .chain(s.ops.values().filter_map(|x| x.envelope.change.as_ref()))
            .chain(s.cluster.envelope.change.as_ref())
            .chain(s.access.envelope.change.as_ref());
        let done = changes.filter(|c| c.request == request).map(|c| c.seq).max();
        done.or_else(|| self.operation_of(request).map(|_| s.revision()))
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

    pub(super) fn records(&self) -> BTreeMap<&str, &NodeRecord> {
        self.store
            .nodes
            .iter()
            .filter_map(|(n, s)| Some((n.as_str(), s.envelope.value.as_ref()?)))
            .collect()
    }

    /// Checks `--revision`.
    fn expect_revision(&self, what: &str, wanted: u64, actual: u64) -> Result<(), Failed> {
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

    fn node_revision(&self, name: &str) -> u64 {
        let nodes = self.store.nodes.get(name).map_or(0, |s| s.envelope.revision());
        nodes.max(self.store.assignments.get(name).map_or(0, |s| s.envelope.revision()))
    }

    pub(super) fn draft(
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
        }
    }

    fn result(&self) -> Done {
        Ok((
            v1::ChangeResult {
                changed: true,
                revision: self.store.revision(),
                ..Default::default()
            },
            None,
        ))
    }

    async fn add_node(&mut self, caller: &Caller, r: v1::AddNodeRequest) -> Done {
        let options = r.options.unwrap_or_default();
        let spec = r
            .spec
            .ok_or_else(|| Refusal::new("HA0009", "the request has no specification"))?;
        let outcome = nodes::add(&self.records(), &r.name, view::from_spec(&spec), self.wall_ms())?;
        let Outcome::Changed { record, what } = outcome else {
            return unchanged(self.store.revision());
        };
        let text = format!("{} {}", r.name, what.join(", "));
        if options.dry_run {
            return planned(vec![text], self.store.revision());
        }
        // The certificate first: a node without its record is refused, a record without its node does no harm.
        if !r.certificate_serial.is_empty() {
            let issued = Issued {
                serial: &r.certificate_serial,
                expires_ms: r.certificate_expires_unix_ms,
            };
            let decided = access::record_node(&self.access(), &r.name, issued, self.wall_ms())
                .map_err(|e| refused_access(&r.name, e))?;
            let subject = format!("node/{}", r.name);
            let mut draft = Self::draft(
                caller,
                "certificate.recorded",
                subject,
                decided.text.clone(),
                &options.reason,
            );
            draft.request = String::new();
            self.set_access(decided, draft).await?;
        }
        let draft = Self::draft(caller, "node.added", format!("node/{}", r.name), text, &options.reason);
        self.store.set_node(&r.name, *record, draft).await?;
        let now = self.now();
        self.members
            .entry(r.name.clone())
            .or_insert_with(|| super::Member::unobserved(now));
        self.conclude(&r.name).await?;
        self.show(&r.name, true);
        self.result()
    }

    async fn remove_node(&mut self, caller: &Caller, name: &str, options: v1::ChangeOptions, leaving: bool) -> Done {
        let presence = match self.presence(name) {
            // Suspicion ends by itself; a removal waits for the conclusion.
            p @ (Presence::Online | Presence::Suspect | Presence::Offline | Presence::Unseen) => p,
        };
        let outcome = nodes::remove(&self.records(), name, presence, leaving)?;
        self.expect_revision(&format!("node {name}"), options.revision, self.node_revision(name))?;
        let Outcome::Changed { record, what } = outcome else {
            return unchanged(self.node_revision(name));
        };
        let text = format!("{name} {}", what.join(", "));
        if options.dry_run {
            return planned(
                vec![text, format!("certificates of {name} revoked")],
                self.store.revision(),
            );
        }
        // A removed node's certificate must not speak for operators any more.
        let decided =
            access::revoke_node(&self.access(), name, true, self.wall_ms()).map_err(|e| refused_access(name, e))?;
        if decided.changed {
            let subject = format!("node/{name}");
            let mut draft = Self::draft(
                caller,
                "certificate.revoked",
                subject,
                decided.text.clone(),
                "node removed",
            );
            draft.request = String::new();
            self.set_access(decided, draft).await?;
        }
        let kind = if leaving { "node.left" } else { "node.removed" };
        let draft = Self::draft(caller, kind, format!("node/{name}"), text, &options.reason);
        self.store.set_node(name, *record, draft).await?;
        self.conclude(name).await?;
        self.show(name, true);
        self.stale_alerts = true;
        let (result, _) = self.result()?;
        // A master that leaves gives its place up at once.
        let end = (name == self.p.shared.me.node).then_some(End::Transfer { to: None, pin: false });
        Ok((result, end))
    }

    async fn update_node(&mut self, caller: &Caller, r: v1::UpdateNodeRequest) -> Done {
        let options = r.options.unwrap_or_default();
        let capacity = match &r.capacity_override {
            _ if r.clear_capacity_override => Some(ha_core::Resources::default()),
            given => given.as_ref().map(view::from_resources),
        };
        let patch = Patch {
            address: r.address,
            set_labels: r.set_labels,
            remove_labels: r.remove_labels,
            scenarios: r
                .set_scenarios
                .then(|| r.scenarios.into_iter().collect::<BTreeSet<_>>()),
            capacity,
            eligible: r.master_eligible,
            preference: r.master_preference,
            cordoned: r.cordoned,
            // Uncordoning ends a drain as well.
            draining: r.cordoned.filter(|c| !c),
        };
        self.patch_node(caller, &r.name, &patch, &options).await
    }

    async fn patch_node(&mut self, caller: &Caller, name: &str, patch: &Patch, options: &v1::ChangeOptions) -> Done {
        let outcome = nodes::update(&self.records(), name, patch)?;
        self.expect_revision(&format!("node {name}"), options.revision, self.node_revision(name))?;
        let Outcome::Changed { record, what } = outcome else {
            return unchanged(self.node_revision(name));
        };
        let text = format!("{name}: {}", what.join(", "));
        if options.dry_run {
            return planned(vec![text], self.store.revision());
        }
        let draft = Self::draft(caller, "node.changed", format!("node/{name}"), text, &options.reason);
        self.store.set_node(name, *record, draft).await?;
        self.result()
    }

    async fn drain_node(&mut self, caller: &Caller, r: v1::DrainNodeRequest) -> Done {
        let options = r.options.clone().unwrap_or_default();
        if r.cancel {
            self.cancel_drains(&r.name).await?;
            let patch = Patch {
                cordoned: Some(false),
                draining: Some(false),
                ..Patch::default()
            };
            return self.patch_node(caller, &r.name, &patch, &options).await;
        }
        let patch = Patch {
            cordoned: Some(true),
            draining: Some(true),
            ..Patch::default()
        };
        let outcome = nodes::update(&self.records(), &r.name, &patch)?;
        let drained = self
            .records()
            .get(r.name.as_str())
            .is_some_and(|n| n.spec.cordoned && !n.spec.draining);
        let running = self.running_drain(&r.name);
        if let Some(id) = running {
            let (mut result, _) = unchanged(self.node_revision(&r.name))?;
            result.operation_id = id;
            return Ok((result, None));
        }
        if drained && matches!(outcome, Outcome::Changed { .. }) && self.is_empty(&r.name) {
            return unchanged(self.node_revision(&r.name));
        }
        if options.dry_run {
            let plan = vec![
                format!("{} cordoned", r.name),
                "its services moved to other nodes".to_owned(),
            ];
            return planned(plan, self.store.revision());
        }
        let (result, _) = self
            .patch_node(
                caller,
                &r.name,
                &patch,
                &v1::ChangeOptions {
                    dry_run: false,
                    ..options.clone()
                },
            )
            .await?;
        let deadline_ms = (r.deadline_ms > 0).then(|| {
            self.wall_ms()
                .saturating_add(i64::try_from(r.deadline_ms).unwrap_or(i64::MAX))
        });
        let what = OperationKind::DrainNode {
            node: r.name.clone(),
            deadline_ms,
        };
        let steps = vec![(self.wall_ms(), format!("{} cordoned", r.name))];
        let id = self
            .begin_operation(
                caller,
                what,
                steps,
                &options.reason,
                format!("drain of {} begun", r.name),
            )
            .await?;
        self.advance_operations().await?;
        Ok((
            v1::ChangeResult {
                operation_id: id,
                revision: self.store.revision(),
                ..result
            },
            None,
        ))
    }

    async fn set_maintenance(&mut self, caller: &Caller, r: v1::SetMaintenanceRequest) -> Done {
        let options = r.options.unwrap_or_default();
        let until_ms = (r.on && r.until_unix_ms != 0).then_some(r.until_unix_ms);
        if until_ms.is_some_and(|u| u <= self.wall_ms()) {
            return Err(Refusal::new("HA0009", "maintenance cannot end in the past").into());
        }
        let before = self.store.cluster.envelope.value.clone().unwrap_or_default();
        self.expect_revision("the cluster", options.revision, self.store.cluster.envelope.revision())?;
        let same = match &before.maintenance {
            Some(m) => r.on && m.until_ms == until_ms && (options.reason.is_empty() || m.reason == options.reason),
            None => !r.on,
        };
        if same {
            return unchanged(self.store.cluster.envelope.revision());
        }
        let maintenance = r.on.then(|| Maintenance {
            until_ms,
            reason: options.reason.clone(),
            actor: caller.identity.to_string(),
        });
        let text = if r.on { "maintenance on" } else { "maintenance off" };
        if options.dry_run {
            return planned(vec![text.to_owned()], self.store.revision());
        }
        let kind = if r.on { "maintenance.on" } else { "maintenance.off" };
        let draft = Self::draft(caller, kind, "cluster", text, &options.reason);
        self.store.set_cluster(ClusterRecord { maintenance }, draft).await?;
        self.result()
    }

    async fn transfer_master(&mut self, caller: &Caller, r: v1::TransferMasterRequest) -> Done {
        let options = r.options.unwrap_or_default();
        let me = self.p.shared.me.node.clone();
        if r.to == me {
            return unchanged(self.store.revision());
        }
        let to = self.transfer_target(&r.to)?;
        let Some(candidate) = self.candidacy_of(&to).await? else {
            return Err(not_eligible(&to, "it does not stand for election yet").into());
        };
        if options.dry_run {
            return planned(
                vec![format!("mastership moves from {me} to {to}")],
                self.store.revision(),
            );
        }
        let what = OperationKind::TransferMaster {
            to: to.clone(),
            from_term: self.won.term,
        };
        let steps = vec![(self.wall_ms(), format!("{me} gives mastership up"))];
        let text = format!("transfer of mastership, {me} -> {to}");
        let id = self.begin_operation(caller, what, steps, &options.reason, text).await?;
        let (result, _) = self.result()?;
        let end = End::Transfer {
            to: Some(Transfer { node: to, candidate }),
            pin: true,
        };
        Ok((
            v1::ChangeResult {
                operation_id: id,
                ..result
            },
            Some(end),
        ))
    }

    /// The node that a transfer goes to: the one named, or the best other.
    fn transfer_target(&self, named: &str) -> Result<String, Failed> {
        let me = self.p.shared.me.node.as_str();
        let records = self.records();
        let fit = |name: &str| {
            let record = records
                .get(name)
                .filter(|r| !r.removed)
                .ok_or_else(|| nodes::unknown(name))?;
            if self.presence(name) != Presence::Online {
                return Err(not_eligible(name, "it is not online"));
            }
            if !membership::may_lead(&record.spec) {
                return Err(not_eligible(name, "it is cordoned, draining or not eligible"));
            }
            Ok(record.spec.master_preference)
        };
        if !named.is_empty() {
            fit(named)?;
            return Ok(named.to_owned());
        }
        let others = records.keys().filter(|n| **n != me);
        let best = others
            .filter_map(|n| fit(n).ok().map(|p| (std::cmp::Reverse(p), *n)))
            .min();
        match best {
            Some((_, name)) => Ok(name.to_owned()),
            None => Err(not_eligible("any other node", "none is online and eligible").into()),
        }
    }

    fn access(&self) -> AccessRecord {
        self.store.access.envelope.value.clone().unwrap_or_default()
    }

    async fn set_access(&mut self, decided: access::Outcome, draft: Draft) -> Result<(), StoreError> {
        if !decided.changed {
            return Ok(());
        }
        self.store.set_access(decided.record, draft).await?;
        self.show_users();
        Ok(())
    }

    async fn record_user(&mut self, caller: &Caller, r: v1::RecordUserRequest) -> Done {
        let options = r.options.clone().unwrap_or_default();
        ha_core::valid_name(&r.name).map_err(|e| Refusal::new("HA0007", format!("user name {:?}: {e}", r.name)))?;
        let role = view::from_access_role(r.role())
            .ok_or_else(|| Refusal::new("HA0009", "a role is viewer, operator or admin"))?;
        let issued = Issued {
            serial: &r.serial,
            expires_ms: r.expires_unix_ms,
        };
        let decide = if r.renew { access::renew_user } else { access::add_user };
        let decided =
            decide(&self.access(), &r.name, role, issued, self.wall_ms()).map_err(|e| refused_access(&r.name, e))?;
        self.finish_access(caller, "user.recorded", &format!("user/{}", r.name), decided, &options)
            .await
    }

    async fn revoke_user(&mut self, caller: &Caller, r: v1::RevokeUserRequest) -> Done {
        let options = r.options.unwrap_or_default();
        let (now, access) = (self.wall_ms(), self.access());
        let decided = if r.node {
            let exists = self.records().contains_key(r.name.as_str());
            access::revoke_node(&access, &r.name, exists, now)
        } else {
            access::revoke_user(&access, &r.name, now)
        }
        .map_err(|e| refused_access(&r.name, e))?;
        let subject = format!("{}/{}", if r.node { "node" } else { "user" }, r.name);
        self.finish_access(caller, "certificate.revoked", &subject, decided, &options)
            .await
    }

    async fn finish_access(
        &mut self,
        caller: &Caller,
        kind: &'static str,
        subject: &str,
        decided: access::Outcome,
        options: &v1::ChangeOptions,
    ) -> Done {
        self.expect_revision(
            "the list of users",
            options.revision,
            self.store.access.envelope.revision(),
        )?;
        if !decided.changed {
            return unchanged(self.store.access.envelope.revision());
        }
        if options.dry_run {
            return planned(vec![decided.text], self.store.revision());
        }
        let draft = Self::draft(caller, kind, subject, decided.text.clone(), &options.reason);
        self.set_access(decided, draft).await?;
        self.result()
    }

    async fn record_denied(&mut self, d: v1::Denied) -> Done {
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
        self.result()
    }

    async fn cancel_operation(&mut self, caller: &Caller, r: v1::CancelOperationRequest) -> Done {
        let options = r.options.unwrap_or_default();
        let found = self.store.ops.get(&r.id).and_then(|s| s.envelope.value.clone());
        let Some(op) = found else {
            return Err(Refusal::new("HA0501", format!("there is no operation {}", r.id))
                .next("hactl op list")
                .into());
        };
        if op.state == OperationState::Cancelled {
            return unchanged(self.store.revision());
        }
        if op.finished_ms.is_some() {
            return Err(Refusal::new("HA0502", format!("operation {} has finished", r.id)).into());
        }
        if options.dry_run {
            return planned(vec![format!("operation {} cancelled", r.id)], self.store.revision());
        }
        let draft = Self::draft(
            caller,
            "op.cancelled",
            format!("op/{}", r.id),
            format!("operation {} cancelled", r.id),
            &options.reason,
        );
        self.finish_operation(&r.id, op, OperationState::Cancelled, None, draft)
            .await?;
        self.result()
    }

    pub(super) fn in_maintenance(&self) -> bool {
        self.store
            .cluster
            .envelope
            .value
            .as_ref()
            .is_some_and(|c| c.maintenance.is_some())
    }

    /// Ends a maintenance window whose time has come.
    pub(super) async fn end_maintenance(&mut self) -> Result<(), StoreError> {
        let until = self
            .store
            .cluster
            .envelope
            .value
            .as_ref()
            .and_then(|c| c.maintenance.as_ref()?.until_ms);
        if until.is_none_or(|u| u > self.wall_ms()) {
            return Ok(());
        }
        let draft =
            Draft::master("maintenance.off", "cluster", Severity::Info, "maintenance off").cause("its time was over");
        self.store.set_cluster(ClusterRecord { maintenance: None }, draft).await
    }

    pub(super) fn show_maintenance(&self) {
        let m = self
            .store
            .cluster
            .envelope
            .value
            .as_ref()
            .and_then(|c| c.maintenance.clone());
        self.tell(Update::Maintenance(v1::Maintenance {
            on: m.is_some(),
            until_unix_ms: m.as_ref().and_then(|m| m.until_ms).unwrap_or(0),
            reason: m.as_ref().map_or(String::new(), |m| m.reason.clone()),
            actor: m.map_or(String::new(), |m| m.actor),
        }));
    }
}

fn not_eligible(name: &str, why: &str) -> Refusal {
    Refusal::new("HA0306", format!("{name} cannot become master"))
        .why(why)
        .next("hactl node list")
}

fn refused_access(name: &str, e: access::Refusal) -> Failed {
    use access::Refusal::{BadSerial, LastAdmin, NodeUnknown, UserExists, UserRevoked, UserUnknown};
    let code = match e {
        UserExists => "HA0205",
        UserUnknown | UserRevoked => "HA0206",
        LastAdmin => "HA0207",
        NodeUnknown => "HA0302",
        BadSerial => "HA0009",
    };
    let refusal = Refusal::new(code, format!("{name}: {e}"));
    match e {
        UserRevoked => refusal.next(format!("hactl user add {name} --role ROLE")),
        UserExists => refusal.next(format!("hactl user renew {name}")),
        UserUnknown => refusal.next("hactl user list"),
        LastAdmin => refusal.next("hactl user add NAME --role admin"),
        NodeUnknown => refusal.next("hactl node list"),
        BadSerial => refusal,
    }
    .into()
}
