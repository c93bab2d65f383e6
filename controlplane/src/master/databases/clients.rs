//! What every node is told of a group's standbys, so that its proxy leads readers to those that are fit, wherever they run.
//!
//! Told at once when one of them does something else than before, at a pace while only distances change, and now and then
//! in any case, for a message may be lost. Nobody's data depend on it.

use std::time::Duration;

use ha_core::database::Lsn;
use ha_proto::v1;
use ha_proto::v1::master_message::Body;

use super::super::Master;

/// Between two messages in which only distances differ.
const PACE: Duration = Duration::from_secs(1);
/// A message without news is repeated after this time.
const REFRESH: Duration = Duration::from_secs(5);

/// What the nodes were last told, and when.
#[derive(Debug)]
pub(super) struct Told {
    what: v1::GroupStandbys,
    at: Duration,
}

impl Master<'_> {
    /// Tells every node of a group's standbys, if it is time to.
    pub(super) fn tell_standbys(&mut self, shown: &v1::Group) {
        let now = self.now();
        let what = self.standbys(shown);
        let most = shown.spec.as_ref().and_then(|s| s.proxy.as_ref()?.max_lag_bytes);
        let Some(group) = self.databases.groups.get_mut(&shown.name) else {
            return;
        };
        let due = group.told_standbys.as_ref().is_none_or(|before| {
            let differs = before.what != what;
            let pause = if differs { PACE } else { REFRESH };
            now >= before.at + pause || essence(&before.what, most) != essence(&what, most)
        });
        if !due {
            return;
        }
        group.told_standbys = Some(Told {
            what: what.clone(),
            at: now,
        });
        for node in self.members.keys() {
            self.message(node, Body::Standbys(what.clone()));
        }
    }

    /// Tells one node, which has just found this master, of all groups.
    pub(super) fn tell_all_standbys(&self, node: &str) {
        for group in self.databases.groups.values() {
            if let Some(told) = &group.told_standbys {
                self.message(node, Body::Standbys(told.what.clone()));
            }
        }
    }

    fn standbys(&self, shown: &v1::Group) -> v1::GroupStandbys {
        let record = shown.record.clone().unwrap_or_default();
        let instances = self.databases.groups.get(&shown.name).map(|g| &g.instances);
        let told = |node: &str| instances.and_then(|all| all.get(node));
        let primary = told(&record.primary);
        let end = primary.and_then(|p| p.report.primary.as_ref().and(p.report.log));
        let seen = shown.instances.iter().filter(|i| !i.wanted_primary).map(|i| {
            let own = told(&i.node).map(|t| &t.report);
            // What the primary knows of a standby is of the moment of its own position; the standby's word may be older.
            let sender = primary.and_then(|p| {
                let senders = &p.wire.primary.as_ref()?.walsenders;
                senders.iter().find(|w| w.node == i.node && w.streaming)
            });
            let replayed = sender.map(|w| w.replayed_lsn).filter(|l| *l > 0);
            let replayed = replayed.or(own.map(|r| r.replayed.0)).unwrap_or(0);
            let reports = i.state() != v1::InstanceState::Unspecified;
            v1::StandbySeen {
                node: i.node.clone(),
                state: i.state,
                timeline: i.timeline,
                received_lsn: i.lsn,
                replayed_lsn: replayed,
                lag_bytes: end
                    .filter(|_| reports && replayed > 0)
                    .map(|end| end.lsn.past(Lsn(replayed))),
            }
        });
        v1::GroupStandbys {
            group: shown.name.clone(),
            epoch: record.epoch,
            primary_lsn: end.map_or(0, |end| end.lsn.0),
            standbys: seen.collect(),
        }
    }
}

/// What makes a difference to clients: without positions, but with who is near enough.
fn essence(told: &v1::GroupStandbys, most: Option<u64>) -> v1::GroupStandbys {
    let mut told = told.clone();
    told.primary_lsn = 0;
    let most = most.filter(|m| *m > 0).unwrap_or(u64::MAX);
    for s in &mut told.standbys {
        (s.received_lsn, s.replayed_lsn) = (0, 0);
        s.lag_bytes = s.lag_bytes.map(|lag| u64::from(lag > most));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_alone_are_no_news_until_one_is_too_great() {
        let told = |lag: Option<u64>, state: v1::InstanceState| v1::GroupStandbys {
            group: "main".into(),
            epoch: 3,
            primary_lsn: 1000 + lag.unwrap_or(0),
            standbys: vec![v1::StandbySeen {
                node: "n2".into(),
                state: state.into(),
                timeline: 2,
                received_lsn: 1000,
                replayed_lsn: 1000,
                lag_bytes: lag,
            }],
        };
        let streaming = v1::InstanceState::Streaming;
        let of = |lag, state| essence(&told(lag, state), Some(16));
        assert_eq!(of(Some(0), streaming), of(Some(16), streaming));
        assert_ne!(of(Some(16), streaming), of(Some(17), streaming));
        assert_ne!(of(Some(0), streaming), of(None, streaming));
        assert_ne!(of(Some(0), streaming), of(Some(0), v1::InstanceState::Disconnected));
        // Without a limit no distance is one.
        let any = |lag| essence(&told(Some(lag), streaming), Some(0));
        assert_eq!(any(0), any(1 << 40));
    }
}
