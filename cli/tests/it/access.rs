//! Who may: expired, not yet valid, revoked, denied, a node's bundle, no authority.

use std::time::Duration;

use ha_proto::codes;
use ha_proto::v1::{AccessRole, ErrorDetail};
use hactl::ca::Validity;

use crate::fake::{Cluster, Fault, detail};
use crate::program::Machine;

fn with_validity(machine: &Machine, validity: Validity, endpoint: &str) {
    let issued = machine
        .authority
        .issue_user_valid("alice", AccessRole::Admin, validity)
        .unwrap();
    let bundle = machine.authority.user_bundle(&issued, vec![endpoint.to_owned()]);
    machine.store().add("prod", &bundle, false).unwrap();
    machine.store().set_current("prod").unwrap();
}

#[test]
fn an_expired_certificate_is_told_before_anything_is_dialled() {
    let (cluster, machine) = (Cluster::new(), Machine::bare());
    let node = cluster.node(&machine.authority, "n1");
    let mut validity = Validity::lasting(Duration::ZERO);
    validity.not_after -= Duration::from_secs(7200);
    with_validity(&machine, validity, &node.endpoint);
    let run = machine.hactl("node list").exits(4);
    assert!(
        run.err
            .starts_with("error HA0203: the certificate of user alice has expired\n"),
        "{}",
        run.err
    );
    assert!(
        run.err.contains("2h ago") && run.err.contains("hactl user renew alice"),
        "{}",
        run.err
    );
    assert!(cluster.calls("ListNodes").is_empty());
    // Whoever keeps the authority renews himself all the same.
    machine
        .authority
        .save_new(&machine.store().authority_path("prod"))
        .unwrap();
    machine.hactl("user renew").exits(0);
    machine.hactl("node list").exits(0);
}

#[test]
fn a_certificate_of_tomorrow_is_told_too() {
    let machine = Machine::bare();
    let mut validity = Validity::default();
    validity.not_before += Duration::from_secs(48 * 3600);
    with_validity(&machine, validity, "127.0.0.1:1");
    let run = machine.hactl("node list").exits(4);
    assert!(run.err.starts_with("error HA0208: "), "{}", run.err);
}

#[test]
fn what_a_node_refuses_is_told_in_its_words() {
    let (cluster, machine) = (Cluster::new(), Machine::bare());
    let node = cluster.node(&machine.authority, "n1");
    machine.context("prod", AccessRole::Viewer, std::slice::from_ref(&node.endpoint));
    let denied = ErrorDetail {
        why: vec!["alice is viewer, this needs operator".into()],
        next: vec!["hactl user list  shows the roles".into()],
        ..detail(codes::DENIED, "not permitted: user alice may not change node n1")
    };
    cluster.fail([Fault::Detail(Box::new(denied.clone())), Fault::Code(codes::REVOKED)]);
    let run = machine.hactl("node cordon n1").exits(4);
    insta::assert_snapshot!("denied", run.err);
    assert!(machine.hactl("node list").exits(4).err.starts_with("error HA0202: "));
    cluster.fail([Fault::Detail(Box::new(denied))]);
    let run = machine.hactl("node cordon n1 -o json").exits(4);
    insta::assert_snapshot!("denied_json", run.err);
    assert!(run.out.is_empty());
}

#[test]
fn signing_needs_the_authority() {
    let (cluster, machine) = (Cluster::new(), Machine::bare());
    let node = cluster.node(&machine.authority, "n1");
    machine.context("prod", AccessRole::Admin, std::slice::from_ref(&node.endpoint));
    let run = machine.hactl("node add n9 --addr h").exits(4);
    insta::assert_snapshot!("no_authority", run.err);
    machine.hactl("user add bob --role viewer").exits(4);
    machine.hactl("node renew n1").exits(4);
    assert!(cluster.calls("AddNode").is_empty() && cluster.calls("RecordUser").is_empty());
}

/// Every code that a node can send is told with its own number, and ends with its own exit code.
#[test]
fn every_code_of_a_node() {
    let (cluster, machine) = (Cluster::new(), Machine::bare());
    let node = cluster.node(&machine.authority, "n1");
    machine.context("prod", AccessRole::Admin, std::slice::from_ref(&node.endpoint));
    let mut all = String::new();
    for code in codes::ALL {
        // Until the timeout, where trying again may help.
        cluster.script(|s| {
            s.faults.clear();
            s.faults.extend(std::iter::repeat_n(Fault::Code(*code), 100));
        });
        let run = machine.hactl("node cordon n1 --timeout 400ms");
        assert!(
            run.err.contains(&format!("error {}: ", code.id)),
            "{}: {}",
            code.id,
            run.err
        );
        assert_eq!(run.code, i32::from(code.exit), "{}", code.id);
        all.push_str(&machine.redact(&run.err.replace(&node.endpoint, "n1")));
    }
    insta::assert_snapshot!("every_code", all);
}
