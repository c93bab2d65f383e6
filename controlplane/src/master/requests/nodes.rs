//! Requests about nodes.

use std::collections::BTreeSet;

use ha_core::OperationKind;
use ha_core::access::{self, Issued};
use ha_core::nodes::{self, Outcome, Patch};
use ha_core::refusal::Refusal;
use ha_proto::v1;

use super::super::handle::Caller;
use super::super::members::Member;
use super::super::{End, Master, view};
use super::access::refused_access;
use super::{Done, planned, unchanged};

impl Master<'_> {
    pub(super) async fn add_node(&mut self, caller: &Caller, r: v1::AddNodeRequest) -> Done {
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
            .or_insert_with(|| Member::unobserved(now));
        self.conclude(&r.name).await?;
        self.show(&r.name, true);
        self.result()
    }

    pub(super) async fn remove_node(
        &mut self,
        caller: &Caller,
        name: &str,
        options: v1::ChangeOptions,
        leaving: bool,
    ) -> Done {
        let presence = self.presence(name);
        let outcome = nodes::remove(&self.records(), name, presence, leaving)?;
        self.expect_revision(&format!("node {name}"), options.revision, self.node_revision(name))?;
        let Outcome::Changed { record, what } = outcome else {
            return unchanged(self.node_revision(name));
        };
        let text = format!("{name} {}", what.join(", "));
        if options.dry_run {
            let mut plan = vec![text, format!("certificates of {name} revoked")];
            plan.extend(
                self.groups_listing(name)
                    .map(|g| format!("its instance of group {g} is given up")),
            );
            return planned(plan, self.store.revision());
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
        self.leave_groups(caller, name).await?;
        self.conclude(name).await?;
        self.show(name, true);
        self.stale_alerts = true;
        let (result, _) = self.result()?;
        // A master that leaves gives its place up at once.
        let end = (name == self.p.shared.me.node).then_some(End::Transfer { to: None, pin: false });
        Ok((result, end))
    }

    pub(super) async fn update_node(&mut self, caller: &Caller, r: v1::UpdateNodeRequest) -> Done {
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

    pub(super) async fn patch_node(
        &mut self,
        caller: &Caller,
        name: &str,
        patch: &Patch,
        options: &v1::ChangeOptions,
    ) -> Done {
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

    pub(super) async fn drain_node(&mut self, caller: &Caller, r: v1::DrainNodeRequest) -> Done {
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
        // The request is done when its operation has begun: until then it may be repeated.
        let first = Caller {
            request_id: String::new(),
            ..caller.clone()
        };
        self.patch_node(&first, &r.name, &patch, &options).await?;
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
        let (result, _) = self.result()?;
        Ok((
            v1::ChangeResult {
                operation_id: id,
                ..result
            },
            None,
        ))
    }
}
