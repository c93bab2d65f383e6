//! The change log.

use ha_proto::v1;
use ha_proto::v1::event_service_server::EventService;
use tonic::{Request, Response, Status};

use super::{Answers, Context, check, stream};
use crate::master::handle::HubQuery;

const MAX_KIND: usize = 64;

pub(crate) struct EventApi(pub(crate) Context);

#[tonic::async_trait]
impl EventService for EventApi {
    async fn list_changes(
        &self,
        request: Request<v1::ListChangesRequest>,
    ) -> Result<Response<v1::ListChangesResponse>, Status> {
        let request = request.into_inner();
        check::limit(request.limit)?;
        check::time("since", request.since_unix_ms)?;
        check::text("kind", &request.kind, MAX_KIND)?;
        check::optional_name("node", &request.node)?;
        let answer = self.0.master()?.ask(|reply| HubQuery::Changes(request, reply)).await?;
        Ok(Response::new(answer?))
    }

    type FollowChangesStream = Answers<v1::Change>;

    async fn follow_changes(
        &self,
        request: Request<v1::FollowChangesRequest>,
    ) -> Result<Response<Self::FollowChangesStream>, Status> {
        let from_seq = request.into_inner().from_seq;
        let changes = self
            .0
            .master()?
            .ask(|reply| HubQuery::Follow { from_seq, reply })
            .await?;
        Ok(stream(&self.0, changes))
    }
}
