//! A group whose instances do at once what they decide to do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::database::group;
use crate::database::lineage::{Branch, Lineage, Lsn};
use crate::database::local::{Directory, Local, Receiver, RecordRead, Server, Upstream, Walsender};
use crate::database::member::{self, Action, Situation, StartAs};
use crate::database::observed::{Candidate, Finished, Memory, Observed, Request, Seen, Wanted};
use crate::database::record::{GroupState, Phase};
use crate::database::spec::GroupSpec;
use crate::database::{Names, Timing, Weaken};
use crate::model::Presence;

pub(super) const TICK: Duration = Duration::from_millis(50);

/// One node: its daemon and its PostgreSQL.
pub(super) struct Node {
    pub(super) local: Local,
    /// The machine runs.
    pub(super) up: bool,
    /// It reaches the coordinator and the master.
    pub(super) coordinated: bool,
    /// Others it cannot replicate with.
    pub(super) cut: BTreeSet<String>,
    read: Option<RecordRead>,
}

pub(super) struct World {
    pub(super) spec: GroupSpec,
    pub(super) state: GroupState,
    pub(super) revision: u64,
    pub(super) nodes: BTreeMap<String, Node>,
    pub(super) memory: Memory,
    pub(super) observed: Observed,
    pub(super) timing: Timing,
    pub(super) weaken: Weaken,
    pub(super) told: Vec<String>,
    pub(super) finished: Vec<Finished>,
    pub(super) reasons: Vec<String>,
    /// Commits acknowledged: epoch and timeline's fork are in the primary's history.
    pub(super) acked: Vec<(Lineage, Lsn)>,
    /// The primaries of each epoch that were open.
    pub(super) opened: BTreeMap<u64, BTreeSet<String>>,
}

impl World {
    pub(super) fn new(spec: GroupSpec) -> Self {
        let names: Vec<String> = spec.nodes.keys().cloned().collect();
        let node = |n: &String| Node {
            local: Local {
                node: n.clone(),
                ..Local::default()
            },
            up: true,
            coordinated: true,
            cut: BTreeSet::new(),
            read: None,
        };
        Self {
            nodes: names.iter().map(|n| (n.clone(), node(n))).collect(),
            spec,
            state: GroupState::default(),
            revision: 1,
            memory: Memory::default(),
            observed: Observed {
                sealed: true,
                now: Duration::from_secs(100),
                ..Observed::default()
            },
            timing: Timing::default(),
            weaken: Weaken::default(),
            told: Vec::new(),
            finished: Vec::new(),
            reasons: Vec::new(),
            acked: Vec::new(),
            opened: BTreeMap::new(),
        }
    }

    pub(super) fn of(n: usize) -> Self {
        let names: Vec<String> = (1..=n).map(|i| format!("n{i}")).collect();
        Self::new(GroupSpec::on(names.iter().map(String::as_str)))
    }

    pub(super) fn local(&mut self, node: &str) -> &mut Local {
        &mut self.nodes.get_mut(node).unwrap().local
    }

    pub(super) fn ask(&mut self, operation: &str, what: Wanted) {
        self.observed.requests.push(Request {
            operation: operation.to_owned(),
            what,
        });
    }

    /// The postmaster of a node and all of its tree are gone.
    pub(super) fn kill(&mut self, node: &str) {
        let local = self.local(node);
        local.server = Server::Stopped;
        local.walsenders.clear();
        local.names = None;
        local.recovered = None;
        local.promoted = None;
        local.receiver = Receiver::Gone;
    }

    /// The whole node is gone.
    pub(super) fn down(&mut self, node: &str) {
        self.kill(node);
        self.nodes.get_mut(node).unwrap().up = false;
    }

    pub(super) fn up(&mut self, node: &str) {
        let node = self.nodes.get_mut(node).unwrap();
        node.up = true;
        node.read = None;
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.observed.now + time;
        while self.observed.now < end {
            self.step();
        }
    }

    /// Steps until a condition holds, for a minute at most.
    pub(super) fn until(&mut self, what: &str, holds: impl Fn(&World) -> bool) {
        for _ in 0..1200 {
            if holds(self) {
                return;
            }
            self.step();
        }
        let late = self.told.len().saturating_sub(30);
        panic!(
            "never {what}: {:?}\n{:#?}\n{:#?}",
            self.state,
            self.reasons,
            &self.told[late..]
        );
    }

    /// Steady under this primary, whole: all live standbys vote and stream.
    pub(super) fn whole(&self) -> bool {
        let Some(primary) = self.state.primary.clone() else {
            return false;
        };
        let live = self.nodes.iter().filter(|(n, x)| **n != primary && x.up).count();
        let rule = self.state.rules.first();
        self.state.phase == Phase::Steady
            && !self.state.joint()
            && rule.is_some_and(|r| r.voters.len() == live)
            && self.open().as_deref() == Some(primary.as_str())
            && self.state.instances.values().all(|i| i.rebuild.is_none())
    }

    /// The instance that is open.
    pub(super) fn open(&self) -> Option<String> {
        let rule = self.state.rule()?;
        let names = Names::of(rule, self.state.epoch);
        let open = |n: &&Node| n.up && n.local.is_primary() && n.local.names.as_ref() == Some(&names);
        let node = self.nodes.values().find(open)?;
        self.state.may_open(&node.local.node).then(|| node.local.node.clone())
    }

    pub(super) fn step(&mut self) {
        self.observed.now += TICK;
        self.observed.now_ms += TICK.as_millis() as i64;
        let names: Vec<String> = self.nodes.keys().cloned().collect();
        for name in &names {
            self.agent(name);
        }
        self.replicate();
        self.commit();
        for name in &names {
            self.report(name);
        }
        self.master();
    }

    fn agent(&mut self, name: &str) {
        let (state, revision, now) = (self.state.clone(), self.revision, self.observed.now);
        let node = self.nodes.get_mut(name).unwrap();
        if !node.up {
            return;
        }
        if node.coordinated {
            node.read = Some(RecordRead {
                state,
                revision,
                fresh: true,
            });
            node.local.lease_until = Some(now + self.timing.session_timeout * 2 / 3);
        } else if let Some(read) = &mut node.read {
            read.fresh = false;
        }
        let situation = Situation {
            local: &node.local,
            record: node.read.as_ref(),
            spec: Some(&self.spec),
            now,
            timing: &self.timing,
            weaken: &self.weaken,
        };
        let decision = member::decide(&situation);
        for action in decision.actions {
            self.act(name, action);
        }
        let local = self.local(name);
        if local.is_primary() && decision.deadline.is_none_or(|until| now >= until) {
            self.kill(name);
        }
    }

    fn start(&mut self, name: &str, names: Names) -> &mut Local {
        let local = self.local(name);
        assert_eq!(local.server, Server::Stopped, "{name} is started twice");
        local.server = Server::Running;
        local.incarnation += 1;
        local.names = Some(names.clone());
        local.names_set = Some(names);
        local.names_lsn = local.log;
        local
    }

    fn act(&mut self, name: &str, action: Action) {
        let epoch = self.state.epoch;
        let peer = |w: &World, from: &Upstream| {
            let of = &w.nodes[&from.node].local;
            (of.history.clone(), of.log)
        };
        match action {
            Action::Create { names } => {
                let local = self.start(name, names);
                local.directory = Directory::Present { system_id: 42 };
                local.history = Lineage(vec![Branch {
                    epoch,
                    timeline: 1,
                    fork: Lsn(0),
                }]);
                local.log = Some(Lsn(100));
                local.was_primary = true;
            }
            Action::Start {
                role: StartAs::Primary,
                names,
            } => {
                let local = self.start(name, names);
                local.in_recovery = false;
                local.was_primary = true;
                local.recovered = local.log;
            }
            Action::Start {
                role: StartAs::Standby { upstream },
                names,
            } => {
                let local = self.start(name, names);
                local.in_recovery = true;
                local.was_primary = false;
                local.upstream = upstream;
            }
            Action::Stop { .. } => self.kill(name),
            Action::Refuse { epoch } => {
                let local = self.local(name);
                local.marks.refused = epoch;
                local.upstream = None;
            }
            Action::EndReceiver => self.local(name).receiver = Receiver::Gone,
            Action::MarkPromotion { epoch } => self.local(name).marks.promotion = Some(epoch),
            Action::Promote { epoch, names } => {
                let local = self.local(name);
                assert!(local.in_recovery);
                let fork = local.log.unwrap();
                let branch = Branch {
                    epoch,
                    timeline: local.history.timeline() + 1,
                    fork,
                };
                local.history = local.history.with(branch);
                local.promoted = Some(branch);
                local.log = Some(Lsn(fork.0 + 10));
                local.in_recovery = false;
                local.was_primary = true;
                local.upstream = None;
                local.names = Some(names);
            }
            Action::SetNames { names } => {
                let local = self.local(name);
                for w in &mut local.walsenders {
                    w.priority = u32::from(names_has(&names, w));
                }
                local.names = Some(names.clone());
                local.names_set = Some(names);
                local.names_lsn = local.log;
            }
            Action::Follow { upstream } => self.local(name).upstream = Some(upstream),
            Action::Rewind { from } => {
                let (history, _) = peer(self, &from);
                let order = self.state.instances[name].rebuild.as_ref().unwrap().since_ms;
                let local = self.local(name);
                let end = crate::database::LogEnd {
                    epoch: 0,
                    lsn: local.log.unwrap(),
                };
                local.log = Some(history.truncate(&local.history, end).lsn);
                local.marks.rebuilt = order;
            }
            Action::Copy { from } => {
                let (history, log) = peer(self, &from);
                let order = self.state.instances[name].rebuild.as_ref().unwrap().since_ms;
                let local = self.local(name);
                local.directory = Directory::Present { system_id: 42 };
                local.history = history;
                local.log = log;
                local.marks.rebuilt = order;
                local.marks.promotion = None;
            }
            Action::Slots { nodes } => self.local(name).slots = nodes.into_iter().map(|n| (n, 0)).collect(),
            Action::Reap | Action::EndWalsenders { .. } | Action::AskGrants { .. } => {}
        }
    }

    fn replicate(&mut self) {
        let names: Vec<String> = self.nodes.keys().cloned().collect();
        for n in self.nodes.values_mut() {
            n.local.walsenders.clear();
        }
        for name in names {
            let node = &self.nodes[&name];
            let up = node.local.upstream.clone();
            let linked = up.as_ref().is_some_and(|u| {
                let p = &self.nodes[&u.node];
                p.up && p.local.server == Server::Running && !node.cut.contains(&u.node) && !p.cut.contains(&name)
            });
            if !(node.up && node.local.server == Server::Running && node.local.in_recovery) {
                continue;
            }
            let Some(upstream) = up.filter(|_| linked) else {
                let local = self.local(&name);
                if local.receiver == Receiver::Running {
                    local.receiver = Receiver::Between;
                }
                continue;
            };
            let source = self.nodes[&upstream.node].local.clone();
            let local = self.local(&name);
            local.receiver = Receiver::Running;
            local.heard = Some((upstream.clone(), Duration::ZERO));
            local.history = source.history.clone();
            local.log = source.log;
            let flushed = local.log.unwrap();
            let names = source.names.clone().unwrap_or(Names::Closed);
            let mut sender = Walsender {
                node: name.clone(),
                epoch: upstream.epoch,
                streaming: true,
                priority: 0,
                flushed,
            };
            sender.priority = u32::from(names_has(&names, &sender));
            self.local(&upstream.node).walsenders.push(sender);
        }
    }

    /// A client commits on every primary whose names let it.
    fn commit(&mut self) {
        let mut acked = Vec::new();
        for (name, node) in &mut self.nodes {
            let local = &mut node.local;
            if !node.up || !local.is_primary() {
                continue;
            }
            local.log = local.log.map(|l| Lsn(l.0 + 1));
            let enough = match local.names.as_ref() {
                Some(Names::Empty) => true,
                Some(Names::Any { need, .. }) => {
                    let sync = local.walsenders.iter().filter(|w| w.priority > 0);
                    sync.count() >= *need as usize
                }
                _ => false,
            };
            if enough {
                acked.push((name.clone(), local.history.clone(), local.log.unwrap()));
            }
        }
        assert!(acked.len() < 2, "two instances acknowledge: {acked:?}");
        for (name, history, lsn) in acked {
            let epoch = self.nodes[&name].read.as_ref().map_or(0, |r| r.state.epoch);
            self.opened.entry(epoch).or_default().insert(name.clone());
            let senders = self.nodes[&name].local.walsenders.clone();
            for w in senders {
                self.local(&w.node).log = Some(lsn);
            }
            self.acked.push((history, lsn));
        }
    }

    fn report(&mut self, name: &str) {
        let now = self.observed.now;
        let node = &self.nodes[name];
        let seen = self.observed.instances.entry(name.to_owned()).or_default();
        let there = node.up && node.coordinated;
        if !there {
            seen.stream_broken.get_or_insert(now);
            seen.stream_open = false;
            // The session expires later than the stream breaks.
            let broken = seen.stream_broken.unwrap_or(now);
            seen.registered = now < broken + self.timing.session_timeout;
            if !seen.registered {
                seen.absent_since.get_or_insert(now);
            }
            return;
        }
        let situation = Situation {
            local: &node.local,
            record: node.read.as_ref(),
            spec: Some(&self.spec),
            now,
            timing: &self.timing,
            weaken: &self.weaken,
        };
        *seen = Seen {
            report: Some((member::report(&situation), now)),
            stream_open: true,
            registered: true,
            ..Seen::default()
        };
        let candidate = Candidate {
            presence: Presence::Online,
            schedulable: true,
            crowded: 0,
            load_milli: 0,
        };
        self.observed.candidates.insert(name.to_owned(), candidate);
    }

    fn master(&mut self) {
        let decision = group::decide(
            &self.spec,
            &self.state,
            &self.observed,
            &mut self.memory,
            &self.timing,
            &self.weaken,
        );
        self.reasons = decision.reasons;
        let done: Vec<_> = decision.finished.iter().map(|f| f.operation.clone()).collect();
        self.observed.requests.retain(|r| !done.contains(&r.operation));
        self.finished.extend(decision.finished);
        for order in decision.orders {
            if let crate::database::observed::Order::Checkpoint { node } = order {
                let local = self.local(&node);
                local.redo = local.log;
            }
        }
        if let Some(next) = decision.write {
            assert_ne!(*next, self.state, "the same record is written again");
            assert!(next.epoch >= self.state.epoch, "epochs only grow");
            for rule in next.rules.iter().filter(|_| !self.weaken.primary_votes) {
                assert!(rule.voters.is_disjoint(&rule.primaries), "a primary votes: {rule:?}");
            }
            let promises = self.spec.durability != crate::database::Durability::Async;
            let promises = promises && !self.state.forced.as_ref().is_some_and(|f| f.allow_data_loss);
            if promises && next.phase == Phase::Promoting && self.state.phase != Phase::Promoting {
                self.check_complete(&next);
            }
            self.told.push(format!(
                "{:?} {:?} {} {}",
                next.phase, next.primary, next.epoch, next.reason
            ));
            self.state = *next;
            self.revision += 1;
        }
    }

    /// Every acknowledged commit is in the log of the instance that is named.
    fn check_complete(&self, next: &GroupState) {
        let node = &self.nodes[next.primary.as_ref().unwrap()].local;
        for (history, lsn) in &self.acked {
            let tip = history.last().unwrap();
            let on = node.history.0.iter().position(|b| b == tip);
            let end = on.map(|i| node.history.0.get(i + 1).map_or(node.log.unwrap(), |b| b.fork));
            assert!(end.is_some_and(|e| e >= *lsn), "{} lacks {lsn} of {history}", node.node);
        }
    }
}

fn names_has(names: &Names, w: &Walsender) -> bool {
    matches!(names, Names::Any { epoch, voters, .. } if *epoch == w.epoch && voters.contains(&w.node))
}
