//! `hactl node cordon` and `uncordon`

use ha_proto::v1::UpdateNodeRequest;

use super::NodeChange;
use crate::commands::Cx;
use crate::error::CliError;

pub(super) async fn run(args: NodeChange, cordoned: bool, cx: &Cx) -> Result<(), CliError> {
    let done = format!(
        "node {} {}",
        args.name,
        if cordoned { "cordoned" } else { "uncordoned" }
    );
    let request = UpdateNodeRequest {
        name: args.name,
        cordoned: Some(cordoned),
        ..UpdateNodeRequest::default()
    };
    super::update(cx, &args.change, request, done).await
}
