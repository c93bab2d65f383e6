//! `hactl op list`

use ha_proto::v1::ListOperationsRequest;

use crate::commands::Cx;
use crate::error::CliError;
use crate::names;
use crate::output::document::Meta;
use crate::output::views::operation::OperationView;

pub(super) async fn run(cx: &Cx) -> Result<(), CliError> {
    let mut client = cx.client()?;
    let answer = client.list_operations(ListOperationsRequest {}).await?;
    let views: Vec<OperationView> = answer.operations.into_iter().map(Into::into).collect();
    let meta = Meta::of(client.cluster(), 0, 0);
    cx.out
        .list_with("OperationList", &meta, views, names::now_ms(), "there is no operation")
}
