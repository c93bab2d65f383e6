//! Health and metrics.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::rig::*;
use crate::coordination::SessionState;
use crate::security::testing::{Leaf, TestCa};

async fn ask(server: &Server, request: &str) -> (u16, String) {
    let mut tcp = TcpStream::connect(server.http).await.unwrap();
    let _ = tcp
        .write_all(format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
        .await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(PATIENCE, tcp.read_to_end(&mut answer))
        .await
        .unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let code = answer.split(' ').nth(1).and_then(|c| c.parse().ok()).unwrap_or(0);
    (code, answer)
}

#[tokio::test]
async fn endpoints_say_how_the_node_is() {
    let ca = TestCa::new("prod");
    let server = Server::start(&ca, "n1").await;
    assert_eq!(ask(&server, "GET /live").await.0, 200);
    let (code, body) = ask(&server, "GET /health").await;
    assert!(code == 503 && body.contains(r#""registered":false"#), "{body}");

    let coordinator: std::sync::Arc<dyn crate::coordination::Coordinator> = std::sync::Arc::new(Dummy);
    server.tx.coordinator.send_replace(Some(coordinator));
    assert_eq!(ask(&server, "GET /health").await.0, 200);
    assert_eq!(ask(&server, "GET /ready").await.0, 503, "no master is known");
    server.lead(412);
    let (code, body) = ask(&server, "GET /ready").await;
    assert_eq!(code, 200);
    for part in [
        r#""role":"master""#,
        r#""term":412"#,
        r#""master":"n1""#,
        r#""session":"live""#,
        r#""status":"ok""#,
    ] {
        assert!(body.contains(part), "{part}: {body}");
    }
    server.tx.session.send_replace(SessionState::Suspended);
    assert_eq!(ask(&server, "GET /health").await.0, 503);

    let (code, head) = ask(&server, "HEAD /health").await;
    assert!(code == 503 && head.ends_with("\r\n\r\n"), "{head}");
    assert_eq!(ask(&server, "POST /health").await.0, 405);
    assert_eq!(ask(&server, "DELETE /metrics").await.0, 405);
    assert_eq!(ask(&server, "GET /").await.0, 503, "the check for a primary");
    assert_eq!(ask(&server, "GET /other").await.0, 404);
    assert_eq!(ask(&server, "GET /../etc/passwd").await.0, 404);
    server.end().await;
}

#[tokio::test]
async fn metrics_count_calls_by_method_and_code() {
    use ha_proto::v1;
    use ha_proto::v1::cluster_service_client::ClusterServiceClient;
    let ca = TestCa::new("prod");
    let server = Server::start(&ca, "n1").await;
    server.lead(412);
    let viewer = connect(&server, &ca, &ca.issue(&Leaf::user("vera", "viewer")));
    let mut client = ClusterServiceClient::new(viewer);
    client.get_state(v1::GetStateRequest {}).await.unwrap();
    let _ = client.set_maintenance(v1::SetMaintenanceRequest::default()).await;
    let (code, text) = ask(&server, "GET /metrics").await;
    assert_eq!(code, 200);
    for line in [
        "had_is_master 1",
        "had_term 412",
        "had_session_live 1",
        "had_lease_seconds 0.0",
        "had_denied_calls_total 1",
        r#"had_info{version="0.1.0",node="n1",cluster="prod"} 1"#,
        r#"had_grpc_calls_total{method="/ha.v1.ClusterService/GetState",code="ok"} 1"#,
        r#"had_grpc_calls_total{method="/ha.v1.ClusterService/SetMaintenance",code="permission_denied"} 1"#,
        "process_resident_memory_bytes ",
        "# EOF",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    let expiry = text
        .lines()
        .find_map(|l| l.strip_prefix("had_certificate_expiry_seconds "))
        .unwrap();
    assert!(
        (expiry.parse::<f64>().unwrap() - 365.0 * 86400.0).abs() < 60.0,
        "{expiry}"
    );
    server.end().await;
}

#[tokio::test]
async fn bad_clients_are_bounded() {
    let ca = TestCa::new("prod");
    let server = Server::start(&ca, "n1").await;
    assert_eq!(ask(&server, &format!("GET /{}", "a".repeat(20_000))).await.0 / 100, 4);
    assert_eq!(ask(&server, "\u{0}\u{1}garbage").await.0 / 100, 4);
    let many: String = (0..100).map(|i| format!("\r\nx-{i}: y")).collect();
    assert_eq!(
        ask(&server, &format!("GET /live HTTP/1.1{many}\r\nx: y")).await.0 / 100,
        4
    );
    // As many as there is room for, silent: the next is turned away, and served once they have been hung up on.
    let mut silent = Vec::new();
    for _ in 0..64 {
        let mut tcp = TcpStream::connect(server.http).await.unwrap();
        tcp.write_all(b"GET /live HTT").await.unwrap();
        silent.push(tcp);
    }
    let served = async {
        while ask(&server, "GET /live").await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, served).await.unwrap();
    server.end().await;
}

/// Stands for an open session.
struct Dummy;

#[async_trait::async_trait]
impl crate::coordination::Coordinator for Dummy {
    fn state(&self) -> tokio::sync::watch::Receiver<SessionState> {
        tokio::sync::watch::channel(SessionState::Live).1
    }
    fn lease(&self) -> tokio::sync::watch::Receiver<crate::coordination::Lease> {
        tokio::sync::watch::channel(crate::coordination::Lease::default()).1
    }
    fn session_id(&self) -> Option<i64> {
        None
    }
    async fn create(
        &self,
        path: &str,
        _: &[u8],
        _: crate::coordination::CreateMode,
    ) -> crate::coordination::Result<(String, crate::coordination::Stat)> {
        none(path)
    }
    async fn read(&self, path: &str) -> crate::coordination::Result<(Vec<u8>, crate::coordination::Stat)> {
        none(path)
    }
    async fn read_and_watch(
        &self,
        path: &str,
    ) -> crate::coordination::Result<(Option<(Vec<u8>, crate::coordination::Stat)>, crate::coordination::Watch)> {
        none(path)
    }
    async fn compare_and_set(
        &self,
        path: &str,
        _: &[u8],
        _: i32,
    ) -> crate::coordination::Result<crate::coordination::Stat> {
        none(path)
    }
    async fn delete(&self, path: &str, _: i32) -> crate::coordination::Result<()> {
        none(path)
    }
    async fn children(&self, path: &str) -> crate::coordination::Result<Vec<String>> {
        none(path)
    }
    async fn children_and_watch(
        &self,
        path: &str,
    ) -> crate::coordination::Result<(Vec<String>, crate::coordination::Watch)> {
        none(path)
    }
    async fn hold_lease(&self, path: &str) -> crate::coordination::Result<()> {
        none(path)
    }
    async fn confirm(&self) -> crate::coordination::Result<()> {
        none("")
    }
    async fn close(&self) {}
    fn abandon(&self) {}
}

fn none<T>(path: &str) -> crate::coordination::Result<T> {
    Err(crate::coordination::CoordError::NotFound(path.to_owned()))
}
