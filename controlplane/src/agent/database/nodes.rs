//! Where the nodes of groups are reached, and which of them are registered: for routes, replication and grants.
//!
//! What was known last stays valid while the coordinator is away; nothing is decided from it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ha_core::{Envelope, NodeRecord, Registration, decode};
use tokio::sync::watch;

use super::records;
use crate::coordination::{CoordError, Coordinator};

/// Addresses change rarely, and a node that comes or goes is seen at once.
const REREAD: Duration = Duration::from_secs(15);
const AGAIN: Duration = Duration::from_millis(200);
const LIMIT: Duration = Duration::from_secs(3);

/// A node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// gRPC endpoint, host:port.
    pub(super) address: String,
    /// HTTP endpoint; empty: not known.
    pub(super) http: String,
    /// Its daemon is registered.
    pub(super) online: bool,
}

impl Node {
    /// The host of its endpoint, without brackets.
    pub(super) fn host(&self) -> &str {
        let host = self.address.rsplit_once(':').map_or(self.address.as_str(), |(h, _)| h);
        host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)
    }

    /// host:port of a PostgreSQL there.
    pub(super) fn endpoint(&self, port: u16) -> String {
        let host = self.host();
        if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        }
    }
}

/// Nodes by name.
pub(super) type Nodes = Arc<BTreeMap<String, Node>>;

/// Keeps `tx` as ZooKeeper has the nodes in `wanted`. Has no end.
pub(super) async fn follow(
    mut coordinator: watch::Receiver<Option<Arc<dyn Coordinator>>>,
    mut wanted: watch::Receiver<BTreeSet<String>>,
    tx: watch::Sender<Nodes>,
) {
    loop {
        let session = coordinator.borrow_and_update().clone();
        let Some(c) = session else {
            if coordinator.changed().await.is_err() {
                return;
            }
            continue;
        };
        let names = wanted.borrow_and_update().clone();
        let watch = match look(&*c, &names, &tx).await {
            Ok(watch) => watch,
            Err(e) => {
                tracing::debug!("nodes could not be read: {e}");
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        };
        tokio::select! {
            () = watch.fired() => {}
            () = tokio::time::sleep(REREAD) => {}
            changed = wanted.changed() => if changed.is_err() { return },
            changed = coordinator.changed() => if changed.is_err() { return },
            () = records::lost(&*c) => tokio::time::sleep(AGAIN).await,
        }
    }
}

async fn look(
    c: &dyn Coordinator,
    names: &BTreeSet<String>,
    tx: &watch::Sender<Nodes>,
) -> Result<crate::coordination::Watch, CoordError> {
    let late = |_| CoordError::Unavailable("no answer in time".into());
    let (members, watch) = tokio::time::timeout(LIMIT, c.children_and_watch("/members"))
        .await
        .map_err(late)??;
    let mut all = BTreeMap::clone(&tx.borrow());
    all.retain(|name, _| names.contains(name));
    for name in names {
        let node = all.entry(name.clone()).or_default();
        node.online = members.contains(name);
        let path = format!("/nodes/{name}");
        if let Some(record) = value::<Envelope<NodeRecord>>(c, &path).await?.and_then(|e| e.value) {
            node.address = record.spec.address;
        }
        if node.online
            && let Some(registration) = value::<Registration>(c, &format!("/members/{name}")).await?
        {
            node.http = registration.http_address;
        }
    }
    tx.send_if_modified(|held| {
        let changed = **held != all;
        if changed {
            *held = Arc::new(all);
        }
        changed
    });
    Ok(watch)
}

async fn value<T: serde::de::DeserializeOwned>(c: &dyn Coordinator, path: &str) -> Result<Option<T>, CoordError> {
    match tokio::time::timeout(LIMIT, c.read(path)).await {
        Ok(Ok((bytes, _))) => Ok(decode(path, &bytes).ok()),
        Ok(Err(CoordError::NotFound(_))) => Ok(None),
        Ok(Err(e)) => Err(e),
        Err(_) => Err(CoordError::Unavailable(format!("{path}: no answer in time"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_of_postgresql_follow_from_the_nodes_own() {
        let node = |address: &str| Node {
            address: address.into(),
            ..Node::default()
        };
        assert_eq!(node("10.0.0.1:7400").endpoint(5432), "10.0.0.1:5432");
        assert_eq!(node("[::1]:7400").endpoint(5432), "[::1]:5432");
        assert_eq!(node("[fd00::1]:7400").host(), "fd00::1");
        assert_eq!(node("db1.example.org:7400").host(), "db1.example.org");
    }
}
