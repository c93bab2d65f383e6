//! `hactl op show`

use ha_proto::v1::{GetOperationRequest, Operation};

use super::Id;
use crate::commands::Cx;
use crate::error::CliError;
use crate::names;
use crate::output::Format;
use crate::output::document::{Document, Meta};
use crate::output::views::operation::OperationView;

pub(super) async fn run(args: &Id, cx: &Cx) -> Result<(), CliError> {
    let mut client = cx.client()?;
    let op = client
        .get_operation(GetOperationRequest { id: args.id.clone() })
        .await?;
    write(cx, client.cluster(), op)
}

/// Writes an operation with everything about it.
pub(super) fn write(cx: &Cx, cluster: &str, op: Operation) -> Result<(), CliError> {
    let id = op.id.clone();
    let view = OperationView::from(op);
    match cx.out.format {
        Format::Json | Format::Yaml => cx
            .out
            .document(&Document::new("Operation", &Meta::of(cluster, 0, 0), view)),
        Format::Name => cx.out.line(&format!("op/{id}")),
        Format::Table | Format::Wide => cx.out.text(&view.report(names::now_ms(), cx.out.colour())),
    }
}
