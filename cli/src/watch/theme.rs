//! How the dashboard looks: tones and glyphs. Colour only ever repeats what a glyph and a word say already.

use ha_proto::v1::{InstanceState, NodeState, Severity};
use ratatui::{
    style::{Color, Modifier, Style},
    symbols::border,
};

use crate::health::Verdict;

/// What a piece of text means, for its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Ordinary text.
    Plain,
    /// As it should be.
    Good,
    /// Needs an eye.
    Warn,
    /// Needs a hand.
    Bad,
    /// Less important than its surroundings.
    Dim,
    /// Names and titles.
    Strong,
    /// What can be pressed or is chosen.
    Accent,
}

/// Which of colour and Unicode the terminal is to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Theme {
    /// Colours may be used.
    pub(crate) color: bool,
    /// Only ASCII characters may be used.
    pub(crate) ascii: bool,
}

impl Theme {
    /// Style of a tone. Without colour only weight remains.
    pub(crate) fn style(self, tone: Tone) -> Style {
        let (color, modifier) = match tone {
            Tone::Plain => (None, Modifier::empty()),
            Tone::Good => (Some(Color::Green), Modifier::empty()),
            Tone::Warn => (Some(Color::Yellow), Modifier::empty()),
            Tone::Bad => (Some(Color::Red), Modifier::BOLD),
            Tone::Dim => (None, Modifier::DIM),
            Tone::Strong => (None, Modifier::BOLD),
            Tone::Accent => (Some(Color::Cyan), Modifier::BOLD),
        };
        let style = Style::new().add_modifier(modifier);
        match color {
            Some(color) if self.color => style.fg(color),
            _ => style,
        }
    }

    /// Style of the selected row.
    pub(crate) fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// Style laid over everything that is no longer known to be so.
    pub(crate) fn stale(self) -> Style {
        let style = Style::new().remove_modifier(Modifier::BOLD).add_modifier(Modifier::DIM);
        if self.color { style.fg(Color::DarkGray) } else { style }
    }

    fn pick(self, unicode: &'static str, ascii: &'static str) -> &'static str {
        if self.ascii { ascii } else { unicode }
    }

    /// Marks cut-off text.
    pub(crate) fn ellipsis(self) -> &'static str {
        self.pick("…", "~")
    }

    /// Points at the selected row.
    pub(crate) fn pointer(self) -> &'static str {
        self.pick("▸", ">")
    }

    /// Stands where text is typed.
    pub(crate) fn caret(self) -> &'static str {
        self.pick("▏", "_")
    }

    /// Names the keys that move up and down.
    pub(crate) fn arrows(self) -> &'static str {
        self.pick("↑↓", "j/k")
    }

    /// Between what was and what is.
    pub(crate) fn becomes(self) -> &'static str {
        self.pick("→", "->")
    }

    /// Good, degraded or broken.
    pub(crate) fn glyph(self, tone: Tone) -> &'static str {
        match tone {
            Tone::Good | Tone::Plain | Tone::Strong | Tone::Accent => self.pick("●", "*"),
            Tone::Warn => self.pick("▲", "!"),
            Tone::Bad => self.pick("✖", "x"),
            Tone::Dim => self.pick("○", "o"),
        }
    }

    /// Glyph and word of a verdict on the cluster.
    pub(crate) fn verdict(self, verdict: Verdict) -> (String, Tone) {
        let tone = match verdict {
            Verdict::Healthy => Tone::Good,
            Verdict::Degraded => Tone::Warn,
            Verdict::Unhealthy => Tone::Bad,
        };
        (format!("{} {}", self.glyph(tone), verdict.word()), tone)
    }

    /// Glyph of a node's state; the word follows it always.
    pub(crate) fn state(self, state: NodeState) -> (&'static str, Tone) {
        match state {
            NodeState::Unspecified => ("?", Tone::Warn),
            NodeState::Pending => (self.pick("◌", "."), Tone::Warn),
            NodeState::Online => (self.pick("●", "*"), Tone::Good),
            NodeState::Suspect => (self.pick("◐", "~"), Tone::Warn),
            NodeState::Offline => (self.pick("○", "o"), Tone::Bad),
            NodeState::Cordoned => (self.pick("◆", "#"), Tone::Warn),
            NodeState::Draining => (self.pick("▼", "v"), Tone::Warn),
            NodeState::Removed => (self.pick("×", "x"), Tone::Dim),
        }
    }

    /// Glyph of what an instance does; the word follows it always. `fits`: it is what the record wants of it.
    pub(crate) fn instance(self, state: InstanceState, fits: bool) -> (&'static str, Tone) {
        use InstanceState as S;
        match state {
            S::Running | S::Streaming if fits => (self.pick("●", "*"), Tone::Good),
            S::Unspecified => (self.pick("○", "o"), Tone::Bad),
            S::Running | S::Streaming | S::Failed | S::Disconnected => (self.pick("✖", "x"), Tone::Bad),
            S::Empty | S::Stopped => (self.pick("○", "o"), Tone::Bad),
            S::Starting
            | S::Closed
            | S::CatchingUp
            | S::Sealed
            | S::Promoting
            | S::Rewinding
            | S::Copying
            | S::Initialising
            | S::Stopping => (self.pick("▲", "!"), Tone::Warn),
        }
    }

    /// Glyph of a severity.
    pub(crate) fn severity(self, severity: Severity) -> (&'static str, Tone) {
        match severity {
            Severity::Unspecified | Severity::Info => (self.pick("●", "*"), Tone::Plain),
            Severity::Warning => (self.pick("▲", "!"), Tone::Warn),
            Severity::Error => (self.pick("✖", "x"), Tone::Bad),
        }
    }

    /// Lines round a pane.
    pub(crate) fn border(self) -> border::Set<'static> {
        const ASCII: border::Set<'static> = border::Set {
            top_left: "+",
            top_right: "+",
            bottom_left: "+",
            bottom_right: "+",
            vertical_left: "|",
            vertical_right: "|",
            horizontal_top: "-",
            horizontal_bottom: "-",
        };
        if self.ascii { ASCII } else { border::PLAIN }
    }

    /// The newest `cells` samples of a history in hundredths, one cell each; a gap is a blank.
    pub(crate) fn sparkline(self, samples: impl DoubleEndedIterator<Item = Option<u8>>, cells: usize) -> String {
        const UNICODE: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        const ASCII: [char; 8] = ['_', '.', '-', '~', '=', '+', '*', '#'];
        let steps = if self.ascii { ASCII } else { UNICODE };
        let mut line: Vec<char> = samples
            .rev()
            .take(cells)
            .map(|sample| sample.map_or(' ', |percent| steps[usize::from(percent.min(100)) * 7 / 100]))
            .collect();
        line.resize(cells, ' ');
        line.iter().rev().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparkline_shows_the_newest_at_the_right() {
        let theme = Theme {
            color: false,
            ascii: false,
        };
        let samples = [Some(0), None, Some(50), Some(100)];
        assert_eq!(theme.sparkline(samples.into_iter(), 3), " ▄█");
        assert_eq!(theme.sparkline(samples.into_iter(), 6), "  ▁ ▄█");
        let ascii = Theme {
            color: false,
            ascii: true,
        };
        assert_eq!(ascii.sparkline(samples.into_iter(), 4), "_ ~#");
    }

    #[test]
    fn without_colour_no_tone_has_one() {
        let theme = Theme {
            color: false,
            ascii: false,
        };
        for tone in [
            Tone::Plain,
            Tone::Good,
            Tone::Warn,
            Tone::Bad,
            Tone::Dim,
            Tone::Strong,
            Tone::Accent,
        ] {
            assert_eq!(theme.style(tone).fg, None);
        }
        assert_eq!(theme.stale().fg, None);
    }

    #[test]
    fn every_state_has_a_glyph_of_its_own() {
        for ascii in [false, true] {
            let theme = Theme { color: false, ascii };
            let glyphs: Vec<_> = (0..=7)
                .filter_map(|n| NodeState::try_from(n).ok())
                .map(|s| theme.state(s).0)
                .collect();
            assert!(
                glyphs.iter().enumerate().all(|(i, g)| !glyphs[..i].contains(g)),
                "{glyphs:?}"
            );
        }
    }
}
