//! The cluster live.

use ha_proto::v1;
use ha_proto::v1::watch_service_server::WatchService;
use tonic::{Request, Response, Status};

use super::{Answers, Context, stream};
use crate::master::handle::HubQuery;

pub(crate) struct WatchApi(pub(crate) Context);

#[tonic::async_trait]
impl WatchService for WatchApi {
    type WatchStream = Answers<v1::WatchFrame>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        let frames = self.0.master()?.ask(|reply| HubQuery::Watch { request, reply }).await?;
        Ok(stream(&self.0, frames))
    }
}
