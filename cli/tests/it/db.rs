//! `hactl db`: what is shown, asked first, sent, and said.

use clap::Parser as _;
use ha_proto::codes;
use ha_proto::v1::{
    ChangeResult, ErrorDetail, Group, LossEstimate, Operation, OperationState, OperationStep, WatchFrame, watch_frame,
};
use hactl::args::Cli;
use hactl::output::views::database::explanation;
use hactl::output::views::database::group;
use hactl::output::views::database::history::HistoryView;
use hactl::output::views::database::instance::InstanceView;
use hactl::output::{Out, View as _};

use crate::fake::Cluster;
use crate::program::Machine;
use crate::samples::NOW;
use crate::samples::database as samples;

pub(crate) fn setup() -> (Cluster, Machine, crate::fake::Node) {
    let cluster = Cluster::new();
    cluster.script(|s| s.state.databases = vec![samples::healthy()]);
    let machine = Machine::bare();
    let node = cluster.node(&machine.authority, "n1");
    machine.context(
        "prod",
        ha_proto::v1::AccessRole::Operator,
        std::slice::from_ref(&node.endpoint),
    );
    (cluster, machine, node)
}

fn out(format: &str) -> Out {
    Out::new(&Cli::parse_from(["hactl", "-o", format, "--color", "never", "version"]).globals)
}

fn status(group: &Group, format: &str) -> String {
    let instances: Vec<InstanceView> = group.instances.iter().map(Into::into).collect();
    let table = out(format).table_of(instances, NOW).unwrap();
    group::report(group, &table, NOW, false)
}

#[test]
fn status_of_a_group() {
    let mut text = String::new();
    for group in [samples::healthy(), samples::troubled(), samples::electing()] {
        text.push_str(&format!("{}\n---\n", status(&group, "table")));
    }
    text.push_str(&status(&samples::troubled(), "wide"));
    insta::assert_snapshot!(text);
}

#[test]
fn colour_adds_nothing_that_words_do_not_say() {
    let instances: Vec<InstanceView> = samples::troubled().instances.iter().map(Into::into).collect();
    let bright = Out::new(&Cli::parse_from(["hactl", "--color", "always", "version"]).globals);
    let table = bright.table_of(instances, NOW).unwrap();
    let painted = group::report(&samples::troubled(), &table, NOW, true);
    let mut plain = String::new();
    let mut rest = painted.as_str();
    while let Some((before, after)) = rest.split_once('\x1b') {
        plain.push_str(before);
        rest = after.split_once('m').map_or("", |(_, text)| text);
    }
    plain.push_str(rest);
    let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert!(painted.contains("\x1b["));
    assert_eq!(words(&plain), words(&status(&samples::troubled(), "table")));
}

#[test]
fn history_and_explanation() {
    let reports: Vec<String> = samples::history()
        .iter()
        .map(|e| HistoryView::from(e).report(NOW, false))
        // Local times are the machine's.
        .map(|text| text.replace(&hactl::output::units::local(NOW - 2 * 86_400_000), "THEN"))
        .map(|text| text.replace(&hactl::output::units::local(NOW - 5 * 86_400_000), "THEN"))
        .collect();
    let views: Vec<HistoryView> = samples::history().iter().map(Into::into).collect();
    let table = |format: &str| out(format).table(&views, NOW).render(true, false);
    insta::assert_snapshot!(format!(
        "{}\n{}\n{}\n{}",
        table("table"),
        table("wide"),
        reports.join("\n"),
        explanation::report(&samples::explanation(), false)
    ));
    assert_eq!(views[0].name(), "6");
}

#[test]
fn what_is_printed() {
    let (cluster, machine, _node) = setup();
    cluster.script(|s| s.state.databases = vec![samples::troubled()]);
    let mut all = String::new();
    for line in [
        "db list",
        "db list -o wide",
        "db config get",
        "db config get work_mem durability",
        "db config get limits -o wide",
        "db config diff",
        "db dsn",
        "db dsn --standby",
        "db dsn --proxy --sslmode verify-full",
        "db dsn --format kv",
        "db dsn --format jdbc --standby",
        "db dsn --format env",
        "db dsn --user bob --database shop",
        "db explain n2",
        "db explain -o name",
    ] {
        all.push_str(&format!("$ hactl {line}\n{}\n", machine.hactl(line).exits(0).out));
    }
    insta::assert_snapshot!(all);
}

#[test]
fn a_check_exits_3() {
    let (cluster, machine, _node) = setup();
    machine.hactl("db status --check").exits(0);
    cluster.script(|s| s.state.databases = vec![samples::troubled()]);
    let run = machine.hactl("db status --check").exits(3);
    insta::assert_snapshot!(run.err);
    machine.hactl("cluster status --check").exits(3);
}

#[test]
fn the_group_may_be_left_out_where_there_is_one() {
    let (cluster, machine, _node) = setup();
    machine.hactl("db status").exits(0);
    machine.hactl("db --group main status").exits(0);
    machine.hactl("db status --group main").exits(0);
    let mut other = samples::healthy();
    other.name = "stats".into();
    cluster.script(|s| s.state.databases.push(other));
    machine.hactl("db status").exits(2);
    let run = machine.hactl("db pause").exits(2);
    let unknown = machine.hactl("db status --group nosuch").exits(5);
    let bad = machine.hactl("db status --group No").exits(2);
    cluster.script(|s| s.state.databases.clear());
    let none = machine.hactl("db resume").exits(5);
    let list = machine.hactl("db list").exits(0);
    insta::assert_snapshot!([run.err, unknown.err, bad.err, none.err, list.err].join("\n"));
}

#[test]
fn immediate_changes() {
    let (cluster, machine, _node) = setup();
    let mut all = String::new();
    for line in [
        "db create stats --node n1=primary --node n2 --node n4=async --durability async --pg-version 15 -p work_mem=8MB",
        "db create other --instances 3 --role app --database app --database log:root",
        "db remove stats --confirm stats --delete-data",
        "db assign n4 --role async --priority 0",
        "db assign n3 --priority 200",
        "db assign n3 --role none --yes",
        "db switchover --to n3 --yes",
        "db failover --yes --reason dead",
        "db reinit n2 --yes",
        "db restart n2 --yes",
        "db restart --rolling --pending --yes",
        "db pause --reason disks",
        "db resume",
        "db config set work_mem=128MB shared_buffers- limits.degradeAfterMs=30s durability=quorum-strict",
        "db config set --remove-role app --remove-database app",
    ] {
        all.push_str(&format!("$ hactl {line}\n{}", machine.hactl(line).exits(0).out));
    }
    all.push('\n');
    for call in cluster.script(|s| s.calls.clone()) {
        if !call.method.starts_with("Get") && !call.method.starts_with("List") {
            all.push_str(&format!("{} {}\n", call.method, call.request));
        }
    }
    insta::assert_snapshot!(all);
}

#[test]
fn what_moves_or_ends_a_database_is_asked_about_first() {
    let (cluster, machine, _node) = setup();
    let mut all = String::new();
    for (line, code) in [
        ("db switchover --to n3", 9),
        ("db switchover --to n3 --at 2126-01-31T03:00:00Z", 9),
        ("db failover --to n3", 9),
        ("db reinit n2", 9),
        ("db restart", 9),
        ("db restart --rolling --group main", 9),
        ("db assign n3 --role primary", 9),
        ("db assign n3 --role none", 9),
        ("db remove main", 9),
        ("db remove main --confirm mian --delete-data", 9),
        ("db remove", 2),
        ("db assign n3", 2),
        ("db create empty", 2),
        ("db create --node n1", 2),
        ("db create x --node n1 --database app", 2),
        ("db config set", 2),
        ("db config set instances=x", 2),
        ("db switchover --at 1999-01-01T00:00:00Z", 2),
        ("db assign n3 --role standby", 2),
    ] {
        all.push_str(&format!("$ hactl {line}\n{}", machine.hactl(line).exits(code).err));
    }
    insta::assert_snapshot!(all);
    let writes = cluster.script(|s| s.calls.iter().filter(|c| !c.method.starts_with(['G', 'L'])).count());
    assert_eq!(writes, 0);
}

fn step(ms: i64, text: &str) -> OperationStep {
    OperationStep {
        time_unix_ms: NOW + ms,
        text: text.into(),
    }
}

fn switchover(state: OperationState, steps: usize) -> Operation {
    let all = [
        step(0, "checked: n3 streaming, 0 B behind"),
        step(21, "checkpoint on n1"),
        step(64, "n1 stopped at 0/5A1F0428"),
        step(71, "n3 replayed 0/5A1F0428"),
        step(152, "n3 primary, epoch 8, timeline 4"),
        step(940, "n1 follows n3"),
    ];
    Operation {
        id: "0199f3".into(),
        kind: "db.switchover".into(),
        subject: "db/main".into(),
        state: state.into(),
        steps: all[..steps].to_vec(),
        actor: "user/alice".into(),
        created_unix_ms: NOW,
        finished_unix_ms: if state == OperationState::Running { 0 } else { NOW + 940 },
        arguments: [("from".to_owned(), "n1".to_owned()), ("to".to_owned(), "n3".to_owned())].into(),
        result: if state == OperationState::Succeeded {
            "writes paused for 0.19 s".into()
        } else {
            String::new()
        },
        ..Operation::default()
    }
}

fn accepted() -> ChangeResult {
    ChangeResult {
        changed: true,
        operation_id: "0199f3".into(),
        ..ChangeResult::default()
    }
}

#[test]
fn a_switchover_is_followed_to_its_end() {
    let (cluster, machine, _node) = setup();
    cluster.script(|s| {
        s.results.push_back(accepted());
        let running = (1..6).map(|n| switchover(OperationState::Running, n));
        s.operation_streams
            .push_back(running.chain([switchover(OperationState::Succeeded, 6)]).collect());
    });
    let run = machine.hactl("db switchover --to n3 --yes").exits(0);
    insta::assert_snapshot!(format!("{}stdout:\n{}", run.err, run.out));
    cluster.script(|s| {
        s.results.push_back(accepted());
        let mut undone = switchover(OperationState::Failed, 3);
        undone.error_code = codes::SWITCHOVER_UNDONE.id.into();
        undone.error = "n3 did not replay 0/5A1F0428 within 10 s; n1 is primary again".into();
        s.operation_streams.push_back(vec![undone]);
    });
    let run = machine.hactl("db switchover --to n3 --yes").exits(11);
    assert!(
        run.err
            .contains("error HA0415: operation 0199f3 failed: n3 did not replay"),
        "{}",
        run.err
    );
}

#[test]
fn a_switchover_of_the_night_is_not_waited_for() {
    let (cluster, machine, _node) = setup();
    cluster.script(|s| s.results.push_back(accepted()));
    let run = machine.hactl("db switchover --at 2126-01-31T03:00:00Z --yes").exits(0);
    assert_eq!(run.err, "operation 0199f3 goes on; hactl op wait 0199f3\n");
    assert!(cluster.calls("WatchOperation").is_empty());
    let call = cluster.calls("Switchover").remove(0);
    assert!(call.request.contains("at_unix_ms: 4925"), "{}", call.request);
}

#[test]
fn a_standby_that_is_behind_is_refused_with_what_to_do() {
    let (cluster, machine, _node) = setup();
    let refusal = ErrorDetail {
        code: codes::NOT_CANDIDATE.id.into(),
        message: "n3 cannot become primary: it is 48 MiB behind, the limit is 16 MiB".into(),
        why: vec!["replication from n1 to n3 broke 2m ago".into()],
        next: vec![
            "hactl db reinit n3  copy n3 afresh, then switch over".into(),
            "hactl db switchover --to n2  n2 is 0 B behind".into(),
        ],
        ..ErrorDetail::default()
    };
    cluster.fail([]);
    machine.hactl("db list").exits(0);
    cluster.script(|s| s.refuse = [("Switchover", refusal)].into());
    insta::assert_snapshot!(machine.hactl("db switchover --to n3 --yes").exits(9).err);
}

#[test]
fn a_loss_is_estimated_before_it_is_taken() {
    let (cluster, machine, _node) = setup();
    cluster.script(|s| {
        s.loss = Some(LossEstimate {
            bytes: Some(3 << 20),
            since_unix_ms: 0,
            lines: vec!["n1 was at 0/5A1F0380 when it was last seen, n2 is at 0/59EF0380".into()],
        });
    });
    // Nobody confirmed it: the estimate is printed, and only a dry run was sent.
    let run = machine.hactl("db failover --to n2 --allow-data-loss").exits(9);
    insta::assert_snapshot!(run.err);
    let calls = cluster.calls("Failover");
    assert_eq!(calls.len(), 1);
    assert!(calls[0].request.contains("dry_run: true"));
    let run = machine.hactl("db failover --to n2 --allow-data-loss --yes").exits(0);
    assert!(run.err.contains("estimated loss: at least 3 MiB of WAL"), "{}", run.err);
    assert!(cluster.calls("Failover")[2].request.contains("dry_run: false"));
    let dry = machine
        .hactl("db failover --to n2 --allow-data-loss --dry-run")
        .exits(0);
    assert!(
        dry.out.contains("plan: estimated loss: at least 3 MiB of WAL"),
        "{}",
        dry.out
    );
}

#[test]
fn waiting_for_a_group() {
    let (cluster, machine, _node) = setup();
    let frame = |seq: u64, group: Group| {
        let mut state = crate::samples::healthy();
        state.databases = vec![group];
        WatchFrame {
            seq,
            term: 412,
            server_unix_ms: NOW,
            body: Some(watch_frame::Body::Snapshot(state)),
        }
    };
    let frames = || {
        vec![
            frame(1, samples::electing()),
            frame(2, samples::troubled()),
            frame(3, samples::healthy()),
        ]
    };
    for line in [
        "wait db/main --for whole",
        "wait db/main --for healthy",
        "wait db/main --for primary --fail-on removed",
        "wait db/main/n1 --for primary",
        "wait db/main/n2 --for streaming,eligible",
    ] {
        cluster.script(|s| s.streams = [frames()].into());
        machine.hactl(line).exits(0);
    }
    cluster.script(|s| s.streams = [frames()].into());
    let run = machine.hactl("wait db/main --for whole --fail-on no-primary").exits(1);
    assert!(
        run.err.starts_with("error HA0505: db/main is no-primary"),
        "{}",
        run.err
    );
    machine.hactl("wait db/nosuch --for healthy").exits(5);
    machine.hactl("wait db/main/n9 --for primary").exits(5);
    machine.hactl("wait db/main --for streaming").exits(2);
}
