//! Succession without waiting: the end of a holder that cannot act any more, found before its session expires.

use std::sync::PoisonError;
use std::time::Duration;

use ha_core::{Holder, lease};

use super::Participant;
use crate::coordination::{CoordError, SessionState, Stat, resolve};
use crate::registration::lease_path;

/// How often the next in line looks at a holder's lease within a session timeout, while no heartbeat is expected and while
/// one is: the earlier the last one is seen, the earlier it is known that none came after it.
const LOOKS: u32 = 20;
const CLOSE_LOOKS: u32 = 80;
/// Heartbeats after which the version of a lease tells it from one that was just made.
const YOUNG: i32 = 6;

/// Ends the mastership of a holder that certainly cannot act any more, without waiting for its session to expire: its lease
/// has run out, or its daemon has ended.
///
/// A lease znode that was read as it is and can be deleted at that very version after half of the session timeout has not been
/// heartbeated in between, and never will be: the holder's last acknowledged heartbeat was sent before the first look, so its
/// mastership is over. Only the next in line looks, and only while its own session has been live throughout, so that
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
    // When the last look was, and whether the last heartbeat was seen soon after it came.
    let (mut looked, mut exact) = (Duration::ZERO, false);
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
                    None => {
                        exact = first.is_some() && now.saturating_sub(looked) <= p.session_timeout / CLOSE_LOOKS * 2;
                        first = Some((stat, now));
                    }
                    Some((_, since)) if now < since + lease::mastership_over_after(p.session_timeout) => {}
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
        looked = p.shared.clock.boottime();
        let unchanged = first.map(|(_, since)| p.shared.clock.boottime().saturating_sub(since));
        tokio::select! {
            () = tokio::time::sleep(pause(p.session_timeout, unchanged, exact)) => {}
            // Its sender is part of what this daemon knows, and outlives the election.
            _ = told.changed() => {}
        }
    }
}

/// How long to wait until the next look at a lease that has been unchanged for so long, and whose last change was seen
/// exactly or not.
fn pause(session_timeout: Duration, unchanged: Option<Duration>, exact: bool) -> Duration {
    let (far, close) = (session_timeout / LOOKS, session_timeout / CLOSE_LOOKS);
    let Some(unchanged) = unchanged else { return far };
    let heartbeat = lease::heartbeat_interval(session_timeout);
    let expected = heartbeat * 3 / 4;
    if exact && unchanged < expected {
        return expected - unchanged;
    }
    if unchanged < heartbeat * 3 / 2 {
        return close;
    }
    match lease::mastership_over_after(session_timeout).saturating_sub(unchanged) {
        Duration::ZERO => close,
        left => left.min(far),
    }
}

async fn succeed(p: &Participant<'_>, holder: &Holder, why: &'static str) -> Result<(), CoordError> {
    tracing::warn!("{} leads no more: {why}; another master is elected", holder.node);
    *p.outlived.lock().unwrap_or_else(PoisonError::into_inner) = Some((holder.candidate.clone(), why));
    p.end_candidacy(&holder.candidate).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks from one heartbeat on: close where the next one is expected, few elsewhere, and one the moment it is over.
    #[test]
    fn looks_are_close_where_it_matters() {
        let timeout = Duration::from_secs(4);
        let over = lease::mastership_over_after(timeout);
        let mut looks = vec![Duration::ZERO];
        while let Some(last) = looks.last().copied().filter(|l| *l < over) {
            looks.push(last + pause(timeout, Some(last), true));
        }
        let in_time = |from: u64, to: u64| {
            let (from, to) = (Duration::from_millis(from), Duration::from_millis(to));
            looks.iter().filter(|l| (from..to).contains(*l)).count()
        };
        assert_eq!(in_time(1, 600), 0);
        assert!(in_time(600, 1200) >= 10, "{looks:?}");
        assert!(in_time(1200, 2250) <= 6, "{looks:?}");
        assert_eq!(looks.last(), Some(&over));
    }
}
