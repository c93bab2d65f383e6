//! `hactl explain KIND[.FIELD] | CODE`: what is shown and what went wrong, in words. Works offline.

mod database;
mod fields;

use ha_proto::codes::{self, Code};
use serde::Serialize;

use super::Cx;
use crate::complete;
use crate::error::CliError;
use crate::output::Format;
use crate::output::document::{Document, Meta};

pub use fields::{Field, KINDS, Kind};

/// `hactl explain`
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  hactl explain node\n  hactl explain node.spec.labels\n  hactl explain HA0301")]
pub struct Args {
    /// A kind, a field of one, or an error code; without it all kinds are listed.
    #[arg(value_name = "KIND[.FIELD]|CODE", add = complete::topics())]
    pub topic: Option<String>,
}

/// Everything that can be explained.
pub fn topics() -> Vec<String> {
    let kinds = KINDS.iter().map(|k| k.name.to_owned());
    let fields = KINDS
        .iter()
        .flat_map(|k| k.fields.iter().map(|f| format!("{}.{}", k.name, f.path)));
    let codes = codes::ALL.iter().map(|c| c.id.to_owned());
    kinds.chain(fields).chain(codes).collect()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CodeView {
    name: &'static str,
    title: &'static str,
    text: &'static str,
    exit_code: u8,
    retryable: bool,
}

#[derive(Serialize)]
struct KindView {
    name: &'static str,
    text: &'static str,
    fields: Vec<FieldView>,
}

#[derive(Serialize)]
struct FieldView {
    name: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    text: &'static str,
}

impl From<&Field> for FieldView {
    fn from(field: &Field) -> Self {
        Self {
            name: field.path,
            kind: field.kind,
            text: field.text,
        }
    }
}

/// # Errors
/// `HA0012` if nothing of this name is known.
pub fn run(args: &Args, cx: &Cx) -> Result<(), CliError> {
    let Some(topic) = args.topic.as_deref() else {
        return list(cx);
    };
    let upper = topic.to_ascii_uppercase();
    if upper.len() >= 4 && upper.starts_with("HA") && upper[2..].bytes().all(|b| b.is_ascii_digit()) {
        let code = codes::find(topic).ok_or_else(|| unknown(topic))?;
        return explain_code(code, cx);
    }
    let (kind, field) = topic
        .split_once('.')
        .map_or((topic, None), |(kind, field)| (kind, Some(field)));
    let kind = KINDS
        .iter()
        .find(|k| k.name == kind || k.other_names.contains(&kind))
        .ok_or_else(|| unknown(topic))?;
    match field {
        None => explain_kind(kind, kind.fields.iter().collect(), cx),
        Some(field) => {
            let found = find(kind, field);
            if found.is_empty() {
                Err(unknown(topic))
            } else {
                explain_kind(kind, found, cx)
            }
        }
    }
}

/// The field of this path, and what is below it. The leading `spec.` or `status.` may be left out.
fn find<'a>(kind: &'a Kind, wanted: &str) -> Vec<&'a Field> {
    let below = |field: &Field, path: &str| {
        field.path == path
            || field
                .path
                .strip_prefix(path)
                .is_some_and(|rest| rest.starts_with(['.', '[']))
    };
    [wanted.to_owned(), format!("spec.{wanted}"), format!("status.{wanted}")]
        .iter()
        .map(|path| kind.fields.iter().filter(|f| below(f, path)).collect::<Vec<_>>())
        .find(|found| !found.is_empty())
        .unwrap_or_default()
}

fn unknown(topic: &str) -> CliError {
    let kinds = KINDS.iter().map(|k| k.name).collect::<Vec<_>>().join(", ");
    CliError::new(codes::FIELD_UNKNOWN, format!("nothing is known of `{topic}`"))
        .why(format!("the kinds are {kinds}; codes look like HA0301"))
        .next("hactl explain", "lists the kinds")
}

fn list(cx: &Cx) -> Result<(), CliError> {
    if cx.out.format.is_structured() {
        let items: Vec<KindView> = KINDS
            .iter()
            .map(|k| KindView {
                name: k.name,
                text: k.text,
                fields: k.fields.iter().map(Into::into).collect(),
            })
            .collect();
        let body = crate::output::document::Items { items };
        return cx.out.document(&Document::new("ExplanationList", &Meta::local(), body));
    }
    let mut text = String::new();
    for kind in KINDS {
        text.push_str(&format!("{:<11}{}\n", kind.name, kind.text));
    }
    text.push_str("HA0000     any error code, for instance HA0301\n");
    cx.out.text(&text)
}

fn explain_kind(kind: &Kind, fields: Vec<&Field>, cx: &Cx) -> Result<(), CliError> {
    if cx.out.format.is_structured() {
        let view = KindView {
            name: kind.name,
            text: kind.text,
            fields: fields.into_iter().map(Into::into).collect(),
        };
        return cx.out.document(&Document::new("Explanation", &Meta::local(), view));
    }
    if cx.out.format == Format::Name {
        let names = fields
            .iter()
            .map(|f| format!("{}.{}\n", kind.name, f.path))
            .collect::<String>();
        return cx.out.text(&names);
    }
    let mut text = format!("{}: {}\n\n", kind.name, kind.text);
    let width = fields.iter().map(|f| f.path.len()).max().unwrap_or(0);
    let types = fields.iter().map(|f| f.kind.len()).max().unwrap_or(0);
    for field in fields {
        text.push_str(&format!(
            "{:width$}  {:types$}  {}\n",
            field.path, field.kind, field.text
        ));
    }
    cx.out.text(&text)
}

fn explain_code(code: &Code, cx: &Cx) -> Result<(), CliError> {
    if cx.out.format.is_structured() {
        let view = CodeView {
            name: code.id,
            title: code.title,
            text: code.text,
            exit_code: code.exit,
            retryable: code.retryable,
        };
        return cx.out.document(&Document::new("ErrorCode", &Meta::local(), view));
    }
    if cx.out.format == Format::Name {
        return cx.out.line(code.id);
    }
    let again = if code.retryable {
        "trying again may help"
    } else {
        "trying again does not help"
    };
    let text = format!(
        "{}: {}\n\n{}\n\nexit code {}; {again}\n",
        code.id,
        code.title,
        wrap(code.text, 100),
        code.exit
    );
    cx.out.text(&text)
}

/// The text in lines of at most this many characters, broken at blanks.
fn wrap(text: &str, width: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last().map_or(0, |l| l.chars().count());
        if last > 0 && last + 1 + word.chars().count() > width {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.join("\n")
}

/// The page of a code, as it stands in `docs/errors`.
pub fn page(code: &Code) -> String {
    let again = if code.retryable { "may help" } else { "does not help" };
    format!(
        "# {}: {}\n\n{}\n\nExit code of `hactl`: {}. Trying the same again {again}.\n",
        code.id,
        code.title,
        wrap(code.text, 118),
        code.exit
    )
}

/// The list of all codes, as it stands in `docs/errors/README.md`.
pub fn index() -> String {
    let mut text = String::from(
        "# Error codes\n\nEach is stable for ever: its number, its meaning and its exit code. `hactl explain CODE` prints \
         its page.\nThese pages are generated from `proto/src/codes.rs`; \
         `UPDATE_GENERATED=1 cargo test -p hactl generated` writes them anew.\n\n\
         | code | meaning | exit |\n|---|---|---|\n",
    );
    for code in codes::ALL {
        text.push_str(&format!(
            "| [{0}]({0}.md) | {1} | {2} |\n",
            code.id, code.title, code.exit
        ));
    }
    text
}
