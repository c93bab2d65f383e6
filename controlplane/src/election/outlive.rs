//! Succession without waiting: the end of a holder that cannot act any more, found before its session expires.

use std::sync::PoisonError;
use std::time::Duration;

use ha_core::{Holder, lease};

use super::Participant;
use crate::coordination::{CoordError, SessionState, Stat, resolve};
use crate::registration::lease_path;

/// How often the next in line looks at a holder's lease within a session timeout.
const LOOKS: u32 = 20;
/// Heartbeats after which the version of a lease tells it from one that was just made.
const YOUNG: i32 = 6;

/// Ends the mastership of a holder that certainly cannot act any more, without waiting for its session to expire: its lease
/// has run out, or its daemon has ended.
///
/// A lease znode that was read as it is and can be deleted at that very version after two thirds of the session timeout has
/// not been heartbeated in between, and never will be: the holder's last acknowledged heartbeat was sent before the first
/// look, so its lease is over. Only the next in line looks, and only while its own session has been live throughout, so that
/// an outage of ZooKeeper costs nobody a session.
///
/// A daemon of whose end this node's agent was told by its machine holds no lease: nobody would act inside it. Its lease znode
/// is deleted all the same, at the version that was just read: should a heartbeat come between, it lives.
pub(super) async fn outlive(p: &Participant<'_>, holder: Option<&Holder>) -> Result<(), CoordError> {
    let Some(holder) = holder else {
        return std::future::pending().await;
    };
    let path = lease_path(&holder.node);
    let mut state = p.c.state();
    let mut first: Option<(Stat, Duration)> = None;
    let mut told = p.shared.ended_master.subscribe();
    loop {
        let ended = told.borrow_and_update().as_ref() == Some(&holder.candidate);
        if state.has_changed().is_err() || *state.borrow_and_update() != SessionState::Live {
            first = None;
            resolve::wait_live(&*p.c).await?;
            state.mark_unchanged();
        }
        match p.c.read(&path).await {
            Ok((_, stat)) => {
                let now = p.shared.clock.boottime();
                match first.filter(|(s, _)| s.modified == stat.modified && s.created == stat.created) {
                    _ if ended => {
                        first = None;
                        match p.c.delete(&path, stat.version).await {
                            Ok(()) | Err(CoordError::NotFound(_)) => {
                                return succeed(p, holder, "its daemon has ended").await;
                            }
                            Err(CoordError::BadVersion(_) | CoordError::Unknown(_) | CoordError::Unavailable(_)) => {}
                            Err(e) => return Err(e),
                        }
                    }
                    None => first = Some((stat, now)),
                    Some((_, since)) if now < since + lease::over_after(p.session_timeout) => {}
                    // A lease made anew has the first versions again, and must not be mistaken for the one that was looked at.
                    Some((stat, _)) if stat.version < YOUNG => {}
                    Some(_) => {
                        first = None;
                        match p.c.delete(&path, stat.version).await {
                            Ok(()) => return succeed(p, holder, "it has not kept its lease").await,
                            // It lives, or somebody was faster: its election znode will tell.
                            Err(CoordError::BadVersion(_) | CoordError::NotFound(_)) => {}
                            Err(CoordError::Unknown(_) | CoordError::Unavailable(_)) => {}
                            Err(e) => return Err(e),
                        }
                    }
                }
            }
            Err(CoordError::NotFound(_)) if ended => return succeed(p, holder, "its daemon has ended").await,
            Err(CoordError::NotFound(_) | CoordError::Unknown(_) | CoordError::Unavailable(_)) => first = None,
            Err(e) => return Err(e),
        }
        tokio::select! {
            () = tokio::time::sleep(p.session_timeout / LOOKS) => {}
            // Its sender is part of what this daemon knows, and outlives the election.
            _ = told.changed() => {}
        }
    }
}

async fn succeed(p: &Participant<'_>, holder: &Holder, why: &'static str) -> Result<(), CoordError> {
    tracing::warn!("{} leads no more: {why}; another master is elected", holder.node);
    *p.outlived.lock().unwrap_or_else(PoisonError::into_inner) = Some((holder.candidate.clone(), why));
    p.end_candidacy(&holder.candidate).await
}
