//! Reports as they go over the wire.

use ha_core::database::local::{Directory, Report, Server, Task, Upstream};
use ha_core::database::{Branch, LogEnd};
use ha_proto::v1;

/// A report of a group's instance. What only people want is filled in by whoever has it.
pub(crate) fn report(group: &str, r: &Report) -> v1::InstanceReport {
    let (directory, system_id) = match r.directory {
        Directory::Empty => (v1::DirectoryState::Empty, 0),
        Directory::Incomplete => (v1::DirectoryState::Incomplete, 0),
        Directory::Present { system_id } => (v1::DirectoryState::Present, system_id),
    };
    let server = match r.server {
        Server::Stopped => v1::ServerState::Stopped,
        Server::Starting => v1::ServerState::Starting,
        Server::Running => v1::ServerState::Running,
        Server::Stopping => v1::ServerState::Stopping,
        Server::Orphaned => v1::ServerState::Orphaned,
    };
    let timeline = r.history.timeline();
    let log_end = |l: LogEnd| v1::LogEnd {
        epoch: l.epoch,
        lsn: l.lsn.0,
        timeline,
    };
    let age = |d: std::time::Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    v1::InstanceReport {
        group: group.to_owned(),
        epoch: r.epoch,
        record_version: r.revision,
        directory: directory.into(),
        system_id,
        server: server.into(),
        standby: r.standby,
        incarnation: r.incarnation,
        history: r.history.0.iter().map(branch).collect(),
        log: r.log.map(log_end),
        replayed_lsn: r.replayed.0,
        sealed: r.sealed,
        stopped: r.stopped.as_ref().map(|p| v1::ProofOfStop {
            incarnation: p.incarnation,
            was_primary: p.was_primary,
            log: p.log.map(log_end),
        }),
        heard: r.heard.as_ref().map(|(u, _)| upstream(u)),
        heard_ago_ms: r.heard.as_ref().map_or(0, |(_, ago)| age(*ago)),
        streams: r.streams.as_ref().map(upstream),
        promotion: r.promotion,
        unfit: r.unfit.as_ref().map(|u| v1::Unfit {
            copy: u.copy,
            why: u.why.clone(),
        }),
        primary: r.primary.as_ref().map(primary),
        task: r.task.as_ref().map(|t| task(t, "")),
        failed: r.failed.as_ref().map(|(t, why)| task(t, why)),
        waits: r.waits.clone(),
        ..v1::InstanceReport::default()
    }
}

fn primary(p: &ha_core::database::local::PrimaryReport) -> v1::PrimaryReport {
    v1::PrimaryReport {
        epoch: p.epoch,
        applied: p.applied,
        applied_at_lsn: p.applied_at.map(|l| l.0),
        open: p.open,
        walsenders: p
            .flushed
            .iter()
            .map(|(node, flushed)| v1::Walsender {
                node: node.clone(),
                streaming: true,
                flushed_lsn: flushed.0,
                ..v1::Walsender::default()
            })
            .collect(),
        recovered_lsn: p.recovered.map(|l| l.0),
        promoted: p.promoted.as_ref().map(branch),
        probe_failed: p.probe_failed,
        archiver_stuck: p.archiver_stuck.clone().unwrap_or_default(),
        granters: p.granters.iter().cloned().collect(),
        granted_by: p.grantable.iter().cloned().collect(),
        probe_ms: None,
        redo_lsn: p.redo.map(|l| l.0),
        oldest_lsn: p.oldest.map(|l| l.0),
    }
}

pub(crate) fn branch(b: &Branch) -> v1::Branch {
    v1::Branch {
        epoch: b.epoch,
        timeline: b.timeline,
        fork_lsn: b.fork.0,
    }
}

pub(super) fn setting(s: &crate::postgres::probe::Setting) -> v1::Setting {
    v1::Setting {
        name: s.name.clone(),
        value: s.value.clone(),
        source: s.source.clone(),
        boot_value: s.boot_value.clone().unwrap_or_default(),
        restart: s.restart,
    }
}

fn upstream(u: &Upstream) -> v1::Upstream {
    v1::Upstream {
        node: u.node.clone(),
        epoch: u.epoch,
    }
}

fn task(task: &Task, why: &str) -> v1::TaskReport {
    let (kind, progress) = match task {
        Task::Create => (v1::InstanceTask::Create, None),
        Task::Start => (v1::InstanceTask::Start, None),
        Task::Promote => (v1::InstanceTask::Promote, None),
        Task::Rewind => (v1::InstanceTask::Rewind, None),
        Task::Copy { progress } => (v1::InstanceTask::Copy, *progress),
        Task::Stop => (v1::InstanceTask::Stop, None),
    };
    let (done, total) = progress.unwrap_or_default();
    v1::TaskReport {
        task: kind.into(),
        why: why.to_owned(),
        done_bytes: done,
        total_bytes: total,
    }
}

/// Whether a report tells something that is worth telling at once: ages and positions go with the next beat, unless the
/// group is not settled and somebody waits for them.
pub(super) fn differs(last: &v1::InstanceReport, now: &v1::InstanceReport, settled: bool) -> bool {
    let plain = |r: &v1::InstanceReport| {
        let mut r = r.clone();
        r.heard_ago_ms = 0;
        r.replayed_lsn = 0;
        r.lease_left_ms = None;
        r.replayed_unix_ms = 0;
        r.connections = 0;
        r.data_bytes = 0;
        r.wal_bytes = 0;
        r.disk_free_bytes = 0;
        r.slots.clear();
        r.grants.clear();
        if let Some(p) = &mut r.primary {
            p.probe_ms = None;
            for w in &mut p.walsenders {
                w.reply_age_ms = None;
                w.replayed_lsn = 0;
                if settled {
                    w.flushed_lsn = 0;
                }
            }
        }
        if settled {
            r.log = None;
        }
        if let Some(t) = &mut r.task {
            (t.done_bytes, t.total_bytes) = (0, 0);
        }
        r
    };
    plain(last) != plain(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ha_core::database::{Lineage, Lsn};

    #[test]
    fn positions_are_news_only_while_somebody_waits_for_them() {
        let at = |lsn| Report {
            node: "n1".into(),
            log: Some(LogEnd {
                epoch: 1,
                lsn: Lsn(lsn),
            }),
            history: Lineage(vec![Branch {
                epoch: 1,
                timeline: 1,
                fork: Lsn(0),
            }]),
            ..Report::default()
        };
        let (a, b) = (report("g", &at(1)), report("g", &at(2)));
        assert!(!differs(&a, &b, true) && differs(&a, &b, false));
        assert_eq!(b.log.unwrap().timeline, 1);
        let mut c = b.clone();
        c.sealed = Some(2);
        assert!(differs(&b, &c, true));
    }
}
