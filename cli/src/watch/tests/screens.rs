//! Screens as they look: each at 60, 80, 120 and 200 columns; live, stale and without colour.

use std::fmt::Write as _;

use ha_proto::v1::{Change, Delta, Maintenance, Master, NodeState, Role, Severity};
use insta::{Settings, assert_snapshot};
use ratatui::{
    buffer::Buffer,
    style::{Color, Modifier},
};

use super::{Stage, T, alerts, cluster, node, text};
use crate::watch::theme::Theme;

const SIZES: [(u16, u16); 4] = [(60, 18), (80, 24), (120, 30), (200, 30)];

/// The runs of equal style, lines that are styled alike together: `3..5: 1-7 green bold`.
fn styles(screen: &Buffer) -> String {
    let style = |x: u16, y: u16| {
        let cell = &screen[(x, y)];
        let mut words = Vec::new();
        if cell.fg != Color::Reset {
            words.push(format!("{:?}", cell.fg).to_lowercase());
        }
        for (flag, word) in [
            (Modifier::BOLD, "bold"),
            (Modifier::DIM, "dim"),
            (Modifier::REVERSED, "reversed"),
        ] {
            if cell.modifier.contains(flag) {
                words.push(word.to_owned());
            }
        }
        words.join(" ")
    };
    let mut lines: Vec<(u16, u16, String)> = Vec::new();
    for y in 0..screen.area.height {
        let mut runs = Vec::new();
        let mut x = 0;
        while x < screen.area.width {
            let first = x;
            let this = style(x, y);
            while x < screen.area.width && style(x, y) == this {
                x += 1;
            }
            if !this.is_empty() {
                runs.push(format!("{first}-{} {this}", x - 1));
            }
        }
        let runs = runs.join(", ");
        match lines.last_mut() {
            Some((_, last, same)) if *same == runs => *last = y,
            _ => lines.push((y, y, runs)),
        }
    }
    let mut out = String::new();
    for (first, last, runs) in lines.into_iter().filter(|(_, _, runs)| !runs.is_empty()) {
        let _ = writeln!(out, "{first}..{last}: {runs}");
    }
    out
}

pub(super) fn assert_screen(name: &str, width: u16, screen: &str) {
    let mut settings = Settings::clone_current();
    settings.set_snapshot_path("../snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| assert_snapshot!(format!("{name}_{width:03}"), screen));
}

/// Compares a stage at every width: live, stale, without colour.
pub(super) fn all(name: &str, stage: impl Fn() -> Stage) {
    for (width, height) in SIZES {
        let live = stage();
        let mut stale = stage();
        stale.lose();
        let mut plain = stage();
        plain.state.theme.color = false;
        let mut plain_stale = stage();
        plain_stale.lose();
        plain_stale.state.theme.color = false;
        let [live, stale, plain, plain_stale] = [live, stale, plain, plain_stale].map(|s| s.screen(width, height));
        // Colour adds nothing that is not there without it.
        assert_eq!(text(&live), text(&plain), "{name} {width}");
        assert_eq!(text(&stale), text(&plain_stale), "{name} {width}");
        for screen in [&plain, &plain_stale] {
            assert!(
                screen
                    .content
                    .iter()
                    .all(|c| c.fg == Color::Reset && c.bg == Color::Reset),
                "{name} {width}"
            );
        }
        let out = format!(
            "{}\nstyles:\n{}\nstyles without colour:\n{}\nstale:\n{}\nstyles of stale:\n{}\nstyles of stale without colour:\n{}",
            text(&live),
            styles(&live),
            styles(&plain),
            text(&stale),
            styles(&stale),
            styles(&plain_stale)
        );
        assert_screen(name, width, &out);
    }
}

fn pressed(keys: &str) -> Stage {
    let mut stage = Stage::live(cluster());
    stage.press(keys);
    stage
}

#[test]
fn overview() {
    all("overview", || pressed(""));
}

#[test]
fn overview_with_alerts_and_maintenance() {
    all("alerts", || {
        let mut cluster = cluster();
        cluster.alerts = alerts();
        cluster.zookeeper[2].reachable = false;
        cluster.zookeeper[2].error = "connection refused".to_owned();
        cluster.maintenance = Some(Maintenance {
            on: true,
            until_unix_ms: T + 5_400_000,
            reason: "kernel upgrade".to_owned(),
            actor: "user/alice".to_owned(),
        });
        Stage::live(cluster)
    });
}

#[test]
fn nodes() {
    all("nodes", || pressed("2j"));
}

#[test]
fn nodes_in_every_state() {
    all("states", || {
        let mut cluster = cluster();
        cluster.nodes = [
            NodeState::Online,
            NodeState::Pending,
            NodeState::Suspect,
            NodeState::Offline,
            NodeState::Cordoned,
            NodeState::Draining,
            NodeState::Removed,
        ]
        .into_iter()
        .zip(1..)
        .map(|(state, n)| {
            node(
                &format!("n{n}"),
                state,
                if n == 1 { Role::Master } else { Role::Member },
            )
        })
        .collect();
        cluster.nodes[5].status.as_mut().unwrap().conditions = vec!["clock is 3.2 s ahead".to_owned()];
        cluster.nodes[4].status.as_mut().unwrap().restarting = true;
        let mut stage = Stage::live(cluster);
        stage.press("2");
        stage
    });
}

#[test]
fn events() {
    all("events", || pressed("4"));
}

#[test]
fn help() {
    all("help", || pressed("?"));
}

#[test]
fn detail_of_a_node() {
    all("detail_node", || pressed("2j\n"));
}

#[test]
fn detail_of_an_event() {
    all("detail_event", || pressed("4\n"));
}

#[test]
fn filter() {
    all("filter", || pressed("2/zone=a off"));
}

#[test]
fn confirmation() {
    all("confirm", || pressed("2CnX\n"));
}

#[test]
fn summary_where_the_screen_is_too_small() {
    let mut out = String::new();
    for (width, height) in [(59, 30), (60, 14), (40, 8), (20, 5), (8, 2), (1, 1)] {
        let mut stage = pressed("");
        let _ = writeln!(out, "{width}x{height}\n{}", text(&stage.screen(width, height)));
        stage.lose();
        let screen = stage.screen(width, height);
        let _ = writeln!(out, "{width}x{height} stale\n{}\n{}", text(&screen), styles(&screen));
    }
    assert_screen("tiny", 0, &out);
}

#[test]
fn ascii_only() {
    let mut stage = pressed("j");
    stage.state.theme = Theme {
        color: false,
        ascii: true,
    };
    let mut out = String::new();
    for (width, height) in SIZES {
        for keys in ["", "2", "3", "4", "?"] {
            stage.press(&format!("\x1b{keys}"));
            let screen = text(&stage.screen(width, height));
            assert!(screen.is_ascii(), "{screen}");
            out += &screen;
        }
        stage.press("\x1b1");
    }
    assert_screen("ascii", 0, &out);
}

#[test]
fn paused() {
    let mut stage = pressed(" ");
    stage.mono += 9_000;
    let change = Change {
        seq: 4183,
        text: "n1 gone".to_owned(),
        severity: Severity::Error.into(),
        ..Change::default()
    };
    stage.delta(Delta {
        changes: vec![change],
        removed_nodes: vec!["n1".to_owned()],
        ..Delta::default()
    });
    assert_screen("paused", 120, &stage.text());
}

#[test]
fn without_a_master_or_nodes() {
    let mut cluster = cluster();
    cluster.master = Some(Master {
        term: 413,
        ..Master::default()
    });
    cluster.nodes.clear();
    cluster.recent_changes.clear();
    let stage = Stage::live(cluster);
    assert_screen("empty", 80, &text(&stage.screen(80, 24)));
}

#[test]
fn connecting() {
    let mut stage = Stage::new(false);
    stage.lose();
    assert_screen("connecting", 80, &text(&stage.screen(80, 24)));
}

#[test]
fn an_error_of_a_change() {
    use crate::{
        error::CliError,
        watch::{act::Act, state::Event},
    };
    let mut stage = pressed("2");
    let error = CliError::new(ha_proto::codes::NOT_ELIGIBLE, "n3 cannot be master")
        .why("it is offline since 2m 7s: session expired")
        .next("hactl node show n3", "shows its state");
    stage.event(Event::Answer {
        act: Act::Transfer { to: "n3".to_owned() },
        result: Err(error),
    });
    assert_screen("error", 80, &text(&stage.screen(80, 24)));
}

#[test]
fn a_thousand_nodes() {
    let mut cluster = cluster();
    cluster.nodes = (1..=1000)
        .map(|n| node(&format!("n{n}"), NodeState::Online, Role::Member))
        .collect();
    let mut stage = Stage::live(cluster);
    stage.press("2");
    for _ in 0..500 {
        stage.press("j");
    }
    let middle = stage.text();
    assert!(middle.contains("▸ n501 "), "{middle}");
    stage.press("sss");
    assert_screen("thousand", 120, &stage.text());
}
