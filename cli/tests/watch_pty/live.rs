//! A cluster whose nodes stream what it is told, and that remembers what was asked of it.

use std::{
    collections::BTreeMap,
    pin::Pin,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::Stream;
use ha_proto::v1::*;
use hactl::{ca::ClusterAuthority, context::Store};
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tonic::{
    Request, Response, Status,
    transport::{Certificate, Identity, Server, ServerTlsConfig},
};

/// Milliseconds since 1970.
pub(crate) fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// What all nodes share.
struct Told {
    term: u64,
    deltas: Vec<Delta>,
    nodes: BTreeMap<String, Node>,
    asked: Vec<(u64, u64)>,
    changes: Vec<String>,
    denies: bool,
}

/// The cluster.
pub(crate) struct Cluster {
    authority: ClusterAuthority,
    dir: tempfile::TempDir,
    addresses: BTreeMap<String, String>,
    told: Arc<Mutex<Told>>,
    news: watch::Sender<()>,
}

impl Cluster {
    /// A cluster of n1 and n2, neither of them started, and a user of it.
    pub(crate) fn new() -> Self {
        let authority =
            ClusterAuthority::create("prod", &["127.0.0.1:2181".to_owned()], Duration::from_secs(4)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        // An address of this cluster's own: nobody takes its ports while a node is down.
        static CLUSTERS: AtomicU8 = AtomicU8::new(1);
        let third = CLUSTERS.fetch_add(1, Ordering::Relaxed);
        let second = std::process::id() % 200 + 20;
        let address = |n: u8| {
            let free = std::net::TcpListener::bind(format!("127.{second}.{third}.{n}:0")).unwrap();
            free.local_addr().unwrap().to_string()
        };
        let addresses = BTreeMap::from([("n1".to_owned(), address(1)), ("n2".to_owned(), address(2))]);
        let store = Store::at(dir.path().join("config"));
        let user = authority.issue_user("alice", AccessRole::Admin).unwrap();
        store
            .add(
                "prod",
                &authority.user_bundle(&user, addresses.values().cloned().collect()),
                false,
            )
            .unwrap();
        store.set_current("prod").unwrap();
        let told = Told {
            term: 412,
            deltas: Vec::new(),
            nodes: BTreeMap::new(),
            asked: Vec::new(),
            changes: Vec::new(),
            denies: false,
        };
        let this = Self {
            authority,
            dir,
            addresses,
            told: Arc::new(Mutex::new(told)),
            news: watch::Sender::new(()),
        };
        for name in ["n1", "n2"] {
            let node = this.node(name, NodeState::Online);
            this.told(|t| t.nodes.insert(name.to_owned(), node));
        }
        this
    }

    fn told<T>(&self, change: impl FnOnce(&mut Told) -> T) -> T {
        change(&mut self.told.lock().unwrap())
    }

    /// A node as the master tells of it now.
    pub(crate) fn node(&self, name: &str, state: NodeState) -> Node {
        let capacity = Resources {
            cpu_milli: 8000,
            memory_bytes: 16 << 30,
            disk_bytes: 200 << 30,
        };
        let usage = Usage {
            capacity: Some(capacity),
            cpu_used_milli: 960,
            memory_used_bytes: 3 << 30,
            ..Usage::default()
        };
        Node {
            name: name.to_owned(),
            spec: Some(NodeSpec {
                address: self.addresses[name].clone(),
                labels: [("zone".to_owned(), "a\x1b]0;evil\x07".to_owned())].into(),
                master_eligible: true,
                ..NodeSpec::default()
            }),
            status: Some(NodeStatus {
                state: state.into(),
                role: Role::Member.into(),
                last_seen_unix_ms: now(),
                usage: Some(usage),
                ..NodeStatus::default()
            }),
            revision: 1,
        }
    }

    /// The next frame, to everybody who watches now or resumes later.
    pub(crate) fn tell(&self, delta: Delta) {
        self.told(|t| {
            for node in &delta.nodes {
                t.nodes.insert(node.name.clone(), node.clone());
            }
            t.deltas.push(delta);
        });
        self.news.send_replace(());
    }

    /// Another master: the frames of the one before are gone.
    pub(crate) fn new_term(&self) {
        self.told(|t| {
            t.term += 1;
            t.deltas.clear();
        });
    }

    /// From now on nobody may watch.
    pub(crate) fn deny(&self) {
        self.told(|t| t.denies = true);
    }

    /// From where streams were asked for.
    pub(crate) fn asked(&self) -> Vec<(u64, u64)> {
        self.told(|t| t.asked.clone())
    }

    /// What was changed.
    pub(crate) fn changes(&self) -> Vec<String> {
        self.told(|t| t.changes.clone())
    }

    /// Starts a node at its address.
    pub(crate) fn start(&self, name: &str) -> Running {
        let issued = self.authority.issue_node(name).unwrap();
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(&issued.certificate, &issued.key))
            .client_ca_root(Certificate::from_pem(&self.authority.ca));
        let listener = std::net::TcpListener::bind(&self.addresses[name]).unwrap();
        listener.set_nonblocking(true).unwrap();
        let service = Service {
            told: Arc::clone(&self.told),
            news: self.news.clone(),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            Server::builder()
                .tls_config(tls)
                .unwrap()
                .add_service(watch_service_server::WatchServiceServer::new(service.clone()))
                .add_service(node_service_server::NodeServiceServer::new(service))
                .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        Running(Some(runtime))
    }

    /// The program, as alice, with nothing of this process's environment.
    pub(crate) fn hactl(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hactl"));
        command
            .args(args)
            .stdin(Stdio::null())
            .env_clear()
            .envs(self.environment());
        command
    }

    /// The environment of the program.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let config = self.dir.path().join("config").display().to_string();
        [
            ("HACTL_CONFIG_DIR", config.as_str()),
            ("TZ", "UTC"),
            ("TERM", "xterm-256color"),
        ]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .to_vec()
    }
}

/// A running node; gone when dropped, with its connections.
pub(crate) struct Running(Option<tokio::runtime::Runtime>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

#[derive(Clone)]
struct Service {
    told: Arc<Mutex<Told>>,
    news: watch::Sender<()>,
}

impl Service {
    fn frame(seq: u64, term: u64, body: watch_frame::Body) -> WatchFrame {
        WatchFrame {
            seq,
            term,
            server_unix_ms: now(),
            body: Some(body),
        }
    }

    /// The first frames of a stream, and the number of the last.
    fn begin(&self, from: &WatchRequest) -> (Vec<WatchFrame>, u64) {
        let mut told = self.told.lock().unwrap();
        told.asked.push((from.term, from.seq));
        let last = told.deltas.len() as u64 + 1;
        if from.term == told.term && from.seq > 0 {
            return (Vec::new(), from.seq);
        }
        let server = ZooKeeperServer {
            address: "127.0.0.1:2181".to_owned(),
            reachable: true,
            ..Default::default()
        };
        let state = ClusterState {
            cluster: "prod".to_owned(),
            cluster_id: "id".to_owned(),
            master: Some(Master {
                node: "n1".to_owned(),
                term: told.term,
                ..Master::default()
            }),
            zookeeper: vec![server],
            revision: 4182,
            nodes: told.nodes.values().cloned().collect(),
            observed_unix_ms: now(),
            session_timeout_ms: 4000,
            ..ClusterState::default()
        };
        (
            vec![Self::frame(last, told.term, watch_frame::Body::Snapshot(state))],
            last,
        )
    }

    /// The frame after `seq`, if there is one.
    fn next(&self, seq: u64) -> Option<WatchFrame> {
        let told = self.told.lock().unwrap();
        let delta = told.deltas.get(usize::try_from(seq - 1).unwrap())?.clone();
        Some(Self::frame(seq + 1, told.term, watch_frame::Body::Delta(delta)))
    }

    fn denied() -> Status {
        let detail = ErrorDetail {
            code: ha_proto::codes::REVOKED.id.to_owned(),
            message: "the certificate of user/alice was revoked".to_owned(),
            ..ErrorDetail::default()
        };
        let mut metadata = tonic::metadata::MetadataMap::new();
        metadata.insert_bin(
            ha_proto::ERROR_DETAIL,
            tonic::metadata::MetadataValue::from_bytes(&detail.encode_to_vec()),
        );
        Status::with_metadata(tonic::Code::PermissionDenied, detail.message, metadata)
    }
}

#[tonic::async_trait]
impl watch_service_server::WatchService for Service {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchFrame, Status>> + Send>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        if self.told.lock().unwrap().denies {
            return Err(Self::denied());
        }
        let (to, frames) = mpsc::channel(64);
        let mut news = self.news.subscribe();
        let (first, mut seq) = self.begin(request.get_ref());
        let this = self.clone();
        tokio::spawn(async move {
            let mut beats = tokio::time::interval(Duration::from_secs(1));
            for frame in first {
                let _ = to.send(Ok(frame)).await;
            }
            loop {
                while let Some(frame) = this.next(seq) {
                    seq = frame.seq;
                    let _ = to.send(Ok(frame)).await;
                }
                tokio::select! {
                    _ = news.changed() => {}
                    _ = beats.tick() => {
                        let term = this.told.lock().unwrap().term;
                        let _ = to.send(Ok(Self::frame(seq, term, watch_frame::Body::Beat(Beat {})))).await;
                    }
                    () = to.closed() => return,
                }
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(
            frames,
        ))))
    }
}

#[tonic::async_trait]
impl node_service_server::NodeService for Service {
    async fn update_node(&self, request: Request<UpdateNodeRequest>) -> Result<Response<ChangeResult>, Status> {
        let UpdateNodeRequest { name, cordoned, .. } = request.into_inner();
        self.told
            .lock()
            .unwrap()
            .changes
            .push(format!("cordon {name} {}", cordoned.unwrap_or_default()));
        Ok(Response::new(ChangeResult {
            changed: true,
            revision: 4183,
            ..ChangeResult::default()
        }))
    }
    async fn add_node(&self, _: Request<AddNodeRequest>) -> Result<Response<ChangeResult>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn remove_node(&self, _: Request<RemoveNodeRequest>) -> Result<Response<ChangeResult>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn list_nodes(&self, _: Request<ListNodesRequest>) -> Result<Response<ListNodesResponse>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn get_node(&self, _: Request<GetNodeRequest>) -> Result<Response<Node>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn drain_node(&self, _: Request<DrainNodeRequest>) -> Result<Response<ChangeResult>, Status> {
        Err(Status::unimplemented(""))
    }
}
