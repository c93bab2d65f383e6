//! `hactl node remove`

use ha_proto::v1::RemoveNodeRequest;

use super::NodeChange;
use crate::commands::{Cx, change};
use crate::error::CliError;
use crate::names;

/// `hactl node remove`
pub(super) type Args = NodeChange;

pub(super) async fn run(args: Args, cx: &Cx) -> Result<(), CliError> {
    names::check_name("node", &args.name)?;
    let step = format!("remove node {} from the cluster and revoke its certificate", args.name);
    change::confirm(cx, &args.change, &step, &format!("hactl node remove {}", args.name))?;
    let context = cx.context()?;
    let mut client = cx.client_of(&context)?;
    let request = RemoveNodeRequest {
        name: args.name.clone(),
        options: Some(args.change.options()),
    };
    let result = client.remove_node(request).await?;
    if !args.change.dry_run {
        context.update_cache(|cache| cache.nodes.retain(|n| *n != args.name));
    }
    let told = change::Told {
        subject: format!("node/{}", args.name),
        done: format!("node {} removed", args.name),
        ..change::Told::default()
    };
    change::finish(cx, &mut client, &args.change, result, told).await
}
