//! `hactl context use`

use crate::commands::Cx;
use crate::complete;
use crate::error::CliError;

/// `hactl context use`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The context.
    #[arg(value_name = "NAME", add = complete::contexts())]
    pub name: String,
}

pub(super) fn run(args: &Args, cx: &Cx) -> Result<(), CliError> {
    let store = cx.store()?;
    if store.current()?.as_deref() == Some(args.name.as_str()) {
        return super::list::told(cx, &args.name, false, "unchanged");
    }
    store.set_current(&args.name)?;
    super::list::told(
        cx,
        &args.name,
        true,
        &format!("context {} is the current one", args.name),
    )
}
