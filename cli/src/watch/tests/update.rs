//! Keys and messages into states: selection, filter, sort, pause, changes and their confirmation, loss and return.

use ha_proto::v1::{ChangeResult, Delta, NodeState, Role, watch_frame::Body};

use super::{Stage, T, cluster, frame, node};
use crate::{
    error::CliError,
    watch::{
        act::Act,
        conn::{Join, Told},
        state::{Action, Event, Overlay},
        theme::Tone,
    },
};

fn stage() -> Stage {
    Stage::live(cluster())
}

fn selected(stage: &Stage) -> String {
    stage.state.subject().unwrap_or_default()
}

fn rows(stage: &Stage) -> Vec<String> {
    stage
        .state
        .view()
        .rows(stage.state.shown().unwrap(), stage.state.list())
}

fn note(stage: &Stage) -> String {
    let lines = stage.state.note.iter().flat_map(|n| &n.lines);
    lines
        .map(|(label, line)| {
            if label.is_empty() {
                line.clone()
            } else {
                format!("{label}: {line}")
            }
        })
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn views_turn_in_a_ring() {
    let mut stage = stage();
    let mut names = Vec::new();
    for _ in 0..5 {
        names.push(stage.state.view().name());
        stage.press("\t");
    }
    assert_eq!(names, ["overview", "nodes", "database", "events", "overview"]);
    stage.press("1h");
    assert_eq!(stage.state.view().name(), "events");
    stage.press("9");
    assert_eq!(stage.state.view().name(), "events");
}

#[test]
fn the_selection_stays_on_its_row_when_rows_come_and_go() {
    let mut stage = stage();
    stage.press("2j");
    assert_eq!(selected(&stage), "n2");
    stage.delta(Delta {
        nodes: vec![node("a1", NodeState::Online, Role::Member)],
        ..Delta::default()
    });
    assert_eq!((rows(&stage)[0].as_str(), selected(&stage).as_str()), ("a1", "n2"));
    stage.delta(Delta {
        removed_nodes: vec!["n2".to_owned()],
        ..Delta::default()
    });
    assert_eq!(selected(&stage), "n1");
    stage.press("jjjjjjjjj");
    assert_eq!(selected(&stage), "n3");
    stage.press("kkkkkkkkk");
    assert_eq!(selected(&stage), "a1");
    // Once chosen, the first row stays chosen when another becomes the first.
    stage.delta(Delta {
        nodes: vec![node("a0", NodeState::Online, Role::Member)],
        ..Delta::default()
    });
    assert_eq!(selected(&stage), "a1");
}

#[test]
fn events_follow_the_newest_until_another_is_chosen() {
    let mut stage = stage();
    stage.press("4");
    assert_eq!(selected(&stage), "4182");
    let change = |seq| ha_proto::v1::Change {
        seq,
        ..Default::default()
    };
    stage.delta(Delta {
        changes: vec![change(4183)],
        ..Delta::default()
    });
    assert_eq!(selected(&stage), "4183");
    stage.press("j");
    stage.delta(Delta {
        changes: vec![change(4184)],
        ..Delta::default()
    });
    assert_eq!(selected(&stage), "4182");
    stage.press("g");
    stage.delta(Delta {
        changes: vec![change(4185)],
        ..Delta::default()
    });
    assert_eq!(selected(&stage), "4185");
}

#[test]
fn a_filter_needs_all_its_words() {
    let mut stage = stage();
    stage.press("2/ZONE=A");
    assert_eq!(rows(&stage), ["n1", "n3"]);
    stage.press(" off");
    assert_eq!(rows(&stage), ["n3"]);
    stage.press("\n");
    assert_eq!((rows(&stage), &stage.state.overlay), (vec!["n3".to_owned()], &None));
    // The filter belongs to its view.
    stage.press("1");
    assert_eq!(rows(&stage).len(), 3);
    stage.press("2\x1b");
    assert_eq!(rows(&stage).len(), 3);
    stage.press("/q?C");
    assert_eq!(stage.state.list().filter, "q?C");
    stage.press("\x08\x08");
    assert_eq!(stage.state.list().filter, "q");
    stage.press("\x1b");
    assert_eq!((stage.state.list().filter.as_str(), &stage.state.overlay), ("", &None));
    stage.press("/nothing like it\n");
    assert!(rows(&stage).is_empty() && selected(&stage).is_empty());
    assert!(stage.text().contains("no node matches the filter"));
    stage.press("\nj");
    assert_eq!(stage.state.opened, None);
}

#[test]
fn sorts_go_round_and_turn() {
    let mut stage = stage();
    stage.press("2");
    assert_eq!(rows(&stage), ["n1", "n2", "n3"]);
    stage.press("r");
    assert_eq!(rows(&stage), ["n3", "n2", "n1"]);
    stage.press("s"); // state: what needs a hand first
    assert_eq!(rows(&stage), ["n3", "n1", "n2"]);
    stage.press("s"); // cpu
    assert_eq!(rows(&stage), ["n2", "n1", "n3"]);
    stage.press("s"); // memory
    assert_eq!(rows(&stage), ["n2", "n1", "n3"]);
    stage.press("s"); // age
    assert_eq!(rows(&stage), ["n3", "n1", "n2"]);
    stage.press("s");
    assert_eq!(rows(&stage), ["n1", "n2", "n3"]);
    stage.press("4sr");
    assert_eq!(rows(&stage).last().unwrap(), "4181");
}

#[test]
fn a_pause_holds_the_screen_and_loses_nothing() {
    let mut stage = stage();
    stage.press("2");
    stage.press(" ");
    let before = rows(&stage);
    stage.mono += 5_000;
    stage.delta(Delta {
        removed_nodes: vec!["n1".to_owned()],
        ..Delta::default()
    });
    assert_eq!(rows(&stage), before);
    let text = stage.text();
    assert!(text.contains("PAUSED 5 s"), "{text}");
    // Its ages are those of the moment it shows.
    assert!(text.contains("2m 11s"), "{text}");
    stage.press(" ");
    assert_eq!(rows(&stage), ["n2", "n3"]);
    assert!(!stage.text().contains("PAUSED"));
}

#[test]
fn details_stay_with_their_row_and_close() {
    let mut stage = stage();
    stage.press("2\n");
    assert!(stage.text().contains(" Node n1 "));
    stage.delta(Delta {
        nodes: vec![node("a1", NodeState::Online, Role::Member)],
        ..Delta::default()
    });
    assert!(stage.text().contains(" Node n1 "));
    stage.delta(Delta {
        removed_nodes: vec!["n1".to_owned()],
        ..Delta::default()
    });
    assert!(stage.text().contains("n1 is not there any more"));
    stage.press("\x1b");
    assert_eq!(stage.state.opened, None);
}

#[test]
fn nothing_acts_without_leave() {
    let mut stage = stage();
    stage.state.allow_actions = false;
    for key in ["2C", "D", "T"] {
        assert_eq!(stage.press(key), None);
        assert_eq!(stage.state.overlay, None);
        assert!(note(&stage).contains("--allow-actions"), "{}", note(&stage));
    }
    stage.press("X");
    assert!(note(&stage).contains("X does nothing"));
    stage.press("4C");
    assert!(note(&stage).contains("Overview"));
}

#[test]
fn nothing_acts_before_the_name_is_typed() {
    let mut stage = stage();
    stage.press("2jC");
    for typed in ["\n", "n\n", "1\n", "\x08\x08N2\n"] {
        assert_eq!(stage.press(typed), None, "{typed:?}");
        assert!(
            matches!(&stage.state.overlay, Some(Overlay::Confirm(c)) if c.wrong),
            "{typed:?}"
        );
    }
    assert!(stage.text().contains("that is not n2"));
    stage.press("\x1b");
    assert_eq!(stage.state.overlay, None);
    stage.press("C");
    let Some(Action::Perform(confirmed)) = stage.press("n2\n") else {
        panic!("nothing was sent")
    };
    assert_eq!(
        confirmed.act(),
        &Act::Cordon {
            node: "n2".to_owned(),
            on: true
        }
    );
    // One change at a time.
    assert_eq!(stage.press("D"), None);
    assert!(note(&stage).contains("not answered yet"));
}

#[test]
fn an_answer_or_an_error_is_shown_with_its_code() {
    let mut stage = stage();
    let act = Act::Drain {
        node: "n2".to_owned(),
        cancel: false,
    };
    let result = ChangeResult {
        changed: true,
        operation_id: "0199f3".to_owned(),
        ..ChangeResult::default()
    };
    stage.event(Event::Answer {
        act: act.clone(),
        result: Ok(result),
    });
    assert_eq!(note(&stage), "Drain n2: operation 0199f3 has begun");
    let error = CliError::new(ha_proto::codes::DENIED, "user/bob may not drain nodes")
        .why("its role is viewer\x1b[2J")
        .next("hactl user list", "shows roles");
    stage.event(Event::Answer {
        act,
        result: Err(error),
    });
    let text = stage.text();
    for part in [
        "error HA0201: user/bob may not",
        "what  Drain n2",
        "why   its role is viewer",
        "next  hactl user list",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert_eq!(stage.state.note.as_ref().unwrap().tone, Tone::Bad);
    stage.press("\x1b");
    assert_eq!(stage.state.note, None);
}

#[test]
fn the_same_key_undoes() {
    let mut stage = stage();
    let mut n1 = node("n1", NodeState::Cordoned, Role::Member);
    n1.spec.as_mut().unwrap().cordoned = true;
    let mut n2 = node("n2", NodeState::Draining, Role::Member);
    n2.spec.as_mut().unwrap().draining = true;
    stage.delta(Delta {
        nodes: vec![n1, n2],
        ..Delta::default()
    });
    let Some(Action::Perform(done)) = stage.press("2gCn1\n") else {
        panic!()
    };
    assert_eq!(
        done.act(),
        &Act::Cordon {
            node: "n1".to_owned(),
            on: false
        }
    );
    stage.state.acting = None;
    stage.press("jC");
    assert!(note(&stage).contains("D ends the drain"));
    let Some(Action::Perform(done)) = stage.press("Dn2\n") else {
        panic!()
    };
    assert_eq!(
        done.act(),
        &Act::Drain {
            node: "n2".to_owned(),
            cancel: true
        }
    );
}

#[test]
fn what_cannot_be_done_is_said_at_once() {
    let mut stage = stage();
    for (keys, why) in [
        ("2jT", "n2 is the master already"),
        ("jT", "only an online node can become master"),
    ] {
        assert_eq!(stage.press(keys), None);
        assert!(note(&stage).contains(why), "{}", note(&stage));
        assert_eq!(stage.state.overlay, None);
    }
    stage.delta(Delta {
        nodes: vec![node("n4", NodeState::Pending, Role::Member)],
        ..Delta::default()
    });
    stage.press("jC");
    assert!(note(&stage).contains("hactl node add n4"));
    let Some(Action::Perform(done)) = stage.press("gTn1\n") else {
        panic!()
    };
    assert_eq!(done.act(), &Act::Transfer { to: "n1".to_owned() });
}

#[test]
fn losing_the_server_is_said_and_changes_nothing_else() {
    let mut stage = stage();
    stage.press("2");
    let before = rows(&stage);
    stage.lose();
    let text = stage.text();
    assert!(text.contains("STALE 12 s, reconnecting to n2 (attempt 3)"), "{text}");
    assert!(!text.contains("live,"), "{text}");
    assert_eq!(rows(&stage), before);
    // Each row is as old as it is.
    assert!(text.contains("12s ago") && text.contains("2m 23s"), "{text}");
    // Dialling alone is not yet being live.
    stage.tell(Told::Dialling {
        endpoint: "10.0.0.12:7400".to_owned(),
        attempt: 4,
    });
    assert!(stage.text().contains("STALE 12 s, reconnecting to n2 (attempt 4)"));
    stage.tell(Told::Joined {
        endpoint: "10.0.0.12:7400".to_owned(),
        join: Join::Resumed { seq: 512 },
    });
    stage.beat();
    let text = stage.text();
    assert!(text.contains("live, 0.0 s") && !text.contains("STALE"), "{text}");
    assert!(text.contains("resumed after frame 512 with n2"), "{text}");
}

#[test]
fn a_server_that_falls_silent_is_noticed_without_being_told() {
    let mut stage = stage();
    stage.mono = 3_500;
    let text = stage.text();
    assert!(text.contains("STALE 3 s, waiting for n1"), "{text}");
}

#[test]
fn starting_over_is_said() {
    let mut stage = stage();
    stage.lose();
    let why = "term 413 began".to_owned();
    stage.tell(Told::Joined {
        endpoint: "10.0.0.12:7400".to_owned(),
        join: Join::Over { why },
    });
    stage.tell(frame(1, T, Body::Snapshot(cluster())));
    assert!(
        stage
            .text()
            .contains("▲ started over from a snapshot of n2: term 413 began")
    );
    // It hides no message, and no message hides it.
    stage.press("X");
    let text = stage.text();
    assert!(
        text.contains("started over") && text.contains("X does nothing"),
        "{text}"
    );
    stage.press("\x1b");
    let text = stage.text();
    assert!(
        !text.contains("started over") && !text.contains("X does nothing"),
        "{text}"
    );
}

#[test]
fn messages_go_by_themselves() {
    let mut stage = stage();
    stage.press("X");
    assert!(stage.state.note.is_some());
    stage.mono += 9_000;
    stage.event(Event::Tick);
    assert_eq!(stage.state.note, None);
}

#[test]
fn a_beat_alone_needs_no_new_screen() {
    let mut stage = stage();
    stage.mono += 500;
    let body = Body::Beat(ha_proto::v1::Beat {});
    let (_, changed) = stage
        .state
        .update(Event::Told(frame(512, T + 500, body.clone())), stage.mono);
    assert!(!changed);
    stage.mono += 10_000;
    let (_, changed) = stage
        .state
        .update(Event::Told(frame(512, T + 10_500, body)), stage.mono);
    assert!(changed, "it ends being stale");
}

#[test]
fn scrolling_ends_where_the_text_ends() {
    let mut stage = stage();
    stage.press("2\njjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjjj");
    let size = ratatui::layout::Size::new(80, 24);
    let most = crate::watch::render::scroll_most(&stage.state, &stage.now(), size);
    assert!(stage.state.scrolls() && most > 0);
    stage.state.clamp_scroll(most);
    assert_eq!(stage.state.opened.as_ref().unwrap().scroll, most);
    assert!(super::text(&stage.screen(80, 24)).contains("n1 online"));
}
