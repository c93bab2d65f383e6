//! `hactl db list`

use ha_proto::v1::ListGroupsRequest;

use crate::commands::Cx;
use crate::error::CliError;
use crate::names;
use crate::output::document::Meta;
use crate::output::views::database::GroupView;

pub(super) async fn run(cx: &Cx) -> Result<(), CliError> {
    let context = cx.context()?;
    let mut client = cx.client_of(&context)?;
    let answer = client.list_groups(ListGroupsRequest {}).await?;
    super::remember(&context, &answer.groups);
    let now = match answer.observed_unix_ms {
        0 => names::now_ms(),
        at => at,
    };
    let meta = Meta::of(client.cluster(), answer.revision, answer.observed_unix_ms);
    let views: Vec<GroupView> = answer.groups.iter().map(Into::into).collect();
    cx.out.list_with(
        "GroupList",
        &meta,
        views,
        now,
        "there is no database group; hactl db create NAME --node N1 --node N2 makes one",
    )
}
