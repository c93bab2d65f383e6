//! A command line that cannot be understood, told in the same four parts as every other error.

use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};

use clap::error::ErrorKind;
use ha_proto::codes;

use crate::error::CliError;
use crate::output::ColorChoice;

/// Writes what clap has to say, help or error, and returns the exit code.
pub(crate) fn report(error: &clap::Error, args: &[OsString]) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let mut stdout = std::io::stdout().lock();
            let _ = write!(stdout, "{}", styled(error, stdout.is_terminal()));
            codes::exit::OK
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            crate::output::notes::write(&styled(error, std::io::stderr().is_terminal()));
            codes::exit::USAGE
        }
        _ => {
            let colour = ColorChoice::Auto.decide(std::io::stderr().is_terminal());
            crate::report(&convert(error, args), wants_json(args), colour);
            codes::exit::USAGE
        }
    }
}

fn styled(error: &clap::Error, terminal: bool) -> String {
    let rendered = error.render();
    let text = if ColorChoice::Auto.decide(terminal) {
        rendered.ansi().to_string()
    } else {
        rendered.to_string()
    };
    format!("{}\n", text.trim_end())
}

/// clap's sentence, tips and usage as message, reasons and next step.
fn convert(error: &clap::Error, args: &[OsString]) -> CliError {
    let code = match error.kind() {
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => codes::BAD_VALUE,
        _ => codes::USAGE,
    };
    let rendered = error.render().to_string();
    let mut lines = rendered
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .peekable();
    let first = lines.next().unwrap_or("the command line is wrong");
    let mut message = first.strip_prefix("error: ").unwrap_or(first).to_owned();
    // What a list begins, its items end.
    while message.ends_with([':', ',']) {
        let Some(item) = lines.next_if(|line| !line.starts_with("Usage:")) else {
            break;
        };
        message = format!("{message} {item}");
        if lines.peek().is_some_and(|next| next.starts_with(['-', '<'])) {
            message.push(',');
        }
    }
    let mut result = CliError::new(code, message);
    for line in lines.filter(|line| !line.starts_with("For more information")) {
        let line = line.strip_prefix("tip: ").unwrap_or(line);
        let line = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')).unwrap_or(line);
        result = result.why(line.replacen("Usage:", "usage:", 1));
    }
    result.next(format!("{} --help", command_path(args)), "")
}

/// `hactl node list` of `hactl -q node list --bad`: the words that name a command.
fn command_path(args: &[OsString]) -> String {
    use clap::CommandFactory as _;
    let mut command = crate::args::Cli::command();
    let mut path = vec!["hactl".to_owned()];
    for word in args.iter().skip(1).filter_map(|a| a.to_str()) {
        if let Some(found) = command.find_subcommand(word).cloned() {
            path.push(found.get_name().to_owned());
            command = found;
        }
    }
    path.join(" ")
}

/// Whether `-o json` or `-o yaml` was asked for, as far as can be told of a wrong command line.
fn wants_json(args: &[OsString]) -> bool {
    let structured = |value: &str| matches!(value, "json" | "yaml");
    let mut words = args.iter().filter_map(|a| a.to_str());
    let mut last = std::env::var("HACTL_OUTPUT").is_ok_and(|v| structured(&v));
    while let Some(word) = words.next() {
        let value = match word {
            "-o" | "--output" => words.next(),
            word => word.strip_prefix("--output=").or_else(|| {
                word.strip_prefix("-o")
                    .filter(|_| !word.starts_with("--"))
                    .map(|v| v.strip_prefix('=').unwrap_or(v))
            }),
        };
        if let Some(value) = value {
            last = structured(value);
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_format_is_found_in_a_wrong_command_line() {
        for (line, expected) in [
            ("hactl -o json nod", true),
            ("hactl -ojson x", true),
            ("hactl --output=yaml x", true),
            ("hactl --output table x", false),
            ("hactl x", false),
        ] {
            assert_eq!(wants_json(&args(line)), expected, "{line}");
        }
    }

    #[test]
    fn the_help_that_fits_is_named() {
        assert_eq!(command_path(&args("hactl -q node list --bad")), "hactl node list");
        assert_eq!(command_path(&args("hactl nod")), "hactl");
    }
}
