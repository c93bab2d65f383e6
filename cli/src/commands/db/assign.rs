//! `hactl db assign`

use ha_proto::codes;
use ha_proto::v1::{AssignInstanceRequest, InstanceRole};

use crate::args::ChangeArgs;
use crate::commands::{Cx, change};
use crate::complete;
use crate::error::CliError;
use crate::names;

/// `hactl db assign`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Roles:\n  primary  the primary, whenever it can be; where another one is, the primary is switched over\n  \
                        sync     a standby that commits wait for, and that takes over\n  \
                        async    a standby that commits never wait for, and that takes over by hand alone\n  \
                        none     no instance; its data directory stays unless --delete-data is given\n\n\
                        Examples:\n  hactl db assign n4 --role sync\n  hactl db assign n3 --role async --priority 0\n  \
                        hactl db assign n3 --role none --delete-data --confirm n3"
)]
pub struct Args {
    /// The node.
    #[arg(value_name = "NODE", add = complete::nodes())]
    pub node: String,
    /// What it is to be: primary, sync, async or none.
    #[arg(long, value_name = "ROLE", value_parser = role, add = complete::instance_roles())]
    pub role: Option<InstanceRole>,
    /// Of equally good instances the one with the highest takes over; 0: never by itself. The ordinary one is 100.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub priority: Option<u32>,
    /// With --role none: also delete its data directory.
    #[arg(long)]
    pub delete_data: bool,
    /// The node once more: its data will be gone.
    #[arg(long, value_name = "NODE", requires = "delete_data")]
    pub confirm: Option<String>,
    /// Flags of every change.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// A role, for clap.
pub(super) fn role(text: &str) -> Result<InstanceRole, String> {
    InstanceRole::from_word(text)
        .filter(|role| *role != InstanceRole::Unspecified)
        .ok_or_else(|| format!("`{text}` is none of primary, sync, async, none"))
}

pub(super) async fn run(args: Args, name: Option<String>, cx: &Cx) -> Result<(), CliError> {
    names::check_name("node", &args.node)?;
    if args.role.is_none() && args.priority.is_none() {
        return Err(CliError::new(codes::USAGE, "neither --role nor --priority was given")
            .next("hactl db assign --help", "what can be assigned"));
    }
    let mut client = cx.client()?;
    let flag = super::flag(name.as_deref());
    let group = super::group_name(&mut client, name).await?;
    let node = &args.node;
    let step = match args.role {
        Some(InstanceRole::Primary) => Some(format!("make {node} the primary of {group}, with a switchover")),
        Some(InstanceRole::None) => Some(format!("end the instance of {group} on {node}")),
        _ => None,
    };
    if args.delete_data {
        confirmed(&args, &group, &flag)?;
    } else if let (Some(step), Some(role)) = (step, args.role) {
        let command = format!("hactl db assign{flag} {node} --role {}", role.word());
        change::confirm(cx, &args.change, &step, &command)?;
    }
    let request = AssignInstanceRequest {
        group: group.clone(),
        node: node.clone(),
        role: args.role.unwrap_or_default().into(),
        priority: args.priority,
        delete_data: args.delete_data,
        confirm: args.confirm.clone().unwrap_or_default(),
        options: Some(args.change.options()),
    };
    let result = client.assign_instance(request).await?;
    let done = match (args.role, args.priority) {
        (Some(InstanceRole::None), _) if args.delete_data => {
            format!("{node} has no instance of {group} any more, and no data of it")
        }
        (Some(InstanceRole::None), _) => format!("{node} has no instance of {group} any more"),
        (Some(role), Some(priority)) => format!("{node} is {} in {group}, priority {priority}", role.word()),
        (Some(role), None) => format!("{node} is {} in {group}", role.word()),
        (None, priority) => format!("{node} has priority {} in {group}", priority.unwrap_or(0)),
    };
    let told = change::Told {
        subject: format!("db/{group}/{node}"),
        done,
        ..change::Told::default()
    };
    change::finish(cx, &mut client, &args.change, result, told).await
}

/// Data are deleted with the role none alone, and only if the node was typed twice.
fn confirmed(args: &Args, group: &str, flag: &str) -> Result<(), CliError> {
    let node = &args.node;
    let command = format!("hactl db assign{flag} {node} --role none --delete-data");
    if args.role != Some(InstanceRole::None) {
        return Err(
            CliError::new(codes::USAGE, "--delete-data goes with --role none alone").next(
                format!("{command} --confirm {node}"),
                "end the instance, and delete its data",
            ),
        );
    }
    if args.change.dry_run || args.confirm.as_ref() == Some(node) {
        return Ok(());
    }
    let what = format!("not confirmed: end the instance of {group} on {node} and delete its data");
    let error = CliError::new(codes::UNCONFIRMED, what);
    let error = match &args.confirm {
        Some(other) => error.why(format!("--confirm names {other}, not {node}")),
        None => error.why("this cannot be undone: --confirm takes the node's name once more"),
    };
    Err(error
        .next(format!("{command} --confirm {node}"), "do it")
        .next(format!("{command} --dry-run"), "see what would be done"))
}
