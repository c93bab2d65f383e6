//! The screen. [`render`] is pure: the same state, time and size give the same buffer, whatever the size.

pub(crate) mod canvas;
mod overlay;
mod status;
mod summary;
pub(crate) mod table;

use jiff::{Timestamp, tz::TimeZone};
use ratatui::{
    buffer::Buffer,
    layout::{Rect, Size},
    text::Line,
};

use super::{
    cluster::Cluster,
    state::{Overlay, State},
    theme::{Theme, Tone},
};
use canvas::{pane, put, span};

/// The least size of a screen; a smaller one gets a summary.
const LEAST: Size = Size { width: 60, height: 15 };
/// From this width on panes stand side by side.
pub(crate) const SPLIT: u16 = 120;

/// The time to draw for.
#[derive(Debug, Clone)]
pub(crate) struct Now {
    /// This process's monotonic clock, in milliseconds.
    pub(crate) mono: i64,
    /// This machine's clock, milliseconds since 1970.
    pub(crate) wall_ms: i64,
    /// Where the operator is.
    pub(crate) zone: TimeZone,
}

impl Now {
    fn at(&self, unix_ms: i64, format: &str) -> String {
        let time = Timestamp::from_millisecond(unix_ms).unwrap_or(Timestamp::UNIX_EPOCH);
        time.to_zoned(self.zone.clone()).strftime(format).to_string()
    }

    /// The time of day; with its date where that is another day than `today`.
    pub(crate) fn time(&self, unix_ms: i64, today: i64) -> String {
        if self.at(unix_ms, "%F") == self.at(today, "%F") {
            self.at(unix_ms, "%T")
        } else {
            self.at(unix_ms, "%d %b %H:%M")
        }
    }

    /// Date and time.
    pub(crate) fn date(&self, unix_ms: i64) -> String {
        self.at(unix_ms, "%F %T")
    }
}

/// What a view draws from.
pub(crate) struct Cx<'a> {
    /// Everything.
    pub(crate) state: &'a State,
    /// The cluster to show.
    pub(crate) cluster: &'a Cluster,
    /// The monotonic time to show it for: a held screen keeps its own.
    pub(crate) mono: i64,
    /// The time.
    pub(crate) now: &'a Now,
    /// Colours and glyphs.
    pub(crate) theme: Theme,
}

impl Cx<'_> {
    /// The master's clock.
    pub(crate) fn server_now(&self) -> i64 {
        self.cluster.server_now(self.mono)
    }

    /// The time of day, or the day where it is another one: at most 8 cells.
    pub(crate) fn moment(&self, unix_ms: i64) -> String {
        let time = self.time(unix_ms);
        if time.len() <= 8 {
            time
        } else {
            self.now.at(unix_ms, "%d %b")
        }
    }

    /// The time of day of a moment on the master's clock.
    pub(crate) fn time(&self, unix_ms: i64) -> String {
        self.now.time(unix_ms, self.server_now())
    }
}

/// The lines a screen of this size has for its parts.
struct Parts {
    status: Rect,
    tabs: Rect,
    banner: Rect,
    body: Rect,
    note: Rect,
    footer: Rect,
}

fn parts(state: &State, size: Size) -> Parts {
    let banner = u16::from(state.shown().is_some_and(|c| c.maintenance.is_some()));
    let note = status::note_lines(state, size.width);
    let note = u16::try_from(note.len()).unwrap_or(u16::MAX).min(size.height / 3);
    let mut top = 0;
    let mut take = |height: u16| {
        let rect = Rect {
            x: 0,
            y: top,
            width: size.width,
            height: height.min(size.height - top),
        };
        top += rect.height;
        rect
    };
    let (status, tabs, banner) = (take(1), take(1), take(banner));
    let rest = size.height.saturating_sub(status.height + tabs.height + banner.height);
    Parts {
        status,
        tabs,
        banner,
        body: take(rest.saturating_sub(note + 1)),
        note: take(note),
        footer: take(1),
    }
}

/// Draws everything.
pub(crate) fn render(state: &State, now: &Now, size: Size) -> Buffer {
    let whole = Rect {
        x: 0,
        y: 0,
        width: size.width,
        height: size.height,
    };
    let mut buf = Buffer::empty(whole);
    if size.width < LEAST.width || size.height < LEAST.height {
        summary::render(state, now, whole, &mut buf);
        return finish(state.theme, buf);
    }
    let parts = parts(state, size);
    let stale = state.stale(now.mono);
    if let Some(cluster) = state.shown() {
        let mono = state.frozen.as_ref().map_or(now.mono, |f| f.mono);
        let cx = Cx {
            state,
            cluster,
            mono,
            now,
            theme: state.theme,
        };
        status::banner(&cx, parts.banner, &mut buf);
        match &state.opened {
            Some(opened) => {
                let (title, lines) = opened_lines(&cx, &opened.key, parts.body);
                let title = Line::from(span(cx.theme, Tone::Strong, title));
                let close = Line::from(span(cx.theme, Tone::Dim, "Esc closes"));
                let inner = pane(&mut buf, cx.theme, parts.body, title, close);
                canvas::scrolled(&mut buf, cx.theme, inner, lines, opened.scroll);
            }
            None => state.view().render(&cx, parts.body, &mut buf),
        }
    } else {
        status::connecting(state, parts.body, &mut buf);
    }
    if stale {
        for area in [parts.banner, parts.body] {
            buf.set_style(area, state.theme.stale());
        }
    }
    status::status(state, now, parts.status, &mut buf);
    status::tabs(state, now, parts.tabs, &mut buf);
    status::note(state, parts.note, &mut buf);
    status::footer(state, parts.footer, &mut buf);
    let over = Rect {
        height: parts.body.height + parts.note.height,
        ..parts.body
    };
    match &state.overlay {
        Some(Overlay::Help { scroll }) => overlay::help(state, over, *scroll, &mut buf),
        Some(Overlay::Confirm(confirmation)) => overlay::confirm(state, now, confirmation, over, &mut buf),
        Some(Overlay::Filter) | None => {}
    }
    finish(state.theme, buf)
}

/// Title and lines of an open row.
fn opened_lines(cx: &Cx<'_>, key: &str, body: Rect) -> (String, Vec<Line<'static>>) {
    match cx.state.view().detail(cx, key, body.width.saturating_sub(2)) {
        Some(detail) => (detail.title, detail.lines),
        None => {
            let gone = Line::from(span(cx.theme, Tone::Warn, format!("  {key} is not there any more")));
            (key.to_owned(), vec![Line::default(), gone])
        }
    }
}

/// How far what is open can be scrolled, in lines.
pub(crate) fn scroll_most(state: &State, now: &Now, size: Size) -> u16 {
    let parts = parts(state, size);
    let (lines, height) = match (&state.overlay, &state.opened, state.shown()) {
        (Some(Overlay::Help { .. }), _, _) => (
            overlay::help_lines(state).len(),
            (parts.body.height + parts.note.height).saturating_sub(2),
        ),
        (None, Some(opened), Some(cluster)) => {
            let cx = Cx {
                state,
                cluster,
                mono: now.mono,
                now,
                theme: state.theme,
            };
            (
                opened_lines(&cx, &opened.key, parts.body).1.len(),
                parts.body.height.saturating_sub(2),
            )
        }
        _ => return 0,
    };
    u16::try_from(lines).unwrap_or(u16::MAX).saturating_sub(height)
}

/// The last guard of the terminal: no cell holds a control character, nor, where so wished, anything but ASCII.
fn finish(theme: Theme, mut buf: Buffer) -> Buffer {
    for cell in &mut buf.content {
        let symbol = cell.symbol();
        if symbol.chars().any(char::is_control) || (theme.ascii && !symbol.is_ascii()) {
            cell.set_symbol("?");
        }
    }
    buf
}

/// A line in one tone, from the first column of a pane on.
pub(crate) fn line(theme: Theme, tone: Tone, text: impl Into<String>) -> Line<'static> {
    Line::from(span(theme, tone, text))
}

/// Writes `text` where a pane has nothing to show.
pub(crate) fn empty(buf: &mut Buffer, theme: Theme, area: Rect, text: &str) {
    put(
        buf,
        theme,
        area,
        1.min(area.height.saturating_sub(1)),
        line(theme, Tone::Dim, format!("   {text}")),
    );
}
