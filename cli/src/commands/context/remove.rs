//! `hactl context remove`

use ha_proto::codes;

use crate::args::ChangeArgs;
use crate::commands::{Cx, change};
use crate::complete;
use crate::error::CliError;

/// `hactl context remove`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The context.
    #[arg(value_name = "NAME", add = complete::contexts())]
    pub name: String,
    /// Do it without asking.
    #[arg(short = 'y', long)]
    pub yes: bool,
    /// Also delete the cluster's certificate authority that is in it. There may be no other copy.
    #[arg(long)]
    pub with_authority: bool,
}

pub(super) fn run(args: &Args, cx: &Cx) -> Result<(), CliError> {
    let store = cx.store()?;
    // A damaged context can be removed too, so it is not read.
    if store.exists(&args.name) && store.authority_path(&args.name).exists() && !args.with_authority {
        let path = store.authority_path(&args.name);
        return Err(CliError::new(
            codes::UNCONFIRMED,
            format!("context {} holds its cluster's certificate authority", args.name),
        )
        .why("without it no node and no user can be added to the cluster any more")
        .next(format!("cp {} DIR", path.display()), "keep a copy")
        .next(
            format!("hactl context remove {} --with-authority --yes", args.name),
            "then remove it",
        ));
    }
    let change = ChangeArgs {
        yes: args.yes,
        ..ChangeArgs::default()
    };
    if store.exists(&args.name) {
        let step = format!("forget context {} and delete its key", args.name);
        change::confirm(cx, &change, &step, &format!("hactl context remove {}", args.name))?;
    }
    store.remove(&args.name)?;
    super::list::told(cx, &args.name, true, &format!("context {} removed", args.name))
}
