//! What the master shows: nodes, users and alerts, from what is stored and what is observed.

use std::collections::BTreeMap;

use ha_core::Presence;
use ha_core::alert::{self, NodeFacts, ServerFacts, UserFacts};
use ha_proto::v1;

use super::hub::Update;
use super::{Master, view};

impl Master<'_> {
    /// Shows the object that a change was about.
    pub(super) fn show_subject(&mut self, subject: &str) {
        if let Some(name) = subject.strip_prefix("node/") {
            self.show(name, true);
        } else if subject == "cluster" {
            self.show_maintenance();
        } else if let Some(group) = subject.strip_prefix("db/") {
            self.show_group(group);
        } else if subject.starts_with("user/") || subject == "access" {
            self.show_users();
        }
    }

    /// Shows all there is.
    pub(super) fn show_everything(&mut self) {
        let groups: Vec<String> = self.store.groups.keys().cloned().collect();
        groups.iter().for_each(|g| self.show_group(g));
        for name in self.store.nodes.keys().chain(self.members.keys()) {
            self.show(name, true);
        }
        self.show_maintenance();
        self.show_users();
        for id in self.store.ops.keys() {
            self.show_operation(id);
        }
    }

    pub(super) fn show_users(&self) {
        let Some(access) = &self.store.access.envelope.value else {
            return;
        };
        let users = access.users.iter().map(|(n, u)| view::user(n, "user", u));
        let nodes = access.nodes.iter().map(|(n, u)| view::user(n, "node", u));
        self.tell(Update::Users(users.chain(nodes).collect()));
    }

    /// Shows one node.
    pub(super) fn show(&self, name: &str, urgent: bool) {
        let stored = self.store.nodes.get(name);
        let record = stored.and_then(|s| s.envelope.value.as_ref());
        let assignment = self.store.assignments.get(name);
        let concluded = assignment.and_then(|s| s.envelope.value.as_ref());
        let member = self.members.get(name);
        if record.is_none() && member.is_none_or(|m| !m.registered) {
            return;
        }
        let revision = stored
            .map_or(0, |s| s.envelope.revision())
            .max(assignment.map_or(0, |s| s.envelope.revision()));
        let presence = concluded.map_or(Presence::Unseen, |c| c.presence);
        let registration = member.and_then(|m| m.registration.as_ref());
        let report = member.and_then(|m| m.report.as_ref());
        let master = name == self.p.shared.me.node;
        let mut conditions: Vec<String> = report.map(|r| r.conditions.clone()).unwrap_or_default();
        for path in [format!("/nodes/{name}"), format!("/assignments/{name}")] {
            conditions.extend(self.store.damaged.get(&path).map(|e| format!("damaged: {e}")));
        }
        let reason = match record {
            None if self.store.damaged.contains_key(&format!("/nodes/{name}")) => "its record is damaged".to_owned(),
            None => "registered, but never added: refused".to_owned(),
            Some(_) if presence == Presence::Unseen => "not started yet".to_owned(),
            Some(_) => concluded.map_or(String::new(), |c| c.reason.clone()),
        };
        let status = v1::NodeStatus {
            state: view::node_state(record, presence).into(),
            role: if master { v1::Role::Master } else { v1::Role::Member }.into(),
            reason,
            state_since_unix_ms: concluded.map_or(0, |c| c.since_ms),
            // A node that this master never heard was last seen when an earlier one gave it up; one that is registered
            // and online is seen by that until it reports.
            last_seen_unix_ms: match member.map_or(0, |m| m.last_seen_ms) {
                0 if presence == Presence::Online => self.wall_ms(),
                0 => concluded
                    .filter(|c| c.presence != Presence::Unseen)
                    .map_or(0, |c| c.since_ms),
                seen => seen,
            },
            usage: report.filter(|_| presence == Presence::Online).and_then(|r| r.usage),
            version: registration.map(|r| r.version.clone()).unwrap_or_default(),
            boot_id: registration.map(|r| r.boot_id.clone()).unwrap_or_default(),
            started_unix_ms: registration.map_or(0, |r| r.started_ms),
            certificate_expires_unix_ms: report.map_or(0, |r| r.certificate_expires_unix_ms),
            clock_skew_ms: member.map_or(0, |m| m.skew_ms),
            restarting: registration.is_some_and(|r| r.restarting),
            http_address: registration.map(|r| r.http_address.clone()).unwrap_or_default(),
            conditions,
            registered_address: registration.map(|r| r.address.clone()).unwrap_or_default(),
            os: registration.map(|r| r.os.clone()).unwrap_or_default(),
            databases: self.node_instances(name),
        };
        let spec = record.map_or_else(
            || v1::NodeSpec {
                address: registration.map(|r| r.address.clone()).unwrap_or_default(),
                ..v1::NodeSpec::default()
            },
            |r| view::spec(&r.spec),
        );
        let node = v1::Node {
            name: name.to_owned(),
            spec: Some(spec),
            status: Some(status),
            revision,
        };
        self.tell(Update::Node(Box::new(node), urgent));
    }

    /// Derives the alerts anew and shows them if they differ. An alert that still holds keeps its beginning.
    pub(super) fn refresh_alerts(&mut self) {
        self.stale_alerts = false;
        let wall = self.wall_ms();
        let mut nodes = Vec::new();
        for (name, member) in &self.members {
            let record = self.store.nodes.get(name).and_then(|s| s.envelope.value.as_ref());
            // A record that cannot be read has an alert of its own.
            if record.is_some_and(|r| r.removed) || self.store.damaged.contains_key(&format!("/nodes/{name}")) {
                continue;
            }
            let concluded = self.store.assignments.get(name).and_then(|s| s.envelope.value.as_ref());
            let presence = concluded.map_or(Presence::Unseen, |c| c.presence);
            let online = presence == Presence::Online;
            let report = member.report.as_ref().filter(|_| online);
            let elsewhere = member
                .registration
                .as_ref()
                .filter(|r| record.is_some_and(|rec| online && rec.spec.address != r.address))
                .map(|r| r.address.clone());
            nodes.push(NodeFacts {
                name: name.clone(),
                added: record.is_some(),
                presence,
                reason: concluded.map_or(String::new(), |c| c.reason.clone()),
                certificate_expires_ms: report.map_or(0, |r| r.certificate_expires_unix_ms),
                clock_skew_ms: if online { member.skew_ms } else { 0 },
                conditions: report.map(|r| r.conditions.clone()).unwrap_or_default(),
                other_address: elsewhere,
            });
        }
        let users: Vec<UserFacts> = self
            .store
            .access
            .envelope
            .value
            .iter()
            .flat_map(|a| &a.users)
            .filter(|(_, u)| !u.is_revoked())
            .map(|(name, u)| UserFacts {
                name: name.clone(),
                expires_ms: u.expires_ms,
            })
            .collect();
        let servers: Vec<ServerFacts> = self
            .servers
            .iter()
            .map(|s| ServerFacts {
                address: s.address.clone(),
                error: (!s.reachable).then(|| s.error.clone()),
            })
            .collect();
        let damaged: Vec<(String, String)> = self
            .store
            .damaged
            .iter()
            .map(|(path, e)| (path.clone(), e.to_string()))
            .collect();
        let of_groups = self.database_alerts().into_iter().map(|a| (a.id.clone(), a));
        let alerts: BTreeMap<String, v1::Alert> = alert::derive(&nodes, &users, &servers, &damaged, wall)
            .into_iter()
            .chain(of_groups)
            .map(|(id, a)| {
                let since = self.alerts.get(&id).map_or(wall, |old| old.since_unix_ms);
                let shown = v1::Alert {
                    id: id.clone(),
                    severity: view::severity(a.severity).into(),
                    subject: a.subject,
                    text: a.text,
                    since_unix_ms: since,
                    hint: a.hint,
                };
                (id, shown)
            })
            .collect();
        if alerts != self.alerts {
            self.alerts = alerts;
            self.tell(Update::Alerts(self.alerts.values().cloned().collect()));
        }
    }
}
