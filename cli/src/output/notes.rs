//! What is said on the side, on stderr: progress, warnings, details under `-v`. Never data.

use std::io::{IsTerminal as _, Write as _};

use crate::args::Globals;

/// How much is said, and how.
#[derive(Debug, Clone, Copy, Default)]
pub struct Notes {
    quiet: bool,
    verbose: u8,
    colour: bool,
}

impl Notes {
    /// As the global flags say.
    pub fn new(globals: &Globals) -> Self {
        Self {
            quiet: globals.quiet,
            verbose: globals.verbose,
            colour: globals.color.decide(std::io::stderr().is_terminal()),
        }
    }

    /// Says nothing.
    pub fn silent() -> Self {
        Self {
            quiet: true,
            ..Self::default()
        }
    }

    /// Whether stderr gets colour.
    pub fn colour(&self) -> bool {
        self.colour
    }

    /// A line, unless quiet.
    pub fn say(&self, text: &str) {
        if !self.quiet {
            write(&format!("{}\n", super::table::clean(text)));
        }
    }

    /// A warning, unless quiet.
    pub fn warn(&self, text: &str) {
        if !self.quiet {
            let (yellow, off) = if self.colour { ("\x1b[33m", "\x1b[0m") } else { ("", "") };
            write(&format!("{yellow}warning{off}: {}\n", super::table::clean(text)));
        }
    }

    /// A line under `-v`.
    pub fn detail(&self, text: &str) {
        if self.verbose > 0 {
            write(&format!("{}\n", super::table::clean(text)));
        }
    }
}

/// Writes to stderr; nobody is left to tell if that fails.
pub(crate) fn write(text: &str) {
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes());
    let _ = stderr.flush();
}
