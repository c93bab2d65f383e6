//! Nodes: every node with its state, its usage and the age of both; from 120 columns on beside the selected one.

use std::cmp::Ordering;

use ha_proto::v1::{NodeState, NodeStatus, Role};
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    text::{Line, Span},
};

use super::{Detail, View, node_detail};
use crate::watch::{
    act::{ActKey, NODE_ACTS},
    cluster::{Cluster, NodeRow},
    render::{
        Cx, SPLIT,
        canvas::{pane, scrolled, span},
        empty, line,
        table::{Column, table},
    },
    state::List,
    text::{self, natural},
    theme::Tone,
};

/// The view.
pub(super) struct Nodes;

/// How nodes can be sorted.
pub(super) static SORTS: &[&str] = &["name", "state", "cpu", "memory", "age"];

impl View for Nodes {
    fn name(&self) -> &'static str {
        "nodes"
    }

    fn title(&self) -> &'static str {
        "Nodes"
    }

    fn sorts(&self) -> &'static [&'static str] {
        SORTS
    }

    fn rows(&self, cluster: &Cluster, list: &List) -> Vec<String> {
        rows(cluster, list)
    }

    fn acts(&self) -> &'static [ActKey] {
        NODE_ACTS
    }

    fn render(&self, cx: &Cx<'_>, area: Rect, buf: &mut Buffer) {
        if area.width < SPLIT {
            return list(cx, area, buf);
        }
        // The list has what it needs, the selected node the rest.
        let right = (area.width * 2 / 5).clamp(52, 84);
        let left = Rect {
            width: area.width - right,
            ..area
        };
        let right = Rect {
            x: left.right(),
            width: right,
            ..area
        };
        list(cx, left, buf);
        let rows = rows(cx.cluster, cx.state.list());
        let selected = cx.state.list().index(&rows).map(|at| rows[at].as_str());
        let detail = selected.and_then(|key| self.detail(cx, key, right.width.saturating_sub(2)));
        match detail {
            Some(detail) => {
                let inner = pane(
                    buf,
                    cx.theme,
                    right,
                    line(cx.theme, Tone::Strong, detail.title),
                    Line::default(),
                );
                scrolled(buf, cx.theme, inner, detail.lines, 0);
            }
            None => {
                let inner = pane(buf, cx.theme, right, Line::default(), Line::default());
                empty(buf, cx.theme, inner, "no node is selected");
            }
        }
    }

    fn detail(&self, cx: &Cx<'_>, key: &str, width: u16) -> Option<Detail> {
        node_detail::detail(cx, key, width)
    }
}

/// Every column there is of nodes.
static COLUMNS: &[Column] = &[
    Column::new("NAME", 4, 24, 0),
    Column::new("STATE", 10, 10, 0),
    Column::new("ROLE", 6, 6, 2),
    Column::new("CPU", 5, 5, 3),
    Column::new("MEM", 8, 10, 4),
    Column::new("SEEN", 6, 60, 1).good(26),
    Column::new("ADDRESS", 16, 28, 6),
    Column::new("LABELS", 10, 30, 7),
    Column::new("DISK", 8, 10, 8),
    Column::new("VERSION", 7, 12, 9),
];

/// How many of them an overview has.
pub(super) const FEW: usize = 6;
/// Place of the processors among them.
const CPU: usize = 3;

/// The list of nodes with its frame.
fn list(cx: &Cx<'_>, area: Rect, buf: &mut Buffer) {
    let rows = rows(cx.cluster, cx.state.list());
    let inner = pane(buf, cx.theme, area, title(cx), list_note(cx, rows.len()));
    nodes(cx, inner, buf, COLUMNS.len(), &rows);
}

/// `Nodes   2 online, 1 offline`.
pub(super) fn title(cx: &Cx<'_>) -> Line<'static> {
    let mut spans = vec![span(cx.theme, Tone::Strong, "Nodes")];
    for (i, (state, count)) in cx.cluster.counts().into_iter().enumerate() {
        spans.push(Span::raw(if i == 0 { "  " } else { ", " }));
        spans.push(span(
            cx.theme,
            cx.theme.state(state).1,
            format!("{count} {}", state.word()),
        ));
    }
    Line::from(spans)
}

/// The filter and the sort, where they are not the usual ones.
pub(super) fn list_note(cx: &Cx<'_>, shown: usize) -> Line<'static> {
    let list = cx.state.list();
    let mut spans = Vec::new();
    if !list.filter.is_empty() {
        let filter = text::cut(&list.filter, 20, cx.theme.ellipsis());
        spans.push(span(cx.theme, Tone::Accent, format!("/{filter} {shown} shown")));
    }
    if list.sort != 0 || list.reverse {
        let by = cx.state.view().sorts().get(list.sort).copied().unwrap_or("name");
        let reversed = if list.reverse { " reversed" } else { "" };
        let gap = if spans.is_empty() { "" } else { "  " };
        spans.push(span(cx.theme, Tone::Accent, format!("{gap}by {by}{reversed}")));
    }
    Line::from(spans)
}

/// The rows of nodes with their first `columns`, without a frame.
pub(super) fn nodes(cx: &Cx<'_>, area: Rect, buf: &mut Buffer, columns: usize, rows: &[String]) {
    if rows.is_empty() {
        let text = if cx.cluster.nodes.is_empty() {
            "there are no nodes"
        } else {
            "no node matches the filter"
        };
        return empty(buf, cx.theme, area, text);
    }
    let selected = cx.state.list().index(rows);
    // A history is never cut: it has as many cells as there is room for.
    let history: u16 = match area.width {
        ..90 => 4,
        90..140 => 8,
        _ => 16,
    };
    let mut columns = COLUMNS[..columns.min(COLUMNS.len())].to_vec();
    if let Some(cpu) = columns.get_mut(CPU) {
        (cpu.min, cpu.good, cpu.max) = (cpu.min + history, cpu.min + history, cpu.min + history);
    }
    table(buf, cx.theme, area, &columns, (rows.len(), selected), |at| {
        match cx.cluster.nodes.get(&rows[at]) {
            Some(row) => cells(cx, row, usize::from(history)),
            None => Vec::new(),
        }
    });
}

fn cells(cx: &Cx<'_>, row: &NodeRow, history: usize) -> Vec<Line<'static>> {
    let theme = cx.theme;
    let node = &row.node;
    let (status, spec) = (node.status.as_ref(), node.spec.as_ref());
    let (glyph, tone) = theme.state(row.state());
    let role = status.map_or(Role::Unspecified, NodeStatus::role);
    let role_tone = if role == Role::Master {
        Tone::Strong
    } else {
        Tone::Plain
    };
    let pair = |pair: Option<(u64, u64)>| match pair {
        Some((used, total)) => line(theme, Tone::Plain, text::of_short(used, total)),
        None => line(theme, Tone::Dim, "-"),
    };
    let labels = spec.map(|s| node_detail::labels(&s.labels)).unwrap_or_default();
    vec![
        line(theme, Tone::Plain, node.name.clone()),
        line(theme, tone, format!("{glyph} {}", row.state().word())),
        line(theme, role_tone, role.word()),
        cpu(cx, row, history),
        pair(row.memory()),
        seen(cx, row),
        line(theme, Tone::Plain, spec.map(|s| s.address.clone()).unwrap_or_default()),
        line(theme, Tone::Plain, labels),
        pair(row.disk()),
        line(
            theme,
            Tone::Plain,
            status.map(|s| s.version.clone()).unwrap_or_default(),
        ),
    ]
}

/// Processors in use and their history.
pub(super) fn cpu(cx: &Cx<'_>, row: &NodeRow, cells: usize) -> Line<'static> {
    let theme = cx.theme;
    let now = row
        .cpu_percent()
        .map_or_else(|| "   -".to_owned(), |p| format!("{p:>3}%"));
    let tone = match row.cpu_percent() {
        None => Tone::Dim,
        Some(90..) => Tone::Warn,
        Some(_) => Tone::Plain,
    };
    let history = theme.sparkline(row.cpu.samples(), cells);
    Line::from(vec![
        span(theme, tone, format!("{now} ")),
        span(theme, Tone::Good, history),
    ])
}

/// How old the row is, and what is wrong with it.
pub(super) fn seen(cx: &Cx<'_>, row: &NodeRow) -> Line<'static> {
    const NOW_MS: i64 = 2000;
    let theme = cx.theme;
    let age = match cx.cluster.age(row, cx.mono) {
        None => "never".to_owned(),
        Some(..NOW_MS) => "now".to_owned(),
        Some(ms) => format!("{} ago", text::span(ms)),
    };
    let old = cx.cluster.age(row, cx.mono).is_none_or(|ms| ms >= NOW_MS);
    let mut spans = vec![span(theme, if old { Tone::Warn } else { Tone::Plain }, age)];
    let Some(status) = &row.node.status else {
        return Line::from(spans);
    };
    let wrong = if status.restarting {
        "restarting"
    } else if status.reason.is_empty() {
        status.conditions.first().map_or("", String::as_str)
    } else {
        &status.reason
    };
    if !wrong.is_empty() {
        spans.push(Span::raw(format!(": {wrong}")));
    }
    Line::from(spans)
}

/// What the filter looks at.
fn searched(row: &NodeRow) -> String {
    let mut text = format!("{} {}", row.node.name, row.state().word());
    let mut add = |more: &str| {
        text.push(' ');
        text.push_str(more);
    };
    if let Some(spec) = &row.node.spec {
        add(&spec.address);
        for (key, value) in &spec.labels {
            add(&format!("{key}={value}"));
        }
        spec.scenarios.iter().for_each(|s| add(s));
    }
    if let Some(status) = &row.node.status {
        add(status.role().word());
        add(&status.reason);
        add(&status.version);
    }
    text
}

/// States that need a hand come first.
fn urgency(state: NodeState) -> u8 {
    match state {
        NodeState::Offline => 0,
        NodeState::Suspect => 1,
        NodeState::Unspecified => 2,
        NodeState::Pending => 3,
        NodeState::Draining => 4,
        NodeState::Cordoned => 5,
        NodeState::Online => 6,
        NodeState::Removed => 7,
    }
}

/// Names of the nodes that the filter lets through, in the order wished.
pub(super) fn rows(cluster: &Cluster, list: &List) -> Vec<String> {
    let mut rows: Vec<&NodeRow> = cluster.nodes.values().filter(|r| list.accepts(&searched(r))).collect();
    let by_name = |a: &NodeRow, b: &NodeRow| natural(&a.node.name, &b.node.name);
    let memory = |r: &NodeRow| r.memory().and_then(|(used, total)| text::percent(used, total));
    let last = |r: &NodeRow| r.node.status.as_ref().map_or(0, |s| s.last_seen_unix_ms);
    let order = |a: &NodeRow, b: &NodeRow| -> Ordering {
        match SORTS.get(list.sort).copied() {
            Some("state") => urgency(a.state()).cmp(&urgency(b.state())),
            Some("cpu") => b.cpu_percent().cmp(&a.cpu_percent()),
            Some("memory") => memory(b).cmp(&memory(a)),
            // The oldest first; those that are there count as seen just now.
            Some("age") => a.alive().cmp(&b.alive()).then_with(|| match a.alive() {
                true => Ordering::Equal,
                false => last(a).cmp(&last(b)),
            }),
            _ => Ordering::Equal,
        }
    };
    rows.sort_by(|a, b| {
        let order = order(a, b).then_with(|| by_name(a, b));
        if list.reverse { order.reverse() } else { order }
    });
    rows.into_iter().map(|r| r.node.name.clone()).collect()
}
