//! Database groups on this node: the record of every group is followed, clients are led by it, and the instances that this
//! node has are run by core's decisions.
//!
//! Nothing here decides who is primary, and nothing here stops a server because the daemon ends: guard and PostgreSQL go
//! on, and the next daemon attaches to them. What the outside is asked has a time limit, and none of it holds up a decision.

mod act;
mod disk;
mod driver;
mod events;
mod gather;
mod grants;
mod group;
mod kept;
mod look;
mod nodes;
mod open;
mod publish;
mod records;
mod routes;
mod tasks;
#[cfg(test)]
mod tests;
mod upkeep;
pub(crate) mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ha_core::database::Timing;
use ha_proto::v1;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::Dial;
use crate::config;
use crate::coordination::{CoordError, Coordinator};
use crate::platform::Clock;
use crate::postgres::place::Roots;
use crate::postgres::probe::Setting;
use crate::proxy::local::{Instance, Instances};
use crate::proxy::routes::Routes;
use crate::security::NodePem;
use crate::shared::Shared;
use driver::Input;

/// What the instances of this node are made with.
pub struct Options {
    /// `[postgres]` of had.toml.
    pub settings: config::Postgres,
    /// Where instances lie.
    pub roots: Roots,
    /// The program that is the guard; none: this one.
    pub guard: Option<PathBuf>,
    /// Whether guards may make control groups.
    pub cgroups: bool,
    /// The node's certificate as it is now.
    pub pem: Box<dyn Fn() -> NodePem + Send + Sync>,
    /// The session timeout of all nodes.
    pub session_timeout: Duration,
}

/// A primary's question for a grant.
#[derive(Debug)]
pub struct GrantAsk {
    /// Who asks, by its certificate.
    pub from: String,
    /// What it asks.
    pub request: v1::GrantRequest,
    /// Takes the answer.
    pub reply: oneshot::Sender<v1::GrantAnswer>,
}

/// What the reporter needs of the instances: their reports, and a way for the master's hints. Clones are the same.
#[derive(Clone)]
pub struct Databases(Arc<Inner>);

struct Inner {
    reports: Mutex<Reports>,
    /// Raised at each change that is news.
    news: watch::Sender<u64>,
    inputs: Mutex<BTreeMap<String, mpsc::Sender<Input>>>,
    /// Versions of records that the master told of.
    hints: Mutex<BTreeMap<String, watch::Sender<u64>>>,
    /// Major releases of PostgreSQL that are installed.
    releases: Mutex<Vec<u32>>,
    /// How the master last saw the standbys of each group.
    standbys: watch::Sender<Arc<Standbys>>,
}

/// How the master last saw the standbys of each group. What was known last stays valid while there is no master.
type Standbys = BTreeMap<String, v1::GroupStandbys>;
/// Parameters in force by group, as they were sent.
pub(super) type Sent = BTreeMap<String, Arc<Vec<Setting>>>;

#[derive(Default)]
struct Reports {
    instances: BTreeMap<String, v1::InstanceReport>,
    removed: BTreeSet<String>,
    /// Parameters in force, of groups whose primary is here.
    settings: Sent,
}

impl Default for Databases {
    fn default() -> Self {
        Self(Arc::new(Inner {
            reports: Mutex::default(),
            news: watch::Sender::new(0),
            inputs: Mutex::default(),
            hints: Mutex::default(),
            releases: Mutex::default(),
            standbys: watch::Sender::default(),
        }))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Databases {
    /// Changes at each report that is worth sending at once.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.0.news.subscribe()
    }

    /// All reports, and the groups of which this node has an instance no more.
    pub fn reports(&self) -> (Vec<v1::InstanceReport>, Vec<String>) {
        let reports = lock(&self.0.reports);
        (
            reports.instances.values().cloned().collect(),
            reports.removed.iter().cloned().collect(),
        )
    }

    /// Parameters in force on primaries here that are other ones than `sent`, which is brought up to date.
    pub fn settings(&self, sent: &mut Sent) -> Vec<v1::GroupSettings> {
        let reports = lock(&self.0.reports);
        sent.retain(|group, _| reports.settings.contains_key(group));
        let news = |(group, now): &(&String, &Arc<Vec<Setting>>)| sent.get(*group) != Some(*now);
        let news: Vec<(String, Arc<Vec<Setting>>)> = reports
            .settings
            .iter()
            .filter(news)
            .map(|(g, s)| (g.clone(), s.clone()))
            .collect();
        drop(reports);
        let wire = news.iter().map(|(group, all)| v1::GroupSettings {
            group: group.clone(),
            settings: all.iter().map(wire::setting).collect(),
        });
        let wire = wire.collect();
        sent.extend(news);
        wire
    }

    fn publish_settings(&self, group: &str, settings: Option<&Vec<Setting>>) {
        let mut reports = lock(&self.0.reports);
        match settings {
            None => drop(reports.settings.remove(group)),
            Some(now) if reports.settings.get(group).is_some_and(|old| **old == *now) => {}
            Some(now) => drop(reports.settings.insert(group.to_owned(), Arc::new(now.clone()))),
        }
    }

    /// Major releases of PostgreSQL that are installed here, sorted.
    pub fn releases(&self) -> Vec<u32> {
        lock(&self.0.releases).clone()
    }

    /// The master's hint that a record has this version now.
    pub fn hint(&self, group: &str, version: u64) {
        if let Some(hint) = lock(&self.0.hints).get(group) {
            hint.send_if_modified(|seen| {
                let newer = version > *seen;
                *seen = version.max(*seen);
                newer
            });
        }
    }

    /// The master tells how it sees a group's standbys, wherever they run.
    pub fn standbys(&self, seen: v1::GroupStandbys) {
        self.0.standbys.send_if_modified(|all| {
            if all.get(&seen.group) == Some(&seen) {
                return false;
            }
            Arc::make_mut(all).insert(seen.group.clone(), seen);
            true
        });
    }

    /// How the master last saw a group's standbys in this epoch.
    fn standbys_of(&self, group: &str, epoch: u64) -> Option<v1::GroupStandbys> {
        let all = self.0.standbys.borrow();
        all.get(group).filter(|s| s.epoch == epoch).cloned()
    }

    /// The master wants a report that is measured afresh.
    pub fn query(&self, group: &str, id: u64) {
        self.tell(group, Input::Query(id));
    }

    /// The master wants a checkpoint.
    pub fn checkpoint(&self, group: &str) {
        self.tell(group, Input::Checkpoint);
    }

    /// The master passes on that this incarnation is to be restarted.
    pub fn restart(&self, group: &str, incarnation: u64) {
        self.tell(group, Input::Restart(incarnation));
    }

    fn tell(&self, group: &str, input: Input) {
        if let Some(inputs) = lock(&self.0.inputs).get(group) {
            // A driver without room has more than enough to do; hints are sent again.
            let _ = inputs.try_send(input);
        }
    }

    fn publish(&self, report: v1::InstanceReport, news: bool) {
        let group = report.group.clone();
        let mut reports = lock(&self.0.reports);
        reports.removed.remove(&group);
        reports.instances.insert(group, report);
        drop(reports);
        if news {
            self.0.news.send_modify(|n| *n += 1);
        }
    }

    fn remove(&self, group: &str) {
        let mut reports = lock(&self.0.reports);
        if reports.instances.remove(group).is_some() {
            reports.removed.insert(group.to_owned());
        }
        drop(reports);
        self.0.news.send_modify(|n| *n += 1);
    }
}

/// What all instances of this node share.
struct Env {
    shared: Shared,
    clock: Arc<dyn Clock>,
    /// The machine's boot.
    boot: String,
    /// This run of the daemon, for its guards: nanoseconds of CLOCK_BOOTTIME at its start.
    run: u64,
    timing: Timing,
    options: Options,
    dial: Arc<dyn Dial>,
    board: Databases,
    nodes: watch::Receiver<nodes::Nodes>,
    wanted: watch::Sender<BTreeSet<String>>,
    routes: watch::Sender<Arc<Routes>>,
    instances: watch::Sender<Arc<Instances>>,
}

impl Env {
    fn publish_local(&self, group: &str, instance: Instance) {
        self.instances.send_if_modified(|all| {
            if all.groups.get(group) == Some(&instance) {
                return false;
            }
            Arc::make_mut(all).groups.insert(group.to_owned(), instance);
            true
        });
    }

    fn remove_local(&self, group: &str) {
        self.instances.send_if_modified(|all| {
            let there = all.groups.contains_key(group);
            if there {
                Arc::make_mut(all).groups.remove(group);
            }
            there
        });
    }
}

/// Between attempts to read the list of groups, and how long one may take.
const AGAIN: Duration = Duration::from_millis(200);
const LIMIT: Duration = Duration::from_secs(3);
/// The list is read anew after so long, whatever was heard.
const REREAD: Duration = Duration::from_secs(30);

/// Where what is known goes: to the proxy and the endpoints of this node.
pub struct Outlets {
    /// Where clients belong.
    pub routes: watch::Sender<Arc<Routes>>,
    /// What this node's instances do.
    pub instances: watch::Sender<Arc<Instances>>,
    /// Questions of primaries on other nodes.
    pub grants: mpsc::Receiver<GrantAsk>,
}

/// Prepares what runs this node's instances; the future is its life, until it is dropped. It ends by itself, with the
/// instances stopped in order, when the node leaves the cluster.
pub fn new(
    shared: Shared,
    outlets: Outlets,
    dial: Arc<dyn Dial>,
    options: Options,
) -> (Databases, impl Future<Output = ()> + Send) {
    let board = Databases::default();
    let (nodes_tx, nodes) = watch::channel(nodes::Nodes::default());
    let (wanted, wanted_rx) = watch::channel(BTreeSet::new());
    let clock = shared.clock.clone();
    let env = Arc::new(Env {
        boot: shared.me.boot_id.clone(),
        run: u64::try_from(clock.boottime().as_nanos()).unwrap_or(u64::MAX),
        timing: Timing::new(options.session_timeout, Timing::default().detect),
        clock,
        options,
        dial,
        board: board.clone(),
        nodes,
        wanted,
        routes: outlets.routes,
        instances: outlets.instances,
        shared,
    });
    let coordinator = env.shared.coordinator.clone();
    let life = async move {
        tokio::select! {
            () = nodes::follow(coordinator, wanted_rx, nodes_tx) => {}
            () = Box::pin(pass_grants(env.board.clone(), outlets.grants)) => {}
            () = Box::pin(open::releases(&env)) => {}
            () = Box::pin(follow_groups(env.clone())) => {}
        }
    };
    (board, life)
}

async fn pass_grants(board: Databases, mut asks: mpsc::Receiver<GrantAsk>) {
    while let Some(ask) = asks.recv().await {
        let group = ask.request.group.clone();
        // Without an instance here the answer is the question's end.
        board.tell(&group, Input::Grant(ask));
    }
    std::future::pending::<()>().await;
}

/// A group that is followed.
struct Followed {
    end: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Follows the list of groups, and each of them. Ends when the node leaves the cluster.
async fn follow_groups(env: Arc<Env>) {
    let mut all: BTreeMap<String, Followed> = BTreeMap::new();
    let mut coordinator = env.shared.coordinator.clone();
    let leave = env.shared.leave.clone();
    loop {
        let session = coordinator.borrow_and_update().clone();
        let watch = match &session {
            None => None,
            Some(c) => match list(&**c).await {
                Ok((groups, watch)) => {
                    all.retain(|name, _| groups.contains(name));
                    for name in groups {
                        all.entry(name.clone()).or_insert_with(|| {
                            let end = CancellationToken::new();
                            let task = tokio::spawn(group::follow(env.clone(), name, end.clone()));
                            Followed { end, task }
                        });
                    }
                    Some(watch)
                }
                Err(e) => {
                    tracing::debug!("the list of groups could not be read: {e}");
                    tokio::time::sleep(AGAIN).await;
                    None
                }
            },
        };
        let news = async {
            match watch {
                Some(watch) => drop(tokio::time::timeout(REREAD, watch.fired()).await),
                None if session.is_some() => tokio::time::sleep(AGAIN).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = news => {}
            changed = coordinator.changed() => if changed.is_err() { std::future::pending::<()>().await },
            () = leave.cancelled() => break,
        }
    }
    for followed in all.values() {
        followed.end.cancel();
    }
    for (_, mut followed) in all {
        let _ = tokio::time::timeout(group::LEAVING, &mut followed.task).await;
    }
}

/// The groups there are, and a watch for others.
async fn list(c: &dyn Coordinator) -> crate::coordination::Result<(BTreeSet<String>, crate::coordination::Watch)> {
    let late = |_| CoordError::Unavailable("no answer in time".into());
    let listed = tokio::time::timeout(LIMIT, c.children_and_watch(records::GROUPS))
        .await
        .map_err(late)?;
    match listed {
        Ok((names, watch)) => {
            let good = names.into_iter().filter(|n| ha_core::valid_name(n).is_ok());
            Ok((good.collect(), watch))
        }
        Err(CoordError::NotFound(_)) => {
            let (_, watch) = tokio::time::timeout(LIMIT, c.read_and_watch(records::GROUPS))
                .await
                .map_err(late)??;
            Ok((BTreeSet::new(), watch))
        }
        Err(e) => Err(e),
    }
}
