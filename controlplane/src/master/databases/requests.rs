//! Requests of operators about groups: each is checked against what is stored and observed, stored, and answered.

use ha_core::database::spec::{InstanceSpec, Pause};
use ha_core::database::{GroupSpec, GroupState, Phase, RoleWanted};
use ha_core::refusal::Refusal;
use ha_core::{DatabaseOperation, OperationKind, Severity};
use ha_proto::v1;

use super::super::Master;
use super::super::handle::Caller;
use super::super::requests::{Done, Failed, planned, unchanged};
use super::super::store::{Draft, StoreError};
use super::operations::role_word;
use super::spec;

/// A change to a group.
#[derive(Debug, Clone)]
pub enum Change {
    /// Makes a group.
    Create(v1::CreateGroupRequest),
    /// Removes one.
    Remove(v1::RemoveGroupRequest),
    /// Assigns a role or a priority.
    Assign(v1::AssignInstanceRequest),
    /// Another primary, in order.
    Switchover(v1::SwitchoverRequest),
    /// Another primary, whatever becomes of this one.
    Failover(v1::FailoverRequest),
    /// A fresh copy.
    Reinit(v1::ReinitRequest),
    /// Restarts.
    Restart(v1::RestartRequest),
    /// Pauses or resumes.
    Pause(v1::PauseRequest),
    /// Replaces the specification.
    SetConfig(v1::SetConfigRequest),
}

fn unknown(name: &str) -> Refusal {
    Refusal::new("HA0401", format!("there is no database group {name}")).next("hactl db list")
}

impl Master<'_> {
    /// The group that a request means: the one named, or the only one.
    pub(super) fn group_named(&self, name: &str) -> Result<String, Failed> {
        let live = |g: &&super::StoredGroup| g.live().is_some();
        if !name.is_empty() {
            if let Some(why) = self.store.damaged_group(name) {
                return Err(StoreError::Value(why).into());
            }
            let found = self.store.groups.get(name).filter(live);
            return found.map(|_| name.to_owned()).ok_or_else(|| unknown(name).into());
        }
        let mut all = self.store.groups.iter().filter(|(_, g)| live(g)).map(|(n, _)| n);
        match (all.next(), all.next()) {
            (Some(one), None) => Ok(one.clone()),
            (Some(_), Some(_)) => Err(Refusal::new("HA0404", "the cluster has several database groups")
                .next("hactl db list")
                .into()),
            (None, _) => Err(Refusal::new("HA0427", "the cluster has no database group")
                .next("hactl db create NAME --node N1 --node N2 --node N3")
                .into()),
        }
    }

    /// A group's specification and record.
    pub(super) fn group_parts(&self, name: &str) -> Result<(GroupSpec, GroupState), Failed> {
        let stored = self.store.groups.get(name).ok_or_else(|| unknown(name))?;
        let spec = stored.live().ok_or_else(|| unknown(name))?;
        Ok((spec.clone(), stored.record()))
    }

    pub(super) fn group_revision(&self, name: &str) -> u64 {
        self.store.groups.get(name).map_or(0, |g| g.spec.envelope.revision())
    }

    pub(in crate::master) async fn change_group(&mut self, caller: &Caller, change: Change) -> Done {
        match change {
            Change::Create(r) => self.create_group(caller, r).await,
            Change::Remove(r) => self.remove_group(caller, r).await,
            Change::Assign(r) => self.assign_instance(caller, r).await,
            Change::Switchover(r) => self.switchover(caller, r).await,
            Change::Failover(r) => self.failover(caller, r).await,
            Change::Reinit(r) => self.reinit(caller, r).await,
            Change::Restart(r) => self.restart(caller, r).await,
            Change::Pause(r) => self.pause(caller, r).await,
            Change::SetConfig(r) => self.set_config(caller, r).await,
        }
    }

    /// Stores a specification without verifiers in the change log, and has it acted upon.
    async fn store_spec(&mut self, name: &str, spec: GroupSpec, mut draft: Draft) -> Result<(), StoreError> {
        // The entry shows a part that has no verifier: they are no secret, and no news either.
        draft.part = Some(match draft.kind {
            "db.paused" | "db.resumed" => "/pause".to_owned(),
            "db.removed" => "/removed".to_owned(),
            "db.config" => "/parameters".to_owned(),
            _ => "/nodes".to_owned(),
        });
        self.store.set_group(name, spec, draft).await?;
        self.databases.groups.entry(name.to_owned()).or_default().due = true;
        self.hint_spec(name);
        Ok(())
    }

    /// The groups that list an instance on this node.
    pub(in crate::master) fn groups_listing<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a String> {
        let of = self.store.groups.iter();
        of.filter(move |(_, g)| g.live().is_some_and(|s| s.nodes.contains_key(node)))
            .map(|(name, _)| name)
    }

    /// A node was removed from the cluster: no group lists it any more. Where a group wants so many instances, the master
    /// chooses another node for it.
    pub(in crate::master) async fn leave_groups(&mut self, caller: &Caller, node: &str) -> Result<(), StoreError> {
        let names: Vec<String> = self.groups_listing(node).cloned().collect();
        for name in names {
            let Some(mut spec) = self.store.groups.get(&name).and_then(|g| g.live().cloned()) else {
                continue;
            };
            spec.nodes.remove(node);
            let text = format!("{node} is to be no instance any more");
            let mut draft = Self::draft(
                caller,
                "db.assigned",
                format!("db/{name}"),
                text,
                "the node was removed",
            );
            draft.request = String::new();
            self.store_spec(&name, spec, draft).await?;
        }
        self.node_changed(node);
        Ok(())
    }

    /// Begins an operation on a group and answers with its id.
    pub(super) async fn begin(
        &mut self,
        caller: &Caller,
        name: &str,
        what: DatabaseOperation,
        options: &v1::ChangeOptions,
        text: String,
    ) -> Done {
        let what = OperationKind::Database {
            group: name.to_owned(),
            what,
        };
        let id = self
            .begin_operation(caller, what, Vec::new(), &options.reason, text)
            .await?;
        self.databases.groups.entry(name.to_owned()).or_default().due = true;
        self.publish();
        self.decide_databases().await?;
        let (result, _) = self.result()?;
        Ok((
            v1::ChangeResult {
                operation_id: id,
                ..result
            },
            None,
        ))
    }

    async fn create_group(&mut self, caller: &Caller, r: v1::CreateGroupRequest) -> Done {
        let options = r.options.unwrap_or_default();
        let name = r.name;
        if let Some(why) = self.store.damaged_group(&name) {
            return Err(StoreError::Value(why).into());
        }
        if self.store.groups.get(&name).is_some_and(|g| g.live().is_some()) {
            return Err(Refusal::new("HA0402", format!("the group {name} was created already"))
                .next(format!("hactl db status --group {name}"))
                .into());
        }
        let wire = r.spec.unwrap_or_default();
        let mut spec = spec::read(&wire, None)?;
        self.choose_ports(&name, wire.proxy, &mut spec);
        spec::check_nodes(&name, &spec, &self.records())?;
        let nodes: Vec<&str> = spec.nodes.keys().map(String::as_str).collect();
        if nodes.is_empty() {
            return Err(Refusal::new("HA0405", "a group needs at least one node")
                .next("hactl db create NAME --node N1 --node N2 --node N3")
                .into());
        }
        self.check_ports(&name, &spec)?;
        let text = format!("group {name} on {}", nodes.join(", "));
        if options.dry_run {
            let plan = vec![
                text,
                "the first primary is made where every directory is empty, or taken over where one has data".to_owned(),
                "the others are copied from it".to_owned(),
            ];
            return planned(plan, self.store.revision());
        }
        // A group of this name that was removed begins anew; epochs only grow, and so do the numbers of rules.
        if let Some(old) = self.store.groups.get(&name).map(super::StoredGroup::record)
            && old != GroupState::default()
        {
            let fresh = GroupState {
                epoch: old.epoch,
                rules_made: old.rules_made,
                ..GroupState::default()
            };
            while !self.store.set_record(&name, fresh.clone(), None).await? {
                crate::coordination::resolve::wait_live(&*self.p.c)
                    .await
                    .map_err(StoreError::from)?;
            }
            self.databases.groups.remove(&name);
        }
        // The request is done when its operation has begun: until then it may be repeated.
        let mut draft = Self::draft(caller, "db.added", format!("db/{name}"), text.clone(), &options.reason);
        draft.request = String::new();
        self.store_spec(&name, spec, draft).await?;
        self.begin(
            caller,
            &name,
            DatabaseOperation::Create,
            &options,
            format!("{text} is being made"),
        )
        .await
    }

    async fn remove_group(&mut self, caller: &Caller, r: v1::RemoveGroupRequest) -> Done {
        let options = r.options.unwrap_or_default();
        let tombstone = self.store.groups.get(&r.name).is_some_and(|g| {
            let spec = g.spec.envelope.value.as_ref();
            spec.is_some_and(|s| s.removed)
        });
        if tombstone {
            return unchanged(self.store.revision());
        }
        let name = self.group_named(&r.name)?;
        self.expect_revision(&format!("group {name}"), options.revision, self.group_revision(&name))?;
        let flag = if r.delete_data { " --delete-data" } else { "" };
        if r.confirm != name && !options.dry_run {
            return Err(
                Refusal::new("HA0423", format!("removing group {name} ends its databases"))
                    .why("its name has to be given once more")
                    .next(format!("hactl db remove {name}{flag} --confirm {name}"))
                    .into(),
            );
        }
        let (mut spec, record) = self.group_parts(&name)?;
        let mut plan = vec![format!("group {name} removed")];
        let data = if r.delete_data {
            "its data are deleted"
        } else {
            "its data stay"
        };
        let stops = |n: &String| format!("PostgreSQL on {n} stopped; {data}");
        plan.extend(record.instances.keys().map(stops));
        if options.dry_run {
            return planned(plan, self.store.revision());
        }
        spec.removed = true;
        spec.delete_data = r.delete_data;
        let mut draft = Self::draft(
            caller,
            "db.removed",
            format!("db/{name}"),
            format!(
                "group {name} removed; {}",
                data.replace("its data", "the data of its instances")
            ),
            &options.reason,
        );
        draft.severity = Severity::Warning;
        draft.request = String::new();
        self.store_spec(&name, spec, draft).await?;
        self.forget_group(&name);
        let text = format!("the instances of {name} are being stopped");
        self.begin(caller, &name, DatabaseOperation::Remove, &options, text)
            .await
    }

    async fn assign_instance(&mut self, caller: &Caller, r: v1::AssignInstanceRequest) -> Done {
        let wanted = spec::read_role(r.role());
        let options = r.options.unwrap_or_default();
        let name = self.group_named(&r.group)?;
        let (before, record) = self.group_parts(&name)?;
        self.expect_revision(&format!("group {name}"), options.revision, self.group_revision(&name))?;
        let mut after = before.clone();
        let listed = after.nodes.entry(r.node.clone()).or_insert_with(|| InstanceSpec {
            // A node that the master chose is a voting standby.
            role: RoleWanted::Sync,
            ..InstanceSpec::default()
        });
        listed.role = wanted.unwrap_or(listed.role);
        listed.priority = r.priority.unwrap_or(listed.priority);
        listed.delete_data = r.delete_data && listed.role == RoleWanted::None;
        let role = listed.role;
        if r.delete_data && role != RoleWanted::None {
            return Err(Refusal::new("HA0009", "data are deleted with the role none alone")
                .next(format!(
                    "hactl db assign {} --role none --delete-data --confirm {}",
                    r.node, r.node
                ))
                .into());
        }
        if r.delete_data && r.confirm != r.node && !options.dry_run {
            return Err(
                Refusal::new("HA0423", format!("the data of {name} on {} would be deleted", r.node))
                    .why("the node's name has to be given once more")
                    .next(format!(
                        "hactl db assign {} --role none --delete-data --confirm {}",
                        r.node, r.node
                    ))
                    .into(),
            );
        }
        if role == RoleWanted::Primary {
            let others = after.nodes.iter_mut().filter(|(n, _)| **n != r.node);
            for (_, other) in others.filter(|(_, i)| i.role == RoleWanted::Primary) {
                other.role = RoleWanted::Sync;
            }
        }
        spec::check_nodes(&name, &after, &self.records())?;
        self.check_ports(&name, &after)?;
        let leads = record.primary.as_ref() == Some(&r.node);
        if leads && matches!(role, RoleWanted::None | RoleWanted::Async) {
            return Err(Refusal::new("HA0410", format!("{} is the primary", r.node))
                .next("hactl db switchover")
                .into());
        }
        let open = record.phase != Phase::New && role == RoleWanted::Primary && !leads;
        if after == before && !open {
            return unchanged(self.group_revision(&name));
        }
        let text = format!(
            "{} is to be {}, priority {}",
            r.node,
            role_word(role),
            after.priority(&r.node)
        );
        let text = if r.delete_data {
            format!("{text}; its data are deleted")
        } else {
            text
        };
        if open {
            self.may_switch(&name, Some(r.node.clone()), true)?;
        }
        if options.dry_run {
            let mut plan = vec![text];
            if open {
                plan.push(format!("switchover to {}", r.node));
            }
            return planned(plan, self.store.revision());
        }
        let mut draft = Self::draft(
            caller,
            "db.assigned",
            format!("db/{name}"),
            text.clone(),
            &options.reason,
        );
        // A new priority alone is done when it is stored.
        let only_priority = before.role(&r.node) == role && before.nodes.contains_key(&r.node) && !open;
        if only_priority {
            self.store_spec(&name, after, draft).await?;
            return self.result();
        }
        draft.request = String::new();
        self.store_spec(&name, after, draft).await?;
        let what = DatabaseOperation::Assign { node: r.node, role };
        self.begin(caller, &name, what, &options, text).await
    }

    async fn pause(&mut self, caller: &Caller, r: v1::PauseRequest) -> Done {
        let options = r.options.unwrap_or_default();
        let name = self.group_named(&r.group)?;
        let (mut spec, _) = self.group_parts(&name)?;
        self.expect_revision(&format!("group {name}"), options.revision, self.group_revision(&name))?;
        let until_ms = (r.on && r.until_unix_ms != 0).then_some(r.until_unix_ms);
        if until_ms.is_some_and(|u| u <= self.wall_ms()) {
            return Err(Refusal::new("HA0009", "a pause cannot end in the past").into());
        }
        let same = match &spec.pause {
            Some(p) => r.on && p.until_ms == until_ms && (options.reason.is_empty() || p.reason == options.reason),
            None => !r.on,
        };
        if same {
            return unchanged(self.group_revision(&name));
        }
        let text = format!("group {name} {}", if r.on { "paused" } else { "resumed" });
        if options.dry_run {
            return planned(vec![text], self.store.revision());
        }
        spec.pause = r.on.then(|| Pause {
            until_ms,
            reason: options.reason.clone(),
            actor: caller.identity.to_string(),
        });
        let kind = if r.on { "db.paused" } else { "db.resumed" };
        let draft = Self::draft(caller, kind, format!("db/{name}"), text, &options.reason);
        self.store_spec(&name, spec, draft).await?;
        self.stale_alerts = true;
        self.result()
    }

    /// Ends the pauses whose time has come.
    pub(in crate::master) async fn end_pauses(&mut self) -> Result<(), StoreError> {
        let wall = self.wall_ms();
        let over = |g: &super::StoredGroup| {
            let pause = g.live().and_then(|s| s.pause.as_ref());
            pause.and_then(|p| p.until_ms).is_some_and(|until| until <= wall)
        };
        let due = self.store.groups.iter().filter(|(_, g)| over(g));
        let due: Vec<(String, Option<GroupSpec>)> =
            due.map(|(n, g)| (n.clone(), g.spec.envelope.value.clone())).collect();
        for (name, spec) in due {
            let Some(mut spec) = spec else { continue };
            spec.pause = None;
            let text = format!("group {name} resumed");
            let draft = Draft::master("db.resumed", format!("db/{name}"), Severity::Info, text)
                .cause("the time of its pause was over");
            self.store_spec(&name, spec, draft).await?;
        }
        Ok(())
    }

    async fn set_config(&mut self, caller: &Caller, r: v1::SetConfigRequest) -> Done {
        let options = r.options.unwrap_or_default();
        let name = self.group_named(&r.group)?;
        let (before, _) = self.group_parts(&name)?;
        self.expect_revision(&format!("group {name}"), options.revision, self.group_revision(&name))?;
        let wire = r
            .spec
            .ok_or_else(|| Refusal::new("HA0009", "the request has no specification"))?;
        let mut after = spec::read(&wire, Some(&before))?;
        // Members have calls of their own, and so has the pause.
        after.nodes.clone_from(&before.nodes);
        after.pause.clone_from(&before.pause);
        spec::check_nodes(&name, &after, &self.records())?;
        self.check_ports(&name, &after)?;
        if (after.version, &after.directory) != (before.version, &before.directory) {
            return Err(
                Refusal::new("HA0405", "version and directory of a group stay as they are")
                    .why("an instance that is there would not be found any more")
                    .into(),
            );
        }
        let changes = spec::changes(&before, &after);
        if after == before {
            return unchanged(self.group_revision(&name));
        }
        if options.dry_run {
            return planned(changes, self.store.revision());
        }
        let mut text = format!("configuration of {name}: {}", changes.join(", "));
        if text.len() > 300 {
            text = format!("configuration of {name}: {} changes", changes.len());
        }
        let draft = Self::draft(caller, "db.config", format!("db/{name}"), text, &options.reason);
        self.store_spec(&name, after, draft).await?;
        self.result()
    }
}
