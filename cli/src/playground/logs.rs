//! The last lines of a log that explain why something failed.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use crate::error::CliError;

/// So much of the end of a log is looked at.
const TAIL: u64 = 64 << 10;
/// So many lines are quoted.
const LINES: usize = 6;

/// Adds the lines at the end of `log` that explain the most, and where the rest is.
pub(super) fn explain(error: CliError, log: &Path) -> CliError {
    let error = lines(&tail(log)).into_iter().fold(error, CliError::why);
    error
        .next(format!("less {}", log.display()), "the whole log")
        .detail("log", log.display().to_string())
}

fn tail(log: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut text = Vec::new();
        file.take(TAIL).read_to_end(&mut text)?;
        Ok(text)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

/// The last lines that tell of an error, or else the last ones.
fn lines(text: &str) -> Vec<String> {
    let telling = [
        "error",
        "exception",
        "panicked",
        "cannot",
        "fatal",
        "address already in use",
    ];
    let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let tells = |line: &&&str| {
        let line = line.to_lowercase();
        // Frames of a Java stack say less than what they belong to.
        !line.trim_start().starts_with("at ") && telling.iter().any(|word| line.contains(word))
    };
    let mut chosen: Vec<&str> = all.iter().rev().filter(tells).take(LINES).copied().collect();
    if chosen.is_empty() {
        chosen = all.iter().rev().take(LINES).copied().collect();
    }
    chosen.reverse();
    chosen
        .into_iter()
        .map(|line| crate::output::table::clean(line.trim_end()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_found_among_the_rest() {
        let text = "starting\nERROR HA0806: 127.0.0.11:7400 cannot be bound\nbye\n\tat java.lang.Error\n";
        assert_eq!(lines(text), ["ERROR HA0806: 127.0.0.11:7400 cannot be bound"]);
    }

    #[test]
    fn without_an_error_the_end_is_quoted() {
        let text = (0..20).map(|i| format!("line {i}\n")).collect::<String>();
        assert_eq!(lines(&text).first().map(String::as_str), Some("line 14"));
        assert!(lines("").is_empty());
    }
}
