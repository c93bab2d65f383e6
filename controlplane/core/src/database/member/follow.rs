//! A standby: follows the record's primary if its log fits, and is rewound or copied when the record orders it.

use super::{Action, MemberDecision, Situation, StartAs, stop};
use crate::database::lineage::Fit;
use crate::database::local::{Directory, Local, Server, Task, Unfit, Upstream};
use crate::database::record::{GroupState, Phase, Rule};

/// Phases with another instance as primary.
pub(super) fn follow(s: &Situation<'_>, state: &GroupState, next: &mut MemberDecision) {
    let local = s.local;
    let Some(primary) = state.primary.clone() else {
        next.wait("the record names no primary");
        return;
    };
    if local.is_primary() {
        next.wait(format!("{primary} is primary of epoch {}; this one stops", state.epoch));
        stop(s, next, true, &format!("{primary} is primary of epoch {}", state.epoch));
        return;
    }
    if state.phase == Phase::Bootstrapping {
        next.wait(format!("{primary} becomes the first primary"));
        return;
    }
    if let Some(task) = &local.task {
        next.wait(format!("{task} is under way"));
        return;
    }
    let upstream = Upstream {
        node: primary,
        epoch: state.epoch,
    };
    let instance = state.instances.get(&local.node);
    let unfit = unfit(s, state);
    if local.log.is_none() && matches!(local.directory, Directory::Present { .. }) {
        next.wait("reads its WAL for the end of its log");
        return;
    }
    // An order that was carried out and did not help is carried out again, by a copy.
    let order = instance.and_then(|i| i.rebuild.as_ref());
    let again = order.is_some_and(|r| r.since_ms == local.marks.rebuilt);
    let ordered = order.filter(|_| !again || unfit.is_some());
    if ordered.is_none() && unfit.is_none() {
        if !local.insufficient.is_empty() && state.phase == Phase::Steady && local.server == Server::Running {
            let why = format!("{} must not be lower than the primary's", local.insufficient.join(", "));
            next.wait(format!("starts again: {why}"));
            stop(s, next, false, &why);
            return;
        }
        attach(s, upstream, next);
        return;
    }
    let Some(order) = ordered else {
        let why = unfit.map_or(String::new(), |u| u.why);
        next.wait(format!("{why}; waits for the master's order to be rebuilt"));
        return;
    };
    if state.phase != Phase::Steady || !s.fresh() {
        next.wait("is rebuilt once the primary is steady, after a fresh read of the record");
        return;
    }
    if local.server != Server::Stopped {
        next.wait("stops to be rebuilt");
        stop(s, next, false, "it is to be rebuilt");
        return;
    }
    let failed = matches!(local.failed, Some((Task::Rewind, _)));
    let whole = matches!(local.directory, Directory::Present { .. });
    let rewind = whole && !order.copy && !failed && !again && unfit.as_ref().is_none_or(|u| !u.copy);
    match (rewind, unfit) {
        // What fits by now needs no rebuild any more: it attaches, and the master takes the order back.
        (true, None) => attach(s, upstream, next),
        (true, Some(_)) => next.act(Action::Rewind { from: upstream }),
        (false, _) => next.act(Action::Copy { from: upstream }),
    }
}

/// While a promotion is under way: enough others can acknowledge for the new primary.
fn spare(state: &GroupState, node: &str) -> bool {
    let enough = |rule: &Rule| rule.voters.iter().filter(|v| *v != node).count() >= rule.need as usize;
    state.phase == Phase::Promoting && state.rules.iter().all(enough)
}

fn attach(s: &Situation<'_>, upstream: Upstream, next: &mut MemberDecision) {
    let local: &Local = s.local;
    match local.server {
        // Whoever is being promoted has the machines, and its clients wait: a former primary that is not needed comes after it.
        Server::Stopped if local.was_primary && s.state().is_some_and(|state| spare(state, &local.node)) => {
            next.wait(format!("starts once {} is open", upstream.node));
        }
        Server::Stopped => next.act(Action::Start {
            role: StartAs::Standby {
                upstream: Some(upstream),
            },
            names: s.first_names(),
        }),
        Server::Running if local.upstream.as_ref() != Some(&upstream) => next.act(Action::Follow { upstream }),
        Server::Running => {
            if local.receiver != crate::database::local::Receiver::Running {
                next.wait(format!("connects to {}", upstream.node));
            }
        }
        Server::Starting | Server::Stopping | Server::Orphaned => next.wait("PostgreSQL is starting or stopping"),
    }
}

/// Why this directory cannot follow the record's primary as it is; none if it can, or while that is not known.
///
/// Besides its history the promotion marker must lie on the lineage: an instance that began a promotion nobody recorded may
/// hold that timeline's history file, and two servers can make the same timeline number, which pg_rewind takes for one (step 9).
pub(super) fn unfit(s: &Situation<'_>, state: &GroupState) -> Option<Unfit> {
    let local = s.local;
    let copy = |why: String| Some(Unfit { copy: true, why });
    match local.directory {
        Directory::Empty => return copy("has no data yet".to_owned()),
        Directory::Incomplete => return copy("a copy or rewind did not finish".to_owned()),
        Directory::Present { .. } => {}
    }
    let lineage = state.target_lineage();
    if lineage.0.is_empty() || s.weaken.no_lineage_attach {
        return None;
    }
    if let Some(epoch) = local.marks.promotion.filter(|e| !lineage.has_epoch(*e)) {
        return copy(format!(
            "it may have been promoted in epoch {epoch}, which is not on the primary's lineage"
        ));
    }
    let tip = state
        .promotion
        .as_ref()
        .filter(|_| state.phase == Phase::Promoting)
        .map(|p| p.end.lsn);
    match lineage.fit(&local.history, local.log?, tip) {
        Fit::On => None,
        Fit::Past { shared } => Some(Unfit {
            copy: false,
            why: format!("its log goes past {shared}, where the primary's left it"),
        }),
        Fit::Off => copy(format!(
            "its timelines ({}) are not on the primary's lineage ({lineage})",
            local.history
        )),
    }
}
