//! The calls on database groups.

use ha_proto::v1::*;
use tonic::{Request, Response};

use super::{Answer, Service, detail, status};

#[tonic::async_trait]
impl database_service_server::DatabaseService for Service {
    async fn list_groups(&self, request: Request<ListGroupsRequest>) -> Answer<ListGroupsResponse> {
        self.call("ListGroups", &request).await?;
        Ok(Response::new(self.cluster.script(|s| ListGroupsResponse {
            groups: s.state.databases.clone(),
            revision: s.state.revision,
            observed_unix_ms: s.state.observed_unix_ms,
            cluster: s.state.cluster.clone(),
        })))
    }
    async fn get_group(&self, request: Request<GetGroupRequest>) -> Answer<Group> {
        self.call("GetGroup", &request).await?;
        let name = request.into_inner().name;
        let groups = self.cluster.script(|s| s.state.databases.clone());
        let several = name.is_empty() && groups.len() > 1;
        let found = groups.into_iter().find(|g| name.is_empty() || g.name == name);
        match found {
            Some(group) if !several => Ok(Response::new(group)),
            Some(_) => Err(status(&detail(
                ha_proto::codes::GROUP_AMBIGUOUS,
                "there are several groups",
            ))),
            None if name.is_empty() => Err(status(&detail(
                ha_proto::codes::NO_DATABASES,
                "the cluster has no database group",
            ))),
            None => Err(status(&detail(
                ha_proto::codes::GROUP_UNKNOWN,
                &format!("there is no database group {name}"),
            ))),
        }
    }
    async fn create_group(&self, request: Request<CreateGroupRequest>) -> Answer<ChangeResult> {
        self.change("CreateGroup", request).await
    }
    async fn remove_group(&self, request: Request<RemoveGroupRequest>) -> Answer<ChangeResult> {
        self.change("RemoveGroup", request).await
    }
    async fn assign_instance(&self, request: Request<AssignInstanceRequest>) -> Answer<ChangeResult> {
        self.change("AssignInstance", request).await
    }
    async fn switchover(&self, request: Request<SwitchoverRequest>) -> Answer<ChangeResult> {
        self.change("Switchover", request).await
    }
    async fn failover(&self, request: Request<FailoverRequest>) -> Answer<FailoverResult> {
        let result = self.change("Failover", request).await?.into_inner();
        Ok(Response::new(FailoverResult {
            result: Some(result),
            loss: self.cluster.script(|s| s.loss.clone()),
        }))
    }
    async fn reinit(&self, request: Request<ReinitRequest>) -> Answer<ChangeResult> {
        self.change("Reinit", request).await
    }
    async fn restart(&self, request: Request<RestartRequest>) -> Answer<ChangeResult> {
        self.change("Restart", request).await
    }
    async fn pause(&self, request: Request<PauseRequest>) -> Answer<ChangeResult> {
        self.change("Pause", request).await
    }
    async fn get_config(&self, request: Request<GetConfigRequest>) -> Answer<GroupConfig> {
        self.call("GetConfig", &request).await?;
        Ok(Response::new(self.cluster.script(|s| s.config.clone())))
    }
    async fn set_config(&self, request: Request<SetConfigRequest>) -> Answer<ChangeResult> {
        self.change("SetConfig", request).await
    }
    async fn history(&self, request: Request<HistoryRequest>) -> Answer<HistoryResponse> {
        self.call("History", &request).await?;
        let wanted = request.into_inner();
        let entries = self.cluster.script(|s| s.history.clone());
        Ok(Response::new(HistoryResponse {
            group: wanted.group,
            entries: entries
                .into_iter()
                .filter(|e| wanted.epoch == 0 || e.epoch == wanted.epoch)
                .collect(),
            revision: 4182,
            cluster: "prod".into(),
        }))
    }
    async fn explain(&self, request: Request<ExplainRequest>) -> Answer<Explanation> {
        self.call("Explain", &request).await?;
        Ok(Response::new(self.cluster.script(|s| s.explanation.clone())))
    }
}
