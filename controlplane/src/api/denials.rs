//! Refused calls: logged, counted and sent to the master for the record, but not more often than anybody reads.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use ha_proto::v1;

/// One entry in this time for each caller and method.
const QUIET: Duration = Duration::from_secs(10);
/// Callers and methods remembered; with more than these nothing further is recorded until the oldest are quiet again.
const MAX_REMEMBERED: usize = 512;

/// When something was last told about whom.
#[derive(Debug, Default)]
pub(crate) struct Quieter(Mutex<HashMap<(String, &'static str), Duration>>);

impl Quieter {
    /// Whether this may be told at `now` (time since boot).
    pub(crate) fn may(&self, actor: &str, what: &'static str, now: Duration) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() >= MAX_REMEMBERED {
            last.retain(|_, told| now.saturating_sub(*told) < QUIET);
        }
        let key = (actor.to_owned(), what);
        match last.get(&key) {
            Some(told) if now.saturating_sub(*told) < QUIET => false,
            None if last.len() >= MAX_REMEMBERED => false,
            Some(_) | None => {
                last.insert(key, now);
                true
            }
        }
    }
}

impl super::Context {
    /// Notes a refused call.
    pub(crate) fn deny(&self, actor: &str, method: &'static str, why: &str, peer: std::net::IpAddr) {
        self.metrics.denied.inc();
        if !self.denials.may(actor, method, self.shared.clock.boottime()) {
            return;
        }
        tracing::warn!(actor, method, peer = %peer, "call refused: {why}");
        let denied = v1::Denied {
            actor: actor.to_owned(),
            method: method.to_owned(),
            why: why.to_owned(),
            time_unix_ms: self.shared.clock.wall_ms(),
            peer: peer.to_string(),
        };
        if self.shared.denied.try_send(denied).is_err() {
            tracing::debug!("the record of refused calls is full");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_once_in_a_while() {
        let (q, s) = (Quieter::default(), Duration::from_secs);
        assert!(q.may("user/a", "/x", s(100)));
        assert!(!q.may("user/a", "/x", s(109)));
        assert!(q.may("user/a", "/y", s(109)));
        assert!(q.may("user/b", "/x", s(109)));
        assert!(q.may("user/a", "/x", s(110)));
    }

    #[test]
    fn memory_is_bounded() {
        let q = Quieter::default();
        let told = (0..10_000)
            .filter(|i| q.may(&format!("user/u{i}"), "/x", Duration::from_secs(1)))
            .count();
        assert_eq!(told, MAX_REMEMBERED);
        assert!(q.may("user/late", "/x", Duration::from_secs(60)));
    }
}
