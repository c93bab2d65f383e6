//! Database groups: shown, changed, explained. Any node answers; the master does.

use ha_proto::v1::database_service_server::DatabaseService;
use ha_proto::{codes, v1};
use tonic::{Request, Response, Status};

use super::{Context, caller, check};
use crate::error::ApiError;
use crate::master::databases::{GroupChange, Question};
use crate::master::handle::Request as Change;

/// Greatest text in a specification, in bytes: what is longer is refused before it is looked at.
const MAX_TEXT: usize = 8 * 1024;

pub(crate) struct DatabaseApi(pub(crate) Context);

type Answer<T> = Result<Response<T>, Status>;

impl DatabaseApi {
    async fn groups(&self) -> Result<v1::ClusterState, ApiError> {
        self.0.state().await
    }

    async fn change(&self, caller: crate::master::handle::Caller, change: GroupChange) -> Answer<v1::ChangeResult> {
        self.0.change(caller, Change::Group(change)).await
    }
}

/// The group that a name means among those there are.
fn named(groups: Vec<v1::Group>, name: &str) -> Result<v1::Group, ApiError> {
    if !name.is_empty() {
        return groups.into_iter().find(|g| g.name == name).ok_or_else(|| {
            ApiError::new(&codes::GROUP_UNKNOWN, format!("there is no database group {name}")).next("hactl db list")
        });
    }
    let mut groups = groups.into_iter();
    match (groups.next(), groups.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => {
            Err(ApiError::new(&codes::GROUP_AMBIGUOUS, "the cluster has several database groups").next("hactl db list"))
        }
        (None, _) => Err(ApiError::new(&codes::NO_DATABASES, "the cluster has no database group")
            .next("hactl db create NAME --node N1 --node N2 --node N3")),
    }
}

/// What of a specification is malformed, whoever sent it.
fn check_spec(spec: Option<&v1::GroupSpec>) -> Result<(), ApiError> {
    let spec = spec.ok_or_else(|| check::bad("spec", "it is missing".into()))?;
    for m in &spec.members {
        check::name("node", &m.node)?;
        check::text("directory", &m.directory, MAX_TEXT)?;
    }
    check::text("directory", &spec.directory, MAX_TEXT)?;
    for (name, value) in &spec.parameters {
        check::text("parameter", name, 100)?;
        check::text("parameter", value, MAX_TEXT)?;
    }
    for line in &spec.hba {
        check::text("hba", line, MAX_TEXT)?;
    }
    for d in &spec.databases {
        for text in d.extensions.iter().chain([&d.name, &d.owner]) {
            check::text("database", text, 100)?;
        }
    }
    for r in &spec.roles {
        check::text("verifier", &r.verifier, 300)?;
        for text in r.member_of.iter().chain([&r.name]) {
            check::text("role", text, 100)?;
        }
    }
    Ok(())
}

#[tonic::async_trait]
impl DatabaseService for DatabaseApi {
    async fn list_groups(&self, _: Request<v1::ListGroupsRequest>) -> Answer<v1::ListGroupsResponse> {
        let state = self.groups().await?;
        Ok(Response::new(v1::ListGroupsResponse {
            groups: state.databases,
            revision: state.revision,
            observed_unix_ms: state.observed_unix_ms,
            cluster: state.cluster,
        }))
    }

    async fn get_group(&self, request: Request<v1::GetGroupRequest>) -> Answer<v1::Group> {
        let name = request.into_inner().name;
        check::optional_name("group", &name)?;
        Ok(Response::new(named(self.groups().await?.databases, &name)?))
    }

    async fn create_group(&self, request: Request<v1::CreateGroupRequest>) -> Answer<v1::ChangeResult> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        check::name("group", &request.name)?;
        check::options(request.options.as_ref())?;
        check_spec(request.spec.as_ref())?;
        self.change(caller, GroupChange::Create(request)).await
    }

    async fn remove_group(&self, request: Request<v1::RemoveGroupRequest>) -> Answer<v1::ChangeResult> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        check::name("group", &request.name)?;
        check::text("confirm", &request.confirm, 100)?;
        check::options(request.options.as_ref())?;
        self.change(caller, GroupChange::Remove(request)).await
    }

    async fn assign_instance(&self, request: Request<v1::AssignInstanceRequest>) -> Answer<v1::ChangeResult> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        check::optional_name("group", &request.group)?;
        check::name("node", &request.node)?;
        check::options(request.options.as_ref())?;
        self.change(caller, GroupChange::Assign(request)).await
    }

    async fn switchover(&self, request: Request<v1::SwitchoverRequest>) -> Answer<v1::ChangeResult> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        check::optional_name("group", &request.group)?;
        check::optional_name("node", &request.to)?;
        check::time("at", request.at_unix_ms)?;
        check::options(request.options.as_ref())?;
        self.change(caller, GroupChange::Switchover(request)).await
    }

    async fn failover(&self, request: Request<v1::FailoverRequest>) -> Answer<v1::FailoverResult> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        check::optional_name("group", &request.group)?;
        check::optional_name("node", &request.to)?;
        check::options(request.options.as_ref())?;
        let master = self.0.master()?;
        // Before the failover: what it would lose is what it will have lost.
        let (group, to) = (request.group.clone(), request.to.clone());
        let loss = master.question(|reply| Question::Loss { group, to, reply }).await?;
        let result = master
            .change(caller, Change::Group(GroupChange::Failover(request)))
            .await?;
        Ok(Response::new(v1::FailoverResult {
            result: Some(result),
            loss,
        }))
    }

    async fn reinit(&self, request: Request<v1::ReinitRequest>) -> Answer<v1::ChangeResult> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        check::optional_name("group", &request.group)?;
        check::name("node", &request.node)?;
        check::options(request.options.as_ref())?;
        self.change(caller, GroupChange::Reinit(request)).await
    }

    async fn restart(&self, request: Request<v1::RestartRequest>) -> Answer<v1::ChangeResult> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        check::optional_name("group", &request.group)?;
        check::optional_name("node", &request.node)?;
        check::options(request.options.as_ref())?;
        self.change(caller, GroupChange::Restart(request)).await
    }

    async fn pause(&self, request: Request<v1::PauseRequest>) -> Answer<v1::ChangeResult> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        check::optional_name("group", &request.group)?;
        check::time("until", request.until_unix_ms)?;
        check::options(request.options.as_ref())?;
        self.change(caller, GroupChange::Pause(request)).await
    }

    async fn get_config(&self, request: Request<v1::GetConfigRequest>) -> Answer<v1::GroupConfig> {
        let request = request.into_inner();
        check::optional_name("group", &request.group)?;
        let question = |reply| Question::Config(request, reply);
        Ok(Response::new(self.0.master()?.question(question).await?))
    }

    async fn set_config(&self, request: Request<v1::SetConfigRequest>) -> Answer<v1::ChangeResult> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        check::optional_name("group", &request.group)?;
        check::options(request.options.as_ref())?;
        check_spec(request.spec.as_ref())?;
        self.change(caller, GroupChange::SetConfig(request)).await
    }

    async fn history(&self, request: Request<v1::HistoryRequest>) -> Answer<v1::HistoryResponse> {
        let request = request.into_inner();
        check::optional_name("group", &request.group)?;
        check::limit(request.limit)?;
        let question = |reply| Question::History(request, reply);
        Ok(Response::new(self.0.master()?.question(question).await?))
    }

    async fn explain(&self, request: Request<v1::ExplainRequest>) -> Answer<v1::Explanation> {
        let request = request.into_inner();
        check::optional_name("group", &request.group)?;
        check::optional_name("node", &request.node)?;
        let question = |reply| Question::Explain(request, reply);
        Ok(Response::new(self.0.master()?.question(question).await?))
    }
}
