//! Servers with real certificates on loopback, a master that is not one, and clients as hactl makes them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ha_core::{AccessRecord, Holder, MasterRecord};
use ha_proto::{ERROR_DETAIL, v1};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity as Pair};

use super::super::{Metrics, http, serve};
use crate::coordination::SessionState;
use crate::master::handle::{Command, Handle, HubQuery, Request};
use crate::platform::SystemClock;
use crate::security::testing::{Leaf, TestCa, TestCert};
use crate::security::{NodeBundle, Security};
use crate::shared::{Me, Shared, SharedTx};

/// A whole test ends within this time or fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for a condition.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "{what}");
}

/// One daemon's API.
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) shared: Shared,
    pub(crate) tx: SharedTx,
    pub(crate) security: Arc<Security>,
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<()>,
    pub(crate) dir: tempfile::TempDir,
}

impl Server {
    pub(crate) async fn start(ca: &TestCa, name: &str) -> Self {
        Self::start_with(ca, name, &Leaf::node(name)).await
    }

    pub(crate) async fn start_with(ca: &TestCa, name: &str, leaf: &Leaf) -> Self {
        let cert = ca.issue(leaf);
        let dir = tempfile::tempdir().unwrap();
        let path = ca.write_bundle(dir.path(), name, &cert);
        let bundle = NodeBundle::read(&path).unwrap();
        let clock = Arc::new(SystemClock);
        let security = Security::new(&bundle, &path, dir.path(), clock.clone()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, http) = (listener.local_addr().unwrap(), http_listener.local_addr().unwrap());
        let me = Me {
            node: name.into(),
            cluster: ca.cluster.clone(),
            cluster_id: ca.cluster_id.clone(),
            address: address.to_string(),
            http_address: http.to_string(),
            boot_id: "boot".into(),
            token: "token".into(),
            run: "run".into(),
            started_ms: 1,
        };
        let (shared, tx) = Shared::new(me, clock);
        tx.session.send_replace(SessionState::Live);
        let metrics = Arc::new(Metrics::new(name, &ca.cluster));
        let stop = CancellationToken::new();
        let grpc = serve(
            listener,
            shared.clone(),
            security.clone(),
            metrics.clone(),
            stop.clone(),
        );
        let plain = http::serve(http_listener, shared.clone(), security.clone(), metrics, stop.clone());
        let task = tokio::spawn(async move {
            tokio::join!(grpc, plain);
        });
        Self {
            name: name.into(),
            address,
            http,
            shared,
            tx,
            security,
            stop,
            task,
            dir,
        }
    }

    /// Makes this server the acting master.
    pub(crate) fn lead(&self, term: u64) -> FakeMaster {
        let (commands, mut told) = mpsc::channel(16);
        let (hub, mut asked) = mpsc::channel(16);
        let fake = FakeMaster::default();
        let (f, me) = (fake.clone(), self.shared.me.clone());
        tokio::spawn(async move {
            while let Some(command) = told.recv().await {
                f.command(command);
            }
        });
        let f = fake.clone();
        tokio::spawn(async move {
            while let Some(query) = asked.recv().await {
                f.query(query, &me.cluster);
            }
        });
        self.tx.handle.send_replace(Some(Handle { term, commands, hub }));
        self.know(self, term);
        fake
    }

    /// Lets this server know who is master.
    pub(crate) fn know(&self, master: &Server, term: u64) {
        self.tx
            .master
            .send_replace(record(&master.name, &master.address.to_string(), term));
    }

    pub(crate) fn access(&self, record: AccessRecord) {
        self.tx.access.send_replace(Arc::new(record));
    }

    /// Ends the server, and waits until it has.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap();
    }
}

pub(crate) fn record(node: &str, address: &str, term: u64) -> MasterRecord {
    let holder = Holder {
        node: node.into(),
        candidate: "c".into(),
        address: address.into(),
        since_ms: 1,
    };
    MasterRecord {
        v: 1,
        term,
        holder: Some(holder),
        ..MasterRecord::default()
    }
}

/// Where a follower of the change log listens.
type Follower = mpsc::Sender<Result<v1::Change, crate::error::ApiError>>;

/// Answers as a master would, and remembers what it was asked.
#[derive(Clone, Default)]
pub(crate) struct FakeMaster {
    pub(crate) log: Arc<Mutex<Vec<String>>>,
    pub(crate) nodes: Arc<Mutex<Vec<v1::Node>>>,
    pub(crate) followers: Arc<Mutex<Vec<Follower>>>,
    pub(crate) agents: Arc<Mutex<Vec<mpsc::Sender<v1::MasterMessage>>>>,
    held: Arc<Mutex<Vec<Command>>>,
}

impl FakeMaster {
    pub(crate) fn add_node(&self, server: &Server) {
        self.nodes.lock().unwrap().push(v1::Node {
            name: server.name.clone(),
            spec: Some(v1::NodeSpec {
                address: server.address.to_string(),
                ..Default::default()
            }),
            status: Some(v1::NodeStatus {
                state: v1::NodeState::Online.into(),
                ..Default::default()
            }),
            revision: 1,
        });
    }

    fn note(&self, text: String) {
        self.log.lock().unwrap().push(text);
    }

    pub(crate) fn seen(&self, text: &str) -> bool {
        self.log.lock().unwrap().iter().any(|l| l.contains(text))
    }

    fn command(&self, command: Command) {
        match command {
            Command::Change {
                caller,
                request: Request::CancelOperation(_),
                ..
            } => {
                self.note(format!("held for {}", caller.identity));
            }
            // Never answered, while the master lives.
            Command::Change {
                ref caller,
                request: Request::SetMaintenance(_),
                ..
            } => {
                self.note(format!("held for {}", caller.identity));
                self.held.lock().unwrap().push(command);
            }
            Command::Change { caller, request, reply } => {
                let text = format!("{} {:?} [{}]", caller.identity, request, caller.request_id);
                self.note(text.clone());
                let plan = vec![text];
                let _ = reply.send(Ok(v1::ChangeResult {
                    changed: true,
                    plan,
                    ..Default::default()
                }));
            }
            Command::Question(question) => self.note(format!("{question:?}")),
            Command::Attached { node, stream } => self.note(format!("attached {node} {stream}")),
            Command::Detached { node, stream } => self.note(format!("detached {node} {stream}")),
            Command::Report { stream, report } => {
                self.note(format!(
                    "report {stream} {} {:?}",
                    report.time_unix_ms, report.conditions
                ));
            }
        }
    }

    fn query(&self, query: HubQuery, cluster: &str) {
        match query {
            HubQuery::State(reply) => {
                let nodes = self.nodes.lock().unwrap().clone();
                let state = v1::ClusterState {
                    cluster: cluster.into(),
                    revision: 7,
                    nodes,
                    ..Default::default()
                };
                let _ = reply.send(state);
            }
            HubQuery::Follow { reply, .. } => {
                let (tx, rx) = mpsc::channel(16);
                self.followers.lock().unwrap().push(tx);
                let _ = reply.send(rx);
            }
            HubQuery::Agent { reply, node, cursor } => {
                self.note(format!("agent {node} from {cursor}"));
                let (tx, rx) = mpsc::channel(16);
                self.agents.lock().unwrap().push(tx);
                let _ = reply.send(Ok(rx));
            }
            HubQuery::Operations(reply) => {
                let ids = ["0199f3-a", "0199f3-b", "0200aa-c"];
                let operations = ids
                    .iter()
                    .map(|id| v1::Operation {
                        id: (*id).into(),
                        ..Default::default()
                    })
                    .collect();
                let _ = reply.send(operations);
            }
            // Dropped unanswered, as a master does that has just ended.
            HubQuery::Watch { .. }
            | HubQuery::Changes(..)
            | HubQuery::WatchOperation(..)
            | HubQuery::Users(_)
            | HubQuery::Doctor(_) => {}
        }
    }
}

/// A connection as hactl makes it.
pub(crate) fn connect(server: &Server, ca: &TestCa, cert: &TestCert) -> Channel {
    connect_to(server.address, ca, cert)
}

pub(crate) fn connect_to(address: SocketAddr, ca: &TestCa, cert: &TestCert) -> Channel {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&ca.pem))
        .identity(Pair::from_pem(&cert.pem, &cert.key))
        .domain_name(format!("had.{}", ca.cluster));
    Endpoint::from_shared(format!("https://{address}"))
        .unwrap()
        .timeout(PATIENCE)
        .tls_config(tls)
        .unwrap()
        .connect_lazy()
}

/// The error in a status; panics where there is none.
pub(crate) fn detail(status: &Status) -> v1::ErrorDetail {
    let bytes = status
        .metadata()
        .get_bin(ERROR_DETAIL)
        .unwrap_or_else(|| panic!("no detail in {status:?}"));
    v1::ErrorDetail::decode(bytes.to_bytes().unwrap()).unwrap()
}

/// The code of the error that a call ended with.
pub(crate) fn code<T: std::fmt::Debug>(result: Result<T, Status>) -> String {
    detail(&result.unwrap_err()).code
}
