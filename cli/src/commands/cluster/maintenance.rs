//! `hactl cluster maintenance on|off`

use clap::Subcommand;
use ha_proto::codes;
use ha_proto::v1::SetMaintenanceRequest;

use crate::args::ChangeArgs;
use crate::commands::{Cx, change};
use crate::error::CliError;
use crate::names;
use crate::output::units;

/// `on` or `off`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Begin maintenance: alerts are held back, and everybody sees who is at work and why.
    On(OnArgs),
    /// End maintenance.
    Off(OffArgs),
}

/// `hactl cluster maintenance on`
#[derive(Debug, clap::Args)]
pub struct OnArgs {
    /// End it by itself: a span (2h) or a time (2026-01-31T18:00:00Z).
    #[arg(long, value_name = "T")]
    pub until: Option<String>,
    /// Flags of every change.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// `hactl cluster maintenance off`
#[derive(Debug, clap::Args)]
pub struct OffArgs {
    /// Flags of every change.
    #[command(flatten)]
    pub change: ChangeArgs,
}

pub(super) async fn run(command: Command, cx: &Cx) -> Result<(), CliError> {
    let (on, until_unix_ms, change) = match command {
        Command::On(args) => (true, until(args.until.as_deref())?, args.change),
        Command::Off(args) => (false, 0, args.change),
    };
    let mut client = cx.client()?;
    let request = SetMaintenanceRequest {
        on,
        until_unix_ms,
        options: Some(change.options()),
    };
    let result = client.set_maintenance(request).await?;
    let done = match (on, until_unix_ms) {
        (true, 0) => "maintenance is on".to_owned(),
        (true, at) => format!("maintenance is on until {}", units::local(at)),
        (false, _) => "maintenance is off".to_owned(),
    };
    let subject = format!("cluster/{}", client.cluster());
    let told = change::Told {
        subject,
        done,
        ..change::Told::default()
    };
    change::finish(cx, &mut client, &change, result, told).await
}

fn until(text: Option<&str>) -> Result<i64, CliError> {
    let Some(text) = text else { return Ok(0) };
    let now = names::now_ms();
    let bad = |why: String| CliError::new(codes::BAD_VALUE, "--until is not a time to come").why(why);
    let at = names::instant(text, now, 1).map_err(bad)?;
    if at <= now {
        return Err(bad(format!("{} has passed", units::local(at))));
    }
    Ok(at)
}
