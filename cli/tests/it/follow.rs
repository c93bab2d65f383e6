//! What goes on: event follow, wait, op wait, the doctor, context test, lists with selectors, completion.

use std::io::BufRead as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use ha_proto::codes;
use ha_proto::v1::watch_frame::Body;
use ha_proto::v1::{AccessRole, Delta, NodeState, WatchFrame};

use crate::fake::{Cluster, Fault, Node, refused_once};
use crate::program::Machine;
use crate::samples::{self, NOW};

fn setup() -> (Cluster, Machine, Node) {
    let (cluster, machine) = (Cluster::new(), Machine::bare());
    let node = cluster.node(&machine.authority, "n1");
    machine.context("prod", AccessRole::Admin, std::slice::from_ref(&node.endpoint));
    (cluster, machine, node)
}

fn frame(seq: u64, body: Body) -> WatchFrame {
    WatchFrame {
        seq,
        term: 412,
        server_unix_ms: NOW,
        body: Some(body),
    }
}

fn n3_is(state: NodeState) -> Body {
    let mut node = samples::nodes().remove(2);
    if let Some(status) = &mut node.status {
        status.state = state as i32;
        status.reason.clear();
    }
    Body::Delta(Delta {
        nodes: vec![node],
        ..Delta::default()
    })
}

#[test]
fn waiting_for_a_node_prints_each_transition() {
    let (cluster, machine, _node) = setup();
    // The stream breaks off once and is resumed after its last frame.
    cluster.script(|s| {
        s.streams.push_back(vec![
            frame(1, Body::Snapshot(samples::troubled())),
            frame(2, n3_is(NodeState::Suspect)),
        ]);
        s.streams.push_back(vec![frame(3, n3_is(NodeState::Online))]);
    });
    let run = machine.hactl("wait node/n3 --for online").exits(0);
    assert!(run.out.ends_with(" s  node/n3 online\n"), "{}", run.out);
    let words: Vec<_> = run.err.lines().map(|l| l.split("  ").last().unwrap()).collect();
    assert_eq!(words, ["node/n3 offline: session expired", "node/n3 suspect"]);
    assert_eq!(cluster.script(|s| s.resumed.clone()), [(0, 0), (412, 2)]);
}

#[test]
fn waits_that_end_at_once() {
    let (_cluster, machine, _node) = setup();
    for line in [
        "wait node/n1 --for online",
        "wait node/n4 --for up",
        "wait node/n3 --for online,offline",
        "wait node/nx --for removed",
        "wait master --for elected",
        "wait master/n2 --for elected",
        "wait cluster --for unhealthy --fail-on healthy",
        "wait op/0199f3 --for succeeded",
    ] {
        machine.hactl(line).exits(0);
    }
    let run = machine.hactl("wait node/n1 --for offline --fail-on online").exits(1);
    assert!(run.err.starts_with("error HA0505: node/n1 is online\n"), "{}", run.err);
    machine.hactl("wait op/0199f4 --for succeeded").exits(1);
    machine
        .hactl("wait op/0199f4 --for succeeded --fail-on failed")
        .exits(1);
    machine.hactl("wait op/nope --for succeeded").exits(5);
    machine.hactl("wait node/nx --for online").exits(5);
    machine.hactl("wait node/n1 --for healthy").exits(2);
    machine.hactl("wait service/x --for up").exits(2);
    let run = machine.hactl("wait node/n3 --for online --timeout 300ms").exits(124);
    assert!(run.err.contains("last seen: offline: session expired"), "{}", run.err);
    let run = machine.hactl("wait node/n1 --for online -o json").exits(0);
    assert_eq!(run.out.lines().count(), 1, "a line a document: {}", run.out);
    assert_eq!(run.json()["status"]["done"], true);
}

#[test]
fn a_wait_outlasts_a_cluster_that_is_not_there_yet() {
    let (cluster, machine, node) = setup();
    let endpoint = node.endpoint.clone();
    drop(node);
    let child = machine
        .command(&["wait", "cluster", "--for", "unhealthy", "--timeout", "20s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    refused_once(&endpoint);
    let _node = cluster.node_at(&machine.authority, "n1", &endpoint);
    assert!(child.wait_with_output().unwrap().status.success());
}

#[test]
fn following_events_leaves_none_out() {
    let (cluster, machine, node) = setup();
    let endpoint = node.endpoint.clone();
    let mut child = machine
        .command(&["event", "follow", "--from", "4180", "-o", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || {
        let line = lines.next().unwrap().unwrap();
        let json: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(json["kind"], "Event");
        json["status"]["seq"].as_u64().unwrap()
    };
    assert_eq!([next(), next(), next()], [4180, 4181, 4182]);
    // The node goes away, something happens meanwhile, and the node is back.
    drop(node);
    cluster.script(|s| {
        let mut change = s.changes[0].clone();
        change.seq = 4183;
        s.changes.push(change);
    });
    let _node = cluster.node_at(&machine.authority, "n1", &endpoint);
    assert_eq!(next(), 4183);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn following_ends_when_nobody_reads() {
    let (cluster, machine, _node) = setup();
    let mut child = machine
        .command(&["event", "follow", "--from", "4180"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert!(first.contains("node n1 updated (moved to zone a)"), "{first}");
    drop(lines);
    // The next line finds nobody: a broken stream brings it.
    cluster.script(|s| s.changes.iter_mut().for_each(|c| c.seq += 100));
    drop(_node);
    let endpoint = machine.store().load("prod").unwrap().bundle.endpoints.remove(0);
    let _node = cluster.node_at(&machine.authority, "n1", &endpoint);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            break;
        }
        assert!(Instant::now() < deadline, "it goes on for nobody");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn check_exits_3_and_says_why() {
    let (cluster, machine, _node) = setup();
    let run = machine.hactl("cluster status --check").exits(3);
    insta::assert_snapshot!("status_check", run.err);
    let run = machine.hactl("-o json cluster status --check").exits(3);
    assert_eq!(run.json()["status"]["health"], "unhealthy");
    cluster.script(|s| s.state = samples::healthy());
    machine.hactl("cluster status --check").exits(0);
    cluster.script(|s| s.state.master = None);
    machine.hactl("cluster master show").exits(10);
}

#[test]
fn the_doctor_finds_what_is_wrong() {
    let (cluster, machine, _node) = setup();
    let run = machine.hactl("cluster doctor").exits(3);
    let names: Vec<_> = run
        .out
        .lines()
        .map(|l| l.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
        .collect();
    insta::assert_snapshot!("doctor", format!("{}\nstderr:\n{}", names.join("\n"), run.err));
    cluster.script(|s| s.checks.truncate(2));
    machine.hactl("cluster doctor").exits(0);
    let json = machine.hactl("cluster doctor -o json").exits(0).json();
    assert_eq!(json["kind"], "DoctorReport");
}

#[test]
fn each_endpoint_is_tested() {
    let (_cluster, machine, node) = setup();
    let run = machine
        .hactl(&format!("context test --endpoint {},127.0.0.1:1", node.endpoint))
        .exits(0);
    assert!(
        run.out.contains("user/alice (admin)") && run.out.contains("connection refused (HA0101)"),
        "{}",
        run.out
    );
    machine.hactl("context test --endpoint 127.0.0.1:1").exits(10);
    let run = machine.hactl("version --server").exits(0);
    assert!(run.out.contains("had 0.1.0 on n1"), "{}", run.out);
}

#[test]
fn lists_are_filtered_and_sorted() {
    let (_cluster, machine, _node) = setup();
    let names = |line: &str| {
        machine
            .hactl(&format!("{line} -o name"))
            .exits(0)
            .out
            .replace('\n', " ")
    };
    assert_eq!(names("node list -l zone=b"), "node/n3 ");
    assert_eq!(names("node list -l zone=a,zone!=c"), "node/n1 node/n2 node/n4 ");
    assert_eq!(names("node list --sort-by cpu").split(' ').next_back(), Some(""));
    assert_eq!(
        names("node list -l zone=a --sort-by -memory"),
        "node/n1 node/n4 node/n2 "
    );
    assert_eq!(names("event list --sort-by -seq"), "event/4182 event/4181 event/4180 ");
    machine.hactl("node list --sort-by nonsense").exits(2);
    machine.hactl("node list -l =").exits(2);
    machine.hactl("event list -l zone=a").exits(2);
    assert!(!machine.hactl("node list --no-headers").exits(0).out.contains("NAME"));
    assert!(machine.hactl("node list --color always").exits(0).out.contains("\x1b["));
    assert!(!machine.hactl("node list").exits(0).out.contains("\x1b["));
}

#[test]
fn a_stored_value_cannot_drive_the_terminal() {
    let (_cluster, machine, _node) = setup();
    let run = machine.hactl("event list -o wide").exits(0);
    assert!(
        !run.out.contains('\x1b') && run.out.contains("viewer\u{fffd}[2J"),
        "{}",
        run.out
    );
}

#[test]
fn an_election_is_waited_out() {
    let (cluster, machine, _node) = setup();
    cluster.fail(std::iter::repeat_n(Fault::Code(codes::NO_MASTER), 4));
    machine.hactl("node list").exits(0);
    assert_eq!(cluster.calls("ListNodes").len(), 5);
}

/// What the shell is offered for a line that ends in an unfinished word.
#[cfg(unix)]
fn complete(machine: &Machine, words: &[&str]) -> Vec<String> {
    let mut args = vec!["--", "hactl"];
    args.extend(words);
    let output = machine
        .command(&args)
        .env("COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", words.len().to_string())
        .env("_CLAP_COMPLETE_COMP_TYPE", "9")
        .env("_CLAP_COMPLETE_SPACE", "false")
        .env("_CLAP_IFS", "\n")
        .output()
        .unwrap();
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[cfg(unix)]
#[test]
fn names_complete_from_the_server_and_without_it_from_memory() {
    let (cluster, machine, node) = setup();
    assert_eq!(
        complete(&machine, &["node", "show", ""])[..5],
        ["n1", "n2", "n3", "n4", "n5"]
    );
    assert_eq!(complete(&machine, &["user", "revoke", "a"]), ["alice"]);
    assert_eq!(complete(&machine, &["op", "show", "0199f3"]), ["0199f3"]);
    assert_eq!(complete(&machine, &["context", "use", "p"]), ["prod"]);
    assert_eq!(complete(&machine, &["wait", "node/n1"]), ["node/n1"]);
    assert!(complete(&machine, &["node", "sh"]).contains(&"show".to_owned()));
    // A node that hangs costs 200 ms, and the names that were seen last are offered.
    cluster.fail(std::iter::repeat_n(Fault::Hang, 3));
    let begun = Instant::now();
    assert!(complete(&machine, &["node", "show", ""]).contains(&"n4".to_owned()));
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
    drop(node);
    assert!(complete(&machine, &["node", "show", ""]).contains(&"n4".to_owned()));
}
