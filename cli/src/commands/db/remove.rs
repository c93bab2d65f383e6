//! `hactl db remove`: cannot be undone, so that the name is typed twice.

use ha_proto::codes;
use ha_proto::v1::RemoveGroupRequest;

use crate::args::ChangeArgs;
use crate::commands::{Cx, change};
use crate::complete;
use crate::error::CliError;
use crate::names;

/// `hactl db remove`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "PostgreSQL is stopped on every node of the group. The data directories stay unless --delete-data is given: a group \
                        that is\nmade anew on them adopts them.\n\nExample:\n  hactl db remove test --confirm test"
)]
pub struct Args {
    /// The group; without it the one that --confirm names.
    #[arg(value_name = "GROUP", add = complete::groups())]
    pub name: Option<String>,
    /// The group's name once more: it will be gone.
    #[arg(long, value_name = "GROUP")]
    pub confirm: Option<String>,
    /// Also delete the data directories.
    #[arg(long)]
    pub delete_data: bool,
    /// Flags of every change.
    #[command(flatten)]
    pub change: ChangeArgs,
}

pub(super) async fn run(args: Args, group: Option<String>, cx: &Cx) -> Result<(), CliError> {
    let Some(name) = args.name.or(group).or_else(|| args.confirm.clone()) else {
        return Err(
            CliError::new(codes::USAGE, "it is not said which database group is to be removed")
                .next("hactl db list", "the groups")
                .next("hactl db remove GROUP --confirm GROUP", ""),
        );
    };
    names::check_name("database group", &name)?;
    let delete = if args.delete_data { " --delete-data" } else { "" };
    if args.confirm.as_deref() != Some(name.as_str()) && !args.change.dry_run {
        let what = if args.delete_data {
            "and all its data"
        } else {
            "and stop its databases"
        };
        let error = CliError::new(codes::UNCONFIRMED, format!("not confirmed: remove group {name} {what}"));
        let error = match &args.confirm {
            Some(other) => error.why(format!("--confirm names {other}, not {name}")),
            None => error.why("this cannot be undone: --confirm takes the group's name once more"),
        };
        return Err(error
            .next(format!("hactl db remove {name}{delete} --confirm {name}"), "do it")
            .next(
                format!("hactl db remove {name}{delete} --dry-run"),
                "see what would be done",
            ));
    }
    let context = cx.context()?;
    let mut client = cx.client_of(&context)?;
    let request = RemoveGroupRequest {
        name: name.clone(),
        confirm: args.confirm.unwrap_or_default(),
        delete_data: args.delete_data,
        options: Some(args.change.options()),
    };
    let result = client.remove_group(request).await?;
    if !args.change.dry_run {
        context.update_cache(|cache| cache.groups.retain(|g| *g != name));
    }
    let told = change::Told {
        subject: format!("db/{name}"),
        done: format!("group {name} removed"),
        ..change::Told::default()
    };
    change::finish(cx, &mut client, &args.change, result, told).await
}
