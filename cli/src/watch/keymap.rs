//! Keys to commands. The one table of keys: the help and the footer are written from it.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// End the dashboard.
    Quit,
    /// Show or close the list of keys.
    Help,
    /// Leave what is open, or clear the filter.
    Back,
    /// Open the selected row, or accept what was typed.
    Enter,
    /// Down by so many rows; up where negative.
    Move(i32),
    /// Down by so many pages.
    Page(i32),
    /// To the first row.
    First,
    /// To the last row.
    Last,
    /// So many views to the right.
    Turn(i32),
    /// The view of this number.
    View(usize),
    /// Type a filter.
    Filter,
    /// Sort by the next column.
    Sort,
    /// Sort the other way round.
    Reverse,
    /// Hold the screen still, or let it go on.
    Pause,
    /// Draw everything anew.
    Redraw,
    /// Ask for a change.
    Act(char),
    /// A character of what is typed.
    Type(char),
    /// The last character away.
    Erase,
    /// Everything typed away.
    EraseAll,
}

/// What keys mean at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Context {
    /// They are commands.
    Commands,
    /// They are typed.
    Typing,
}

/// A line of the help, and of the footer where it has a label.
pub(crate) struct Binding {
    /// The keys, as they are shown.
    pub(crate) keys: &'static str,
    /// The same without Unicode.
    pub(crate) ascii: &'static str,
    /// What they do.
    pub(crate) help: &'static str,
}

const fn binding(keys: &'static str, ascii: &'static str, help: &'static str) -> Binding {
    Binding { keys, ascii, help }
}

/// Every key that does not act, in the order of the help.
pub(crate) static BINDINGS: &[Binding] = &[
    binding("↑ ↓  k j", "up down  k j", "select, or scroll what is open"),
    binding("← →  h l", "left right  h l", "view to the left, to the right"),
    binding(
        "Tab  Shift-Tab  1-9",
        "Tab  Shift-Tab  1-9",
        "next view, previous view, view by number",
    ),
    binding(
        "PgUp PgDn  Home End",
        "PgUp PgDn  Home End",
        "by pages, to the first, to the last",
    ),
    binding("Enter", "Enter", "open the selected row"),
    binding("Esc", "Esc", "close what is open, then clear the filter"),
    binding("/", "/", "filter rows: all words must occur; Enter keeps, Esc clears"),
    binding("s  r", "s  r", "sort by the next column, reverse"),
    binding("Space", "Space", "pause: the screen holds still, nothing is lost"),
    binding("Ctrl-L", "Ctrl-L", "draw the screen anew"),
    binding("?", "?", "this help"),
    binding("q  Ctrl-C", "q  Ctrl-C", "quit"),
];

/// The command of a key; none where it has no meaning.
pub(crate) fn command(context: Context, key: KeyEvent) -> Option<Command> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Some(Command::Quit),
            KeyCode::Char('l') => Some(Command::Redraw),
            KeyCode::Char('u') if context == Context::Typing => Some(Command::EraseAll),
            KeyCode::Char('h') if context == Context::Typing => Some(Command::Erase),
            KeyCode::Char('d') if context == Context::Commands => Some(Command::Page(1)),
            KeyCode::Char('u') => Some(Command::Page(-1)),
            _ => None,
        };
    }
    if key
        .modifiers
        .intersects(KeyModifiers::ALT | KeyModifiers::SUPER | KeyModifiers::META)
    {
        return None;
    }
    let command = match (context, key.code) {
        (_, KeyCode::Enter) => Command::Enter,
        (_, KeyCode::Esc) => Command::Back,
        (_, KeyCode::Up) => Command::Move(-1),
        (_, KeyCode::Down) => Command::Move(1),
        (_, KeyCode::PageUp) => Command::Page(-1),
        (_, KeyCode::PageDown) => Command::Page(1),
        (Context::Typing, KeyCode::Char(c)) if !c.is_control() => Command::Type(c),
        (Context::Typing, KeyCode::Backspace) => Command::Erase,
        (Context::Typing, _) => return None,
        (_, KeyCode::Home | KeyCode::Char('g')) => Command::First,
        (_, KeyCode::End) => Command::Last,
        (_, KeyCode::Left | KeyCode::BackTab | KeyCode::Char('h')) => Command::Turn(-1),
        (_, KeyCode::Tab) if key.modifiers.contains(KeyModifiers::SHIFT) => Command::Turn(-1),
        (_, KeyCode::Right | KeyCode::Tab | KeyCode::Char('l')) => Command::Turn(1),
        (_, KeyCode::Char('j')) => Command::Move(1),
        (_, KeyCode::Char('k')) => Command::Move(-1),
        (_, KeyCode::Char('/')) => Command::Filter,
        (_, KeyCode::Char('s')) => Command::Sort,
        (_, KeyCode::Char('r')) => Command::Reverse,
        (_, KeyCode::Char(' ')) => Command::Pause,
        (_, KeyCode::Char('?')) => Command::Help,
        (_, KeyCode::Char('q')) => Command::Quit,
        (_, KeyCode::Char(c)) if c.is_ascii_uppercase() => Command::Act(c),
        (_, KeyCode::Char(c @ '1'..='9')) => Command::View(c as usize - '1' as usize),
        _ => return None,
    };
    Some(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pressed(context: Context, code: KeyCode, modifiers: KeyModifiers) -> Option<Command> {
        command(context, KeyEvent::new(code, modifiers))
    }

    #[test]
    fn the_contracts_keys() {
        let plain = |code| pressed(Context::Commands, code, KeyModifiers::NONE);
        for (code, expected) in [
            (KeyCode::Up, Command::Move(-1)),
            (KeyCode::Char('k'), Command::Move(-1)),
            (KeyCode::Down, Command::Move(1)),
            (KeyCode::Char('j'), Command::Move(1)),
            (KeyCode::Left, Command::Turn(-1)),
            (KeyCode::Char('h'), Command::Turn(-1)),
            (KeyCode::Right, Command::Turn(1)),
            (KeyCode::Char('l'), Command::Turn(1)),
            (KeyCode::Enter, Command::Enter),
            (KeyCode::Esc, Command::Back),
            (KeyCode::Char('/'), Command::Filter),
            (KeyCode::Char('s'), Command::Sort),
            (KeyCode::Tab, Command::Turn(1)),
            (KeyCode::BackTab, Command::Turn(-1)),
            (KeyCode::Char(' '), Command::Pause),
            (KeyCode::Char('q'), Command::Quit),
            (KeyCode::Char('?'), Command::Help),
            (KeyCode::Char('2'), Command::View(1)),
        ] {
            assert_eq!(plain(code), Some(expected), "{code:?}");
        }
        assert_eq!(
            pressed(Context::Commands, KeyCode::Char('c'), KeyModifiers::CONTROL),
            Some(Command::Quit)
        );
    }

    #[test]
    fn every_capital_letter_acts_and_no_small_one() {
        for c in 'A'..='Z' {
            assert_eq!(
                pressed(Context::Commands, KeyCode::Char(c), KeyModifiers::SHIFT),
                Some(Command::Act(c))
            );
            let small = pressed(
                Context::Commands,
                KeyCode::Char(c.to_ascii_lowercase()),
                KeyModifiers::NONE,
            );
            assert!(!matches!(small, Some(Command::Act(_))));
        }
    }

    #[test]
    fn what_is_typed_is_never_a_command() {
        for c in ['q', 'C', '?', '/', ' ', 's', 'ü', '1'] {
            assert_eq!(
                pressed(Context::Typing, KeyCode::Char(c), KeyModifiers::NONE),
                Some(Command::Type(c))
            );
        }
        assert_eq!(
            pressed(Context::Typing, KeyCode::Char('c'), KeyModifiers::CONTROL),
            Some(Command::Quit)
        );
        assert_eq!(pressed(Context::Typing, KeyCode::Char('c'), KeyModifiers::ALT), None);
    }

    #[test]
    fn releases_mean_nothing() {
        let mut key = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE);
        key.kind = KeyEventKind::Release;
        assert_eq!(command(Context::Commands, key), None);
    }
}
