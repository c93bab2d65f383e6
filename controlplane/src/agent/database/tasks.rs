//! What takes long: initdb, starts, promotions, rewinds, copies. One at a time, each safe to be cut off at any point: what
//! it announces is on disk before it is done, and what is left half done is told by the marks.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ha_core::database::local::{Local, Task, Upstream};
use ha_core::database::member::{Action, StartAs};
use ha_core::database::{Lineage, Names, Phase};

use super::act::{self, Set, Step};
use super::driver::{Driver, Event, Running};
use super::kept::{KeptStore, Role};
use super::records::Known;
use crate::guard;
use crate::platform::Clock;
use crate::postgres::conf::{Settings, Source};
use crate::postgres::connection::Connection;
use crate::postgres::control;
use crate::postgres::instance::Instance;
use crate::postgres::rewind::Rewound;
use crate::postgres::{PgError, tls};

/// A promotion that takes longer goes on without being waited for here.
const PROMOTION: Duration = Duration::from_secs(60);
/// Between attempts at a source that does not show its new timeline yet.
const SOURCE_AGAIN: Duration = Duration::from_millis(500);
const SOURCE_LIMIT: u32 = 40;

/// How a task ended well.
pub(super) enum Outcome {
    /// The guard runs this incarnation; that it answers is seen by the looks. With parameters that were refused, why.
    Started(u64, Option<String>),
    /// It is a primary, with this lineage.
    Promoted(Lineage),
    /// The directory is another one.
    Rebuilt,
}

/// Whether an action is one that takes long.
pub(super) fn is_long(action: &Action) -> bool {
    matches!(
        action,
        Action::Create { .. }
            | Action::Start { .. }
            | Action::Promote { .. }
            | Action::Rewind { .. }
            | Action::Copy { .. }
    )
}

struct Job {
    instance: Instance,
    kept: KeptStore,
    guard: Arc<guard::Client>,
    clock: Arc<dyn Clock>,
    settings: Settings,
    /// Without the group's parameters and lines, should a server not start with them.
    plain: Settings,
    /// The server can use the group's parameters and lines.
    proven: bool,
    listen: Vec<String>,
    incarnation: u64,
    epoch: u64,
    /// The lease of a start or promotion as a primary, as it is when the guard is asked.
    lease: Option<tokio::sync::watch::Receiver<crate::coordination::Lease>>,
    pem: tls::NodePem,
    clues: super::disk::Clues,
}

impl Driver {
    /// The configuration that follows from what is decided, known and accepted.
    pub(super) fn settings(&self, known: &Known, set: &Set) -> Result<Settings, String> {
        let spec = known.spec.as_ref().ok_or("the group's spec was not read yet")?;
        let upstream = match &set.upstream {
            None => None,
            Some(u) => Some((self.source(known, &u.node)?, u.epoch)),
        };
        let slot = set.upstream.as_ref().map(|_| control::slot_name(&self.me.node));
        let mut nodes: std::collections::BTreeSet<String> = spec.nodes.keys().cloned().collect();
        nodes.extend(known.state().into_iter().flat_map(|s| s.instances.keys().cloned()));
        let floors = self.disk.as_ref().and_then(|d| d.control.as_ref()).map(|c| c.floors);
        let accepted = &self.upkeep.accepted;
        Ok(Settings {
            names: set.names.clone(),
            slot: slot.transpose().map_err(|e| e.to_string())?,
            nodes,
            detect: self.env.timing.detect,
            slot_keep: spec.limits.slot_retention,
            parameters: accepted.parameters.clone(),
            hba: accepted.hba.clone(),
            least: floors.filter(|_| set.upstream.is_some()).unwrap_or_default(),
            upstream,
            ..Settings::closed(self.instance.install.release, &self.me.cluster, &self.me.node)
        })
    }

    /// Where another node's instance is reached.
    pub(super) fn source(&self, known: &Known, node: &str) -> Result<Source, String> {
        let nodes = self.nodes.borrow();
        let found = nodes.get(node).filter(|n| !n.address.is_empty());
        let port = known.spec.as_ref().map_or(5432, |s| s.port(node));
        found
            .map(|n| Source {
                node: node.to_owned(),
                host: n.host().to_owned(),
                port,
            })
            .ok_or_else(|| format!("the address of node {node} is not known yet"))
    }

    /// Begins short steps, one after the other.
    pub(super) fn short(&mut self, now: Duration, known: &Known, local: &Local, actions: &[&Action]) {
        let mut set = self.set.clone();
        let mut steps = Vec::new();
        for action in actions {
            match action {
                Action::Refuse { epoch } => {
                    set.upstream = None;
                    match self.settings(known, &set) {
                        Ok(settings) => steps.push(Step::Refuse(*epoch, Box::new(settings))),
                        Err(e) => return self.complain("step", e),
                    }
                }
                Action::EndReceiver => steps.push(Step::EndReceiver(local.incarnation)),
                Action::MarkPromotion { epoch } => steps.push(Step::MarkPromotion(*epoch)),
                Action::SetNames { names } => {
                    set.names = names.clone();
                    match self.settings(known, &set) {
                        Ok(settings) => steps.push(Step::Configure(Box::new(settings))),
                        Err(e) => return self.complain("step", e),
                    }
                }
                Action::Follow { upstream } => {
                    set.upstream = Some(upstream.clone());
                    self.receiver_ended = None;
                    match self.settings(known, &set) {
                        Ok(settings) => steps.push(Step::Configure(Box::new(settings))),
                        Err(e) => return self.complain("step", e),
                    }
                }
                Action::Slots { nodes } => {
                    // What cannot be dropped now is not tried at every look.
                    if now < self.upkeep.slots_at + Duration::from_secs(1) {
                        continue;
                    }
                    self.upkeep.slots_at = now;
                    let present = self.status().and_then(|s| self.present_look(&s));
                    let present = present.map_or_else(Vec::new, |l| l.probe.slots);
                    steps.push(Step::Slots(nodes.iter().cloned().collect(), present));
                }
                _ => {}
            }
        }
        if steps.is_empty() {
            return;
        }
        self.set = set;
        self.quick = true;
        let running = local.server != ha_core::database::local::Server::Stopped;
        let mut clues = self.clues();
        clues.upstream.clone_from(&local.upstream);
        let (instance, tx) = (self.instance.clone(), self.tx.clone());
        tokio::spawn(async move {
            let mut done = Vec::new();
            let mut failed = None;
            for step in steps {
                match act::step(&instance, step, &clues, running).await {
                    Ok(did) => done.push(did),
                    Err(e) => {
                        failed = Some(act::told(&e));
                        break;
                    }
                }
            }
            let _ = tx.send(Event::Quick(failed.map_or(Ok(done), Err))).await;
        });
    }

    /// Begins what takes long.
    pub(super) fn long(&mut self, now: Duration, known: &Known, local: &Local, action: Action) {
        let (what, set) = match &action {
            Action::Create { names } => (Task::Create, self.to(names, None)),
            Action::Start { role, names } => {
                let upstream = match role {
                    StartAs::Standby { upstream } => upstream.clone(),
                    StartAs::Primary => None,
                };
                (Task::Start, self.to(names, upstream))
            }
            Action::Promote { names, .. } => (Task::Promote, self.to(names, None)),
            Action::Rewind { from } => (Task::Rewind, self.to(&Names::Closed, Some(from.clone()))),
            Action::Copy { from } => (
                Task::Copy { progress: None },
                self.to(&Names::Closed, Some(from.clone())),
            ),
            _ => return,
        };
        let settings = match self.settings(known, &set) {
            Ok(settings) => settings,
            Err(why) => return self.fail(now, what, why),
        };
        let leads = matches!(
            action,
            Action::Create { .. }
                | Action::Promote { .. }
                | Action::Start {
                    role: StartAs::Primary,
                    ..
                }
        );
        let state = known.state();
        let rebuilt = state
            .and_then(|s| s.instances.get(&self.me.node))
            .and_then(|i| i.rebuild.as_ref())
            .map(|r| r.since_ms);
        let job = Job {
            instance: self.instance.clone(),
            kept: self.kept.clone(),
            guard: self.guard.clone(),
            clock: self.env.clock.clone(),
            plain: Settings {
                parameters: Default::default(),
                hba: Vec::new(),
                ..settings.clone()
            },
            settings,
            proven: self.upkeep.proven,
            listen: vec![self.env.options.settings.listen.to_string()],
            incarnation: local.incarnation,
            epoch: state.map_or(0, |s| s.epoch),
            lease: leads.then(|| self.lease.clone()),
            pem: (self.env.options.pem)(),
            clues: self.clues(),
        };
        tracing::info!(group = %self.group, epoch = job.epoch, "{what}: {action:?}");
        let progress: Arc<Mutex<Option<(u64, u64)>>> = Arc::default();
        let (told, tx) = (progress.clone(), self.tx.clone());
        let target = match state {
            Some(s) if s.phase == Phase::Steady => (s.system_id, s.timeline, s.target_lineage().clone()),
            _ => (state.and_then(|s| s.system_id), 0, Lineage::default()),
        };
        self.set = set;
        self.upkeep.begun(now, local.incarnation, &what);
        if matches!(
            action,
            Action::Start {
                role: StartAs::Standby { upstream: None },
                ..
            }
        ) {
            self.receiver_ended = Some(local.incarnation + 1);
        } else if matches!(action, Action::Start { .. }) {
            self.receiver_ended = None;
        }
        let handle = tokio::spawn(async move {
            let done = match action {
                Action::Create { .. } => job.create().await,
                Action::Start { role, .. } => job.start(role == StartAs::Primary).await,
                Action::Promote { .. } => job.promote().await,
                Action::Rewind { from } => job.rewind(&from, &target, rebuilt, &told).await,
                Action::Copy { from } => job.copy(&from, &target, rebuilt, &told).await,
                _ => return,
            };
            let _ = tx.send(Event::Task(done)).await;
        });
        self.task = Some(Running { what, progress, handle });
    }

    fn to(&self, names: &Names, upstream: Option<Upstream>) -> Set {
        Set {
            names: names.clone(),
            upstream,
        }
    }

    pub(super) fn task_ended(&mut self, now: Duration, outcome: Result<Outcome, String>) {
        let Some(task) = self.task.take() else { return };
        self.look_due = true;
        self.acted = Some(now);
        match outcome {
            Ok(Outcome::Started(incarnation, refused)) => {
                self.upkeep.started = Some(incarnation);
                self.upkeep.answered = false;
                if let Some(why) = refused {
                    self.complain("parameters", why);
                }
                // initdb made the directory, and a start may have changed what it says.
                if task.what == Task::Create {
                    self.disk_generation += 1;
                }
            }
            Ok(Outcome::Promoted(lineage)) => {
                tracing::info!(group = %self.group, "promoted: {lineage}");
                self.lineage = lineage;
                self.failures = 0;
            }
            Ok(Outcome::Rebuilt) => {
                tracing::info!(group = %self.group, "{}: done", task.what);
                self.failures = 0;
                self.failed = None;
                self.disk_generation += 1;
            }
            Err(why) => {
                self.disk_generation += 1;
                self.fail(now, task.what, why);
            }
        }
    }
}

impl Job {
    async fn create(mut self) -> Result<Outcome, String> {
        let epoch = self.epoch;
        self.instance.repair().await.map_err(|e| act::told(&e))?;
        tls::install(&self.instance.place, &self.instance.account, self.pem.clone())
            .await
            .map_err(|e| act::told(&e))?;
        self.instance.marks.clear_promotion().await.map_err(|e| act::told(&e))?;
        self.instance
            .marks
            .set_timelines([(1, epoch)].into())
            .await
            .map_err(|e| act::told(&e))?;
        self.instance.create(&self.plain).await.map_err(|e| act::told(&e))?;
        self.kept
            .change(|k| k.recovery = "initialised".to_owned())
            .await
            .map_err(|e| act::told(&e))?;
        self.settings.names = Names::Closed;
        self.start(true).await
    }

    fn until(&self) -> Option<Duration> {
        self.lease.as_ref().and_then(|lease| lease.borrow().until)
    }

    /// Starts the server. Whatever the parameters are, it is closed.
    async fn start(self, primary: bool) -> Result<Outcome, String> {
        let instance = &self.instance;
        tls::install(&instance.place, &instance.account, self.pem.clone())
            .await
            .map_err(|e| act::told(&e))?;
        instance.repair().await.map_err(|e| act::told(&e))?;
        // What was looked at before is not looked at again: clients wait for this start.
        let checked = if self.proven {
            Ok(())
        } else {
            instance.check(&self.settings).await
        };
        let (settings, refused) = match checked {
            Ok(()) => (&self.settings, None),
            Err(e @ PgError::Refused { .. }) => (
                &self.plain,
                Some(format!("started without the group's parameters: {e}")),
            ),
            Err(e) => return Err(act::told(&e)),
        };
        let plan = instance
            .plan_start(settings, !primary, &self.listen)
            .await
            .map_err(|e| act::told(&e))?;
        let status = self.guard.status().await.map_err(|e| e.to_string())?;
        let incarnation = status.incarnation.max(self.incarnation) + 1;
        let role = Role {
            started_primary: primary,
            primary,
        };
        self.kept
            .change(move |k| {
                k.roles.insert(incarnation, role);
            })
            .await
            .map_err(|e| act::told(&e))?;
        let until = self.until().filter(|_| primary);
        if primary && until.is_none_or(|u| u <= self.clock.boottime() + guard::QUIT_BEFORE) {
            return Err("the lease is over".to_owned());
        }
        let start = guard::Start {
            incarnation,
            program: plan.program,
            args: plan.args,
            env: plan.env,
            cwd: plan.cwd,
            run_as: plan.account.run_as(),
            log: plan.log,
            until: until.map(|u| u64::try_from(u.as_nanos()).unwrap_or(u64::MAX)),
        };
        self.guard.start(start).await.map_err(|e| e.to_string())?;
        Ok(Outcome::Started(incarnation, refused))
    }

    /// Promotes, closed. From now on the server needs a lease.
    async fn promote(self) -> Result<Outcome, String> {
        let incarnation = self.incarnation;
        let until = self.until().ok_or("there is no lease")?;
        let instance = &self.instance;
        let arm = async { self.guard.arm(incarnation, until).await.map_err(|e| e.to_string()) };
        let role = self
            .kept
            .change(move |k| k.roles.entry(incarnation).or_default().primary = true);
        // Started as a standby again, it must not stream from a former primary.
        let configure = async {
            if instance.configure(&self.settings).await? {
                instance.reload_by_signal();
            }
            Ok(())
        };
        let open = Connection::open(&instance.place, act::CONNECT);
        // None of these waits for another, and clients wait for all of them.
        let ready = async { tokio::try_join!(role, configure, open).map_err(|e| act::told(&e)) };
        let (_, ((), (), mut connection)) = tokio::try_join!(arm, ready)?;
        let promoted = control::promote(instance, &mut connection, PROMOTION)
            .await
            .map_err(|e| act::told(&e))?;
        let lineage = super::disk::lineage(instance, &promoted.history, &self.clues)
            .await
            .map_err(|e| act::told(&e))?;
        Ok(Outcome::Promoted(lineage))
    }

    async fn rewind(
        self,
        from: &Upstream,
        (system_id, timeline, lineage): &(Option<u64>, u32, Lineage),
        rebuilt: Option<i64>,
        told_progress: &Arc<Mutex<Option<(u64, u64)>>>,
    ) -> Result<Outcome, String> {
        let (instance, system_id) = (&self.instance, system_id.ok_or("the group's system id is not known")?);
        tls::install(&instance.place, &instance.account, self.pem.clone())
            .await
            .map_err(|e| act::told(&e))?;
        let (source, _) = self.settings.upstream.clone().ok_or("there is nobody to rewind to")?;
        let timeline = lineage.last().map_or(*timeline, |b| b.timeline);
        let progress = |done, all| *told_progress.lock().unwrap_or_else(PoisonError::into_inner) = Some((done, all));
        for _ in 0..SOURCE_LIMIT {
            let ended = instance
                .rewind(&source, timeline, &self.settings, system_id, &progress)
                .await
                .map_err(|e| act::told(&e))?;
            match ended {
                Rewound::Done => {
                    self.rebuilt(lineage, rebuilt, format!("rewound to {}", from.node))
                        .await?;
                    return Ok(Outcome::Rebuilt);
                }
                Rewound::NotNeeded => return Err("pg_rewind found nothing to do, and its log does not fit".to_owned()),
                Rewound::Impossible(why) | Rewound::Broken(why) => return Err(why),
                Rewound::SourceNotReady => tokio::time::sleep(SOURCE_AGAIN).await,
            }
        }
        Err(format!("{} does not show its timeline {timeline} yet", from.node))
    }

    async fn copy(
        self,
        from: &Upstream,
        (system_id, _, lineage): &(Option<u64>, u32, Lineage),
        rebuilt: Option<i64>,
        told_progress: &Arc<Mutex<Option<(u64, u64)>>>,
    ) -> Result<Outcome, String> {
        let (instance, system_id) = (&self.instance, system_id.ok_or("the group's system id is not known")?);
        tls::install(&instance.place, &instance.account, self.pem.clone())
            .await
            .map_err(|e| act::told(&e))?;
        let (source, _) = self.settings.upstream.clone().ok_or("there is nobody to copy")?;
        let progress = |done, all| *told_progress.lock().unwrap_or_else(PoisonError::into_inner) = Some((done, all));
        instance
            .copy(&source, &self.settings, system_id, &progress)
            .await
            .map_err(|e| act::told(&e))?;
        self.rebuilt(lineage, rebuilt, format!("copied from {}", from.node))
            .await?;
        Ok(Outcome::Rebuilt)
    }

    /// The directory is another one: what was known of its log is that of its source.
    async fn rebuilt(&self, lineage: &Lineage, order: Option<i64>, how: String) -> Result<(), String> {
        let timelines = lineage.0.iter().map(|b| (b.timeline, b.epoch)).collect();
        self.instance
            .marks
            .set_timelines(timelines)
            .await
            .map_err(|e| act::told(&e))?;
        let incarnation = self.incarnation;
        self.kept
            .change(move |k| {
                if let Some(role) = k.roles.get_mut(&incarnation) {
                    role.primary = false;
                }
                k.rebuilt = order.unwrap_or(k.rebuilt);
                k.recovery = how;
            })
            .await
            .map_err(|e| act::told(&e))
    }
}
