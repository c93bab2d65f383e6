//! What is done beside the decisions while an instance runs: parameters and lines kept in step, roles and databases of the
//! spec, certificates, former directories, checkpoints, slots of a standby. None of it may hold up a decision, and none
//! enables one.

use std::collections::BTreeMap;
use std::time::Duration;

use ha_core::database::floors::{self, Floors};
use ha_core::database::local::{Directory, Local, Report, Server, Task};
use ha_core::database::{GroupSpec, Lsn};

use super::act::{self, Step};
use super::driver::{Driver, Event};
use super::records::Known;
use crate::postgres::connection::Connection;
use crate::postgres::{conf, control, provision, tls};

/// Between attempts at what failed.
const AGAIN: Duration = Duration::from_secs(5);
/// Between looks whether replay stands still.
const RESUME: Duration = Duration::from_secs(1);
/// Between looks at the certificate and at slots.
const SELDOM: Duration = Duration::from_secs(15);
/// Between looks at what a standby whose replay is paused must have at least.
const FLOORS: Duration = Duration::from_secs(2);
/// A standby whose parameters are too low is started again once in this time.
pub(super) const RAISE_AGAIN: Duration = Duration::from_secs(60);
/// A checkpoint of a large cache takes long; nobody waits for it.
const CHECKPOINT: Duration = Duration::from_secs(300);
/// WAL that a standby keeps for others beyond its own position.
const MARGIN: u64 = 64 << 20;

/// A kind of upkeep; one of each at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Whether the server can use the group's parameters and lines.
    Check,
    /// The configuration as it was accepted.
    Apply,
    /// had's own roles.
    OwnRoles,
    /// Roles and databases of the spec.
    Provision,
    /// The node's certificate.
    Certificate,
    /// Former directories, which nobody needs any more.
    DropKept,
    /// A checkpoint.
    Checkpoint,
    /// Slots of a standby.
    Advance,
    /// What a standby's parameters must not be lower than.
    Floors,
    /// Replay that stands still while nothing is received.
    Resume,
}

/// Parameters and lines that the server can use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) parameters: BTreeMap<String, String>,
    pub(super) hba: Vec<String>,
}

impl Accepted {
    fn of(spec: &GroupSpec) -> Self {
        Self {
            parameters: spec.parameters.clone(),
            hba: spec.hba.clone(),
        }
    }
}

/// What upkeep remembers.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    /// What the configuration is made with.
    pub(super) accepted: Accepted,
    /// What was looked at last, accepted or not.
    checked: Option<Accepted>,
    /// The revision of the spec that the server runs with.
    pub(super) revision: u64,
    checking: u64,
    /// The server's own programs said that it can use what is accepted.
    pub(super) proven: bool,
    /// What the files were last made of, beside names and upstream.
    applied: Option<(Accepted, Vec<String>, u64, Floors)>,
    /// The incarnation that was started last by this driver, and whether it answered.
    pub(super) started: Option<u64>,
    pub(super) answered: bool,
    /// When slots were last changed.
    pub(super) slots_at: Duration,
    /// When a standby may be started again because its parameters are too low.
    pub(super) raised_at: Duration,
    own_roles: Option<u64>,
    provisioned: Option<(u64, u64)>,
    checkpointed: Option<u64>,
    running: BTreeMap<Kind, bool>,
    not_before: BTreeMap<Kind, Duration>,
}

impl Upkeep {
    /// A task begins.
    pub(super) fn begun(&mut self, _now: Duration, _incarnation: u64, what: &Task) {
        if matches!(what, Task::Start | Task::Create) {
            self.applied = None;
        }
    }

    fn may(&self, kind: Kind, now: Duration) -> bool {
        !self.running.contains_key(&kind) && self.not_before.get(&kind).is_none_or(|at| now >= *at)
    }
}

impl Driver {
    fn spawn(&mut self, kind: Kind, work: impl Future<Output = Result<(), String>> + Send + 'static) {
        self.upkeep.running.insert(kind, true);
        let tx = self.tx.clone();
        tokio::spawn(async move {
            let done = work.await;
            let _ = tx.send(Event::Upkeep(kind, done)).await;
        });
    }

    /// Begins what is due.
    pub(super) fn keep_up(&mut self, now: Duration, known: &Known, local: &Local, report: &Report) {
        let Some(spec) = &known.spec else { return };
        let whole = matches!(local.directory, Directory::Present { .. });
        let running = local.server == Server::Running;
        let idle = self.task.is_none();
        self.check_parameters(now, known, spec, whole && idle);
        if running && idle && !self.quick {
            self.apply(known);
        }
        if self.upkeep.may(Kind::Certificate, now) && idle && whole {
            self.certificate(now, running);
        }
        if !running {
            return;
        }
        if local.is_primary() {
            self.primary_upkeep(now, known, local, report, spec);
        } else if idle {
            self.look_at_floors(now, spec);
            if self.upkeep.may(Kind::Advance, now) {
                self.advance(now, known, local);
            }
        }
        let deaf = !local.is_primary() && self.set.upstream.is_some() && report.streams.is_none();
        if deaf && idle && self.upkeep.may(Kind::Resume, now) {
            self.upkeep.not_before.insert(Kind::Resume, now + RESUME);
            let place = self.instance.place.clone();
            self.spawn(Kind::Resume, async move {
                let done = async {
                    let mut connection = Connection::open(&place, act::CONNECT).await?;
                    control::resume_replay(&mut connection, act::CONNECT).await
                };
                done.await.map_err(|e| act::told(&e))
            });
        }
        let kept = self.disk.as_ref().is_some_and(|d| d.kept);
        let streams = report.streams.is_some() && report.unfit.is_none();
        if kept && streams && idle && self.upkeep.may(Kind::DropKept, now) {
            let instance = self.instance.clone();
            self.spawn(Kind::DropKept, async move {
                instance.drop_kept().await.map_err(|e| act::told(&e))
            });
        }
    }

    /// What the primary's parameters are is in the log, and in the control file once it was replayed: asked while replay
    /// stands still, which may be for that, and while more is set here than the group wants, which may be over.
    fn look_at_floors(&mut self, now: Duration, spec: &GroupSpec) {
        let status = self.status();
        let paused = status
            .and_then(|s| self.present_look(&s))
            .is_some_and(|l| l.probe.paused);
        let control = self.disk.as_ref().and_then(|d| d.control.as_ref());
        let more = control.is_some_and(|c| !floors::lower(&floors::wanted(&spec.parameters), &c.floors).is_empty());
        if !(paused || more) || !self.upkeep.may(Kind::Floors, now) {
            return;
        }
        self.upkeep.not_before.insert(Kind::Floors, now + FLOORS);
        let (instance, events) = (self.instance.clone(), self.tx.clone());
        self.spawn(Kind::Floors, async move {
            let control = instance.control().await.map_err(|e| act::told(&e))?;
            let _ = events.send(Event::Floors(control.floors)).await;
            Ok(())
        });
    }

    /// Parameters and lines of the spec are taken over once the server's own programs say that it can use them.
    fn check_parameters(&mut self, now: Duration, known: &Known, spec: &GroupSpec, can_ask: bool) {
        let wanted = Accepted::of(spec);
        if self.upkeep.checked.as_ref() == Some(&wanted) {
            self.upkeep.revision = self.upkeep.revision.max(known.revision);
            return;
        }
        if !can_ask {
            // A new directory begins with them; whether it can use them is seen at its start.
            if self.upkeep.checked.is_none() {
                let good =
                    conf::parameters::checked(&wanted.parameters).is_ok() && conf::access::checked(&wanted.hba).is_ok();
                if good {
                    self.upkeep.accepted = wanted;
                }
            }
            return;
        }
        if !self.upkeep.may(Kind::Check, now) {
            return;
        }
        let before = std::mem::replace(&mut self.upkeep.accepted, wanted.clone());
        let settings = self.settings(known, &self.set.clone());
        self.upkeep.accepted = before;
        let Ok(settings) = settings else { return };
        self.upkeep.checking = known.revision;
        self.upkeep.checked = Some(wanted);
        let instance = self.instance.clone();
        self.spawn(Kind::Check, async move {
            instance.check(&settings).await.map_err(|e| act::told(&e))
        });
    }

    /// Writes the configuration anew when something in it changed that no decision names.
    fn apply(&mut self, known: &Known) {
        let Ok(settings) = self.settings(known, &self.set) else {
            return;
        };
        let now = (
            self.upkeep.accepted.clone(),
            settings.nodes.iter().cloned().collect::<Vec<_>>(),
            settings.slot_keep,
            settings.least,
        );
        if self.upkeep.applied.as_ref() == Some(&now) || self.upkeep.running.contains_key(&Kind::Apply) {
            return;
        }
        self.upkeep.applied = Some(now);
        // As a short step, so that no other writes the files at the same time.
        self.quick = true;
        let (instance, tx) = (self.instance.clone(), self.tx.clone());
        tokio::spawn(async move {
            let step = Step::Configure(Box::new(settings));
            let done = act::step(&instance, step, &super::disk::Clues::default(), true).await;
            let done = done.map(|did| vec![did]).map_err(|e| act::told(&e));
            let _ = tx.send(Event::Quick(done)).await;
        });
    }

    fn certificate(&mut self, now: Duration, running: bool) {
        self.upkeep.not_before.insert(Kind::Certificate, now + SELDOM);
        let (instance, pem) = (self.instance.clone(), (self.env.options.pem)());
        self.spawn(Kind::Certificate, async move {
            let changed = tls::install(&instance.place, &instance.account, pem).await;
            if changed.map_err(|e| act::told(&e))? && running {
                instance.reload_by_signal();
            }
            Ok(())
        });
    }

    fn primary_upkeep(&mut self, now: Duration, known: &Known, local: &Local, report: &Report, spec: &GroupSpec) {
        let incarnation = local.incarnation;
        let place = self.instance.place.clone();
        if self.upkeep.own_roles != Some(incarnation) && self.upkeep.may(Kind::OwnRoles, now) {
            self.upkeep.own_roles = Some(incarnation);
            let place = place.clone();
            self.spawn(Kind::OwnRoles, async move {
                let made = async {
                    let mut connection = Connection::open(&place, act::CONNECT).await?;
                    provision::own_roles(&mut connection).await
                };
                made.await.map_err(|e| act::told(&e))
            });
        }
        let open = report.primary.as_ref().is_some_and(|p| p.open);
        if !open {
            return;
        }
        // A standby that is rewound needs the new timeline in the control file.
        if local.promoted.is_some() && self.upkeep.checkpointed != Some(incarnation) {
            self.upkeep.checkpointed = Some(incarnation);
            self.checkpoint();
        }
        let wanted = (incarnation, known.revision);
        if self.upkeep.provisioned != Some(wanted) && self.upkeep.may(Kind::Provision, now) {
            self.upkeep.provisioned = Some(wanted);
            let (roles, databases, group) = (spec.roles.clone(), spec.databases.clone(), self.group.clone());
            self.spawn(Kind::Provision, async move {
                let made = async {
                    let mut connection = Connection::open(&place, act::CONNECT).await?;
                    let mut done = provision::roles(&mut connection, &roles).await?;
                    done.extend(provision::databases(&place, &mut connection, &databases).await?);
                    Ok::<_, crate::postgres::PgError>(done)
                };
                for line in made.await.map_err(|e| act::told(&e))? {
                    tracing::info!(group, "{line}");
                }
                Ok(())
            });
        }
    }

    /// Runs a checkpoint, and reads where recovery would begin after it.
    pub(super) fn checkpoint(&mut self) {
        if self.upkeep.running.contains_key(&Kind::Checkpoint) {
            return;
        }
        let (instance, events) = (self.instance.clone(), self.tx.clone());
        self.spawn(Kind::Checkpoint, async move {
            let done = async {
                let mut connection = Connection::open(&instance.place, act::CONNECT).await?;
                control::checkpoint(&mut connection, CHECKPOINT).await?;
                instance.control().await
            };
            let control = done.await.map_err(|e| act::told(&e))?;
            let _ = events.send(Event::Redo(Some(control.redo))).await;
            Ok(())
        });
    }

    /// A standby's slots follow its own replay at a distance: what others may still lack of it they have long since, or
    /// are copied afresh.
    fn advance(&mut self, now: Duration, known: &Known, local: &Local) {
        self.upkeep.not_before.insert(Kind::Advance, now + SELDOM);
        let keep = known
            .spec
            .as_ref()
            .map_or(MARGIN, |s| (s.limits.slot_retention / 8).max(MARGIN));
        let Some(to) = local.replayed.0.checked_sub(keep) else {
            return;
        };
        let behind = local.slots.iter().filter(|(_, held)| **held > keep);
        let slots: Vec<_> = behind
            .filter_map(|(node, _)| Some((control::slot_name(node).ok()?, Lsn(to))))
            .collect();
        if slots.is_empty() {
            return;
        }
        let instance = self.instance.clone();
        self.spawn(Kind::Advance, async move {
            act::advance(&instance, &slots).await.map_err(|e| act::told(&e))
        });
    }

    pub(super) fn upkept(&mut self, now: Duration, kind: Kind, done: Result<(), String>) {
        self.upkeep.running.remove(&kind);
        let name = match kind {
            Kind::Check => "parameters",
            Kind::Apply => "configuration",
            Kind::OwnRoles => "roles of had",
            Kind::Provision => "roles and databases",
            Kind::Certificate => "certificate",
            Kind::DropKept => "former directories",
            Kind::Checkpoint => "checkpoint",
            Kind::Advance => "slots",
            Kind::Floors => "control file",
            Kind::Resume => "replay",
        };
        match done {
            Ok(()) => {
                self.errors.remove(name);
                match kind {
                    Kind::Check => {
                        if let Some(checked) = self.upkeep.checked.clone() {
                            self.upkeep.accepted = checked;
                            self.upkeep.proven = true;
                            self.upkeep.revision = self.upkeep.checking;
                        }
                    }
                    Kind::DropKept => {
                        if let Some(disk) = &mut self.disk {
                            disk.kept = false;
                        }
                    }
                    _ => {}
                }
            }
            Err(why) => {
                self.upkeep.not_before.insert(kind, now + AGAIN);
                match kind {
                    Kind::OwnRoles => self.upkeep.own_roles = None,
                    Kind::Provision => self.upkeep.provisioned = None,
                    _ => {}
                }
                self.complain(name, why);
            }
        }
    }
}
