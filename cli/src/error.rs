//! The one error of the command line: what failed, why, what to type next, and a stable code.
//!
//! Every failure that a user can meet becomes a [`CliError`] where it happens, with its cause in words. Nothing here
//! decides whether to try again; that is the client's.

use std::collections::BTreeMap;

use ha_proto::codes::{self, Code, exit};
use ha_proto::v1;
use serde::Serialize;

/// A command to type next, with a few words on what it does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// The command.
    pub command: String,
    /// What it is for; may be empty.
    pub note: String,
}

/// What went wrong, for people and for programs.
#[derive(Debug, Clone)]
pub struct CliError(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    code: String,
    exit: u8,
    retryable: bool,
    message: String,
    why: Vec<String>,
    next: Vec<Next>,
    details: BTreeMap<String, String>,
    silent: bool,
}

impl CliError {
    /// An error of this code. `message` says what failed, in one line without a full stop.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            code: code.id.to_owned(),
            exit: code.exit,
            retryable: code.retryable,
            message: message.into(),
            why: Vec::new(),
            next: Vec::new(),
            details: BTreeMap::new(),
            silent: false,
        }))
    }

    /// Ends the program with this exit code and says nothing: what there was to say is on the screen already, or
    /// whoever read it has gone.
    pub fn silent(exit: u8) -> Self {
        let mut error = Self::new(codes::INTERNAL, "");
        error.0.exit = exit;
        error.0.silent = true;
        error
    }

    /// Adds a reason, one line.
    #[must_use]
    pub fn why(mut self, line: impl Into<String>) -> Self {
        let line = line.into();
        if !line.is_empty() {
            self.0.why.push(line);
        }
        self
    }

    /// Adds a command to type next.
    #[must_use]
    pub fn next(mut self, command: impl Into<String>, note: impl Into<String>) -> Self {
        self.0.next.push(Next {
            command: command.into(),
            note: note.into(),
        });
        self
    }

    /// Adds a detail for programs.
    #[must_use]
    pub fn detail(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.details.insert(key.into(), value.into());
        self
    }

    /// Ends the program with this exit code instead of the one of its code.
    #[must_use]
    pub fn with_exit(mut self, exit: u8) -> Self {
        self.0.exit = exit;
        self
    }

    /// The error that a node sent. A code that this program does not know yet is kept and exits 1.
    pub fn from_detail(detail: v1::ErrorDetail) -> Self {
        let exit = codes::find(&detail.code).map_or(exit::FAILED, |c| c.exit);
        Self(Box::new(Inner {
            code: detail.code,
            exit,
            retryable: detail.retryable,
            message: detail.message,
            why: detail.why,
            next: detail.next.iter().map(|line| parse_next(line)).collect(),
            details: detail.details.into_iter().collect(),
            silent: false,
        }))
    }

    /// `HA` and four digits.
    pub fn code(&self) -> &str {
        &self.0.code
    }

    /// Whether this is the error of that code.
    pub fn is(&self, code: Code) -> bool {
        self.0.code == code.id
    }

    /// The exit code of the program.
    pub fn exit(&self) -> u8 {
        self.0.exit
    }

    /// Whether the same may succeed when tried again.
    pub fn retryable(&self) -> bool {
        self.0.retryable
    }

    /// What failed, one line.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The reasons, a line each.
    pub fn reasons(&self) -> &[String] {
        &self.0.why
    }

    /// What to type next.
    pub fn next_steps(&self) -> &[Next] {
        &self.0.next
    }

    /// Whether nothing is to be printed.
    pub fn is_silent(&self) -> bool {
        self.0.silent
    }

    /// The text for people, with a newline at its end.
    pub fn text(&self, colour: bool) -> String {
        use std::fmt::Write as _;
        let (red, dim, off) = if colour {
            ("\x1b[1;31m", "\x1b[2m", "\x1b[0m")
        } else {
            ("", "", "")
        };
        let mut text = format!("{red}error {}{off}: {}\n", self.0.code, self.0.message);
        for (i, line) in self.0.why.iter().enumerate() {
            let head = if i == 0 { "why " } else { "    " };
            let _ = writeln!(text, "  {dim}{head}{off}  {line}");
        }
        let width = self.0.next.iter().map(|n| n.command.chars().count()).max().unwrap_or(0);
        for (i, next) in self.0.next.iter().enumerate() {
            let head = if i == 0 { "next" } else { "    " };
            let line = format!("{:width$}  {}", next.command, next.note);
            let _ = writeln!(text, "  {dim}{head}{off}  {}", line.trim_end());
        }
        text
    }

    /// The JSON for programs, one line.
    pub fn json(&self) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Document<'a> {
            api_version: &'static str,
            kind: &'static str,
            code: &'a str,
            message: &'a str,
            why: &'a [String],
            hint: String,
            retryable: bool,
            details: &'a BTreeMap<String, String>,
            exit_code: u8,
        }
        let hint = self
            .0
            .next
            .iter()
            .map(|n| n.command.as_str())
            .collect::<Vec<_>>()
            .join("; ");
        let document = Document {
            api_version: crate::output::API_VERSION,
            kind: "Error",
            code: &self.0.code,
            message: &self.0.message,
            why: &self.0.why,
            hint,
            retryable: self.0.retryable,
            details: &self.0.details,
            exit_code: self.0.exit,
        };
        serde_json::to_string(&document).unwrap_or_default()
    }
}

/// A line as nodes send it: the command, then after two spaces or a tab what it is for.
fn parse_next(line: &str) -> Next {
    let line = line.trim();
    let at = line.find('\t').or_else(|| line.find("  "));
    match at {
        Some(at) => Next {
            command: line[..at].trim().to_owned(),
            note: line[at..].trim().to_owned(),
        },
        None => Next {
            command: line.to_owned(),
            note: String::new(),
        },
    }
}

impl std::fmt::Display for CliError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.0.code, self.0.message)?;
        if let Some(why) = self.0.why.first() {
            write!(f, " ({why})")?;
        }
        Ok(())
    }
}

impl std::error::Error for CliError {}

/// A failure to read or write what the operator named.
pub fn file_error(action: &str, path: &std::path::Path, error: &std::io::Error) -> CliError {
    let text = error.to_string();
    CliError::new(codes::BAD_FILE, format!("cannot {action} {}", path.display()))
        .why(text.split(" (os error").next().unwrap_or(&text))
        .detail("path", path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_things_are_aligned() {
        let error = CliError::new(codes::NODE_EXISTS, "n3 was added already")
            .why("it is online since 2m")
            .why("second reason")
            .next("hactl node show n3", "what it is")
            .next("hactl node renew n3", "a new certificate");
        insta::assert_snapshot!(error.text(false), @r"
        error HA0301: n3 was added already
          why   it is online since 2m
                second reason
          next  hactl node show n3   what it is
                hactl node renew n3  a new certificate
        ");
    }

    #[test]
    fn an_unknown_code_of_a_newer_node_is_kept() {
        let detail = v1::ErrorDetail {
            code: "HA0999".into(),
            message: "new".into(),
            ..Default::default()
        };
        let error = CliError::from_detail(detail);
        assert_eq!((error.code(), error.exit()), ("HA0999", 1));
    }

    #[test]
    fn next_lines_of_nodes_are_split() {
        assert_eq!(parse_next("hactl node list  all nodes").note, "all nodes");
        assert_eq!(parse_next("hactl node list").note, "");
    }
}
