//! `hactl db status`

use ha_proto::codes;
use ha_proto::v1::GroupHealth;

use crate::commands::Cx;
use crate::error::CliError;
use crate::output::document::{Document, Meta};
use crate::output::views::database::GroupView;
use crate::output::views::database::group;
use crate::output::views::database::instance::InstanceView;
use crate::output::{Format, View as _};

/// `hactl db status`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "WANTED is what the group's record says, REPORTED what the instance says of itself. A standby's SYNC says \
                        whether commits\nwait for it. LEASE is how long the instance would go on without its daemon."
)]
pub struct Args {
    /// Exit 3 unless the group is healthy.
    #[arg(long)]
    pub check: bool,
}

pub(super) async fn run(args: &Args, name: Option<String>, cx: &Cx) -> Result<(), CliError> {
    let mut client = cx.client()?;
    let group = super::group(&mut client, name.as_deref()).await?;
    let now = super::observed(&group);
    let out = &cx.out;
    match out.format {
        Format::Json | Format::Yaml => {
            let mut meta = Meta::of(client.cluster(), group.revision, group.observed_unix_ms);
            meta.warnings.clone_from(&group.problems);
            out.document(&Document::new("Group", &meta, GroupView::from(&group)))?;
        }
        Format::Name => out.line(&format!("db/{}", GroupView::from(&group).name()))?,
        Format::Table | Format::Wide => {
            let instances: Vec<InstanceView> = group.instances.iter().map(Into::into).collect();
            let table = out.table_of(instances, now)?;
            out.text(&group::report(&group, &table, now, out.colour()))?;
        }
    }
    if args.check && group.health() != GroupHealth::Healthy {
        let error = CliError::new(
            codes::UNHEALTHY,
            format!("database group {} is {}", group.name, group.health().word()),
        );
        let error = group.problems.iter().fold(error, |e, reason| e.why(reason.clone()));
        return Err(error
            .next(format!("hactl db explain --group {}", group.name), "what it waits for")
            .next(format!("hactl db history --group {}", group.name), "what happened"));
    }
    Ok(())
}
