//! Simulated nodes: each a real ZooKeeper session with a real registration and lease, and a real report stream over mutual
//! TLS to the master; what is missing is the machine below.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use controlplane::coordination::{Connector, Coordinator, ZooKeeperConnector, ZooKeeperOptions};
use controlplane::platform::SystemClock;
use controlplane::registration::{self, Facts, Held};
use controlplane::security::{NodeBundle, keys};
use controlplane::shared::Me;
use ha_proto::v1::agent_service_client::AgentServiceClient;
use ha_proto::v1::watch_service_client::WatchServiceClient;
use ha_proto::v1::{AgentReport, Change, WatchRequest, master_message, watch_frame};
use hactl::ca::Issued;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::cluster::SESSION;

/// When each change, by its number, reached each reader.
#[derive(Debug, Clone, Default)]
pub(super) struct Arrivals(Arc<Mutex<BTreeMap<u64, Vec<Instant>>>>);

impl Arrivals {
    fn note(&self, changes: &[Change]) {
        let now = Instant::now();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            all.entry(change.seq).or_default().push(now);
        }
    }

    pub(super) fn of(&self, seq: u64) -> Vec<Instant> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&seq)
            .cloned()
            .unwrap_or_default()
    }
}

/// How the simulated nodes reach the cluster.
#[derive(Debug, Clone)]
pub(super) struct Way {
    /// The cluster.
    pub(super) cluster: String,
    /// The certificate authority.
    pub(super) authority: String,
    /// The master's gRPC endpoint.
    pub(super) master: String,
}

/// A session of a simulated node with what it holds.
pub(super) struct Session {
    coordinator: Arc<dyn Coordinator>,
    _held: Held,
}

impl Session {
    pub(super) async fn end(self) {
        self.coordinator.close().await;
    }
}

/// Registers a simulated node.
pub(super) async fn register(bundle: &NodeBundle, name: &str, address: &str) -> Result<Session> {
    let options = ZooKeeperOptions {
        hosts: bundle.zookeeper.clone(),
        root: format!("/ha/{}", bundle.cluster),
        session_timeout: SESSION,
        digest_user: keys::ZOOKEEPER_USER.to_owned(),
        digest_password: keys::zookeeper_password(&bundle.secret).expose().clone(),
    };
    let coordinator = ZooKeeperConnector::new(options, Arc::new(SystemClock))
        .connect()
        .await?;
    let me = Me {
        node: name.to_owned(),
        cluster: bundle.cluster.clone(),
        cluster_id: bundle.cluster_id.clone(),
        address: address.to_owned(),
        http_address: address.to_owned(),
        boot_id: "bench".to_owned(),
        token: name.to_owned(),
        run: name.to_owned(),
        started_ms: 0,
    };
    let held = registration::register(&*coordinator, &me, &Facts::default(), SESSION).await?;
    Ok(Session {
        coordinator,
        _held: held,
    })
}

async fn channel(way: &Way, issued: &Issued) -> Result<Channel> {
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&way.authority))
        .identity(Identity::from_pem(&issued.certificate, &issued.key))
        .domain_name(format!("had.{}", way.cluster));
    let endpoint = Endpoint::from_shared(format!("https://{}", way.master))?.tls_config(tls)?;
    Ok(endpoint.connect_timeout(Duration::from_secs(30)).connect().await?)
}

/// Opens a node's report stream: two reports a second out, every change in.
pub(super) async fn report(way: &Way, issued: &Issued, arrivals: Arrivals) -> Result<JoinHandle<()>> {
    let mut client = AgentServiceClient::new(channel(way, issued).await?);
    let (tx, rx) = mpsc::channel(4);
    let name = issued.name.clone();
    let report = move |first| AgentReport {
        node: name.clone(),
        boot_id: "bench".to_owned(),
        time_unix_ms: wall_ms(),
        first,
        ..AgentReport::default()
    };
    tx.send(report(true)).await.ok().context("the stream is open")?;
    let mut messages = client
        .report(tokio_stream::wrappers::ReceiverStream::new(rx))
        .await?
        .into_inner();
    Ok(tokio::spawn(async move {
        let mut every = tokio::time::interval(Duration::from_millis(500));
        loop {
            tokio::select! {
                _ = every.tick() => if tx.send(report(false)).await.is_err() { return },
                message = messages.message() => match message {
                    Ok(Some(message)) => if let Some(master_message::Body::Changes(c)) = message.body {
                        arrivals.note(&c.changes);
                    },
                    Ok(None) | Err(_) => return,
                },
            }
        }
    }))
}

/// Opens a watch stream, as a dashboard does.
pub(super) async fn watch(way: &Way, issued: &Issued, arrivals: Arrivals) -> Result<JoinHandle<()>> {
    let mut client = WatchServiceClient::new(channel(way, issued).await?);
    let mut frames = client.watch(WatchRequest::default()).await?.into_inner();
    Ok(tokio::spawn(async move {
        while let Ok(Some(frame)) = frames.message().await {
            if let Some(watch_frame::Body::Delta(delta)) = frame.body {
                arrivals.note(&delta.changes);
            }
        }
    }))
}

fn wall_ms() -> i64 {
    use controlplane::platform::Clock as _;
    SystemClock.wall_ms()
}
