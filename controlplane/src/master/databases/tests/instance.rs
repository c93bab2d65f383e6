//! An instance that does at once what the record says, as a PostgreSQL that is quick would.

use std::collections::BTreeMap;
use std::time::Duration;

use ha_core::database::local::{Directory, PrimaryReport, Report, Server, StopProof, Upstream};
use ha_core::database::record::How;
use ha_core::database::{Branch, GroupState, Lineage, LogEnd, Lsn, Phase};
use ha_proto::v1;

/// One instance: what a PostgreSQL that is quick would be.
#[derive(Debug, Clone, Default)]
pub(super) struct Pg {
    pub(super) report: Report,
    /// The whole node is gone: nothing is reported.
    pub(super) gone: bool,
    /// The postmaster was killed; it stays down until the record orders a start.
    pub(super) killed: bool,
    /// Does not do what the record says.
    pub(super) stuck: bool,
    /// Seen to have copied afresh, by the time of its order.
    pub(super) copied: i64,
    /// Checkpoints that were asked for.
    pub(super) checkpoints: u32,
}

pub(super) const SYSTEM: u64 = 7_000_000_001;

impl Pg {
    fn log(&self) -> LogEnd {
        self.report.log.unwrap_or_default()
    }

    /// A write that only the primary has yet.
    pub(super) fn write(&mut self, bytes: u64) {
        if let Some(end) = &mut self.report.log {
            end.lsn.0 += bytes;
        }
    }

    pub(super) fn stop(&mut self) {
        let r = &mut self.report;
        if r.server == Server::Stopped {
            return;
        }
        r.stopped = Some(StopProof {
            incarnation: r.incarnation,
            was_primary: r.primary.is_some(),
            log: r.log,
        });
        (r.server, r.standby, r.primary, r.streams, r.heard) = (Server::Stopped, false, None, None, None);
    }

    fn start(&mut self) {
        self.report.incarnation += 1;
        self.report.server = Server::Running;
        self.report.stopped = None;
    }

    /// Does what the record says.
    fn follow(&mut self, state: &GroupState, revision: u64, primary: Option<&Pg>) {
        let me = self.report.node.clone();
        self.report.epoch = state.epoch;
        self.report.revision = revision;
        if self.stuck {
            return;
        }
        let mine = state.primary.as_deref() == Some(me.as_str());
        match state.phase {
            Phase::New => {}
            Phase::Electing => {
                if self.report.primary.is_none() && self.report.server == Server::Running {
                    self.report.sealed = Some(state.epoch);
                    (self.report.streams, self.report.heard) = (None, None);
                }
            }
            Phase::Bootstrapping | Phase::Promoting if mine => self.become_primary(state),
            Phase::Steady if mine => {}
            Phase::Switching if mine => self.stop(),
            _ => self.stand_by(state, primary),
        }
    }

    fn become_primary(&mut self, state: &GroupState) {
        let Some(p) = state.promotion.as_ref() else { return };
        if self.report.primary.is_some() {
            return;
        }
        if self.killed && p.after_stop.is_none_or(|old| self.report.incarnation > old) {
            return;
        }
        self.killed = false;
        if self.report.server == Server::Stopped {
            self.start();
        }
        let mut own = PrimaryReport {
            epoch: state.epoch,
            ..PrimaryReport::default()
        };
        match p.how {
            How::Create | How::Adopt => {
                self.report.directory = Directory::Present { system_id: SYSTEM };
                let first = Branch {
                    epoch: state.epoch,
                    timeline: 1,
                    fork: Lsn(0),
                };
                self.report.history = Lineage(vec![first]);
                self.report.log = Some(LogEnd {
                    epoch: state.epoch,
                    lsn: Lsn(1000),
                });
            }
            How::Promote => {
                let branch = Branch {
                    epoch: state.epoch,
                    timeline: p.lineage.timeline() + 1,
                    fork: self.log().lsn,
                };
                own.promoted = Some(branch);
                self.report.history = p.lineage.with(branch);
                self.report.promotion = Some(state.epoch);
                let lsn = Lsn(self.log().lsn.0 + 10);
                self.report.log = Some(LogEnd {
                    epoch: state.epoch,
                    lsn,
                });
            }
            How::InPlace => {
                own.recovered = Some(self.log().lsn);
                self.report.log.as_mut().unwrap().lsn.0 += 10;
            }
        }
        (self.report.standby, self.report.sealed, self.report.streams) = (false, None, None);
        self.report.primary = Some(own);
    }

    fn stand_by(&mut self, state: &GroupState, primary: Option<&Pg>) {
        if !state.instances.contains_key(&self.report.node) || state.phase == Phase::Bootstrapping {
            return;
        }
        if self.report.primary.is_some() {
            self.stop();
        }
        let lineage = state.target_lineage().clone();
        let order = state.instances[&self.report.node]
            .rebuild
            .as_ref()
            .map(|r| (r.copy, r.since_ms));
        let whole = matches!(self.report.directory, Directory::Present { .. });
        let tip = state
            .promotion
            .as_ref()
            .filter(|_| state.phase == Phase::Promoting)
            .map(|p| p.end.lsn);
        let fits = whole && lineage.fit(&self.report.history, self.log().lsn, tip) == ha_core::database::Fit::On;
        if let Some((_, since)) = order.filter(|(copy, since)| (*copy || !fits) && self.copied != *since) {
            let Some(from) = primary.filter(|_| state.phase == Phase::Steady) else {
                return;
            };
            self.stop();
            self.copied = since;
            self.report.directory = Directory::Present { system_id: SYSTEM };
            self.report.history = from.report.history.clone();
            self.report.log = from.report.log;
        } else if !fits {
            self.report.unfit = Some(ha_core::database::local::Unfit {
                copy: !whole,
                why: "its data do not fit".to_owned(),
            });
            return;
        }
        self.report.unfit = None;
        self.killed = false;
        if self.report.server == Server::Stopped {
            self.start();
        }
        self.report.sealed = None;
        self.report.standby = true;
        let upstream = Upstream {
            node: state.primary.clone().unwrap(),
            epoch: state.epoch,
        };
        let live = primary.filter(|p| p.report.primary.is_some() && !p.gone);
        self.report.streams = live.map(|_| upstream.clone());
        self.report.heard = live.map(|_| (upstream, Duration::ZERO));
        if let Some(p) = live {
            self.report.history.clone_from(&p.report.history);
            self.report.log = p.report.log;
        }
    }
}

/// What an instance does with a message and the record.
pub(super) fn behave(
    all: &mut BTreeMap<String, Pg>,
    node: &str,
    message: Option<v1::master_message::Body>,
    record: Option<&(GroupState, u64)>,
) {
    let pg = all.get_mut(node).unwrap();
    match message {
        Some(v1::master_message::Body::Checkpoint(_)) => pg.checkpoints += 1,
        Some(v1::master_message::Body::Restart(order)) if pg.report.incarnation == order.incarnation => pg.stop(),
        _ => {}
    }
    if let Some((state, revision)) = record {
        let primary = state.primary.as_ref().and_then(|p| all.get(p)).cloned();
        all.get_mut(node).unwrap().follow(state, *revision, primary.as_ref());
        confirm(all, node, state);
    }
}

/// The primary's view of its rule and of its standbys, once it is allowed to open.
fn confirm(all: &mut BTreeMap<String, Pg>, node: &str, state: &GroupState) {
    let of_epoch = |p: &Pg| {
        let streams = p.report.streams.as_ref();
        !p.gone && streams.is_some_and(|u| u.node == node && u.epoch == state.epoch)
    };
    let flushed: BTreeMap<String, Lsn> = all
        .iter()
        .filter(|(_, p)| of_epoch(p))
        .map(|(n, p)| (n.clone(), p.log().lsn))
        .collect();
    let pg = all.get_mut(node).unwrap();
    let end = pg.log().lsn;
    let asked = pg.checkpoints > 0;
    let Some(own) = pg.report.primary.as_mut().filter(|_| state.may_open(node)) else {
        return;
    };
    own.epoch = state.epoch;
    if own.applied != Some(state.applying) {
        own.applied = Some(state.applying);
        own.applied_at = Some(end);
    }
    own.open = true;
    own.redo = asked.then_some(end);
    own.grantable = flushed.keys().cloned().collect();
    own.granters = state.granters.clone();
    own.flushed = flushed;
}
