//! The measurements behind `make bench`. Each part is on its own and cleans up after itself.

mod commands;
mod figures;
mod idle;
mod mastership;
mod nodes;
mod proxy;
mod scale;

use anyhow::{Result, ensure};

pub(crate) use figures::machine;

/// The parts, in the order in which they are run.
const PARTS: [&str; 5] = ["mastership", "commands", "idle", "scale", "proxy"];

/// Runs the parts that are named, or all.
///
/// # Errors
/// If a part cannot be measured at all.
pub async fn run(wanted: &[String]) -> Result<()> {
    for part in wanted {
        ensure!(
            PARTS.contains(&part.as_str()),
            "there is no part {part}: {}",
            PARTS.join(", ")
        );
    }
    figures::machine();
    for part in PARTS
        .iter()
        .filter(|p| wanted.is_empty() || wanted.iter().any(|w| w == *p))
    {
        match *part {
            "mastership" => mastership::run().await?,
            "commands" => commands::run().await?,
            "idle" => idle::run().await?,
            "scale" => scale::run().await?,
            _ => proxy::run().await?,
        }
    }
    Ok(())
}
