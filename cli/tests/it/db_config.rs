//! `hactl db config`: what is sent for what was typed, and that nothing typed is lost.

use ha_proto::codes;
use ha_proto::v1::ChangeResult;

use crate::db::setup;
use crate::fake::Fault;
use crate::program::{Machine, exists};

#[test]
fn a_dry_run_changes_nothing_and_says_what_would() {
    let (cluster, machine, _node) = setup();
    cluster.script(|s| {
        s.results.push_back(ChangeResult {
            changed: true,
            plan: vec!["reload n1, n2, n3".into()],
            ..ChangeResult::default()
        });
    });
    let run = machine.hactl("db config set work_mem=1GB --dry-run").exits(0);
    insta::assert_snapshot!(run.out);
    let call = cluster.calls("SetConfig").remove(0);
    assert!(
        call.request.contains("dry_run: true") && call.request.contains("revision: 31"),
        "{}",
        call.request
    );
}

#[test]
fn a_password_never_leaves_this_machine() {
    let (cluster, machine, _node) = setup();
    std::fs::write(machine.work().join("pw"), "s3cret\n").unwrap();
    machine
        .hactl("db create x --node n1 --role app --password-file pw --database app")
        .exits(0);
    machine.hactl("db config set --role app --password-file pw").exits(0);
    for method in ["CreateGroup", "SetConfig"] {
        let call = cluster.calls(method).remove(0);
        assert!(call.request.contains("SCRAM-SHA-256$4096:"), "{}", call.request);
        assert!(!call.request.contains("s3cret"), "{}", call.request);
    }
    machine
        .hactl("db config set --role app --password-file nosuch")
        .exits(1);
}

#[test]
fn a_lost_race_of_a_setting_is_run_again() {
    let (cluster, machine, _node) = setup();
    let lost = || Fault::Code(codes::REVISION_CONFLICT);
    cluster.script(|s| s.refuse_once = [("SetConfig", codes::REVISION_CONFLICT)].into());
    machine.hactl("db config set work_mem=1GB --group main").exits(0);
    assert_eq!(cluster.calls("SetConfig").len(), 2);
    cluster.script(|s| s.refuse_once = [("SetConfig", codes::REVISION_CONFLICT)].into());
    machine
        .hactl("db config set work_mem=1GB --revision 30 --group main")
        .exits(6);
    // What is so already is not sent.
    let run = machine.hactl("db config set work_mem=64MB --group main").exits(0);
    assert_eq!(run.out, "unchanged\n");
    assert_eq!(cluster.calls("SetConfig").len(), 3);
    cluster.fail([lost()]);
    machine.hactl("db list").exits(6);
}

#[cfg(unix)]
fn edited(machine: &Machine, script: &str) -> crate::program::Run {
    use std::os::unix::fs::PermissionsExt as _;
    let editor = machine.work().join("editor");
    std::fs::write(&editor, format!("#!/bin/sh\nset -e\n{script}\n")).unwrap();
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = machine.command(&["db", "config", "edit"]);
    command.env("EDITOR", &editor).env("TMPDIR", machine.work());
    command.output().unwrap().into()
}

#[cfg(unix)]
#[test]
fn what_was_edited_is_set_or_kept() {
    let (cluster, machine, _node) = setup();
    assert_eq!(edited(&machine, "true").exits(0).out, "unchanged\n");
    assert!(cluster.calls("SetConfig").is_empty());
    edited(
        &machine,
        r#"sed -i 's/work_mem: .*/work_mem: 1GB/; s/flapCount: 3/flapCount: 4/' "$1""#,
    )
    .exits(0);
    let call = cluster.calls("SetConfig").remove(0);
    assert!(call.request.contains("\"work_mem\": \"1GB\"") && call.request.contains("flap_count: Some(4)"));
    // Members are not for this command: the file of an operator who adds one is kept.
    let run = edited(&machine, r#"printf 'members:\n- node: n9\n' >> "$1""#).exits(1 + 1);
    assert!(run.err.contains("hactl db assign NODE --role sync"), "{}", run.err);
    let run = edited(&machine, r#"echo 'duribility: async' >> "$1""#).exits(2);
    let kept = run.err.split("-f ").nth(1).unwrap().split_whitespace().next().unwrap();
    assert!(exists(std::path::Path::new(kept)), "{}", run.err);
    let diff = machine.hactl(&format!("db config diff -f {kept}")).exits(2);
    assert!(diff.err.contains("duribility"), "{}", diff.err);
    edited(&machine, "exit 3").exits(1);
    assert_eq!(cluster.calls("SetConfig").len(), 1);
}

#[test]
fn what_was_exported_can_be_applied() {
    let (cluster, machine, _node) = setup();
    let yaml = machine.hactl("db config get -o yaml").exits(0).out;
    std::fs::write(machine.work().join("main.yaml"), &yaml).unwrap();
    machine.hactl("db config diff -f main.yaml --exit-code").exits(0);
    assert_eq!(machine.hactl("db config set -f main.yaml").exits(0).out, "unchanged\n");
    let other = yaml.replace("instances: 3", "instances: 2").replace("64MB", "1GB");
    std::fs::write(machine.work().join("main.yaml"), other).unwrap();
    let diff = machine.hactl("db config diff -f main.yaml --exit-code").exits(8);
    insta::assert_snapshot!(diff.out);
    let status = machine
        .hactl("db status -o yaml")
        .exits(0)
        .out
        .replace("hasPassword: true", "hasPassword: false");
    std::fs::write(machine.work().join("status.yaml"), status).unwrap();
    machine.hactl("db create copy -f status.yaml").exits(0);
    let call = cluster.calls("CreateGroup").remove(0);
    assert!(
        call.request.contains("name: \"copy\"") && call.request.contains("node: \"n3\""),
        "{}",
        call.request
    );
}
