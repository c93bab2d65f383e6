//! What fits where a screen does not: the cluster in a few lines, the most important first.

use ha_proto::v1::GroupHealth;
use ratatui::{buffer::Buffer, layout::Rect, text::Line};

use super::{
    LEAST, Now,
    canvas::{put, span},
    line, status,
};
use crate::watch::{state::State, theme::Tone};

/// Draws the summary.
pub(super) fn render(state: &State, now: &Now, area: Rect, buf: &mut Buffer) {
    let theme = state.theme;
    let mut lines: Vec<Line<'static>> = Vec::new();
    lines.push(Line::from(status::stream(state, now, usize::from(area.width))));
    if let Some(cluster) = state.shown() {
        let (health, tone) = theme.verdict(cluster.health().verdict);
        let head = Line::from(vec![
            span(theme, Tone::Strong, format!("{} ", cluster.name)),
            span(theme, tone, health),
        ]);
        lines.insert(0, head);
        let master = if cluster.master.node.is_empty() {
            "none"
        } else {
            &cluster.master.node
        };
        lines.push(line(
            theme,
            Tone::Plain,
            format!("master {master} ({})", cluster.master.term),
        ));
        for (state, count) in cluster.counts() {
            let (glyph, tone) = theme.state(state);
            lines.push(line(theme, tone, format!("{glyph} {count} {}", state.word())));
        }
        for row in cluster.groups.values() {
            let primary = if row.primary().is_empty() {
                "none"
            } else {
                row.primary()
            };
            let health = row.group.health();
            let tone = match health {
                GroupHealth::Healthy => Tone::Good,
                GroupHealth::Degraded => Tone::Warn,
                GroupHealth::NoPrimary | GroupHealth::Unspecified => Tone::Bad,
            };
            let glyph = theme.glyph(tone);
            let text = format!("{glyph} {}: primary {primary}, {}", row.group.name, health.word());
            lines.push(line(theme, tone, text));
        }
        let (up, all) = cluster.quorum();
        lines.push(line(theme, Tone::Plain, format!("zookeeper {up}/{all}")));
        if cluster.maintenance.is_some() {
            lines.push(line(
                theme,
                Tone::Warn,
                format!("{} maintenance", theme.glyph(Tone::Warn)),
            ));
        }
        for alert in &cluster.alerts {
            let (glyph, tone) = theme.severity(alert.severity());
            lines.push(line(theme, tone, format!("{glyph} {}", alert.text)));
        }
    }
    if state.overlay.is_some() {
        lines.insert(
            lines.len().min(2),
            line(theme, Tone::Warn, "too small for this: Esc closes"),
        );
    }
    let hint = format!("{}x{} and more shows all", LEAST.width, LEAST.height);
    let room = usize::from(area.height);
    if lines.len() < room {
        lines.push(line(theme, Tone::Dim, hint));
    }
    for (row, line) in (0..area.height).zip(lines) {
        put(buf, theme, area, row, line);
    }
    if state.stale(now.mono) {
        let rest = Rect {
            y: area.y + 2.min(area.height),
            height: area.height.saturating_sub(2),
            ..area
        };
        buf.set_style(rest, theme.stale());
        buf.set_style(
            Rect {
                height: area.height.min(1),
                ..area
            },
            theme.stale(),
        );
    }
}
