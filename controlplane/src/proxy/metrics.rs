//! What the proxy counts, by group and port. The families belong to the daemon's registry; a port takes its own numbers out
//! of them once, so that counting costs one addition.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::routes::Way;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PortLabels {
    group: String,
    port: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FlowLabels {
    group: String,
    port: &'static str,
    direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    group: String,
    port: &'static str,
    reason: &'static str,
}

/// Why a client was not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// There were too many.
    Full,
    /// No server within the time it may wait.
    NoServer,
    /// It does not speak the protocol, or said nothing in time.
    Malformed,
}

/// The proxy's metrics, for all groups.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    open: Family<PortLabels, Gauge>,
    waiting: Family<PortLabels, Gauge>,
    total: Family<PortLabels, Counter>,
    cut: Family<PortLabels, Counter>,
    cancels: Family<PortLabels, Counter>,
    bytes: Family<FlowLabels, Counter>,
    refused: Family<ReasonLabels, Counter>,
}

impl Metrics {
    /// Metrics that the registry shows.
    pub fn registered(registry: &mut Registry) -> Self {
        let all = Self::default();
        let help = "Clients that are connected through the proxy, with those that wait";
        registry.register("had_proxy_connections_open", help, all.open.clone());
        let help = "Clients that wait for a server";
        registry.register("had_proxy_connections_waiting", help, all.waiting.clone());
        let help = "Clients that were led to a server";
        registry.register("had_proxy_connections", help, all.total.clone());
        let help = "Connections that were cut because their server is no longer the one";
        registry.register("had_proxy_connections_cut", help, all.cut.clone());
        let help = "Clients that were not served, by reason";
        registry.register("had_proxy_connections_refused", help, all.refused.clone());
        let help = "Requests to cancel a query that were passed on";
        registry.register("had_proxy_cancels", help, all.cancels.clone());
        let help = "Bytes that were passed on; in: from clients, out: to clients";
        registry.register("had_proxy_bytes", help, all.bytes.clone());
        all
    }

    /// The numbers of one port.
    pub(super) fn of(&self, group: &str, way: Way) -> Counts {
        let labels = PortLabels {
            group: group.to_owned(),
            port: way.word(),
        };
        let flow = |direction| {
            let labels = FlowLabels {
                group: group.to_owned(),
                port: way.word(),
                direction,
            };
            Count(self.bytes.get_or_create_owned(&labels))
        };
        let refused = |reason| {
            let labels = ReasonLabels {
                group: group.to_owned(),
                port: way.word(),
                reason,
            };
            self.refused.get_or_create_owned(&labels)
        };
        Counts {
            open: self.open.get_or_create_owned(&labels),
            waiting: self.waiting.get_or_create_owned(&labels),
            total: self.total.get_or_create_owned(&labels),
            cut: self.cut.get_or_create_owned(&labels),
            cancels: self.cancels.get_or_create_owned(&labels),
            to_server: flow("in"),
            to_client: flow("out"),
            full: refused("full"),
            no_server: refused("no_server"),
            malformed: refused("malformed"),
        }
    }

    /// Forgets a group that is gone.
    pub(super) fn forget(&self, group: &str, way: Way) {
        let labels = PortLabels {
            group: group.to_owned(),
            port: way.word(),
        };
        self.open.remove(&labels);
        self.waiting.remove(&labels);
        self.total.remove(&labels);
        self.cut.remove(&labels);
        self.cancels.remove(&labels);
        for direction in ["in", "out"] {
            self.bytes.remove(&FlowLabels {
                group: group.to_owned(),
                port: way.word(),
                direction,
            });
        }
        for reason in ["full", "no_server", "malformed"] {
            self.refused.remove(&ReasonLabels {
                group: group.to_owned(),
                port: way.word(),
                reason,
            });
        }
    }
}

/// The numbers of one port.
#[derive(Debug, Clone)]
pub(super) struct Counts {
    pub(super) open: Gauge<i64, AtomicI64>,
    pub(super) waiting: Gauge<i64, AtomicI64>,
    pub(super) total: Counter,
    pub(super) cut: Counter,
    pub(super) cancels: Counter,
    pub(super) to_server: Count,
    pub(super) to_client: Count,
    full: Counter,
    no_server: Counter,
    malformed: Counter,
}

impl Counts {
    /// Counts a client that was not served.
    pub(super) fn refuse(&self, why: Refused) {
        match why {
            Refused::Full => self.full.inc(),
            Refused::NoServer => self.no_server.inc(),
            Refused::Malformed => self.malformed.inc(),
        };
    }
}

/// Bytes that flowed in one direction.
#[derive(Debug, Clone, Default)]
pub(super) struct Count(Counter<u64, AtomicU64>);

impl Count {
    pub(super) fn add(&self, bytes: usize) {
        self.0.inc_by(bytes as u64);
    }
}

/// One more for as long as it exists.
#[derive(Debug)]
pub(super) struct One(Gauge<i64, AtomicI64>);

impl One {
    pub(super) fn of(gauge: &Gauge<i64, AtomicI64>) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.0.dec();
    }
}
