//! Text as the dashboard writes it: strings of the server made harmless, spans of time, sizes, cutting and wrapping.
//!
//! Everything here is pure. Nothing that came from a server reaches a terminal without having passed [`clean`].

use std::cmp::Ordering;

use ratatui::{buffer::CellWidth, style::Style, text::Span};

/// Longest text kept of one string of the server, in characters.
pub(crate) const TEXT_MAX: usize = 4096;
/// Zero-width characters kept in a row: enough for accents, too few to build towers.
const MARKS_MAX: usize = 3;

/// Makes a server's string safe to show on one line: no control characters, no escape sequences, no characters that
/// reorder or hide text, bounded in length.
pub(crate) fn clean(text: &mut String) {
    let harmless = |c: char| (' '..='~').contains(&c);
    if text.len() <= TEXT_MAX && text.chars().all(harmless) {
        return;
    }
    let mut out = String::with_capacity(text.len().min(TEXT_MAX * 4));
    let mut marks = 0;
    for c in text.chars().take(TEXT_MAX) {
        match c {
            '\n' | '\r' | '\t' => out.push(' '),
            // Terminals do not agree on the width of the replacement character.
            c if c.is_control() || c == '\u{fffd}' => out.push('?'),
            // Zero-width, line separators, directional overrides and isolates, tags: they only deceive.
            '\u{00ad}'
            | '\u{061c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}' => {}
            c if !c.is_ascii() && width(c.encode_utf8(&mut [0; 4])) == 0 => {
                marks += 1;
                if marks <= MARKS_MAX {
                    out.push(c);
                }
                continue;
            }
            c => out.push(c),
        }
        marks = 0;
    }
    if text.chars().nth(TEXT_MAX).is_some() {
        out.push('…');
    }
    *text = out;
}

/// Terminal cells that `text` takes.
pub(crate) fn width(text: &str) -> usize {
    if text.is_ascii() {
        return text.len();
    }
    graphemes(text).iter().map(|g| usize::from(g.cell_width())).sum()
}

/// What a reader takes for one character each.
fn graphemes(text: &str) -> Vec<String> {
    let span = Span::raw(text);
    span.styled_graphemes(Style::new())
        .map(|g| g.symbol.to_owned())
        .collect()
}

/// Cuts `text` to `max` cells; what was cut off is replaced by `ellipsis`.
pub(crate) fn cut(text: &str, max: usize, ellipsis: &str) -> String {
    if width(text) <= max {
        return text.to_owned();
    }
    let room = max.saturating_sub(width(ellipsis));
    let mut out = String::new();
    let mut used = 0;
    for g in graphemes(text) {
        let w = usize::from(g.cell_width());
        if used + w > room {
            break;
        }
        used += w;
        out.push_str(&g);
    }
    if max >= width(ellipsis) {
        out.push_str(ellipsis);
    }
    out
}

/// `text` cut or filled up to exactly `cells`.
pub(crate) fn fit(text: &str, cells: usize, right: bool, ellipsis: &str) -> String {
    let text = cut(text, cells, ellipsis);
    let fill = " ".repeat(cells.saturating_sub(width(&text)));
    if right { fill + &text } else { text + &fill }
}

/// Breaks `text` at spaces into lines of at most `cells`; a longer word is broken where it must be.
pub(crate) fn wrap(text: &str, cells: usize) -> Vec<String> {
    let cells = cells.max(1);
    if width(text) <= cells {
        return vec![text.to_owned()];
    }
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut used = 0;
    for word in text.split(' ').filter(|w| !w.is_empty()) {
        let w = width(word);
        if used > 0 && used + 1 + w > cells {
            lines.push(std::mem::take(&mut line));
            used = 0;
        }
        if used > 0 {
            line.push(' ');
            used += 1;
        }
        if w <= cells {
            line.push_str(word);
            used += w;
            continue;
        }
        for g in graphemes(word) {
            let gw = usize::from(g.cell_width());
            if used > 0 && used + gw > cells {
                lines.push(std::mem::take(&mut line));
                used = 0;
            }
            line.push_str(&g);
            used += gw;
        }
    }
    if !line.is_empty() || lines.is_empty() {
        lines.push(line);
    }
    lines
}

/// Two units of a span of time: `12s`, `2m 11s`, `3h 4m`, `3d 4h`. Negative spans are none.
pub(crate) fn span(ms: i64) -> String {
    let s = ms.max(0) / 1000;
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m {}s", s / 60, s % 60),
        3600..86_400 => format!("{}h {}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d {}h", s / 86_400, s % 86_400 / 3600),
    }
}

/// As [`span`], with the largest unit alone.
pub(crate) fn span_short(ms: i64) -> String {
    let text = span(ms);
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// An age in a sentence: `0.1 s`, `12 s`, `2m 11s`.
pub(crate) fn age(ms: i64) -> String {
    let ms = ms.max(0);
    match ms {
        0..10_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        10_000..60_000 => format!("{} s", ms / 1000),
        _ => span(ms),
    }
}

/// As [`age`], in whole seconds.
pub(crate) fn age_whole(ms: i64) -> String {
    if ms < 60_000 {
        format!("{} s", ms.max(0) / 1000)
    } else {
        span(ms)
    }
}

const UNITS: [(&str, u64); 4] = [("T", 1 << 40), ("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)];

fn unit(bytes: u64) -> (&'static str, u64) {
    UNITS
        .iter()
        .copied()
        .find(|(_, size)| bytes >= *size)
        .unwrap_or(("B", 1))
}

/// At most three digits that count: `3.1`, `16`, `120`.
fn scaled(bytes: u64, size: u64) -> String {
    let tenths = u128::from(bytes) * 10 / u128::from(size);
    match tenths {
        t if t % 10 == 0 || t >= 1000 || size == 1 => (t / 10).to_string(),
        t => format!("{}.{}", t / 10, t % 10),
    }
}

/// Part of a whole, in the unit of the whole: `3.1/16G`.
pub(crate) fn of_short(used: u64, total: u64) -> String {
    let (name, size) = unit(total);
    format!("{}/{}{name}", scaled(used, size), scaled(total, size))
}

/// A size with its unit: `18.2 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    let (name, unit) = unit(bytes);
    let suffix = if unit == 1 { "" } else { "iB" };
    format!("{} {name}{suffix}", scaled(bytes, unit))
}

/// Part of a whole with the unit once: `3.1 of 16 GiB`.
pub(crate) fn of_long(used: u64, total: u64) -> String {
    let (name, unit) = unit(total);
    let suffix = if unit == 1 { "" } else { "iB" };
    format!("{} of {} {name}{suffix}", scaled(used, unit), scaled(total, unit))
}

/// Hundredths of `total` that `used` is; none when the total is unknown.
pub(crate) fn percent(used: u64, total: u64) -> Option<u8> {
    let percent = (u128::from(used) * 100 + u128::from(total) / 2).checked_div(u128::from(total))?;
    u8::try_from(percent.min(100)).ok()
}

/// Names in the order people count: n2 before n10.
pub(crate) fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        match (a.first(), b.first()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(x), Some(y)) if x.is_ascii_digit() && y.is_ascii_digit() => {
                let (number_a, rest_a) = digits(a);
                let (number_b, rest_b) = digits(b);
                let order = number_a.len().cmp(&number_b.len()).then_with(|| number_a.cmp(number_b));
                // Equal numbers with different zeros in front still need an order.
                let order = order.then_with(|| (a.len() - rest_a.len()).cmp(&(b.len() - rest_b.len())));
                if order != Ordering::Equal {
                    return order;
                }
                (a, b) = (rest_a, rest_b);
            }
            (Some(x), Some(y)) if x == y => (a, b) = (&a[1..], &b[1..]),
            (Some(x), Some(y)) => return x.cmp(y),
        }
    }
}

/// The number in front, without its leading zeros, and what follows it.
fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|c| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    let zeros = number.iter().take_while(|c| **c == b'0').count();
    (&number[zeros..], rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(text: &str) -> String {
        let mut text = text.to_owned();
        clean(&mut text);
        text
    }

    #[test]
    fn nothing_of_a_server_commands_the_terminal() {
        assert_eq!(cleaned("plain text"), "plain text");
        assert_eq!(cleaned("a\x1b[31mred\x1b]0;title\x07"), "a?[31mred?]0;title?");
        assert_eq!(cleaned("one\ntwo\r\tthree"), "one two  three");
        assert_eq!(cleaned("\u{9b}31m\u{7f}"), "?31m?");
        assert_eq!(cleaned("n1\u{202e}1n\u{200b}\u{2066}x\u{feff}"), "n11nx");
        assert_eq!(cleaned("größer 数 é"), "größer 数 é");
        let tower = format!("a{}b", "\u{0301}".repeat(500));
        assert_eq!(cleaned(&tower).chars().count(), 2 + MARKS_MAX);
        assert_eq!(cleaned(&"x".repeat(10_000)).chars().count(), TEXT_MAX + 1);
    }

    #[test]
    fn cutting_counts_cells_not_bytes() {
        assert_eq!(cut("abcdef", 6, "…"), "abcdef");
        assert_eq!(cut("abcdefg", 6, "…"), "abcde…");
        assert_eq!(cut("数数数", 4, "…"), "数…");
        assert_eq!(cut("abc", 0, "…"), "");
        assert_eq!(fit("ab", 4, true, "…"), "  ab");
        assert_eq!(fit("数数", 3, false, "…"), "数…");
    }

    #[test]
    fn wrapping_keeps_every_word() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefgh ij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("", 4), [""]);
        assert_eq!(wrap("x y", 0), ["x", "y"]);
    }

    #[test]
    fn spans_and_sizes_read_well() {
        for (ms, text) in [
            (-5, "0s"),
            (12_000, "12s"),
            (131_000, "2m 11s"),
            (11_040_000, "3h 4m"),
            (273_600_000, "3d 4h"),
        ] {
            assert_eq!(span(ms), text);
        }
        assert_eq!(
            (age(140), age(12_300), age(131_000)),
            ("0.1 s".into(), "12 s".into(), "2m 11s".into())
        );
        assert_eq!(of_short(3_328_599_655, 16 << 30), "3.1/16G");
        assert_eq!(of_long(3_328_599_655, 16 << 30), "3.1 of 16 GiB");
        assert_eq!((size(0), size(19_084_083)), ("0 B".into(), "18.1 MiB".into()));
        assert_eq!(size(u64::MAX), "16777215 TiB");
        assert_eq!(
            (percent(1, 8), percent(9, 8), percent(1, 0)),
            (Some(13), Some(100), None)
        );
    }

    #[test]
    fn names_sort_as_people_count() {
        let mut names = ["n10", "n2", "n1", "n02", "db", "n", "n2b"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["db", "n", "n1", "n2", "n2b", "n02", "n10"]);
    }
}
