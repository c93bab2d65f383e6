//! The steps of the abstract world, and the rules that must hold after each.

use ha_core::database::group;
use ha_core::database::member::{Action, StartAs};
use ha_core::database::record::{GroupState, Phase};

use super::model::{COUNT, Instance, Model, Sender, Server, State};
use crate::dbsim::postgres::Names;
use crate::dbsim::wal::{Branch, Pos};

/// Something that can happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// An agent reads the record (`true`) or keeps to what it read before, acts by it, and reports.
    Agent(usize, bool),
    /// The master decides; `true`: as if everything had been so for long.
    Master(bool),
    /// A client commits.
    Commit(usize),
    /// A standby connects.
    Connect(usize),
    /// A standby receives, flushes and confirms.
    Receive(usize),
    /// A server is killed.
    Crash(usize),
    /// A daemon falls silent; its server goes on.
    Silence(usize),
    /// The lease of a silent daemon ends, and its server with it.
    LeaseOver(usize),
    /// A silent daemon is back.
    Return(usize),
    /// Replay of a standby stands still.
    Stuck(usize),
    /// An operator asks for a failover.
    Demand,
}

impl Model {
    /// All that can happen.
    pub fn steps(&self, state: &State) -> Vec<Step> {
        let mut steps = Vec::with_capacity(24);
        for n in 0..COUNT {
            let i = &state.all[n];
            if !i.silent {
                steps.push(Step::Agent(n, false));
                if i.read != Some(state.record) {
                    steps.push(Step::Agent(n, true));
                }
                if state.silences > 0 {
                    steps.push(Step::Silence(n));
                }
            } else {
                steps.push(Step::Return(n));
                if !i.absent {
                    steps.push(Step::LeaseOver(n));
                }
            }
            if i.server != Server::Stopped && state.crashes > 0 {
                steps.push(Step::Crash(n));
            }
            match i.server {
                Server::Primary => {
                    if state.commits > 0 {
                        steps.push(Step::Commit(n));
                    }
                }
                Server::Standby => {
                    match (i.receiver, i.follow) {
                        (Some((from, _)), _) if state.all[from].end != i.end => steps.push(Step::Receive(n)),
                        (None, Some(_)) if !i.stuck => steps.push(Step::Connect(n)),
                        _ => {}
                    }
                    if state.stucks > 0 && i.receiver.is_some() && !i.stuck {
                        steps.push(Step::Stuck(n));
                    }
                }
                Server::Stopped => {}
            }
        }
        steps.push(Step::Master(false));
        if state.longs > 0 {
            steps.push(Step::Master(true));
        }
        if state.demands > 0 {
            steps.push(Step::Demand);
        }
        steps
    }

    /// Takes a step.
    ///
    /// # Errors
    /// The rule that does not hold any more.
    pub fn take(&mut self, state: &mut State, step: Step) -> Result<(), String> {
        match step {
            Step::Agent(n, reads) => {
                if reads {
                    state.all[n].read = Some(state.record);
                }
                let (decision, _) = self.agent(state, n);
                for action in decision.actions {
                    self.act(state, n, action)?;
                }
                note(&mut state.all[n]);
                let (_, report) = self.agent(state, n);
                state.told[n] = Some(self.number_report(report));
            }
            Step::Master(long) => self.lead(state, long)?,
            Step::Commit(n) => {
                state.commits -= 1;
                if let Some(end) = state.all[n].end.as_mut() {
                    end.lsn += 1;
                }
                self.release(state, n)?;
            }
            Step::Connect(n) => self.connect(state, n)?,
            Step::Receive(n) => self.receive(state, n)?,
            Step::Crash(n) => {
                state.crashes -= 1;
                stop(state, n);
            }
            Step::Silence(n) => {
                state.silences -= 1;
                state.all[n].silent = true;
            }
            Step::LeaseOver(n) => {
                if state.all[n].server == Server::Primary {
                    stop(state, n);
                }
                state.all[n].absent = true;
            }
            Step::Return(n) => {
                state.all[n].silent = false;
                state.all[n].absent = false;
            }
            Step::Stuck(n) => {
                state.stucks -= 1;
                state.all[n].stuck = true;
            }
            Step::Demand => {
                state.demands -= 1;
                state.demanded = true;
            }
        }
        Ok(())
    }

    fn lead(&mut self, state: &mut State, long: bool) -> Result<(), String> {
        let record = self.record(state.record).clone();
        let observed = self.observed(state);
        let mut memory = self.memory(state, long);
        let decision = group::decide(&self.spec, &record, &observed, &mut memory, &self.timing, &self.weaken);
        if !decision.finished.is_empty() {
            state.demanded = false;
        }
        let Some(next) = decision.write.filter(|next| next.epoch <= state.last_epoch) else {
            return Ok(());
        };
        state.longs = state.longs.saturating_sub(u8::from(long));
        self.written(state, &record, &next)?;
        state.record = self.number(*next);
        Ok(())
    }

    fn written(&self, state: &State, before: &GroupState, after: &GroupState) -> Result<(), String> {
        if after.epoch < before.epoch {
            return Err("the epoch fell".to_owned());
        }
        let Some(primary) = after.primary.as_deref().and_then(|p| self.node(p)) else {
            return Ok(());
        };
        let names = after.phase == Phase::Promoting && before.phase != Phase::Promoting;
        let opens = after.phase == Phase::Steady && before.phase != Phase::Steady;
        if let (true, Some(covered)) = (names || opens, state.covered)
            && !state.all[primary]
                .end
                .is_some_and(|end| state.tree.contains(end, covered))
        {
            return Err(format!(
                "n{} is {:?} without an acknowledged commit",
                primary + 1,
                after.phase
            ));
        }
        Ok(())
    }

    /// What enough standbys have confirmed is acknowledged.
    fn release(&self, state: &mut State, n: usize) -> Result<(), String> {
        let i = &state.all[n];
        let Some(end) = i.end.filter(|_| i.server == Server::Primary) else {
            return Ok(());
        };
        let upto = match i.names {
            Names::Empty => end.lsn,
            Names::Closed | Names::Any { .. } => i.confirmed.min(end.lsn),
        };
        let branch = state.tree.get(end.branch);
        if branch.parent.is_some_and(|fork| upto <= fork.lsn) {
            return Ok(());
        }
        let at = Pos { lsn: upto, ..end };
        if state.covered.is_some_and(|c| state.tree.contains(c, at)) {
            return Ok(());
        }
        let record = self.record(state.record);
        let primary = match record.phase {
            Phase::Electing => record.former.as_deref(),
            Phase::New | Phase::Bootstrapping | Phase::Promoting => None,
            Phase::Steady | Phase::Switching => record.primary.as_deref(),
        };
        if primary.and_then(|p| self.node(p)) != Some(n) {
            return Err(format!(
                "n{} acknowledges, and the record (epoch {}, {:?}) names {:?}",
                n + 1,
                record.epoch,
                record.phase,
                record.primary
            ));
        }
        if state.covered.is_some_and(|c| !state.tree.contains(at, c)) {
            return Err(format!(
                "n{} acknowledges on a log without an acknowledged commit",
                n + 1
            ));
        }
        state.covered = Some(at);
        Ok(())
    }

    fn connect(&self, state: &mut State, n: usize) -> Result<(), String> {
        let Some((from, epoch)) = state.all[n].follow else {
            return Ok(());
        };
        let (Some(mine), Some(theirs)) = (state.all[n].end, state.all[from].end) else {
            return Ok(());
        };
        if state.all[from].server != Server::Primary || !state.tree.looks_like_prefix(theirs, mine) {
            return Ok(());
        }
        if !state.tree.contains(theirs, mine) {
            return Err(format!(
                "n{} streams from n{} over a log that went another way",
                n + 1,
                from + 1
            ));
        }
        state.all[n].receiver = Some((from, epoch));
        let names = state.all[from].names;
        state.all[from].senders[n] = Some(Sender {
            epoch,
            names,
            confirmed: 0,
        });
        Ok(())
    }

    fn receive(&self, state: &mut State, n: usize) -> Result<(), String> {
        let Some((from, _)) = state.all[n].receiver else {
            return Ok(());
        };
        let Some(end) = state.all[from].end else { return Ok(()) };
        state.all[n].end = Some(end);
        state.all[n].newest = state.all[n].newest.max(state.tree.timeline(end));
        let Some(sender) = state.all[from].senders[n].as_mut() else {
            return Ok(());
        };
        sender.confirmed = end.lsn;
        let (names, epoch) = (sender.names, sender.epoch);
        let Names::Any { need, .. } = names else { return Ok(()) };
        if !names.names(n, epoch) {
            return Ok(());
        }
        let of = state.all[from].senders.iter().enumerate().filter_map(|(to, s)| {
            let s = s.as_ref()?;
            s.names.names(to, s.epoch).then_some(s.confirmed)
        });
        let mut confirmed: Vec<u64> = of.collect();
        confirmed.sort_unstable_by(|a, b| b.cmp(a));
        if let Some(upto) = confirmed.get(usize::from(need).max(1) - 1) {
            state.all[from].confirmed = state.all[from].confirmed.max(*upto);
        }
        self.release(state, from)
    }

    fn act(&self, state: &mut State, n: usize, action: Action) -> Result<(), String> {
        let up = |u: &Option<ha_core::database::local::Upstream>| {
            u.as_ref().and_then(|u| Some((self.node(&u.node)?, u.epoch)))
        };
        match action {
            Action::Create { names } => {
                let branch = state.tree.add(Branch {
                    parent: None,
                    timeline: 1,
                    epoch: self.record(state.record).epoch,
                });
                let i = &mut state.all[n];
                i.filled = true;
                i.newest = 1;
                i.end = Some(Pos { branch, lsn: 1 });
                start(i, StartAs::Primary, None, self.sim_names(&names));
            }
            Action::Start { role, names } => {
                let follow = match &role {
                    StartAs::Standby { upstream } => up(upstream),
                    StartAs::Primary => None,
                };
                start(&mut state.all[n], role, follow, self.sim_names(&names));
            }
            Action::Stop { .. } | Action::Reap => stop(state, n),
            Action::EndWalsenders { .. } | Action::Slots { .. } | Action::AskGrants { .. } => {}
            Action::Refuse { epoch } => {
                let i = &mut state.all[n];
                i.refused = i.refused.max(epoch);
                i.follow = None;
                if !i.stuck {
                    unreceive(state, n);
                }
            }
            Action::EndReceiver => unreceive(state, n),
            Action::MarkPromotion { epoch } => state.all[n].promotion = Some(epoch),
            Action::Promote { names, .. } => self.promote(state, n, self.sim_names(&names)),
            Action::SetNames { names } => {
                let names = self.sim_names(&names);
                state.all[n].names = names;
                state.all[n].senders.iter_mut().flatten().for_each(|s| s.names = names);
                self.release(state, n)?;
            }
            Action::Follow { upstream } => {
                let follow = up(&Some(upstream));
                if state.all[n].follow != follow {
                    state.all[n].follow = follow;
                    if !state.all[n].stuck {
                        unreceive(state, n);
                    }
                }
            }
            Action::Rewind { from } | Action::Copy { from } => {
                let Some(from) = self.node(&from.node) else {
                    return Ok(());
                };
                if state.all[from].server == Server::Primary && state.all[n].server == Server::Stopped {
                    let (end, newest) = (state.all[from].end, state.all[from].newest);
                    let i = &mut state.all[n];
                    i.filled = true;
                    i.end = end;
                    i.newest = i.newest.max(newest);
                    i.signal = true;
                    i.was_primary = false;
                    i.promotion = None;
                    i.rebuilt = true;
                }
            }
        }
        Ok(())
    }

    fn promote(&self, state: &mut State, n: usize, names: Names) {
        unreceive(state, n);
        let Some(end) = state.all[n].end.filter(|_| state.all[n].server == Server::Standby) else {
            return;
        };
        let timeline = state.all[n].newest.max(state.tree.timeline(end)) + 1;
        let epoch = state.all[n].promotion.unwrap_or_default();
        let branch = state.tree.add(Branch {
            parent: Some(end),
            timeline,
            epoch,
        });
        let i = &mut state.all[n];
        i.server = Server::Primary;
        i.stuck = false;
        i.signal = false;
        i.follow = None;
        i.names = names;
        i.was_primary = true;
        i.newest = timeline;
        i.promoted = Some(branch);
        i.confirmed = 0;
        i.end = Some(Pos {
            branch,
            lsn: end.lsn + 1,
        });
    }

    /// The state of a group that is whole: made by letting everything happen in turn, without faults.
    ///
    /// # Errors
    /// It does not become whole.
    pub fn whole(&mut self) -> Result<State, String> {
        let mut state = State {
            commits: 2,
            last_epoch: u64::MAX,
            ..State::default()
        };
        for round in 0..200 {
            for n in 0..COUNT {
                self.take(&mut state, Step::Agent(n, true))?;
                if state.all[n].server == Server::Standby {
                    self.take(&mut state, Step::Connect(n))?;
                    self.take(&mut state, Step::Receive(n))?;
                }
            }
            self.take(&mut state, Step::Master(round % 2 == 1))?;
            if round == 100 {
                let primary = state.all.iter().position(|i| i.server == Server::Primary);
                self.take(&mut state, Step::Commit(primary.unwrap_or(0)))?;
            }
        }
        let record = self.record(state.record);
        let settled =
            record.phase == Phase::Steady && record.rules.len() == 1 && record.rules[0].voters.len() == COUNT - 1;
        if settled && state.covered.is_some() {
            Ok(state)
        } else {
            Err(format!("the group did not become whole: {record:?}"))
        }
    }
}

fn start(i: &mut Instance, role: StartAs, follow: Option<(usize, u64)>, names: Names) {
    if i.server != Server::Stopped || i.end.is_none() {
        return;
    }
    i.starts += 1;
    i.names = names;
    i.follow = follow;
    i.confirmed = 0;
    i.recovered = None;
    i.promoted = None;
    i.stuck = false;
    i.seen = None;
    i.signal = role != StartAs::Primary;
    i.was_primary = !i.signal;
    if i.signal {
        i.server = Server::Standby;
    } else {
        i.server = Server::Primary;
        if let Some(end) = i.end.as_mut() {
            end.lsn += 1;
            i.recovered = Some(end.lsn);
        }
    }
}

fn stop(state: &mut State, n: usize) {
    state.all[n].server = Server::Stopped;
    state.all[n].stuck = false;
    state.all[n].senders = [None; COUNT];
    unreceive(state, n);
    for other in &mut state.all {
        if other.receiver.is_some_and(|(from, _)| from == n) {
            other.receiver = None;
        }
    }
}

fn unreceive(state: &mut State, n: usize) {
    if let Some((from, _)) = state.all[n].receiver.take() {
        state.all[from].senders[n] = None;
    }
}

/// Notes where the log was when names and walsenders were first seen as they are.
fn note(i: &mut Instance) {
    let names = match i.names {
        Names::Empty => 1,
        Names::Closed => 2,
        Names::Any { need, epoch, who } => 3 + u64::from(need) + epoch * 64 + u64::from(who) * 4096,
    };
    let seen = i.senders.iter().enumerate().fold(names, |sum, (to, s)| {
        let s = s.map_or(0, |s| 1 + u64::from(s.names.names(to, s.epoch)) + s.epoch * 4);
        sum.wrapping_mul(1021).wrapping_add(s)
    });
    if i.server == Server::Stopped {
        i.seen = None;
    } else if i.seen.is_none_or(|(before, _)| before != seen) {
        i.seen = i.end.map(|e| (seen, e.lsn));
    }
}
