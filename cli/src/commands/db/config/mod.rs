//! `hactl db config …`: what is wanted of a group apart from where its instances are. Every write is compare-and-set on the
//! revision that was read.

mod edit;
pub(super) mod file;
mod set;

use std::path::PathBuf;

use clap::Subcommand;
use ha_proto::codes;
use ha_proto::v1::{ChangeResult, GetConfigRequest, GroupConfig, GroupSpec, SetConfigRequest};

use crate::args::ChangeArgs;
use crate::client::Client;
use crate::commands::{Cx, change};
use crate::error::CliError;
use crate::output::Format;
use crate::output::document::{Document, Meta};
use crate::output::views::database::config::{self, ConfigView};
use crate::output::views::database::spec::Spec;

pub(super) use set::pair;

/// The verbs of `db config`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// What is set, and what PostgreSQL has in force.
    Get(GetArgs),
    /// Change settings, access, databases and roles.
    Set(Box<set::Args>),
    /// Change all of it in an editor.
    Edit(edit::Args),
    /// What a file would change; without one, what waits for a restart.
    Diff(DiffArgs),
}

/// `hactl db config get`
#[derive(Debug, clap::Args)]
pub struct GetArgs {
    /// Only these settings, or what lies below them: durability, limits, work_mem.
    #[arg(value_name = "SETTING")]
    pub only: Vec<String>,
    /// Also the parameters that nobody set.
    #[arg(long, short)]
    pub all: bool,
}

/// `hactl db config diff`
#[derive(Debug, clap::Args)]
pub struct DiffArgs {
    /// The file, as `hactl db config get -o yaml` writes it; - is standard input.
    #[arg(long, short, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Exit 8 where something differs.
    #[arg(long)]
    pub exit_code: bool,
}

pub(super) async fn run(command: Command, group: Option<String>, cx: &Cx) -> Result<(), CliError> {
    match command {
        Command::Get(args) => get(&args, group, cx).await,
        Command::Set(args) => Box::pin(set::run(*args, group, cx)).await,
        Command::Edit(args) => Box::pin(edit::run(args, group, cx)).await,
        Command::Diff(args) => diff(&args, group, cx).await,
    }
}

/// The configuration of the group that is meant.
async fn read(client: &mut Client, group: &str) -> Result<GroupConfig, CliError> {
    client
        .get_config(GetConfigRequest {
            group: group.to_owned(),
        })
        .await
}

/// What is stored, without the members: those are assigned one by one.
fn stored(config: &GroupConfig) -> Spec {
    let mut spec = Spec::from(&config.spec.clone().unwrap_or_default());
    spec.members = None;
    spec
}

async fn get(args: &GetArgs, group: Option<String>, cx: &Cx) -> Result<(), CliError> {
    let mut client = cx.client()?;
    let group = super::group_name(&mut client, group).await?;
    let config = read(&mut client, &group).await?;
    let meta = Meta::of(client.cluster(), config.revision, 0);
    let out = &cx.out;
    let settings = config::settings(&config, args.all, &args.only);
    if !args.only.is_empty() && settings.is_empty() {
        return Err(CliError::new(
            codes::BAD_VALUE,
            format!("group {group} has no setting {}", args.only.join(", ")),
        )
        .next(format!("hactl db config get --group {group} --all"), "every setting")
        .next("hactl explain group", "the fields"));
    }
    match out.format {
        Format::Json | Format::Yaml if args.only.is_empty() => {
            out.document(&Document::new("GroupConfig", &meta, ConfigView::from(&config)))
        }
        _ => out.list("GroupSettings", &meta, settings, 0),
    }
}

async fn diff(args: &DiffArgs, group: Option<String>, cx: &Cx) -> Result<(), CliError> {
    let wanted = args.file.as_deref().map(file::read).transpose()?;
    let mut client = cx.client()?;
    let group = match wanted.as_ref().and_then(|(_, name)| name.clone()) {
        Some(name) if group.is_none() => name,
        _ => super::group_name(&mut client, group).await?,
    };
    let config = read(&mut client, &group).await?;
    let out = &cx.out;
    let meta = Meta::of(client.cluster(), config.revision, 0);
    let some = match wanted {
        Some((mut spec, _)) => {
            file::without_members(&mut spec, &config)?;
            let lines = config::differences(&stored(&config), &spec);
            tell_differences(cx, &meta, &group, &lines)?;
            !lines.is_empty()
        }
        None => {
            let mut waiting = config::settings(&config, true, &[]);
            waiting.retain(config::SettingView::pending);
            let some = !waiting.is_empty();
            let empty = format!("all that is set in group {group} is in force");
            out.list_with("GroupSettings", &meta, waiting, 0, &empty)?;
            some
        }
    };
    if some && args.exit_code {
        return Err(CliError::silent(codes::exit::CHANGES));
    }
    Ok(())
}

fn tell_differences(cx: &Cx, meta: &Meta, group: &str, lines: &[String]) -> Result<(), CliError> {
    #[derive(serde::Serialize)]
    struct Diff<'a> {
        name: &'a str,
        differences: &'a [String],
    }
    let out = &cx.out;
    match out.format {
        Format::Json | Format::Yaml => out.document(&Document::new(
            "GroupDiff",
            meta,
            Diff {
                name: group,
                differences: lines,
            },
        )),
        Format::Name => out.line(&format!("db/{group}")),
        Format::Table | Format::Wide if lines.is_empty() => {
            cx.out.notes.say("no difference");
            Ok(())
        }
        Format::Table | Format::Wide => {
            let lines: String = lines
                .iter()
                .map(|line| format!("{}\n", crate::output::table::clean(line)))
                .collect();
            out.text(&lines)
        }
    }
}

/// A change of what is wanted.
struct Wanted {
    group: String,
    /// Against this configuration.
    config: GroupConfig,
    spec: GroupSpec,
    /// What differs, a line each.
    differences: Vec<String>,
}

/// Sends what is wanted, on the revision that it was made from.
async fn send(client: &mut Client, change: &ChangeArgs, wanted: &Wanted) -> Result<ChangeResult, CliError> {
    if wanted.differences.is_empty() {
        return Ok(ChangeResult {
            revision: wanted.config.revision,
            ..ChangeResult::default()
        });
    }
    let mut options = change.options();
    if options.revision == 0 {
        options.revision = wanted.config.revision;
    }
    let request = SetConfigRequest {
        group: wanted.group.clone(),
        spec: Some(wanted.spec.clone()),
        options: Some(options),
    };
    client.set_config(request).await
}

/// Tells what became of a change.
async fn finish(
    cx: &Cx,
    client: &mut Client,
    change: &ChangeArgs,
    mut result: ChangeResult,
    wanted: Wanted,
) -> Result<(), CliError> {
    if change.dry_run {
        // What differs first, then what the master would do about it.
        let plan = std::mem::take(&mut result.plan);
        result.plan = wanted.differences;
        result.plan.extend(plan);
    }
    let notes = if change.dry_run {
        Vec::new()
    } else {
        std::mem::take(&mut result.plan)
    };
    let told = change::Told {
        subject: format!("db/{}", wanted.group),
        done: format!("group {} configured", wanted.group),
        notes: &notes,
        ..change::Told::default()
    };
    change::finish(cx, client, change, result, told).await
}
