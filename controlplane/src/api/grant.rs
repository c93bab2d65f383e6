//! Grants from node to node, without the master (protocol R13): passed to the instance that is asked, whose answer it is.

use std::time::Duration;

use ha_proto::v1;
use ha_proto::v1::peer_service_server::PeerService;
use tokio::sync::oneshot;
use tonic::{Request, Response, Status};

use super::{Context, caller, check};
use crate::agent::database::GrantAsk;

/// The promise is on disk before it is told; who asks does not wait longer.
const LIMIT: Duration = Duration::from_secs(2);

pub(crate) struct PeerApi(pub(crate) Context);

#[tonic::async_trait]
impl PeerService for PeerApi {
    async fn grant(&self, request: Request<v1::GrantRequest>) -> Result<Response<v1::GrantAnswer>, Status> {
        let from = caller(&request)?.identity.name().to_owned();
        let request = request.into_inner();
        check::name("group", &request.group)?;
        let refused = |why: &str| {
            Ok(Response::new(v1::GrantAnswer {
                granted: false,
                why: why.to_owned(),
                sealed_epoch: 0,
            }))
        };
        if request.node != from {
            return refused("a primary asks for itself alone");
        }
        let (reply, answer) = oneshot::channel();
        let ask = GrantAsk { from, request, reply };
        if self.0.shared.grants.try_send(ask).is_err() {
            return refused("this node is too busy to answer");
        }
        match tokio::time::timeout(LIMIT, answer).await {
            Ok(Ok(answer)) => Ok(Response::new(answer)),
            Ok(Err(_)) => refused("this node has no instance of the group"),
            Err(_) => refused("the answer could not be put on disk in time"),
        }
    }
}
