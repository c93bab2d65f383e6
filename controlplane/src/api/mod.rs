//! The control-plane API: gRPC over mutual TLS. Any node answers; what only the master knows is passed on to it.
//!
//! A call is admitted by `peer`, answered by the file of its noun or passed on by `proxy`. Nothing here decides anything
//! about the cluster, and nothing here touches ZooKeeper: the master's [`Handle`] does.

mod agent;
mod body;
mod check;
mod cluster;
mod connection;
mod database;
mod deadline;
mod denials;
mod event;
mod grant;
mod health;
pub mod http;
mod local;
mod metrics;
mod node;
mod operation;
mod patroni;
mod peer;
mod proxy;
#[cfg(test)]
mod tests;
mod user;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ha_proto::{codes, v1};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::service::Routes;

pub use metrics::Metrics;

use crate::error::ApiError;
use crate::master::handle::{Caller, Handle, HubQuery, Request as Change};
use crate::security::{Security, tls};
use crate::shared::Shared;
use denials::Quieter;
use peer::Via;

/// Greatest message that is read. The greatest there is, the state of a thousand nodes, has some 600 KiB.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// Greatest report of a node that is read.
const MAX_REPORT: usize = 256 * 1024;
/// Connections at once.
const MAX_CONNECTIONS: usize = 4096;
/// How long connections may go on when the daemon ends.
const GRACE: Duration = Duration::from_secs(2);
/// How long a node that reports waits for one that is being elected.
const ELECTED: Duration = Duration::from_secs(1);

/// What the calls are answered with.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) shared: Shared,
    pub(crate) security: Arc<Security>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stop: CancellationToken,
    denials: Arc<Quieter>,
    failures: Arc<Quieter>,
    streams: Arc<AtomicU64>,
}

impl Context {
    pub(crate) fn new(shared: Shared, security: Arc<Security>, metrics: Arc<Metrics>, stop: CancellationToken) -> Self {
        Self {
            shared,
            security,
            metrics,
            stop,
            denials: Arc::default(),
            failures: Arc::default(),
            streams: Arc::default(),
        }
    }

    /// The acting master, if this node is it.
    fn master(&self) -> Result<Handle, ApiError> {
        let handle = self.shared.handle.borrow().clone();
        handle.ok_or_else(|| self.electing())
    }

    /// The same, waited for a moment: a node that calls has read that this one was elected, which it may be finishing just
    /// now. Whoever comes too early would try again later than that.
    async fn elected(&self) -> Result<Handle, ApiError> {
        let mut handle = self.shared.handle.clone();
        let acting = tokio::time::timeout(ELECTED, handle.wait_for(Option::is_some)).await;
        let acting = acting.ok().and_then(|h| h.ok().and_then(|h| h.clone()));
        acting.ok_or_else(|| self.electing())
    }

    /// The whole state, from the master on this node.
    async fn state(&self) -> Result<v1::ClusterState, ApiError> {
        self.master()?.ask(HubQuery::State).await
    }

    /// A change, by the master on this node.
    async fn change(&self, caller: Caller, request: Change) -> Result<tonic::Response<v1::ChangeResult>, Status> {
        Ok(tonic::Response::new(self.master()?.change(caller, request).await?))
    }

    /// A number no other stream of this daemon has.
    fn next_stream(&self) -> u64 {
        self.streams.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn routes(&self) -> Routes {
        let mut routes = Routes::builder();
        macro_rules! add {
            ($($server:ident :: $service:ident ($limit:expr) $api:path),* $(,)?) => {
                $(routes.add_service(
                    v1::$server::$service::new($api(self.clone())).max_decoding_message_size($limit),
                );)*
            };
        }
        add! {
            agent_service_server::AgentServiceServer(MAX_REPORT) agent::AgentApi,
            cluster_service_server::ClusterServiceServer(MAX_MESSAGE) cluster::ClusterApi,
            database_service_server::DatabaseServiceServer(MAX_MESSAGE) database::DatabaseApi,
            event_service_server::EventServiceServer(MAX_MESSAGE) event::EventApi,
            local_service_server::LocalServiceServer(MAX_MESSAGE) local::LocalApi,
            node_service_server::NodeServiceServer(MAX_MESSAGE) node::NodeApi,
            operation_service_server::OperationServiceServer(MAX_MESSAGE) operation::OperationApi,
            peer_service_server::PeerServiceServer(MAX_MESSAGE) grant::PeerApi,
            user_service_server::UserServiceServer(MAX_MESSAGE) user::UserApi,
            watch_service_server::WatchServiceServer(MAX_MESSAGE) watch::WatchApi,
        }
        routes.add_service(health::server(self));
        routes.routes().prepare()
    }
}

/// Serves the API until `stop`; then streams are ended with the reason and calls under way get a moment to finish.
pub async fn serve(
    listener: TcpListener,
    shared: Shared,
    security: Arc<Security>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let context = Context::new(shared, security, metrics, stop.clone());
    let (routes, tasks) = (context.routes(), TaskTracker::new());
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (config, connections, failed) = (context.security.server(), tasks.clone(), context.clone());
    let on_connection = move |stream, peer| {
        // Who gets no room has a certificate and tries again; nobody who is served suffers.
        let Ok(place) = room.clone().try_acquire_owned() else {
            return;
        };
        let (context, routes) = (context.clone(), routes.clone());
        connections.spawn(async move {
            connection::serve(context, routes, stream, peer).await;
            drop(place);
        });
    };
    let on_failure = move |peer: std::net::SocketAddr, why: String| {
        failed.metrics.handshake_failures.inc();
        if failed
            .failures
            .may(&peer.ip().to_string(), "tls", failed.shared.clock.boottime())
        {
            tracing::info!(peer = %peer.ip(), "a connection did not get through TLS: {why}");
        }
    };
    tls::accept(listener, config, stop, on_connection, on_failure).await;
    tasks.close();
    let _ = tokio::time::timeout(GRACE, tasks.wait()).await;
}

/// A handler panicked; the panic itself is in the log.
fn panicked() -> ApiError {
    ApiError::new(&codes::INTERNAL, "the call failed inside the server").next("journalctl -u had")
}

/// Who calls. The connection put it there, so it is always found.
fn caller<T>(request: &tonic::Request<T>) -> Result<Caller, ApiError> {
    request.extensions().get().cloned().ok_or_else(panicked)
}

/// How the call came here.
fn via<T>(request: &tonic::Request<T>) -> Result<Via, ApiError> {
    request.extensions().get().cloned().ok_or_else(panicked)
}

/// What an answer streams.
type Answers<T> = std::pin::Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

/// Streams what the master's hub sends; when it ends without an error, mastership has ended.
fn stream<T: Send + 'static>(
    context: &Context,
    from: mpsc::Receiver<Result<T, ApiError>>,
) -> tonic::Response<Answers<T>> {
    let context = context.clone();
    let end = tokio_stream::once(()).map(move |()| Err(context.electing().into()));
    tonic::Response::new(Box::pin(
        ReceiverStream::new(from).map(|r| r.map_err(Status::from)).chain(end),
    ))
}
