//! The life of a daemon's ZooKeeper sessions: connect, check the root, register, take part, and once more.
//!
//! Everything that a session carries (registration, candidacy, mastership) lives in one future that is dropped as a whole
//! when the session ends: nothing is spawned here, so nothing can outlive it.

use std::sync::Arc;
use std::time::Duration;

use ha_core::{
    AccessRecord, Assignment, ClusterRecord, Envelope, FORMAT, MasterRecord, NodeRecord, NodeSpec, RootRecord,
    UserRecord, decode, encode,
};
use ha_proto::codes;

use crate::coordination::{Connector, CoordError, Coordinator, CreateMode, Lease, SessionState, resolve};
use crate::error::ApiError;
use crate::registration::{self, Facts, Held};
use crate::shared::{Shared, SharedTx};
use crate::{election, watch};

/// With this a daemon may create the cluster's root: it comes with the first node's bundle.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    /// The operator for whom the cluster was made, and the record of the certificate.
    pub user: (String, UserRecord),
    /// The record of the first node's certificate.
    pub node: UserRecord,
    /// When the cluster was made, ms.
    pub created_ms: i64,
}

/// What the sessions need to know.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Present for the first node.
    pub bootstrap: Option<Bootstrap>,
    /// What is registered.
    pub facts: Facts,
    /// The ZooKeeper servers, host:port, for the master's view of them.
    pub zookeeper: Vec<String>,
}

/// Children of the root that every cluster has.
const FOLDERS: [&str; 9] = [
    "/nodes",
    "/members",
    "/leases",
    "/election",
    "/assignments",
    "/changes",
    "/ops",
    "/services",
    "/db",
];
/// Pause between attempts to open a session: doubled up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// How often the same reason for having no session is logged.
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// How long the end of a session may take when the daemon stops.
const GOODBYE: Duration = Duration::from_millis(600);

/// How a session ended.
#[derive(Debug)]
enum Ended {
    /// The session was lost: open another.
    Lost(String),
    /// The daemon stops.
    Stopped,
}

/// Runs sessions one after the other until the daemon is told to stop or leave.
///
/// # Errors
/// What makes the daemon useless as it is configured: a wrong secret, another cluster, another daemon of this name, a
/// session timeout that the servers do not grant.
pub async fn run(
    connector: Arc<dyn Connector>,
    shared: Shared,
    mut tx: SharedTx,
    options: Options,
) -> Result<(), ApiError> {
    let mut pause = MIN_PAUSE;
    let mut registered_once = false;
    let mut told: Option<(String, tokio::time::Instant)> = None;
    loop {
        let attempt = async {
            let c = connector.connect().await?;
            match prepare(&*c, &shared, &options, connector.session_timeout()).await {
                Ok(held) => Ok((c, held)),
                Err(e) => {
                    c.close().await;
                    Err(e)
                }
            }
        };
        let opened = tokio::select! {
            biased;
            opened = attempt => opened,
            () = shared.stop.cancelled() => return Ok(()),
            () = shared.leave.cancelled() => return Ok(()),
        };
        match opened {
            Ok((c, held)) => {
                pause = MIN_PAUSE;
                told = None;
                registered_once = true;
                tracing::info!(node = %shared.me.node, session = ?c.session_id(), "registered");
                let ended = Box::pin(live(&c, held, &shared, &mut tx, &options, connector.session_timeout())).await;
                tx.coordinator.send_replace(None);
                tx.lease.send_replace(Lease::default());
                tx.handle.send_replace(None);
                match ended {
                    Ended::Stopped => return Ok(()),
                    Ended::Lost(why) => {
                        tx.session.send_replace(SessionState::Lost(why.clone()));
                        tracing::warn!("the ZooKeeper session is over ({why}); opening another");
                    }
                }
            }
            Err(e) if is_fatal(&e, registered_once) => return Err(e),
            Err(e) => {
                let why = e.to_string();
                tx.session.send_replace(SessionState::Lost(why.clone()));
                // An outage of hours is told once a minute, not at each attempt.
                if told
                    .as_ref()
                    .is_none_or(|(t, at)| *t != why || at.elapsed() >= TELL_AGAIN)
                {
                    tracing::warn!("no session with ZooKeeper yet: {why}; trying until there is one");
                    told = Some((why, tokio::time::Instant::now()));
                }
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(pause) => {}
                    () = shared.stop.cancelled() => return Ok(()),
                    () = shared.leave.cancelled() => return Ok(()),
                }
                pause = (pause * 2).min(MAX_PAUSE);
            }
        }
    }
}

/// What cannot mend itself ends the daemon; after it has once been registered only a name taken by another does.
fn is_fatal(e: &ApiError, registered_once: bool) -> bool {
    let fatal_at_start = [
        codes::WRONG_SECRET.id,
        codes::OTHER_CLUSTER.id,
        codes::SESSION_TIMEOUT.id,
        codes::BAD_STORED.id,
    ];
    e.code.id == codes::NAME_IN_USE.id || (!registered_once && fatal_at_start.contains(&e.code.id))
}

async fn prepare(
    c: &dyn Coordinator,
    shared: &Shared,
    options: &Options,
    session_timeout: Duration,
) -> Result<Held, ApiError> {
    check_root(c, shared, options, session_timeout).await?;
    registration::register(c, &shared.me, &options.facts, session_timeout).await
}

/// Makes sure that this is the bundle's cluster; creates it where the bundle may.
async fn check_root(
    c: &dyn Coordinator,
    shared: &Shared,
    options: &Options,
    session_timeout: Duration,
) -> Result<(), ApiError> {
    let me = &shared.me;
    let timeout_ms = u64::try_from(session_timeout.as_millis()).unwrap_or(u64::MAX);
    let root = match c.read("").await {
        Ok((bytes, _)) => decode::<RootRecord>("the cluster's root", &bytes)?,
        Err(CoordError::NotFound(_)) => {
            let Some(bootstrap) = &options.bootstrap else {
                return Err(not_initialised(&me.cluster));
            };
            let root = RootRecord {
                v: FORMAT,
                cluster: me.cluster.clone(),
                cluster_id: me.cluster_id.clone(),
                created_ms: bootstrap.created_ms,
                session_timeout_ms: timeout_ms,
            };
            create_if_missing(c, "", &encode(&root)).await?;
            tracing::info!(cluster = %me.cluster, "created the cluster's root in ZooKeeper");
            root
        }
        Err(e) => return Err(e.into()),
    };
    if root.cluster_id != me.cluster_id {
        return Err(ApiError::new(
            &codes::OTHER_CLUSTER,
            format!("ZooKeeper holds another cluster named {}", root.cluster),
        )
        .why(format!(
            "its id is {}, the bundle's is {}",
            root.cluster_id, me.cluster_id
        ))
        .next(format!(
            "hactl node add {} --addr {}    in the context of the right cluster",
            me.node, me.address
        )));
    }
    if root.session_timeout_ms != timeout_ms {
        return Err(ApiError::new(
            &codes::SESSION_TIMEOUT,
            format!(
                "the cluster's session timeout is {} ms, this daemon's is {timeout_ms} ms",
                root.session_timeout_ms
            ),
        )
        .why("leases are reckoned from it and must be the same on every node"));
    }
    match &options.bootstrap {
        Some(bootstrap) => skeleton(c, shared, bootstrap).await,
        // Created last: its presence says that the rest is there.
        None => match c.read("/master").await {
            Ok(_) => Ok(()),
            Err(CoordError::NotFound(_)) => Err(not_initialised(&me.cluster)),
            Err(e) => Err(e.into()),
        },
    }
}

fn not_initialised(cluster: &str) -> ApiError {
    ApiError::new(
        &codes::NOT_INITIALISED,
        format!("ZooKeeper holds no cluster named {cluster}"),
    )
    .next("start the first node with the bundle that hactl cluster init wrote")
}

/// Creates what a new cluster consists of; each step may have been done by an earlier, interrupted start.
async fn skeleton(c: &dyn Coordinator, shared: &Shared, bootstrap: &Bootstrap) -> Result<(), ApiError> {
    if c.read("/master").await.is_ok() {
        return Ok(());
    }
    for folder in FOLDERS {
        create_if_missing(c, folder, b"").await?;
    }
    let me = &shared.me;
    let node = NodeRecord {
        spec: NodeSpec {
            address: me.address.clone(),
            labels: Default::default(),
            scenarios: Default::default(),
            capacity_override: Default::default(),
            master_eligible: true,
            master_preference: 0,
            cordoned: false,
            draining: false,
        },
        removed: false,
        added_ms: bootstrap.created_ms,
    };
    let access = AccessRecord {
        users: [bootstrap.user.clone()].into(),
        nodes: [(me.node.clone(), bootstrap.node.clone())].into(),
    };
    let filled = |value| Envelope {
        value: Some(value),
        ..Envelope::empty()
    };
    create_if_missing(c, &format!("/nodes/{}", me.node), &encode(&filled(node))).await?;
    create_if_missing(
        c,
        &format!("/assignments/{}", me.node),
        &encode(&Envelope::<Assignment>::empty()),
    )
    .await?;
    let access = Envelope {
        value: Some(access),
        ..Envelope::empty()
    };
    create_if_missing(c, "/access", &encode(&access)).await?;
    let cluster = Envelope {
        value: Some(ClusterRecord::default()),
        ..Envelope::empty()
    };
    create_if_missing(c, "/cluster", &encode(&cluster)).await?;
    create_if_missing(
        c,
        "/master",
        &encode(&MasterRecord {
            v: FORMAT,
            ..MasterRecord::default()
        }),
    )
    .await
}

/// Creates a persistent node unless it exists. Two daemons that bootstrap at once write the same.
async fn create_if_missing(c: &dyn Coordinator, path: &str, data: &[u8]) -> Result<(), ApiError> {
    match resolve::create(c, path, data, CreateMode::Persistent, |_, _| true).await {
        Ok(_) | Err(CoordError::Exists(_)) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

async fn live(
    c: &Arc<dyn Coordinator>,
    mut held: Held,
    shared: &Shared,
    tx: &mut SharedTx,
    options: &Options,
    session_timeout: Duration,
) -> Ended {
    tx.session.send_replace(c.state().borrow().clone());
    tx.lease.send_replace(*c.lease().borrow());
    tx.coordinator.send_replace(Some(Arc::clone(c)));
    let tx = &*tx;
    let participant = election::Participant::new(Arc::clone(c), shared, tx, options, session_timeout);
    let ended = tokio::select! {
        biased;
        why = follow_session(&**c, tx) => Ended::Lost(why),
        () = shared.stop.cancelled() => Ended::Stopped,
        () = shared.leave.cancelled() => Ended::Stopped,
        end = held.lost(&**c) => Ended::Lost(match end {
            Ok(()) => "the registration was taken away".to_owned(),
            Err(e) => e.to_string(),
        }),
        e = election::run(&participant) => Ended::Lost(e.to_string()),
        e = watch::follow_records(&**c, tx) => Ended::Lost(e.to_string()),
    };
    // The futures above are gone: whatever mastership there was has ended before anything below is written.
    match &ended {
        Ended::Lost(_) => c.abandon(),
        Ended::Stopped => {
            tx.handle.send_replace(None);
            let goodbye = async {
                if shared.leave.is_cancelled() {
                    c.close().await;
                } else {
                    if let Err(e) = held.announce_restart(&**c).await {
                        tracing::warn!("the restart could not be announced: {e}");
                    }
                    participant.step_down().await;
                    c.abandon();
                }
            };
            if tokio::time::timeout(GOODBYE, goodbye).await.is_err() {
                c.abandon();
            }
        }
    }
    ended
}

/// Passes the session's state and lease on; returns when the session is lost.
async fn follow_session(c: &dyn Coordinator, tx: &SharedTx) -> String {
    let (mut state, mut lease) = (c.state(), c.lease());
    loop {
        let now = state.borrow_and_update().clone();
        tx.session.send_replace(now.clone());
        tx.lease.send_replace(*lease.borrow_and_update());
        if let SessionState::Lost(why) = now {
            return why;
        }
        tokio::select! {
            biased;
            changed = state.changed() => if changed.is_err() {
                return "the session was dropped".to_owned();
            },
            changed = lease.changed() => if changed.is_err() {
                return "the session was dropped".to_owned();
            },
        }
    }
}
