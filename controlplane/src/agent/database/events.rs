//! What reaches a driver from what runs beside it and from the master, and how a stop is begun.

use std::time::Duration;

use ha_core::database::Lineage;
use ha_core::database::local::{Local, Server, Task};

use super::act::{Did, Set};
use super::driver::{Driver, Event, Input};
use super::lock;
use super::records::Known;
use crate::guard::{self, State};

/// Pauses after what failed: doubled up to the longest.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(300);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// A stop that the guard did not take is asked for again.
const STOP_AGAIN: Duration = Duration::from_secs(2);

impl Driver {
    /// A task or step failed: it is decided again after a pause.
    pub(super) fn fail(&mut self, now: Duration, task: Task, why: String) {
        tracing::warn!(group = %self.group, "{task} failed: {why}");
        self.failures += 1;
        self.not_before = now + (FIRST_PAUSE * 2u32.pow(self.failures.min(8) - 1)).min(LONGEST_PAUSE);
        self.failed = Some((task, why));
    }

    pub(super) fn take(&mut self, event: Event) {
        let now = self.now();
        match event {
            Event::Disk(generation, seen) => {
                self.disk_looking = false;
                self.disk_at = now;
                match seen {
                    Ok(disk) => {
                        self.errors.remove("files");
                        if generation == self.disk_generation {
                            self.disk_seen = generation;
                            let running = self.status().is_some_and(|s| s.state != State::Idle);
                            if !running || self.disk.is_none() {
                                self.set = Set {
                                    names: disk.names.clone(),
                                    upstream: disk.upstream.clone(),
                                };
                            }
                            if let Some((_, lineage)) = &disk.log {
                                self.lineage = lineage.clone();
                            } else {
                                self.lineage = Lineage::default();
                            }
                            self.disk = Some(disk);
                        }
                    }
                    Err(e) => self.complain("files", e),
                }
            }
            Event::History(read) => {
                self.history_looking = false;
                match read {
                    Ok(lineage) => {
                        tracing::info!(group = %self.group, "its log's timelines: {lineage}");
                        self.lineage = lineage;
                        self.errors.remove("history");
                    }
                    Err(e) => self.complain("history", e),
                }
            }
            Event::Quick(done) => {
                self.quick = false;
                let marked = done
                    .as_ref()
                    .is_ok_and(|did| did.iter().all(|d| matches!(d, Did::Marked)));
                if !marked {
                    self.acted = Some(now);
                    self.look_due = true;
                }
                match done {
                    Ok(did) => {
                        self.errors.remove("step");
                        self.failures = 0;
                        for did in did {
                            if let Did::ReceiverEnded(incarnation, force) = did {
                                self.receiver_ended = Some(incarnation);
                                // The look that follows need not ask again: it costs the server a process.
                                *lock(&self.seen) = Some((incarnation, force));
                            }
                        }
                    }
                    Err(e) => {
                        self.complain("step", e);
                        self.failures += 1;
                        self.not_before = now + (FIRST_PAUSE / 10 * 2u32.pow(self.failures.min(6) - 1));
                    }
                }
            }
            Event::Task(outcome) => self.task_ended(now, outcome),
            Event::Granted(node, until) => {
                let held = self.grants_held.entry(node).or_default();
                *held = until.max(*held);
            }
            Event::Redo(redo) => self.redo = redo.or(self.redo),
            Event::Floors(floors) => {
                if let Some(control) = self.disk.as_mut().and_then(|d| d.control.as_mut()) {
                    control.floors = floors;
                }
            }
            Event::Upkeep(kind, done) => self.upkept(now, kind, done),
        }
    }

    pub(super) fn complain(&mut self, of: &'static str, why: String) {
        if self.errors.get(of) != Some(&why) {
            tracing::warn!(group = %self.group, "{why}");
            self.errors.insert(of, why);
        }
    }

    pub(super) fn hear(&mut self, input: Input) {
        match input {
            Input::Query(id) => {
                self.query = self.query.max(id);
                self.query_at = Some(self.now());
                self.look_due = true;
            }
            Input::Checkpoint => self.checkpoint(),
            Input::Restart(incarnation) => {
                let status = self.status();
                if status.is_some_and(|s| s.incarnation == incarnation && s.state == State::Running) {
                    let known = self.known.borrow().clone();
                    self.stop(&known, false, "an operator wants it restarted", None);
                }
            }
            Input::Grant(ask) => self.grant(ask),
        }
    }

    /// Begins a stop: the guard is asked once for each incarnation, and once more if it is to be harder.
    pub(super) fn stop(&mut self, known: &Known, immediate: bool, why: &str, first: Option<(String, u64)>) {
        let Some(status) = self.status() else { return };
        let now = self.now();
        let asked = |s: (u64, bool, Duration)| s.0 == status.incarnation && s.1 >= immediate && now < s.2 + STOP_AGAIN;
        if status.state == State::Idle || self.stop_sent.is_some_and(asked) {
            return;
        }
        self.stop_sent = Some((status.incarnation, immediate, now));
        if let Some(task) = self.task.take_if(|t| matches!(t.what, Task::Promote | Task::Start)) {
            task.handle.abort();
        }
        tracing::info!(group = %self.group, incarnation = status.incarnation, immediate, "PostgreSQL is stopped: {why}");
        let limit = known.spec.as_ref().map_or(10_000, |s| s.limits.stop_timeout_ms);
        let order = if immediate {
            guard::Stop::immediate(status.incarnation)
        } else {
            guard::Stop::fast(status.incarnation, Duration::from_millis(limit))
        };
        let (guard, instance) = (self.guard.clone(), self.instance.clone());
        tokio::spawn(async move {
            if let Some((except, epoch)) = first {
                let step = super::act::Step::EndSenders(except, epoch);
                let clues = super::disk::Clues::default();
                if let Err(e) = super::act::step(&instance, step, &clues, true).await {
                    tracing::debug!("walsenders: {e}");
                }
            }
            for _ in 0..3 {
                match guard.stop(order).await {
                    Ok(_) | Err(guard::GuardError::Refused { .. }) => return,
                    Err(e) => tracing::warn!("a stop was not taken: {e}"),
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
    }

    /// Whether the server takes clients as the record's primary, with a lease that lasts.
    pub(super) fn leads(&self, now: Duration, local: &Local, open: bool) -> bool {
        let until = self.status().and_then(|s| s.until).map(Duration::from_nanos);
        open && local.server == Server::Running && until.is_some_and(|u| now < u)
    }
}
