//! What needs no cluster: version, explain, contexts, completion, manual pages, usage errors.

use ha_proto::codes;
use ha_proto::v1::AccessRole;

use crate::program::{Machine, exists};

#[test]
fn version_needs_nothing() {
    let machine = Machine::bare();
    let run = machine
        .command(&["version"])
        .env_remove("HACTL_CONFIG_DIR")
        .output()
        .unwrap();
    assert!(String::from_utf8(run.stdout).unwrap().starts_with("hactl 0.1.0 ("));
    let json = machine.hactl("version -o json").exits(0).json();
    assert_eq!(
        (json["kind"].as_str(), json["client"]["version"].as_str()),
        (Some("Version"), Some("0.1.0"))
    );
}

#[test]
fn explain_knows_kinds_fields_and_codes() {
    let machine = Machine::bare();
    insta::assert_snapshot!("explain", machine.hactl("explain").exits(0).out);
    insta::assert_snapshot!(
        "explain_field",
        machine.hactl("explain node.capacityOverride").exits(0).out
    );
    insta::assert_snapshot!("explain_code", machine.hactl("explain ha0301").exits(0).out);
    for code in codes::ALL {
        assert!(
            machine
                .hactl(&format!("explain {}", code.id))
                .exits(0)
                .out
                .starts_with(code.id)
        );
    }
    let run = machine.hactl("explain nonsense").exits(5);
    insta::assert_snapshot!("explain_unknown", run.err);
    machine.hactl("explain HA9999").exits(5);
    machine.hactl("explain node.nonsense").exits(5);
    assert_eq!(
        machine.hactl("explain user -o json").exits(0).json()["kind"],
        "Explanation"
    );
}

#[test]
fn usage_errors_have_the_four_parts_and_exit_2() {
    let machine = Machine::bare();
    let mut all = String::new();
    for line in [
        "nod",
        "node",
        "node list --bad",
        "node add",
        "node add n2 --addr h:0",
        "node label n1 zone",
        "node set n1 --cpu much",
        "user add x --role root",
        "wait cluster",
        "--timeout soon version",
        "cluster init --zookeeper zk --node N1=h",
        "node add n2 --addr h --preference 5 --no-eligible",
    ] {
        let run = machine.hactl(line).exits(2);
        assert!(run.out.is_empty(), "{line}: data on stdout");
        if line != "node" {
            all.push_str(&format!("$ hactl {line}\n{}\n", run.err));
        }
    }
    insta::assert_snapshot!("usage", all);
    let run = machine.hactl("-o json node list --bad").exits(2);
    let json: serde_json::Value = serde_json::from_str(&run.err).unwrap();
    assert_eq!(
        (json["kind"].as_str(), json["code"].as_str(), json["exitCode"].as_u64()),
        (Some("Error"), Some("HA0001"), Some(2))
    );
}

#[test]
fn without_a_context_it_says_how_to_get_one() {
    let machine = Machine::bare();
    let run = machine.hactl("node list").exits(2);
    insta::assert_snapshot!("no_context", machine.redact(&run.err));
    machine.hactl("--context other node list").exits(5);
    let empty = machine.hactl("context list").exits(0);
    assert!(empty.out.is_empty() && empty.err.contains("there is no context"));
}

#[test]
fn contexts_are_added_chosen_and_removed() {
    let machine = Machine::bare();
    let issued = machine.authority.issue_user("bob", AccessRole::Viewer).unwrap();
    let bundle = machine.authority.user_bundle(&issued, vec!["127.0.0.1:1".into()]);
    hactl::bundle::write_new(&machine.work().join("bob.bundle"), &bundle).unwrap();
    let run = machine.hactl("context add --bundle bob.bundle").exits(0);
    assert_eq!(run.out, "context prod: user bob of cluster prod, now the current one\n");
    machine.hactl("context add --bundle bob.bundle").exits(9);
    machine.hactl("context add --bundle bob.bundle --replace").exits(0);
    machine
        .hactl("context add --bundle bob.bundle --name second --keep-current")
        .exits(0);
    let list = machine.hactl("context list -o json").exits(0).json();
    assert_eq!(list["items"][0]["spec"]["role"], "viewer");
    assert_eq!(list["items"][0]["status"]["current"], true);
    assert_eq!(list["items"][1]["status"]["current"], false);
    insta::assert_snapshot!(
        "context_list",
        machine.hactl("context list").exits(0).out.replace("364d 23h", "365d")
    );
    assert_eq!(
        machine.hactl("context use second").exits(0).out,
        "context second is the current one\n"
    );
    assert_eq!(machine.hactl("context use second").exits(0).out, "unchanged\n");
    machine.hactl("context use third").exits(5);
    machine.hactl("context remove second").exits(9);
    machine.hactl("context remove second --yes").exits(0);
    machine.authority.save_new(&machine.work().join("ca.toml")).unwrap();
    machine.hactl("context add --ca ca.toml").exits(0);
    machine.hactl("context add --ca ca.toml").exits(9);
    machine.hactl("context remove prod --yes").exits(9);
    machine.hactl("context remove prod --yes --with-authority").exits(0);
    assert!(!machine.store().exists("prod"));
}

#[test]
fn damaged_bundles_are_refused_by_name() {
    let machine = Machine::bare();
    let write = |text: &str| std::fs::write(machine.work().join("x.bundle"), text).unwrap();
    let issued = machine.authority.issue_node("n1").unwrap();
    let node = machine.authority.node_bundle(&issued, "h:1", None);
    let mut errors = String::new();
    for text in [
        "",
        "rubbish",
        "version = 9\nkind = \"user\"\n",
        "version = 1\nkind = \"user\"\nname = \"A\"\n",
    ] {
        write(text);
        errors.push_str(&machine.hactl("context add --bundle x.bundle").exits(1).err);
    }
    write(&hactl::bundle::to_toml(&node).unwrap());
    errors.push_str(&machine.hactl("context add --bundle x.bundle").exits(1).err);
    errors.push_str(&machine.hactl("context add --bundle missing.bundle").exits(1).err);
    insta::assert_snapshot!("damaged_bundles", errors);
    // A damaged context is shown, and can be removed.
    machine.context("prod", AccessRole::Admin, &["h:1".into()]);
    std::fs::write(machine.store().context_dir("prod").join("bundle.toml"), "rubbish").unwrap();
    assert!(machine.hactl("context list").exits(0).out.contains("HA0005"));
    machine.hactl("node list").exits(1);
    machine.hactl("context remove prod --yes").exits(0);
}

#[test]
fn manual_pages_and_completion() {
    let machine = Machine::bare();
    machine.hactl("man pages").exits(0);
    let page = machine.work().join("pages/hactl-node-add.1");
    assert!(std::fs::read_to_string(page).unwrap().contains(".TH hactl-node-add 1"));
    assert!(exists(&machine.work().join("pages/hactl.1")));
    assert!(
        !exists(&machine.work().join("pages/hactl-playground-supervise.1")),
        "hidden commands have no page"
    );
    for shell in ["bash", "zsh", "fish", "powershell"] {
        assert!(
            machine
                .hactl(&format!("completion {shell}"))
                .exits(0)
                .out
                .contains("hactl")
        );
    }
}

#[test]
fn the_environment_is_below_the_flags() {
    let machine = Machine::bare();
    let run = |flags: &[&str]| {
        let output = machine.command(flags).env("HACTL_OUTPUT", "json").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(run(&["version"]).starts_with('{'));
    assert!(run(&["version", "-o", "table"]).starts_with("hactl "));
}

#[cfg(unix)]
#[test]
fn a_reader_that_goes_away_is_no_error() {
    use std::process::Stdio;
    let machine = Machine::bare();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let child = machine
        .command(&["explain"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
