//! Certificates that must open nothing: expired, revoked, of a node, of another cluster, of too low a role. Whoever is
//! refused is told why, and what can be recorded is.

use std::time::Duration;

use anyhow::{Result, ensure};
use ha_proto::v1::cluster_service_client::ClusterServiceClient;
use ha_proto::v1::{AccessRole, Bundle, Change, GetInfoRequest, GetStateRequest, ListUsersRequest, RevokeUserRequest};
use ha_tests::cluster::{Cluster, LIMIT, Options, SESSION};
use hactl::ca::{ClusterAuthority, Validity};
use tokio::time::{Instant, sleep};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::label;

async fn two() -> Result<Cluster> {
    Cluster::start(Options {
        nodes: 2,
        ..Options::default()
    })
    .await
}

/// Was valid until an hour ago.
fn past() -> Validity {
    let mut past = Validity::default();
    past.not_after = past.not_before + Duration::from_secs(3600);
    past
}

/// Dials as this bundle whatever hactl would say, and asks for the state.
async fn dial_anyway(bundle: &Bundle, endpoint: &str) -> Result<String> {
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&bundle.ca))
        .identity(Identity::from_pem(&bundle.certificate, &bundle.key))
        .domain_name(format!("had.{}", bundle.cluster));
    let endpoint = Endpoint::from_shared(format!("https://{endpoint}"))?
        .connect_timeout(Duration::from_secs(5))
        .timeout(Duration::from_secs(5))
        .tls_config(tls)?;
    let mut client = ClusterServiceClient::new(endpoint.connect_lazy());
    let answer = client.get_state(GetStateRequest {}).await;
    ensure!(answer.is_err(), "it was let in: {answer:?}");
    Ok(answer.err().map(|s| format!("{s:?}")).unwrap_or_default())
}

/// Waits until the log has an entry about a refused call that says this.
async fn recorded(cluster: &Cluster, seq: u64, words: &[&str]) -> Result<Change> {
    let begun = Instant::now();
    loop {
        let new = cluster.changes_since(seq).await?;
        let found = new.iter().find(|c| {
            let text = format!("{} {} {} {}", c.subject, c.text, c.cause, c.actor);
            c.kind == "access.denied" && words.iter().all(|w| text.contains(w))
        });
        if let Some(found) = found {
            return Ok(found.clone());
        }
        ensure!(begun.elapsed() < LIMIT, "not recorded: {new:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn an_expired_certificate_is_refused_before_and_after_dialling() -> Result<()> {
    let mut cluster = two().await?;
    let issued = cluster.authority.issue_user_valid("carol", AccessRole::Admin, past())?;
    let bundle = cluster.authority.user_bundle(&issued, cluster.endpoints());
    let refused = cluster.client_at(&bundle, cluster.endpoints(), LIMIT);
    ensure!(
        refused.as_ref().is_err_and(|e| e.to_string().contains("HA0203")),
        "{refused:?}"
    );
    for endpoint in cluster.endpoints() {
        dial_anyway(&bundle, &endpoint).await?;
    }
    // Not valid yet is another word for wrong clocks.
    let mut future = Validity::default();
    future.not_before += Duration::from_secs(86_400 * 30);
    let issued = cluster.authority.issue_user_valid("carol", AccessRole::Admin, future)?;
    let early = cluster.authority.user_bundle(&issued, cluster.endpoints());
    let refused = cluster.client_at(&early, cluster.endpoints(), LIMIT);
    ensure!(
        refused.as_ref().is_err_and(|e| e.to_string().contains("HA0208")),
        "{refused:?}"
    );

    // A node's: its daemon says so, and `had check` refuses it.
    let issued = cluster.authority.issue_node_valid("n9", past())?;
    let config = cluster.place("n9", &issued, None)?.config();
    let check = tokio::process::Command::new(&cluster.programs().had)
        .arg("--config")
        .arg(config)
        .arg("check")
        .output()
        .await?;
    let said = String::from_utf8_lossy(&check.stderr);
    ensure!(
        check.status.code() == Some(4) && said.contains("error HA0203: "),
        "{said}"
    );
    let daemon = cluster.node("n9");
    daemon.start()?;
    let begun = Instant::now();
    while !daemon.log().contains("HA0203") {
        ensure!(begun.elapsed() < LIMIT, "{}", daemon.log());
        sleep(Duration::from_millis(50)).await;
    }
    cluster.forget("n9");
    cluster.finish().await
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_at_its_next_call_on_every_node() -> Result<()> {
    let mut cluster = two().await?;
    let bundle = cluster.add_user("dave", AccessRole::Operator).await?;
    let mut clients = Vec::new();
    for endpoint in cluster.endpoints() {
        let mut client = cluster.client_at(&bundle, vec![endpoint], LIMIT)?;
        client.get_info(GetInfoRequest::default()).await?;
        clients.push(client);
    }
    let seq = cluster.revision().await?;
    let revoke = |name: &str, node| RevokeUserRequest {
        name: name.to_owned(),
        node,
        options: None,
    };
    cluster.admin()?.revoke_user(revoke("dave", false)).await?;
    for client in &mut clients {
        // Each node learns it from ZooKeeper in its own time.
        let begun = Instant::now();
        loop {
            match client.get_info(GetInfoRequest::default()).await {
                Err(e) => {
                    ensure!(e.code() == "HA0202" && e.exit() == 4, "{e:?}");
                    break;
                }
                Ok(_) => ensure!(begun.elapsed() < LIMIT, "it is not refused"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
    recorded(&cluster, seq, &["dave"]).await?;
    // Nobody locks everybody out.
    let last = cluster.admin()?.revoke_user(revoke("admin", false)).await;
    ensure!(last.as_ref().is_err_and(|e| e.code() == "HA0207"), "{last:?}");
    // Renewing is not enough, adding the user anew is.
    let again = cluster.authority.issue_user("dave", AccessRole::Operator)?;
    let mut request = ha_proto::v1::RecordUserRequest {
        name: "dave".into(),
        role: AccessRole::Operator.into(),
        serial: again.serial.clone(),
        expires_unix_ms: again.expires_unix_ms,
        renew: true,
        options: None,
    };
    let renewed = cluster.admin()?.record_user(request.clone()).await;
    ensure!(renewed.as_ref().is_err_and(|e| e.code() == "HA0206"), "{renewed:?}");
    request.renew = false;
    cluster.admin()?.record_user(request).await?;
    let again = cluster.authority.user_bundle(&again, cluster.endpoints());
    let begun = Instant::now();
    let mut client = cluster.client_at(&again, cluster.endpoints(), LIMIT)?;
    while let Err(e) = client.get_info(GetInfoRequest::default()).await {
        ensure!(begun.elapsed() < LIMIT, "{e:?}");
        sleep(Duration::from_millis(50)).await;
    }
    cluster.finish().await
}

#[tokio::test]
async fn a_nodes_certificate_is_no_operators() -> Result<()> {
    let cluster = two().await?;
    let seq = cluster.revision().await?;
    let node = hactl::bundle::read(&cluster.daemons[1].bundle(), hactl::bundle::Kind::Node)?;
    let disguised = Bundle {
        kind: "user".into(),
        endpoints: cluster.endpoints(),
        ..node.clone()
    };
    // hactl sees it in the certificate; a program that does not look is told by the server.
    let store = tempfile::tempdir()?;
    let refused = hactl::context::Store::at(store.path()).add("stolen", &node, false);
    ensure!(refused.as_ref().is_err_and(|e| e.code() == "HA0005"), "{refused:?}");
    for endpoint in cluster.endpoints() {
        let said = dial_anyway(&disguised, &endpoint).await?;
        ensure!(
            said.contains("PermissionDenied") || said.contains("not permitted"),
            "{said}"
        );
    }
    recorded(&cluster, seq, &["node/n2"]).await?;
    cluster.finish().await
}

#[tokio::test]
async fn a_role_that_is_too_low_is_refused_and_recorded() -> Result<()> {
    let mut cluster = two().await?;
    let mut viewer = cluster.client(AccessRole::Viewer).await?;
    let mut operator = cluster.client(AccessRole::Operator).await?;
    let seq = cluster.revision().await?;
    viewer.get_state(GetStateRequest {}).await?;
    let request = ha_proto::v1::UpdateNodeRequest {
        name: "n1".into(),
        cordoned: Some(true),
        ..Default::default()
    };
    let refused = viewer.update_node(request.clone()).await;
    ensure!(
        refused.as_ref().is_err_and(|e| e.code() == "HA0201" && e.exit() == 4),
        "{refused:?}"
    );
    let refused = operator.list_users(ListUsersRequest {}).await;
    ensure!(
        refused.is_ok() || refused.as_ref().is_err_and(|e| e.code() == "HA0201"),
        "{refused:?}"
    );
    operator.update_node(request).await?;
    let issued = cluster.authority.issue_user("eve", AccessRole::Admin)?;
    let refused = operator
        .record_user(ha_proto::v1::RecordUserRequest {
            name: "eve".into(),
            role: AccessRole::Admin.into(),
            serial: issued.serial.clone(),
            expires_unix_ms: issued.expires_unix_ms,
            ..Default::default()
        })
        .await;
    ensure!(refused.as_ref().is_err_and(|e| e.code() == "HA0201"), "{refused:?}");
    recorded(&cluster, seq, &["viewer"]).await?;
    recorded(&cluster, seq, &["operator"]).await?;
    let uncordon = ha_proto::v1::UpdateNodeRequest {
        name: "n1".into(),
        cordoned: Some(false),
        ..Default::default()
    };
    operator.update_node(uncordon).await?;
    cluster.finish().await
}

#[tokio::test]
async fn another_clusters_certificate_opens_nothing() -> Result<()> {
    let cluster = two().await?;
    let other = ClusterAuthority::create("test", &cluster.zookeeper.hosts(), SESSION)?;
    let issued = other.issue_user("mallory", AccessRole::Admin)?;
    let mut bundle = other.user_bundle(&issued, cluster.endpoints());
    // The client does not trust the nodes.
    let refused = cluster
        .client_at(&bundle, cluster.endpoints(), LIMIT)?
        .get_state(GetStateRequest {})
        .await;
    ensure!(refused.as_ref().is_err_and(|e| e.code() == "HA0106"), "{refused:?}");
    // The nodes do not trust a client that does.
    bundle.ca.clone_from(&cluster.authority.ca);
    for endpoint in cluster.endpoints() {
        dial_anyway(&bundle, &endpoint).await?;
    }
    label(&cluster, "n1", "undisturbed").await?;
    cluster.finish().await
}
