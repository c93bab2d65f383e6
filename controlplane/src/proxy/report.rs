//! What the node reports of its proxy to the master: all of it when something changed that an operator would want to see at
//! once, and how many clients there are every few seconds.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ha_proto::v1::ProxyReport;

use super::routes::Way;
use super::{PortStatus, Proxy};

/// Between two reports of nothing but other numbers of clients.
const COUNTS: Duration = Duration::from_secs(5);
/// Nothing changed, but a report may have been lost with its stream.
const AGAIN: Duration = Duration::from_secs(60);

/// Decides what is due in each report of the node.
pub struct Reporter {
    proxy: Proxy,
    /// The host under which others reach this node.
    host: String,
    sent: Mutex<Option<(Vec<ProxyReport>, Instant)>>,
}

impl Reporter {
    /// For a proxy that others reach at this endpoint's host.
    pub fn new(proxy: Proxy, endpoint: &str) -> Self {
        let host = endpoint.rsplit_once(':').map_or(endpoint, |(host, _)| host);
        Self {
            proxy,
            host: host.to_owned(),
            sent: Mutex::default(),
        }
    }

    /// What the next report says: all of it, or nothing.
    pub fn due(&self, first: bool) -> Vec<ProxyReport> {
        self.due_at(first, self.now(), Instant::now())
    }

    fn due_at(&self, first: bool, all: Vec<ProxyReport>, now: Instant) -> Vec<ProxyReport> {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let due = match &*sent {
            _ if first => true,
            None => !all.is_empty(),
            Some((before, at)) => {
                let age = now.saturating_duration_since(*at);
                !before.iter().map(without_counts).eq(all.iter().map(without_counts))
                    || age >= COUNTS && *before != all
                    || age >= AGAIN
            }
        };
        if !due {
            return Vec::new();
        }
        *sent = Some((all.clone(), now));
        all
    }

    fn now(&self) -> Vec<ProxyReport> {
        let routes = self.proxy.routes.borrow().clone();
        let mut groups: BTreeMap<String, ProxyReport> = BTreeMap::new();
        for port in self.proxy.status() {
            let report = groups.entry(port.group.clone()).or_default();
            self.add(report, port);
        }
        for (name, report) in &mut groups {
            report.group.clone_from(name);
            if let Some(table) = routes.groups.get(name) {
                report.epoch = table.epoch;
                report.primary = table.primary.as_ref().map(|p| p.node.clone()).unwrap_or_default();
            }
        }
        groups.into_values().collect()
    }

    fn add(&self, report: &mut ProxyReport, port: PortStatus) {
        let clients = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        report.connections = report.connections.saturating_add(clients(port.open));
        report.waiting = report.waiting.saturating_add(clients(port.waiting));
        let address = port.address.map(|a| self.reached(a)).unwrap_or_default();
        match port.way {
            Way::Primary => report.address = address,
            Way::Standbys => report.standby_address = address,
        }
        if let Some(error) = port.error {
            let separator = if report.error.is_empty() { "" } else { "; " };
            report.error = format!("{}{separator}{}: {error}", report.error, port.way.word());
        }
    }

    /// As others reach it: listening on all addresses is listening on the node's own.
    fn reached(&self, address: SocketAddr) -> String {
        if address.ip().is_unspecified() {
            format!("{}:{}", self.host, address.port())
        } else {
            address.to_string()
        }
    }
}

fn without_counts(report: &ProxyReport) -> ProxyReport {
    ProxyReport {
        connections: 0,
        waiting: 0,
        ..report.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Metrics, Settings};
    use super::*;

    fn reporter() -> Reporter {
        let (_, routes) = tokio::sync::watch::channel(std::sync::Arc::default());
        let proxy = Proxy::new(Settings::default(), routes, Metrics::default());
        Reporter::new(proxy, "10.0.0.11:7400")
    }

    #[test]
    fn what_changed_is_told_at_once_and_numbers_now_and_then() {
        let reporter = reporter();
        let with = |connections, error: &str| {
            vec![ProxyReport {
                group: "main".into(),
                connections,
                error: error.into(),
                ..ProxyReport::default()
            }]
        };
        let start = Instant::now();
        let told = |first, all, after_s: u64| {
            !reporter
                .due_at(first, all, start + Duration::from_secs(after_s))
                .is_empty()
        };
        assert!(!told(false, Vec::new(), 0));
        assert!(told(false, with(1, ""), 0), "new");
        assert!(!told(false, with(1, ""), 0));
        assert!(!told(false, with(2, ""), 4));
        assert!(told(false, with(2, ""), 5));
        assert!(told(false, with(2, "in use"), 6), "it does not listen any more");
        assert!(!told(false, with(2, "in use"), 20));
        assert!(told(true, with(2, "in use"), 21), "a new stream");
        assert!(!told(false, with(2, "in use"), 80));
        assert!(told(false, with(2, "in use"), 81));
    }

    #[test]
    fn ports_are_told_as_others_reach_them() {
        let reporter = reporter();
        let mut report = ProxyReport::default();
        let port = |way, address: Option<&str>, error: Option<&str>| PortStatus {
            group: "main".into(),
            way,
            address: address.map(|a| a.parse().unwrap()),
            error: error.map(str::to_owned),
            open: 3,
            waiting: 1,
        };
        reporter.add(&mut report, port(Way::Primary, Some("0.0.0.0:5000"), None));
        reporter.add(&mut report, port(Way::Standbys, None, Some("in use")));
        assert_eq!(
            (report.address.as_str(), report.standby_address.as_str()),
            ("10.0.0.11:5000", "")
        );
        assert_eq!((report.connections, report.waiting), (6, 2));
        assert_eq!(report.error, "standbys: in use");
        reporter.add(&mut report, port(Way::Standbys, Some("127.0.0.2:5001"), None));
        assert_eq!(report.standby_address, "127.0.0.2:5001");
    }
}
