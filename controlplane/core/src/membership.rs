//! A node's state: what the master concludes from its registration and its reports.
//!
//! The registration (an ephemeral znode) is what counts; the report stream only makes a silent node suspect sooner. An
//! announced restart never makes a node suspect while its session lives.

use std::time::Duration;

use crate::model::{NodeSpec, Presence};

/// The master's observations of one node. Times are on the master's monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observation {
    /// The node's registration exists.
    pub registered: bool,
    /// The registration announces a restart.
    pub restarting: bool,
    /// Since when the registration was seen to be absent; none while it exists.
    pub absent_since: Option<Duration>,
    /// When the present registration was first seen; none while there is none.
    pub registered_since: Option<Duration>,
    /// When its last report came.
    pub last_report: Option<Duration>,
    /// Its report stream is open.
    pub stream_open: bool,
}

/// The limits of the conclusion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Silence after which a registered node is suspect.
    pub detect: Duration,
    /// Absence of the registration after which a node is offline: a daemon that restarts replaces its own within less.
    pub absence: Duration,
    /// When this master began to observe, plus the time it grants agents to find it.
    pub settled_at: Duration,
}

/// What is concluded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The state.
    pub presence: Presence,
    /// Why, one line; empty when online.
    pub reason: String,
    /// When to look again though nothing was observed.
    pub recheck_at: Option<Duration>,
}

/// Concludes a node's state at `now` from what was concluded before and what is observed.
pub fn assess(before: Presence, seen: &Observation, limits: &Limits, now: Duration) -> Verdict {
    let verdict = |presence, reason: &str, recheck_at| Verdict {
        presence,
        reason: reason.to_owned(),
        recheck_at,
    };
    if !seen.registered {
        if before == Presence::Unseen {
            return verdict(Presence::Unseen, "never started", None);
        }
        if before == Presence::Offline {
            return verdict(Presence::Offline, "session expired", None);
        }
        let gone_at = seen.absent_since.unwrap_or(now) + limits.absence;
        return if now >= gone_at {
            verdict(Presence::Offline, "session expired", None)
        } else {
            // A daemon that restarts replaces its registration: the moment between is no news.
            verdict(before, "", Some(gone_at))
        };
    }
    if seen.restarting {
        return verdict(Presence::Online, "restarting", None);
    }
    // Before a node has reported to this master, its silence counts from when it registered or the master was settled.
    let silent_since = [
        seen.last_report,
        seen.registered_since,
        limits.settled_at.checked_sub(limits.detect),
    ];
    let silent_since = silent_since.into_iter().flatten().max().unwrap_or_default();
    let suspect_at = silent_since + limits.detect;
    if now < suspect_at {
        // A node that was away is online again only once it reports, so that "online" means usable.
        let back = matches!(before, Presence::Online) || (seen.last_report.is_some() && seen.stream_open);
        let presence = if back { Presence::Online } else { before };
        let reason = match presence {
            Presence::Online => "",
            Presence::Unseen => "registered, not reporting yet",
            Presence::Suspect => "registered, no report yet",
            Presence::Offline => "registered again, not reporting yet",
        };
        return verdict(presence, reason, Some(suspect_at));
    }
    verdict(Presence::Suspect, "registered, but not reporting", None)
}

/// Whether a node may be master: eligible, not being emptied, not set aside.
pub fn may_lead(spec: &NodeSpec) -> bool {
    spec.master_eligible && !spec.cordoned && !spec.draining
}

/// The node mastership belongs to by preference: the online candidate with the highest preference above 0; of equals,
/// the current master, then the first by name.
pub fn preferred<'a>(candidates: impl IntoIterator<Item = (&'a str, &'a NodeSpec)>, current: &str) -> Option<&'a str> {
    candidates
        .into_iter()
        .filter(|(_, spec)| may_lead(spec) && spec.master_preference > 0)
        .max_by(|(a, sa), (b, sb)| {
            sa.master_preference
                .cmp(&sb.master_preference)
                .then((*a == current).cmp(&(*b == current)))
                .then(b.cmp(a))
        })
        .map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits {
        detect: Duration::from_millis(1500),
        absence: Duration::from_millis(500),
        settled_at: Duration::from_secs(10),
    };

    fn seen(registered: bool, report: Option<u64>) -> Observation {
        Observation {
            registered,
            restarting: false,
            absent_since: None,
            registered_since: registered.then_some(Duration::ZERO),
            last_report: report.map(Duration::from_millis),
            stream_open: report.is_some(),
        }
    }

    fn at(before: Presence, o: &Observation, ms: u64) -> Presence {
        assess(before, o, &LIMITS, Duration::from_millis(ms)).presence
    }

    #[test]
    fn a_table_of_conclusions() {
        use Presence::{Offline, Online, Suspect, Unseen};
        let absent = |ms| Observation {
            absent_since: Some(Duration::from_millis(ms)),
            ..seen(false, None)
        };
        let back = Observation {
            registered_since: Some(Duration::from_millis(20_000)),
            ..seen(true, None)
        };
        let restarting = Observation {
            restarting: true,
            ..seen(true, Some(0))
        };
        for (before, o, now, want) in [
            (Unseen, seen(false, None), 20_000, Unseen),
            (Unseen, seen(true, Some(20_000)), 20_100, Online),
            (Unseen, seen(true, None), 9_000, Unseen),
            (Unseen, seen(true, None), 20_000, Suspect),
            (Online, seen(true, Some(20_000)), 21_499, Online),
            (Online, seen(true, Some(20_000)), 21_500, Suspect),
            (Online, restarting, 60_000, Online),
            (Online, absent(20_000), 20_499, Online),
            (Suspect, absent(20_000), 20_499, Suspect),
            (Online, absent(20_000), 20_500, Offline),
            (Offline, absent(20_000), 20_001, Offline),
            (Offline, seen(true, None), 9_000, Offline),
            // It has just come back: that it has not reported yet makes it neither online nor suspect.
            (Offline, back, 21_499, Offline),
            (Offline, back, 21_500, Suspect),
            (Offline, seen(true, Some(20_000)), 20_001, Online),
            // A new master gives agents time to find it.
            (Online, seen(true, None), 9_999, Online),
            (Online, seen(true, None), 10_000, Suspect),
        ] {
            assert_eq!(at(before, &o, now), want, "{before:?} {o:?} {now}");
        }
    }

    #[test]
    fn preference_is_stable() {
        let spec = |p| NodeSpec {
            address: "a:1".into(),
            labels: Default::default(),
            scenarios: Default::default(),
            capacity_override: Default::default(),
            master_eligible: true,
            master_preference: p,
            cordoned: false,
            draining: false,
        };
        let (a, b, c) = (spec(5), spec(5), spec(0));
        let all = [("a", &a), ("b", &b), ("c", &c)];
        assert_eq!(preferred(all, "c"), Some("a"));
        assert_eq!(preferred(all, "b"), Some("b"));
        assert_eq!(preferred([("c", &c)], "c"), None);
    }

    fn presence() -> impl Strategy<Value = Presence> {
        prop_oneof![
            Just(Presence::Unseen),
            Just(Presence::Online),
            Just(Presence::Suspect),
            Just(Presence::Offline)
        ]
    }

    proptest! {
        /// Looking again with nothing new changes nothing until the time the verdict named.
        #[test]
        fn a_verdict_stands_until_its_recheck(
            before in presence(), registered: bool, restarting: bool, absent in proptest::option::of(0u64..30_000),
            report in proptest::option::of(0u64..30_000), open: bool, now in 30_000u64..40_000, later in 0u64..20_000
        ) {
            let o = Observation {
                registered,
                restarting,
                absent_since: if registered { None } else { absent.map(Duration::from_millis) },
                last_report: report.map(Duration::from_millis),
                stream_open: open,
                registered_since: registered.then_some(Duration::ZERO),
            };
            let now = Duration::from_millis(now);
            // The driver stamps an absence when it first sees it.
            let o = Observation { absent_since: (!registered).then(|| o.absent_since.unwrap_or(now)), ..o };
            let first = assess(before, &o, &LIMITS, now);
            let then = first.recheck_at.map_or(now + Duration::from_millis(later), |r| {
                (now + Duration::from_millis(later)).min(r.saturating_sub(Duration::from_nanos(1))).max(now)
            });
            let second = assess(first.presence, &o, &LIMITS, then);
            prop_assert_eq!(first.presence, second.presence);
        }

        /// A registered node is never offline by silence alone; a node without a registration stays what it was for the
        /// length of a restart, and is never online after it.
        #[test]
        fn registration_decides(before in presence(), report in proptest::option::of(0u64..30_000), now in 0u64..60_000) {
            let now = Duration::from_millis(now);
            let with = assess(before, &seen(true, report), &LIMITS, now);
            prop_assert!(with.presence != Presence::Offline || before == Presence::Offline);
            let absent = Observation { absent_since: Some(now), ..seen(false, report) };
            prop_assert_eq!(assess(before, &absent, &LIMITS, now).presence, before);
            let after = assess(before, &absent, &LIMITS, now + LIMITS.absence);
            prop_assert!(matches!(after.presence, Presence::Unseen | Presence::Offline));
        }
    }
}
