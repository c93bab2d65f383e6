//! Tables that fit: columns that matter least go first, what is too long is cut, and only rows in sight are made.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    text::{Line, Span},
};

use super::canvas;
use crate::watch::{
    text,
    theme::{Theme, Tone},
};

/// A column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    /// Its head.
    pub(crate) title: &'static str,
    /// It is never narrower; what does not fit is cut.
    pub(crate) min: u16,
    /// It is not narrower for the sake of a column that could go.
    pub(crate) good: u16,
    /// Nor wider.
    pub(crate) max: u16,
    /// The column with the highest number goes first when there is no room; 0 never goes.
    pub(crate) drop: u8,
    /// Numbers stand at the right.
    pub(crate) right: bool,
}

impl Column {
    /// A column of at least `min` and at most `max` cells.
    pub(crate) const fn new(title: &'static str, min: u16, max: u16, drop: u8) -> Self {
        Self {
            title,
            min,
            good: min,
            max,
            drop,
            right: false,
        }
    }

    /// It has this width before any column from [`EXTRA`] on is shown.
    pub(crate) const fn good(mut self, cells: u16) -> Self {
        self.good = cells;
        self
    }

    /// Its text stands at the right.
    pub(crate) const fn right(mut self) -> Self {
        self.right = true;
        self
    }
}

const GAP: u16 = 2;
/// The pointer and a blank on each side of it.
const MARGIN: u16 = 3;

/// Columns with this number or a higher one are shown only where the others have a good width.
const EXTRA: u8 = 5;

/// The columns that fit into `room`, with their widths. `wanted` is what their contents take.
fn widths(columns: &[Column], wanted: &[u16], room: u16) -> Vec<(usize, u16)> {
    let want = |i: usize| {
        wanted
            .get(i)
            .copied()
            .unwrap_or(0)
            .clamp(columns[i].min, columns[i].max)
    };
    let sum = |kept: &[usize], width: &dyn Fn(usize) -> u16| -> u32 {
        let gaps = u32::from(GAP) * u32::try_from(kept.len().saturating_sub(1)).unwrap_or(0);
        gaps + kept.iter().map(|i| u32::from(width(*i))).sum::<u32>()
    };
    let min = |i: usize| columns[i].min;
    let good = |i: usize| want(i).min(columns[i].good.max(columns[i].min));
    let mut kept: Vec<usize> = (0..columns.len()).collect();
    while let Some(last) = kept
        .iter()
        .copied()
        .max_by_key(|i| columns[*i].drop)
        .filter(|i| columns[*i].drop > 0)
    {
        let needed = if columns[last].drop >= EXTRA {
            sum(&kept, &good)
        } else {
            sum(&kept, &min)
        };
        if needed <= u32::from(room) {
            break;
        }
        kept.retain(|i| *i != last);
    }
    // First every column has its least, then each what is good, then what it wants.
    let mut out: Vec<(usize, u16)> = kept.iter().map(|i| (*i, min(*i))).collect();
    let mut left = u32::from(room).saturating_sub(sum(&kept, &min));
    for target in [&good as &dyn Fn(usize) -> u16, &want] {
        for (i, width) in &mut out {
            let more = u32::from(target(*i).saturating_sub(*width)).min(left);
            left -= more;
            *width += u16::try_from(more).unwrap_or(0);
        }
    }
    out
}

/// The rows in sight: `height` of `total`, with the selected one near the middle where there is more on both sides.
pub(crate) fn window(total: usize, selected: Option<usize>, height: usize) -> std::ops::Range<usize> {
    let at = selected.unwrap_or(0);
    let first = at.saturating_sub(height / 2).min(total.saturating_sub(height));
    first..total.min(first + height)
}

/// Draws a head and the rows in sight. Says which they are, where they are not all.
pub(crate) fn table(
    buf: &mut Buffer,
    theme: Theme,
    area: Rect,
    columns: &[Column],
    (total, selected): (usize, Option<usize>),
    row: impl Fn(usize) -> Vec<Line<'static>>,
) {
    let height = usize::from(area.height.saturating_sub(1));
    let seen = window(total, selected, height);
    let cells: Vec<Vec<Line<'static>>> = seen.clone().map(&row).collect();
    let wanted: Vec<u16> = (0..columns.len())
        .map(|i| {
            let widest = cells
                .iter()
                .filter_map(|r| r.get(i))
                .map(canvas::width)
                .max()
                .unwrap_or(0);
            u16::try_from(widest.max(columns[i].title.len())).unwrap_or(u16::MAX)
        })
        .collect();
    let widths = widths(columns, &wanted, area.width.saturating_sub(MARGIN + 1));
    let place = |i: usize, width: u16, line: Line<'static>| -> Vec<Span<'static>> {
        let mut line = canvas::cut(line, usize::from(width), theme);
        let fill = Span::raw(" ".repeat(usize::from(width).saturating_sub(canvas::width(&line))));
        if columns[i].right {
            line.spans.insert(0, fill);
        } else {
            line.spans.push(fill);
        }
        line.spans
    };
    let mut head = vec![Span::raw(" ".repeat(usize::from(MARGIN)))];
    let gap = |at: usize| Span::raw(" ".repeat(usize::from(if at == 0 { 0 } else { GAP })));
    for (at, (i, width)) in widths.iter().enumerate() {
        let title = text::cut(columns[*i].title, usize::from(*width), theme.ellipsis());
        head.push(gap(at));
        head.extend(place(*i, *width, canvas::span(theme, Tone::Dim, title).into()));
    }
    canvas::put(buf, theme, area, 0, Line::from(head));
    for ((at, mut cells), y) in seen.clone().zip(cells).zip(1..) {
        let chosen = selected == Some(at);
        let pointer = if chosen { theme.pointer() } else { " " };
        let mut line = vec![Span::raw(format!(" {pointer} "))];
        for (at, (i, width)) in widths.iter().enumerate() {
            let cell = cells.get_mut(*i).map(std::mem::take).unwrap_or_default();
            line.push(gap(at));
            line.extend(place(*i, *width, cell));
        }
        canvas::put(buf, theme, area, y, Line::from(line));
        if chosen {
            canvas::tint(buf, area, y, theme.selected());
        }
    }
    if seen.len() < total && area.width > 0 && area.height > 0 {
        bar(buf, theme, area, &seen, total);
    }
}

/// A bar at the right edge shows which part of the rows is in sight.
fn bar(buf: &mut Buffer, theme: Theme, area: Rect, seen: &std::ops::Range<usize>, total: usize) {
    let height = usize::from(area.height.saturating_sub(1));
    if height == 0 || total == 0 {
        return;
    }
    let thumb = (height * seen.len() / total).max(1);
    let first = (height - thumb) * seen.start / (total - seen.len()).max(1);
    let place = Rect {
        x: area.right().saturating_sub(1),
        width: 1,
        ..area
    };
    let glyph = if theme.ascii { "#" } else { "┃" };
    for y in first..first + thumb {
        let row = u16::try_from(y + 1).unwrap_or(u16::MAX);
        canvas::put(buf, theme, place, row, canvas::span(theme, Tone::Dim, glyph).into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [
        Column::new("NAME", 4, 20, 0),
        Column::new("CPU", 3, 3, 1),
        Column::new("SEEN", 4, 30, 2),
    ];

    #[test]
    fn the_least_important_column_goes_first() {
        assert_eq!(widths(&COLUMNS, &[10, 3, 20], 80), [(0, 10), (1, 3), (2, 20)]);
        assert_eq!(widths(&COLUMNS, &[10, 3, 20], 25), [(0, 10), (1, 3), (2, 8)]);
        assert_eq!(widths(&COLUMNS, &[10, 3, 20], 14), [(0, 9), (1, 3)]);
        assert_eq!(widths(&COLUMNS, &[10, 3, 20], 5), [(0, 5)]);
        assert_eq!(widths(&COLUMNS, &[10, 3, 20], 0), [(0, 4)]);
    }

    #[test]
    fn an_extra_column_takes_nothing_that_is_good() {
        let columns = [
            Column::new("NAME", 4, 20, 0),
            Column::new("SEEN", 4, 60, 1).good(12),
            Column::new("DISK", 6, 6, 5),
        ];
        assert_eq!(widths(&columns, &[4, 40, 6], 25), [(0, 4), (1, 19)]);
        assert_eq!(widths(&columns, &[4, 40, 6], 26), [(0, 4), (1, 12), (2, 6)]);
        assert_eq!(widths(&columns, &[4, 4, 6], 18), [(0, 4), (1, 4), (2, 6)]);
    }

    #[test]
    fn the_window_keeps_the_selected_row_in_sight() {
        assert_eq!(window(5, None, 10), 0..5);
        assert_eq!(window(1000, Some(0), 10), 0..10);
        assert_eq!(window(1000, Some(500), 10), 495..505);
        assert_eq!(window(1000, Some(999), 10), 990..1000);
        assert_eq!(window(0, None, 10), 0..0);
        assert_eq!(window(10, Some(3), 0), 3..3);
    }
}
