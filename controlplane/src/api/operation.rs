//! Operations: requests that go on after their answer.

use ha_proto::v1::operation_service_server::OperationService;
use ha_proto::{codes, v1};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Answers, Context, caller, check};
use crate::error::ApiError;
use crate::master::handle::{HubQuery, Request as Change};

pub(crate) struct OperationApi(pub(crate) Context);

impl OperationApi {
    /// The operation with this id, or the only one whose id begins so: people type what they see.
    async fn find(&self, id: &str) -> Result<v1::Operation, ApiError> {
        check::operation_id(id)?;
        let mut all = self.0.master()?.ask(HubQuery::Operations).await?;
        if let Some(exact) = all.iter().position(|o| o.id == id) {
            return Ok(all.swap_remove(exact));
        }
        all.retain(|o| o.id.starts_with(id));
        match (all.pop(), all.len()) {
            (Some(one), 0) => Ok(one),
            (Some(_), more) => Err(
                check::bad("operation id", format!("{} operations begin with {id}", more + 1)).next("hactl op list"),
            ),
            (None, _) => {
                Err(ApiError::new(&codes::OP_UNKNOWN, format!("there is no operation {id}")).next("hactl op list"))
            }
        }
    }
}

#[tonic::async_trait]
impl OperationService for OperationApi {
    async fn list_operations(
        &self,
        _: Request<v1::ListOperationsRequest>,
    ) -> Result<Response<v1::ListOperationsResponse>, Status> {
        let operations = self.0.master()?.ask(HubQuery::Operations).await?;
        Ok(Response::new(v1::ListOperationsResponse {
            operations,
            cluster: self.0.shared.me.cluster.clone(),
        }))
    }

    async fn get_operation(
        &self,
        request: Request<v1::GetOperationRequest>,
    ) -> Result<Response<v1::Operation>, Status> {
        Ok(Response::new(self.find(&request.into_inner().id).await?))
    }

    type WatchOperationStream = Answers<v1::Operation>;

    async fn watch_operation(
        &self,
        request: Request<v1::GetOperationRequest>,
    ) -> Result<Response<Self::WatchOperationStream>, Status> {
        let id = self.find(&request.into_inner().id).await?.id;
        let states = self
            .0
            .master()?
            .ask(|reply| HubQuery::WatchOperation(id, reply))
            .await??;
        // The stream ends with the operation; ended before that, mastership has ended.
        let (context, mut finished) = (self.0.clone(), false);
        let states = ReceiverStream::new(states).map(Some).chain(tokio_stream::once(None));
        let states = states.filter_map(move |state| match state {
            Some(state) => {
                finished = state.state().is_final();
                Some(Ok(state))
            }
            None => (!finished).then(|| Err(context.electing().into())),
        });
        Ok(Response::new(Box::pin(states)))
    }

    async fn cancel_operation(
        &self,
        request: Request<v1::CancelOperationRequest>,
    ) -> Result<Response<v1::ChangeResult>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        check::options(request.options.as_ref())?;
        let id = self.find(&request.id).await?.id;
        self.0
            .change(
                caller,
                Change::CancelOperation(v1::CancelOperationRequest { id, ..request }),
            )
            .await
    }
}
