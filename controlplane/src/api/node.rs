//! Nodes: added, removed, shown and changed.

use ha_proto::v1::node_service_server::NodeService;
use ha_proto::{codes, v1};
use tonic::{Request, Response, Status};

use super::{Context, caller, check};
use crate::error::ApiError;
use crate::master::handle::Request as Change;

pub(crate) struct NodeApi(pub(crate) Context);

fn is_removed(node: &v1::Node) -> bool {
    node.status
        .as_ref()
        .is_some_and(|s| s.state() == v1::NodeState::Removed)
}

#[tonic::async_trait]
impl NodeService for NodeApi {
    async fn add_node(&self, request: Request<v1::AddNodeRequest>) -> Result<Response<v1::ChangeResult>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        check::name("node", &request.name)?;
        check::options(request.options.as_ref())?;
        if request.spec.is_none() {
            return Err(check::bad("spec", "it is missing".into()).into());
        }
        if !request.certificate_serial.is_empty() {
            check::serial(&request.certificate_serial)?;
        }
        check::time("certificate_expires", request.certificate_expires_unix_ms)?;
        self.0.change(caller, Change::AddNode(request)).await
    }

    async fn remove_node(&self, request: Request<v1::RemoveNodeRequest>) -> Result<Response<v1::ChangeResult>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        check::name("node", &request.name)?;
        check::options(request.options.as_ref())?;
        self.0.change(caller, Change::RemoveNode(request)).await
    }

    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        let (all, mut state) = (request.into_inner().all, self.0.state().await?);
        if !all {
            state.nodes.retain(|n| !is_removed(n));
        }
        Ok(Response::new(v1::ListNodesResponse {
            nodes: state.nodes,
            revision: state.revision,
            observed_unix_ms: state.observed_unix_ms,
            cluster: state.cluster,
        }))
    }

    async fn get_node(&self, request: Request<v1::GetNodeRequest>) -> Result<Response<v1::Node>, Status> {
        let name = request.into_inner().name;
        check::name("node", &name)?;
        let node = self.0.state().await?.nodes.into_iter().find(|n| n.name == name);
        let unknown =
            || ApiError::new(&codes::NODE_UNKNOWN, format!("there is no node {name}")).next("hactl node list");
        Ok(Response::new(node.ok_or_else(unknown)?))
    }

    async fn update_node(&self, request: Request<v1::UpdateNodeRequest>) -> Result<Response<v1::ChangeResult>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        check::name("node", &request.name)?;
        check::options(request.options.as_ref())?;
        self.0.change(caller, Change::UpdateNode(request)).await
    }

    async fn drain_node(&self, request: Request<v1::DrainNodeRequest>) -> Result<Response<v1::ChangeResult>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        check::name("node", &request.name)?;
        check::options(request.options.as_ref())?;
        self.0.change(caller, Change::DrainNode(request)).await
    }
}
