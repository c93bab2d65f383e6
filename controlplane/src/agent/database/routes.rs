//! Where the clients of each group belong: computed on every node from the records themselves, at once when one changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use ha_core::database::{GroupSpec, GroupState, Phase, RoleWanted};
use tokio::sync::watch;

use super::nodes::{Node, Nodes};
use super::publish::sync_of;
use super::records::Known;
use crate::proxy::local::{Instances, State};
use crate::proxy::routes::{Routes, Server, Standby, StandbyState, Table};

/// The table of one group; none while it is not known, or removed.
pub(super) fn table(group: &str, known: &Known, nodes: &Nodes, own: (&str, &Instances), now_ms: i64) -> Option<Table> {
    let spec = known.spec.as_ref().filter(|s| !s.removed)?;
    let state = known.state()?;
    let server = |name: &str| nodes.get(name).map(|n| server(name, n, spec));
    // In an election the record names nobody, and connections to the former primary are left to it.
    let primary = state.primary.as_deref().and_then(server);
    let named = |n: &&String| state.primary.as_ref() != Some(*n);
    let standbys = state.instances.keys().filter(named).filter_map(|name| {
        let node = nodes.get(name)?;
        let mut standby = Standby {
            server: self::server(name, node, spec),
            state: expected(state, name, node),
            sync: sync_of(Some(state), name),
            ..Standby::default()
        };
        if name == own.0
            && let Some(instance) = own.1.groups.get(group)
        {
            observed(&mut standby, instance);
        }
        Some(standby)
    });
    Some(Table {
        epoch: state.epoch,
        steady: state.phase == Phase::Steady,
        timeline: state.timeline,
        primary,
        standbys: standbys.collect(),
        paused: spec.paused(now_ms),
        ..Table::default()
    })
}

fn server(name: &str, node: &Node, spec: &GroupSpec) -> Server {
    Server {
        node: name.to_owned(),
        address: node.endpoint(spec.port(name)),
        http: node.http.clone(),
        tags: BTreeMap::new(),
    }
}

/// What an instance elsewhere does, as far as records tell: one that is rebuilt or whose node is gone takes no clients.
fn expected(state: &GroupState, name: &str, node: &Node) -> StandbyState {
    if !node.online {
        StandbyState::Down
    } else if state.rebuilding(name) || state.instances.get(name).is_some_and(|i| !i.filled) {
        StandbyState::Preparing
    } else {
        StandbyState::Streaming
    }
}

/// What is known of this node's own instance is known better.
fn observed(standby: &mut Standby, instance: &crate::proxy::local::Instance) {
    standby.state = match instance.state {
        State::Running if instance.replication_state == "streaming" => StandbyState::Streaming,
        State::Running => StandbyState::Running,
        State::Initializing | State::Copying | State::Rewinding | State::Starting => StandbyState::Preparing,
        State::Unknown | State::Stopping | State::Stopped | State::Crashed => StandbyState::Down,
    };
    standby.received = instance.wal.received;
    standby.replayed = instance.wal.replayed;
    standby.timeline = instance.timeline;
}

/// Publishes a group's table, or takes it away.
pub(super) fn publish(tx: &watch::Sender<Arc<Routes>>, group: &str, table: Option<Table>) {
    tx.send_if_modified(|routes| {
        if routes.groups.get(group) == table.as_ref() {
            return false;
        }
        let mut next = Routes::clone(routes);
        match table {
            Some(table) => drop(next.groups.insert(group.to_owned(), table)),
            None => drop(next.groups.remove(group)),
        }
        *routes = Arc::new(next);
        true
    });
}

/// Nodes that a group's instances are on, or are to be.
pub(super) fn nodes_of(known: &Known) -> impl Iterator<Item = &String> {
    let spec = known.spec.iter().flat_map(|s| s.nodes.iter());
    let listed = spec.filter(|(_, i)| i.role != RoleWanted::None).map(|(n, _)| n);
    let state = known.state().into_iter();
    let recorded = state.flat_map(|s| s.instances.keys().chain(&s.primary).chain(&s.granters));
    listed.chain(recorded)
}
