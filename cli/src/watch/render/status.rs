//! The lines round the body: status, tabs, maintenance, messages, footer.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    text::{Line, Span},
};

use super::{
    Cx, Now,
    canvas::{put, put_right, span},
};
use crate::watch::{
    cluster::Cluster,
    state::{Note, Overlay, State},
    text,
    theme::{Theme, Tone},
    views::VIEWS,
};

/// Place of the clock among the parts of the status line.
const CLOCK: u8 = 6;

/// A part of the status line; those with low numbers come first when there is little room, 0 is always there.
struct Part {
    drop: u8,
    spans: Vec<Span<'static>>,
}

impl Part {
    fn new(drop: u8, spans: Vec<Span<'static>>) -> Self {
        Self { drop, spans }
    }

    fn width(&self) -> usize {
        self.spans.iter().map(|s| text::width(&s.content)).sum()
    }
}

/// Cluster, master, quorum and revision at the left; how old all that is, at the right.
pub(super) fn status(state: &State, now: &Now, area: Rect, buf: &mut Buffer) {
    let theme = state.theme;
    let room = usize::from(area.width).saturating_sub(2);
    let stale = state.stale(now.mono);
    let mut left = state.shown().map(|c| cluster_parts(c, theme)).unwrap_or_default();
    let mut right = vec![Part::new(0, stream(state, now, room.saturating_sub(26)))];
    right.push(Part::new(
        CLOCK,
        vec![span(theme, Tone::Plain, now.at(now.wall_ms, "%T"))],
    ));
    // The most important first, as far as they fit; the clock takes what is left.
    let mut order: Vec<(u8, usize)> = left.iter().chain(&right).map(|p| (p.drop, p.width() + 3)).collect();
    order.sort_unstable();
    let mut free = room + 3;
    let mut kept = Vec::new();
    let mut full = false;
    for (drop, width) in order {
        full |= width > free && drop < CLOCK;
        if drop == 0 || (width <= free && (!full || drop == CLOCK)) {
            free = free.saturating_sub(width);
            kept.push(drop);
        }
    }
    left.retain(|p| kept.contains(&p.drop));
    right.retain(|p| kept.contains(&p.drop));
    let inner = Rect {
        x: area.x + 1,
        width: area.width.saturating_sub(2),
        ..area
    };
    let right_width = right.iter().map(|p| p.width() + 3).sum::<usize>().saturating_sub(3);
    let left_room = inner
        .width
        .saturating_sub(u16::try_from(right_width + 1).unwrap_or(u16::MAX));
    put(
        buf,
        theme,
        Rect {
            width: left_room,
            ..inner
        },
        0,
        joined(left),
    );
    if stale {
        buf.set_style(
            Rect {
                width: left_room,
                ..inner
            },
            theme.stale(),
        );
    }
    put_right(buf, theme, inner, 0, joined(right));
}

fn joined(parts: Vec<Part>) -> Line<'static> {
    let mut spans = Vec::new();
    for part in parts {
        if !spans.is_empty() {
            spans.push(Span::raw("   "));
        }
        spans.extend(part.spans);
    }
    Line::from(spans)
}

fn cluster_parts(cluster: &Cluster, theme: Theme) -> Vec<Part> {
    let (health, tone) = theme.verdict(cluster.health().verdict);
    let mut head = vec![
        span(
            theme,
            Tone::Strong,
            format!("{} ", text::cut(&cluster.name, 24, theme.ellipsis())),
        ),
        span(theme, tone, health),
    ];
    if cluster.maintenance.is_some() {
        head.push(span(theme, Tone::Warn, " (maintenance)"));
    }
    let master = &cluster.master;
    let master = if master.node.is_empty() {
        span(theme, Tone::Bad, format!("no master (term {})", master.term))
    } else {
        span(
            theme,
            Tone::Plain,
            format!(
                "master {} ({})",
                text::cut(&master.node, 20, theme.ellipsis()),
                master.term
            ),
        )
    };
    let (up, all) = cluster.quorum();
    let tone = if up == all { Tone::Plain } else { Tone::Warn };
    vec![
        Part::new(0, head),
        Part::new(3, vec![master]),
        Part::new(4, vec![span(theme, tone, format!("zookeeper {up}/{all}"))]),
        Part::new(
            5,
            vec![span(theme, Tone::Plain, format!("revision {}", cluster.revision))],
        ),
    ]
}

/// How old the screen is, in at most `room` cells.
pub(super) fn stream(state: &State, now: &Now, room: usize) -> Vec<Span<'static>> {
    let theme = state.theme;
    let link = &state.link;
    let Some(cluster) = &state.cluster else {
        return vec![span(theme, Tone::Warn, "connecting")];
    };
    let silence = cluster.silence(now.mono);
    if !state.stale(now.mono) {
        return vec![span(theme, Tone::Good, format!("live, {}", text::age(silence)))];
    }
    let server = text::cut(cluster.node_at(&link.endpoint), 24, theme.ellipsis());
    let age = format!("STALE {}", text::age_whole(silence));
    let forms = if link.lost.is_some() {
        [
            format!("{age}, reconnecting to {server} (attempt {})", link.attempt),
            format!("{age}, {server} (attempt {})", link.attempt),
        ]
    } else {
        [format!("{age}, waiting for {server}"), format!("{age}, {server}")]
    };
    let text = forms.into_iter().find(|f| text::width(f) <= room).unwrap_or(age);
    vec![span(theme, Tone::Bad, text)]
}

/// The views, and what is special about the screen.
pub(super) fn tabs(state: &State, now: &Now, area: Rect, buf: &mut Buffer) {
    let theme = state.theme;
    let mut spans = vec![Span::raw(" ")];
    for (i, view) in VIEWS.iter().enumerate() {
        if i == state.view {
            // Brackets say it where reversed letters cannot be seen.
            let style = theme.style(Tone::Accent);
            spans.push(Span::styled(format!("[{}]", view.title()), style));
        } else {
            spans.push(Span::raw(format!(" {} ", view.title())));
        }
    }
    put(buf, theme, area, 0, Line::from(spans));
    let right = Rect {
        width: area.width.saturating_sub(1),
        ..area
    };
    if let Some(frozen) = &state.frozen {
        let missed = state.cluster.as_ref().map_or(0, |c| newer(c, &frozen.cluster));
        let held = text::age_whole(now.mono.saturating_sub(frozen.mono));
        let line = format!("PAUSED {held}, {missed} new events, Space goes on");
        put_right(buf, theme, right, 0, span(theme, Tone::Warn, line).into());
    } else if state.stale(now.mono)
        && let Some(error) = &state.link.lost
    {
        let room = usize::from(area.width).saturating_sub(44);
        let line = text::cut(error.message(), room, theme.ellipsis());
        put_right(buf, theme, right, 0, span(theme, Tone::Warn, line).into());
    }
}

/// Changes that came after those of the held screen.
fn newer(live: &Cluster, held: &Cluster) -> usize {
    let last = held.changes.keys().next_back().copied().unwrap_or(0);
    live.changes.range(last.saturating_add(1)..).count()
}

/// Maintenance, while it is on.
pub(super) fn banner(cx: &Cx<'_>, area: Rect, buf: &mut Buffer) {
    let Some(maintenance) = &cx.cluster.maintenance else {
        return;
    };
    let mut line = format!(" {} maintenance is on", cx.theme.glyph(Tone::Warn));
    if maintenance.until_unix_ms > 0 {
        let left = maintenance.until_unix_ms.saturating_sub(cx.server_now());
        line += &format!(
            " until {} ({} left)",
            cx.time(maintenance.until_unix_ms),
            text::span(left)
        );
    }
    if !maintenance.actor.is_empty() {
        line += &format!(", by {}", maintenance.actor);
    }
    if !maintenance.reason.is_empty() {
        line += &format!(": {}", maintenance.reason);
    }
    put(buf, cx.theme, area, 0, span(cx.theme, Tone::Warn, line).into());
}

/// The body before the first frame.
pub(super) fn connecting(state: &State, area: Rect, buf: &mut Buffer) {
    let theme = state.theme;
    let link = &state.link;
    let mut lines = vec![Line::default()];
    if link.endpoint.is_empty() {
        lines.push(span(theme, Tone::Plain, "   connecting").into());
    } else {
        let line = format!("   connecting to {} (attempt {})", link.endpoint, link.attempt.max(1));
        lines.push(span(theme, Tone::Plain, line).into());
    }
    if let Some(error) = &link.lost {
        lines.push(Line::default());
        let said = format!("{} {}", error.code(), error.message());
        for text in std::iter::once(&said).chain(error.reasons()) {
            for part in text::wrap(text, usize::from(area.width).saturating_sub(6)) {
                lines.push(span(theme, Tone::Warn, format!("   {part}")).into());
            }
        }
    }
    for (row, line) in (0..area.height).zip(lines) {
        put(buf, theme, area, row, line);
    }
}

/// Cells of the labels in a message.
const LABEL: usize = 6;

/// The lines of the messages, wrapped.
pub(super) fn note_lines(state: &State, cells: u16) -> Vec<Line<'static>> {
    let theme = state.theme;
    let mut lines = Vec::new();
    for note in [&state.notice, &state.note].into_iter().flatten() {
        lines.extend(said(note, theme, cells));
    }
    if let Some(act) = &state.acting {
        let text = format!("   {}: waiting for the answer", act.title());
        lines.push(span(theme, Tone::Accent, text).into());
    }
    lines
}

fn said(note: &Note, theme: Theme, cells: u16) -> Vec<Line<'static>> {
    let mut lines: Vec<Line<'static>> = Vec::new();
    for (label, text) in &note.lines {
        let label = match *label {
            "" => String::new(),
            label => text::fit(label, LABEL, false, ""),
        };
        let indent = text::width(&label);
        let room = usize::from(cells).saturating_sub(indent + 4);
        for (i, part) in text::wrap(text, room).into_iter().enumerate() {
            let glyph = if lines.is_empty() { theme.glyph(note.tone) } else { " " };
            let label = if i == 0 { label.clone() } else { " ".repeat(indent) };
            let tone = if indent == 0 { note.tone } else { Tone::Plain };
            lines.push(Line::from(vec![
                span(theme, note.tone, format!(" {glyph} ")),
                span(theme, Tone::Dim, label),
                span(theme, tone, part),
            ]));
        }
    }
    lines
}

/// The message.
pub(super) fn note(state: &State, area: Rect, buf: &mut Buffer) {
    for (row, line) in (0..area.height).zip(note_lines(state, area.width)) {
        put(buf, state.theme, area, row, line);
    }
}

/// The keys that mean something now, as many as there is room for.
pub(super) fn footer(state: &State, area: Rect, buf: &mut Buffer) {
    let theme = state.theme;
    let arrows = theme.arrows();
    // Those with high numbers go first when there is little room.
    let mut keys: Vec<(u8, String, &str)> = Vec::new();
    let mut key = |drop: u8, name: &str, does: &'static str| keys.push((drop, name.to_owned(), does));
    match (&state.overlay, &state.opened) {
        (Some(Overlay::Help { .. }), _) => {
            key(1, arrows, "scroll");
            key(0, "Esc", "close");
        }
        (Some(Overlay::Filter), _) => {
            let typed = format!(" / {}{}", state.list().filter, theme.caret());
            let line = Line::from(vec![
                span(theme, Tone::Accent, typed),
                span(theme, Tone::Dim, "   Enter keep  Esc clear  all words must occur"),
            ]);
            return put(buf, theme, area, 0, line);
        }
        (Some(Overlay::Confirm(_)), _) => {
            key(0, "Enter", "confirm");
            key(0, "Esc", "cancel");
        }
        (None, opened) => {
            if opened.is_some() {
                key(3, arrows, "scroll");
                key(1, "Esc", "back");
            } else {
                key(3, arrows, "select");
                key(4, "Enter", "open");
                key(5, "/", "filter");
                key(7, "s", "sort");
                key(2, "Tab", "view");
            }
            if state.frozen.is_some() {
                key(1, "Space", "go on");
            } else {
                key(6, "Space", "pause");
            }
            if state.allow_actions {
                for act in state.view().acts() {
                    key(3, &act.key.to_string(), act.label);
                }
            }
            key(0, "?", "help");
            key(0, "q", "quit");
        }
    }
    let taken = |keys: &[(u8, String, &str)]| -> usize {
        keys.iter().map(|(_, k, d)| text::width(k) + d.len() + 3).sum::<usize>()
    };
    while taken(&keys) > usize::from(area.width) + 1 {
        let Some(at) = (0..keys.len())
            .max_by_key(|at| keys[*at].0)
            .filter(|at| keys[*at].0 > 0)
        else {
            break;
        };
        keys.remove(at);
    }
    let mut spans = Vec::new();
    for (_, name, does) in keys {
        spans.push(Span::raw(if spans.is_empty() { " " } else { "  " }));
        spans.push(span(theme, Tone::Accent, name));
        spans.push(Span::raw(format!(" {does}")));
    }
    put(buf, theme, area, 0, Line::from(spans));
}
