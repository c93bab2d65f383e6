//! What a wait on a database group looks at.

use std::collections::BTreeSet;

use ha_proto::v1::{Group, GroupPhase, Instance, InstanceState};

use crate::output::views::database::{group as view, instance};

pub(super) const GROUP: &[&str] = &[
    "healthy",
    "degraded",
    "no-primary",
    "primary",
    "steady",
    "paused",
    "whole",
    "removed",
];
pub(super) const INSTANCE: &[&str] = &[
    "primary",
    "standby",
    "eligible",
    "removed",
    "unknown",
    "empty",
    "stopped",
    "starting",
    "running",
    "closed",
    "streaming",
    "catching-up",
    "disconnected",
    "sealed",
    "promoting",
    "rewinding",
    "copying",
    "initialising",
    "stopping",
    "failed",
];

/// How a group is.
pub(super) fn group_now(group: &Group, now: i64, holds: &mut BTreeSet<&'static str>) -> String {
    let record = group.record.clone().unwrap_or_default();
    holds.insert(group.health().word());
    let steady = record.phase() == GroupPhase::Steady;
    if steady {
        holds.insert("steady");
    }
    if steady && !record.primary.is_empty() {
        holds.insert("primary");
    }
    if group.spec.as_ref().and_then(|s| s.pause.as_ref()).is_some_and(|p| p.on) {
        holds.insert("paused");
    }
    let serves = |i: &Instance| {
        let wanted = if i.wanted_primary {
            InstanceState::Running
        } else {
            InstanceState::Streaming
        };
        i.state() == wanted && instance::fresh(i, now)
    };
    if steady && !group.instances.is_empty() && group.instances.iter().all(serves) {
        holds.insert("whole");
    }
    let problem = group.problems.first().map(|p| format!("; {p}")).unwrap_or_default();
    let summary = view::summary(group, now);
    let summary = summary.split_once(": ").map_or(summary.as_str(), |(_, rest)| rest);
    format!("{}: {summary}{problem}", group.health().word())
}

/// How an instance is.
pub(super) fn instance_now(i: &Instance, now: i64, holds: &mut BTreeSet<&'static str>) -> String {
    let known = instance::fresh(i, now);
    holds.insert(if known { i.state().word() } else { "unknown" });
    // A role is reached when both sides say so.
    if known && i.wanted_primary == i.reported_primary {
        holds.insert(if i.wanted_primary { "primary" } else { "standby" });
    }
    if known && i.not_eligible.is_empty() {
        holds.insert("eligible");
    }
    let wanted = if i.wanted_primary { "primary" } else { "standby" };
    format!("wanted {wanted}, reported {}", instance::reported_text(i, now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ha_proto::v1::{GroupHealth, GroupRecord};

    fn instance(primary: bool, state: InstanceState) -> Instance {
        Instance {
            node: "n1".into(),
            wanted_primary: primary,
            reported_primary: primary,
            state: state.into(),
            reported_unix_ms: 10_000,
            ..Instance::default()
        }
    }

    fn group(phase: GroupPhase, standby: InstanceState) -> Group {
        Group {
            name: "main".into(),
            health: GroupHealth::Healthy.into(),
            record: Some(GroupRecord {
                phase: phase.into(),
                primary: "n1".into(),
                ..GroupRecord::default()
            }),
            instances: vec![instance(true, InstanceState::Running), instance(false, standby)],
            ..Group::default()
        }
    }

    #[test]
    fn a_group_is_whole_when_all_its_instances_serve() {
        let holds = |group: &Group, now: i64| {
            let mut holds = BTreeSet::new();
            group_now(group, now, &mut holds);
            holds
        };
        let whole = group(GroupPhase::Steady, InstanceState::Streaming);
        assert!(holds(&whole, 11_000).is_superset(&["whole", "primary", "steady", "healthy"].into()));
        assert!(!holds(&whole, 60_000).contains("whole"), "old reports prove nothing");
        assert!(!holds(&group(GroupPhase::Steady, InstanceState::CatchingUp), 11_000).contains("whole"));
        let switching = holds(&group(GroupPhase::Switching, InstanceState::Streaming), 11_000);
        assert!(!switching.contains("primary") && !switching.contains("steady"));
    }

    #[test]
    fn a_role_is_reached_when_both_sides_say_so() {
        let holds = |i: &Instance, now: i64| {
            let mut holds = BTreeSet::new();
            instance_now(i, now, &mut holds);
            holds
        };
        let mut promoted = instance(true, InstanceState::Running);
        assert!(holds(&promoted, 11_000).contains("primary"));
        assert!(holds(&promoted, 60_000).contains("unknown"));
        promoted.reported_primary = false;
        promoted.state = InstanceState::Promoting.into();
        let holds = holds(&promoted, 11_000);
        assert!(holds.contains("promoting") && !holds.contains("primary") && !holds.contains("standby"));
    }

    #[test]
    fn every_state_can_be_waited_for() {
        for state in (0..=15).map(|n| InstanceState::try_from(n).unwrap()) {
            assert!(INSTANCE.contains(&state.word()), "{}", state.word());
        }
    }
}
