//! What every node does, master or not: it measures itself, reports to the master, brings the changes of the cluster to
//! this machine and runs the commands that wait for them.
//!
//! Nothing here decides anything for the cluster. Nothing here may end the daemon: whatever goes wrong becomes a condition
//! in the report and a line in the log.

mod command;
mod conditions;
mod cursors;
pub mod database;
mod hooks;
pub mod measure;
mod report;
mod state;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{FuturesUnordered, StreamExt as _};
use ha_proto::v1;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

pub use conditions::Conditions;
pub use cursors::Cursors;
pub use state::StateDir;

use crate::config::Hook;
use crate::error::ApiError;
use crate::shared::Shared;
use crate::watch::{Applier, Feed, drive};

/// Reaches other daemons.
#[async_trait]
pub trait Dial: Send + Sync + 'static {
    /// A channel to the daemon of this node at this address, proven to be that node's.
    async fn dial(&self, node: &str, address: &str) -> Result<Channel, ApiError>;

    /// Whether the machine at this address answers that no process listens there: its daemon has ended. Silence, and whatever
    /// else keeps a connection from being made, is no such answer.
    async fn is_refused(&self, _address: &str) -> bool {
        false
    }
}

/// What the agent is made of.
pub struct Options {
    /// Commands that run at changes. A run of one that is changed is ended, and repeated with what it is then.
    pub hooks: watch::Receiver<Vec<Hook>>,
    /// How often the node reports.
    pub interval: Duration,
    /// The file system that is measured.
    pub disk: PathBuf,
    /// Where this daemon's own API can be dialled on this machine, for when it is master itself.
    pub local_address: String,
    /// Not-after time of the certificate in use, ms; asked at each report.
    pub certificate_expires: Arc<dyn Fn() -> i64 + Send + Sync>,
    /// What is due of this node's proxies; asked at each report, with whether it is a stream's first.
    pub proxies: Arc<dyn Fn(bool) -> Vec<v1::ProxyReport> + Send + Sync>,
    /// Operating system, for people.
    pub os: String,
    /// This node's instances of database groups.
    pub databases: database::Databases,
}

/// The agent's parts that others read.
#[derive(Clone)]
pub struct Agent {
    /// What is wrong with the node.
    pub conditions: Conditions,
    /// The changes of the cluster.
    pub feed: Feed,
    /// The last measurement.
    pub usage: watch::Receiver<v1::Usage>,
}

/// Runs the hooks, each until it is changed or taken away.
async fn run_hooks(
    mut hooks: watch::Receiver<Vec<Hook>>,
    shared: &Shared,
    feed: &Feed,
    cursors: &Arc<Cursors>,
    conditions: &Conditions,
) {
    let mut running: Vec<(Hook, CancellationToken)> = Vec::new();
    let mut runs = FuturesUnordered::new();
    loop {
        let wanted = hooks.borrow_and_update().clone();
        let names: Vec<_> = wanted.iter().map(|h| h.name.as_str()).collect();
        conditions.keep_only("hook/", &names);
        running.retain(|(hook, end)| {
            let stays = wanted.contains(hook);
            if !stays {
                end.cancel();
            }
            stays
        });
        for hook in wanted {
            if running.iter().any(|(h, _)| *h == hook) {
                continue;
            }
            let end = CancellationToken::new();
            running.push((hook.clone(), end.clone()));
            let run = hooks::run(
                hook,
                shared.me.clone(),
                feed.clone(),
                cursors.clone(),
                conditions.clone(),
            );
            runs.push(Box::pin(end.run_until_cancelled_owned(run)));
        }
        let mut told = true;
        while told || !runs.is_empty() {
            tokio::select! {
                changed = hooks.changed(), if told => match changed {
                    Ok(()) => break,
                    // Whoever could change them is ending, and the daemon with it.
                    Err(_) => told = false,
                },
                Some(_) = runs.next() => {}
            }
        }
        if !told {
            return;
        }
    }
}

/// Prepares the agent; the returned future is its life, until the daemon is told to stop and its last report has gone.
pub fn new(
    shared: Shared,
    denied: mpsc::Receiver<v1::Denied>,
    dial: Arc<dyn Dial>,
    state: StateDir,
    options: Options,
) -> (Agent, impl Future<Output = ()> + Send) {
    let conditions = state.conditions();
    let feed = Feed::new(shared.coordinator.clone(), shared.clock.clone());
    let (usage_tx, usage) = watch::channel(v1::Usage::default());
    let agent = Agent {
        conditions: conditions.clone(),
        feed: feed.clone(),
        usage: usage.clone(),
    };
    let life = async move {
        let cursors = Arc::new(Cursors::load(state.clone(), &shared.me.cluster_id).await);
        if let Some(cursor) = cursors.applied() {
            // The first report tells it.
            feed.start(cursor);
        }
        let (inputs_tx, inputs) = mpsc::channel(64);
        let reporter = report::Reporter {
            shared: shared.clone(),
            dial,
            conditions: conditions.clone(),
            usage,
            inputs: inputs_tx,
            feed: feed.clone(),
            denied,
            certificate_expires: options.certificate_expires,
            proxies: options.proxies,
            interval: options.interval,
            local_address: options.local_address,
            os: options.os,
            databases: options.databases,
            settings: database::Sent::default(),
        };
        let applier = Applier::new(cursors.applied());
        let helpers = async {
            tokio::join!(
                drive(shared.coordinator.clone(), shared.clock.clone(), applier, inputs, &feed),
                cursors.follow(&feed),
                measure::run(options.disk, options.interval, usage_tx, state.clone()),
                state.retry(),
                run_hooks(options.hooks, &shared, &feed, &cursors, &conditions),
            );
        };
        tokio::select! {
            // It ends with the last report; the others have no end of their own.
            () = Box::pin(reporter.run()) => {}
            () = Box::pin(helpers) => {}
        }
        cursors.flush().await;
    };
    (agent, life)
}

#[cfg(test)]
mod tests;
