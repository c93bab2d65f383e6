//! The master stays away from the nodes of primaries: when such a node dies, an election and a failover in a row cost the
//! clients more than either alone.

use std::time::Duration;

use ha_core::database::Phase;
use ha_core::membership;

use super::super::Master;

/// How long it must have been so before mastership is moved.
const HOLD: Duration = Duration::from_secs(10);

impl Master<'_> {
    fn hosts_primary(&self, node: &str) -> bool {
        let live = self.store.groups.values().filter(|g| g.live().is_some());
        live.into_iter().any(|g| g.record().primary.as_deref() == Some(node))
    }

    /// Nothing is being changed in any group, and no operation on one is under way.
    fn databases_rest(&self) -> bool {
        let rests = |name: &String| {
            let Some(g) = self.store.groups.get(name).filter(|g| g.live().is_some()) else {
                return true;
            };
            let r = g.record();
            let still = r.phase == Phase::Steady && !r.joint() && r.last.as_ref().is_none_or(|l| l.done);
            let held = self.databases.groups.get(name).is_some_and(|g| g.held.is_some());
            still && !held && self.running_on(name).is_empty()
        };
        self.store.groups.keys().all(rests)
    }

    /// The node that mastership moves to because a primary is on this one: none during a change in any group, where an
    /// operator decided otherwise, or before it has been so for a while. `settled` are the nodes that have been online
    /// for long enough.
    pub(in crate::master) fn away_from_primary(&mut self, settled: &[String]) -> Option<String> {
        let me = self.p.shared.me.node.clone();
        let now = self.now();
        let records = self.records();
        let may = |n: &str| {
            records
                .get(n)
                .is_some_and(|r| !r.removed && membership::may_lead(&r.spec))
        };
        // A preference above 0 is an operator's word.
        let chosen = records.get(me.as_str()).is_some_and(|r| r.spec.master_preference > 0);
        let other = settled.iter().filter(|n| **n != me && may(n) && !self.hosts_primary(n));
        let target = other.min().cloned();
        let due = !chosen && self.hosts_primary(&me) && self.databases_rest();
        let Some(target) = target.filter(|_| due) else {
            self.databases.on_primary_since = None;
            return None;
        };
        let since = *self.databases.on_primary_since.get_or_insert(now);
        (now >= since + HOLD).then_some(target)
    }
}
