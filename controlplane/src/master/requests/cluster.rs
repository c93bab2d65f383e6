//! Requests about the cluster: maintenance, mastership, operations.

use ha_core::refusal::Refusal;
use ha_core::{
    ClusterRecord, Maintenance, OperationKind, OperationState, Presence, Severity, Transfer, membership, nodes,
};
use ha_proto::v1;

use super::super::handle::Caller;
use super::super::hub::Update;
use super::super::store::{Draft, StoreError};
use super::super::{End, Master};
use super::{Done, Failed, planned, unchanged};

impl Master<'_> {
    pub(super) async fn set_maintenance(&mut self, caller: &Caller, r: v1::SetMaintenanceRequest) -> Done {
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

    pub(super) async fn transfer_master(&mut self, caller: &Caller, r: v1::TransferMasterRequest) -> Done {
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

    pub(super) async fn cancel_operation(&mut self, caller: &Caller, r: v1::CancelOperationRequest) -> Done {
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

    pub(in crate::master) fn in_maintenance(&self) -> bool {
        self.store
            .cluster
            .envelope
            .value
            .as_ref()
            .is_some_and(|c| c.maintenance.is_some())
    }

    /// Ends a maintenance window whose time has come.
    pub(in crate::master) async fn end_maintenance(&mut self) -> Result<(), StoreError> {
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

    pub(in crate::master) fn show_maintenance(&self) {
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
