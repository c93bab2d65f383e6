//! `hactl db pause` and `hactl db resume`

use ha_proto::codes;
use ha_proto::v1::PauseRequest;

use crate::args::ChangeArgs;
use crate::commands::{Cx, change};
use crate::error::CliError;
use crate::names;
use crate::output::units;

/// `hactl db pause`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "While a group is paused nothing is done to it by itself: no failover, no repair, no new instance. What operators \
                        ask for\nis done. Leases go on: a primary whose node is lost still stops."
)]
pub struct PauseArgs {
    /// Resume by itself: a span (2h) or a time (2026-01-31T18:00:00Z).
    #[arg(long, value_name = "T")]
    pub until: Option<String>,
    /// Flags of every change.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// `hactl db resume`
#[derive(Debug, clap::Args)]
pub struct ResumeArgs {
    /// Flags of every change.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// The time in `text`, which must be ahead; 0 for none.
pub(super) fn time_to_come(flag: &str, text: Option<&str>) -> Result<i64, CliError> {
    let Some(text) = text else { return Ok(0) };
    let now = names::now_ms();
    let bad = |why: String| CliError::new(codes::BAD_VALUE, format!("{flag} is not a time to come")).why(why);
    let at = names::instant(text, now, 1).map_err(bad)?;
    if at <= now {
        return Err(bad(format!("{} has passed", units::local(at))));
    }
    Ok(at)
}

pub(super) async fn pause(args: PauseArgs, name: Option<String>, cx: &Cx) -> Result<(), CliError> {
    let until = time_to_come("--until", args.until.as_deref())?;
    send(cx, name, true, until, &args.change).await
}

pub(super) async fn resume(args: ResumeArgs, name: Option<String>, cx: &Cx) -> Result<(), CliError> {
    send(cx, name, false, 0, &args.change).await
}

async fn send(cx: &Cx, name: Option<String>, on: bool, until: i64, change: &ChangeArgs) -> Result<(), CliError> {
    let mut client = cx.client()?;
    let group = super::group_name(&mut client, name).await?;
    let request = PauseRequest {
        group: group.clone(),
        on,
        until_unix_ms: until,
        options: Some(change.options()),
    };
    let result = client.pause(request).await?;
    let done = match (on, until) {
        (true, 0) => format!("group {group} is paused"),
        (true, at) => format!("group {group} is paused until {}", units::local(at)),
        (false, _) => format!("group {group} is resumed"),
    };
    let told = change::Told {
        subject: format!("db/{group}"),
        done,
        ..change::Told::default()
    };
    change::finish(cx, &mut client, change, result, told).await
}
