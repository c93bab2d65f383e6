//! What concerns one node: who it is, its certificate, and that it leaves. A call that names another node is passed on
//! to it, by way of the master, which knows where it is.

use std::time::Duration;

use ha_proto::v1::local_service_client::LocalServiceClient;
use ha_proto::v1::local_service_server::LocalService;
use ha_proto::{ERROR_DETAIL, codes, v1};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::peer::Via;
use super::proxy::onward;
use super::{Context, MAX_MESSAGE, caller, check, via};
use crate::coordination::SessionState;
use crate::error::ApiError;
use crate::master::handle::{Caller, Request as Change};
use crate::security::Identity;

/// How long another node may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) struct LocalApi(pub(crate) Context);

type Client = LocalServiceClient<Channel>;

fn client(channel: Channel) -> Client {
    LocalServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE)
}

impl LocalApi {
    fn me(&self) -> &str {
        &self.0.shared.me.node
    }

    /// Where to pass a call on that is for `node`; none if that is this node.
    async fn elsewhere(&self, node: &str, via: &Via) -> Result<Option<(Client, String)>, ApiError> {
        if node.is_empty() || node == self.me() {
            return Ok(None);
        }
        check::name("node", node)?;
        if via.identity.role().is_none() {
            return Err(ApiError::new(&codes::NOT_A_USER, "nodes ask each other directly"));
        }
        let handle = self.0.shared.handle.borrow().clone();
        let (channel, target) = match handle {
            None => self.0.master_channel()?,
            Some(_) => {
                let address = self.address_of(node).await?;
                (
                    self.0.security.dialer().channel(node, &address)?,
                    format!("{node} at {address}"),
                )
            }
        };
        self.0.metrics.forwarded.inc();
        Ok(Some((client(channel), target)))
    }

    async fn address_of(&self, node: &str) -> Result<String, ApiError> {
        let found = self.0.state().await?.nodes.into_iter().find(|n| n.name == node);
        let unknown =
            || ApiError::new(&codes::NODE_UNKNOWN, format!("there is no node {node}")).next("hactl node list");
        let found = found.ok_or_else(unknown)?;
        let status = found.status.unwrap_or_default();
        if matches!(status.state(), v1::NodeState::Offline | v1::NodeState::Removed) {
            return Err(ApiError::new(
                &codes::NODE_NOT_ONLINE,
                format!("node {node} is {}", status.state().word()),
            )
            .why(status.reason)
            .next(format!("hactl node show {node}")));
        }
        let spec = found.spec.unwrap_or_default().address;
        Ok(if spec.is_empty() {
            status.registered_address
        } else {
            spec
        })
    }

    /// The answer of another node, or why there is none.
    async fn answer<T>(
        &self,
        target: &str,
        changes: bool,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<Response<T>, Status> {
        match tokio::time::timeout(ANSWER_TIMEOUT, call).await {
            Ok(Err(status)) if status.metadata().get_bin(ERROR_DETAIL).is_none() => {
                Err(self.0.unanswered(&status, target, changes).into())
            }
            Ok(Ok(response)) => Ok(Response::new(response.into_inner())),
            Ok(Err(status)) => Err(status),
            Err(_) => Err(super::proxy::broken(changes)()
                .why(format!("{target} did not answer"))
                .into()),
        }
    }

    fn info(&self, caller: &Identity) -> v1::Info {
        let (shared, master) = (&self.0.shared, self.0.shared.master.borrow().clone());
        let role = match caller.role() {
            Some(ha_core::AccessRole::Viewer) => v1::AccessRole::Viewer,
            Some(ha_core::AccessRole::Operator) => v1::AccessRole::Operator,
            Some(ha_core::AccessRole::Admin) => v1::AccessRole::Admin,
            None => v1::AccessRole::Unspecified,
        };
        let session = match &*shared.session.borrow() {
            SessionState::Live => "live",
            SessionState::Suspended => "suspended",
            SessionState::Lost(_) => "lost",
        };
        v1::Info {
            node: shared.me.node.clone(),
            cluster: shared.me.cluster.clone(),
            cluster_id: shared.me.cluster_id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id: shared.me.boot_id.clone(),
            caller: caller.to_string(),
            caller_role: role.into(),
            master: master.holder.map(|h| h.node).unwrap_or_default(),
            term: master.term,
            server_unix_ms: shared.clock.wall_ms(),
            certificate_expires_unix_ms: self.0.security.certificate().not_after_ms,
            session: session.to_owned(),
        }
    }

    /// Tells the master that this node leaves.
    async fn tell_leaving(
        &self,
        caller: Caller,
        request: v1::LeaveRequest,
        reason: String,
    ) -> Result<Response<v1::ChangeResult>, Status> {
        let name = self.me().to_owned();
        let handle = self.0.shared.handle.borrow().clone();
        if let Some(handle) = handle {
            return Ok(Response::new(
                handle.change(caller, Change::LeaveNode { name, reason }).await?,
            ));
        }
        let (channel, master) = self.0.master_channel()?;
        let mut onward = Request::new(request);
        if let Ok(id) = caller.request_id.parse() {
            onward.metadata_mut().insert(ha_proto::REQUEST_ID, id);
        }
        let mut client = client(channel);
        self.answer(&master, true, client.leave(onward)).await
    }
}

#[tonic::async_trait]
impl LocalService for LocalApi {
    async fn get_info(&self, request: Request<v1::GetInfoRequest>) -> Result<Response<v1::Info>, Status> {
        let (via, caller) = (via(&request)?, caller(&request)?);
        let message = request.into_inner();
        match self.elsewhere(&message.node, &via).await? {
            None => Ok(Response::new(self.info(&caller.identity))),
            Some((mut client, target)) => {
                let onward = onward(message, &via, &caller.request_id)?;
                self.answer(&target, false, client.get_info(onward)).await
            }
        }
    }

    async fn request_certificate(
        &self,
        request: Request<v1::RequestCertificateRequest>,
    ) -> Result<Response<v1::CertificateRequest>, Status> {
        let (via, caller) = (via(&request)?, caller(&request)?);
        let message = request.into_inner();
        if let Some((mut client, target)) = self.elsewhere(&message.node, &via).await? {
            let onward = onward(message, &via, &caller.request_id)?;
            return self.answer(&target, false, client.request_certificate(onward)).await;
        }
        let csr_pem = self.0.security.request_certificate().await?;
        tracing::info!(caller = %caller.identity, "a certificate was requested for a new key of this node");
        let me = &self.0.shared.me;
        Ok(Response::new(v1::CertificateRequest {
            node: me.node.clone(),
            address: me.address.clone(),
            csr_pem,
        }))
    }

    async fn install_certificate(
        &self,
        request: Request<v1::InstallCertificateRequest>,
    ) -> Result<Response<v1::ChangeResult>, Status> {
        let (via, caller) = (via(&request)?, caller(&request)?);
        let message = request.into_inner();
        check::options(message.options.as_ref())?;
        if let Some((mut client, target)) = self.elsewhere(&message.node, &via).await? {
            let onward = onward(message, &via, &caller.request_id)?;
            return self.answer(&target, true, client.install_certificate(onward)).await;
        }
        let plan = vec![format!(
            "node {} uses the new certificate, for new connections at once",
            self.me()
        )];
        if message.options.unwrap_or_default().dry_run {
            return Ok(Response::new(v1::ChangeResult {
                changed: true,
                plan,
                ..Default::default()
            }));
        }
        let changed = self.0.security.install_certificate(message.certificate_pem).await?;
        tracing::info!(caller = %caller.identity, changed, "certificate installed");
        let plan = if changed { plan } else { Vec::new() };
        Ok(Response::new(v1::ChangeResult {
            changed,
            plan,
            ..Default::default()
        }))
    }

    async fn leave(&self, request: Request<v1::LeaveRequest>) -> Result<Response<v1::ChangeResult>, Status> {
        let caller = caller(&request)?;
        let message = request.into_inner();
        check::options(message.options.as_ref())?;
        let options = message.options.clone().unwrap_or_default();
        let name = caller.identity.name().to_owned();
        if name != self.me() {
            // Another node's own word, on its way to the master.
            return self
                .0
                .change(
                    caller,
                    Change::LeaveNode {
                        name,
                        reason: options.reason,
                    },
                )
                .await;
        }
        if options.dry_run {
            let plan = vec![format!("node {name} leaves the cluster and its daemon ends")];
            return Ok(Response::new(v1::ChangeResult {
                changed: true,
                plan,
                ..Default::default()
            }));
        }
        let answer = self.tell_leaving(caller, message, options.reason).await?;
        // The answer is on its way before the daemon has ended: calls under way are given a moment.
        self.0.shared.leave.cancel();
        Ok(answer)
    }
}
