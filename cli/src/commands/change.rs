//! What all changes share: asking first, telling what was done, and following the operation they go on as.

use std::io::{BufRead as _, IsTerminal as _};

use ha_proto::codes;
use ha_proto::v1::{ChangeResult, Operation};

use super::Cx;
use crate::args::ChangeArgs;
use crate::client::{Client, follow};
use crate::error::CliError;
use crate::output::Format;
use crate::output::document::{Document, Meta};
use crate::output::views::operation::{self, OperationView};
use crate::output::views::result::ResultView;

/// Asks for a step that touches what is in use, unless `--yes` or `--dry-run` was given.
///
/// # Errors
/// `HA0010` if nobody can be asked or the answer is no.
pub fn confirm(cx: &Cx, change: &ChangeArgs, step: &str, command: &str) -> Result<(), CliError> {
    if change.yes || change.dry_run {
        return Ok(());
    }
    let unconfirmed = |why: &str| {
        CliError::new(codes::UNCONFIRMED, format!("not confirmed: {step}"))
            .why(why)
            .next(format!("{command} --yes"), "do it")
            .next(format!("{command} --dry-run"), "see what would be done")
    };
    if cx.globals.no_input || !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(unconfirmed("nobody can be asked here, and --yes was not given"));
    }
    crate::output::notes::write(&format!("{}? [y/N] ", crate::output::table::clean(step)));
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    if read.is_ok() && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        return Ok(());
    }
    Err(unconfirmed("the answer was not y"))
}

/// How a change is told.
#[derive(Debug, Default)]
pub struct Told<'a> {
    /// What was changed, as KIND/NAME.
    pub subject: String,
    /// What happened to it, for people: `node n1 cordoned`.
    pub done: String,
    /// Files that were written here.
    pub files: Vec<String>,
    /// What to do next, a line each.
    pub next: Vec<String>,
    /// Further lines of data for people.
    pub notes: &'a [String],
}

/// Tells what a change did, and follows it to its end where it goes on as an operation.
///
/// # Errors
/// The operation's failure; `HA0104` if it takes longer than `--timeout`.
pub async fn finish(
    cx: &Cx,
    client: &mut Client,
    change: &ChangeArgs,
    result: ChangeResult,
    told: Told<'_>,
) -> Result<(), CliError> {
    let mut ended = None;
    if !result.operation_id.is_empty() && !change.dry_run {
        if change.no_wait {
            cx.out
                .notes
                .say(&format!("operation {} goes on; hactl op wait {0}", result.operation_id));
        } else {
            ended = Some(wait(cx, client, &result.operation_id).await?);
        }
    }
    let failure = ended.as_ref().and_then(failure);
    tell(cx, client.cluster(), change, &result, told, ended)?;
    failure.map_or(Ok(()), Err)
}

/// Follows an operation and prints each step as it happens.
///
/// # Errors
/// `HA0104` if it takes longer than `--timeout`, `HA0501` if there is none of this id.
pub async fn wait(cx: &Cx, client: &mut Client, id: &str) -> Result<Operation, CliError> {
    cx.operation.set(Some(id));
    let notes = cx.out.notes;
    let mut printed = 0;
    let mut head = false;
    let ended = follow::operation(client, id, cx.globals.timeout, |op| {
        if !head {
            head = true;
            notes.say(&operation::head(op));
        }
        for at in printed..op.steps.len() {
            notes.say(&operation::step_line(op, at));
        }
        printed = printed.max(op.steps.len());
        false
    })
    .await?;
    cx.operation.set(None);
    Ok(ended)
}

/// The error of an operation that did not succeed.
pub fn failure(op: &Operation) -> Option<CliError> {
    use ha_proto::v1::OperationState as S;
    let show = format!("hactl op show {}", op.id);
    match op.state() {
        S::Failed => {
            let code = codes::find(&op.error_code).copied().unwrap_or(codes::OP_FAILED);
            let error = CliError::new(code, format!("operation {} failed: {}", op.id, op.error));
            Some(error.next(show, "its steps").detail("operation", op.id.clone()))
        }
        S::Cancelled => Some(
            CliError::new(codes::OP_CANCELLED, format!("operation {} was cancelled", op.id))
                .next(show, "its steps")
                .detail("operation", op.id.clone()),
        ),
        S::Succeeded | S::Pending | S::Running | S::Unspecified => None,
    }
}

/// Writes what a change did.
///
/// # Errors
/// If stdout cannot be written.
pub fn tell(
    cx: &Cx,
    cluster: &str,
    change: &ChangeArgs,
    result: &ChangeResult,
    told: Told<'_>,
    ended: Option<Operation>,
) -> Result<(), CliError> {
    let out = &cx.out;
    match out.format {
        Format::Json | Format::Yaml => {
            let view = ResultView {
                subject: told.subject,
                changed: result.changed,
                dry_run: change.dry_run,
                plan: result.plan.clone(),
                operation_id: Some(result.operation_id.clone()).filter(|id| !id.is_empty()),
                operation: ended.map(OperationView::from),
                files: told.files,
            };
            out.document(&Document::new(
                "ChangeResult",
                &Meta::of(cluster, result.revision, 0),
                view,
            ))
        }
        Format::Name => out.line(&told.subject),
        Format::Table | Format::Wide => {
            let clean = crate::output::table::clean;
            let mut text = String::new();
            let mut line = |l: &str| {
                text.push_str(&clean(l));
                text.push('\n');
            };
            if change.dry_run {
                if result.plan.is_empty() {
                    line(if result.changed {
                        "would be done as asked"
                    } else {
                        "unchanged"
                    });
                }
                for step in &result.plan {
                    line(&format!("plan: {step}"));
                }
                line("dry run: nothing was changed");
                return out.text(&text);
            }
            match ended {
                Some(op) if failure(&op).is_some() => {}
                Some(op) if !op.result.is_empty() => line(&operation::end_line(&op)),
                Some(op) => line(&format!("{}: {}", told.done, operation::end_line(&op))),
                None if !result.changed => line("unchanged"),
                None if !result.operation_id.is_empty() => line(&format!("operation {}", result.operation_id)),
                None if result.revision > 0 => line(&format!("{} (revision {})", told.done, result.revision)),
                None => line(&told.done),
            }
            for file in &told.files {
                line(&format!("wrote {file}"));
            }
            for note in told.notes {
                line(note);
            }
            out.text(&text)?;
            if result.changed {
                for next in &told.next {
                    out.notes.say(&format!("next: {next}"));
                }
            }
            Ok(())
        }
    }
}
