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

        /// A registration that vanished at its earliest still leaves no lease once `over_after` has passed.
        #[test]
        fn an_absent_registration_proves_the_lease_over(sent in 0u64..1_000_000, seen_after in 0u64..5000, timeout in 4000u64..60_000) {
            let (sent, timeout) = (Duration::from_millis(sent), Duration::from_millis(timeout));
            let seen_absent = sent + Duration::from_millis(seen_after);
            prop_assert!(seen_absent + over_after(timeout) > until(sent, timeout));
        }
    }
}
