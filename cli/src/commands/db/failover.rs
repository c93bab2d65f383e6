//! `hactl db failover`: what would be lost is said before anybody is asked.

use ha_proto::v1::{ChangeOptions, FailoverRequest, LossEstimate};

use crate::args::ChangeArgs;
use crate::commands::{Cx, change};
use crate::complete;
use crate::error::CliError;
use crate::names;
use crate::output::units;

/// `hactl db failover`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A primary that is well is changed by hactl db switchover. Without --allow-data-loss a failover happens only \
                        where every\nacknowledged commit is known to be kept; with it the estimated loss is printed first."
)]
pub struct Args {
    /// The instance that becomes primary; without it the one that has most.
    #[arg(long, value_name = "NODE", add = complete::nodes())]
    pub to: Option<String>,
    /// Even if acknowledged commits are lost.
    #[arg(long)]
    pub allow_data_loss: bool,
    /// Flags of every change.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// What would be lost, a line each.
fn loss_lines(loss: Option<&LossEstimate>, now: i64) -> Vec<String> {
    let Some(loss) = loss else {
        return vec!["estimated loss: no acknowledged commit".to_owned()];
    };
    let how_much = loss.bytes.map_or_else(
        || "not known".to_owned(),
        |bytes| format!("at least {} of WAL", units::bytes(bytes)),
    );
    let since = match loss.since_unix_ms {
        0 => String::new(),
        at => format!(
            ", commits acknowledged since {} ({})",
            units::local(at),
            units::ago(at, now)
        ),
    };
    let mut lines = vec![format!("estimated loss: {how_much}{since}")];
    lines.extend(loss.lines.iter().map(|line| format!("  {line}")));
    lines
}

pub(super) async fn run(args: Args, name: Option<String>, cx: &Cx) -> Result<(), CliError> {
    if let Some(to) = &args.to {
        names::check_name("node", to)?;
    }
    let mut client = cx.client()?;
    let flag = super::flag(name.as_deref());
    let group = super::group_name(&mut client, name).await?;
    let to = args.to.clone().unwrap_or_default();
    let request = |options: ChangeOptions| FailoverRequest {
        group: group.clone(),
        to: to.clone(),
        allow_data_loss: args.allow_data_loss,
        options: Some(options),
    };
    let mut planned = None;
    if args.allow_data_loss && !args.change.dry_run {
        let options = ChangeOptions {
            dry_run: true,
            ..args.change.options()
        };
        let plan = client.failover(request(options)).await?;
        for line in loss_lines(plan.loss.as_ref(), names::now_ms()) {
            cx.out.notes.say(&line);
        }
        planned = plan.loss;
    }
    let target = if to.is_empty() {
        "the instance that has most"
    } else {
        &to
    };
    let losing = match (args.allow_data_loss, &planned) {
        (true, Some(_)) => ", losing acknowledged commits",
        (true, None) => ", even if commits are lost",
        (false, _) => "",
    };
    let mut command = format!("hactl db failover{flag}");
    if !to.is_empty() {
        command.push_str(&format!(" --to {to}"));
    }
    if args.allow_data_loss {
        command.push_str(" --allow-data-loss");
    }
    let step = format!("give the primary of {group} up for {target}{losing}");
    change::confirm(cx, &args.change, &step, &command)?;
    let answer = client.failover(request(args.change.options())).await?;
    let mut result = answer.result.unwrap_or_default();
    if args.change.dry_run && (args.allow_data_loss || answer.loss.is_some()) {
        result.plan.extend(loss_lines(answer.loss.as_ref(), names::now_ms()));
    }
    let done = if to.is_empty() {
        format!("{group} failed over")
    } else {
        format!("{to} is primary of {group}")
    };
    let told = change::Told {
        subject: format!("db/{group}"),
        done,
        ..change::Told::default()
    };
    change::finish(cx, &mut client, &args.change, result, told).await
}
