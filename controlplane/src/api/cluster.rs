//! The cluster as a whole.

use ha_proto::v1;
use ha_proto::v1::cluster_service_server::ClusterService;
use tonic::{Request, Response, Status};

use super::{Context, caller, check};
use crate::master::handle::{HubQuery, Request as Change};

pub(crate) struct ClusterApi(pub(crate) Context);

#[tonic::async_trait]
impl ClusterService for ClusterApi {
    async fn get_state(&self, _: Request<v1::GetStateRequest>) -> Result<Response<v1::ClusterState>, Status> {
        Ok(Response::new(self.0.state().await?))
    }

    async fn set_maintenance(
        &self,
        request: Request<v1::SetMaintenanceRequest>,
    ) -> Result<Response<v1::ChangeResult>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        check::options(request.options.as_ref())?;
        check::time("until", request.until_unix_ms)?;
        self.0.change(caller, Change::SetMaintenance(request)).await
    }

    async fn transfer_master(
        &self,
        request: Request<v1::TransferMasterRequest>,
    ) -> Result<Response<v1::ChangeResult>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        check::options(request.options.as_ref())?;
        check::optional_name("node", &request.to)?;
        self.0.change(caller, Change::TransferMaster(request)).await
    }

    async fn doctor(&self, _: Request<v1::DoctorRequest>) -> Result<Response<v1::DoctorReport>, Status> {
        Ok(Response::new(self.0.master()?.ask(HubQuery::Doctor).await?))
    }
}
