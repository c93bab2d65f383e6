//! The coordinator's calls on a session.
//!
//! Every node is created with an access list that names this cluster's identity alone. It must never use a request that
//! the crate would remember a watch for: the watches are in the session's own table.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::timeout;
use zookeeper_async::Acl;

use super::super::keeper::{Beat, Keeper};
use super::super::path::{check_path, check_value, check_version};
use super::super::session::WatchKind;
use super::super::{CoordError, Coordinator, CreateMode, Lease, Result, SessionState, Stat, Watch};
use super::client::{Session, limit, stat};

pub(super) struct ZooKeeperCoordinator(pub(super) Arc<Session>);

impl Drop for ZooKeeperCoordinator {
    fn drop(&mut self) {
        self.abandon();
    }
}

impl ZooKeeperCoordinator {
    async fn create_at(
        &self,
        full: &str,
        shown: &str,
        data: &[u8],
        acl: Vec<Acl>,
        mode: CreateMode,
    ) -> Result<(String, Stat)> {
        let mode = match mode {
            CreateMode::Persistent => zookeeper_async::CreateMode::Persistent,
            CreateMode::Ephemeral => zookeeper_async::CreateMode::Ephemeral,
            CreateMode::EphemeralSequential => zookeeper_async::CreateMode::EphemeralSequential,
        };
        let request = self.0.zk.create2(full, data.to_vec(), acl, mode);
        let (created, found) = self.0.call(shown, true, request).await?;
        let inside = created.strip_prefix(&self.0.root).unwrap_or(&created);
        Ok((inside.to_owned(), stat(&found)))
    }

    /// Creates what lies above the root. It belongs to no cluster, so everyone may add to it.
    async fn create_above_root(&self) -> Result<()> {
        let root = &self.0.root;
        for (cut, _) in root.match_indices('/').filter(|(cut, _)| *cut > 0) {
            let open = Acl::open_unsafe().clone();
            match self
                .create_at(&root[..cut], &root[..cut], b"", open, CreateMode::Persistent)
                .await
            {
                Ok(_) | Err(CoordError::Exists(_)) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Coordinator for ZooKeeperCoordinator {
    fn state(&self) -> watch::Receiver<SessionState> {
        self.0.cell.state()
    }

    fn lease(&self) -> watch::Receiver<Lease> {
        self.0.cell.lease()
    }

    fn session_id(&self) -> Option<i64> {
        Some(self.0.id)
    }

    async fn create(&self, path: &str, data: &[u8], mode: CreateMode) -> Result<(String, Stat)> {
        check_path(path)?;
        check_value(path, data)?;
        if path.is_empty() {
            self.create_above_root().await?;
        }
        // `auth`: whoever this connection is, which the server fills in.
        self.create_at(&self.0.full(path), path, data, Acl::creator_all().clone(), mode)
            .await
    }

    async fn read(&self, path: &str) -> Result<(Vec<u8>, Stat)> {
        check_path(path)?;
        let full = self.0.full(path);
        let (data, found) = self.0.call(path, false, self.0.zk.get_data(&full, false)).await?;
        Ok((data, stat(&found)))
    }

    async fn read_and_watch(&self, path: &str) -> Result<(Option<(Vec<u8>, Stat)>, Watch)> {
        check_path(path)?;
        let full = self.0.full(path);
        // The watch is set first, whether the node exists or not, so whatever changes after the read fires it.
        let watch = self.0.cell.watch(WatchKind::Node, path);
        let Some(_) = self.0.call(path, false, self.0.zk.exists(&full, true)).await? else {
            return Ok((None, watch));
        };
        match self.read(path).await {
            Ok(node) => Ok((Some(node), watch)),
            Err(CoordError::NotFound(_)) => Ok((None, watch)),
            Err(e) => Err(e),
        }
    }

    async fn compare_and_set(&self, path: &str, data: &[u8], version: i32) -> Result<Stat> {
        check_path(path)?;
        check_value(path, data)?;
        check_version(path, version)?;
        let full = self.0.full(path);
        let written = self
            .0
            .call(path, true, self.0.zk.set_data(&full, data.to_vec(), Some(version)))
            .await?;
        Ok(stat(&written))
    }

    async fn delete(&self, path: &str, version: i32) -> Result<()> {
        check_path(path)?;
        check_version(path, version)?;
        let full = self.0.full(path);
        self.0.call(path, true, self.0.zk.delete(&full, Some(version))).await
    }

    async fn children(&self, path: &str) -> Result<Vec<String>> {
        check_path(path)?;
        let full = self.0.full(path);
        let mut names = self.0.call(path, false, self.0.zk.get_children(&full, false)).await?;
        names.sort_unstable();
        Ok(names)
    }

    async fn children_and_watch(&self, path: &str) -> Result<(Vec<String>, Watch)> {
        check_path(path)?;
        let full = self.0.full(path);
        let watch = self.0.cell.watch(WatchKind::Children, path);
        let mut names = self.0.call(path, false, self.0.zk.get_children(&full, true)).await?;
        names.sort_unstable();
        Ok((names, watch))
    }

    async fn hold_lease(&self, path: &str) -> Result<()> {
        check_path(path)?;
        let session = &*self.0;
        let mut held = session.keeper.lock().await;
        session.cell.gate()?;
        if let Some(keeper) = &*held {
            let same = keeper.path() == path;
            return if same {
                Ok(())
            } else {
                Err(CoordError::Invalid(format!("{path}: a lease is held already")))
            };
        }
        let mut keeper = Keeper::new(
            session.cell.clone(),
            session.clock.clone(),
            session.id,
            session.timeout,
            path,
        );
        match keeper.beat(session).await {
            Beat::Acknowledged => {
                *held = Some(keeper);
                session.held.notify_one();
                Ok(())
            }
            Beat::Missed(e) => Err(e),
            Beat::Over(why) => {
                session.lose(&why);
                Err(CoordError::SessionLost(why))
            }
        }
    }

    async fn confirm(&self) -> Result<()> {
        let session = Arc::clone(&self.0);
        // Seen to its end even if the caller gives up: the next heartbeat is written upon this one's version.
        let beat = tokio::spawn(async move {
            let mut held = session.keeper.lock().await;
            session.cell.gate()?;
            let Some(keeper) = &mut *held else {
                return Err(CoordError::Invalid("a confirmation without a lease".to_owned()));
            };
            match keeper.beat(&*session).await {
                Beat::Acknowledged => Ok(()),
                Beat::Missed(e) => Err(e),
                Beat::Over(why) => {
                    session.lose(&why);
                    Err(CoordError::SessionLost(why))
                }
            }
        });
        beat.await
            .unwrap_or_else(|e| Err(CoordError::Unavailable(format!("a heartbeat was not sent: {e}"))))
    }

    async fn close(&self) {
        let session = &*self.0;
        let live = session.cell.gate().is_ok();
        if live {
            session.relay.begin_closing();
        }
        // The lease ends here before the server is told, whatever comes of that.
        session.cell.lose("closed");
        if live && timeout(limit(session.timeout), session.zk.close()).await.is_ok() {
            session.relay.closed().await;
        }
        session.stop.cancel();
    }

    fn abandon(&self) {
        self.0.cell.lose("abandoned");
        self.0.stop.cancel();
    }
}
