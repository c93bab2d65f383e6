//! What is on the screen, to the letter: help, tables, documents.

use clap::{CommandFactory as _, Parser as _};
use ha_proto::v1::ClusterState;
use hactl::args::Cli;
use hactl::commands::explain::KINDS;
use hactl::health;
use hactl::output::views::cluster::{self, CheckView};
use hactl::output::views::event::EventView;
use hactl::output::views::node::NodeView;
use hactl::output::views::operation::OperationView;
use hactl::output::views::user::UserView;
use hactl::output::{Out, View};

use crate::fake::Cluster;
use crate::program::Machine;
use crate::samples::{self, NOW};

fn out(format: &str) -> Out {
    Out::new(&Cli::parse_from(["hactl", "-o", format, "--color", "never", "version"]).globals)
}

fn tables<V: View>(items: &[V]) -> String {
    let table = |format| out(format).table(items, NOW).render(true, false);
    format!("{}\n-o wide\n{}", table("table"), table("wide"))
}

#[test]
fn help_of_every_command() {
    fn walk(command: &clap::Command, path: &str) {
        let text = command
            .clone()
            .term_width(100)
            .bin_name(path.replace('_', " "))
            .render_long_help()
            .to_string();
        insta::with_settings!({ snapshot_path => "snapshots/help", prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!(path, text);
        });
        for sub in command.get_subcommands().filter(|s| !s.is_hide_set()) {
            walk(sub, &format!("{path}_{}", sub.get_name()));
        }
    }
    let mut command = Cli::command();
    command.build();
    walk(&command, "hactl");
}

#[test]
fn table_of_nodes() {
    let views: Vec<NodeView> = samples::nodes().into_iter().map(Into::into).collect();
    insta::assert_snapshot!(tables(&views));
}

#[test]
fn lines_of_a_node() {
    let lines = |at: usize| {
        let view = NodeView::from(samples::nodes().remove(at));
        view.lines(NOW)
            .into_iter()
            // Local times are the machine's.
            .filter(|(what, ..)| !matches!(*what, "started" | "certificate" | "state"))
            .map(|(what, value, _)| format!("{what:<13}{value}\n"))
            .collect::<String>()
    };
    insta::assert_snapshot!(format!("{}\n{}", lines(0), lines(3)));
}

#[test]
fn table_of_users() {
    let views: Vec<UserView> = samples::users()
        .into_iter()
        .map(|user| UserView::new(user, NOW))
        .collect();
    insta::assert_snapshot!(tables(&views));
}

#[test]
fn table_of_operations() {
    let views: Vec<OperationView> = samples::operations().into_iter().map(Into::into).collect();
    insta::assert_snapshot!(tables(&views));
}

#[test]
fn table_of_checks() {
    let views: Vec<CheckView> = samples::checks().into_iter().map(Into::into).collect();
    insta::assert_snapshot!(tables(&views));
}

#[test]
fn status_of_a_cluster() {
    let report = |state: &ClusterState| cluster::report(state, &health::assess(state), NOW, false);
    let mut lost = samples::healthy();
    lost.master = None;
    lost.zookeeper.clear();
    let text = [samples::healthy(), samples::troubled(), lost]
        .map(|state| report(&state))
        .join("\n---\n");
    insta::assert_snapshot!(text);
}

/// The commands that show something, with what they ask for.
const READS: &[(&str, &str)] = &[
    ("cluster_status", "cluster status"),
    ("cluster_master_show", "cluster master show"),
    ("node_list", "node list"),
    ("node_show", "node show n4"),
    ("user_list", "user list --all"),
    ("event_list", "event list"),
    ("op_list", "op list"),
    ("op_show", "op show 0199f3"),
    ("db_list", "db list"),
    ("db_status", "db status"),
    ("db_history", "db history"),
    ("db_explain", "db explain"),
    ("db_config", "db config get"),
    ("db_settings", "db config get limits work_mem"),
    ("db_dsn", "db dsn"),
    ("db_diff", "db config diff"),
];

#[test]
fn documents_of_every_kind() {
    let cluster = Cluster::new();
    let machine = Machine::bare();
    let node = cluster.node(&machine.authority, "n2");
    machine.context(
        "prod",
        ha_proto::v1::AccessRole::Admin,
        std::slice::from_ref(&node.endpoint),
    );
    for (name, line) in READS {
        let run = machine.hactl(&format!("{line} -o json")).exits(0);
        insta::with_settings!({ snapshot_path => "snapshots/json", prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!(*name, machine.redact(&run.out));
        });
        // YAML says the same, and is what a YAML reader takes for it: every key and scalar is on its line.
        let yaml = machine.hactl(&format!("{line} -o yaml")).exits(0);
        assert!(yaml.out.starts_with("apiVersion: hactl/v1\nkind: "), "{}", yaml.out);
        let names = machine.hactl(&format!("{line} -o name")).exits(0);
        assert!(names.out.lines().all(|l| l.contains('/')), "{}", names.out);
    }
    let yaml = machine.hactl("node show n4 -o yaml").exits(0);
    let yaml = yaml
        .out
        .lines()
        .filter(|l| !l.starts_with("observedAt"))
        .collect::<Vec<_>>()
        .join("\n");
    insta::assert_snapshot!("node_show_yaml", yaml);
    let tables: String = READS
        .iter()
        .filter(|(name, _)| *name == "event_list" || *name == "node_list")
        .map(|(_, line)| format!("$ hactl {line}\n{}\n", machine.hactl(line).exits(0).out))
        .collect();
    insta::assert_snapshot!("tables_as_printed", tables);
}

/// `text` with the values of these keys replaced: they are of this machine and this moment.
fn of_any_machine(text: &str, keys: &[&str]) -> String {
    let line = |line: &str| {
        let key = keys
            .iter()
            .find(|key| line.trim_start().starts_with(&format!("\"{key}\": ")));
        match key.and_then(|_| line.split_once(": ")) {
            Some((head, value)) => format!("{head}: \"…\"{}\n", if value.ends_with(',') { "," } else { "" }),
            None => format!("{line}\n"),
        }
    };
    text.lines().map(line).collect()
}

#[test]
fn documents_of_this_machine() {
    let cluster = Cluster::new();
    let machine = Machine::bare();
    let node = cluster.node(&machine.authority, "n2");
    machine.context(
        "prod",
        ha_proto::v1::AccessRole::Admin,
        std::slice::from_ref(&node.endpoint),
    );
    let keys = [
        "certificateExpiresAt",
        "roundTripMs",
        "clockSkewMs",
        "elapsedMs",
        "os",
        "arch",
        "clusterId",
    ];
    for (name, line, code) in [
        ("context_list", "context list", 0),
        ("endpoint_list", "context test", 0),
        ("version", "version --server", 0),
        ("explanation", "explain alert", 0),
        ("error_code", "explain HA0301", 0),
        ("doctor", "cluster doctor", 3),
    ] {
        let run = machine.hactl(&format!("{line} -o json")).exits(code);
        let text = of_any_machine(&machine.redact(&run.out), &keys);
        // The doctor tells how far this machine's clock is off.
        let text = text
            .lines()
            .filter(|l| !l.contains("clock and") && !l.contains("your certificate expires"))
            .map(|l| format!("{l}\n"))
            .collect::<String>();
        insta::with_settings!({ snapshot_path => "snapshots/json", prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!(name, text);
        });
    }
    let run = machine.hactl("wait node/n1 --for online -o json").exits(0);
    let text = serde_json::to_string_pretty(&run.json()).unwrap();
    let text = of_any_machine(&text, &["elapsedMs", "observedAt"]);
    insta::with_settings!({ snapshot_path => "snapshots/json", prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!("wait", text);
    });
    let list = machine.hactl("explain -o json").exits(0).json();
    assert_eq!(list["items"].as_array().map(Vec::len), Some(KINDS.len()));
}

/// `explain` describes what is written, all of it and nothing else.
#[test]
fn explain_knows_every_field() {
    let mut state = samples::troubled();
    state.nodes = vec![samples::nodes().remove(3)];
    state.nodes[0].status.as_mut().unwrap().reason = "r".into();
    let health = health::assess(&state);
    let master = state.master.clone().unwrap();
    let json = |value: serde_json::Result<serde_json::Value>| value.unwrap();
    let whole = json(serde_json::to_value(cluster::ClusterView::new(&state, &health)));
    let group = whole["status"]["databases"][0].clone();
    let documents = [
        ("cluster", whole.clone()),
        (
            "node",
            json(serde_json::to_value(NodeView::from(state.nodes[0].clone()))),
        ),
        ("master", json(serde_json::to_value(cluster::MasterView::from(&master)))),
        (
            "user",
            json(serde_json::to_value(UserView::new(samples::users().remove(1), NOW))),
        ),
        (
            "event",
            json(serde_json::to_value(EventView::from(samples::changes().remove(0)))),
        ),
        (
            "operation",
            json(serde_json::to_value(OperationView::from(
                samples::operations().remove(1),
            ))),
        ),
        ("alert", whole["status"]["alerts"][0].clone()),
        ("group", group.clone()),
        ("instance", group["status"]["instances"][1].clone()),
        ("history", group["status"]["lastChange"].clone()),
    ];
    assert_eq!(documents.len(), KINDS.len());
    for (name, document) in documents {
        let kind = KINDS.iter().find(|k| k.name == name).unwrap();
        let leaves: Vec<&str> = kind.fields.iter().map(|f| f.path).collect();
        let mut paths = Vec::new();
        walk(&document, String::new(), &leaves, &mut paths);
        paths.sort();
        paths.dedup();
        let mut known: Vec<_> = leaves.iter().map(|l| (*l).to_owned()).collect();
        known.sort();
        assert_eq!(paths, known, "of {name}");
    }
}

fn walk(value: &serde_json::Value, path: String, leaves: &[&str], paths: &mut Vec<String>) {
    if leaves.contains(&path.as_str()) {
        paths.push(path);
        return;
    }
    match value {
        serde_json::Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                walk(value, path, leaves, paths);
            }
        }
        serde_json::Value::Array(items) => {
            let path = format!("{path}[]");
            match items.first() {
                Some(item) => walk(item, path, leaves, paths),
                None => paths.push(path),
            }
        }
        _ => paths.push(path),
    }
}
