//! Health and metrics over plain HTTP, on a port of their own: for load balancers, supervisors and Prometheus. What is said
//! of database groups is in `patroni`.
//!
//! Nothing here changes anything and nothing here is secret. Peers are anybody: every buffer, time and number is bounded.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::{Map, Value};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::metrics::Metrics;
use super::patroni;
use crate::coordination::SessionState;
use crate::security::Security;
use crate::shared::Shared;

/// Connections at once. Who comes when all are in use is turned away.
const MAX_CONNECTIONS: usize = 64;
/// Bytes read ahead on a connection, which bounds a request's head.
const MAX_BUFFER: usize = 8 * 1024;
const MAX_HEADERS: usize = 32;
/// Time for a request's head to be complete; a connection idle for as long is closed.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest a connection lives, whatever it does.
const MAX_AGE: Duration = Duration::from_secs(300);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const GRACE: Duration = Duration::from_millis(500);

#[derive(Clone)]
pub(super) struct Context {
    pub(super) shared: Shared,
    security: Arc<Security>,
    metrics: Arc<Metrics>,
}

/// Serves `/live`, `/health`, `/ready`, `/metrics` and the checks of database groups until `stop`.
pub async fn serve(
    listener: TcpListener,
    shared: Shared,
    security: Arc<Security>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let routes = Router::new()
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(all_metrics))
        .merge(patroni::routes())
        .with_state(Context {
            shared,
            security,
            metrics,
        });
    let (room, tasks) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), TaskTracker::new());
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((tcp, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(place) = room.clone().try_acquire_owned() else {
            continue;
        };
        let (routes, stop) = (routes.clone(), stop.clone());
        tasks.spawn(async move {
            connection(tcp, routes, stop).await;
            drop(place);
        });
    }
    tasks.close();
    let _ = tokio::time::timeout(GRACE * 2, tasks.wait()).await;
}

async fn connection(tcp: TcpStream, routes: Router, stop: CancellationToken) {
    let _ = tcp.set_nodelay(true);
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_BUFFER)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(tcp), TowerToHyperService::new(routes));
    tokio::pin!(served);
    tokio::select! {
        _ = served.as_mut() => {}
        () = tokio::time::sleep(MAX_AGE) => {}
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(GRACE, served).await;
        }
    }
}

/// Whether the node is registered on a live session.
pub(crate) fn is_registered(shared: &Shared) -> bool {
    shared.coordinator.borrow().is_some() && *shared.session.borrow() == SessionState::Live
}

/// What the node says of itself.
pub(super) fn document(context: &Context, good: bool) -> Map<String, Value> {
    let shared = &context.shared;
    let session = match &*shared.session.borrow() {
        SessionState::Live => "live",
        SessionState::Suspended => "suspended",
        SessionState::Lost(_) => "lost",
    };
    let master = shared.master.borrow();
    let role = if shared.handle.borrow().is_some() {
        "master"
    } else {
        "member"
    };
    let fields = [
        ("status", Value::from(if good { "ok" } else { "unavailable" })),
        ("node", shared.me.node.as_str().into()),
        ("cluster", shared.me.cluster.as_str().into()),
        ("registered", is_registered(shared).into()),
        ("session", session.into()),
        ("role", role.into()),
        ("master", master.holder.as_ref().map(|h| h.node.as_str()).into()),
        ("term", master.term.into()),
        ("version", env!("CARGO_PKG_VERSION").into()),
    ];
    fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn status(context: &Context, good: bool) -> Response {
    let body = Value::Object(document(context, good));
    let code = if good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}

/// `/health` of a node without an instance: whether it is registered.
pub(super) fn node_health(context: &Context) -> Response {
    status(context, is_registered(&context.shared))
}

async fn ready(State(context): State<Context>) -> Response {
    let has_master = context.shared.handle.borrow().is_some() || context.shared.master.borrow().holder.is_some();
    status(&context, has_master && is_registered(&context.shared))
}

async fn all_metrics(State(context): State<Context>) -> Response {
    let text = context.metrics.text(&context.shared, &context.security);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}
