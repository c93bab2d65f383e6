//! One instance, run by core's decisions: everything that changed is gathered, the core decides, its steps are begun.
//!
//! The loop itself waits for nothing but news: looks, files, short steps and tasks run beside it and report back. A step
//! that failed is decided again from what is seen then. Deadlines go to the guard by themselves, whatever hangs here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ha_core::database::floors::Floors;
use ha_core::database::local::{Local, Server, Task};
use ha_core::database::member::{self, Action, MemberDecision, Situation};
use ha_core::database::{Lineage, Lsn, Phase, Weaken};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use super::act::{Did, Set};
use super::disk::Disk;
use super::events::FIRST_PAUSE;
use super::gather::NamesSeen;
use super::kept::KeptStore;
use super::look::{Looked, Target, Writes};
use super::nodes::Nodes;
use super::records::Known;
use super::tasks::Outcome;
use super::{Env, GrantAsk};
use crate::coordination::Lease;
use crate::guard::{self, State, Status};
use crate::postgres::instance::Instance;
use crate::shared::Me;

/// The loop looks at everything at the latest after this time.
const TICK: Duration = Duration::from_millis(250);
/// What was done must show in a look within this time; then it is decided again all the same.
const SHOWS: Duration = Duration::from_millis(1500);
/// An instance that is not wanted, and does not run, is given up after this time.
const RETIRE: Duration = Duration::from_secs(3);
/// Files of a server that is stopped are looked at anew after so long.
const FILES_EVERY: Duration = Duration::from_secs(10);

/// What a driver is told.
#[derive(Debug)]
pub(super) enum Input {
    /// Report, measured afresh.
    Query(u64),
    /// Run a checkpoint.
    Checkpoint,
    /// Stop this incarnation; what follows the record starts it again.
    Restart(u64),
    /// A primary asks for a grant.
    Grant(GrantAsk),
}

/// What ran beside the loop reports.
pub(super) enum Event {
    /// The files were looked at, as of this generation.
    Disk(u64, Result<Disk, String>),
    /// The history of the timeline that runs.
    History(Result<Lineage, String>),
    /// Short steps ended.
    Quick(Result<Vec<Did>, String>),
    /// A task ended.
    Task(Result<Outcome, String>),
    /// A grant came: of whom, and up to when it counts.
    Granted(String, Duration),
    /// The redo position after a checkpoint.
    Redo(Option<Lsn>),
    /// The values that a standby's parameters must not be lower than.
    Floors(Floors),
    /// Upkeep ended, with what an operator should know.
    Upkeep(super::upkeep::Kind, Result<(), String>),
}

/// A task that runs.
pub(super) struct Running {
    /// Which.
    pub(super) what: Task,
    /// Bytes done and in all.
    pub(super) progress: Arc<Mutex<Option<(u64, u64)>>>,
    pub(super) handle: JoinHandle<()>,
}

/// The driver of one group's instance on this node.
pub(super) struct Driver {
    pub(super) env: Arc<Env>,
    pub(super) me: Arc<Me>,
    pub(super) group: String,
    pub(super) instance: Instance,
    pub(super) kept: KeptStore,
    pub(super) guard: Arc<guard::Client>,
    pub(super) known: watch::Receiver<Known>,
    pub(super) nodes: watch::Receiver<Nodes>,
    pub(super) lease: watch::Receiver<Lease>,
    pub(super) view: watch::Receiver<guard::View>,
    pub(super) looked: watch::Receiver<Looked>,
    pub(super) writes: watch::Receiver<Writes>,
    pub(super) target: watch::Sender<Target>,
    pub(super) kick: Arc<Notify>,
    /// The next look is due at once.
    pub(super) look_due: bool,
    /// What a step has just seen in force, for the next look.
    pub(super) seen: super::look::Seen,
    pub(super) inputs: mpsc::Receiver<Input>,
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) tx: mpsc::Sender<Event>,
    pub(super) helpers: Vec<JoinHandle<()>>,

    pub(super) disk: Option<Disk>,
    /// The state of the server that the files were looked at in, and the generation of that look.
    pub(super) disk_state: (u64, bool),
    pub(super) disk_generation: u64,
    pub(super) disk_seen: u64,
    pub(super) disk_looking: bool,
    pub(super) disk_at: Duration,
    pub(super) lineage: Lineage,
    pub(super) history_looking: bool,
    pub(super) set: Set,
    pub(super) names_seen: Option<NamesSeen>,
    pub(super) recovered: Option<(u64, Lsn)>,
    pub(super) receiver_ended: Option<u64>,
    pub(super) redo: Option<Lsn>,
    pub(super) granted_until: Option<Duration>,
    pub(super) grants_held: BTreeMap<String, Duration>,
    pub(super) grants_asked: Option<Duration>,
    /// The end of the last lease there was.
    pub(super) leased: Option<Duration>,
    pub(super) quick: bool,
    /// When the last short step ended: it must show in a look that began after that.
    pub(super) acted: Option<Duration>,
    pub(super) task: Option<Running>,
    pub(super) failed: Option<(Task, String)>,
    pub(super) failures: u32,
    pub(super) not_before: Duration,
    pub(super) revision: u64,
    /// The last stop that was asked for: of which incarnation, whether at once, and when.
    pub(super) stop_sent: Option<(u64, bool, Duration)>,
    pub(super) query: u64,
    pub(super) query_at: Option<Duration>,
    pub(super) errors: BTreeMap<&'static str, String>,
    pub(super) upkeep: super::upkeep::Upkeep,
    pub(super) published: Option<ha_proto::v1::InstanceReport>,
    pub(super) published_at: Duration,
    pub(super) told: (Vec<String>, Vec<String>),
    /// Since when no instance is wanted here and none runs.
    pub(super) unwanted: Option<Duration>,
}

impl Drop for Driver {
    fn drop(&mut self) {
        for helper in self.helpers.drain(..).chain(self.task.take().map(|t| t.handle)) {
            helper.abort();
        }
    }
}

impl Driver {
    /// Runs until it is dropped, and the server goes on; or until no instance is wanted here and none runs.
    pub(super) async fn run(&mut self) {
        loop {
            let now = self.now();
            self.note_look();
            self.follow_guard(now);
            if std::mem::take(&mut self.look_due) {
                self.kick.notify_one();
            }
            self.look_at_files(now);
            let next = self.decide(now);
            if self.unwanted.is_some_and(|since| now >= since + RETIRE) {
                return;
            }
            let wait = next
                .map_or(TICK, |at| at.saturating_sub(now))
                .clamp(Duration::from_millis(2), TICK);
            tokio::select! {
                biased;
                Some(event) = self.events.recv() => self.take(event),
                changed = self.known.changed() => if changed.is_err() { return },
                changed = self.view.changed() => if changed.is_err() { return },
                changed = self.looked.changed() => if changed.is_err() { return },
                input = self.inputs.recv() => match input {
                    Some(input) => self.hear(input),
                    None => return,
                },
                changed = self.writes.changed() => if changed.is_err() { return },
                changed = self.lease.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(wait) => {}
            }
            // Whatever else came at the same time is decided upon together.
            while let Ok(event) = self.events.try_recv() {
                self.take(event);
            }
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.env.clock.boottime()
    }

    /// Points the looks at what runs, and notes that the files are of another state.
    fn follow_guard(&mut self, now: Duration) {
        let _ = self.view.borrow_and_update();
        self.leased = self.leased.max(self.lease.borrow_and_update().until);
        let Some(status) = self.status() else { return };
        let idle = status.state == State::Idle;
        let state = (status.incarnation, idle);
        if self.disk_state != state {
            let started = self.disk_state.0 != status.incarnation;
            // A start changes nothing that was read before it; everything else does.
            if idle || !started || self.disk.is_none() {
                self.disk_generation += 1;
            }
            if idle {
                self.stop_sent = None;
                self.names_seen = None;
                // It was started and never answered: it ended by itself.
                if self.upkeep.started == Some(status.incarnation) && !self.upkeep.answered {
                    let exit = status.exit.map_or_else(String::new, |e| format!(": it {e}"));
                    let why = format!(
                        "it ended before it answered{exit}; see {}",
                        self.instance.place.start_log().display()
                    );
                    self.fail(now, Task::Start, why);
                }
            }
            self.disk_state = state;
        }
        if self.present_look(&status).is_some() && self.upkeep.started == Some(status.incarnation) {
            self.upkeep.answered = true;
        }
        let primary = self.present_look(&status).is_some_and(|l| !l.probe.standby);
        let known = self.known.borrow();
        let open = known.state().is_some_and(|s| s.may_open(&self.me.node));
        let calm = known.state().is_some_and(|s| s.phase == Phase::Steady && !s.joint());
        let unanswered = self.acted.is_some();
        // Where the log was when the names were first seen is told with what is in force.
        let unplaced = primary && self.names_seen.is_none();
        let target = Target {
            incarnation: (status.state == State::Running).then_some(status.incarnation),
            soon: !calm || unanswered || !self.is_settled(),
            force: unplaced || self.query_at.is_some() || !self.is_in_force(&status),
            // What it would see is over before anything is decided upon it.
            hold: self.quick,
            write: primary && open,
        };
        drop(known);
        self.target.send_if_modified(|t| std::mem::replace(t, target) != target);
    }

    /// Nothing is under way with this instance.
    fn is_settled(&self) -> bool {
        self.told.0.is_empty() && self.task.is_none() && !self.quick
    }

    /// What was set last is what the last look found in force.
    fn is_in_force(&self, status: &Status) -> bool {
        self.present_look(status).is_some_and(|look| {
            let upstream = look.force.upstream.map(super::disk::upstream);
            look.force.names == self.set.names && upstream == self.set.upstream
        })
    }

    /// Whether what was read from the files still holds.
    pub(super) fn disk_is_of(&self, _status: &Status) -> bool {
        self.disk.is_some() && self.disk_seen == self.disk_generation
    }

    fn look_at_files(&mut self, now: Duration) {
        let Some(status) = self.status() else { return };
        if self.known.borrow().read.is_none() || self.task.is_some() {
            return;
        }
        let aged = status.state == State::Idle && now >= self.disk_at + FILES_EVERY;
        let wanted = self.disk_seen != self.disk_generation || aged;
        // Where a look failed it is tried again, not at once.
        if wanted && !self.disk_looking && (!self.errors.contains_key("files") || now >= self.disk_at + FIRST_PAUSE) {
            self.disk_looking = true;
            let (instance, clues, tx) = (self.instance.clone(), self.clues(), self.tx.clone());
            let generation = self.disk_generation;
            tokio::spawn(async move {
                let seen = super::disk::look(&instance, &clues).await.map_err(|e| e.to_string());
                let _ = tx.send(Event::Disk(generation, seen)).await;
            });
        }
        let Some(look) = self.present_look(&status) else { return };
        let timeline = if look.probe.standby {
            let streams = look.probe.receiver.as_ref().filter(|r| r.status == "streaming");
            streams.map(|r| r.timeline).filter(|t| *t > self.lineage.timeline())
        } else {
            look.probe.timeline.filter(|t| *t != self.lineage.timeline())
        };
        if let Some(timeline) = timeline
            && !self.history_looking
            && self.disk.is_some()
        {
            self.history_looking = true;
            let (instance, mut clues, tx) = (self.instance.clone(), self.clues(), self.tx.clone());
            clues.upstream = look
                .probe
                .receiver
                .as_ref()
                .and_then(|r| r.upstream.clone())
                .map(super::disk::upstream);
            tokio::spawn(async move {
                let read = async {
                    let history = instance.history(timeline).await?;
                    super::disk::lineage(&instance, &history, &clues).await
                };
                let read = read.await.map_err(|e| e.to_string());
                let _ = tx.send(Event::History(read)).await;
            });
        }
    }

    pub(super) fn clues(&self) -> super::disk::Clues {
        let known = self.known.borrow();
        let lineages = known.state().map_or_else(Vec::new, |s| {
            let promotion = s.promotion.iter().map(|p| p.lineage.clone());
            [s.lineage.clone()].into_iter().chain(promotion).collect()
        });
        super::disk::Clues {
            lineages,
            upstream: None,
        }
    }

    /// Lets the core decide, reports, and begins what is to be done. Returns when to decide again at the latest.
    fn decide(&mut self, now: Duration) -> Option<Duration> {
        let known = self.known.borrow_and_update().clone();
        let revision = known.read.as_ref().map_or(0, |r| r.revision);
        if revision != self.revision {
            self.revision = revision;
            self.failed = None;
            self.failures = 0;
            self.not_before = Duration::ZERO;
        }
        let Some(local) = self.gather(now) else {
            self.publish_unknown(now);
            return None;
        };
        let weaken = Weaken::default();
        let situation = Situation {
            local: &local,
            record: known.read.as_ref(),
            spec: known.spec.as_ref(),
            now,
            timing: &self.env.timing,
            weaken: &weaken,
        };
        let decision = member::decide(&situation);
        let report = member::report(&situation);
        if let Some(until) = decision.deadline
            && local.lease_until.is_none_or(|lease| until > lease)
        {
            self.guard.granted(until);
        }
        self.tell(&decision, &local);
        self.publish(now, &known, &local, &report);
        if !local.insufficient.is_empty() && decision.actions.iter().any(|a| matches!(a, Action::Stop { .. })) {
            self.upkeep.raised_at = now + super::upkeep::RAISE_AGAIN;
        }
        self.begin(now, &known, &local, decision.clone());
        self.keep_up(now, &known, &local, &report);
        let gone = known.read.is_some() && !known.concerns(&self.me.node);
        let idle = local.server == Server::Stopped && self.task.is_none() && !self.quick;
        self.unwanted = (gone && idle).then(|| self.unwanted.unwrap_or(now));
        decision.look_at
    }

    /// Logs what changed of what it does and waits for.
    fn tell(&mut self, decision: &MemberDecision, local: &Local) {
        let acts: Vec<String> = decision.actions.iter().map(|a| format!("{a:?}")).collect();
        let told = (acts, decision.waits.clone());
        if told != self.told {
            tracing::debug!(group = %self.group, server = ?local.server, acts = ?told.0, waits = ?told.1, "decided");
            self.told = told;
        }
    }

    fn begin(&mut self, now: Duration, known: &Known, local: &Local, decision: MemberDecision) {
        let stop = decision.actions.iter().any(|a| matches!(a, Action::Stop { .. }));
        let ends_senders = decision.actions.iter().find_map(|a| match a {
            Action::EndWalsenders { except } => Some(except.clone()),
            _ => None,
        });
        for action in &decision.actions {
            match action {
                Action::Stop { immediate, why } => {
                    let first = ends_senders.clone().map(|n| (n, known.state().map_or(0, |s| s.epoch)));
                    self.stop(known, *immediate, why, first);
                }
                Action::Reap => self.stop(known, true, "its postmaster is gone", None),
                Action::AskGrants { of, epoch } => self.ask_grants(now, of, *epoch),
                _ => {}
            }
        }
        if stop || self.quick || !self.shown(now) {
            return;
        }
        let steps: Vec<&Action> = decision.actions.iter().filter(|a| super::act::is_short(a)).collect();
        if !steps.is_empty() {
            if now >= self.not_before {
                self.short(now, known, local, &steps);
            }
            return;
        }
        // Nothing long is begun on what the files said before the last change of them.
        let stale = self.disk_seen != self.disk_generation;
        if self.task.is_some() || stale || now < self.not_before {
            return;
        }
        if let Some(action) = decision.actions.into_iter().find(super::tasks::is_long) {
            self.long(now, known, local, action);
        }
    }

    /// Whether what was done last shows in a look that began after it.
    fn shown(&mut self, now: Duration) -> bool {
        let Some(acted) = self.acted else { return true };
        let running = self.status().is_some_and(|s| s.state == State::Running);
        let looked = self.looked.borrow();
        let shows = looked.look.as_ref().is_some_and(|l| l.began >= acted);
        drop(looked);
        if shows || !running || now >= acted + SHOWS {
            self.acted = None;
        }
        self.acted.is_none()
    }
}
