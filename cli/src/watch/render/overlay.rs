//! What lies over the screen: the help and the question before a change.

use ratatui::{buffer::Buffer, layout::Rect, text::Line};

use super::{
    Now,
    canvas::{middle, pane, put, scrolled, span},
    line,
};
use crate::watch::{act::Confirmation, keymap::BINDINGS, state::State, text, theme::Tone, views::VIEWS};

/// Every key, and what the glyphs mean.
pub(super) fn help_lines(state: &State) -> Vec<Line<'static>> {
    const KEYS: usize = 22;
    let theme = state.theme;
    let entry = |keys: &str, help: &str| {
        Line::from(vec![
            span(
                theme,
                Tone::Accent,
                format!("  {}", text::fit(keys, KEYS, false, theme.ellipsis())),
            ),
            span(theme, Tone::Plain, help.to_owned()),
        ])
    };
    let mut lines: Vec<Line<'static>> = BINDINGS
        .iter()
        .map(|b| entry(if theme.ascii { b.ascii } else { b.keys }, b.help))
        .collect();
    lines.push(Line::default());
    let acts = if state.allow_actions {
        "Capital letters act, after you typed the name of what they change"
    } else {
        "Capital letters act; this screen only shows (--allow-actions)"
    };
    lines.push(line(theme, Tone::Strong, acts));
    let mut known = Vec::new();
    for act in VIEWS.iter().flat_map(|v| v.acts()) {
        if !known.contains(&act.key) {
            known.push(act.key);
            lines.push(entry(&act.key.to_string(), act.help));
        }
    }
    lines.push(Line::default());
    lines.push(line(theme, Tone::Strong, "Where what is shown may be old"));
    lines.push(entry("live, 0.1 s", "age of the last frame; one comes every second"));
    lines.push(entry("STALE 12 s", "the stream is lost: the last frame stays, dimmed"));
    lines.push(entry("SEEN", "age of what a row shows"));
    lines
}

/// The help.
pub(super) fn help(state: &State, area: Rect, scroll: u16, buf: &mut Buffer) {
    let theme = state.theme;
    let lines = help_lines(state);
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX);
    let place = middle(buf, area, 88, height);
    let title = line(theme, Tone::Strong, "Keys");
    let inner = pane(buf, theme, place, title, line(theme, Tone::Dim, "Esc closes"));
    scrolled(buf, theme, inner, lines, scroll);
}

/// The question before a change.
pub(super) fn confirm(state: &State, now: &Now, confirmation: &Confirmation, area: Rect, buf: &mut Buffer) {
    let theme = state.theme;
    let act = &confirmation.act;
    let cells = 64.min(area.width);
    let room = usize::from(cells).saturating_sub(4);
    let mut lines: Vec<Line<'static>> = Vec::new();
    let mut say = |tone: Tone, text: &str| {
        lines.extend(
            text::wrap(text, room)
                .into_iter()
                .map(|part| line(theme, tone, format!(" {part}"))),
        );
    };
    say(Tone::Plain, &act.meaning());
    if state.stale(now.mono)
        && let Some(cluster) = &state.cluster
    {
        let old = text::age_whole(cluster.silence(now.mono));
        say(
            Tone::Warn,
            &format!("{} the screen is {old} old", theme.glyph(Tone::Warn)),
        );
    }
    lines.push(Line::default());
    lines.push(Line::from(vec![
        span(theme, Tone::Plain, format!(" Type {} and press Enter: ", act.subject())),
        span(theme, Tone::Accent, format!("{}{}", confirmation.typed, theme.caret())),
    ]));
    let answer = if confirmation.wrong {
        line(
            theme,
            Tone::Bad,
            format!(" {} that is not {}", theme.glyph(Tone::Bad), act.subject()),
        )
    } else {
        line(theme, Tone::Dim, " Esc cancels")
    };
    lines.push(answer);
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX);
    let place = middle(buf, area, cells, height);
    let inner = pane(
        buf,
        theme,
        place,
        line(theme, Tone::Strong, act.title()),
        Line::default(),
    );
    for (row, line) in (0..inner.height).zip(lines) {
        put(buf, theme, inner, row, line);
    }
}
