//! Database groups as nobody would make them.

use ha_proto::v1::{
    DurabilityRule, Group, GroupPause, GroupRecord, GroupSpec, HistoryEntry, HistoryPhase, Instance, PendingRestart,
    ProxyStatus,
};

use super::Dice;

pub(super) fn group(d: &mut Dice) -> Group {
    let spec = (!d.one_in(5)).then(|| GroupSpec {
        durability: d.enumeration(),
        pause: d.one_in(3).then(|| GroupPause {
            on: d.one_in(2),
            until_unix_ms: d.number(),
            reason: d.text(),
            actor: d.text(),
            since_unix_ms: d.number(),
        }),
        ..GroupSpec::default()
    });
    let record = (!d.one_in(5)).then(|| GroupRecord {
        term: d.size(),
        epoch: d.size(),
        phase: d.enumeration(),
        primary: d.name(),
        rules: d.some(3, |d| DurabilityRule {
            voters: d.some(4, Dice::name),
            need: d.enumeration().unsigned_abs(),
            primaries: d.some(2, Dice::name),
            id: u64::from(d.enumeration().unsigned_abs()),
        }),
        applying: u64::from(d.enumeration().unsigned_abs()),
        timeline: d.enumeration().unsigned_abs(),
        since_unix_ms: d.number(),
        reason: d.text(),
        switching_to: d.name(),
        switching_step: d.text(),
        degraded: d.text(),
        ..GroupRecord::default()
    });
    Group {
        name: if d.one_in(3) { d.text() } else { "main".to_owned() },
        spec,
        record,
        health: d.enumeration(),
        problems: d.some(3, Dice::text),
        instances: d.some(8, instance),
        proxies: d.some(3, |d| ProxyStatus {
            node: d.name(),
            address: d.text(),
            standby_address: d.text(),
            connections: d.enumeration().unsigned_abs(),
            waiting: d.enumeration().unsigned_abs(),
            error: d.text(),
        }),
        why_no_failover: d.some(3, Dice::text),
        last_change: (!d.one_in(3)).then(|| change(d)),
        last_failover_unix_ms: d.number(),
        last_failover_gap_ms: d.size(),
        revision: d.size(),
        observed_unix_ms: d.number(),
        operation_id: d.text(),
    }
}

fn instance(d: &mut Dice) -> Instance {
    Instance {
        node: d.name(),
        role: d.enumeration(),
        priority: d.enumeration().unsigned_abs(),
        chosen: d.one_in(2),
        wanted_primary: d.one_in(3),
        voter: d.one_in(2),
        reported_unix_ms: d.number(),
        reported_primary: d.one_in(3),
        state: d.enumeration(),
        detail: d.text(),
        timeline: d.enumeration().unsigned_abs(),
        lsn: d.size(),
        behind_bytes: d.one_in(2).then(|| d.size()),
        behind_ms: d.one_in(2).then(|| d.size()),
        sync: d.enumeration(),
        lease_left_ms: d.one_in(2).then(|| d.number()),
        pending_restart: d.some(3, |d| PendingRestart {
            parameter: d.text(),
            current: d.text(),
            wanted: d.text(),
        }),
        waits_for: d.text(),
        held_until_unix_ms: d.number(),
        held_because: d.text(),
        not_eligible: d.some(3, Dice::text),
        address: d.text(),
        version: d.text(),
        data_bytes: d.size(),
        wal_bytes: d.size(),
        connections: d.enumeration().unsigned_abs(),
        upstream: d.name(),
        errors: d.some(3, Dice::text),
    }
}

fn change(d: &mut Dice) -> HistoryEntry {
    HistoryEntry {
        epoch: d.size(),
        kind: d.enumeration(),
        from: d.name(),
        to: d.name(),
        started_unix_ms: d.number(),
        finished_unix_ms: d.number(),
        phases: d.some(5, |d| HistoryPhase {
            name: d.text(),
            at_ms: d.size(),
            text: d.text(),
        }),
        gap_ms: d.one_in(2).then(|| d.size()),
        reason: d.text(),
        actor: d.text(),
        decision: d.some(3, Dice::text),
        lost_bytes: d.one_in(2).then(|| d.size()),
        error: d.text(),
        ..HistoryEntry::default()
    }
}
