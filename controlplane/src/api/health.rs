//! Standard gRPC health: serving while the node is registered on a live session.

use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};

use super::Context;

/// The health service, kept current by a task that ends with the daemon.
pub(crate) fn server(context: &Context) -> HealthServer<impl Health + use<>> {
    let (reporter, server) = tonic_health::server::health_reporter();
    let (shared, stop) = (context.shared.clone(), context.stop.clone());
    tokio::spawn(async move {
        let (mut session, mut coordinator) = (shared.session.clone(), shared.coordinator.clone());
        loop {
            let status = if super::http::is_registered(&shared) {
                ServingStatus::Serving
            } else {
                ServingStatus::NotServing
            };
            reporter.set_service_status("", status).await;
            let changed = tokio::select! {
                () = stop.cancelled() => break,
                changed = session.changed() => changed,
                changed = coordinator.changed() => changed,
            };
            if changed.is_err() {
                break;
            }
        }
        reporter.set_service_status("", ServingStatus::NotServing).await;
    });
    server
}
