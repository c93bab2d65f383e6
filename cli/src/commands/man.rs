//! `hactl man DIR`: a manual page for every command.

use std::path::PathBuf;

use clap::CommandFactory as _;

use super::Cx;
use crate::error::{CliError, file_error};

/// `hactl man`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory for the pages; it is made if it is missing.
    #[arg(value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub dir: PathBuf,
}

/// # Errors
/// `HA0002` if a page cannot be written.
pub fn run(args: &Args, cx: &Cx) -> Result<(), CliError> {
    std::fs::create_dir_all(&args.dir).map_err(|e| file_error("create", &args.dir, &e))?;
    let mut command = crate::args::Cli::command();
    command.build();
    let mut count = 0;
    write(&command, "hactl", args, &mut count)?;
    cx.out
        .notes
        .say(&format!("wrote {count} pages to {}", args.dir.display()));
    Ok(())
}

fn write(command: &clap::Command, name: &str, args: &Args, count: &mut usize) -> Result<(), CliError> {
    let path = args.dir.join(format!("{name}.1"));
    let mut page = Vec::new();
    // The page's name is the whole path with hyphens, as git's are.
    let title: &'static str = Box::leak(name.to_owned().into_boxed_str());
    clap_mangen::Man::new(command.clone().name(title))
        .section("1")
        .source(concat!("hactl ", env!("CARGO_PKG_VERSION")))
        .manual("hactl")
        .render(&mut page)
        .and_then(|()| std::fs::write(&path, &page))
        .map_err(|e| file_error("write", &path, &e))?;
    *count += 1;
    for sub in command.get_subcommands().filter(|s| !s.is_hide_set()) {
        write(sub, &format!("{name}-{}", sub.get_name()), args, count)?;
    }
    Ok(())
}
