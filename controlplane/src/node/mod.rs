//! One daemon, put together and taken apart: the only place that builds real adapters.
//!
//! Nothing registers before it can be reached, and nothing stops serving before mastership was handed over. A part that
//! ends on its own ends the daemon, for a daemon without one of its parts would look healthy and not be.

mod leave;
mod prepare;
mod status;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ha_proto::codes;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use leave::leave;
pub use prepare::{check, load};

use crate::agent::{self, Dial, StateDir, database};
use crate::api::{self, Metrics};
use crate::config::{Config, Level};
use crate::coordination::{Connector, ZooKeeperConnector};
use crate::error::ApiError;
use crate::platform::{self, Clock, Signal, Signals, SystemClock, service};
use crate::proxy::{self, Proxy};
use crate::security::{self, Dialer, NodeBundle, Security};
use crate::shared::Shared;
use crate::{logging, session};

/// What the command line says; it goes before had.toml.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// had.toml, if another than the default one.
    pub config: Option<PathBuf>,
    /// See [`Config::bundle`].
    pub bundle: Option<PathBuf>,
    /// See [`Config::state_dir`].
    pub state_dir: Option<PathBuf>,
    /// See [`Config::grpc_listen`].
    pub grpc: Option<SocketAddr>,
    /// See [`Config::http_listen`].
    pub http: Option<SocketAddr>,
    /// See [`crate::config::Log::level`].
    pub log_level: Option<Level>,
}

/// How long the API may take to end after mastership was handed over.
const CLOSING: Duration = Duration::from_millis(250);
/// How long the agent's last words and the session's may take; both are bounded themselves.
const HANDING_OVER: Duration = Duration::from_secs(2);
/// A node that was told to leave lets the answer reach whoever told it.
const LEAVING: Duration = Duration::from_millis(500);
/// With this the process ends, whatever hangs.
const HARD_LIMIT: Duration = Duration::from_secs(4);
/// The service manager's start waits for the registration, but not for an ensemble that is down.
const PATIENCE: Duration = Duration::from_secs(15);

/// Runs the daemon until it is told to end.
///
/// # Errors
/// What it could not start or go on with.
pub fn run(overrides: &Overrides) -> Result<(), ApiError> {
    let config = load(overrides)?;
    let log = logging::start(&config.log);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .thread_name("had")
        .enable_all()
        .build()
        .map_err(|e| ApiError::new(&codes::INTERNAL, "the runtime cannot be started").why(e.to_string()))?;
    let ended = runtime.block_on(Box::pin(Daemon::start_and_serve(config, overrides.clone(), log)));
    // What still runs is of no use any more; a thread that hangs in a dead file system must not hold the process.
    runtime.shutdown_background();
    ended
}

/// The parts that end a daemon when they end.
struct Daemon {
    /// Polled in place, not as a task of its own: with the session everything built on it ends at once.
    session: Option<BoxedSession>,
    agent: JoinHandle<()>,
    /// Runs the instances of database groups; they outlive it.
    instances: JoinHandle<()>,
    grpc: JoinHandle<()>,
    http: JoinHandle<()>,
    helpers: Vec<JoinHandle<()>>,
    shared: Shared,
    /// Ends the API and what else outlives the session.
    close: CancellationToken,
}

type BoxedSession = Pin<Box<dyn Future<Output = Result<(), ApiError>>>>;

struct Peers(Dialer);

#[async_trait::async_trait]
impl Dial for Peers {
    async fn dial(&self, node: &str, address: &str) -> Result<tonic::transport::Channel, ApiError> {
        self.0.channel(node, address)
    }

    async fn is_refused(&self, address: &str) -> bool {
        security::is_refused(address).await
    }
}

impl Daemon {
    async fn start_and_serve(config: Config, overrides: Overrides, log: logging::Handle) -> Result<(), ApiError> {
        let mut signals = Signals::new()
            .map_err(|e| ApiError::new(&codes::INTERNAL, "signals cannot be handled").why(e.to_string()))?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let bundle = NodeBundle::read(&config.bundle)?;
        let state = StateDir::open(&config.state_dir)?;
        let security = Security::new(&bundle, &config.bundle, &config.state_dir, clock.clone())?;
        let grpc = bind("gRPC", "--grpc or listen.grpc", config.grpc_listen(&bundle.address)?).await?;
        let http = bind("HTTP", "--http or listen.http", config.http_listen).await?;

        let os = platform::os_description();
        let me = prepare::me(&config, &bundle, &state, &*clock, local(&http)?.port());
        tracing::info!(
            node = %me.node, cluster = %me.cluster, address = %me.address, http = %me.http_address,
            version = env!("CARGO_PKG_VERSION"), "had starts"
        );
        let (shared, mut tx) = Shared::new(me, clock.clone());
        let denied = std::mem::replace(&mut tx.denied, mpsc::channel(1).1);
        let outlets = database::Outlets {
            routes: std::mem::replace(&mut tx.routes, watch::channel(Arc::default()).0),
            instances: std::mem::replace(&mut tx.instances, watch::channel(Arc::default()).0),
            grants: std::mem::replace(&mut tx.grants, mpsc::channel(1).1),
        };
        let disk = config.measure_disk.clone().unwrap_or_else(|| config.state_dir.clone());
        let options = session::Options {
            bootstrap: bundle.bootstrap.as_ref().map(prepare::bootstrap),
            facts: crate::registration::Facts {
                capacity: agent::measure::capacity(&disk),
                os: os.clone(),
                pid: std::process::id(),
            },
            zookeeper: bundle.zookeeper.clone(),
        };
        let connector: Arc<dyn Connector> =
            Arc::new(ZooKeeperConnector::new(prepare::zookeeper(&bundle), clock.clone()));
        let (hooks_tx, hooks) = watch::channel(config.on_change.clone());
        let certificates = security.clone();
        let dial = Arc::new(Peers(security.dialer().clone()));
        let pem = security.clone();
        let instances = database::Options {
            settings: config.postgres.clone(),
            roots: config.postgres_roots(),
            guard: None,
            cgroups: true,
            pem: Box::new(move || pem.pem()),
            session_timeout: bundle.session_timeout,
        };
        let (databases, instances) = database::new(shared.clone(), outlets, dial.clone(), instances);
        let metrics = Arc::new(Metrics::new(&shared.me.node, &shared.me.cluster));
        let proxy = Proxy::new(config.proxy.clone(), shared.routes.clone(), metrics.proxy.clone());
        let reporter = proxy::Reporter::new(proxy.clone(), &shared.me.address);
        let agent_options = agent::Options {
            hooks,
            interval: config.report_interval,
            disk,
            local_address: prepare::loopback(local(&grpc)?).to_string(),
            certificate_expires: Arc::new(move || certificates.certificate().not_after_ms),
            proxies: Arc::new(move |first| reporter.due(first)),
            os,
            databases,
        };
        let (_, agent) = agent::new(shared.clone(), denied, dial, state, agent_options);

        let close = CancellationToken::new();
        let (s, m) = (&shared, &metrics);
        let mut daemon = Daemon {
            grpc: tokio::spawn(api::serve(grpc, s.clone(), security.clone(), m.clone(), close.clone())),
            http: tokio::spawn(api::http::serve(
                http,
                s.clone(),
                security.clone(),
                m.clone(),
                close.clone(),
            )),
            agent: tokio::spawn(agent),
            instances: tokio::spawn(instances),
            session: Some(Box::pin(session::run(connector, s.clone(), tx, options))),
            helpers: vec![
                tokio::spawn(security.clone().watch(close.clone())),
                tokio::spawn(status::tell(s.clone(), PATIENCE)),
                tokio::spawn(proxy.run(close.clone())),
            ],
            shared,
            close,
        };
        let mut reload = prepare::Reload {
            overrides,
            config,
            log,
            hooks: hooks_tx,
            security,
        };
        let ended = daemon.serve(&mut signals, &mut reload).await;
        // Whoever told it to end got what they wanted, even if something hangs.
        let code = ended.as_ref().map_or_else(|e| e.code.exit, |()| 0);
        std::thread::spawn(move || {
            std::thread::sleep(HARD_LIMIT);
            tracing::error!("something hangs; the process ends without it");
            std::process::exit(i32::from(code));
        });
        daemon.end(ended).await
    }

    /// Serves until something ends the daemon: `Ok` if it was told to.
    async fn serve(&mut self, signals: &mut Signals, reload: &mut prepare::Reload) -> Result<(), ApiError> {
        loop {
            tokio::select! {
                biased;
                signal = signals.next() => match signal {
                    Signal::Reload => reload.now().await,
                    Signal::Stop => {
                        tracing::info!("told to end: announcing a restart; the node stays a member for its session");
                        return Ok(());
                    }
                },
                () = self.shared.leave.cancelled() => {
                    tracing::info!("told to leave: the node goes for good, and had ends");
                    return Ok(());
                }
                ended = poll(&mut self.session) => return Err(match ended {
                    Err(e) => e,
                    // It was told to end between two looks at the same token.
                    Ok(()) if self.shared.leave.is_cancelled() => continue,
                    Ok(()) => died("the session's part", "it ended"),
                }),
                ended = &mut self.instances, if !self.shared.leave.is_cancelled() => {
                    // With the node's leaving it ends in order.
                    if !self.shared.leave.is_cancelled() {
                        return Err(died("the part that runs database instances", &why(ended)));
                    }
                }
                ended = &mut self.agent => return Err(died("the agent", &why(ended))),
                ended = &mut self.grpc => return Err(died("the gRPC server", &why(ended))),
                ended = &mut self.http => return Err(died("the HTTP server", &why(ended))),
            }
        }
    }

    /// Takes the daemon apart: first what the cluster must know, then the serving.
    async fn end(self, ended: Result<(), ApiError>) -> Result<(), ApiError> {
        service::notify(service::Notice::Stopping);
        let leaving = self.shared.leave.is_cancelled();
        if !leaving {
            self.shared.stop.cancel();
        }
        let (mut session, mut agent, mut instances) = (self.session, self.agent, self.instances);
        if leaving && !instances.is_finished() {
            // Before the registration goes: clients and the others see the instances stop in order.
            let _ = tokio::time::timeout(HANDING_OVER, &mut instances).await;
        }
        instances.abort();
        let agent_ends = async {
            // A task that ended already must not be waited for twice.
            if !agent.is_finished() {
                let _ = (&mut agent).await;
            }
        };
        let session_ends = async {
            if session.is_some() {
                let _ = poll(&mut session).await;
            }
        };
        let goodbye = async { tokio::join!(session_ends, agent_ends) };
        if tokio::time::timeout(HANDING_OVER, goodbye).await.is_err() {
            tracing::warn!("the session did not end in time; its end is left to ZooKeeper");
        }
        self.close.cancel();
        let closed = async {
            for server in [self.grpc, self.http] {
                if !server.is_finished() {
                    let _ = server.await;
                }
            }
        };
        let _ = tokio::time::timeout(if leaving { LEAVING } else { CLOSING }, closed).await;
        for helper in self.helpers {
            helper.abort();
        }
        match &ended {
            Ok(()) if leaving => tracing::info!("the node has left the cluster; had ends"),
            Ok(()) => tracing::info!("had ends"),
            Err(e) => tracing::error!("had ends: {e}"),
        }
        ended
    }
}

/// Waits for the session's part, once.
async fn poll(session: &mut Option<BoxedSession>) -> Result<(), ApiError> {
    match session {
        Some(running) => {
            let ended = running.await;
            *session = None;
            ended
        }
        None => std::future::pending().await,
    }
}

fn why(ended: Result<(), tokio::task::JoinError>) -> String {
    ended.map_or_else(|e| e.to_string(), |()| "it ended".to_owned())
}

fn died(part: &str, why: &str) -> ApiError {
    ApiError::new(&codes::INTERNAL, format!("{part} of had failed"))
        .why(why)
        .next("journalctl -u had    shows what came before; had is to be started again")
}

async fn bind(what: &str, key: &str, address: SocketAddr) -> Result<TcpListener, ApiError> {
    TcpListener::bind(address).await.map_err(|e| {
        ApiError::new(&codes::PORT_IN_USE, format!("{what} cannot listen on {address}"))
            .why(e.to_string())
            .next(format!(
                "ss -ltnp sport = :{}    shows who listens there",
                address.port()
            ))
            .next(
                format!("{key} in had.toml names another address")
                    .replace("--grpc or ", "")
                    .replace("--http or ", ""),
            )
    })
}

fn local(listener: &TcpListener) -> Result<SocketAddr, ApiError> {
    listener
        .local_addr()
        .map_err(|e| ApiError::new(&codes::INTERNAL, "a listener has no address").why(e.to_string()))
}

#[cfg(test)]
mod tests;
