//! What agents and the master observe in the abstract world, in the words of the core.

use std::time::Duration;

use ha_core::Presence;
use ha_core::database::local::{Directory, Local, Marks, Receiver, RecordRead, Report, Upstream, Walsender};
use ha_core::database::member::{self, MemberDecision, Situation};
use ha_core::database::observed::{Candidate, Memory, Observed, Request, Seen, Wanted};
use ha_core::database::{Branch, Lineage, Lsn, Names};

use super::model::{COUNT, Model, Server, State};
use crate::dbsim::postgres;

/// Now, always.
const NOW: Duration = Duration::from_secs(10_000);
/// Long ago.
const LONG_AGO: Duration = Duration::from_secs(1);
/// Now for people.
pub const NOW_MS: i64 = 1;

impl Model {
    fn core_names(&self, names: postgres::Names) -> Names {
        match names {
            postgres::Names::Empty => Names::Empty,
            postgres::Names::Closed => Names::Closed,
            postgres::Names::Any { need, epoch, who } => Names::Any {
                need: u32::from(need),
                epoch,
                voters: (0..COUNT)
                    .filter(|n| who & (1 << n) != 0)
                    .map(|n| self.names[n].clone())
                    .collect(),
            },
        }
    }

    /// Names as the abstract server keeps them.
    pub fn sim_names(&self, names: &Names) -> postgres::Names {
        match names {
            Names::Empty => postgres::Names::Empty,
            Names::Closed | Names::Other(_) => postgres::Names::Closed,
            Names::Any { need, epoch, voters } => postgres::Names::Any {
                need: u8::try_from(*need).unwrap_or(u8::MAX),
                epoch: *epoch,
                who: voters
                    .iter()
                    .filter_map(|v| self.node(v))
                    .fold(0, |bits, v| bits | 1 << v),
            },
        }
    }

    fn upstream(&self, follow: Option<(usize, u64)>) -> Option<Upstream> {
        follow.map(|(n, epoch)| Upstream {
            node: self.names[n].clone(),
            epoch,
        })
    }

    fn branch(&self, state: &State, id: u16) -> Branch {
        let branch = state.tree.get(id);
        Branch {
            epoch: branch.epoch,
            timeline: branch.timeline,
            fork: Lsn(branch.parent.map_or(0, |p| p.lsn)),
        }
    }

    fn local(&self, state: &State, n: usize) -> Local {
        let i = &state.all[n];
        let running = i.server != Server::Stopped;
        let mut history: Vec<Branch> = i
            .end
            .map(|end| state.tree.path(end).map(|p| self.branch(state, p.branch)).collect())
            .unwrap_or_default();
        history.reverse();
        let walsenders = i.senders.iter().enumerate().filter_map(|(to, s)| {
            let s = s.as_ref().filter(|_| running)?;
            Some(Walsender {
                node: self.names[to].clone(),
                epoch: s.epoch,
                streaming: true,
                priority: u32::from(s.names.names(to, s.epoch)),
                flushed: Lsn(s.confirmed),
            })
        });
        Local {
            node: self.names[n].clone(),
            directory: if i.filled {
                Directory::Present { system_id: 7 }
            } else {
                Directory::Empty
            },
            server: if running {
                ha_core::database::local::Server::Running
            } else {
                ha_core::database::local::Server::Stopped
            },
            incarnation: u64::from(i.starts),
            was_primary: i.was_primary,
            in_recovery: i.server == Server::Standby,
            standby_signal: i.signal,
            history: Lineage(history),
            log: i.end.map(|e| Lsn(e.lsn)),
            replayed: Lsn(i.end.map_or(0, |e| e.lsn)),
            marks: Marks {
                refused: i.refused,
                promotion: i.promotion,
                rebuilt: if i.rebuilt { NOW_MS } else { 0 },
            },
            upstream: self.upstream(i.follow),
            receiver: match (i.receiver, i.follow) {
                (Some(_), _) => Receiver::Running,
                (None, Some(_)) if running => Receiver::Between,
                (None, _) => Receiver::Gone,
            },
            heard: i.receiver.and_then(|r| Some((self.upstream(Some(r))?, Duration::ZERO))),
            names: running.then(|| self.core_names(i.names)),
            names_set: Some(self.core_names(i.names)),
            names_lsn: i.seen.filter(|_| running).map(|(_, lsn)| Lsn(lsn)),
            walsenders: walsenders.collect(),
            recovered: i.recovered.filter(|_| running).map(Lsn),
            promoted: i.promoted.filter(|_| running).map(|b| self.branch(state, b)),
            redo: i.end.map(|e| Lsn(e.lsn)),
            lease_until: Some(NOW + Duration::from_secs(60)),
            slots: self
                .names
                .iter()
                .filter(|v| **v != self.names[n])
                .map(|v| (v.clone(), 0))
                .collect(),
            ..Local::default()
        }
    }

    /// What an agent decides and reports.
    pub fn agent(&self, state: &State, n: usize) -> (MemberDecision, Report) {
        let local = self.local(state, n);
        let record = state.all[n].read.map(|number| RecordRead {
            state: (**self.record(number)).clone(),
            revision: u64::from(number),
            fresh: true,
        });
        let situation = Situation {
            local: &local,
            record: record.as_ref(),
            spec: Some(&self.spec),
            now: NOW,
            timing: &self.timing,
            weaken: &self.weaken,
        };
        (member::decide(&situation), member::report(&situation))
    }

    /// What the master observes.
    pub fn observed(&self, state: &State) -> Observed {
        let mut observed = Observed {
            now: NOW,
            now_ms: NOW_MS,
            sealed: true,
            ..Observed::default()
        };
        for (n, name) in self.names.iter().enumerate() {
            let i = &state.all[n];
            let at = if i.silent { LONG_AGO } else { NOW };
            observed.instances.insert(
                name.clone(),
                Seen {
                    report: state.told[n].map(|number| ((**self.report(number)).clone(), at)),
                    stream_open: !i.silent,
                    stream_broken: i.silent.then_some(LONG_AGO),
                    registered: !i.absent,
                    restarting: false,
                    absent_since: i.absent.then_some(LONG_AGO),
                },
            );
            observed.candidates.insert(
                name.clone(),
                Candidate {
                    presence: Presence::Online,
                    schedulable: true,
                    crowded: 0,
                    load_milli: 0,
                },
            );
        }
        if state.demanded {
            observed.requests.push(Request {
                operation: "op".to_owned(),
                what: Wanted::Failover {
                    to: None,
                    allow_data_loss: false,
                },
            });
        }
        observed
    }

    /// A master's memory: of nothing, or of everything having been so for long.
    pub fn memory(&self, state: &State, long: bool) -> Memory {
        let mut memory = Memory::default();
        if long {
            let record = self.record(state.record);
            memory.gone_since = self.names.iter().map(|n| (n.clone(), LONG_AGO)).collect();
            memory.phase_since = Some((record.epoch, record.phase, LONG_AGO));
            memory.joint_since = Some((record.applying, LONG_AGO));
            memory.held_since = Some(LONG_AGO);
        }
        memory
    }
}
