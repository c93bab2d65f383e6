//! Parameters of a group that runs: what a reload brings, what waits for a restart and says so, and a rolling restart.

use std::collections::BTreeSet;
use std::io::Write as _;

use anyhow::{Context as _, Result, ensure};
use ha_proto::v1;

use crate::nothing_is_lost;
use crate::rig::{GROUP, Group};

pub(crate) async fn set(group: &Group, name: &str, value: &str) -> Result<()> {
    let mut admin = group.cluster.admin()?;
    let request = v1::GetConfigRequest { group: GROUP.into() };
    let mut spec = admin.get_config(request).await?.spec.context("there is no spec")?;
    spec.parameters.insert(name.to_owned(), value.to_owned());
    let request = v1::SetConfigRequest {
        group: GROUP.into(),
        spec: Some(spec),
        options: None,
    };
    admin.set_config(request).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parameters_change_by_reload_or_wait_for_a_rolling_restart() -> Result<()> {
    let group = Group::create().await?;
    let first = group.whole().await?;
    let writer = group.writer(&first);
    writer.wrote(20).await?;

    set(&group, "work_mem", "5MB").await?;
    for node in group.cluster.names() {
        group.answers(&node, "app", "SHOW work_mem", "5MB").await?;
    }
    let before = group.sql(&first, "app", "SHOW max_connections").await?;
    set(&group, "max_connections", "123").await?;
    let waits = |i: &v1::Instance| {
        let mut pending = i.pending_restart.iter();
        pending.any(|p| p.parameter == "max_connections" && p.current == before && p.wanted == "123")
    };
    group
        .until("a restart is pending everywhere", |g| g.instances.iter().all(waits))
        .await?;
    let request = v1::GetConfigRequest { group: GROUP.into() };
    let config = group.cluster.admin()?.get_config(request).await?;
    let status = config.parameters.iter().find(|p| p.name == "max_connections");
    let status = status.context("max_connections is not shown")?;
    // What is in force, and who set it.
    let in_force = |name: &str| {
        config
            .parameters
            .iter()
            .find(|p| p.name == name)
            .cloned()
            .unwrap_or_default()
    };
    for (name, value, source) in [
        ("max_connections", before.as_str(), "spec"),
        ("work_mem", "5MB", "spec"),
        ("shared_buffers", "16MB", "spec"),
        ("wal_log_hints", "on", "had"),
        ("password_encryption", "scram-sha-256", "had"),
        ("autovacuum", "on", "default"),
    ] {
        let seen = in_force(name);
        ensure!(
            (seen.value.as_str(), seen.source.as_str()) == (value, source),
            "{seen:?}"
        );
    }
    ensure!(!config.parameters.iter().any(|p| p.name == "primary_conninfo"));
    let on: BTreeSet<&String> = status.pending_on.iter().collect();
    ensure!(status.needs_restart && on.len() == 3, "{status:?}");

    let request = v1::RestartRequest {
        group: GROUP.into(),
        rolling: true,
        pending_only: true,
        ..v1::RestartRequest::default()
    };
    group.cluster.admin()?.restart(request).await?;
    group
        .until("no restart is pending", |g| {
            g.instances
                .iter()
                .all(|i| i.pending_restart.is_empty() && i.reported_unix_ms > 0)
        })
        .await?;
    group.whole().await?;
    for node in group.cluster.names() {
        group.answers(&node, "app", "SHOW max_connections", "123").await?;
    }
    writer.wrote_more(20).await?;
    nothing_is_lost(&group, writer).await?;
    Ok(())
}

/// PostgreSQL drops a reload because of one bad line in any file: protocol R5.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_line_during_a_change_of_voters_is_noticed() -> Result<()> {
    let change = |spec: &mut v1::GroupSpec| {
        spec.limits = Some(v1::GroupLimits {
            degrade_after_ms: Some(2000),
            ..v1::GroupLimits::default()
        });
    };
    let mut group = Group::create_with(Vec::new(), change).await?;
    let first = group.whole().await?;
    let writer = group.writer(&first);
    writer.wrote(20).await?;
    let names = group.sql(&first, "app", "SHOW synchronous_standby_names").await?;
    let file = group.work(&first)?.join("data/postgresql.auto.conf");
    let good = std::fs::read(&file)?;
    let mut open = std::fs::OpenOptions::new().append(true).open(&file)?;
    open.write_all(b"\nwork_mem = 'nonsense'\n")?;
    drop(open);
    let gone = group.others(&first)[0].clone();
    group.kill_node(&gone)?;
    let seen = group
        .until("somebody is told of the reload", |g| {
            let primary = g.instances.iter().find(|i| i.node == first);
            let errors = primary.map(|i| i.errors.join("\n")).unwrap_or_default();
            let voters = g.record.clone().unwrap_or_default().rules;
            let dropped = !voters.iter().any(|r| r.voters.contains(&gone));
            errors.contains("synchronous_standby_names") || errors.contains("work_mem") || dropped
        })
        .await?;
    let rules = seen.record.unwrap_or_default().rules;
    let in_force = group.sql(&first, "app", "SHOW synchronous_standby_names").await?;
    ensure!(
        rules.iter().any(|r| r.voters.contains(&gone)) || in_force != names,
        "the voter left the record, and PostgreSQL still has {names}"
    );
    std::fs::write(&file, good)?;
    group.cluster.node(&gone).start()?;
    group.whole().await?;
    writer.wrote_more(20).await?;
    nothing_is_lost(&group, writer).await?;
    Ok(())
}
