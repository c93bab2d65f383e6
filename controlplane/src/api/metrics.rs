//! What the daemon counts. A registry of its own, so that several daemons fit one process.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::coordination::SessionState;
use crate::platform::daemon_rss;
use crate::proxy;
use crate::security::Security;
use crate::shared::Shared;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InfoLabels {
    version: &'static str,
    node: String,
    cluster: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    method: &'static str,
    code: &'static str,
}

type Number = Gauge<f64, AtomicU64>;

/// The daemon's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    is_master: Gauge,
    term: Gauge,
    session_live: Gauge,
    lease: Number,
    certificate: Number,
    resident: Gauge,
    calls: Family<CallLabels, Counter>,
    /// Calls that were refused for want of permission.
    pub(crate) denied: Counter,
    /// Connections that did not get through TLS.
    pub(crate) handshake_failures: Counter,
    /// Calls passed on to another node.
    pub(crate) forwarded: Counter,
    /// What the proxy counts.
    pub proxy: proxy::Metrics,
}

impl Metrics {
    /// The metrics of the daemon of `node`.
    pub fn new(node: &str, cluster: &str) -> Self {
        let mut registry = Registry::default();
        let info = Family::<InfoLabels, Gauge>::default();
        let labels = InfoLabels {
            version: env!("CARGO_PKG_VERSION"),
            node: node.to_owned(),
            cluster: cluster.to_owned(),
        };
        info.get_or_create(&labels).set(1);
        registry.register("had_info", "The daemon and the node it runs for", info);
        let is_master = Gauge::default();
        registry.register("had_is_master", "1 while this node acts as master", is_master.clone());
        let term = Gauge::default();
        registry.register("had_term", "Term of the master as this node last read it", term.clone());
        let session_live = Gauge::default();
        registry.register(
            "had_session_live",
            "1 while the ZooKeeper session is live",
            session_live.clone(),
        );
        let lease = Number::default();
        registry.register(
            "had_lease_seconds",
            "What is left of the node's lease; 0 when it is over",
            lease.clone(),
        );
        let certificate = Number::default();
        let help = "Time until the node's certificate expires; negative when it has";
        registry.register("had_certificate_expiry_seconds", help, certificate.clone());
        let resident = Gauge::default();
        let help = "Resident memory of the daemon";
        registry.register_with_unit("process_resident_memory", help, Unit::Bytes, resident.clone());
        let calls = Family::<CallLabels, Counter>::default();
        registry.register(
            "had_grpc_calls",
            "gRPC calls that ended, by method and code",
            calls.clone(),
        );
        let denied = Counter::default();
        registry.register(
            "had_denied_calls",
            "Calls refused for want of permission",
            denied.clone(),
        );
        let handshake_failures = Counter::default();
        let help = "Connections that did not get through TLS";
        registry.register("had_tls_handshake_failures", help, handshake_failures.clone());
        let forwarded = Counter::default();
        registry.register(
            "had_forwarded_calls",
            "Calls passed on to another node",
            forwarded.clone(),
        );
        let proxy = proxy::Metrics::registered(&mut registry);
        Self {
            registry,
            is_master,
            term,
            session_live,
            lease,
            certificate,
            resident,
            calls,
            denied,
            handshake_failures,
            forwarded,
            proxy,
        }
    }

    /// Counts a call that ended.
    pub(crate) fn call(&self, method: &'static str, code: tonic::Code) {
        self.calls
            .get_or_create(&CallLabels {
                method,
                code: code_word(code),
            })
            .inc();
    }

    /// All metrics as text, as they are now.
    pub(crate) fn text(&self, shared: &Shared, security: &Security) -> String {
        self.is_master.set(i64::from(shared.handle.borrow().is_some()));
        self.term
            .set(i64::try_from(shared.master.borrow().term).unwrap_or(i64::MAX));
        self.session_live
            .set(i64::from(*shared.session.borrow() == SessionState::Live));
        let until = shared.lease.borrow().until.unwrap_or_default();
        self.lease
            .set(until.saturating_sub(shared.clock.boottime()).as_secs_f64());
        let left = security
            .certificate()
            .not_after_ms
            .saturating_sub(shared.clock.wall_ms());
        #[allow(clippy::cast_precision_loss)]
        self.certificate.set(left as f64 / 1000.0);
        self.resident.set(
            daemon_rss()
                .ok()
                .and_then(|bytes| i64::try_from(bytes).ok())
                .unwrap_or_default(),
        );
        let mut text = String::with_capacity(4096);
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

fn code_word(code: tonic::Code) -> &'static str {
    use tonic::Code;
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}
