//! The named primary: it becomes one, opens by the rule in force, and stops for its successor.

use super::{Action, MemberDecision, Situation, StartAs, stop};
use crate::database::grants;
use crate::database::local::{Directory, Server};
use crate::database::names::Names;
use crate::database::record::{GroupState, How, Promotion, Rule};

/// Whether what cannot be taken back may be done now.
fn permitted(s: &Situation<'_>, next: &mut MemberDecision) -> bool {
    if !s.fresh() {
        next.wait("needs a read of the record that follows an acknowledged write (R2)");
        return false;
    }
    if s.local.lease_until.is_none_or(|until| s.now >= until) {
        next.wait("has no lease");
        return false;
    }
    true
}

/// Phases `bootstrapping` and `promoting`.
pub(super) fn become_primary(s: &Situation<'_>, state: &GroupState, next: &mut MemberDecision) {
    let Some(promotion) = &state.promotion else {
        next.wait("the record does not say how");
        return;
    };
    if let Some(task) = &s.local.task {
        next.wait(format!("{task} is under way"));
        return;
    }
    if !permitted(s, next) {
        return;
    }
    match promotion.how {
        How::Create | How::Adopt => first(s, promotion, next),
        How::InPlace => in_place(s, promotion, next),
        How::Promote => promote(s, state, promotion, next),
    }
}

/// Nothing was ever acknowledged by a first primary that is not steady: it may be started as often as it takes.
fn first(s: &Situation<'_>, promotion: &Promotion, next: &mut MemberDecision) {
    let names = s.first_names();
    match (s.local.server, s.local.directory) {
        (Server::Stopped, Directory::Empty | Directory::Incomplete) if promotion.how == How::Create => {
            next.act(Action::Create { names });
        }
        (Server::Stopped, Directory::Present { .. }) => next.act(Action::Start {
            role: StartAs::Primary,
            names,
        }),
        (Server::Stopped, _) => next.wait("the directory that was to be adopted is gone"),
        (Server::Running, _) => close(s, next),
        _ => next.wait("PostgreSQL is starting"),
    }
}

/// Only the incarnation whose stop was proved is started again: if that one stopped too, the master decides anew (R10).
fn in_place(s: &Situation<'_>, promotion: &Promotion, next: &mut MemberDecision) {
    let ordered = promotion.after_stop == Some(s.local.incarnation);
    match s.local.server {
        Server::Stopped if ordered || s.weaken.restart_unasked => {
            next.act(Action::Start {
                role: StartAs::Primary,
                names: s.first_names(),
            });
        }
        Server::Stopped => next.wait("it stopped again; the master decides"),
        Server::Running if ordered => next.wait("it still runs; the master decides"),
        Server::Running if s.local.in_recovery => {
            next.wait("runs as a standby where a primary was to be started again");
            stop(s, next, true, "the record names it primary in place");
        }
        Server::Running => close(s, next),
        _ => next.wait("PostgreSQL is starting"),
    }
}

fn promote(s: &Situation<'_>, state: &GroupState, promotion: &Promotion, next: &mut MemberDecision) {
    let local = s.local;
    let epoch = state.epoch;
    if grants::bound(local, s.now) && !s.weaken.grant_no_promotion_wait {
        next.wait("is bound by a grant to the former primary");
        next.look_at = local.grant_given_until;
        return;
    }
    let promoted = local.promoted.is_some_and(|b| b.epoch == epoch);
    if !promoted && local.history != promotion.lineage && !s.weaken.no_lineage_attach {
        next.wait("its log is not the one it was chosen for");
        return;
    }
    if local.marks.promotion != Some(epoch) {
        next.act(Action::MarkPromotion { epoch });
        return;
    }
    match local.server {
        Server::Stopped if local.was_primary && local.history != promotion.lineage => {
            next.wait("it stopped while it was promoted; the master decides");
        }
        Server::Stopped => next.act(Action::Start {
            role: StartAs::Standby { upstream: None },
            names: s.first_names(),
        }),
        Server::Running if !local.in_recovery && promoted => close(s, next),
        Server::Running if !local.in_recovery => stop(s, next, true, "it runs as a primary of an earlier epoch"),
        // The names must be closed before there is anything to acknowledge, and seen to be.
        Server::Running if closed(s) || s.weaken.open_starts => next.act(Action::Promote {
            epoch,
            names: s.first_names(),
        }),
        Server::Running => close(s, next),
        _ => next.wait("PostgreSQL is starting"),
    }
}

fn shown<'a>(s: &Situation<'a>) -> Option<&'a Names> {
    if s.weaken.no_show {
        s.local.names_set.as_ref()
    } else {
        s.local.names.as_ref()
    }
}

fn closed(s: &Situation<'_>) -> bool {
    shown(s) == Some(&Names::Closed)
}

/// Names closed, until the record says steady.
fn close(s: &Situation<'_>, next: &mut MemberDecision) {
    if !closed(s) && !s.weaken.open_starts {
        next.act(Action::SetNames { names: Names::Closed });
    }
    next.wait("runs closed until the record is steady");
}

/// Phase `steady`.
pub(super) fn serve(s: &Situation<'_>, state: &GroupState, next: &mut MemberDecision) {
    let local = s.local;
    match local.server {
        Server::Running if !local.in_recovery => {}
        // Once it told where its log ends, which is when the rule matters.
        Server::Stopped if s.weaken.restart_unasked && local.was_primary && local.log.is_some() => {
            next.act(Action::Start {
                role: StartAs::Primary,
                names: s.first_names(),
            });
            return;
        }
        Server::Stopped => {
            next.wait("has stopped; the master decides who goes on");
            return;
        }
        Server::Running => {
            stop(
                s,
                next,
                true,
                "the record names it a primary that is open, and it is a standby",
            );
            return;
        }
        Server::Starting | Server::Stopping | Server::Orphaned => {
            next.wait("PostgreSQL is starting or stopping");
            return;
        }
    }
    if !s.holds() {
        next.wait("the lease is over");
        stop(s, next, true, "the lease is over");
        return;
    }
    let ask = grants::ask(local, state, s.now, s.timing);
    if !ask.is_empty() {
        next.act(Action::AskGrants {
            of: ask,
            epoch: state.epoch,
        });
    }
    let Some(rule) = state.rule() else {
        next.wait("the record has no rule to apply");
        return;
    };
    open(s, state, rule, next);
}

/// Brings the names to the rule's, through closed: every walsender must have been seen without a priority before the rule
/// is set, or one that follows reloads late goes on acknowledging by the rule before (R5).
fn open(s: &Situation<'_>, state: &GroupState, rule: &Rule, next: &mut MemberDecision) {
    let target = Names::of(rule, state.epoch);
    let now = shown(s);
    if now == Some(&target) {
        return;
    }
    if !closed(s) {
        // What is closed and does not show is a reload that PostgreSQL dropped, for instance for a bad line.
        if s.local.names_set == Some(Names::Closed) {
            let says = now.map_or("nothing yet".to_owned(), |n| format!("{n:?}"));
            next.wait(format!(
                "PostgreSQL does not follow the reload to closed names: SHOW says {says}"
            ));
        }
        next.act(Action::SetNames { names: Names::Closed });
        return;
    }
    if !s.fresh() {
        next.wait("opens after a read of the record that follows an acknowledged write (R2)");
        return;
    }
    if let Some(late) = s
        .local
        .walsenders
        .iter()
        .find(|w| w.priority > 0)
        .filter(|_| !s.weaken.no_show)
    {
        next.wait(format!(
            "the walsender to {} does not follow the closed names yet",
            late.node
        ));
        return;
    }
    if let Some(why) = unreplicated(s, state, rule) {
        next.wait(why);
        return;
    }
    next.act(Action::SetNames { names: target });
}

/// A primary that recovered in place shows what was never acknowledged: its voters must have that first.
fn unreplicated(s: &Situation<'_>, state: &GroupState, rule: &Rule) -> Option<String> {
    let promotion = state
        .promotion
        .as_ref()
        .filter(|p| p.how == How::InPlace && p.epoch == state.epoch)?;
    let end = s.local.recovered.unwrap_or(promotion.end.lsn);
    let has = |v: &&String| {
        let mut of = s
            .local
            .walsenders
            .iter()
            .filter(|w| w.node == **v && w.epoch == state.epoch && w.streaming);
        of.any(|w| w.flushed >= end)
    };
    let have = rule.voters.iter().filter(has).count();
    let need = rule.need as usize;
    (have < need).then(|| format!("opens once {need} voters have flushed {end}, the end of its recovery: {have} have"))
}

/// Phase `switching`: stops, with the successor's walsender alone, so that no silent standby holds the stop up.
pub(super) fn switch(s: &Situation<'_>, state: &GroupState, next: &mut MemberDecision) {
    let Some(switchover) = &state.switchover else {
        next.wait("the record names no switchover");
        return;
    };
    if s.local.incarnation != switchover.incarnation {
        next.wait("the switchover is about an earlier incarnation");
        return;
    }
    if s.local.server == Server::Running && s.local.task.is_none() {
        next.act(Action::EndWalsenders {
            except: switchover.to.clone(),
        });
    }
    stop(s, next, false, &format!("switching to {}", switchover.to));
    next.wait(format!("stops for {}", switchover.to));
}
