//! Reports of instances as the master reads them off the wire.
//!
//! What a report leaves open is never filled in by something that could enable a decision: a report whose directory or
//! server is not told is none.

use std::time::Duration;

use ha_core::database::local::{Directory, PrimaryReport, Report, Server, StopProof, Task, Unfit, Upstream};
use ha_core::database::{Branch, Lineage, LogEnd, Lsn};
use ha_proto::v1;

/// A line of a report is cut to this many characters.
const MAX_LINE: usize = 400;
/// Lines of a report beyond these are dropped.
const MAX_LINES: usize = 16;
/// Timelines, walsenders and names in a report beyond these are dropped.
const MAX_ENTRIES: usize = 256;

/// Reads a node's report; none if it lacks what must be told.
pub(super) fn read(node: &str, r: &v1::InstanceReport) -> Option<Report> {
    Some(Report {
        node: node.to_owned(),
        epoch: r.epoch,
        revision: r.record_version,
        directory: match r.directory() {
            v1::DirectoryState::Unspecified => return None,
            v1::DirectoryState::Empty => Directory::Empty,
            v1::DirectoryState::Incomplete => Directory::Incomplete,
            v1::DirectoryState::Present => Directory::Present { system_id: r.system_id },
        },
        server: match r.server() {
            v1::ServerState::Unspecified => return None,
            v1::ServerState::Stopped => Server::Stopped,
            v1::ServerState::Starting => Server::Starting,
            v1::ServerState::Running => Server::Running,
            v1::ServerState::Stopping => Server::Stopping,
            v1::ServerState::Orphaned => Server::Orphaned,
        },
        standby: r.standby,
        incarnation: r.incarnation,
        history: Lineage(r.history.iter().take(MAX_ENTRIES).map(read_branch).collect()),
        log: r.log.as_ref().map(read_end),
        replayed: Lsn(r.replayed_lsn),
        sealed: r.sealed,
        stopped: r.stopped.as_ref().map(|p| StopProof {
            incarnation: p.incarnation,
            was_primary: p.was_primary,
            log: p.log.as_ref().map(read_end),
        }),
        heard: r
            .heard
            .as_ref()
            .map(|u| (read_upstream(u), Duration::from_millis(r.heard_ago_ms))),
        streams: r.streams.as_ref().map(read_upstream),
        promotion: r.promotion,
        unfit: r.unfit.as_ref().map(|u| Unfit {
            copy: u.copy,
            why: line(&u.why),
        }),
        primary: r.primary.as_ref().map(read_primary),
        task: r.task.as_ref().and_then(read_task),
        failed: r.failed.as_ref().and_then(|t| Some((read_task(t)?, line(&t.why)))),
        waits: r.waits.iter().take(MAX_LINES).map(|w| line(w)).collect(),
    })
}

/// A text of a node's, as it may be shown and stored.
pub(super) fn line(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_LINE).collect()
}

fn read_branch(b: &v1::Branch) -> Branch {
    Branch {
        epoch: b.epoch,
        timeline: b.timeline,
        fork: Lsn(b.fork_lsn),
    }
}

fn read_end(end: &v1::LogEnd) -> LogEnd {
    LogEnd {
        epoch: end.epoch,
        lsn: Lsn(end.lsn),
    }
}

fn read_upstream(u: &v1::Upstream) -> Upstream {
    Upstream {
        node: u.node.clone(),
        epoch: u.epoch,
    }
}

fn read_primary(p: &v1::PrimaryReport) -> PrimaryReport {
    let streaming = p.walsenders.iter().filter(|w| w.streaming).take(MAX_ENTRIES);
    PrimaryReport {
        epoch: p.epoch,
        applied: p.applied,
        applied_at: p.applied_at_lsn.map(Lsn),
        open: p.open,
        flushed: streaming.map(|w| (w.node.clone(), Lsn(w.flushed_lsn))).collect(),
        recovered: p.recovered_lsn.map(Lsn),
        promoted: p.promoted.as_ref().map(read_branch),
        probe_failed: p.probe_failed,
        archiver_stuck: (!p.archiver_stuck.is_empty()).then(|| line(&p.archiver_stuck)),
        redo: p.redo_lsn.map(Lsn),
        oldest: p.oldest_lsn.map(Lsn),
        granters: p.granters.iter().take(MAX_ENTRIES).cloned().collect(),
        grantable: p.granted_by.iter().take(MAX_ENTRIES).cloned().collect(),
    }
}

fn read_task(t: &v1::TaskReport) -> Option<Task> {
    Some(match t.task() {
        v1::InstanceTask::Unspecified => return None,
        v1::InstanceTask::Create => Task::Create,
        v1::InstanceTask::Start => Task::Start,
        v1::InstanceTask::Promote => Task::Promote,
        v1::InstanceTask::Rewind => Task::Rewind,
        v1::InstanceTask::Copy => Task::Copy {
            progress: (t.total_bytes > 0).then_some((t.done_bytes, t.total_bytes)),
        },
        v1::InstanceTask::Stop => Task::Stop,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::database::wire::report as instance;

    #[test]
    fn a_report_travels_whole() {
        let end = LogEnd {
            epoch: 3,
            lsn: Lsn(0x5A1F_0380),
        };
        let upstream = Upstream {
            node: "n1".into(),
            epoch: 3,
        };
        let branch = Branch {
            epoch: 3,
            timeline: 2,
            fork: Lsn(77),
        };
        let report = Report {
            node: "n2".into(),
            epoch: 3,
            revision: 17,
            directory: Directory::Present { system_id: u64::MAX },
            server: Server::Running,
            standby: true,
            incarnation: 5,
            history: Lineage(vec![branch]),
            log: Some(end),
            replayed: Lsn(9),
            sealed: Some(0),
            stopped: Some(StopProof {
                incarnation: 4,
                was_primary: true,
                log: Some(end),
            }),
            heard: Some((upstream.clone(), Duration::from_millis(40))),
            streams: Some(upstream),
            promotion: Some(3),
            unfit: Some(Unfit {
                copy: true,
                why: "no data".into(),
            }),
            primary: Some(PrimaryReport {
                epoch: 3,
                applied: Some(0),
                applied_at: Some(Lsn(1)),
                open: true,
                flushed: [("n3".to_owned(), Lsn(8))].into(),
                recovered: Some(Lsn(2)),
                promoted: Some(branch),
                probe_failed: true,
                archiver_stuck: Some("disk full".into()),
                redo: Some(Lsn(3)),
                oldest: Some(Lsn(4)),
                granters: ["n3".to_owned()].into(),
                grantable: ["n4".to_owned()].into(),
            }),
            task: Some(Task::Copy { progress: Some((1, 2)) }),
            failed: Some((Task::Rewind, "no common ancestor".into())),
            waits: vec!["waits".into()],
        };
        assert_eq!(read("n2", &instance("main", &report)), Some(report));
    }

    #[test]
    fn what_is_not_told_is_no_report() {
        let mut wire = instance("main", &Report::default());
        assert!(read("n1", &wire).is_some());
        wire.server = 0;
        assert!(read("n1", &wire).is_none());
        let hostile = v1::InstanceReport {
            waits: vec!["\u{1b}[31m".repeat(1000); 100],
            ..instance("main", &Report::default())
        };
        let waits = read("n1", &hostile).unwrap().waits;
        assert!(waits.len() == MAX_LINES && waits[0].len() <= MAX_LINE && !waits[0].contains('\u{1b}'));
    }
}
