//! Lease arithmetic (protocol R9, R12): how long an owner may act, and when others may conclude that it no longer does.
//!
//! All times are on one machine's own monotonic clock; two machines' clocks are never compared.

use std::time::Duration;

/// Extra time before a lease is concluded to be over: clock drift and scheduling on both sides.
pub const MARGIN: Duration = Duration::from_millis(250);

/// Up to when the holder may act: send time of the last acknowledged heartbeat plus two thirds of the session timeout.
pub fn until(sent: Duration, session_timeout: Duration) -> Duration {
    sent + session_timeout * 2 / 3
}

/// Up to when a master may act whose lease ends at `until`: half of the session timeout after the sending of the last
/// acknowledged heartbeat. Mastership ends before the rest does, for what waits for the next master (a database whose primary
/// was on the same node) should not wait for the whole lease.
pub fn mastership_until(until: Duration, session_timeout: Duration) -> Duration {
    until.saturating_sub(session_timeout / 6)
}

/// How long a lease must have been unchanged, on the observer's clock, before its holder's mastership is over.
pub fn mastership_over_after(session_timeout: Duration) -> Duration {
    session_timeout / 2 + MARGIN
}

/// How often the holder sends heartbeats.
pub fn heartbeat_interval(session_timeout: Duration) -> Duration {
    session_timeout / 5
}

/// How long a registration must have been absent, on the observer's clock, before its holder's lease is over (R12).
pub fn over_after(session_timeout: Duration) -> Duration {
    session_timeout * 2 / 3 + MARGIN
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The server expires a session no earlier than one timeout after it received the last heartbeat; the holder's
        /// lease must end before, whatever the heartbeat's travel time was.
        #[test]
        fn the_lease_ends_before_the_session_can(sent in 0u64..1_000_000, travel in 0u64..4000, timeout in 4000u64..60_000) {
            let (sent, timeout) = (Duration::from_millis(sent), Duration::from_millis(timeout));
            let earliest_expiry = sent + Duration::from_millis(travel) + timeout;
            prop_assert!(until(sent, timeout) + timeout / 3 <= earliest_expiry);
        }

        /// A lease that was looked at after its last heartbeat, and is unchanged since, leaves no mastership.
        #[test]
        fn an_unchanged_lease_proves_mastership_over(sent in 0u64..1_000_000, seen_after in 0u64..5000, timeout in 4000u64..60_000) {
            let (sent, timeout) = (Duration::from_millis(sent), Duration::from_millis(timeout));
            let first_seen = sent + Duration::from_millis(seen_after);
            prop_assert!(first_seen + mastership_over_after(timeout) > mastership_until(until(sent, timeout), timeout));
        }

        /// A registration that vanished at its earliest still leaves no lease once `over_after` has passed.
        #[test]
        fn an_absent_registration_proves_the_lease_over(sent in 0u64..1_000_000, seen_after in 0u64..5000, timeout in 4000u64..60_000) {
            let (sent, timeout) = (Duration::from_millis(sent), Duration::from_millis(timeout));
            let seen_absent = sent + Duration::from_millis(seen_after);
            prop_assert!(seen_absent + over_after(timeout) > until(sent, timeout));
        }
    }
}
