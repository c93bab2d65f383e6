//! A daemon where it leads: it raises the term, seals the record, gathers what agents report, lets the core decide and
//! writes what was decided by compare-and-set.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use ha_core::Presence;
use ha_core::database::group;
use ha_core::database::local::Report;
use ha_core::database::observed::{Candidate, Decision, Memory, Observed, Order, Seen};

use super::daemon::{Wake, micros};
use super::world::{MS, N, Time, World};
use super::zookeeper::{Ask, SessionId, Stored, View};

/// How often a master decides without cause.
const LEAD_EVERY: Time = 200 * MS;
/// After sealing, agents have so long to find the master before their silence counts.
const GRACE: Time = 600 * MS;
/// An answer of ZooKeeper is overdue after so long.
const OVERDUE: Time = 700 * MS;

/// A mastership.
#[derive(Debug)]
pub struct Master {
    session: SessionId,
    term: Option<u64>,
    record: Option<Stored>,
    /// The write that is under way: its number, and what it makes of the record.
    writing: Option<(u64, Rc<ha_core::database::GroupState>, Vec<String>)>,
    observed: Observed,
    memory: Memory,
    numbers: BTreeMap<N, u64>,
    /// When it decides next, in true time.
    waking: Option<Time>,
    /// When the term was asked for, on its clock.
    asked: Duration,
    /// What it last said.
    said: Vec<String>,
    /// ZooKeeper was silent for a while.
    missed: bool,
}

impl World {
    /// A read of ZooKeeper reaches a daemon: is it for leading, and what does it change?
    pub fn master_views(&mut self, n: N, session: SessionId, view: &View, fresh: bool) {
        let now = Duration::from_micros(self.clock(n));
        let leads = view.leader == Some(session);
        let Some(daemon) = self.daemons[n].as_mut() else { return };
        if !leads {
            if daemon.master.take().is_some() {
                self.say(Some(n), format_args!("leads no more"));
            }
            return;
        }
        let Some(master) = daemon.master.as_mut() else {
            daemon.master = Some(Box::new(Master {
                session,
                term: None,
                record: None,
                writing: None,
                observed: Observed::default(),
                memory: Memory::default(),
                numbers: BTreeMap::new(),
                waking: None,
                asked: now,
                said: Vec::new(),
                missed: false,
            }));
            self.ask_zookeeper(n, session, Ask::RaiseTerm);
            return;
        };
        let Some(term) = master.term else {
            if now > master.asked + Duration::from_micros(OVERDUE) {
                master.asked = now;
                self.ask_zookeeper(n, session, Ask::RaiseTerm);
            }
            return;
        };
        if view.term > term {
            daemon.master = None;
            return;
        }
        for (name, registered) in self.scene.names.iter().zip(view.registered.iter()) {
            let seen = master.observed.instances.entry(name.clone()).or_default();
            seen.registered = registered.is_some();
            seen.absent_since = match registered {
                Some(_) => None,
                None => seen.absent_since.or(Some(now)),
            };
        }
        let newer = master.record.as_ref().is_none_or(|r| r.version < view.record.version);
        if newer && (fresh || master.record.is_some()) {
            master.record = Some(view.record.clone());
            master.observed.sealed = view.record.term == term;
            // Whatever was being written failed, or is what was read.
            master.writing = None;
        }
        self.lead_soon(n);
    }

    /// The term is raised: the record is to be sealed.
    pub fn raised(&mut self, n: N, session: SessionId, term: u64) {
        let Some(daemon) = self.daemons[n].as_mut() else { return };
        let Some(master) = daemon.master.as_mut().filter(|m| m.session == session) else {
            return;
        };
        master.term = master.term.max(Some(term));
        self.say(Some(n), format_args!("leads in term {term}"));
        self.ask_zookeeper(n, session, Ask::Fresh);
    }

    fn lead_soon(&mut self, n: N) {
        let after = self.between(MS / 10, 2 * MS);
        self.wake_master(n, after);
    }

    /// A report arrives.
    pub fn master_hears(&mut self, n: N, from: N, number: u64, report: Report) {
        let now = Duration::from_micros(self.clock(n));
        let name = self.scene.names[from].clone();
        let Some(master) = self.daemons[n].as_mut().and_then(|d| d.master.as_mut()) else {
            return;
        };
        let last = master.numbers.entry(from).or_default();
        if *last >= number {
            return;
        }
        *last = number;
        let seen = master.observed.instances.entry(name).or_default();
        seen.report = Some((report, now));
        seen.stream_open = true;
        seen.stream_broken = None;
        self.lead_soon(n);
    }

    /// A report stream was reset.
    pub fn stream_broke(&mut self, n: N, from: N) {
        let now = Duration::from_micros(self.clock(n));
        let name = &self.scene.names[from];
        let Some(master) = self.daemons[n].as_mut().and_then(|d| d.master.as_mut()) else {
            return;
        };
        if let Some(seen) = master.observed.instances.get_mut(name) {
            seen.stream_open = false;
            seen.stream_broken = seen.stream_broken.or(Some(now));
        }
        self.lead_soon(n);
    }

    /// A master decides.
    pub fn lead(&mut self, n: N) {
        let clock = self.clock(n);
        let wall = i64::try_from((self.now + self.machines[n].wall_offset) / MS).unwrap_or_default();
        let Some(daemon) = self.daemons[n].as_mut() else { return };
        let over = daemon.lease_until.is_none_or(|until| until <= clock);
        let silent = clock.saturating_sub(daemon.zk_heard);
        let Some(master) = daemon.master.as_mut() else { return };
        if master.waking.is_none_or(|at| at > self.now) {
            // It was woken earlier than this, or is a new one.
            return;
        }
        master.waking = None;
        if over {
            daemon.master = None;
            self.say(Some(n), format_args!("its lease is over: leads no more"));
            return;
        }
        let Some(term) = master.term else { return };
        if silent > 1000 * MS {
            master.missed = true;
        } else if master.missed {
            master.missed = false;
            master.observed.settled_at = Duration::from_micros(clock + GRACE);
        }
        if master.writing.is_some() {
            return;
        }
        let Some(record) = master.record.clone() else {
            let session = master.session;
            self.ask_zookeeper(n, session, Ask::Fresh);
            return;
        };
        if record.term > term {
            daemon.master = None;
            return;
        }
        if record.term < term {
            self.write(n, term, &record, record.state.clone(), Vec::new());
            return;
        }
        let observed = &mut master.observed;
        if !observed.sealed || observed.settled_at.is_zero() {
            observed.sealed = true;
            observed.settled_at = Duration::from_micros(clock + GRACE);
        }
        observed.now = Duration::from_micros(clock);
        observed.now_ms = wall;
        observed.requests.clone_from(&self.requests);
        observed.maintenance = self.maintenance;
        observe_candidates(observed, &self.scene.names);
        let decision = group::decide(
            &self.scene.spec,
            &record.state,
            &master.observed,
            &mut master.memory,
            &self.scene.timing,
            &self.scene.weaken,
        );
        self.decided(n, term, &record, decision);
    }

    fn decided(&mut self, n: N, term: u64, record: &Stored, decision: Decision) {
        let clock = self.clock(n);
        let keeps = self.trace.keeps();
        let Some(master) = self.daemons[n].as_mut().and_then(|d| d.master.as_mut()) else {
            return;
        };
        if keeps && master.said != decision.reasons {
            master.said.clone_from(&decision.reasons);
            for reason in &decision.reasons {
                self.trace.say(self.now, Some(n), format_args!("  because {reason}"));
            }
        }
        for event in &decision.events {
            self.say(Some(n), format_args!("EVENT {} {}", event.kind, event.text));
        }
        for order in &decision.orders {
            let (Order::Look { node } | Order::Checkpoint { node }) = order;
            let Some(to) = self.node(node) else { continue };
            let checkpoint = matches!(order, Order::Checkpoint { .. });
            self.rpc(n, to, || if checkpoint { Wake::Checkpoint } else { Wake::Hint });
        }
        let finished: Vec<String> = decision.finished.into_iter().map(|f| self.finished(n, f)).collect();
        match decision.write {
            Some(state) => self.write(n, term, record, Rc::from(state), finished),
            None => self.forget(&finished),
        }
        let until = decision
            .look_at
            .map_or(LEAD_EVERY, |at| micros(at).saturating_sub(clock) + MS / 10);
        self.wake_master(n, until.min(LEAD_EVERY));
    }

    fn finished(&mut self, n: N, finished: ha_core::database::observed::Finished) -> String {
        match &finished.result {
            Ok(text) => self.say(Some(n), format_args!("request {} done: {text}", finished.operation)),
            Err(e) => self.say(Some(n), format_args!("request {} refused: {e:?}", finished.operation)),
        }
        finished.operation
    }

    fn forget(&mut self, finished: &[String]) {
        if !finished.is_empty() {
            self.requests.retain(|r| !finished.contains(&r.operation));
        }
    }

    fn wake_master(&mut self, n: N, after: Time) {
        let at = self.now + after;
        if let Some(master) = self.daemons[n].as_mut().and_then(|d| d.master.as_mut())
            && master.waking.is_none_or(|before| before > at)
        {
            master.waking = Some(at);
            self.wake(n, after, Wake::Lead);
        }
    }

    fn write(
        &mut self,
        n: N,
        term: u64,
        record: &Stored,
        state: Rc<ha_core::database::GroupState>,
        finished: Vec<String>,
    ) {
        self.writes += 1;
        let number = self.writes;
        let Some(master) = self.daemons[n].as_mut().and_then(|d| d.master.as_mut()) else {
            return;
        };
        master.writing = Some((number, state.clone(), finished));
        let (session, version) = (master.session, record.version);
        self.ask_zookeeper(
            n,
            session,
            Ask::Set {
                number,
                version,
                term,
                state,
            },
        );
        self.wake(n, OVERDUE, Wake::Overdue(number));
    }

    /// The answer to a write.
    pub fn written(&mut self, n: N, number: u64, done: bool) {
        let Some(master) = self.daemons[n].as_mut().and_then(|d| d.master.as_mut()) else {
            return;
        };
        let Some((_, state, finished)) = master.writing.take_if(|w| w.0 == number) else {
            return;
        };
        let (session, term) = (master.session, master.term.unwrap_or_default());
        if let (true, Some(record)) = (done, master.record.as_mut()) {
            record.version += 1;
            record.term = term;
            record.state = state;
            self.forget(&finished);
            self.lead_soon(n);
        } else {
            self.ask_zookeeper(n, session, Ask::Fresh);
        }
    }

    /// No answer came: the write is neither done nor failed, and the record is read again (R3).
    pub fn write_overdue(&mut self, n: N, number: u64) {
        let Some(master) = self.daemons[n].as_mut().and_then(|d| d.master.as_mut()) else {
            return;
        };
        if master.writing.take_if(|w| w.0 == number).is_some() {
            let session = master.session;
            master.record = None;
            self.ask_zookeeper(n, session, Ask::Fresh);
            self.wake_master(n, LEAD_EVERY);
        }
    }
}

/// Which nodes could carry an instance: all of them, if they are there.
fn observe_candidates(observed: &mut Observed, names: &[String]) {
    if observed.candidates.len() == names.len() {
        for (name, candidate) in &mut observed.candidates {
            candidate.presence = presence(&observed.instances, name);
        }
        return;
    }
    for name in names {
        let presence = presence(&observed.instances, name);
        observed.candidates.insert(
            name.clone(),
            Candidate {
                presence,
                schedulable: true,
                crowded: 0,
                load_milli: 100,
            },
        );
    }
}

fn presence(instances: &BTreeMap<String, Seen>, name: &str) -> Presence {
    match instances.get(name) {
        None => Presence::Unseen,
        Some(seen) if seen.registered && seen.stream_open => Presence::Online,
        Some(seen) if seen.registered => Presence::Suspect,
        Some(_) => Presence::Offline,
    }
}
