//! `cluster init`: offline, whole or not at all, never over anything.

use ha_proto::v1::Bundle;
use hactl::certificate;

use crate::program::{Machine, exists};

fn bundle(machine: &Machine, name: &str) -> Bundle {
    toml::from_str(&std::fs::read_to_string(machine.work().join(name)).unwrap()).unwrap()
}

#[test]
fn it_makes_the_authority_the_context_and_the_first_bundle() {
    let machine = Machine::bare();
    let line = "cluster init --cluster prod --zookeeper zk1,zk2:2182 --node n1=10.0.0.11 --user alice";
    let plan = machine.hactl(&format!("{line} --dry-run")).exits(0);
    insta::assert_snapshot!("init_dry_run", machine.redact(&plan.out));
    assert!(!exists(&machine.work().join("n1.bundle")) && machine.store().names().unwrap().is_empty());

    let run = machine.hactl(line).exits(0);
    let context = machine.store().select(None).unwrap();
    let said = machine
        .redact(&run.out)
        .replace(&context.bundle.cluster_id, "CLUSTER-ID");
    insta::assert_snapshot!("init", format!("{said}stderr:\n{}", run.err));

    let first = bundle(&machine, "n1.bundle");
    assert_eq!(
        (first.kind.as_str(), first.name.as_str(), first.cluster.as_str()),
        ("node", "n1", "prod")
    );
    assert_eq!(first.zookeeper, ["zk1:2181", "zk2:2182"]);
    assert_eq!(first.endpoints, ["10.0.0.11:7400"]);
    assert_eq!(first.session_timeout_ms, 4000);
    assert_eq!(first.cluster_id, context.bundle.cluster_id);
    let bootstrap = first.bootstrap.unwrap();
    assert_eq!(bootstrap.user, "alice");
    assert_eq!(
        bootstrap.node_serial,
        certificate::parse(&first.certificate).unwrap().serial
    );
    assert_eq!(
        bootstrap.user_serial,
        certificate::parse(&context.bundle.certificate).unwrap().serial
    );
    assert!(
        context.bundle.secret.is_empty() && context.bundle.zookeeper.is_empty(),
        "a user's bundle has no secret"
    );
    assert_eq!(context.authority().unwrap().cluster_id, first.cluster_id);
    #[cfg(unix)]
    for file in [
        machine.work().join("n1.bundle"),
        context.dir.join("bundle.toml"),
        context.dir.join("ca.toml"),
    ] {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(
            file.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "{}",
            file.display()
        );
    }
}

#[test]
fn it_overwrites_nothing() {
    let machine = Machine::bare();
    let line = "cluster init --zookeeper zk1 --node n1=10.0.0.11";
    std::fs::write(machine.work().join("n1.bundle"), "mine").unwrap();
    machine.hactl(line).exits(9);
    assert!(machine.store().names().unwrap().is_empty(), "nothing was made");
    std::fs::remove_file(machine.work().join("n1.bundle")).unwrap();
    machine.hactl(line).exits(0);
    let before = machine.store().load("prod").unwrap().bundle.cluster_id;
    std::fs::remove_file(machine.work().join("n1.bundle")).unwrap();
    let run = machine.hactl(line).exits(9);
    insta::assert_snapshot!("init_exists", run.err);
    assert_eq!(machine.store().load("prod").unwrap().bundle.cluster_id, before);
    machine.hactl(&format!("--context second {line}")).exits(0);
}

#[test]
fn a_bundle_that_cannot_be_written_leaves_nothing_behind() {
    let machine = Machine::bare();
    machine
        .hactl("cluster init --zookeeper zk1 --node n1=10.0.0.11 --out missing/dir")
        .exits(1);
    assert!(machine.store().names().unwrap().is_empty());
    machine
        .hactl("cluster init --zookeeper zk1 --node n1=10.0.0.11 --session-timeout 10ms")
        .exits(2);
    machine
        .hactl("cluster init --zookeeper zk1 --node n1=10.0.0.11")
        .exits(0);
}
