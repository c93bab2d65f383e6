//! `hactl watch` as an operator meets it: the built program in a real pseudo-terminal, against nodes behind real mutual
//! TLS that are stopped and started again.
#![cfg(unix)]
#![allow(clippy::unwrap_used)] // A test fails by a panic.

#[path = "watch_pty/live.rs"]
mod live;
#[path = "watch_pty/terminal.rs"]
mod terminal;

use std::time::Duration;

use ha_proto::v1::{Change, Delta, NodeState, Severity};
use live::Cluster;
use terminal::Terminal;

#[test]
fn the_dashboard_lives_through_an_outage() {
    let cluster = Cluster::new();
    let [n1, n2] = ["n1", "n2"].map(|name| cluster.start(name));
    let mut terminal = Terminal::watch(&cluster, &["--allow-actions"]);

    terminal.wait("the first frame", |s| {
        s.contains("live, ") && s.contains("● online") && s.contains("zookeeper 1/1")
    });

    // A change is on the screen as soon as it is told.
    cluster.tell(Delta {
        nodes: vec![cluster.node("n2", NodeState::Suspect)],
        changes: vec![Change {
            seq: 2,
            kind: "node.suspect".into(),
            subject: "node/n2".into(),
            severity: Severity::Warning.into(),
            text: "n2 suspect\x1b]0;evil\x07\x1b[2J".into(),
            time_unix_ms: live::now(),
            ..Change::default()
        }],
        ..Delta::default()
    });
    terminal.wait("the change", |s| s.contains("◐ suspect") && s.contains("▲ n2 suspect"));

    // Every node gone: the last frame stays and is called stale.
    drop((n1, n2));
    terminal.wait("stale", |s| {
        s.contains("STALE ") && s.contains("reconnecting to n") && s.contains("(attempt ") && s.contains("◐ suspect")
    });
    assert!(!terminal.text().contains("live, "), "{}", terminal.text());

    // What happened meanwhile is there when a node is back, and nothing was missed.
    cluster.tell(Delta {
        nodes: vec![cluster.node("n2", NodeState::Offline)],
        ..Delta::default()
    });
    let n2 = cluster.start("n2");
    terminal.wait("the return", |s| s.contains("live, ") && s.contains("○ offline"));
    terminal.wait("resumed", |s| {
        s.contains("resumed after frame 2 with n2: nothing was missed")
    });
    assert_eq!(cluster.asked().last(), Some(&(412, 2)));

    // A server that no longer keeps the frames: it starts over and says so.
    drop(n2);
    terminal.wait("stale again", |s| s.contains("STALE "));
    cluster.new_term();
    let _n1 = cluster.start("n1");
    terminal.wait("over", |s| {
        s.contains("started over from a snapshot of n1: term 413 began")
    });
    terminal.wait("live again", |s| s.contains("live, ") && s.contains("(413)"));

    // An action, typed and confirmed.
    terminal.keys("2C");
    terminal.wait("the question", |s| s.contains("Type n1 and press Enter"));
    terminal.keys("n2\r");
    terminal.wait("a wrong name", |s| s.contains("that is not n1"));
    terminal.keys("\x7f1\r");
    terminal.wait("the answer", |s| s.contains("Cordon n1: done, revision 4183"));
    assert_eq!(cluster.changes(), ["cordon n1 true"]);

    // Any size, and back.
    terminal.resize(50, 12);
    terminal.wait("the summary", |s| s.contains("60x15 and more shows all"));
    terminal.resize(120, 30);
    terminal.wait("the whole", |s| s.contains("┌ Node n1 ") && !s.contains("60x15"));

    terminal.keys("q");
    assert_eq!(terminal.end(), 0);
    terminal.assert_restored();
    // Nothing that a server sent was a command to the terminal.
    assert!(
        !terminal.said("\x1b]0;evil") && !terminal.said("\x1b]"),
        "a title was set"
    );
}

#[test]
fn the_terminal_is_given_back_when_the_dashboard_is_told_to_end() {
    let cluster = Cluster::new();
    let _n1 = cluster.start("n1");
    for signal in ["-TERM", "-HUP", "-INT"] {
        let mut terminal = Terminal::watch(&cluster, &[]);
        terminal.wait("the first frame", |s| s.contains("live, "));
        terminal.signal(signal);
        assert_eq!(terminal.end(), 0, "{signal}");
        terminal.assert_restored();
    }
}

#[test]
fn a_user_who_will_never_be_served_gets_an_error_and_a_terminal_that_works() {
    let cluster = Cluster::new();
    cluster.deny();
    let _n1 = cluster.start("n1");
    let mut terminal = Terminal::watch(&cluster, &[]);
    assert_eq!(terminal.end(), 4);
    terminal.assert_restored();
    assert!(terminal.text().contains("error HA0202"), "{}", terminal.text());
}

#[test]
fn without_colour_none_is_used() {
    let cluster = Cluster::new();
    let _n1 = cluster.start("n1");
    let mut terminal = Terminal::watch_with(&cluster, &["--ascii"], &[("NO_COLOR", "1")]);
    terminal.wait("the first frame", |s| s.contains("live, ") && s.contains("* online"));
    assert!(terminal.text().is_ascii(), "{}", terminal.text());
    terminal.keys("q");
    assert_eq!(terminal.end(), 0);
    assert!(!terminal.colours(), "a colour was set");
}

#[test]
fn once_prints_a_frame_where_there_is_no_terminal() {
    let cluster = Cluster::new();
    let n1 = cluster.start("n1");
    let run = cluster
        .hactl(&["watch", "--once", "--view", "nodes"])
        .env("COLUMNS", "100")
        .output()
        .unwrap();
    let text = String::from_utf8(run.stdout).unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert!(
        text.contains("● online") && text.contains("[Nodes]") && !text.contains('\x1b'),
        "{text}"
    );
    let widest = text.lines().map(|l| l.chars().count()).max();
    assert_eq!(widest, Some(100), "{text}");

    let run = cluster.hactl(&["watch"]).output().unwrap();
    assert_eq!(run.status.code(), Some(2));
    let text = String::from_utf8(run.stderr).unwrap();
    assert!(
        text.contains("needs a terminal") && text.contains("hactl watch --once"),
        "{text}"
    );

    drop(n1);
    let begun = std::time::Instant::now();
    let run = cluster.hactl(&["watch", "--once"]).output().unwrap();
    assert_eq!(run.status.code(), Some(10), "{}", String::from_utf8_lossy(&run.stderr));
    assert!(run.stdout.is_empty() && begun.elapsed() < Duration::from_secs(20));
}
