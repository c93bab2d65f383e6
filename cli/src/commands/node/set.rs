//! `hactl node set`

use ha_proto::codes;
use ha_proto::v1::{GetNodeRequest, Resources, UpdateNodeRequest};

use crate::args::ChangeArgs;
use crate::commands::{Cx, change};
use crate::complete;
use crate::error::CliError;
use crate::names;

/// `hactl node set`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hactl node set n1 --cpu 6 --memory 12GiB\n  hactl node set n1 --preference 10\n  \
                        hactl node set n1 --scenario oltp --scenario batch"
)]
pub struct Args {
    /// The node.
    #[arg(value_name = "NODE", add = complete::nodes())]
    pub name: String,
    /// Where its daemon listens.
    #[arg(long, value_name = "ADDR", value_parser = names::grpc_address)]
    pub address: Option<String>,
    /// Cores to count with, instead of what was measured: 8, 7.5 or 7500m.
    #[arg(long, value_name = "CORES", value_parser = names::cores)]
    pub cpu: Option<u64>,
    /// Memory to count with, instead of what was measured: 16GiB.
    #[arg(long, value_name = "SIZE", value_parser = names::bytes)]
    pub memory: Option<u64>,
    /// Disk to count with, instead of what was measured: 200GiB.
    #[arg(long, value_name = "SIZE", value_parser = names::bytes)]
    pub disk: Option<u64>,
    /// Count with what was measured again.
    #[arg(long, conflicts_with_all = ["cpu", "memory", "disk"])]
    pub measured: bool,
    /// The business scenarios that it serves, instead of those it has; may be given more than once.
    #[arg(long = "scenario", value_name = "NAME")]
    pub scenarios: Vec<String>,
    /// Serve no scenario in particular.
    #[arg(long, conflicts_with = "scenarios")]
    pub no_scenario: bool,
    /// Whether it may be master.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub eligible: Option<bool>,
    /// Preference as master: the highest above 0 that is online is made master; 0 is none.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..=1000))]
    pub preference: Option<i32>,
    /// Flags of every change.
    #[command(flatten)]
    pub change: ChangeArgs,
}

pub(super) async fn run(args: Args, cx: &Cx) -> Result<(), CliError> {
    names::check_name("node", &args.name)?;
    let capacity = args.cpu.or(args.memory).or(args.disk).is_some();
    let scenarios = args.no_scenario || !args.scenarios.is_empty();
    let nothing = args.address.is_none()
        && !capacity
        && !args.measured
        && !scenarios
        && args.eligible.is_none()
        && args.preference.is_none();
    if nothing {
        return Err(
            CliError::new(codes::USAGE, "nothing to set was named").next("hactl node set --help", "what can be set")
        );
    }
    let mut client = cx.client()?;
    let mut revision = args.change.revision;
    let mut capacity_override = None;
    if capacity {
        // The override is one value: what is not named stays as it is, and the revision guards that it still is.
        let node = client
            .get_node(GetNodeRequest {
                name: args.name.clone(),
            })
            .await?;
        let old = node.spec.and_then(|s| s.capacity_override).unwrap_or_default();
        if revision == 0 && old != Resources::default() {
            revision = node.revision;
        }
        capacity_override = Some(Resources {
            cpu_milli: args.cpu.unwrap_or(old.cpu_milli),
            memory_bytes: args.memory.unwrap_or(old.memory_bytes),
            disk_bytes: args.disk.unwrap_or(old.disk_bytes),
        });
    }
    let mut options = args.change.options();
    options.revision = revision;
    let request = UpdateNodeRequest {
        name: args.name.clone(),
        address: args.address,
        capacity_override,
        clear_capacity_override: args.measured,
        scenarios: args.scenarios,
        set_scenarios: scenarios,
        master_eligible: args.eligible,
        master_preference: args.preference,
        options: Some(options),
        ..UpdateNodeRequest::default()
    };
    let result = client.update_node(request).await?;
    let told = change::Told {
        subject: format!("node/{}", args.name),
        done: format!("node {} set", args.name),
        ..change::Told::default()
    };
    change::finish(cx, &mut client, &args.change, result, told).await
}
