//! `hactl db switchover`

use ha_proto::codes;
use ha_proto::v1::SwitchoverRequest;

use crate::args::ChangeArgs;
use crate::commands::{Cx, change};
use crate::complete;
use crate::error::CliError;
use crate::names;
use crate::output::units;

/// `hactl db switchover`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Writes pause for a fraction of a second; nothing is lost. If the new primary does not come about, the old one \
                        goes on.\n\nExamples:\n  hactl db switchover --to n3\n  hactl db switchover --at 2026-01-31T03:00:00Z --yes"
)]
pub struct Args {
    /// The instance that becomes primary; without it the best standby.
    #[arg(long, value_name = "NODE", add = complete::nodes())]
    pub to: Option<String>,
    /// Not now but then: a time (2026-01-31T03:00:00Z) or a span (2h). It is not waited for unless --wait is given.
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// Flags of every change.
    #[command(flatten)]
    pub change: ChangeArgs,
}

pub(super) async fn run(mut args: Args, name: Option<String>, cx: &Cx) -> Result<(), CliError> {
    if let Some(to) = &args.to {
        names::check_name("node", to)?;
    }
    let at = super::pause::time_to_come("--at", args.at.as_deref())?;
    let mut client = cx.client()?;
    let flag = super::flag(name.as_deref());
    let group = super::group(&mut client, name.as_deref()).await?;
    let from = group.record.as_ref().map_or("", |r| r.primary.as_str());
    let to = args.to.clone().unwrap_or_default();
    if from.is_empty() {
        return Err(CliError::new(
            codes::NO_PRIMARY,
            format!("group {} has no primary to switch over from", group.name),
        )
        .next(format!("hactl db explain{flag}"), "what it waits for")
        .next(format!("hactl db status{flag}"), "how its instances are"));
    }
    let target = if to.is_empty() { "the best standby" } else { &to };
    let when = if at > 0 {
        format!(" at {}", units::local(at))
    } else {
        String::new()
    };
    let mut command = format!("hactl db switchover{flag}");
    if !to.is_empty() {
        command.push_str(&format!(" --to {to}"));
    }
    if let Some(at) = &args.at {
        command.push_str(&format!(" --at {at}"));
    }
    let step = format!("switch {} over from {from} to {target}{when}", group.name);
    change::confirm(cx, &args.change, &step, &command)?;
    // What is planned for the night is not waited for by day.
    args.change.no_wait |= at > 0 && !args.change.wait;
    let request = SwitchoverRequest {
        group: group.name.clone(),
        to: to.clone(),
        at_unix_ms: at,
        options: Some(args.change.options()),
    };
    let result = client.switchover(request).await?;
    let done = if to.is_empty() {
        format!("{} switched over", group.name)
    } else {
        format!("{to} is primary of {}", group.name)
    };
    let told = change::Told {
        subject: format!("db/{}", group.name),
        done,
        ..change::Told::default()
    };
    change::finish(cx, &mut client, &args.change, result, told).await
}
