//! A watcher as a dashboard is one: folds frames into a state, and resumes or starts over when its stream ends.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use controlplane::master::handle::HubQuery;
use ha_proto::v1::{self, watch_frame::Body};
use tokio::time::{sleep, timeout};

use super::world::World;

/// Changes a folded state keeps, as a snapshot has them.
const RECENT: usize = 100;

/// What a watcher knows.
#[derive(Default)]
pub struct Folded {
    state: Option<v1::ClusterState>,
    nodes: BTreeMap<String, v1::Node>,
    term: u64,
    seq: u64,
}

impl Folded {
    /// Takes a frame; what is wrong with it.
    fn fold(&mut self, frame: v1::WatchFrame) -> Result<(), String> {
        match frame.body {
            Some(Body::Snapshot(state)) => {
                self.nodes = state.nodes.iter().map(|n| (n.name.clone(), n.clone())).collect();
                self.state = Some(state);
            }
            Some(Body::Delta(delta)) => {
                let Some(state) = &mut self.state else {
                    return Err("a delta came before any snapshot".to_owned());
                };
                if (frame.term, frame.seq) != (self.term, self.seq + 1) {
                    return Err(format!(
                        "frame {} of term {} came after {} of term {}",
                        frame.seq, frame.term, self.seq, self.term
                    ));
                }
                for node in delta.nodes {
                    self.nodes.insert(node.name.clone(), node);
                }
                for name in delta.removed_nodes {
                    self.nodes.remove(&name);
                }
                state.recent_changes.extend(delta.changes);
                let excess = state.recent_changes.len().saturating_sub(RECENT);
                state.recent_changes.drain(..excess);
                if let Some(alerts) = delta.alerts {
                    state.alerts = alerts.alerts;
                }
                state.master = delta.master.or(state.master.take());
                state.maintenance = delta.maintenance.or(state.maintenance.take());
                if let Some(zookeeper) = delta.zookeeper {
                    state.zookeeper = zookeeper.servers;
                }
                state.revision = delta.revision.max(state.revision);
            }
            Some(Body::Beat(_)) | None => {
                if (frame.term, frame.seq) != (self.term, self.seq) {
                    return Err(format!(
                        "a beat of frame {}, term {} came after frame {} of term {}",
                        frame.seq, frame.term, self.seq, self.term
                    ));
                }
            }
        }
        (self.term, self.seq) = (frame.term, frame.seq);
        Ok(())
    }

    /// How it differs from a snapshot of the same moment, if it does. Measurements are left out.
    pub fn differs(&self, fresh: &v1::ClusterState) -> Option<String> {
        let Some(state) = &self.state else {
            return Some("nothing was received yet".to_owned());
        };
        let mine = still(v1::ClusterState {
            nodes: self.nodes.values().cloned().collect(),
            ..state.clone()
        });
        let theirs = still(fresh.clone());
        if mine == theirs {
            return None;
        }
        if mine.nodes != theirs.nodes {
            let pairs = mine.nodes.iter().zip(&theirs.nodes);
            let first = pairs.clone().find(|(a, b)| a != b);
            return Some(match first {
                Some((a, b)) => format!("node {}: {:?} is {:?}", a.name, a, b),
                None => format!("{} nodes are {}", mine.nodes.len(), theirs.nodes.len()),
            });
        }
        let parts = [
            ("master", mine.master == theirs.master),
            ("alerts", mine.alerts == theirs.alerts),
            ("maintenance", mine.maintenance == theirs.maintenance),
            ("recent changes", mine.recent_changes == theirs.recent_changes),
            ("revision", mine.revision == theirs.revision),
        ];
        let other = parts.iter().find(|(_, same)| !same).map_or("other", |(what, _)| what);
        Some(format!("{other} differ"))
    }
}

/// A state without what changes all the time.
fn still(mut state: v1::ClusterState) -> v1::ClusterState {
    state.observed_unix_ms = 0;
    for status in state.nodes.iter_mut().filter_map(|n| n.status.as_mut()) {
        status.last_seen_unix_ms = 0;
        status.usage = None;
        status.clock_skew_ms = 0;
    }
    for alert in &mut state.alerts {
        if alert.id.ends_with("/clock") {
            alert.text.clear();
        }
    }
    state
}

/// Watches wherever a master is.
pub async fn watch(world: World, name: String, folded: Rc<RefCell<Folded>>) {
    loop {
        sleep(Duration::from_millis(100)).await;
        let Some(handle) = world.master_handle() else { continue };
        let request = {
            let f = folded.borrow();
            v1::WatchRequest {
                term: f.term,
                seq: f.seq,
            }
        };
        let asked = handle.ask(|reply| HubQuery::Watch { request, reply });
        let Ok(Ok(mut frames)) = timeout(Duration::from_secs(2), asked).await else {
            continue;
        };
        while let Ok(Some(Ok(frame))) = timeout(Duration::from_secs(4), frames.recv()).await {
            if let Err(e) = folded.borrow_mut().fold(frame) {
                world.ledger().wrong(format!("{name}: {e}"));
            }
        }
    }
}
