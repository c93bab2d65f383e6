//! Standbys that need log which the primary has removed: nobody can give it to them, so they are copied afresh.
//!
//! A group that writes more than its slots keep, while a standby is away, does so again: the pauses between two copies grow.

use super::view::View;
use crate::database::local::{PrimaryReport, Report};
use crate::database::record::InstanceState;

/// The pause after the first copy, in milliseconds; each later one is twice as long.
const FIRST_PAUSE_MS: i64 = 10 * 60 * 1000;
/// No pause is longer, in milliseconds.
const LONGEST_PAUSE_MS: i64 = 12 * 60 * 60 * 1000;
/// What is longer ago than this is forgotten, in milliseconds.
const FORGOTTEN_MS: i64 = 48 * 60 * 60 * 1000;

/// Why `node` can never stream again as it is; none if it can, or while that is not known.
///
/// What the primary told of its log may be older than the standby's report: that log only gets shorter.
pub(super) fn starved(view: &View<'_>, report: &Report, primary: &PrimaryReport) -> Option<String> {
    let node = &report.node;
    let gone = view.memory.gone_since.get(node)?;
    let lasts = view.now().saturating_sub(*gone) >= view.timing.detect * 2;
    let able = report.standby && report.unfit.is_none() && report.task.is_none();
    if !lasts || !able || report.epoch != view.record.epoch || primary.flushed.contains_key(node) {
        return None;
    }
    let (end, oldest) = (report.log?.lsn, primary.oldest?);
    let from = view.record.primary.as_deref().unwrap_or_default();
    (end < oldest).then(|| format!("its log ends at {end}, and {from} has removed the log before {oldest}"))
}

/// When a standby that starves is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Due {
    /// Now, after so many times before.
    Now {
        /// Why.
        why: String,
        /// How often it was within the time that counts.
        times: u32,
    },
    /// Not yet: a line for people.
    Later(String),
}

/// Whether a standby starves, and when it is to be copied for it.
pub(super) fn due(view: &View<'_>, kept: &InstanceState, report: &Report, primary: &PrimaryReport) -> Option<Due> {
    let why = starved(view, report, primary)?;
    let now_ms = view.observed.now_ms;
    let (times, mut at_ms) = next(kept, now_ms);
    // An order that stands has its time to be carried out, whoever gave it.
    if let Some(order) = &kept.rebuild {
        at_ms = at_ms.max(order.since_ms.saturating_add(FIRST_PAUSE_MS));
    }
    if now_ms >= at_ms {
        return Some(Due::Now { why, times });
    }
    let minutes = (at_ms - now_ms).div_euclid(60_000) + 1;
    Some(Due::Later(format!(
        "{}: {why}; it is copied afresh again in {minutes} min, after {times} copies for this reason",
        report.node
    )))
}

/// How often a standby was copied for this, for an event; empty for the first time.
pub(super) fn again(times: u32) -> String {
    match times {
        0 | 1 => String::new(),
        _ => format!(
            " ({times} times now: limits.slotRetentionBytes is too little for what is written while it is away)"
        ),
    }
}

/// How many copies count, and when the next one may be ordered, in milliseconds since 1970-01-01 UTC.
fn next(kept: &InstanceState, now_ms: i64) -> (u32, i64) {
    if kept.starvations == 0 || now_ms.saturating_sub(kept.starved_ms) > FORGOTTEN_MS {
        return (0, 0);
    }
    let doubled = FIRST_PAUSE_MS.saturating_mul(1 << (kept.starvations - 1).min(16));
    let pause = doubled.min(LONGEST_PAUSE_MS);
    (kept.starvations, kept.starved_ms.saturating_add(pause))
}
