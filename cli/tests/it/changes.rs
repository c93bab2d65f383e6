//! Changes: what is asked first, what is sent, what is said, which files are written.

use ha_proto::codes;
use ha_proto::v1::{Bundle, ChangeResult};
use hactl::certificate;

use crate::fake::{Cluster, Fault};
use crate::program::{Machine, exists};
use crate::samples;

fn setup() -> (Cluster, Machine, crate::fake::Node) {
    let cluster = Cluster::new();
    let bare = Machine::bare();
    let node = cluster.node(&bare.authority, "n1");
    bare.context(
        "prod",
        ha_proto::v1::AccessRole::Admin,
        std::slice::from_ref(&node.endpoint),
    );
    bare.authority.save_new(&bare.store().authority_path("prod")).unwrap();
    (cluster, bare, node)
}

fn bundle(machine: &Machine, name: &str) -> Bundle {
    toml::from_str(&std::fs::read_to_string(machine.work().join(name)).unwrap()).unwrap()
}

#[test]
fn adding_a_node_records_it_and_writes_its_bundle() {
    let (cluster, machine, _node) = setup();
    let line = "node add n9 --addr 10.0.0.19 --label zone=a --label ssd= --scenario batch --no-eligible --reason more";
    let run = machine.hactl(line).exits(0);
    insta::assert_snapshot!("node_add", format!("{}stderr:\n{}", run.out, run.err));
    let joined = bundle(&machine, "n9.bundle");
    assert_eq!((joined.kind.as_str(), joined.name.as_str()), ("node", "n9"));
    assert_eq!(joined.endpoints, ["10.0.0.19:7400"]);
    assert!(joined.bootstrap.is_none() && !joined.secret.is_empty());
    let call = cluster.calls("AddNode").remove(0);
    let serial = certificate::parse(&joined.certificate).unwrap().serial;
    for part in [
        &serial,
        "10.0.0.19:7400",
        "batch",
        "master_eligible: false",
        "reason: \"more\"",
    ] {
        assert!(call.request.contains(part), "{part} in {}", call.request);
    }
}

#[test]
fn adding_a_node_twice_overwrites_nothing() {
    let (cluster, machine, _node) = setup();
    machine.hactl("node add n9 --addr 10.0.0.19").exits(0);
    let before = std::fs::read(machine.work().join("n9.bundle")).unwrap();
    // The file is in the way before the cluster is asked …
    machine.hactl("node add n9 --addr 10.0.0.19").exits(9);
    assert_eq!(cluster.calls("AddNode").len(), 1);
    // … and elsewhere the cluster says no before a file is written.
    std::fs::create_dir(machine.work().join("other")).unwrap();
    cluster.fail([Fault::Code(codes::NODE_EXISTS)]);
    let run = machine.hactl("node add n9 --addr 10.0.0.19 --out other").exits(9);
    assert!(run.err.starts_with("error HA0301: "), "{}", run.err);
    assert!(!exists(&machine.work().join("other/n9.bundle")));
    assert_eq!(std::fs::read(machine.work().join("n9.bundle")).unwrap(), before);
}

#[cfg(unix)]
#[test]
fn a_bundle_that_cannot_be_written_says_how_to_go_on() {
    let (cluster, machine, _node) = setup();
    machine.hactl("node add n9 --addr h --out missing").exits(1);
    assert!(
        cluster.calls("AddNode").is_empty(),
        "found out before the cluster was changed"
    );
    // A lost bundle is written anew for a node that is recorded.
    let run = machine.hactl("node add n4 --bundle-only").exits(0);
    assert_eq!(run.out, "node n4 has a new certificate\nwrote ./n4.bundle\n");
    assert_eq!(bundle(&machine, "n4.bundle").endpoints, ["10.0.0.14:7400"]);
    machine.hactl("node add nx --bundle-only").exits(5);
}

#[test]
fn a_dry_run_sends_it_and_writes_nothing() {
    let (cluster, machine, _node) = setup();
    cluster.script(|s| {
        s.results.push_back(ChangeResult {
            changed: true,
            plan: vec!["node n9 added".into()],
            ..ChangeResult::default()
        });
    });
    let run = machine.hactl("node add n9 --addr h --dry-run").exits(0);
    assert_eq!(run.out, "plan: node n9 added\ndry run: nothing was changed\n");
    assert!(cluster.calls("AddNode").remove(0).request.contains("dry_run: true"));
    assert!(!exists(&machine.work().join("n9.bundle")));
}

#[test]
fn what_is_so_already_is_unchanged() {
    let (cluster, machine, _node) = setup();
    cluster.script(|s| s.results.extend([ChangeResult::default(), ChangeResult::default()]));
    assert_eq!(machine.hactl("node cordon n1").exits(0).out, "unchanged\n");
    assert_eq!(
        machine.hactl("node cordon n1 -o json").exits(0).json()["changed"],
        false
    );
}

#[test]
fn immediate_changes() {
    let (cluster, machine, _node) = setup();
    let mut all = String::new();
    for line in [
        "node cordon n1",
        "node uncordon n1 --revision 17",
        "node label n1 zone=b rack-",
        "node set n1 --preference 10 --eligible=false --scenario oltp --scenario batch",
        "node set n4 --cpu 7.5",
        "node set n1 --measured --no-scenario",
        "node remove n3 --yes",
        "node drain n1 --cancel",
        "user revoke bob --yes",
        "user revoke n1 --node --yes",
        "cluster maintenance on --reason disks",
        "cluster maintenance off",
        "op cancel 0199f5",
    ] {
        all.push_str(&format!("$ hactl {line}\n{}", machine.hactl(line).exits(0).out));
    }
    all.push('\n');
    for call in cluster.script(|s| s.calls.clone()) {
        if call.method != "GetNode" {
            all.push_str(&format!("{} {}\n", call.method, call.request));
        }
    }
    insta::assert_snapshot!("immediate", all);
    let json = machine.hactl("node cordon n1 -o json").exits(0);
    insta::assert_snapshot!("change_json", machine.redact(&json.out));
}

#[test]
fn what_is_in_use_is_asked_about_first() {
    let (cluster, machine, _node) = setup();
    let mut all = String::new();
    for line in [
        "node remove n3",
        "node drain n1",
        "user revoke bob",
        "cluster master transfer --to n1",
    ] {
        all.push_str(&machine.hactl(line).exits(9).err);
    }
    insta::assert_snapshot!("unconfirmed", all);
    assert!(cluster.script(|s| s.calls.is_empty()));
    machine.hactl("node remove n3 --dry-run").exits(0);
}

#[test]
fn a_lost_race_exits_6() {
    let (cluster, machine, _node) = setup();
    cluster.fail([Fault::Code(codes::REVISION_CONFLICT)]);
    machine.hactl("node label n1 zone=b --revision 3").exits(6);
    cluster.fail([Fault::Code(codes::NODE_ONLINE)]);
    machine.hactl("node remove n1 --yes").exits(9);
    cluster.fail([Fault::Code(codes::NODE_UNKNOWN)]);
    machine.hactl("node cordon n7").exits(5);
}

#[test]
fn names_are_checked_before_anything_is_sent() {
    let (cluster, machine, _node) = setup();
    for line in [
        "node cordon N1",
        "node show n_1",
        "user add Bob --role viewer",
        "node add -- -n --addr h",
    ] {
        machine.hactl(line).exits(2);
    }
    assert!(cluster.script(|s| s.calls.is_empty()));
}

#[test]
fn users_get_bundles_that_know_all_nodes() {
    let (cluster, machine, _node) = setup();
    let run = machine.hactl("user add dave --role operator").exits(0);
    insta::assert_snapshot!("user_add", format!("{}stderr:\n{}", run.out, run.err));
    let made = bundle(&machine, "dave.bundle");
    assert_eq!(made.kind, "user");
    assert!(made.secret.is_empty() && made.zookeeper.is_empty());
    for address in ["10.0.0.11:7400", "10.0.0.12:7400", "10.0.0.13:7400", "10.0.0.14:7400"] {
        assert!(
            made.endpoints.contains(&address.to_owned()),
            "{address} in {:?}",
            made.endpoints
        );
    }
    let info = certificate::parse(&made.certificate).unwrap();
    assert!(info.uri.ends_with("/user/dave/operator"));
    assert!(cluster.calls("RecordUser").remove(0).request.contains(&info.serial));
    // A renewal keeps the role and says that it is one.
    machine.hactl("user renew carol").exits(0);
    assert!(
        certificate::parse(&bundle(&machine, "carol.bundle").certificate)
            .unwrap()
            .uri
            .ends_with("/carol/viewer")
    );
    assert!(cluster.calls("RecordUser")[1].request.contains("renew: true"));
    machine.hactl("user renew nobody").exits(5);
    machine.hactl("user renew bob").exits(4);
}

#[test]
fn renewing_oneself_replaces_the_bundle_of_the_context() {
    let (_cluster, machine, _node) = setup();
    let serial = || {
        certificate::parse(&machine.store().load("prod").unwrap().bundle.certificate)
            .unwrap()
            .serial
    };
    let before = serial();
    machine.hactl("user renew").exits(0);
    assert_ne!(serial(), before);
    machine.hactl("node list").exits(0);
}

#[test]
fn a_nodes_request_is_signed_with_names_that_are_decided_here() {
    let (cluster, machine, _node) = setup();
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let params = rcgen::CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    cluster.script(|s| s.csr = csr);
    machine.hactl("node renew n1").exits(0);
    let call = cluster.calls("InstallCertificate").remove(0);
    let pem = call
        .request
        .split("certificate_pem: \"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .replace("\\n", "\n");
    let info = certificate::parse(&pem).unwrap();
    assert!(info.uri.ends_with("/node/n1"));
    assert_eq!(info.dns, ["had.prod", "n1.had.prod"]);
    // All that are there: n1, n2 and the cordoned n4.
    let run = machine.hactl("node renew --all").exits(0);
    assert!(run.out.starts_with("3 nodes renewed"), "{}", run.out);
    cluster.script(|s| s.csr = "rubbish".into());
    machine.hactl("node renew n1").exits(2);
}

#[test]
fn operations_are_followed_to_their_end() {
    let (cluster, machine, _node) = setup();
    let started = || ChangeResult {
        changed: true,
        revision: 4183,
        operation_id: "0199f3".into(),
        ..Default::default()
    };
    let [done, failed, _] = <[_; 3]>::try_from(samples::operations()).unwrap();
    let mut begun = done.clone();
    begun.state = ha_proto::v1::OperationState::Running as i32;
    begun.steps.truncate(1);
    begun.finished_unix_ms = 0;
    // The stream breaks off in the middle: it is opened again, and no step is told twice.
    cluster.script(|s| {
        s.results.push_back(started());
        s.operation_streams
            .extend([vec![begun.clone()], vec![begun.clone(), done.clone()]]);
    });
    let run = machine.hactl("cluster master transfer --to n1 --yes").exits(0);
    insta::assert_snapshot!("transfer", format!("{}stderr:\n{}", run.out, run.err));

    cluster.script(|s| {
        s.results.push_back(started());
        s.operation_streams.push_back(vec![done.clone()]);
    });
    let json = machine.hactl("cluster master transfer --yes -o json -q").exits(0);
    assert_eq!(json.json()["operation"]["status"]["state"], "succeeded");

    cluster.script(|s| {
        s.results.push_back(started());
        s.operation_streams.push_back(vec![failed.clone()]);
    });
    let run = machine.hactl("node drain n1 --yes").exits(1);
    insta::assert_snapshot!("drain_failed", format!("{}stderr:\n{}", run.out, run.err));

    cluster.script(|s| s.results.push_back(started()));
    let run = machine.hactl("node drain n1 --yes --no-wait").exits(0);
    assert_eq!(run.out, "operation 0199f3\n");
}

#[test]
fn waiting_ends_at_the_timeout_and_names_the_operation() {
    let (cluster, machine, _node) = setup();
    cluster.script(|s| {
        s.results.push_back(ChangeResult {
            changed: true,
            operation_id: "0199f5".into(),
            ..Default::default()
        });
    });
    let run = machine.hactl("node drain n4 --yes --timeout 500ms").exits(124);
    assert!(run.err.contains("hactl op wait 0199f5"), "{}", run.err);
}

#[cfg(unix)]
#[test]
fn an_interrupted_wait_names_the_operation_that_goes_on() {
    use std::io::{BufRead as _, Read as _};
    let (cluster, machine, _node) = setup();
    cluster.script(|s| {
        s.results.push_back(ChangeResult {
            changed: true,
            operation_id: "0199f5".into(),
            ..Default::default()
        });
    });
    let mut child = machine
        .command(&["node", "drain", "n4", "--yes"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("cordoned") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended too early");
    }
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap()),
        nix::sys::signal::SIGINT,
    )
    .unwrap();
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(
        rest.starts_with("error HA0011: interrupted; operation 0199f5 goes on\n"),
        "{rest}"
    );
}

/// On a terminal it asks, and does it only after a typed y.
#[cfg(unix)]
#[test]
fn a_terminal_is_asked() {
    use std::io::{Read as _, Write as _};
    let (cluster, machine, _node) = setup();
    for (answer, code, sent) in [("n\n", 9, 0), ("y\n", 0, 1)] {
        let pty = portable_pty::native_pty_system()
            .openpty(portable_pty::PtySize::default())
            .unwrap();
        let mut command = portable_pty::CommandBuilder::new(env!("CARGO_BIN_EXE_hactl"));
        command.args(["node", "remove", "n3"]);
        command.env("HACTL_CONFIG_DIR", machine.store().dir());
        let mut child = pty.slave.spawn_command(command).unwrap();
        drop(pty.slave);
        let mut reader = pty.master.try_clone_reader().unwrap();
        let mut said = String::new();
        let mut byte = [0];
        while !said.ends_with("[y/N] ") {
            assert_eq!(reader.read(&mut byte).unwrap(), 1, "{said}");
            said.push(char::from(byte[0]));
        }
        assert!(said.contains("remove node n3 from the cluster"), "{said}");
        pty.master.take_writer().unwrap().write_all(answer.as_bytes()).unwrap();
        // The rest is read so that the program never waits for the terminal.
        let rest = std::thread::spawn(move || {
            let mut rest = Vec::new();
            let _ = reader.read_to_end(&mut rest);
        });
        assert_eq!(child.wait().unwrap().exit_code(), code);
        drop(pty.master);
        rest.join().unwrap();
        assert_eq!(cluster.calls("RemoveNode").len(), sent);
    }
}
