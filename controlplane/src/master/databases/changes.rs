//! Requests that change who is primary, or that take an instance away for a while.

use ha_core::database::observed::{Memory, Observed, Request, Wanted};
use ha_core::database::{Phase, RoleWanted, Weaken, group};
use ha_core::refusal::Refusal;
use ha_core::{DatabaseOperation, OperationKind};
use ha_proto::v1;

use super::super::Master;
use super::super::handle::Caller;
use super::super::requests::{Done, Failed, planned, unchanged};

impl Master<'_> {
    /// What core says to a request at this moment, if that is a refusal.
    fn try_request(&self, name: &str, what: Wanted) -> Result<Vec<String>, Failed> {
        let (spec, record) = self.group_parts(name)?;
        let trial = "trial".to_owned();
        let mut observed: Observed = self.observed(name, &spec, &record);
        observed.requests = vec![Request {
            operation: trial.clone(),
            what,
        }];
        let mut memory = self
            .databases
            .groups
            .get(name)
            .map_or_else(Memory::default, |g| g.memory.clone());
        let decision = group::decide(
            &spec,
            &record,
            &observed,
            &mut memory,
            &self.timing(),
            &Weaken::default(),
        );
        for finished in decision.finished {
            if finished.operation == trial
                && let Err(refusal) = finished.result
            {
                return Err(refusal.into());
            }
        }
        Ok(decision.reasons)
    }

    /// Whether a switchover could begin: nothing else is under way, the group is well, the successor can be one.
    pub(super) fn may_switch(&self, name: &str, to: Option<String>, assigning: bool) -> Result<(), Failed> {
        let (_, record) = self.group_parts(name)?;
        if let Some(to) = &to
            && !record.instances.contains_key(to)
            && !assigning
        {
            return Err(Refusal::new("HA0403", format!("{to} has no instance of group {name}"))
                .next(format!("hactl db status --group {name}"))
                .into());
        }
        self.not_busy(name)?;
        if record.phase != Phase::Steady || record.primary.is_none() {
            let reasons = self.databases.groups.get(name).map_or(&[][..], |g| &g.reasons);
            let mut refusal = Refusal::new("HA0407", format!("group {name} has no primary at the moment"));
            refusal.why.extend(reasons.iter().take(3).cloned());
            return Err(refusal.next("hactl db explain").into());
        }
        let known = to.as_ref().is_none_or(|t| record.instances.contains_key(t));
        if known {
            self.try_request(name, Wanted::Switchover { to, at_ms: None })?;
        }
        Ok(())
    }

    /// One change of primary at a time.
    fn not_busy(&self, name: &str) -> Result<(), Refusal> {
        for id in self.running_on(name) {
            let op = self.store.ops.get(&id).and_then(|s| s.envelope.value.as_ref());
            let Some(OperationKind::Database { what, .. }) = op.map(|o| &o.what) else {
                continue;
            };
            let busy = match what {
                DatabaseOperation::Switchover { at_ms, .. } => at_ms.is_none_or(|at| at <= self.wall_ms()),
                DatabaseOperation::Failover { .. } | DatabaseOperation::Restart { .. } => true,
                DatabaseOperation::Assign { role, .. } => *role == RoleWanted::Primary,
                _ => false,
            };
            if busy {
                return Err(
                    Refusal::new("HA0408", format!("the primary of {name} is being changed already"))
                        .next(format!("hactl op wait {id}")),
                );
            }
        }
        Ok(())
    }

    pub(super) async fn switchover(&mut self, caller: &Caller, r: v1::SwitchoverRequest) -> Done {
        let options = r.options.unwrap_or_default();
        let name = self.group_named(&r.group)?;
        let to = (!r.to.is_empty()).then(|| r.to.clone());
        let (_, record) = self.group_parts(&name)?;
        if to.is_some() && to == record.primary && record.phase == Phase::Steady {
            return unchanged(self.group_revision(&name));
        }
        let at_ms = (r.at_unix_ms != 0).then_some(r.at_unix_ms);
        if at_ms.is_some_and(|at| at <= self.wall_ms()) {
            return Err(Refusal::new("HA0009", "a switchover cannot be planned for the past").into());
        }
        // What is planned is checked when its time has come.
        if at_ms.is_none() {
            self.may_switch(&name, to.clone(), false)?;
        }
        let from = record.primary.clone().unwrap_or_else(|| "nobody".to_owned());
        let target = to.clone().unwrap_or_else(|| "the best standby".to_owned());
        let text = format!("switchover of {name}, {from} -> {target}");
        if options.dry_run {
            let plan = vec![
                format!("checkpoint on {from}"),
                "the proxies hold new connections".to_owned(),
                format!("{from} is stopped, and {target} receives the rest of its log"),
                format!("{target} becomes primary, and {from} follows it"),
            ];
            return planned(plan, self.store.revision());
        }
        let what = DatabaseOperation::Switchover { to, at_ms };
        self.begin(caller, &name, what, &options, text).await
    }

    pub(super) async fn failover(&mut self, caller: &Caller, r: v1::FailoverRequest) -> Done {
        let options = r.options.unwrap_or_default();
        let name = self.group_named(&r.group)?;
        let to = (!r.to.is_empty()).then(|| r.to.clone());
        let (_, record) = self.group_parts(&name)?;
        self.not_busy(&name)?;
        if record.phase == Phase::New || record.phase == Phase::Bootstrapping {
            return Err(Refusal::new("HA0407", format!("group {name} never had a primary yet"))
                .next("hactl db explain")
                .into());
        }
        if let Some(to) = to.as_ref().filter(|t| !record.instances.contains_key(*t)) {
            return Err(Refusal::new("HA0403", format!("{to} has no instance of group {name}")).into());
        }
        let wanted = Wanted::Failover {
            to: to.clone(),
            allow_data_loss: r.allow_data_loss,
        };
        if record.phase == Phase::Steady {
            self.try_request(&name, wanted)?;
        }
        let target = to.clone().unwrap_or_else(|| "the best standby".to_owned());
        let from = record.primary.clone().unwrap_or_else(|| "nobody".to_owned());
        let text = format!("failover of {name}, {from} -> {target}");
        if options.dry_run {
            let plan = vec![
                format!("every standby refuses {from} and tells where its log ends"),
                format!("{target} becomes primary with the greatest log among those that answer"),
            ];
            return planned(plan, self.store.revision());
        }
        let what = DatabaseOperation::Failover {
            to,
            allow_data_loss: r.allow_data_loss,
        };
        self.begin(caller, &name, what, &options, text).await
    }

    pub(super) async fn reinit(&mut self, caller: &Caller, r: v1::ReinitRequest) -> Done {
        let options = r.options.unwrap_or_default();
        let name = self.group_named(&r.group)?;
        let (_, record) = self.group_parts(&name)?;
        if !record.instances.contains_key(&r.node) {
            return Err(
                Refusal::new("HA0403", format!("{} has no instance of group {name}", r.node))
                    .next(format!("hactl db status --group {name}"))
                    .into(),
            );
        }
        if record.primary.as_ref() == Some(&r.node) {
            return Err(Refusal::new("HA0410", format!("{} is the primary", r.node))
                .next("hactl db switchover")
                .into());
        }
        if record.phase != Phase::Steady {
            return Err(
                Refusal::new("HA0407", format!("group {name} has no primary to copy from"))
                    .next("hactl db explain")
                    .into(),
            );
        }
        let same = |id: &String| {
            let op = self.store.ops.get(id).and_then(|s| s.envelope.value.as_ref());
            op.is_some_and(|o| {
                matches!(&o.what, OperationKind::Database { what: DatabaseOperation::Reinit { node }, .. } if *node == r.node)
            })
        };
        if let Some(id) = self.running_on(&name).into_iter().find(same) {
            let (mut result, _) = unchanged(self.group_revision(&name))?;
            result.operation_id = id;
            return Ok((result, None));
        }
        let text = format!("{} is copied afresh from the primary", r.node);
        if options.dry_run {
            let plan = vec![text, "its old directory is kept until the new one streams".to_owned()];
            return planned(plan, self.store.revision());
        }
        let what = DatabaseOperation::Reinit { node: r.node };
        self.begin(caller, &name, what, &options, text).await
    }

    pub(super) async fn restart(&mut self, caller: &Caller, r: v1::RestartRequest) -> Done {
        let options = r.options.unwrap_or_default();
        let name = self.group_named(&r.group)?;
        let (_, record) = self.group_parts(&name)?;
        self.not_busy(&name)?;
        if record.phase != Phase::Steady {
            return Err(
                Refusal::new("HA0407", format!("group {name} has no primary at the moment"))
                    .next("hactl db explain")
                    .into(),
            );
        }
        if !r.node.is_empty() && !record.instances.contains_key(&r.node) {
            return Err(
                Refusal::new("HA0403", format!("{} has no instance of group {name}", r.node))
                    .next(format!("hactl db status --group {name}"))
                    .into(),
            );
        }
        let one = (!r.node.is_empty()).then_some(r.node.as_str());
        let lowers = self.lowers(&name, &record, one);
        let instances = self.databases.groups.get(&name).map(|g| &g.instances);
        let mut targets = std::collections::BTreeMap::new();
        for node in record.instances.keys() {
            if !r.node.is_empty() && *node != r.node {
                continue;
            }
            let here = self.members.get(node).is_some_and(|m| m.stream.is_some());
            let Some(i) = instances.and_then(|all| all.get(node)).filter(|_| here) else {
                return Err(
                    Refusal::new("HA0422", format!("the instance on {node} does not report"))
                        .next(format!("hactl node show {node}"))
                        .into(),
                );
            };
            let follows = !lowers.is_empty() && self.above(&name, node);
            if !r.pending_only || !i.wire.pending_restart.is_empty() || follows {
                targets.insert(node.clone(), i.report.incarnation);
            }
        }
        if targets.is_empty() {
            return unchanged(self.group_revision(&name));
        }
        let names: Vec<&str> = targets.keys().map(String::as_str).collect();
        let how = if r.rolling { "one after the other" } else { "at once" };
        let text = format!("restart of {} in {name}, {how}", names.join(", "));
        if options.dry_run {
            let mut plan: Vec<String> = targets
                .keys()
                .filter(|n| record.primary.as_ref() != Some(n))
                .map(|n| format!("{n} restarted"))
                .collect();
            let primary = record.primary.as_ref().filter(|p| targets.contains_key(*p));
            if let Some(primary) = primary.filter(|_| !lowers.is_empty()) {
                let what = lowers.join(", ");
                plan.insert(
                    0,
                    format!("{primary} restarted in place, before its standbys: {what} lowered"),
                );
            } else if let Some(primary) = primary {
                plan.push(format!("switchover, then {primary} follows the new primary"));
            }
            return planned(plan, self.store.revision());
        }
        let what = DatabaseOperation::Restart {
            targets,
            rolling: r.rolling,
            lowers,
        };
        self.begin(caller, &name, what, &options, text).await
    }
}
