//! Sealing: a standby refuses the old epoch, and proves that nothing it receives could still be acknowledged there
//! (protocol, failover step 3).

use super::{Action, MemberDecision, Situation, stop};
use crate::database::durability::asks_nobody;
use crate::database::grants;
use crate::database::local::{Directory, Receiver, Server, Task};
use crate::database::names::Names;
use crate::database::record::GroupState;

/// Phase `electing`.
pub(super) fn electing(s: &Situation<'_>, state: &GroupState, next: &mut MemberDecision) {
    let local = s.local;
    if local.is_primary() {
        let former = state.former.as_deref() == Some(local.node.as_str());
        // A promotion that ended late made a timeline that the record does not have: nobody may go on with it.
        let strayed = local.log.is_some() && local.history != state.lineage;
        if !former || state.forced.is_some() || strayed {
            stop(s, next, true, "a new primary is being chosen");
        } else if asks_nobody(state) && local.names_set != Some(Names::Closed) {
            // It may turn out to be well and go on; until then nothing it acknowledges alone is promised to last.
            next.act(Action::SetNames { names: Names::Closed });
        }
        next.wait("was primary; a new one is being chosen");
        return;
    }
    let torn = matches!(local.task, Some(Task::Copy { .. } | Task::Rewind | Task::Create))
        || !matches!(local.directory, Directory::Present { .. });
    if torn && !s.weaken.torn_answers {
        next.wait("has no whole directory to answer with");
        return;
    }
    if local.task == Some(Task::Promote) {
        next.wait("its promotion of an earlier epoch has not ended");
        return;
    }
    if local.marks.refused < state.epoch || local.upstream.is_some() || local.restores {
        next.act(Action::Refuse { epoch: state.epoch });
        next.wait(format!("refuses every epoch before {}", state.epoch));
    }
    if local.server == Server::Running && local.receiver != Receiver::Gone && !s.weaken.no_receiver_end {
        next.act(Action::EndReceiver);
        next.wait("its WAL receiver has not been seen to end");
    }
    if grants::bound(local, s.now) {
        let left = local.grant_given_until.unwrap_or_default().saturating_sub(s.now);
        next.wait(format!(
            "is bound by a grant to the former primary for another {} ms",
            left.as_millis()
        ));
        next.look_at = local.grant_given_until;
    }
    if local.log.is_none() {
        next.wait("reads its WAL for the end of its log");
    }
}

/// The epoch before which everything is refused for good: the answer to a seal.
pub(super) fn sealed(s: &Situation<'_>, state: &GroupState) -> Option<u64> {
    let local = s.local;
    let quiet = match local.server {
        Server::Stopped => true,
        Server::Running => local.in_recovery && (local.receiver == Receiver::Gone || s.weaken.no_receiver_end),
        Server::Starting | Server::Stopping | Server::Orphaned => false,
    };
    let idle = !matches!(
        local.task,
        Some(Task::Copy { .. } | Task::Rewind | Task::Create | Task::Promote)
    ) || s.weaken.torn_answers;
    let free = !grants::bound(local, s.now) || s.weaken.grant_no_seal_wait;
    let refused = local.marks.refused == state.epoch && local.upstream.is_none() && !local.restores;
    (quiet && idle && free && refused).then_some(state.epoch)
}
