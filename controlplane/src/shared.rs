//! What the parts of one daemon know of the cluster, live: written by the session's tasks, read by the API and the agent.

use std::sync::Arc;

use ha_core::{AccessRecord, MasterRecord};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::agent::database::GrantAsk;
use crate::coordination::{Coordinator, Lease, SessionState};
use crate::master::handle::Handle;
use crate::platform::Clock;
use crate::proxy::local::{Instances, InstancesRx};
use crate::proxy::routes::{Routes, RoutesRx};

/// Who this daemon is. Fixed for its life.
#[derive(Debug, Clone)]
pub struct Me {
    /// The node's name.
    pub node: String,
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's id.
    pub cluster_id: String,
    /// gRPC endpoint as others reach it, host:port.
    pub address: String,
    /// HTTP endpoint as others reach it, host:port.
    pub http_address: String,
    /// The operating system's boot id.
    pub boot_id: String,
    /// Kept in the state directory: tells this daemon restarted from another of the same name.
    pub token: String,
    /// New for each start.
    pub run: String,
    /// Wall-clock start, ms.
    pub started_ms: i64,
}

/// Receiving ends, cheap to clone.
#[derive(Clone)]
pub struct Shared {
    /// Who this daemon is.
    pub me: Arc<Me>,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// Present while this node acts as master.
    pub handle: watch::Receiver<Option<Handle>>,
    /// The `master` znode as this node last read it.
    pub master: watch::Receiver<MasterRecord>,
    /// Users and revocations as this node last read them.
    pub access: watch::Receiver<Arc<AccessRecord>>,
    /// The ZooKeeper session.
    pub session: watch::Receiver<SessionState>,
    /// The session's lease.
    pub lease: watch::Receiver<Lease>,
    /// The open session, present once the node is registered on it.
    pub coordinator: watch::Receiver<Option<Arc<dyn Coordinator>>>,
    /// Where the clients of each database group belong.
    pub routes: RoutesRx,
    /// What this node's database instances do.
    pub instances: InstancesRx,
    /// Refused calls on their way to the master.
    pub denied: mpsc::Sender<ha_proto::v1::Denied>,
    /// Questions of primaries on other nodes, on their way to this node's instances.
    pub grants: mpsc::Sender<GrantAsk>,
    /// The election znode of the master whose daemon is known to have ended, as this node's agent found.
    pub ended_master: Arc<watch::Sender<Option<String>>>,
    /// Cancelled when the daemon is to end: a restart unless `leave` was asked for.
    pub stop: CancellationToken,
    /// Cancelled when the node leaves the cluster for good.
    pub leave: CancellationToken,
}

/// Sending ends, held by the session's tasks.
pub struct SharedTx {
    /// See [`Shared::handle`].
    pub handle: watch::Sender<Option<Handle>>,
    /// See [`Shared::master`].
    pub master: watch::Sender<MasterRecord>,
    /// See [`Shared::access`].
    pub access: watch::Sender<Arc<AccessRecord>>,
    /// See [`Shared::session`].
    pub session: watch::Sender<SessionState>,
    /// See [`Shared::lease`].
    pub lease: watch::Sender<Lease>,
    /// See [`Shared::coordinator`].
    pub coordinator: watch::Sender<Option<Arc<dyn Coordinator>>>,
    /// See [`Shared::routes`].
    pub routes: watch::Sender<Arc<Routes>>,
    /// See [`Shared::instances`].
    pub instances: watch::Sender<Arc<Instances>>,
    /// See [`Shared::denied`]; read by the agent.
    pub denied: mpsc::Receiver<ha_proto::v1::Denied>,
    /// See [`Shared::grants`]; read by the instances.
    pub grants: mpsc::Receiver<GrantAsk>,
}

impl Shared {
    /// Makes the two ends.
    pub fn new(me: Me, clock: Arc<dyn Clock>) -> (Self, SharedTx) {
        let (handle_tx, handle) = watch::channel(None);
        let (master_tx, master) = watch::channel(MasterRecord::default());
        let (access_tx, access) = watch::channel(Arc::new(AccessRecord::default()));
        let (session_tx, session) = watch::channel(SessionState::Suspended);
        let (lease_tx, lease) = watch::channel(Lease::default());
        let (coordinator_tx, coordinator) = watch::channel(None);
        let (routes_tx, routes) = watch::channel(Arc::default());
        let (instances_tx, instances) = watch::channel(Arc::default());
        let (denied, denied_rx) = mpsc::channel(64);
        let (grants, grants_rx) = mpsc::channel(64);
        let shared = Self {
            me: Arc::new(me),
            clock,
            handle,
            master,
            access,
            session,
            lease,
            coordinator,
            routes,
            instances,
            denied,
            grants,
            ended_master: Arc::new(watch::Sender::new(None)),
            stop: CancellationToken::new(),
            leave: CancellationToken::new(),
        };
        let tx = SharedTx {
            handle: handle_tx,
            master: master_tx,
            access: access_tx,
            session: session_tx,
            lease: lease_tx,
            coordinator: coordinator_tx,
            routes: routes_tx,
            instances: instances_tx,
            denied: denied_rx,
            grants: grants_rx,
        };
        (shared, tx)
    }
}
