//! One connection: each call on it is admitted, answered here or passed on, limited in time, and counted.
//!
//! Whatever a call does, it ends with a status: a handler that panics costs its own call only.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use ha_core::access::{self, Need};
use ha_proto::codes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tonic::Status;
use tonic::body::Body;
use tonic::service::Routes;
use tower::Service as _;

use super::body::{CallBody, Guard, Tally};
use super::peer::{Peer, Via, expired, revoked};
use super::{Context, deadline, panicked, proxy};
use crate::error::ApiError;
use crate::security::Credential;

/// Calls under way at once on a connection of a user, and of a node, which passes on the calls of many.
const MAX_CALLS_USER: u32 = 64;
const MAX_CALLS_NODE: u32 = 2048;
/// Bytes in flight a stream and a connection, and waiting to be sent a stream: what bounds the memory a peer can take.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;
const MAX_SEND_BUFFER: usize = 64 * 1024;
const MAX_HEADERS: u32 = 16 * 1024;
/// A peer that answers no probe is gone.
const PROBE_EVERY: Duration = Duration::from_secs(10);
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long calls may go on when the daemon ends.
const GRACE: Duration = Duration::from_secs(1);
/// How often the certificate behind an open stream is looked at again.
const RECHECK: Duration = Duration::from_secs(30);

/// Calls that only the master can answer; other nodes pass them on.
const MASTER_SERVICES: [&str; 7] = [
    "/ha.v1.ClusterService/",
    "/ha.v1.DatabaseService/",
    "/ha.v1.EventService/",
    "/ha.v1.NodeService/",
    "/ha.v1.OperationService/",
    "/ha.v1.UserService/",
    "/ha.v1.WatchService/",
];
/// Calls whose answers go on until somebody ends them.
const STREAMS: [&str; 5] = [
    "/grpc.health.v1.Health/Watch",
    "/ha.v1.AgentService/Report",
    "/ha.v1.EventService/FollowChanges",
    "/ha.v1.OperationService/WatchOperation",
    "/ha.v1.WatchService/Watch",
];

struct Connection {
    context: Context,
    routes: Routes,
    peer: Peer,
}

/// Serves a connection until it is closed or the daemon ends.
pub(crate) async fn serve(context: Context, routes: Routes, tls: TlsStream<TcpStream>, address: SocketAddr) {
    let credential = match tls.get_ref().1.peer_certificates().and_then(|chain| chain.first()) {
        Some(der) => Credential::of_cluster(der, context.security.cluster_id()),
        None => Err(crate::security::BadCertificate::Unreadable),
    };
    let is_node = credential.as_ref().is_ok_and(|c| c.identity.role().is_none());
    let stop = context.stop.clone();
    let connection = Arc::new(Connection {
        context,
        routes,
        peer: Peer {
            ip: address.ip(),
            credential,
        },
    });
    let service = hyper::service::service_fn(move |request| {
        let connection = connection.clone();
        async move { Ok::<_, std::convert::Infallible>(connection.call(request).await) }
    });
    let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(MAX_SEND_BUFFER)
        .max_header_list_size(MAX_HEADERS)
        .max_concurrent_streams(if is_node { MAX_CALLS_NODE } else { MAX_CALLS_USER })
        .keep_alive_interval(PROBE_EVERY)
        .keep_alive_timeout(PROBE_TIMEOUT)
        .serve_connection(TokioIo::new(tls), service);
    tokio::pin!(served);
    tokio::select! {
        outcome = served.as_mut() => {
            if let Err(e) = outcome {
                tracing::debug!(peer = %address, "connection ended: {e}");
            }
        }
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(GRACE, served).await;
        }
    }
}

impl Connection {
    async fn call(&self, request: Request<Incoming>) -> Response<CallBody> {
        let call = access::call(request.uri().path());
        let tally = Tally::new(self.context.metrics.clone(), call.map_or("unknown", |c| c.0));
        let Some(&(method, need)) = call else {
            // Nothing that has no entry in the table of permissions is ever reached.
            let response = Status::unimplemented("there is no such call").into_http();
            return CallBody::wrap(response, None, proxy::broken(false), tally);
        };
        let changes = !matches!(need, Need::Anyone | Need::Role(ha_core::AccessRole::Viewer));
        let allowed = deadline::allowed(request.headers());
        let limit = allowed.unwrap_or(deadline::LONGEST).min(deadline::LONGEST);
        let answer = AssertUnwindSafe(self.answer(request, method, need, changes)).catch_unwind();
        let outcome = match tokio::time::timeout(limit, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(panicked()),
            Err(_) => Err(timed_out(limit)),
        };
        match outcome {
            Ok((via, response)) => {
                let guard = STREAMS.contains(&method).then(|| self.guard(via, allowed));
                CallBody::wrap(response, guard, proxy::broken(changes), tally)
            }
            Err(e) => {
                if e.code == &codes::INTERNAL {
                    tracing::error!(method, "{e}");
                }
                CallBody::wrap(Status::from(e).into_http(), None, proxy::broken(changes), tally)
            }
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        method: &'static str,
        need: Need,
        changes: bool,
    ) -> Result<(Via, Response<Body>), ApiError> {
        let (via, caller) = self.context.admit(&self.peer, request.headers(), (method, need))?;
        #[cfg(test)]
        assert!(!request.headers().contains_key("x-test-panic"), "a test asked for it");
        let mut request = request.map(Body::new);
        let for_master = MASTER_SERVICES.iter().any(|s| method.starts_with(s));
        if for_master && self.context.shared.handle.borrow().is_none() {
            let response = self.context.to_master(&via, request, changes).await?;
            return Ok((via, response));
        }
        request.extensions_mut().insert(via.clone());
        request.extensions_mut().insert(caller);
        let Ok(response) = self.routes.clone().call(request).await;
        Ok((via, response))
    }

    /// Ends a stream whose caller loses the right to it, whose time is over, or when the daemon ends.
    fn guard(&self, via: Via, allowed: Option<Duration>) -> Guard {
        let context = self.context.clone();
        let not_after_ms = self.peer.credential.as_ref().map_or(0, |c| c.not_after_ms);
        let bearer = self
            .peer
            .credential
            .as_ref()
            .ok()
            .map(|c| (c.identity.clone(), c.serial.clone()));
        Box::pin(async move {
            let mut access = context.shared.access.clone();
            let until_end = async {
                match allowed {
                    Some(allowed) => tokio::time::sleep(allowed).await,
                    None => std::future::pending().await,
                }
            };
            tokio::pin!(until_end);
            loop {
                let peer = bearer.iter().map(|(who, serial)| (who, serial.as_str()));
                for (who, serial) in peer.chain([(&via.identity, via.serial.as_str())]) {
                    if context.is_revoked(who, serial) {
                        return revoked(who);
                    }
                }
                if not_after_ms < context.shared.clock.wall_ms() {
                    return expired(&via.identity);
                }
                tokio::select! {
                    () = context.stop.cancelled() => return stopping(&context.shared.me.node),
                    () = &mut until_end => return timed_out(allowed.unwrap_or_default()),
                    changed = access.changed() => if changed.is_err() {
                        return stopping(&context.shared.me.node);
                    },
                    () = tokio::time::sleep(RECHECK) => {}
                }
            }
        })
    }
}

fn timed_out(limit: Duration) -> ApiError {
    ApiError::new(
        &codes::TIMEOUT,
        format!("the answer did not come within {} s", limit.as_secs_f64()),
    )
}

fn stopping(node: &str) -> ApiError {
    ApiError::new(&codes::UNREACHABLE, format!("the daemon of {node} is stopping"))
}
