//! Daemons whose sessions, elections and masters are the real ones, and instances that do at once what the record says.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ha_core::database::GroupState;
use ha_core::{AccessRole, Envelope, UserRecord, decode};
use ha_proto::v1;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::instance::{Pg, behave};
use crate::agent::database::wire;
use crate::coordination::{MemoryConnector, MemoryServer};
use crate::error::ApiError;
use crate::master::databases::GroupChange;
use crate::master::handle::{Caller, Command, Handle, HubQuery, Request};
use crate::platform::Clock;
use crate::security::Identity;
use crate::session::{self, Bootstrap, Options};
use crate::shared::{Me, Shared};

const T: Duration = Duration::from_secs(4);
/// A test that waits longer than this, by the paused clock, fails.
const PATIENCE: Duration = Duration::from_secs(90);

/// Tokio's clock, which is paused, as both clocks.
struct TokioClock(Instant);

impl Clock for TokioClock {
    fn boottime(&self) -> Duration {
        self.0.elapsed() + Duration::from_secs(1000)
    }
    fn wall_ms(&self) -> i64 {
        1_700_000_000_000 + i64::try_from(self.0.elapsed().as_millis()).unwrap()
    }
}

pub(super) struct Daemon {
    pub(super) shared: Shared,
    task: JoinHandle<()>,
}

pub(super) struct Rig {
    pub(super) zookeeper: MemoryServer,
    pub(super) daemons: BTreeMap<String, Daemon>,
    pub(super) world: Arc<Mutex<BTreeMap<String, Pg>>>,
    clock: Arc<TokioClock>,
    streams: Arc<AtomicU64>,
    handles: Handles,
}

/// Where each daemon that lives shows that it leads.
type Handles = Arc<Mutex<BTreeMap<String, tokio::sync::watch::Receiver<Option<Handle>>>>>;

fn leader(handles: &Handles) -> Option<Handle> {
    handles.lock().unwrap().values().find_map(|h| h.borrow().clone())
}

fn user(role: Option<AccessRole>) -> UserRecord {
    UserRecord {
        role,
        serials: Vec::new(),
        expires_ms: i64::MAX,
        created_ms: 1,
        revoked_ms: None,
    }
}

pub(super) fn caller() -> Caller {
    Caller {
        identity: Identity::User {
            name: "olga".to_owned(),
            role: AccessRole::Admin,
        },
        request_id: uuid::Uuid::new_v4().simple().to_string(),
    }
}

impl Rig {
    /// A cluster of these nodes; the first one made it.
    pub(super) async fn new(nodes: &[&str]) -> Self {
        let mut rig = Self {
            zookeeper: MemoryServer::default(),
            daemons: BTreeMap::new(),
            world: Arc::default(),
            clock: Arc::new(TokioClock(Instant::now())),
            streams: Arc::default(),
            handles: Arc::default(),
        };
        rig.start(nodes[0], true);
        let first = rig.master().await;
        for node in &nodes[1..] {
            let request = v1::AddNodeRequest {
                name: (*node).to_owned(),
                spec: Some(v1::NodeSpec {
                    address: format!("{node}:7400"),
                    master_eligible: true,
                    ..v1::NodeSpec::default()
                }),
                ..v1::AddNodeRequest::default()
            };
            first.change(caller(), Request::AddNode(request)).await.unwrap();
            rig.start(node, false);
        }
        let all = nodes.len();
        rig.until("every node is online", |s| {
            let online = |n: &&v1::Node| n.status.as_ref().unwrap().state() == v1::NodeState::Online;
            s.nodes.iter().filter(online).count() == all
        })
        .await;
        rig
    }

    /// Starts a daemon, its agent and its instance.
    pub(super) fn start(&mut self, node: &str, first: bool) {
        let me = Me {
            node: node.to_owned(),
            cluster: "prod".to_owned(),
            cluster_id: "id".to_owned(),
            address: format!("{node}:7400"),
            http_address: format!("{node}:7401"),
            boot_id: format!("boot-{node}"),
            token: format!("token-{node}"),
            run: uuid::Uuid::new_v4().simple().to_string(),
            started_ms: 1,
        };
        let (shared, tx) = Shared::new(me, self.clock.clone());
        let connector = Arc::new(MemoryConnector::new(&self.zookeeper, node, self.clock.clone(), T));
        let options = Options {
            bootstrap: first.then(|| Bootstrap {
                user: ("olga".to_owned(), user(Some(AccessRole::Admin))),
                node: user(None),
                created_ms: 1,
            }),
            ..Options::default()
        };
        let life = session::run(connector, shared.clone(), tx, options);
        let task = tokio::spawn(async move {
            let _ = life.await;
        });
        let mut world = self.world.lock().unwrap();
        let pg = world.entry(node.to_owned()).or_default();
        node.clone_into(&mut pg.report.node);
        pg.gone = false;
        drop(world);
        let handle = shared.handle.clone();
        self.handles.lock().unwrap().insert(node.to_owned(), handle);
        self.daemons.insert(node.to_owned(), Daemon { shared, task });
        tokio::spawn(self.agent(node));
    }

    /// The node's daemon ends as by kill -9, and with it whatever it led.
    pub(super) fn kill_daemon(&mut self, node: &str) {
        let daemon = self.daemons.remove(node).unwrap();
        daemon.task.abort();
        self.handles.lock().unwrap().remove(node);
        self.zookeeper.partition(node);
    }

    /// The whole node is lost.
    pub(super) fn kill_node(&mut self, node: &str) {
        self.kill_daemon(node);
        let mut world = self.world.lock().unwrap();
        let pg = world.get_mut(node).unwrap();
        pg.gone = true;
        pg.stop();
    }

    /// The node is back, after its session has expired.
    pub(super) fn revive(&mut self, node: &str) {
        self.zookeeper.reconnect(node);
        self.start(node, false);
    }

    pub(super) fn pg<T>(&self, node: &str, f: impl FnOnce(&mut Pg) -> T) -> T {
        f(self.world.lock().unwrap().get_mut(node).unwrap())
    }

    /// The postmaster is killed.
    pub(super) fn kill_postgres(&self, node: &str) {
        self.pg(node, |pg| {
            pg.stop();
            pg.killed = true;
        });
    }

    pub(super) async fn master(&self) -> Handle {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(handle) = leader(&self.handles) {
                return handle;
            }
            assert!(Instant::now() < deadline, "nobody leads");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The agent: reports what the instance does, every 200 ms and at each change, and has it follow the record.
    fn agent(&self, node: &str) -> impl Future<Output = ()> + Send + 'static {
        let (world, node, handles) = (self.world.clone(), node.to_owned(), self.handles.clone());
        let (zookeeper, streams, clock) = (self.zookeeper.clone(), self.streams.clone(), self.clock.clone());
        async move {
            let mut line: Option<(u64, Handle, tokio::sync::mpsc::Receiver<v1::MasterMessage>)> = None;
            let mut last = None;
            let mut sent = Instant::now();
            loop {
                let message = match &mut line {
                    Some((.., messages)) => {
                        let wait = tokio::time::timeout(Duration::from_millis(10), messages.recv()).await;
                        match wait {
                            Ok(None) => {
                                line = None;
                                continue;
                            }
                            Ok(Some(message)) => message.body,
                            Err(_) => None,
                        }
                    }
                    None => {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        None
                    }
                };
                let record = record(&zookeeper, "main");
                let report = {
                    let mut all = world.lock().unwrap();
                    if all[&node].gone {
                        return;
                    }
                    behave(&mut all, &node, message, record.as_ref());
                    all[&node].report.clone()
                };
                if line.is_none() {
                    last = None;
                    let Some(handle) = leader(&handles) else {
                        continue;
                    };
                    let stream = streams.fetch_add(1, Ordering::Relaxed) + 1;
                    let attached = Command::Attached {
                        node: node.clone(),
                        stream,
                    };
                    if handle.tell(attached).await.is_err() {
                        continue;
                    }
                    let asked = handle.ask(|reply| HubQuery::Agent {
                        node: node.clone(),
                        cursor: 0,
                        reply,
                    });
                    let Ok(Ok(messages)) = asked.await else { continue };
                    line = Some((stream, handle, messages));
                }
                let due = sent.elapsed() >= Duration::from_millis(200);
                if last.as_ref() == Some(&report) && !due {
                    continue;
                }
                let Some((stream, handle, _)) = &line else { continue };
                let agent = v1::AgentReport {
                    node: node.clone(),
                    time_unix_ms: clock.wall_ms(),
                    first: last.is_none(),
                    instances: record.iter().map(|_| wire::report("main", &report)).collect(),
                    postgres: vec![15],
                    ..v1::AgentReport::default()
                };
                let command = Command::Report {
                    stream: *stream,
                    report: Box::new(agent),
                };
                let _ = handle.tell(command).await;
                last = record.is_some().then_some(report);
                sent = Instant::now();
            }
        }
    }

    pub(super) async fn change(&self, change: GroupChange) -> Result<v1::ChangeResult, ApiError> {
        self.master().await.change(caller(), Request::Group(change)).await
    }

    /// Creates `main` on these nodes and waits until all stream.
    pub(super) async fn create(&self, nodes: &[&str]) {
        let result = self.change(GroupChange::Create(create(nodes))).await.unwrap();
        self.succeeded(&result.operation_id).await;
    }

    pub(super) async fn operation(&self, id: &str) -> v1::Operation {
        let all = self.master().await.ask(HubQuery::Operations).await.unwrap();
        all.into_iter().find(|o| o.id == id).unwrap()
    }

    /// Waits for an operation's success.
    pub(super) async fn succeeded(&self, id: &str) -> v1::Operation {
        let op = self.ended(id).await;
        assert_eq!(op.state(), v1::OperationState::Succeeded, "{op:#?}");
        op
    }

    pub(super) async fn ended(&self, id: &str) -> v1::Operation {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let op = self.operation(id).await;
            if op.state().is_final() {
                return op;
            }
            let state = record(&self.zookeeper, "main");
            assert!(Instant::now() < deadline, "{op:#?} {state:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(super) async fn state(&self) -> v1::ClusterState {
        loop {
            if let Ok(state) = self.master().await.ask(HubQuery::State).await {
                return state;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(super) async fn group(&self) -> v1::Group {
        self.state()
            .await
            .databases
            .into_iter()
            .find(|g| g.name == "main")
            .unwrap()
    }

    pub(super) async fn until(&self, what: &str, condition: impl Fn(&v1::ClusterState) -> bool) -> v1::ClusterState {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let state = self.state().await;
            if condition(&state) {
                return state;
            }
            assert!(Instant::now() < deadline, "{what}: {state:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until `node` is an open primary and the group is whole.
    pub(super) async fn steady(&self, node: &str) -> v1::Group {
        let fits = |g: &v1::Group| {
            let r = g.record.as_ref().unwrap();
            r.primary == node && g.health() == v1::GroupHealth::Healthy && r.rules.len() == 1
        };
        let state = self
            .until(&format!("{node} leads a whole group"), |s| s.databases.iter().any(fits))
            .await;
        state.databases.into_iter().next().unwrap()
    }

    /// The change log's kinds and texts about the group.
    pub(super) async fn story(&self) -> Vec<(String, String)> {
        let changes = self.state().await.recent_changes;
        let of = changes.into_iter().filter(|c| c.subject == "db/main");
        of.map(|c| (c.kind, c.text)).collect()
    }
}

pub(super) fn create(nodes: &[&str]) -> v1::CreateGroupRequest {
    v1::CreateGroupRequest {
        name: "main".to_owned(),
        spec: Some(v1::GroupSpec {
            members: nodes
                .iter()
                .map(|n| v1::InstanceSpec {
                    node: (*n).to_owned(),
                    role: v1::InstanceRole::Sync.into(),
                    ..v1::InstanceSpec::default()
                })
                .collect(),
            ..v1::GroupSpec::default()
        }),
        options: None,
    }
}

/// A group's record as it stands.
pub(super) fn record(zookeeper: &MemoryServer, group: &str) -> Option<(GroupState, u64)> {
    let path = format!("/db/{group}/state");
    let (bytes, stat) = zookeeper.dump().remove(&path)?;
    let envelope = decode::<Envelope<GroupState>>(&path, &bytes).ok()?;
    Some((envelope.value.unwrap_or_default(), u64::try_from(stat.version).unwrap()))
}
