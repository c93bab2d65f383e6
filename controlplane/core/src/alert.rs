//! What an administrator is told: the conditions that hold now, each under a stable id so that it is told once.

use std::collections::BTreeMap;

use crate::model::{Presence, Severity};

/// Milliseconds in a day.
const DAY_MS: i64 = 24 * 3600 * 1000;
/// A certificate this close to its end is a warning.
pub const CERTIFICATE_WARNING_MS: i64 = 30 * DAY_MS;
/// And this close an error.
pub const CERTIFICATE_ERROR_MS: i64 = 7 * DAY_MS;
/// Difference of wall clocks that is a warning: certificates and logs go wrong by it, leases never do.
pub const CLOCK_SKEW_MS: i64 = 2000;

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// Stable id.
    pub id: String,
    /// How much it matters.
    pub severity: Severity,
    /// What it is about, for instance `node/n1`.
    pub subject: String,
    /// One line.
    pub text: String,
    /// What to do about it.
    pub hint: String,
}

/// What is known of a node.
#[derive(Debug, Clone)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// It was added; otherwise it is pending.
    pub added: bool,
    /// Its state.
    pub presence: Presence,
    /// Why.
    pub reason: String,
    /// When its certificate ends; 0 if unknown.
    pub certificate_expires_ms: i64,
    /// Its wall clock minus the master's.
    pub clock_skew_ms: i64,
    /// What it says is wrong with itself.
    pub conditions: Vec<String>,
    /// Where it registered, if that is not where its specification says.
    pub other_address: Option<String>,
}

/// What is known of a user's certificate.
#[derive(Debug, Clone)]
pub struct UserFacts {
    /// The name.
    pub name: String,
    /// When its newest certificate ends.
    pub expires_ms: i64,
}

/// What is known of a ZooKeeper server.
#[derive(Debug, Clone)]
pub struct ServerFacts {
    /// host:port.
    pub address: String,
    /// Why it could not be reached, if so.
    pub error: Option<String>,
}

fn certificate(id: String, subject: String, expires_ms: i64, now_ms: i64, hint: String) -> Option<Alert> {
    let left = expires_ms - now_ms;
    let severity = match left {
        _ if expires_ms == 0 || left > CERTIFICATE_WARNING_MS => return None,
        l if l <= CERTIFICATE_ERROR_MS => Severity::Error,
        _ => Severity::Warning,
    };
    let text = if left <= 0 {
        format!("certificate of {subject} has expired")
    } else {
        format!("certificate of {subject} expires in {} days", left / DAY_MS)
    };
    Some(Alert {
        id,
        severity,
        subject,
        text,
        hint,
    })
}

/// The alerts that hold now, by id. `damaged` are stored values that cannot be read: path and reason.
pub fn derive(
    nodes: &[NodeFacts],
    users: &[UserFacts],
    servers: &[ServerFacts],
    damaged: &[(String, String)],
    now_ms: i64,
) -> BTreeMap<String, Alert> {
    let mut alerts = Vec::new();
    for n in nodes {
        let subject = format!("node/{}", n.name);
        let mut raise = |what: &str, severity, text: String, hint: String| {
            alerts.push(Alert {
                id: format!("{subject}/{what}"),
                severity,
                subject: subject.clone(),
                text,
                hint,
            });
        };
        let show = format!("hactl node show {}", n.name);
        if !n.added {
            let hint = format!("hactl node add {} --addr HOST:PORT, or stop its daemon", n.name);
            raise(
                "pending",
                Severity::Warning,
                format!("{} registered, but was never added: it is refused", n.name),
                hint,
            );
            continue;
        }
        match n.presence {
            Presence::Offline => raise(
                "offline",
                Severity::Error,
                format!("{} offline: {}", n.name, n.reason),
                show.clone(),
            ),
            Presence::Suspect => raise(
                "suspect",
                Severity::Warning,
                format!("{} suspect: {}", n.name, n.reason),
                show.clone(),
            ),
            Presence::Online | Presence::Unseen => {}
        }
        if n.clock_skew_ms.abs() > CLOCK_SKEW_MS {
            #[allow(clippy::cast_precision_loss)]
            let seconds = n.clock_skew_ms as f64 / 1000.0;
            let text = format!("{}: clock differs from the master's by {seconds:.1} s", n.name);
            raise(
                "clock",
                Severity::Warning,
                text,
                "check the time service (chrony, systemd-timesyncd)".into(),
            );
        }
        if let Some(other) = &n.other_address {
            let text = format!("{} registered at {other}, not at the address it was added with", n.name);
            raise(
                "address",
                Severity::Warning,
                text,
                format!("hactl node set {} --address {other}", n.name),
            );
        }
        for (i, condition) in n.conditions.iter().enumerate() {
            raise(
                &format!("condition-{i}"),
                Severity::Warning,
                format!("{}: {condition}", n.name),
                show.clone(),
            );
        }
        let hint = format!("hactl node renew {}", n.name);
        alerts.extend(certificate(
            format!("certificate/{}", n.name),
            subject.clone(),
            n.certificate_expires_ms,
            now_ms,
            hint,
        ));
    }
    for u in users {
        let subject = format!("user/{}", u.name);
        let hint = format!("hactl user renew {}", u.name);
        alerts.extend(certificate(
            format!("certificate/user/{}", u.name),
            subject,
            u.expires_ms,
            now_ms,
            hint,
        ));
    }
    for (path, why) in damaged {
        let object = path.trim_start_matches('/');
        alerts.push(Alert {
            id: format!("damaged/{object}"),
            severity: Severity::Error,
            subject: object
                .strip_prefix("nodes/")
                .map_or(object.to_owned(), |n| format!("node/{n}")),
            text: format!("a stored value is damaged, and left as it is: {why}"),
            hint: "hactl explain HA0810".to_owned(),
        });
    }
    let down: Vec<&ServerFacts> = servers.iter().filter(|s| s.error.is_some()).collect();
    for s in &down {
        alerts.push(Alert {
            id: format!("zookeeper/{}", s.address),
            severity: if down.len() * 2 >= servers.len() {
                Severity::Error
            } else {
                Severity::Warning
            },
            subject: format!("zookeeper/{}", s.address),
            text: format!(
                "ZooKeeper server does not answer: {}",
                s.error.as_deref().unwrap_or_default()
            ),
            hint: "start it, or correct the list of servers".to_owned(),
        });
    }
    alerts.into_iter().map(|a| (a.id.clone(), a)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeFacts {
        NodeFacts {
            name: name.into(),
            added: true,
            presence: Presence::Online,
            reason: String::new(),
            certificate_expires_ms: 1000 * DAY_MS,
            clock_skew_ms: 0,
            conditions: vec![],
            other_address: None,
        }
    }

    #[test]
    fn nothing_wrong_nothing_told() {
        assert!(
            derive(
                &[node("n1")],
                &[],
                &[ServerFacts {
                    address: "z:1".into(),
                    error: None
                }],
                &[],
                0
            )
            .is_empty()
        );
    }

    #[test]
    fn each_condition_has_a_stable_id() {
        let sick = NodeFacts {
            presence: Presence::Offline,
            reason: "session expired".into(),
            clock_skew_ms: -3_600_000,
            certificate_expires_ms: 10 * DAY_MS,
            conditions: vec!["disk full".into()],
            other_address: Some("b:1".into()),
            ..node("n1")
        };
        let pending = NodeFacts {
            added: false,
            ..node("n9")
        };
        let users = [UserFacts {
            name: "eve".into(),
            expires_ms: 3 * DAY_MS,
        }];
        let servers = [
            ServerFacts {
                address: "z:1".into(),
                error: Some("refused".into()),
            },
            ServerFacts {
                address: "z:2".into(),
                error: None,
            },
        ];
        let damaged = [("/nodes/n3".to_owned(), "/nodes/n3: not readable: x".to_owned())];
        let alerts = derive(&[sick, pending], &users, &servers, &damaged, 0);
        let ids: Vec<&str> = alerts.keys().map(String::as_str).collect();
        assert_eq!(
            ids,
            [
                "certificate/n1",
                "certificate/user/eve",
                "damaged/nodes/n3",
                "node/n1/address",
                "node/n1/clock",
                "node/n1/condition-0",
                "node/n1/offline",
                "node/n9/pending",
                "zookeeper/z:1"
            ]
        );
        assert_eq!(alerts["certificate/n1"].severity, Severity::Warning);
        assert_eq!(alerts["certificate/user/eve"].severity, Severity::Error);
    }
}
