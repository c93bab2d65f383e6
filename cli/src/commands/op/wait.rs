//! `hactl op wait`

use super::Id;
use crate::commands::{Cx, change};
use crate::error::CliError;
use crate::output::Format;
use crate::output::views::operation;

pub(super) async fn run(args: &Id, cx: &Cx) -> Result<(), CliError> {
    let mut client = cx.client()?;
    let op = change::wait(cx, &mut client, &args.id).await?;
    let failure = change::failure(&op);
    match (cx.out.format, &failure) {
        // The error says it.
        (Format::Table | Format::Wide, Some(_)) => {}
        (Format::Table | Format::Wide, None) => cx.out.line(&operation::end_line(&op))?,
        (Format::Json | Format::Yaml | Format::Name, _) => super::show::write(cx, client.cluster(), op)?,
    }
    failure.map_or(Ok(()), Err)
}
