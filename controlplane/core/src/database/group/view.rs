//! What the master makes of its observations: whose word counts, and for what.

use std::time::Duration;

use crate::database::durability;
use crate::database::lineage::LogEnd;
use crate::database::local::{Directory, PrimaryReport, Report, Server, StopProof};
use crate::database::observed::{Memory, Observed, Seen};
use crate::database::record::{GroupState, Nodes, Phase};
use crate::database::spec::{Durability, GroupSpec, RoleWanted};
use crate::database::{Timing, Weaken};
use crate::lease;

/// The arguments of a decision.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) spec: &'a GroupSpec,
    pub(super) record: &'a GroupState,
    pub(super) observed: &'a Observed,
    pub(super) memory: &'a Memory,
    pub(super) timing: &'a Timing,
    pub(super) weaken: &'a Weaken,
}

/// What an instance answered in an election, as it is counted.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) node: String,
    /// Its log's end, truncated to the recorded lineage.
    pub(super) rank: LogEnd,
    /// It is the former primary, and stopped: it would be started in place.
    pub(super) stopped: bool,
}

impl<'a> View<'a> {
    pub(super) fn now(&self) -> Duration {
        self.observed.now
    }

    pub(super) fn limit(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    pub(super) fn seen(&self, node: &str) -> Option<&'a Seen> {
        self.observed.instances.get(node)
    }

    /// The last report, whatever its age.
    pub(super) fn report(&self, node: &str) -> Option<&'a Report> {
        self.seen(node)?.any()
    }

    /// The last report, if the node still reports.
    pub(super) fn recent(&self, node: &str) -> Option<&'a Report> {
        let seen = self.seen(node)?;
        seen.recent(self.now(), self.timing.detect).filter(|_| seen.stream_open)
    }

    /// What the record's primary reports in the record's epoch.
    pub(super) fn primary(&self) -> Option<(&'a Report, &'a PrimaryReport)> {
        let report = self.recent(self.record.primary.as_deref()?)?;
        let primary = report.primary.as_ref()?;
        (primary.epoch == self.record.epoch && self.started_since(report)).then_some((report, primary))
    }

    /// A report of the named primary is of an incarnation that this record ordered, not of the one before it.
    pub(super) fn started_since(&self, report: &Report) -> bool {
        match &self.record.promotion {
            Some(p) if p.node == report.node => p.after_stop.is_none_or(|old| report.incarnation > old),
            _ => true,
        }
    }

    /// Proof that the last incarnation of a node that could acknowledge anything is gone (R10). A report from before the
    /// last promotion proves nothing, for the node may have been started since; one from its own epoch proves something
    /// of the node it named only if it is about what the promotion made of it.
    pub(super) fn proof(&self, node: &str) -> Option<&'a StopProof> {
        let report = self.report(node)?;
        let proof = report.stopped.as_ref()?;
        let valid = match &self.record.promotion {
            None => true,
            Some(p) if p.node == node => {
                let ran = p.after_stop.is_none_or(|old| proof.incarnation > old) && proof.was_primary;
                report.epoch > p.epoch || (report.epoch == p.epoch && ran)
            }
            Some(p) => report.epoch >= p.epoch,
        };
        valid.then_some(proof)
    }

    /// Why the primary is suspect, and whether it is known to be down, so that nobody need be asked who still hears it.
    pub(super) fn suspicion(&self, node: &str) -> Option<(String, bool)> {
        let seen = self.seen(node)?;
        if self.proof(node).is_some() {
            return Some((format!("PostgreSQL on {node} has stopped"), true));
        }
        if let Some(report) = self
            .recent(node)
            .filter(|r| r.epoch >= self.record.epoch && self.started_since(r))
        {
            if report.server == Server::Orphaned {
                return Some((format!("the postmaster on {node} is gone"), true));
            }
            if report.primary.as_ref().is_some_and(|p| p.probe_failed) {
                return Some((format!("{node} cannot write: its commit probes fail"), true));
            }
        }
        let settled = self.now() >= self.observed.settled_at;
        if let Some(since) = seen.absent_since.filter(|_| settled) {
            let ms = self.now().saturating_sub(since).as_millis();
            return Some((format!("{node} is not registered since {ms} ms"), false));
        }
        // A stream that broke under this master is news of the node's, not of the master's.
        if seen.stream_broken.is_some() && !seen.stream_open && !seen.restarting {
            return Some((format!("the connection to {node} broke"), false));
        }
        let heard = seen.report.as_ref().map(|(_, at)| *at).unwrap_or_default();
        let since = heard.max(self.observed.settled_at.saturating_sub(self.timing.detect));
        let silent = self.now().saturating_sub(since);
        (settled && silent >= self.timing.detect)
            .then(|| (format!("{node} is silent for {} ms", silent.as_millis()), false))
    }

    /// Standbys that hear the primary on the replication link, by reports that are themselves young.
    pub(super) fn witnesses(&self, primary: &str) -> Nodes {
        let hears = |seen: &Seen| {
            let (report, at) = seen.report.as_ref()?;
            let (upstream, age) = report.heard.as_ref()?;
            let age = *age + self.now().saturating_sub(*at);
            (upstream.node == primary && upstream.epoch == self.record.epoch && age < self.timing.detect).then_some(())
        };
        let of = self.observed.instances.iter();
        of.filter(|(_, s)| hears(s).is_some()).map(|(n, _)| n.clone()).collect()
    }

    /// The directory is the group's and whole.
    pub(super) fn sound(&self, report: &Report) -> bool {
        let of_group = |id| self.record.system_id.is_none_or(|own| own == id);
        matches!(report.directory, Directory::Present { system_id } if of_group(system_id))
    }

    /// The answers that count in this election: of sealed instances, and of stopped former primaries.
    pub(super) fn answers(&self) -> Vec<Answer> {
        let of = self
            .observed
            .instances
            .iter()
            .filter_map(|(node, seen)| self.answer(node, seen.any()?));
        of.collect()
    }

    fn answer(&self, node: &str, report: &Report) -> Option<Answer> {
        let whole = self.sound(report) && !self.record.rebuilding(node) && !report.history.0.is_empty();
        if !whole && !self.weaken.torn_answers {
            return None;
        }
        let sealed = report.sealed == Some(self.record.epoch);
        let former = self.record.former.as_deref() == Some(node);
        // A standby that has stopped promises nothing: until it reads of the election it starts by itself, and may confirm
        // more than it told. A primary starts on order alone.
        let promised = former || report.epoch >= self.record.epoch || self.weaken.standby_stop_answers;
        let stopped = self.proof(node).filter(|_| promised);
        if !sealed && stopped.is_none() {
            return None;
        }
        let end = stopped.and_then(|p| p.log).or(report.log);
        let end = end.or_else(|| self.weaken.torn_answers.then(LogEnd::default))?;
        let rank = if self.weaken.no_truncation {
            end
        } else {
            self.record.lineage.truncate(&report.history, end)
        };
        let rank = if self.weaken.no_lineage_rank {
            LogEnd { epoch: 0, lsn: end.lsn }
        } else {
            rank
        };
        Some(Answer {
            node: node.to_owned(),
            rank,
            stopped: stopped.is_some() && former,
        })
    }

    /// Standbys that report, and whose log does not end after `rank`: they can follow whoever is chosen with that.
    pub(super) fn standbys_up_to(&self, rank: Option<LogEnd>) -> impl Iterator<Item = &'a String> {
        let this = *self;
        let fits = move |node: &str| {
            let report = this.recent(node).filter(|r| this.sound(r) && !r.runs_as_primary())?;
            let end = this.record.lineage.truncate(&report.history, report.log?);
            (report.server == Server::Running && end <= rank?).then_some(())
        };
        self.observed.instances.keys().filter(move |n| fits(n).is_some())
    }

    /// Instances that refuse every epoch before this one.
    pub(super) fn sealed(&self) -> Nodes {
        let of = self.observed.instances.iter();
        let sealed = of.filter(|(_, s)| s.any().is_some_and(|r| r.sealed == Some(self.record.epoch)));
        sealed.map(|(n, _)| n.clone()).collect()
    }

    /// Nodes that reported lately and could answer a seal or show a stopped directory.
    pub(super) fn within_reach(&self) -> Nodes {
        let usable = |n: &&String| {
            let whole = |r: &Report| self.sound(r) && !self.record.rebuilding(n);
            let counts = |r: &&Report| whole(r) || self.weaken.torn_answers;
            let report = self.recent(n).filter(counts);
            report.is_some_and(|r| !r.runs_as_primary() || self.proof(n).is_some())
        };
        self.observed.instances.keys().filter(usable).cloned().collect()
    }

    /// Whether the last primary is known to acknowledge nothing any more: by its proof of stop, its lease (R12) and the
    /// end of every grant, or because too few standbys are left that could acknowledge with it.
    pub(super) fn fenced(&self, sealed: &Nodes) -> Result<String, String> {
        let Some(former) = self.record.former.as_deref() else {
            return Ok("there was no primary".to_owned());
        };
        if self.proof(former).is_some() {
            return Ok(format!("{former} has stopped"));
        }
        // It runs as no primary, and what it refuses it refuses for good.
        if sealed.contains(former) {
            return Ok(format!("{former} has sealed"));
        }
        let absent = self.seen(former).and_then(|s| s.absent_since);
        let over = lease::over_after(self.timing.session_timeout);
        let waited = absent.map(|since| self.now().saturating_sub(since));
        let granters_done = self.record.granters.iter().all(|g| g == former || sealed.contains(g));
        if waited.is_some_and(|w| self.weaken.absence_is_over || (w >= over && granters_done)) {
            return Ok(format!("the lease of {former} is over"));
        }
        if self.record.rules.iter().all(|r| durability::answered(r, sealed)) {
            return Ok(format!("too few standbys are left that could acknowledge for {former}"));
        }
        Err(match waited {
            Some(w) if w < over => format!(
                "the lease of {former} may last for another {} ms",
                (over - w).as_millis()
            ),
            Some(_) => {
                let left = self.record.granters.iter().filter(|g| !sealed.contains(*g));
                format!(
                    "{former} may live by the grants of {}",
                    left.cloned().collect::<Vec<_>>().join(", ")
                )
            }
            None => format!("{former} is registered, and not known to have stopped"),
        })
    }

    /// Since when this master knows the phase.
    pub(super) fn in_phase(&self) -> Duration {
        let since = self
            .memory
            .phase_since
            .filter(|(e, p, _)| (*e, *p) == (self.record.epoch, self.record.phase));
        since.map_or(Duration::ZERO, |(_, _, at)| self.now().saturating_sub(at))
    }

    /// When this master first saw the phase.
    pub(super) fn phase_began(&self) -> Duration {
        self.now().saturating_sub(self.in_phase())
    }

    /// Nothing is to happen by itself.
    pub(super) fn paused(&self) -> Option<&'static str> {
        if self.observed.maintenance {
            Some("the cluster is in maintenance")
        } else if self.spec.paused(self.observed.now_ms) {
            Some("the group is paused")
        } else {
            None
        }
    }

    /// It may vote: it is wanted as one and its directory is whole.
    pub(super) fn may_vote(&self, node: &str) -> bool {
        self.spec.durability != Durability::Async
            && matches!(self.spec.role(node), RoleWanted::Primary | RoleWanted::Sync)
            && self.record.instances.contains_key(node)
            && !self.record.rebuilding(node)
            && self.report(node).is_none_or(|r| r.unfit.is_none())
    }

    /// Held down because it failed too often.
    pub(super) fn held(&self, node: &str) -> Option<i64> {
        let until = self.record.instances.get(node)?.held_until_ms?;
        (self.observed.now_ms < until).then_some(until)
    }

    /// How busy the node is.
    pub(super) fn load(&self, node: &str) -> u32 {
        self.observed.candidates.get(node).map_or(u32::MAX, |c| c.load_milli)
    }

    /// Instances of the group, the primary left out.
    pub(super) fn standbys(&self) -> impl Iterator<Item = &'a String> {
        let primary = self.record.primary.as_deref();
        self.record
            .instances
            .keys()
            .filter(move |n| Some(n.as_str()) != primary)
    }

    /// Milliseconds since the failover under way began.
    pub(super) fn since_start(&self) -> u64 {
        let started = self.record.last.as_ref().map_or(self.observed.now_ms, |l| l.started_ms);
        u64::try_from(self.observed.now_ms - started).unwrap_or(0)
    }

    /// The record's primary is named and its phase is one in which it may be open.
    pub(super) fn has_primary(&self) -> bool {
        self.record.primary.is_some() && matches!(self.record.phase, Phase::Steady | Phase::Switching)
    }
}

impl Report {
    /// It runs as a primary.
    pub(super) fn runs_as_primary(&self) -> bool {
        self.primary.is_some() && self.server == Server::Running
    }
}
