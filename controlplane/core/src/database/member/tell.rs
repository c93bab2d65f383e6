//! What an instance tells the master: made of the same observations its own decisions are made of.

use super::{Situation, decide, follow, seal};
use crate::database::local::{Directory, PrimaryReport, Receiver, Report, Server, StopProof, Task};
use crate::database::names::Names;
use crate::database::record::{GroupState, Nodes, Phase};

/// The report.
pub fn report(situation: &Situation<'_>) -> Report {
    let s = situation;
    let local = s.local;
    let state = s.state();
    let down = local.server == Server::Stopped || (s.weaken.postmaster_is_proof && local.server == Server::Orphaned);
    let starts = matches!(local.task, Some(Task::Start | Task::Create | Task::Promote));
    let stopped = (down && !starts && local.incarnation > 0).then(|| StopProof {
        incarnation: local.incarnation,
        was_primary: local.was_primary,
        log: local.log_end(),
    });
    let whole = matches!(local.directory, Directory::Present { .. });
    // A directory of another system fits nothing, and is never touched.
    let own = |r: &&GroupState| match (r.system_id, local.directory) {
        (Some(id), Directory::Present { system_id }) => id == system_id,
        _ => true,
    };
    let follows = state
        .filter(own)
        .filter(|r| r.primary.is_some() && r.primary.as_ref() != Some(&local.node));
    let streams = (local.server == Server::Running && local.in_recovery && local.receiver == Receiver::Running)
        .then(|| local.upstream.clone())
        .flatten();
    Report {
        node: local.node.clone(),
        epoch: state.map_or(0, |r| r.epoch),
        revision: s.record.map_or(0, |r| r.revision),
        directory: local.directory,
        server: local.server,
        standby: local.server == Server::Running && local.in_recovery,
        incarnation: local.incarnation,
        history: local.history.clone(),
        log: local.log_end().filter(|_| whole),
        replayed: local.replayed,
        sealed: state
            .filter(|r| r.phase == Phase::Electing && (whole || s.weaken.torn_answers))
            .and_then(|r| seal::sealed(s, r)),
        stopped,
        // A link that is down was not heard, however short a time ago it was up.
        heard: local.heard.clone().filter(|_| local.receiver == Receiver::Running),
        streams,
        promotion: local.marks.promotion,
        unfit: follows
            .filter(|r| r.phase != Phase::Bootstrapping)
            .and_then(|r| follow::unfit(s, r)),
        primary: local.is_primary().then(|| primary(s, state)),
        task: local.task.clone(),
        failed: local.failed.clone(),
        waits: decide(s).waits,
    }
}

fn primary(s: &Situation<'_>, state: Option<&GroupState>) -> PrimaryReport {
    let local = s.local;
    let epoch = state.map_or(0, |r| r.epoch);
    let shown = if s.weaken.no_show {
        &local.names_set
    } else {
        &local.names
    };
    let rule = state.and_then(GroupState::rule);
    let applied = rule.filter(|r| shown.as_ref() == Some(&Names::of(r, epoch)));
    let of_epoch = local.walsenders.iter().filter(|w| w.epoch == epoch && w.streaming);
    let mut report = PrimaryReport {
        epoch,
        applied: applied.map(|r| r.id),
        applied_at: local.names_lsn.filter(|_| applied.is_some()),
        open: applied.is_some() && state.is_some_and(|r| r.may_open(&local.node)),
        flushed: of_epoch.clone().map(|w| (w.node.clone(), w.flushed)).collect(),
        recovered: local.recovered,
        promoted: local.promoted,
        probe_failed: local
            .probe_failing
            .is_some_and(|since| s.now.saturating_sub(since) >= s.timing.detect),
        archiver_stuck: local.archiver_stuck.clone(),
        redo: local.redo,
        oldest: local.oldest,
        granters: state.map(|r| r.granters.clone()).unwrap_or_default(),
        grantable: of_epoch.map(|w| w.node.clone()).collect::<Nodes>(),
    };
    if s.weaken.primary_votes
        && let Some(end) = local.log
    {
        report.flushed.insert(local.node.clone(), end);
    }
    report
}
