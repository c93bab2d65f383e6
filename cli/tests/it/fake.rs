//! Nodes that answer as they are told to, behind real mutual TLS with certificates of a real authority.

mod database;

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use ha_proto::codes::Code;
use ha_proto::v1::*;
use hactl::ca::ClusterAuthority;
use prost::Message as _;
use tokio::sync::watch;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

use crate::samples;

type Answer<T> = Result<Response<T>, Status>;
type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What happens to the next call instead of an answer.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Fails with this code.
    Code(Code),
    /// Fails with this detail.
    Detail(Box<ErrorDetail>),
    /// Never answers.
    Hang,
}

/// What all nodes of a cluster share.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) state: ClusterState,
    pub(crate) users: Vec<User>,
    pub(crate) changes: Vec<Change>,
    pub(crate) operations: Vec<Operation>,
    pub(crate) checks: Vec<DoctorCheck>,
    pub(crate) history: Vec<HistoryEntry>,
    pub(crate) config: GroupConfig,
    pub(crate) explanation: Explanation,
    /// Answers with this refusal whenever the method is called.
    pub(crate) refuse: BTreeMap<&'static str, ErrorDetail>,
    /// As `refuse`, the next time only.
    pub(crate) refuse_once: BTreeMap<&'static str, Code>,
    /// What a failover would lose.
    pub(crate) loss: Option<LossEstimate>,
    /// The frames of the next Watch streams, in order; each stream ends after its own.
    pub(crate) streams: VecDeque<Vec<WatchFrame>>,
    /// The states of the next WatchOperation streams, in order.
    pub(crate) operation_streams: VecDeque<Vec<Operation>>,
    /// Faults of the next calls of a change or read.
    pub(crate) faults: VecDeque<Fault>,
    /// Answers of the next changes; without one: changed, at the next revision.
    pub(crate) results: VecDeque<ChangeResult>,
    /// Certificate requests that nodes make.
    pub(crate) csr: String,
    /// Every call: node, method, request id, and the request as it was printed.
    pub(crate) calls: Vec<Call>,
    /// From where streams were resumed.
    pub(crate) resumed: Vec<(u64, u64)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) node: String,
    pub(crate) method: &'static str,
    pub(crate) id: String,
    pub(crate) request: String,
}

/// A cluster of fake nodes.
#[derive(Clone, Default)]
pub(crate) struct Cluster(pub(crate) Arc<Mutex<Script>>);

impl Cluster {
    /// A cluster that shows the samples.
    pub(crate) fn new() -> Self {
        let script = Script {
            state: samples::troubled(),
            users: samples::users(),
            changes: samples::changes(),
            operations: samples::operations(),
            checks: samples::checks(),
            history: samples::database::history(),
            config: samples::database::config(),
            explanation: samples::database::explanation(),
            ..Script::default()
        };
        Self(Arc::new(Mutex::new(script)))
    }

    pub(crate) fn script<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    pub(crate) fn fail(&self, faults: impl IntoIterator<Item = Fault>) {
        self.script(|s| s.faults.extend(faults));
    }

    /// The calls of this method.
    pub(crate) fn calls(&self, method: &str) -> Vec<Call> {
        self.script(|s| s.calls.iter().filter(|c| c.method == method).cloned().collect())
    }

    /// Starts a node of this cluster.
    pub(crate) fn node(&self, authority: &ClusterAuthority, name: &str) -> Node {
        self.node_at(authority, name, "127.0.0.1:0")
    }

    pub(crate) fn node_at(&self, authority: &ClusterAuthority, name: &str, address: &str) -> Node {
        let issued = authority.issue_node(name).unwrap();
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(&issued.certificate, &issued.key))
            .client_ca_root(Certificate::from_pem(&authority.ca));
        let service = Service {
            cluster: self.clone(),
            node: name.to_owned(),
        };
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let endpoint = listener.local_addr().unwrap().to_string();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (stop, mut stopped) = watch::channel(false);
        runtime.spawn(async move {
            let incoming =
                tokio_stream::wrappers::TcpListenerStream::new(tokio::net::TcpListener::from_std(listener).unwrap());
            let served = Server::builder()
                .tls_config(tls)
                .unwrap()
                .add_service(cluster_service_server::ClusterServiceServer::new(service.clone()))
                .add_service(node_service_server::NodeServiceServer::new(service.clone()))
                .add_service(database_service_server::DatabaseServiceServer::new(service.clone()))
                .add_service(user_service_server::UserServiceServer::new(service.clone()))
                .add_service(event_service_server::EventServiceServer::new(service.clone()))
                .add_service(operation_service_server::OperationServiceServer::new(service.clone()))
                .add_service(watch_service_server::WatchServiceServer::new(service.clone()))
                .add_service(local_service_server::LocalServiceServer::new(service))
                .serve_with_incoming(incoming);
            tokio::select! {
                served = served => served.unwrap(),
                _ = stopped.wait_for(|stop| *stop) => {}
            }
        });
        Node {
            endpoint,
            stop,
            runtime: Some(runtime),
        }
    }
}

/// A running node; gone when dropped, and its connections with it.
pub(crate) struct Node {
    pub(crate) endpoint: String,
    stop: watch::Sender<bool>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
        if let Some(runtime) = self.runtime.take() {
            // Not on a thread of a runtime: the test may be a future.
            let ended = std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_millis(200)));
            let _ = ended.join();
        }
    }
}

#[derive(Clone)]
struct Service {
    cluster: Cluster,
    node: String,
}

pub(crate) fn status(detail: &ErrorDetail) -> Status {
    let mut metadata = tonic::metadata::MetadataMap::new();
    let value = tonic::metadata::MetadataValue::from_bytes(&detail.encode_to_vec());
    metadata.insert_bin(ha_proto::ERROR_DETAIL, value);
    Status::with_metadata(tonic::Code::FailedPrecondition, detail.message.clone(), metadata)
}

pub(crate) fn detail(code: Code, message: &str) -> ErrorDetail {
    ErrorDetail {
        code: code.id.into(),
        message: message.into(),
        retryable: code.retryable,
        ..ErrorDetail::default()
    }
}

impl Service {
    async fn call<M: std::fmt::Debug>(&self, method: &'static str, request: &Request<M>) -> Result<(), Status> {
        let id = request
            .metadata()
            .get(ha_proto::REQUEST_ID)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default();
        let call = Call {
            node: self.node.clone(),
            method,
            id: id.to_owned(),
            request: format!("{:?}", request.get_ref()),
        };
        let fault = self.cluster.script(|s| {
            s.calls.push(call);
            let refused = s.refuse.get(method).cloned().map(|d| Fault::Detail(Box::new(d)));
            let once = s.refuse_once.remove(method).map(Fault::Code);
            refused.or(once).or_else(|| s.faults.pop_front())
        });
        match fault {
            None => Ok(()),
            Some(Fault::Code(code)) => Err(status(&detail(code, code.title))),
            Some(Fault::Detail(detail)) => Err(status(&detail)),
            Some(Fault::Hang) => std::future::pending().await,
        }
    }

    async fn change<M: std::fmt::Debug>(&self, method: &'static str, request: Request<M>) -> Answer<ChangeResult> {
        self.call(method, &request).await?;
        let result = self.cluster.script(|s| s.results.pop_front());
        Ok(Response::new(result.unwrap_or(ChangeResult {
            changed: true,
            revision: 4183,
            ..ChangeResult::default()
        })))
    }
}

#[tonic::async_trait]
impl cluster_service_server::ClusterService for Service {
    async fn get_state(&self, request: Request<GetStateRequest>) -> Answer<ClusterState> {
        self.call("GetState", &request).await?;
        Ok(Response::new(self.cluster.script(|s| s.state.clone())))
    }
    async fn set_maintenance(&self, request: Request<SetMaintenanceRequest>) -> Answer<ChangeResult> {
        self.change("SetMaintenance", request).await
    }
    async fn transfer_master(&self, request: Request<TransferMasterRequest>) -> Answer<ChangeResult> {
        self.change("TransferMaster", request).await
    }
    async fn doctor(&self, request: Request<DoctorRequest>) -> Answer<DoctorReport> {
        self.call("Doctor", &request).await?;
        Ok(Response::new(DoctorReport {
            checks: self.cluster.script(|s| s.checks.clone()),
        }))
    }
}

#[tonic::async_trait]
impl node_service_server::NodeService for Service {
    async fn add_node(&self, request: Request<AddNodeRequest>) -> Answer<ChangeResult> {
        self.change("AddNode", request).await
    }
    async fn remove_node(&self, request: Request<RemoveNodeRequest>) -> Answer<ChangeResult> {
        self.change("RemoveNode", request).await
    }
    async fn list_nodes(&self, request: Request<ListNodesRequest>) -> Answer<ListNodesResponse> {
        self.call("ListNodes", &request).await?;
        Ok(Response::new(self.cluster.script(|s| ListNodesResponse {
            nodes: s.state.nodes.clone(),
            revision: s.state.revision,
            observed_unix_ms: s.state.observed_unix_ms,
            cluster: s.state.cluster.clone(),
        })))
    }
    async fn get_node(&self, request: Request<GetNodeRequest>) -> Answer<ha_proto::v1::Node> {
        self.call("GetNode", &request).await?;
        let name = request.into_inner().name;
        let found = self
            .cluster
            .script(|s| s.state.nodes.iter().find(|n| n.name == name).cloned());
        let unknown = || {
            status(&detail(
                ha_proto::codes::NODE_UNKNOWN,
                &format!("there is no node {name}"),
            ))
        };
        found.map(Response::new).ok_or_else(unknown)
    }
    async fn update_node(&self, request: Request<UpdateNodeRequest>) -> Answer<ChangeResult> {
        self.change("UpdateNode", request).await
    }
    async fn drain_node(&self, request: Request<DrainNodeRequest>) -> Answer<ChangeResult> {
        self.change("DrainNode", request).await
    }
}

#[tonic::async_trait]
impl user_service_server::UserService for Service {
    async fn record_user(&self, request: Request<RecordUserRequest>) -> Answer<ChangeResult> {
        self.change("RecordUser", request).await
    }
    async fn revoke_user(&self, request: Request<RevokeUserRequest>) -> Answer<ChangeResult> {
        self.change("RevokeUser", request).await
    }
    async fn list_users(&self, request: Request<ListUsersRequest>) -> Answer<ListUsersResponse> {
        self.call("ListUsers", &request).await?;
        let users = self.cluster.script(|s| s.users.clone());
        Ok(Response::new(ListUsersResponse {
            users,
            revision: 4182,
            cluster: "prod".into(),
        }))
    }
}

#[tonic::async_trait]
impl event_service_server::EventService for Service {
    type FollowChangesStream = Boxed<Change>;

    async fn list_changes(&self, request: Request<ListChangesRequest>) -> Answer<ListChangesResponse> {
        self.call("ListChanges", &request).await?;
        let changes = self.cluster.script(|s| s.changes.clone());
        Ok(Response::new(ListChangesResponse {
            changes,
            revision: 4182,
            cluster: "prod".into(),
        }))
    }
    /// What is there from the number on; the stream stays open.
    async fn follow_changes(&self, request: Request<FollowChangesRequest>) -> Answer<Self::FollowChangesStream> {
        self.call("FollowChanges", &request).await?;
        let from = request.into_inner().from_seq;
        let changes: Vec<_> = self
            .cluster
            .script(|s| s.changes.iter().filter(|c| c.seq >= from).cloned().collect());
        let there = futures::stream::iter(changes.into_iter().map(Ok));
        Ok(Response::new(Box::pin(there.chain(futures::stream::pending()))))
    }
}

#[tonic::async_trait]
impl operation_service_server::OperationService for Service {
    type WatchOperationStream = Boxed<Operation>;

    async fn list_operations(&self, request: Request<ListOperationsRequest>) -> Answer<ListOperationsResponse> {
        self.call("ListOperations", &request).await?;
        let operations = self.cluster.script(|s| s.operations.clone());
        Ok(Response::new(ListOperationsResponse {
            operations,
            cluster: "prod".into(),
        }))
    }
    async fn get_operation(&self, request: Request<GetOperationRequest>) -> Answer<Operation> {
        self.call("GetOperation", &request).await?;
        let id = request.into_inner().id;
        let found = self
            .cluster
            .script(|s| s.operations.iter().find(|o| o.id == id).cloned());
        let unknown = || {
            status(&detail(
                ha_proto::codes::OP_UNKNOWN,
                &format!("there is no operation {id}"),
            ))
        };
        found.map(Response::new).ok_or_else(unknown)
    }
    async fn watch_operation(&self, request: Request<GetOperationRequest>) -> Answer<Self::WatchOperationStream> {
        self.call("WatchOperation", &request).await?;
        let id = request.into_inner().id;
        let states = self.cluster.script(|s| s.operation_streams.pop_front());
        let open = states.is_none();
        let known = self
            .cluster
            .script(|s| s.operations.iter().filter(|o| o.id == id).cloned().collect());
        let states: Vec<Operation> = states.unwrap_or(known);
        if states.is_empty() {
            return Err(status(&detail(
                ha_proto::codes::OP_UNKNOWN,
                &format!("there is no operation {id}"),
            )));
        }
        let told = futures::stream::iter(states.into_iter().map(Ok));
        Ok(Response::new(if open {
            Box::pin(told.chain(futures::stream::pending()))
        } else {
            Box::pin(told)
        }))
    }
    async fn cancel_operation(&self, request: Request<CancelOperationRequest>) -> Answer<ChangeResult> {
        self.change("CancelOperation", request).await
    }
}

#[tonic::async_trait]
impl watch_service_server::WatchService for Service {
    type WatchStream = Boxed<WatchFrame>;

    /// The next stream of the script; without one a snapshot, and then nothing more.
    async fn watch(&self, request: Request<WatchRequest>) -> Answer<Self::WatchStream> {
        self.call("Watch", &request).await?;
        let WatchRequest { term, seq } = request.into_inner();
        let frames = self.cluster.script(|s| {
            s.resumed.push((term, seq));
            s.streams.pop_front()
        });
        let snapshot = self.cluster.script(|s| s.state.clone());
        Ok(Response::new(match frames {
            Some(frames) => Box::pin(futures::stream::iter(frames.into_iter().map(Ok))),
            None => {
                let body = Some(watch_frame::Body::Snapshot(snapshot));
                let frame = WatchFrame {
                    seq: 1,
                    term: 412,
                    server_unix_ms: samples::NOW,
                    body,
                };
                Box::pin(futures::stream::iter([Ok(frame)]).chain(futures::stream::pending()))
            }
        }))
    }
}

#[tonic::async_trait]
impl local_service_server::LocalService for Service {
    async fn get_info(&self, request: Request<GetInfoRequest>) -> Answer<Info> {
        self.call("GetInfo", &request).await?;
        Ok(Response::new(Info {
            node: self.node.clone(),
            cluster: "prod".into(),
            version: "0.1.0".into(),
            caller: "user/alice".into(),
            caller_role: AccessRole::Admin as i32,
            master: "n2".into(),
            server_unix_ms: hactl::names::now_ms(),
            session: "live".into(),
            ..Info::default()
        }))
    }
    async fn request_certificate(&self, request: Request<RequestCertificateRequest>) -> Answer<CertificateRequest> {
        self.call("RequestCertificate", &request).await?;
        let csr_pem = self.cluster.script(|s| s.csr.clone());
        Ok(Response::new(CertificateRequest {
            node: request.into_inner().node,
            csr_pem,
            ..Default::default()
        }))
    }
    async fn install_certificate(&self, request: Request<InstallCertificateRequest>) -> Answer<ChangeResult> {
        self.change("InstallCertificate", request).await
    }
    async fn leave(&self, request: Request<LeaveRequest>) -> Answer<ChangeResult> {
        self.change("Leave", request).await
    }
}

/// Waits until somebody has come to `endpoint` and was sent away: whoever tries on does so from here.
pub(crate) fn refused_once(endpoint: &str) {
    let listener = std::net::TcpListener::bind(endpoint).unwrap();
    drop(listener.accept().unwrap());
}
