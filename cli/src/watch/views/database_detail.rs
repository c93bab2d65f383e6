//! All that is known of a group and of one of its instances.

use ha_proto::v1::{Group, GroupPhase, HistoryEntry, Instance};
use ratatui::text::{Line, Span};

use super::{Detail, database, node_detail::Writer};
use crate::watch::{
    groups::{self, GroupRow},
    render::{
        Cx,
        canvas::{cut, span},
    },
    text,
    theme::Tone,
};

/// The group of a row: its record, what is wrong with it, and its last change of primary.
pub(super) fn group(cx: &Cx<'_>, key: &str, width: u16) -> Vec<Line<'static>> {
    let mut w = Writer {
        cx,
        width,
        lines: Vec::new(),
    };
    if let Some((row, _)) = database::find(cx.cluster, key) {
        record(&mut w, row);
        last_change(&mut w, &row.group);
        w.head("Instance");
        instance_notes(&mut w, row, key);
        if w.lines.last().is_some_and(|l| l.spans.len() == 1) {
            w.text("", Tone::Dim, "Enter opens it");
        }
    }
    w.lines
}

/// The instance of a row, and its group.
pub(super) fn detail(cx: &Cx<'_>, key: &str, width: u16) -> Option<Detail> {
    let (row, instance) = database::find(cx.cluster, key)?;
    let mut w = Writer {
        cx,
        width,
        lines: Vec::new(),
    };
    facts(&mut w, instance);
    instance_notes(&mut w, row, key);
    w.head(&format!("Group {}", row.group.name));
    record(&mut w, row);
    last_change(&mut w, &row.group);
    proxies(&mut w, &row.group);
    Some(Detail {
        title: format!("Instance {} of {}", instance.node, row.group.name),
        lines: w.lines,
    })
}

fn record(w: &mut Writer<'_>, row: &GroupRow) {
    let cx = w.cx;
    let now = cx.server_now();
    let group = &row.group;
    let record = group.record.clone().unwrap_or_default();
    let (health, tone) = database::health(cx, group.health());
    w.text("health", tone, health);
    for problem in &group.problems {
        w.text("", tone, problem.clone());
    }
    let primary = if record.primary.is_empty() {
        (Tone::Bad, "none".to_owned())
    } else {
        (Tone::Strong, record.primary.clone())
    };
    w.text("primary", primary.0, primary.1);
    let since = match record.since_unix_ms {
        0 => String::new(),
        at => format!(" for {}", text::span(now.saturating_sub(at))),
    };
    let phase = record.phase();
    let tone = if phase == GroupPhase::Steady {
        Tone::Plain
    } else {
        Tone::Warn
    };
    let towards = match record.switching_to.as_str() {
        "" => String::new(),
        to => format!(" to {to}"),
    };
    w.text("phase", tone, format!("{}{towards}{since}", phase.word()));
    if phase != GroupPhase::Steady {
        w.some("because", &record.reason);
    }
    w.text(
        "epoch",
        Tone::Plain,
        format!("{}, timeline {}, term {}", record.epoch, record.timeline, record.term),
    );
    let rule = record
        .rule()
        .map_or_else(|| "none".to_owned(), ha_proto::v1::DurabilityRule::text);
    let wanted = group.spec.as_ref().map_or("", |s| s.durability().word());
    w.text("durability", Tone::Plain, format!("{wanted} {rule}"));
    for leaving in record.rules.iter().filter(|r| r.id != record.applying) {
        w.text("", Tone::Warn, format!("leaving {}", leaving.text()));
    }
    if !record.degraded.is_empty() {
        w.text("degraded", Tone::Warn, record.degraded.clone());
    }
    if let Some(pause) = group.spec.as_ref().and_then(|s| s.pause.as_ref()).filter(|p| p.on) {
        let until = match pause.until_unix_ms {
            0 => String::new(),
            at => format!(", ends in {}", text::span(at.saturating_sub(now))),
        };
        let why = if pause.reason.is_empty() {
            String::new()
        } else {
            format!(": {}", pause.reason)
        };
        w.text("paused", Tone::Warn, format!("by {}{until}{why}", pause.actor));
    }
    for (i, why) in group.why_no_failover.iter().enumerate() {
        w.text(if i == 0 { "no failover" } else { "" }, Tone::Plain, why.clone());
    }
    w.some("operation", &group.operation_id);
}

/// `0.041 s`.
fn at(ms: u64) -> String {
    format!("{}.{:03} s", ms / 1000, ms % 1000)
}

/// The last change of primary: each phase with when it was over and how long it took.
fn last_change(w: &mut Writer<'_>, group: &Group) {
    let Some(change) = &group.last_change else {
        w.head("Last change");
        return w.text("", Tone::Dim, "there was none yet");
    };
    let cx = w.cx;
    let theme = cx.theme;
    let arrow = theme.becomes();
    let who = match (change.from.as_str(), change.to.as_str()) {
        ("", to) => format!("{arrow} {to}"),
        (from, "") => from.to_owned(),
        (from, to) => format!("{from} {arrow} {to}"),
    };
    w.head(&format!("Last change: {} {who}", change.kind().word()));
    let ago = text::span(cx.server_now().saturating_sub(change.started_unix_ms));
    let (tone, end) = end(change);
    w.text("when", Tone::Plain, format!("{ago} ago, epoch {}", change.epoch));
    w.text("outcome", tone, end);
    w.some("because", &change.reason);
    let longest = change.phases.iter().map(|p| text::width(&p.name)).max().unwrap_or(0);
    let mut before = 0;
    for phase in &change.phases {
        let took = phase.at_ms.saturating_sub(before);
        before = phase.at_ms;
        let name = text::fit(&phase.name, longest.min(16), false, theme.ellipsis());
        let spans = vec![
            Span::raw(format!("  {:>9}  ", at(phase.at_ms))),
            span(theme, Tone::Plain, name),
            span(theme, Tone::Dim, format!("  +{}  ", at(took))),
            span(theme, Tone::Plain, phase.text.clone()),
        ];
        w.lines.push(cut(Line::from(spans), usize::from(w.width), theme));
    }
}

fn end(change: &HistoryEntry) -> (Tone, String) {
    let lost = change
        .lost_bytes
        .map(|bytes| format!(", at most {} lost", text::size(bytes)))
        .unwrap_or_default();
    match (change.error.as_str(), change.finished_unix_ms, change.gap_ms) {
        ("", 0, _) => (Tone::Warn, "still going on".to_owned()),
        ("", _, Some(gap)) => (Tone::Plain, format!("writes paused for {}{lost}", at(gap))),
        ("", _, None) => (Tone::Plain, format!("done{lost}")),
        (error, ..) => (Tone::Bad, format!("failed: {error}")),
    }
}

fn facts(w: &mut Writer<'_>, i: &Instance) {
    let cx = w.cx;
    let wanted = if i.wanted_primary { "primary" } else { "standby" };
    let chosen = if i.chosen { ", chosen by the master" } else { "" };
    w.text("wanted", Tone::Strong, wanted);
    w.text(
        "assigned",
        Tone::Plain,
        format!("{}, priority {}{chosen}", i.role().word(), i.priority),
    );
    w.spans("reported", database::reported(cx, i).spans);
    let age = match i.reported_unix_ms {
        0 => "never".to_owned(),
        at => format!("{} ago", text::age(cx.server_now().saturating_sub(at).max(0))),
    };
    w.text("report", Tone::Plain, age);
    if !groups::fresh(i, cx.cluster.frame_ms()) && i.reported_unix_ms > 0 {
        w.text(
            "",
            Tone::Dim,
            format!("it was {}; what follows is as old", groups::word(i)),
        );
    }
    w.text(
        "log",
        Tone::Plain,
        format!("{} on timeline {}", ha_proto::database::lsn(i.lsn), i.timeline),
    );
    if !i.wanted_primary {
        let behind = i.behind_bytes.map_or_else(|| "?".to_owned(), text::size);
        let time = i
            .behind_ms
            .map(|ms| format!(", {}", text::span(i64::try_from(ms).unwrap_or(i64::MAX))))
            .unwrap_or_default();
        w.text("behind", Tone::Plain, format!("{behind}{time}"));
    }
    let vote = if i.voter { ", votes" } else { "" };
    w.text("sync", Tone::Plain, format!("{}{vote}", i.sync().word()));
    let lease = i.lease_left_ms.map_or_else(|| "none".to_owned(), database::seconds);
    w.text("lease left", Tone::Plain, lease);
    w.some("upstream", &i.upstream);
    w.some("address", &i.address);
    w.some("version", &i.version);
    w.text(
        "size",
        Tone::Plain,
        format!("{}, WAL {}", text::size(i.data_bytes), text::size(i.wal_bytes)),
    );
    w.text("clients", Tone::Plain, i.connections.to_string());
}

/// What to know of an instance beyond its row.
fn instance_notes(w: &mut Writer<'_>, row: &GroupRow, key: &str) {
    let Some(i) = key.split_once('/').and_then(|(_, node)| row.instance(node)) else {
        return;
    };
    let now = w.cx.server_now();
    if !i.detail.is_empty() {
        w.text("doing", Tone::Plain, i.detail.clone());
    }
    if !i.waits_for.is_empty() {
        w.text("waits for", Tone::Warn, i.waits_for.clone());
    }
    for (n, why) in i.not_eligible.iter().enumerate() {
        w.text(if n == 0 { "ineligible" } else { "" }, Tone::Warn, why.clone());
    }
    if i.held_until_unix_ms > now {
        let left = text::span(i.held_until_unix_ms.saturating_sub(now));
        w.text("held down", Tone::Warn, format!("for {left}: {}", i.held_because));
    }
    for (n, p) in i.pending_restart.iter().enumerate() {
        let becomes = w.cx.theme.becomes();
        w.text(
            if n == 0 { "restart" } else { "" },
            Tone::Warn,
            format!("waits: {} {} {becomes} {}", p.parameter, p.current, p.wanted),
        );
    }
    for (n, error) in i.errors.iter().enumerate() {
        w.text(if n == 0 { "errors" } else { "" }, Tone::Bad, error.clone());
    }
}

fn proxies(w: &mut Writer<'_>, group: &Group) {
    if group.proxies.is_empty() {
        return;
    }
    w.head("Proxies");
    for p in &group.proxies {
        if p.error.is_empty() {
            let waiting = match p.waiting {
                0 => String::new(),
                n => format!(", {n} waiting"),
            };
            w.text(
                &p.node,
                Tone::Plain,
                format!("{} {} clients{waiting}", p.address, p.connections),
            );
        } else {
            w.text(&p.node, Tone::Bad, p.error.clone());
        }
    }
}
