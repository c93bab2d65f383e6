//! Hostile bytes in stored values: shown as damaged, left as they are, and nobody else disturbed.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use controlplane::coordination::{Connector, Coordinator, ZooKeeperConnector, ZooKeeperOptions};
use controlplane::platform::SystemClock;
use controlplane::security::{ClusterSecret, keys};
use ha_proto::v1::{
    AccessRole, ClusterState, NodeState, RecordUserRequest, SetMaintenanceRequest, TransferMasterRequest,
};
use ha_tests::cluster::{Cluster, Options, SESSION, is, master_of, term_of};

use crate::label;

/// Bytes that are no JSON, no UTF-8, and no friend of a terminal.
const HOSTILE: &[u8] = b"\xff\xfe\x00{\x1b[2J\x1b]0;owned\x07\"v\": ";
/// JSON, of a version that nobody can know.
const NEWER: &[u8] = b"{\"v\":4294967295,\"term\":18446744073709551615,\"value\":{}}";

/// What no master can have written: its term has not begun.
const FUTURE: &[u8] = b"{\"v\":1,\"term\":18446744073709551615,\"write\":\"\",\"value\":null}";

/// Somebody with the cluster secret and no manners.
async fn intruder(cluster: &Cluster) -> Result<Arc<dyn Coordinator>> {
    let secret = ClusterSecret::from_base64(&cluster.authority.secret).context("no secret")?;
    let options = ZooKeeperOptions {
        hosts: cluster.zookeeper.hosts(),
        root: "/ha/test".into(),
        session_timeout: SESSION,
        digest_user: keys::ZOOKEEPER_USER.into(),
        digest_password: keys::zookeeper_password(&secret).expose().clone(),
    };
    Ok(ZooKeeperConnector::new(options, Arc::new(SystemClock))
        .connect()
        .await?)
}

/// Overwrites a value and returns what was there.
async fn overwrite(c: &dyn Coordinator, path: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    loop {
        let (old, stat) = c.read(path).await?;
        // Whoever writes it at the same time may win.
        if c.compare_and_set(path, bytes, stat.version).await.is_ok() {
            return Ok(old);
        }
    }
}

/// Makes another master, which reads everything anew.
async fn another_master(cluster: &Cluster) -> Result<ClusterState> {
    let before = cluster
        .wait_until("there is a master", |s| !master_of(s).is_empty())
        .await?;
    cluster
        .admin()?
        .transfer_master(TransferMasterRequest::default())
        .await?;
    cluster
        .wait_until("mastership has moved", |s| {
            term_of(s) > term_of(&before) && !master_of(s).is_empty()
        })
        .await
}

fn conditions(state: &ClusterState, name: &str) -> String {
    let node = state.nodes.iter().find(|n| n.name == name);
    let status = node.and_then(|n| n.status.clone()).unwrap_or_default();
    status.conditions.join("\n") + &status.reason
}

fn clean(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() && c != '\n')
}

#[tokio::test]
async fn a_nodes_damaged_values_are_shown_and_the_other_nodes_go_on() -> Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    let c = intruder(&cluster).await?;
    let node = cluster.members().await?.remove(0);
    let others: Vec<String> = cluster.names().into_iter().filter(|n| *n != node).collect();
    let seq = cluster.revision().await?;
    let (record, assignment) = (format!("/nodes/{node}"), format!("/assignments/{node}"));
    let old_record = overwrite(&*c, &record, HOSTILE).await?;
    let old_assignment = overwrite(&*c, &assignment, FUTURE).await?;
    // Every daemon but the master reads it when it changes; the next master does, whoever it is.
    let refused = label(&cluster, &node, "x").await;
    let told = format!("{refused:?}");
    ensure!(refused.is_err() && told.contains(&record) && clean(&told), "{told}");
    let state = cluster
        .wait_until("it is shown as damaged", |s| conditions(s, &node).contains("damaged"))
        .await?;
    let shown = conditions(&state, &node);
    ensure!(
        shown.contains(&record) && shown.contains(&assignment) && clean(&shown),
        "{shown}"
    );
    ensure!(
        state
            .alerts
            .iter()
            .any(|a| a.id.starts_with("damaged/") && a.text.contains(&record) && clean(&a.text)),
        "{:?}",
        state.alerts
    );
    for other in &others {
        ensure!(is(&state, other, NodeState::Online));
        label(&cluster, other, "goes-on").await?;
    }
    let (found, _) = c.read(&record).await?;
    ensure!(found == HOSTILE, "it is left as it is");
    for change in cluster.changes_since(seq).await? {
        let undisturbed = others.iter().all(|o| change.subject != format!("node/{o}")) || change.kind == "node.changed";
        ensure!(undisturbed, "{change:?}");
    }
    // Mended by a person, and read by the next master.
    overwrite(&*c, &record, &old_record).await?;
    overwrite(&*c, &assignment, &old_assignment).await?;
    another_master(&cluster).await?;
    let state = cluster.healthy().await?;
    ensure!(!conditions(&state, &node).contains("damaged"));
    label(&cluster, &node, "mended").await?;
    cluster.finish().await
}

#[tokio::test]
async fn a_damaged_registration_is_replaced_by_its_daemon() -> Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    let c = intruder(&cluster).await?;
    let before = cluster.healthy().await?;
    let node = cluster.members().await?.remove(0);
    let path = format!("/members/{node}");
    overwrite(&*c, &path, HOSTILE).await?;
    let (mine, _) = c.read(&path).await?;
    ensure!(mine == HOSTILE);
    // The session of the daemon that finds it damaged has to end first.
    loop {
        match c.read_and_watch(&path).await? {
            (Some((bytes, _)), _) if bytes.starts_with(b"{") => break,
            (_, watch) => watch.fired().await,
        }
    }
    let after = cluster.healthy().await?;
    ensure!(term_of(&after) == term_of(&before), "the master was disturbed");
    cluster.finish().await
}

#[tokio::test]
async fn damaged_records_of_the_cluster_refuse_changes_and_lose_nothing() -> Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    let c = intruder(&cluster).await?;
    let old_cluster = overwrite(&*c, "/cluster", HOSTILE).await?;
    let old_access = overwrite(&*c, "/access", NEWER).await?;
    another_master(&cluster).await?;
    let maintenance = SetMaintenanceRequest {
        on: true,
        ..SetMaintenanceRequest::default()
    };
    let refused = cluster.admin()?.set_maintenance(maintenance).await;
    ensure!(refused.as_ref().is_err_and(|e| e.code() == "HA0810"), "{refused:?}");
    let issued = cluster.authority.issue_user("bob", AccessRole::Viewer)?;
    let record = RecordUserRequest {
        name: "bob".into(),
        role: AccessRole::Viewer.into(),
        serial: issued.serial.clone(),
        expires_unix_ms: issued.expires_unix_ms,
        ..RecordUserRequest::default()
    };
    let refused = cluster.admin()?.record_user(record.clone()).await;
    ensure!(refused.as_ref().is_err_and(|e| e.code() == "HA0810"), "{refused:?}");
    // Nodes and mastership go on.
    label(&cluster, "n1", "goes-on").await?;
    let state = cluster.healthy().await?;
    for path in ["/cluster", "/access"] {
        ensure!(
            state.alerts.iter().any(|a| a.text.contains(path)),
            "{path}: {:?}",
            state.alerts
        );
    }
    overwrite(&*c, "/cluster", &old_cluster).await?;
    overwrite(&*c, "/access", &old_access).await?;
    another_master(&cluster).await?;
    cluster.admin()?.record_user(record).await?;
    cluster.finish().await
}

#[tokio::test]
async fn a_damaged_master_record_stops_elections_until_it_is_mended() -> Result<()> {
    let mut cluster = Cluster::start(Options::default()).await?;
    let c = intruder(&cluster).await?;
    let before = cluster.healthy().await?;
    let master = master_of(&before).to_owned();
    let old = overwrite(&*c, "/master", HOSTILE).await?;
    // Who leads goes on to lead.
    label(&cluster, "n1", "still").await?;
    overwrite(&*c, "/master", &old).await?;
    label(&cluster, "n1", "as-before").await?;
    ensure!(term_of(&cluster.healthy().await?) == term_of(&before));
    // When it is gone nobody follows it blindly.
    overwrite(&*c, "/master", HOSTILE).await?;
    cluster.node(&master).kill9();
    tokio::time::sleep(crate::PAST_THE_SESSION).await;
    let mut client = cluster.client_at(
        &cluster.bundle("admin")?,
        cluster.endpoints(),
        std::time::Duration::from_secs(3),
    )?;
    let none = client.get_state(Default::default()).await;
    ensure!(none.as_ref().is_err_and(|e| e.code() == "HA0102"), "{none:?}");
    overwrite(&*c, "/master", &old).await?;
    cluster
        .wait_until("another leads", |s| {
            term_of(s) > term_of(&before) && master_of(s) != master
        })
        .await?;
    cluster.node(&master).start()?;
    cluster.finish().await
}

#[tokio::test]
async fn a_damaged_entry_of_the_change_log_is_told_as_a_gap() -> Result<()> {
    let cluster = Cluster::start(Options::default()).await?;
    let c = intruder(&cluster).await?;
    cluster.assert_subscribers().await?;
    let old = overwrite(&*c, "/changes/c-000000000002", HOSTILE).await?;
    another_master(&cluster).await?;
    let log = cluster.changes().await?;
    ensure!(log[1].seq == 2 && log[1].kind == "log.gap", "{:?}", log[1]);
    ensure!(log.iter().zip(1..).all(|(change, seq)| change.seq == seq), "{log:?}");
    overwrite(&*c, "/changes/c-000000000002", &old).await?;
    another_master(&cluster).await?;
    cluster.finish().await
}
