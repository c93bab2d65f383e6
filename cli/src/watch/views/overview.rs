//! Overview: what an operator looks at first: nodes, alerts where there are any, the newest events, ZooKeeper.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    text::{Line, Span},
};

use super::{Detail, View, database, events, node_detail, nodes};
use crate::watch::{
    act::{ActKey, NODE_ACTS},
    cluster::Cluster,
    render::{
        Cx, SPLIT,
        canvas::{pane, put, span},
        line,
    },
    state::List,
    text,
    theme::Tone,
};

/// The view.
pub(super) struct Overview;

impl View for Overview {
    fn name(&self) -> &'static str {
        "overview"
    }

    fn title(&self) -> &'static str {
        "Overview"
    }

    fn sorts(&self) -> &'static [&'static str] {
        nodes::SORTS
    }

    fn rows(&self, cluster: &Cluster, list: &List) -> Vec<String> {
        nodes::rows(cluster, list)
    }

    fn acts(&self) -> &'static [ActKey] {
        NODE_ACTS
    }

    fn render(&self, cx: &Cx<'_>, area: Rect, buf: &mut Buffer) {
        if area.width < SPLIT {
            narrow(cx, area, buf);
        } else {
            wide(cx, area, buf);
        }
    }

    fn detail(&self, cx: &Cx<'_>, key: &str, width: u16) -> Option<Detail> {
        node_detail::detail(cx, key, width)
    }
}

fn title(cx: &Cx<'_>, text: &str) -> Line<'static> {
    line(cx.theme, Tone::Strong, text)
}

/// Panes side by side: nodes at the left, what happens to them at the right.
fn wide(cx: &Cx<'_>, area: Rect, buf: &mut Buffer) {
    let left = Rect {
        width: area.width / 2,
        ..area
    };
    let right = Rect {
        x: left.right(),
        width: area.width - left.width,
        ..area
    };
    let rows = nodes::rows(cx.cluster, cx.state.list());
    let inner = pane(buf, cx.theme, left, nodes::title(cx), nodes::list_note(cx, rows.len()));
    nodes::nodes(cx, inner, buf, nodes::FEW, &rows);

    let alerts = alert_lines(cx, right.width.saturating_sub(2));
    let servers = u16::try_from(cx.cluster.zookeeper.len()).unwrap_or(u16::MAX);
    let mut top = right.y;
    let bottom = area.bottom();
    let mut take = |height: u16| {
        let rect = Rect {
            y: top,
            height: height.min(bottom - top),
            ..right
        };
        top = rect.bottom();
        rect
    };
    // Databases come first, up to half of the height.
    let database_height = match cx.cluster.groups.len() {
        0 => 0,
        _ => database::few_height(cx.cluster).saturating_add(2).min(area.height / 2),
    };
    if database_height > 0 {
        let place = take(database_height);
        let inner = pane(buf, cx.theme, place, database::title(cx), Line::default());
        database::few(cx, inner, buf);
    }
    let area = Rect {
        height: area.height - database_height,
        ..area
    };
    // Alerts have what they need, up to half of the height; ZooKeeper comes where events keep room.
    let alerts_height = match u16::try_from(alerts.len()).unwrap_or(u16::MAX) {
        0 => 0,
        n => n.saturating_add(2).min(area.height / 2),
    };
    let left_over = area.height - alerts_height;
    let zookeeper_height = match servers {
        0 => 0,
        n if n.saturating_add(2) <= left_over / 2 => n + 2,
        _ => 0,
    };
    if alerts_height > 0 {
        let place = take(alerts_height);
        let inner = pane(buf, cx.theme, place, alerts_title(cx), Line::default());
        alerts_into(cx, inner, buf, alerts);
    }
    let inner = pane(
        buf,
        cx.theme,
        take(left_over - zookeeper_height),
        title(cx, "Events"),
        Line::default(),
    );
    events::newest(cx, inner, buf);
    if zookeeper_height > 0 {
        let place = take(zookeeper_height);
        let inner = pane(buf, cx.theme, place, title(cx, "ZooKeeper"), session(cx));
        zookeeper(cx, inner, buf);
    }
}

/// One pane, its parts one below the other: what does not fit is left out from the end.
fn narrow(cx: &Cx<'_>, area: Rect, buf: &mut Buffer) {
    let rows = nodes::rows(cx.cluster, cx.state.list());
    let inner = pane(buf, cx.theme, area, nodes::title(cx), nodes::list_note(cx, rows.len()));
    let alerts = alert_lines(cx, inner.width);
    let wanted = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
    let alerts_height = match wanted(alerts.len()) {
        0 => 0,
        n => n.saturating_add(1).min(inner.height / 3),
    };
    let database_height = match cx.cluster.groups.len() {
        0 => 0,
        _ => database::few_height(cx.cluster).saturating_add(1).min(inner.height / 3),
    };
    // Nodes come first, but a few lines of events are always there.
    let events_least = 4.min(inner.height / 4);
    let nodes_height = wanted(rows.len())
        .saturating_add(2)
        .min(inner.height - alerts_height - events_least - database_height);
    let nodes_area = Rect {
        height: nodes_height.max(3).min(inner.height),
        ..inner
    };
    nodes::nodes(cx, nodes_area, buf, nodes::FEW, &rows);
    let mut top = nodes_area.bottom();
    let mut take = |height: u16| {
        let rect = Rect {
            y: top,
            height: height.min(inner.bottom() - top),
            ..inner
        };
        top = rect.bottom();
        rect
    };
    if database_height > 0 {
        divide(cx, area, take(1), buf, database::title(cx));
        database::few(cx, take(database_height - 1), buf);
    }
    if alerts_height > 0 {
        divide(cx, area, take(1), buf, alerts_title(cx));
        alerts_into(cx, take(alerts_height - 1), buf, alerts);
    }
    divide(cx, area, take(1), buf, title(cx, "Events"));
    events::newest(cx, take(inner.height), buf);
}

/// A rule across the pane with the title of what follows.
fn divide(cx: &Cx<'_>, pane: Rect, rule: Rect, buf: &mut Buffer, title: Line<'static>) {
    if rule.height == 0 {
        return;
    }
    let cells = usize::from(pane.width.saturating_sub(2));
    let (left, dash, right) = if cx.theme.ascii {
        ("+", "-", "+")
    } else {
        ("├", "─", "┤")
    };
    let whole = Rect {
        x: pane.x,
        width: pane.width,
        ..rule
    };
    let line = span(cx.theme, Tone::Dim, format!("{left}{}{right}", dash.repeat(cells)));
    put(buf, cx.theme, whole, 0, line.into());
    let mut spans = vec![Span::raw(" ")];
    spans.extend(title.spans);
    spans.push(Span::raw(" "));
    put(buf, cx.theme, rule, 0, Line::from(spans));
}

fn alerts_title(cx: &Cx<'_>) -> Line<'static> {
    let count = cx.cluster.alerts.len();
    Line::from(vec![
        span(cx.theme, Tone::Strong, "Alerts"),
        span(cx.theme, Tone::Warn, format!("  {count}")),
    ])
}

/// The alerts, the worst first, each with what to do about it.
fn alert_lines(cx: &Cx<'_>, width: u16) -> Vec<Line<'static>> {
    let theme = cx.theme;
    let mut alerts: Vec<_> = cx.cluster.alerts.iter().collect();
    alerts.sort_by_key(|a| std::cmp::Reverse(a.severity));
    let room = usize::from(width).saturating_sub(4);
    let mut lines = Vec::new();
    for alert in alerts {
        let (glyph, tone) = theme.severity(alert.severity());
        let age = match alert.since_unix_ms {
            0 => String::new(),
            since => format!(" ({})", text::span_short(cx.server_now().saturating_sub(since))),
        };
        let said = format!("{}{age}", alert.text);
        for (i, part) in text::wrap(&said, room).into_iter().take(2).enumerate() {
            let head = if i == 0 { glyph } else { " " };
            lines.push(line(theme, tone, format!(" {head} {part}")));
        }
        if !alert.hint.is_empty() {
            lines.push(line(theme, Tone::Plain, format!("   next  {}", alert.hint)));
        }
    }
    lines
}

/// Draws the alerts; the last line counts those that have no room.
fn alerts_into(cx: &Cx<'_>, area: Rect, buf: &mut Buffer, lines: Vec<Line<'static>>) {
    let room = usize::from(area.height);
    let hidden = lines.len().saturating_sub(room);
    for (row, text) in (0..area.height).zip(lines) {
        let last = usize::from(row) + 1 == room;
        let text = if hidden > 0 && last {
            line(
                cx.theme,
                Tone::Dim,
                format!("   {} more lines: hactl cluster status", hidden + 1),
            )
        } else {
            text
        };
        put(buf, cx.theme, area, row, text);
    }
}

fn session(cx: &Cx<'_>) -> Line<'static> {
    let timeout = cx.cluster.session_timeout_ms;
    if timeout == 0 {
        return Line::default();
    }
    line(
        cx.theme,
        Tone::Dim,
        format!("session timeout {}.{} s", timeout / 1000, timeout % 1000 / 100),
    )
}

fn zookeeper(cx: &Cx<'_>, area: Rect, buf: &mut Buffer) {
    for (row, server) in (0..area.height).zip(&cx.cluster.zookeeper) {
        let (tone, word) = if server.reachable {
            (
                Tone::Good,
                if server.mode.is_empty() {
                    "reachable"
                } else {
                    &server.mode
                },
            )
        } else {
            (Tone::Bad, "unreachable")
        };
        let glyph = if server.reachable {
            cx.theme.glyph(Tone::Good)
        } else {
            cx.theme.glyph(Tone::Bad)
        };
        let more = if server.reachable {
            &server.version
        } else {
            &server.error
        };
        let address = text::fit(&server.address, 22, false, cx.theme.ellipsis());
        let spans = vec![
            Span::raw(format!(" {address}  ")),
            span(cx.theme, tone, format!("{glyph} {word:11}")),
            span(cx.theme, Tone::Dim, format!(" {more}")),
        ];
        put(buf, cx.theme, area, row, Line::from(spans));
    }
}
