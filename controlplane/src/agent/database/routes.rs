//! Where the clients of each group belong: computed on every node from the records themselves, at once when one changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ha_core::database::{GroupSpec, GroupState, Phase, RoleWanted};
use ha_proto::v1;
use tokio::sync::watch;

use super::nodes::{Node, Nodes};
use super::publish::sync_of;
use super::records::Known;
use crate::proxy::local::{Instances, State};
use crate::proxy::routes::{Ports, Routes, Server, Standby, StandbyState, Table};

/// The table of one group; none while it is not known, or removed. `seen` is how the master saw the standbys.
pub(super) fn table(
    group: &str,
    known: &Known,
    nodes: &Nodes,
    own: (&str, &Instances),
    seen: Option<&v1::GroupStandbys>,
    now_ms: i64,
) -> Option<Table> {
    let spec = known.spec.as_ref().filter(|s| !s.removed)?;
    let state = known.state()?;
    let server = |name: &str| nodes.get(name).map(|n| server(name, n, spec));
    // In an election the record names nobody, and connections to the former primary are left to it.
    let primary = state.primary.as_deref().and_then(server);
    let named = |n: &&String| state.primary.as_ref() != Some(*n);
    // What was seen in another epoch says nothing of this one.
    let seen = seen.filter(|s| s.epoch == state.epoch);
    let standbys = state.instances.keys().filter(named).filter_map(|name| {
        let node = nodes.get(name)?;
        let mut standby = Standby {
            server: self::server(name, node, spec),
            state: expected(state, name, node),
            sync: sync_of(Some(state), name),
            ..Standby::default()
        };
        if let Some(seen) = seen.and_then(|s| s.standbys.iter().find(|s| s.node == *name)) {
            told(&mut standby, seen);
        }
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
        ports: Ports {
            primary: spec.proxy.port,
            standbys: spec.proxy.standby_port,
        },
        wait: Duration::from_millis(spec.proxy.wait_ms),
        max_lag: spec.proxy.max_lag,
        fall_back: spec.proxy.fall_back,
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

/// What the master saw of an instance, unless records say that it takes nobody.
fn told(standby: &mut Standby, seen: &v1::StandbySeen) {
    use v1::InstanceState as S;
    if standby.state == StandbyState::Streaming {
        standby.state = match seen.state() {
            S::Streaming | S::CatchingUp => StandbyState::Streaming,
            // It may well serve whom it has; whether it is fit for others nobody knows.
            S::Unspecified | S::Disconnected | S::Sealed | S::Running | S::Closed => StandbyState::Running,
            S::Empty | S::Starting | S::Promoting | S::Rewinding | S::Copying | S::Initialising => {
                StandbyState::Preparing
            }
            S::Stopped | S::Stopping | S::Failed => StandbyState::Down,
        };
    }
    standby.timeline = seen.timeline;
    standby.received = seen.received_lsn;
    standby.replayed = seen.replayed_lsn;
    standby.lag = seen.lag_bytes;
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
    let (primary, replayed) = (instance.primary_lsn, instance.wal.replayed);
    if primary > 0 && replayed > 0 {
        standby.lag = Some(primary.saturating_sub(replayed));
    }
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

#[cfg(test)]
mod tests {
    use ha_core::database::record::InstanceState;

    use super::super::nodes::Node;
    use super::*;
    use crate::proxy::local::Instance;
    use crate::proxy::routes::Way;

    /// n1 is primary of epoch 3 on timeline 2; n2, n3 and n4 are its standbys.
    fn known() -> Known {
        let names = ["n1", "n2", "n3", "n4"];
        let filled = InstanceState {
            filled: true,
            ..InstanceState::default()
        };
        let state = GroupState {
            epoch: 3,
            phase: Phase::Steady,
            primary: Some("n1".into()),
            timeline: 2,
            instances: names.map(|n| (n.to_owned(), filled.clone())).into(),
            ..GroupState::default()
        };
        Known::of(GroupSpec::on(names), state)
    }

    fn nodes() -> Nodes {
        let node = |host: u8| Node {
            address: format!("10.0.0.{host}:7400"),
            online: true,
            ..Node::default()
        };
        Arc::new((1..=4).map(|i| (format!("n{i}"), node(i))).collect())
    }

    fn seen(epoch: u64, standbys: &[(&str, v1::InstanceState, u32, Option<u64>)]) -> v1::GroupStandbys {
        let of = standbys
            .iter()
            .map(|(node, state, timeline, lag_bytes)| v1::StandbySeen {
                node: (*node).to_owned(),
                state: (*state).into(),
                timeline: *timeline,
                received_lsn: 1000,
                replayed_lsn: 900,
                lag_bytes: *lag_bytes,
            });
        v1::GroupStandbys {
            group: "main".into(),
            epoch,
            primary_lsn: 1000,
            standbys: of.collect(),
        }
    }

    fn targets(known: &Known, own: (&str, &Instances), seen: Option<&v1::GroupStandbys>) -> Vec<String> {
        let table = table("main", known, &nodes(), own, seen, 0).unwrap();
        let targets = table.targets(Way::Standbys);
        targets.iter().map(|s| s.node.clone()).collect()
    }

    #[test]
    fn standbys_of_other_nodes_are_led_to_as_the_master_sees_them() {
        use v1::InstanceState::{Disconnected, Streaming, Unspecified};
        let (known, none) = (known(), Instances::default());
        let limit = known.spec.as_ref().unwrap().proxy.max_lag.unwrap();
        let here = ("n9", &none);
        assert_eq!(targets(&known, here, None), [""; 0], "nobody knows how far they are");
        let all = [
            ("n2", Streaming, 2, Some(limit)),
            ("n3", Streaming, 2, Some(limit + 1)),
            ("n4", Streaming, 2, Some(0)),
        ];
        assert_eq!(targets(&known, here, Some(&seen(3, &all))), ["n2", "n4"]);
        assert_eq!(targets(&known, here, Some(&seen(2, &all))), [""; 0], "of another epoch");
        let others = [
            ("n2", Disconnected, 2, Some(0)),
            ("n3", Streaming, 1, Some(0)),
            ("n4", Unspecified, 2, Some(0)),
        ];
        assert_eq!(targets(&known, here, Some(&seen(3, &others))), [""; 0]);
        // Who is connected there stays, for the records say no ill of them.
        let table = table("main", &known, &nodes(), here, Some(&seen(3, &others)), 0).unwrap();
        for n in ["n2", "n3", "n4"] {
            let address = format!("10.0.0.{}:5432", &n[1..]);
            assert!(table.may_stay(Way::Standbys, n, &address, 2), "{n}");
        }
        let any = {
            let mut known = known;
            known.spec.as_mut().unwrap().proxy.max_lag = None;
            known
        };
        assert_eq!(targets(&any, here, Some(&seen(3, &all))), ["n2", "n3", "n4"]);
    }

    #[test]
    fn records_and_this_node_s_own_word_go_before_the_master_s() {
        use v1::InstanceState::Streaming;
        let mut known = known();
        let all = ["n2", "n3", "n4"].map(|n| (n, Streaming, 2, Some(0)));
        let state = &mut known.read.as_mut().unwrap().state;
        state.instances.get_mut("n4").unwrap().filled = false;
        // n3 is this node, and its instance knows that it is far behind, and later that it is not.
        let own = |replayed: u64| {
            let instance = Instance {
                state: State::Running,
                replication_state: "streaming".into(),
                timeline: 2,
                primary_lsn: 1 << 40,
                wal: crate::proxy::local::Wal {
                    replayed,
                    ..Default::default()
                },
                ..Instance::default()
            };
            Instances {
                groups: [("main".to_owned(), instance)].into(),
            }
        };
        assert_eq!(targets(&known, ("n3", &own(1)), Some(&seen(3, &all))), ["n2"]);
        assert_eq!(
            targets(&known, ("n3", &own(1 << 40)), Some(&seen(3, &all))),
            ["n2", "n3"]
        );
    }

    #[test]
    fn ports_and_limits_are_the_specification_s() {
        let mut known = known();
        let proxy = &mut known.spec.as_mut().unwrap().proxy;
        (proxy.port, proxy.standby_port, proxy.fall_back) = (Some(6000), None, true);
        (proxy.wait_ms, proxy.max_lag) = (250, Some(7));
        let table = table("main", &known, &nodes(), ("n9", &Instances::default()), None, 0).unwrap();
        assert_eq!((table.ports.primary, table.ports.standbys), (Some(6000), None));
        assert_eq!((table.wait, table.max_lag), (Duration::from_millis(250), Some(7)));
        // No standby is known to be fit: the primary serves readers as well.
        assert_eq!(table.targets(Way::Standbys)[0].node, "n1");
    }
}
