//! What operators ask for.

use ha_proto::v1;

use super::rig::{Rig, create, record};
use crate::error::ApiError;
use crate::master::databases::{GroupChange, Question};

fn options(dry_run: bool) -> Option<v1::ChangeOptions> {
    Some(v1::ChangeOptions {
        dry_run,
        ..v1::ChangeOptions::default()
    })
}

fn switchover(to: &str, dry_run: bool) -> GroupChange {
    GroupChange::Switchover(v1::SwitchoverRequest {
        to: to.to_owned(),
        options: options(dry_run),
        ..v1::SwitchoverRequest::default()
    })
}

fn code(result: Result<v1::ChangeResult, ApiError>) -> &'static str {
    result.unwrap_err().code.id
}

async fn group(nodes: &[&str]) -> (Rig, String, Vec<String>) {
    let rig = Rig::new(nodes).await;
    rig.create(nodes).await;
    let first = rig.group().await.record.unwrap().primary;
    rig.steady(&first).await;
    let others = nodes.iter().filter(|n| **n != first).map(|n| (*n).to_owned()).collect();
    (rig, first, others)
}

#[tokio::test(start_paused = true)]
async fn a_switchover_is_planned_made_and_told() {
    let (rig, first, others) = group(&["n1", "n2", "n3"]).await;
    let to = &others[0];
    let plan = rig.change(switchover(to, true)).await.unwrap().plan;
    assert!(
        plan.iter().any(|l| l.contains(&format!("{to} becomes primary"))),
        "{plan:?}"
    );
    assert_eq!(
        record(&rig.zookeeper, "main").unwrap().0.epoch,
        1,
        "a plan changes nothing"
    );
    assert!(!rig.change(switchover(&first, false)).await.unwrap().changed);
    assert_eq!(code(rig.change(switchover("n9", false)).await), "HA0403");

    rig.pg(&first, |pg| pg.stuck = true);
    let result = rig.change(switchover(to, false)).await.unwrap();
    assert_eq!(code(rig.change(switchover(&others[1], false)).await), "HA0408");
    rig.pg(&first, |pg| pg.stuck = false);
    let op = rig.succeeded(&result.operation_id).await;
    assert!(op.result.starts_with("writes paused for "), "{op:#?}");
    let steps: Vec<&str> = op.steps.iter().map(|s| s.text.as_str()).collect();
    for part in [
        "checkpoint on ",
        "switching from ",
        " stopped at ",
        "is primary of epoch 2",
    ] {
        assert!(steps.iter().any(|s| s.contains(part)), "{part}: {steps:?}");
    }
    let group = rig.steady(to).await;
    assert_eq!(group.last_change.unwrap().kind(), v1::PrimaryChange::Switchover);
    assert!(rig.pg(&first, |pg| pg.checkpoints) > 0);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_take_over_is_refused_with_the_reason() {
    let (rig, first, others) = group(&["n1", "n2", "n3"]).await;
    let far = &others[0];
    // It stands still while the primary writes.
    rig.pg(far, |pg| pg.stuck = true);
    rig.pg(&first, |pg| pg.write(48 << 20));
    let at = |g: &v1::Group, node: &str, bytes| {
        g.instances
            .iter()
            .any(|i| i.node == node && i.behind_bytes == Some(bytes))
    };
    let behind = |g: &v1::Group| at(g, far, 48 << 20) && at(g, &others[1], 0);
    rig.until("one is behind, the other is not", |s| s.databases.iter().any(behind))
        .await;
    let e = rig.change(switchover(far, false)).await.unwrap_err();
    assert_eq!(e.code.id, "HA0412");
    assert!(e.message.contains("48 MiB behind, the limit is 16 MiB"), "{e}");
    assert!(
        e.next.iter().any(|n| n.contains(&format!("--to {}", others[1]))),
        "{e:?}"
    );
    let explained = rig
        .master()
        .await
        .question(|reply| Question::Explain(v1::ExplainRequest::default(), reply))
        .await
        .unwrap();
    assert_eq!(explained.instances.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_paused_group_does_nothing_by_itself_until_its_time_is_over() {
    let (rig, first, _) = group(&["n1", "n2", "n3"]).await;
    let now = rig.state().await.observed_unix_ms;
    let pause = |on: bool, until_unix_ms| {
        GroupChange::Pause(v1::PauseRequest {
            on,
            until_unix_ms,
            ..v1::PauseRequest::default()
        })
    };
    assert_eq!(code(rig.change(pause(true, now - 1)).await), "HA0009");
    assert!(rig.change(pause(true, now + 20_000)).await.unwrap().changed);
    assert!(!rig.change(pause(true, now + 20_000)).await.unwrap().changed);
    rig.until("the pause is told", |s| {
        s.alerts.iter().any(|a| a.id == "db/main/pause")
    })
    .await;
    rig.kill_postgres(&first);
    let state = rig
        .until("the hold is explained", |s| {
            s.databases
                .iter()
                .any(|g| g.why_no_failover.iter().any(|w| w.contains("the group is paused")))
        })
        .await;
    assert_eq!(state.databases[0].record.as_ref().unwrap().epoch, 1);
    rig.until("it is in the change log", |s| {
        s.recent_changes.iter().any(|c| c.kind == "db.held")
    })
    .await;
    let state = rig
        .until("a failover after the pause", |s| {
            let r = s.databases[0].record.as_ref().unwrap();
            r.epoch == 2 && r.phase() == v1::GroupPhase::Steady
        })
        .await;
    assert!(state.observed_unix_ms >= now + 20_000);
    rig.until("its end is told", |s| {
        s.recent_changes.iter().any(|c| c.kind == "db.resumed")
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn instances_are_copied_restarted_and_assigned() {
    let (rig, first, others) = group(&["n1", "n2", "n3"]).await;
    let reinit = |node: &str| {
        GroupChange::Reinit(v1::ReinitRequest {
            node: node.to_owned(),
            ..v1::ReinitRequest::default()
        })
    };
    assert_eq!(code(rig.change(reinit(&first)).await), "HA0410");
    assert_eq!(code(rig.change(reinit("n9")).await), "HA0403");
    let result = rig.change(reinit(&others[0])).await.unwrap();
    rig.succeeded(&result.operation_id).await;
    assert!(rig.pg(&others[0], |pg| pg.copied) > 0);

    let before: Vec<u64> = ["n1", "n2", "n3"]
        .map(|n| rig.pg(n, |pg| pg.report.incarnation))
        .to_vec();
    let restart = GroupChange::Restart(v1::RestartRequest {
        rolling: true,
        ..v1::RestartRequest::default()
    });
    let result = rig.change(restart).await.unwrap();
    rig.succeeded(&result.operation_id).await;
    for (node, old) in ["n1", "n2", "n3"].iter().zip(before) {
        assert!(rig.pg(node, |pg| pg.report.incarnation) > old, "{node}");
    }

    let assign = |node: &str, role: v1::InstanceRole| {
        GroupChange::Assign(v1::AssignInstanceRequest {
            node: node.to_owned(),
            role: role.into(),
            ..v1::AssignInstanceRequest::default()
        })
    };
    let result = rig.change(assign(&first, v1::InstanceRole::Primary)).await.unwrap();
    rig.succeeded(&result.operation_id).await;
    rig.steady(&first).await;
    assert_eq!(code(rig.change(assign(&first, v1::InstanceRole::None)).await), "HA0410");
    let result = rig.change(assign(&others[1], v1::InstanceRole::None)).await.unwrap();
    rig.succeeded(&result.operation_id).await;
    assert_eq!(rig.group().await.instances.len(), 2);
    assert!(
        !rig.change(assign(&others[1], v1::InstanceRole::None))
            .await
            .unwrap()
            .changed
    );
}

/// A group on n2, n3 and n4 whose master, n1, has none of it.
async fn led_from_outside() -> (Rig, String) {
    let rig = Rig::new(&["n1", "n2", "n3", "n4"]).await;
    rig.create(&["n2", "n3", "n4"]).await;
    let first = rig.group().await.record.unwrap().primary;
    rig.steady(&first).await;
    (rig, first)
}

async fn said(rig: &Rig, id: &str, parts: &[&str]) -> Vec<String> {
    for _ in 0..600 {
        let steps: Vec<String> = rig.operation(id).await.steps.into_iter().map(|s| s.text).collect();
        if parts.iter().all(|p| steps.iter().any(|s| s.contains(p))) {
            return steps;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("{parts:?}: {:#?}", rig.operation(id).await);
}

#[tokio::test(start_paused = true)]
async fn the_next_master_goes_on_with_an_operation_and_has_its_steps() {
    let (mut rig, first) = led_from_outside().await;
    let standbys: Vec<String> = ["n2", "n3", "n4"]
        .into_iter()
        .filter(|n| *n != first)
        .map(|n| format!("{n} restarted"))
        .collect();
    // The primary stands still: it is left for the next master.
    rig.pg(&first, |pg| pg.stuck = true);
    let restart = GroupChange::Restart(v1::RestartRequest {
        rolling: true,
        ..v1::RestartRequest::default()
    });
    let id = rig.change(restart).await.unwrap().operation_id;
    let both: Vec<&str> = standbys.iter().map(String::as_str).collect();
    let before = said(&rig, &id, &[&both[..], &["switching from "]].concat()).await;
    rig.kill_daemon("n1");
    rig.pg(&first, |pg| pg.stuck = false);
    let op = rig.succeeded(&id).await;
    let after: Vec<String> = op.steps.into_iter().map(|s| s.text).collect();
    for step in &before {
        let count = after.iter().filter(|s| *s == step).count();
        assert_eq!(count, 1, "{step}: {after:#?}");
    }
    let of = |part: &str| after.iter().position(|s| s.contains(part));
    assert!(of("switching from ") < of("is primary of epoch 2"), "{after:#?}");
    assert!(of("is primary of epoch 2").is_some() && of(&format!("{first} restarted")).is_some());
}

#[tokio::test(start_paused = true)]
async fn what_happened_before_an_operation_is_no_step_of_it() {
    let (mut rig, first) = led_from_outside().await;
    let to = if first == "n2" { "n3" } else { "n2" };
    rig.pg(&first, |pg| pg.stuck = true);
    let id = rig.change(switchover(to, false)).await.unwrap().operation_id;
    let before = said(&rig, &id, &["checkpoint on ", "switching from "]).await;
    rig.kill_daemon("n1");
    rig.pg(&first, |pg| pg.stuck = false);
    let op = rig.succeeded(&id).await;
    let after: Vec<String> = op.steps.into_iter().map(|s| s.text).collect();
    assert!(before.iter().all(|s| after.contains(s)), "{before:#?}\n{after:#?}");
    assert!(after.iter().any(|s| s.contains("is primary of epoch 2")), "{after:#?}");
    assert!(
        !after
            .iter()
            .any(|s| s.contains("epoch 1") || s.contains("first primary")),
        "{after:#?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_configuration_is_compared_checked_and_kept() {
    let (rig, ..) = group(&["n1", "n2"]).await;
    let ask = async || {
        let master = rig.master().await;
        let question = |reply| Question::Config(v1::GetConfigRequest::default(), reply);
        master.question(question).await.unwrap()
    };
    let set = |config: &v1::GroupConfig, spec: v1::GroupSpec| {
        GroupChange::SetConfig(v1::SetConfigRequest {
            spec: Some(spec),
            options: Some(v1::ChangeOptions {
                revision: config.revision,
                ..v1::ChangeOptions::default()
            }),
            ..v1::SetConfigRequest::default()
        })
    };
    let old = ask().await;
    let mut spec = old.spec.clone().unwrap();
    spec.parameters.insert("work_mem".into(), "8MB".into());
    spec.roles.push(v1::DatabaseRoleSpec {
        name: "app".into(),
        verifier: "SCRAM-SHA-256$4096:c2FsdA==$c3RvcmVk:c2VydmVy".into(),
        has_password: true,
        ..v1::DatabaseRoleSpec::default()
    });
    assert!(rig.change(set(&old, spec.clone())).await.unwrap().changed);
    assert_eq!(
        code(rig.change(set(&old, spec)).await),
        "HA0305",
        "the revision is another by now"
    );
    let new = ask().await;
    let mut spec = new.spec.clone().unwrap();
    assert!(
        spec.roles[0].verifier.is_empty() && spec.roles[0].has_password,
        "a verifier is never answered"
    );
    assert_eq!(new.parameters[0].name, "work_mem");
    assert!(
        !rig.change(set(&new, spec.clone())).await.unwrap().changed,
        "what is left out of a role stays"
    );
    let stored = String::from_utf8(rig.zookeeper.dump()["/db/main/spec"].0.clone()).unwrap();
    assert!(stored.contains("c3RvcmVk:c2VydmVy"));
    assert!(
        !rig.story().await.iter().any(|(_, text)| text.contains("SCRAM")),
        "nor told"
    );
    spec.parameters.insert("fsync".into(), "off".into());
    assert_eq!(code(rig.change(set(&new, spec.clone())).await), "HA0406");
    spec.parameters.remove("fsync");
    spec.roles[0].verifier = "secret".into();
    assert_eq!(code(rig.change(set(&new, spec)).await), "HA0405");
}

#[tokio::test(start_paused = true)]
async fn every_group_has_ports_of_its_own() {
    let (rig, ..) = group(&["n1", "n2"]).await;
    let other = |port: u32, proxy: Option<v1::GroupProxy>| {
        let mut request = create(&["n1", "n2"]);
        request.name = "other".into();
        let spec = request.spec.as_mut().unwrap();
        (spec.port, spec.proxy) = (port, proxy);
        GroupChange::Create(request)
    };
    let ports = |port, standby_port| {
        Some(v1::GroupProxy {
            port,
            standby_port,
            ..v1::GroupProxy::default()
        })
    };
    for (port, proxy) in [
        (5432, None),
        (5433, ports(Some(5001), None)),
        (5433, ports(None, Some(5432))),
        (5433, ports(Some(7400), None)),
        (5000, None),
    ] {
        assert_eq!(code(rig.change(other(port, proxy)).await), "HA0428", "{port} {proxy:?}");
    }
    rig.change(other(5433, ports(None, Some(0)))).await.unwrap();
    let ask = async |group: &str| {
        let request = v1::GetConfigRequest { group: group.into() };
        let master = rig.master().await;
        let config = master.question(|reply| Question::Config(request, reply)).await.unwrap();
        config.spec.unwrap()
    };
    let given = ask("other").await.proxy.unwrap();
    assert_eq!(
        (given.port, given.standby_port),
        (Some(5002), Some(0)),
        "one was chosen"
    );
    let set = |group: &str, spec: v1::GroupSpec| {
        GroupChange::SetConfig(v1::SetConfigRequest {
            group: group.into(),
            spec: Some(spec),
            ..v1::SetConfigRequest::default()
        })
    };
    // What a change leaves out stays as it is; what it gives must be free.
    let mut spec = ask("other").await;
    spec.proxy = None;
    assert!(!rig.change(set("other", spec.clone())).await.unwrap().changed);
    spec.proxy = ports(Some(5000), None);
    assert_eq!(code(rig.change(set("other", spec.clone())).await), "HA0428");
    spec.proxy = ports(Some(6000), Some(6001));
    assert!(rig.change(set("other", spec.clone())).await.unwrap().changed);
    let now = ask("other").await.proxy.unwrap();
    assert_eq!((now.port, now.standby_port), (Some(6000), Some(6001)));
    spec.proxy = ports(Some(6000), Some(6000));
    assert_eq!(code(rig.change(set("other", spec)).await), "HA0405");
}

#[tokio::test(start_paused = true)]
async fn a_group_is_removed_by_name_and_may_come_back() {
    let (rig, first, _) = group(&["n1", "n2"]).await;
    let remove = |confirm: &str| {
        GroupChange::Remove(v1::RemoveGroupRequest {
            name: "main".into(),
            confirm: confirm.into(),
            ..v1::RemoveGroupRequest::default()
        })
    };
    assert_eq!(code(rig.change(GroupChange::Create(create(&["n1"]))).await), "HA0402");
    assert_eq!(code(rig.change(remove("other")).await), "HA0423");
    assert!(rig.change(remove("main")).await.unwrap().changed);
    rig.until("it is shown no more", |s| s.databases.is_empty()).await;
    assert!(!rig.change(remove("main")).await.unwrap().changed);
    assert_eq!(code(rig.change(switchover(&first, false)).await), "HA0427");
    let epoch = record(&rig.zookeeper, "main").unwrap().0.epoch;
    let mut again = create(&["n1", "n2"]);
    again.spec.as_mut().unwrap().members[0].role = v1::InstanceRole::Primary.into();
    rig.change(GroupChange::Create(again)).await.unwrap();
    assert!(
        record(&rig.zookeeper, "main").unwrap().0.epoch >= epoch,
        "epochs only grow"
    );
}
