//! What the authority puts into certificates, and what it refuses to sign.

use super::*;
use crate::certificate;

fn authority() -> ClusterAuthority {
    ClusterAuthority::create("prod", &["zk1".into()], DEFAULT_SESSION_TIMEOUT).unwrap()
}

#[test]
fn a_nodes_certificate_has_its_names_and_its_serial() {
    let ca = authority();
    assert_eq!(ca.zookeeper, ["zk1:2181"]);
    let issued = ca.issue_node("n1").unwrap();
    let info = certificate::parse(&issued.certificate).unwrap();
    assert_eq!(info.uri, format!("ha://{}/node/n1", ca.cluster_id));
    assert_eq!(info.dns, ["had.prod", "n1.had.prod"]);
    assert_eq!(info.serial, issued.serial);
    assert_eq!(issued.serial.len(), 32);
    assert_eq!(info.not_after_ms, issued.expires_unix_ms);
    assert!(info.not_before_ms < names::now_ms() - 23 * 3_600_000);
    let issue_ms = i64::from_str_radix(&issued.serial[..12], 16).unwrap();
    assert!((names::now_ms() - issue_ms).abs() < 60_000);
}

#[test]
fn a_users_certificate_has_its_role_and_no_server_name() {
    let ca = authority();
    let issued = ca.issue_user("alice", AccessRole::Viewer).unwrap();
    let info = certificate::parse(&issued.certificate).unwrap();
    assert_eq!(info.uri, format!("ha://{}/user/alice/viewer", ca.cluster_id));
    assert!(info.dns.is_empty());
    // What PostgreSQL tells a node by, whatever the user is called.
    let common = |pem: &str| {
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        let certificate = pem.parse_x509().unwrap();
        let name = certificate.subject().iter_common_name().next().unwrap();
        name.as_str().unwrap().to_owned()
    };
    assert_eq!(common(&ca.issue_node("n1").unwrap().certificate), "node:n1");
    assert_eq!(
        common(&ca.issue_user("node-n1", AccessRole::Admin).unwrap().certificate),
        "node-n1"
    );
    assert!(ca.issue_user("node:n1", AccessRole::Admin).is_err());
    assert!(ca.issue_user("Alice", AccessRole::Viewer).is_err());
    assert!(ca.issue_user("alice", AccessRole::Unspecified).is_err());
}

#[test]
fn a_request_gets_our_names_never_its_own() {
    let ca = authority();
    let key = new_key().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(
        format!("ha://{}/user/root/admin", ca.cluster_id).try_into().unwrap(),
    )];
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    let issued = ca.sign_node_request("n1", &csr, Validity::default()).unwrap();
    let info = certificate::parse(&issued.certificate).unwrap();
    assert_eq!(info.uri, format!("ha://{}/node/n1", ca.cluster_id));
    assert!(issued.key.is_empty());
}

#[test]
fn a_request_with_another_kind_of_key_or_a_broken_signature_is_refused() {
    let ca = authority();
    for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let csr = CertificateParams::default()
            .serialize_request(&key)
            .unwrap()
            .pem()
            .unwrap();
        assert!(
            ca.sign_node_request("n1", &csr, Validity::default())
                .unwrap_err()
                .is(codes::BAD_VALUE)
        );
    }
    assert!(
        ca.sign_node_request("n1", "rubbish", Validity::default())
            .unwrap_err()
            .is(codes::BAD_VALUE)
    );
    let key = new_key().unwrap();
    let mut der = CertificateParams::default()
        .serialize_request(&key)
        .unwrap()
        .der()
        .to_vec();
    let last = der.len() - 1;
    der[last] ^= 1;
    let pem = format!(
        "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
        base64::engine::general_purpose::STANDARD.encode(der)
    );
    assert!(
        ca.sign_node_request("n1", &pem, Validity::default())
            .unwrap_err()
            .is(codes::BAD_VALUE)
    );
}

#[test]
fn it_survives_its_file() {
    let ca = authority();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.toml");
    ca.save_new(&path).unwrap();
    let again = ClusterAuthority::load(&path).unwrap();
    assert_eq!(again.cluster_id, ca.cluster_id);
    assert!(ca.save_new(&path).unwrap_err().is(codes::EXISTS_LOCALLY));
    std::fs::write(&path, "version = 1\n").unwrap();
    assert!(ClusterAuthority::load(&path).unwrap_err().is(codes::BAD_BUNDLE));
}

#[test]
fn nothing_secret_is_in_its_debug_form() {
    let text = format!("{:?}", authority());
    assert!(!text.contains("PRIVATE") && !text.contains("secret"));
}
