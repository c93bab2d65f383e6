//! Drawing on a buffer of any size: nothing here can write outside of it.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::Style,
    text::{Line, Span},
    widgets::{Block, Borders, Clear, Widget},
};

use crate::watch::{
    text,
    theme::{Theme, Tone},
};

/// A piece of text in a tone.
pub(crate) fn span(theme: Theme, tone: Tone, text: impl Into<String>) -> Span<'static> {
    Span::styled(text.into(), theme.style(tone))
}

/// Cells that a line takes.
pub(crate) fn width(line: &Line<'_>) -> usize {
    line.spans.iter().map(|s| text::width(&s.content)).sum()
}

/// `line` cut to `cells`.
pub(crate) fn cut(line: Line<'static>, cells: usize, theme: Theme) -> Line<'static> {
    if width(&line) <= cells {
        return line;
    }
    let mut room = cells;
    let mut spans = Vec::with_capacity(line.spans.len());
    let last = line.spans.len().saturating_sub(1);
    for (i, part) in line.spans.into_iter().enumerate() {
        let w = text::width(&part.content);
        // Where more follows, the last cell belongs to the ellipsis.
        if w < room || (w == room && i == last) {
            room -= w;
            spans.push(part);
            continue;
        }
        let content = format!("{}{}", part.content, theme.ellipsis());
        spans.push(Span::styled(text::cut(&content, room, theme.ellipsis()), part.style));
        break;
    }
    Line::from(spans)
}

/// Writes `line` into the row `row` of `area`, cut to its width.
pub(crate) fn put(buf: &mut Buffer, theme: Theme, area: Rect, row: u16, line: Line<'static>) {
    let area = area.intersection(buf.area);
    if row >= area.height || area.width == 0 {
        return;
    }
    let line = cut(line, usize::from(area.width), theme);
    buf.set_line(area.x, area.y + row, &line, area.width);
}

/// Writes `line` at the right end of the row `row` of `area`.
pub(crate) fn put_right(buf: &mut Buffer, theme: Theme, area: Rect, row: u16, line: Line<'static>) {
    let used = u16::try_from(width(&line)).unwrap_or(u16::MAX).min(area.width);
    let place = Rect {
        x: area.x + (area.width - used),
        width: used,
        ..area
    };
    put(buf, theme, place, row, line);
}

/// Lays a style over the row `row` of `area`.
pub(crate) fn tint(buf: &mut Buffer, area: Rect, row: u16, style: Style) {
    if row < area.height {
        buf.set_style(
            Rect {
                y: area.y + row,
                height: 1,
                ..area
            },
            style,
        );
    }
}

/// A frame with a title at the left and one at the right; what is inside of it.
pub(crate) fn pane(buf: &mut Buffer, theme: Theme, area: Rect, title: Line<'static>, right: Line<'static>) -> Rect {
    let area = area.intersection(buf.area);
    let block = Block::new()
        .borders(Borders::ALL)
        .border_set(theme.border())
        .border_style(theme.style(Tone::Dim));
    let inner = block.inner(area);
    block.render(area, buf);
    let bar = Rect {
        x: area.x.saturating_add(1),
        width: area.width.saturating_sub(2),
        height: area.height.min(1),
        ..area
    };
    let room = usize::from(bar.width);
    let left_width = width(&title);
    if left_width > 0 {
        put(buf, theme, bar, 0, padded(title));
    }
    let right_width = width(&right);
    if right_width > 0 && left_width + right_width + 5 <= room {
        put_right(buf, theme, bar, 0, padded(right));
    }
    inner
}

fn padded(mut line: Line<'static>) -> Line<'static> {
    line.spans.insert(0, Span::raw(" "));
    line.spans.push(Span::raw(" "));
    line
}

/// An empty place for a box of this size in the middle of `area`.
pub(crate) fn middle(buf: &mut Buffer, area: Rect, width: u16, height: u16) -> Rect {
    let (width, height) = (width.min(area.width), height.min(area.height));
    let place = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    Clear.render(place, buf);
    place
}

/// The text of a label and its value, the value wrapped under itself.
pub(crate) fn field(theme: Theme, label: &str, value: Vec<Span<'static>>, cells: u16) -> Vec<Line<'static>> {
    const LABEL: usize = 12;
    let room = usize::from(cells).saturating_sub(LABEL + 2);
    let head = span(
        theme,
        Tone::Dim,
        format!("  {}", text::fit(label, LABEL, false, theme.ellipsis())),
    );
    let value_line = Line::from(value);
    if width(&value_line) <= room || value_line.spans.len() != 1 {
        let mut line = value_line;
        line.spans.insert(0, head);
        return vec![cut(line, usize::from(cells), theme)];
    }
    let style = value_line.spans[0].style;
    let mut lines: Vec<Line<'static>> = Vec::new();
    for (i, part) in text::wrap(&value_line.spans[0].content, room).into_iter().enumerate() {
        let head = if i == 0 {
            head.clone()
        } else {
            Span::raw(" ".repeat(LABEL + 2))
        };
        lines.push(Line::from(vec![head, Span::styled(part, style)]));
    }
    lines
}

/// `lines` from `scroll` on, as many as there is room for.
pub(crate) fn scrolled(buf: &mut Buffer, theme: Theme, area: Rect, lines: Vec<Line<'static>>, scroll: u16) {
    let most = u16::try_from(lines.len())
        .unwrap_or(u16::MAX)
        .saturating_sub(area.height);
    for (row, line) in (0..area.height).zip(lines.into_iter().skip(usize::from(scroll.min(most)))) {
        put(buf, theme, area, row, line);
    }
}
