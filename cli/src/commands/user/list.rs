//! `hactl user list`

use ha_proto::v1::ListUsersRequest;

use crate::commands::Cx;
use crate::error::CliError;
use crate::names;
use crate::output::document::Meta;
use crate::output::views::user::UserView;

/// `hactl user list`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also nodes, which have certificates too.
    #[arg(long, short = 'a')]
    pub all: bool,
}

pub(super) async fn run(args: &Args, cx: &Cx) -> Result<(), CliError> {
    let mut client = cx.client()?;
    let answer = client.list_users(ListUsersRequest {}).await?;
    let now = names::now_ms();
    let mut views: Vec<UserView> = answer.users.into_iter().map(|user| UserView::new(user, now)).collect();
    views.retain(|view| args.all || view.is_user());
    let meta = Meta::of(client.cluster(), answer.revision, 0);
    cx.out.list_with("UserList", &meta, views, now, "there is no user")
}
