//! How a driver comes to be: the programs, the place, the marks, the guard. Whatever an earlier daemon left is taken up.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ha_core::database::{Lineage, Names};
use ha_proto::v1;
use tokio::sync::{Notify, mpsc, watch};

use super::act::Set;
use super::driver::Driver;
use super::kept::KeptStore;
use super::look::{self, Looked, Target, Writes};
use super::records::Known;
use super::{Env, grants, lock};
use crate::guard;
use crate::postgres::control_data::major_release;
use crate::postgres::instance::Instance;
use crate::postgres::place::{self, Place};
use crate::postgres::{install, tls};

/// Installed releases are looked for again after so long.
const RELEASES: Duration = Duration::from_secs(300);
/// Until the guard is reached.
const GUARD: Duration = Duration::from_secs(20);

/// Whether something of an instance is on this machine: a guard that may run one.
pub(super) fn traces(env: &Env, group: &str) -> bool {
    guard::directory(&env.options.roots.state, group)
        .join("record")
        .exists()
}

/// Keeps the list of installed releases. Has no end.
pub(super) async fn releases(env: &Env) {
    loop {
        let found = match place::account(env.options.settings.run_as.as_deref()) {
            Ok(account) => install::discover(env.options.settings.bin_dir.as_deref(), &account).await,
            Err(e) => Err(e),
        };
        let mut majors: Vec<u32> = match found {
            Ok(found) => found.iter().map(|i| i.release.major).collect(),
            Err(e) => {
                tracing::debug!("PostgreSQL: {e}");
                Vec::new()
            }
        };
        majors.sort_unstable();
        majors.dedup();
        *lock(&env.board.0.releases) = majors;
        tokio::time::sleep(RELEASES).await;
    }
}

/// Tells the master why there is no instance although there should be.
pub(super) fn told(env: &Env, group: &str, known: &Known, why: &str) {
    let report = v1::InstanceReport {
        group: group.to_owned(),
        epoch: known.state().map_or(0, |s| s.epoch),
        record_version: known.read.as_ref().map_or(0, |r| r.revision),
        errors: vec![why.to_owned()],
        ..v1::InstanceReport::default()
    };
    let news = lock(&env.board.0.reports).instances.get(group) != Some(&report);
    if news {
        tracing::warn!(group, "its instance cannot be run: {why}");
    }
    env.board.publish(report, news);
}

/// Makes a driver.
pub(super) async fn driver(env: &Arc<Env>, group: &str, known: watch::Receiver<Known>) -> Result<Driver, String> {
    let me = env.shared.me.clone();
    let spec = known.borrow().spec.clone().ok_or("the group's spec was not read yet")?;
    let told = |e: crate::postgres::PgError| e.to_string();
    let settings = &env.options.settings;
    let account = place::account(settings.run_as.as_deref()).map_err(told)?;
    let found = install::discover(settings.bin_dir.as_deref(), &account)
        .await
        .map_err(told)?;
    let own = spec.nodes.get(&me.node);
    let data = own.and_then(|i| i.directory.clone()).or_else(|| spec.directory.clone());
    let data = data.map(std::path::PathBuf::from);
    let place = Place::new(&env.options.roots, group, data.as_deref(), spec.port(&me.node)).map_err(told)?;
    let directory = place.data.clone();
    let present = tokio::task::spawn_blocking(move || major_release(&directory).ok());
    let present = tokio::time::timeout(GUARD, present)
        .await
        .map_err(|_| "the data directory's disk hangs")?;
    let major = present.ok().flatten().or(spec.version).unwrap_or(0);
    let install = install::choose(&found, major).map_err(told)?.clone();
    if let Some(warning) = install.release.warning() {
        tracing::warn!(group, "{warning}");
    }
    let instance = Instance::open(place.clone(), install, account).await.map_err(told)?;
    tls::install(&instance.place, &instance.account, (env.options.pem)())
        .await
        .map_err(told)?;
    let kept = KeptStore::open(&place.marks).await.map_err(told)?;
    let lease = env.shared.lease.clone();
    let guard = guard::Client::attach(guard::Options {
        state_dir: env.options.roots.state.clone(),
        group: group.to_owned(),
        token: me.token.clone(),
        run: env.run,
        program: env.options.guard.clone(),
        cgroups: env.options.cgroups,
        lease: lease.clone(),
    });
    let status = guard.attached(GUARD).await.map_err(|e| e.to_string())?;
    if status.state == guard::State::Idle {
        // What a crash left half done; a server that runs proves its directory whole.
        instance.repair().await.map_err(told)?;
    }
    let (target, target_rx) = watch::channel(Target::default());
    let (looked_tx, looked) = watch::channel(Looked::default());
    let (writes_tx, writes) = watch::channel(Writes::default());
    let kick = Arc::new(Notify::new());
    let clock = env.clock.clone();
    let seen = look::Seen::default();
    let looks = look::run(look::Looks {
        place: place.clone(),
        clock: clock.clone(),
        target: target_rx.clone(),
        kick: kick.clone(),
        seen: seen.clone(),
        tx: looked_tx,
    });
    let writer = look::write(place, clock, target_rx, writes_tx);
    let helpers = vec![tokio::spawn(looks), tokio::spawn(writer)];
    let (inputs_tx, inputs) = mpsc::channel(32);
    lock(&env.board.0.inputs).insert(group.to_owned(), inputs_tx);
    let (tx, events) = mpsc::channel(64);
    Ok(Driver {
        granted_until: grants::bound(&kept.get(), env),
        view: guard.view(),
        guard: Arc::new(guard),
        me,
        group: group.to_owned(),
        instance,
        kept,
        known,
        nodes: env.nodes.clone(),
        lease,
        looked,
        writes,
        target,
        kick,
        look_due: false,
        seen,
        inputs,
        events,
        tx,
        helpers,
        disk: None,
        disk_state: (u64::MAX, true),
        disk_generation: 1,
        disk_seen: 0,
        disk_looking: false,
        disk_at: Duration::ZERO,
        lineage: Lineage::default(),
        history_looking: false,
        set: Set {
            names: Names::Closed,
            upstream: None,
        },
        names_seen: None,
        recovered: None,
        receiver_ended: None,
        redo: None,
        grants_held: BTreeMap::new(),
        grants_asked: None,
        leased: None,
        quick: false,
        acted: None,
        task: None,
        failed: None,
        failures: 0,
        not_before: Duration::ZERO,
        revision: 0,
        stop_sent: None,
        query: 0,
        query_at: None,
        errors: BTreeMap::new(),
        upkeep: super::upkeep::Upkeep::default(),
        published: None,
        published_at: Duration::ZERO,
        told: (Vec::new(), Vec::new()),
        unwanted: None,
        env: env.clone(),
    })
}

impl Driver {
    /// The node leaves the cluster: the server is stopped in order, as far as time allows. Its guard ends what is left
    /// when the lease does.
    pub(super) async fn leave(&mut self, limit: Duration) {
        let Some(status) = self.status().filter(|s| s.state != guard::State::Idle) else {
            return;
        };
        let stop = guard::Stop::fast(status.incarnation, limit);
        tracing::info!(group = %self.group, "the node leaves the cluster: PostgreSQL is stopped");
        if let Err(e) = self.guard.stopped(stop, limit).await {
            tracing::warn!(group = %self.group, "PostgreSQL has not stopped yet: {e}");
        }
    }
}
