//! Tables without borders, as wide as what is in them: a script's eye and a person's both find their column.
//!
//! What comes from the cluster is cleaned of control characters here, so that a stored value cannot drive the terminal.

use comfy_table::{Attribute, Color};

/// What a cell's colour says. A word says it too, always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    /// Nothing in particular.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// To be looked at.
    Warning,
    /// Wrong.
    Bad,
    /// Less important.
    Dim,
    /// More important.
    Strong,
}

impl Tone {
    /// The escape sequence that begins it; empty for plain.
    pub fn escape(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Good => "\x1b[32m",
            Self::Warning => "\x1b[33m",
            Self::Bad => "\x1b[31m",
            Self::Dim => "\x1b[2m",
            Self::Strong => "\x1b[1m",
        }
    }

    /// `text` in this tone, if there is colour.
    pub fn paint(self, text: &str, colour: bool) -> String {
        if colour && self != Self::Plain {
            format!("{}{text}\x1b[0m", self.escape())
        } else {
            text.to_owned()
        }
    }
}

/// A cell of a table.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    text: String,
    tone: Tone,
    key: Key,
}

/// What a cell is sorted by.
#[derive(Debug, Clone, Default, PartialEq, PartialOrd)]
pub enum Key {
    /// Its text.
    #[default]
    Text,
    /// This number.
    Number(i128),
}

impl Cell {
    /// A cell; an empty text is shown as `-`.
    pub fn new(text: impl Into<String>) -> Self {
        let text = clean(&text.into());
        let text = if text.trim().is_empty() { "-".into() } else { text };
        Self {
            text,
            ..Self::default()
        }
    }

    /// A cell that is empty, and shown so.
    pub fn blank() -> Self {
        Self::default()
    }

    /// With this tone.
    #[must_use]
    pub fn tone(mut self, tone: Tone) -> Self {
        self.tone = tone;
        self
    }

    /// Sorted by this number.
    #[must_use]
    pub fn key(mut self, number: impl Into<i128>) -> Self {
        self.key = Key::Number(number.into());
        self
    }

    /// What it says.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it is sorted by.
    pub(crate) fn sort_key(&self) -> (&Key, &str) {
        (&self.key, &self.text)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

/// Rows under heads.
#[derive(Debug, Clone)]
pub struct Table {
    heads: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these heads.
    pub fn new<'a>(heads: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            heads: heads.into_iter().map(str::to_owned).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// The text, with a newline at its end; empty if there is nothing to show.
    pub fn render(&self, headers: bool, colour: bool) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
        if colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        let head = |text: &String| comfy_table::Cell::new(text).add_attribute(Attribute::Bold);
        if headers {
            table.set_header(self.heads.iter().map(head).collect::<Vec<_>>());
        }
        for row in &self.rows {
            table.add_row(row.iter().map(styled).collect::<Vec<_>>());
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let mut text = String::new();
        for line in table.lines() {
            text.push_str(trim_line(&line));
            text.push('\n');
        }
        text
    }
}

/// The line without the padding at its end. Escape sequences are kept: they end before the padding.
fn trim_line(line: &str) -> &str {
    line.trim_end_matches(' ')
}

fn styled(cell: &Cell) -> comfy_table::Cell {
    let styled = comfy_table::Cell::new(&cell.text);
    match cell.tone {
        Tone::Plain => styled,
        Tone::Good => styled.fg(Color::DarkGreen),
        Tone::Warning => styled.fg(Color::DarkYellow),
        Tone::Bad => styled.fg(Color::DarkRed),
        Tone::Dim => styled.add_attribute(Attribute::Dim),
        Tone::Strong => styled.add_attribute(Attribute::Bold),
    }
}

/// `text` as one line without anything that a terminal would obey.
pub fn clean(text: &str) -> String {
    let obeyed = |c: char| {
        c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(obeyed) {
        return text.to_owned();
    }
    text.chars()
        .map(|c| {
            if c == '\n' || c == '\t' {
                ' '
            } else if obeyed(c) {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(["NAME", "STATE", "SEEN"]);
        table.row(vec!["n1".into(), Cell::new("online").tone(Tone::Good), "now".into()]);
        table.row(vec![
            "longer-name".into(),
            Cell::new("offline").tone(Tone::Bad),
            "".into(),
        ]);
        table
    }

    #[test]
    fn columns_are_aligned_and_lines_end_with_text() {
        insta::assert_snapshot!(table().render(true, false), @r"
        NAME         STATE    SEEN
        n1           online   now
        longer-name  offline  -
        ");
        assert!(!table().render(false, false).contains("NAME"));
    }

    #[test]
    fn colour_changes_no_width() {
        let strip = |text: String| {
            let mut plain = String::new();
            let mut inside = false;
            for c in text.chars() {
                match c {
                    '\x1b' => inside = true,
                    'm' if inside => inside = false,
                    c if !inside => plain.push(c),
                    _ => {}
                }
            }
            plain.lines().map(|l| format!("{}\n", l.trim_end())).collect::<String>()
        };
        assert!(table().render(true, true).contains("\x1b["));
        assert_eq!(strip(table().render(true, true)), table().render(true, false));
    }

    #[test]
    fn a_stored_value_cannot_drive_the_terminal() {
        assert_eq!(Cell::new("a\x1b[2Jb\nc\u{202e}d").text(), "a\u{fffd}[2Jb c\u{fffd}d");
    }
}
