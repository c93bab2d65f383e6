//! Users and their certificates.

use ha_proto::v1;
use ha_proto::v1::user_service_server::UserService;
use tonic::{Request, Response, Status};

use super::{Context, caller, check};
use crate::master::handle::{HubQuery, Request as Change};

pub(crate) struct UserApi(pub(crate) Context);

#[tonic::async_trait]
impl UserService for UserApi {
    async fn record_user(&self, request: Request<v1::RecordUserRequest>) -> Result<Response<v1::ChangeResult>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        check::name("user", &request.name)?;
        check::options(request.options.as_ref())?;
        check::serial(&request.serial)?;
        check::time("expires", request.expires_unix_ms)?;
        if request.role() == v1::AccessRole::Unspecified {
            return Err(check::bad("role", "it is viewer, operator or admin".into()).into());
        }
        self.0.change(caller, Change::RecordUser(request)).await
    }

    async fn revoke_user(&self, request: Request<v1::RevokeUserRequest>) -> Result<Response<v1::ChangeResult>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        check::name(if request.node { "node" } else { "user" }, &request.name)?;
        check::options(request.options.as_ref())?;
        self.0.change(caller, Change::RevokeUser(request)).await
    }

    async fn list_users(&self, _: Request<v1::ListUsersRequest>) -> Result<Response<v1::ListUsersResponse>, Status> {
        let users = self.0.master()?.ask(HubQuery::Users).await?;
        let state = self.0.state().await?;
        Ok(Response::new(v1::ListUsersResponse {
            users,
            revision: state.revision,
            cluster: state.cluster,
        }))
    }
}
