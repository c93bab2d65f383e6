//! Grants, with which a primary outlives the coordinator (protocol R13): asked for from node to node, and given only once
//! the promise is on disk.

use std::time::Duration;

use ha_core::database::{Nodes, Weaken, grants};
use ha_proto::v1;
use ha_proto::v1::peer_service_client::PeerServiceClient;

use super::driver::{Driver, Event};
use super::kept::{Granted, Kept};
use super::{Env, GrantAsk};

/// One question from node to node.
const ASK: Duration = Duration::from_secs(1);

/// Up to when grants that were given before the daemon ended bind it now.
pub(super) fn bound(kept: &Kept, env: &Env) -> Option<Duration> {
    let granted = kept.granted.as_ref()?;
    if granted.boot == env.boot {
        return Some(Duration::from_millis(granted.until_ms));
    }
    // Of another boot, whose clock is gone: the longest grant from now.
    grants::after_restart(env.clock.boottime(), &env.timing, &Weaken::default())
}

impl Driver {
    /// Asks for grants, again with each heartbeat's time.
    pub(super) fn ask_grants(&mut self, now: Duration, of: &Nodes, epoch: u64) {
        let every = ha_core::lease::heartbeat_interval(self.env.timing.session_timeout);
        if self.grants_asked.is_some_and(|at| now < at + every) {
            return;
        }
        self.grants_asked = Some(now);
        let nodes = self.nodes.borrow().clone();
        for name in of {
            let Some(node) = nodes.get(name).filter(|n| !n.address.is_empty()) else {
                continue;
            };
            let request = v1::GrantRequest {
                group: self.group.clone(),
                node: self.me.node.clone(),
                epoch,
                lasts_ms: u64::try_from(self.env.timing.grant.as_millis()).unwrap_or_default(),
                record_version: self.revision,
                incarnation: self.status().map_or(0, |s| s.incarnation),
            };
            let (env, tx) = (self.env.clone(), self.tx.clone());
            let (name, address) = (name.clone(), node.address.clone());
            tokio::spawn(async move {
                let sent = env.clock.boottime();
                let asked = async {
                    let channel = env.dial.dial(&name, &address).await.map_err(|e| e.to_string())?;
                    let answer = PeerServiceClient::new(channel).grant(request).await;
                    answer
                        .map(tonic::Response::into_inner)
                        .map_err(|e| e.message().to_owned())
                };
                match tokio::time::timeout(ASK, asked).await {
                    Ok(Ok(answer)) if answer.granted => {
                        let received = env.clock.boottime();
                        let until = grants::counted(sent, received, &env.timing, &Weaken::default());
                        let _ = tx.send(Event::Granted(name, until)).await;
                    }
                    Ok(Ok(answer)) => tracing::debug!(node = name, "no grant: {}", answer.why),
                    Ok(Err(why)) => tracing::debug!(node = name, "no grant: {why}"),
                    Err(_) => tracing::debug!(node = name, "no grant: no answer in time"),
                }
            });
        }
    }

    /// Answers a primary that asks. The promise binds from now on, and is told once it is on disk.
    pub(super) fn grant(&mut self, ask: GrantAsk) {
        let received = self.now();
        let refuse = |why: String, sealed| v1::GrantAnswer {
            granted: false,
            why,
            sealed_epoch: sealed,
        };
        let Some(local) = self.gather(received) else {
            let _ = ask.reply.send(refuse("its instance was not seen yet".to_owned(), 0));
            return;
        };
        let known = self.known.borrow().clone();
        let timing = &self.env.timing;
        let (from, epoch) = (ask.from.clone(), ask.request.epoch);
        // The primary counts on what it asked for.
        if u128::from(ask.request.lasts_ms) > timing.grant.as_millis() {
            let _ = ask.reply.send(refuse("a grant does not last that long".to_owned(), 0));
            return;
        }
        match grants::give(&local, known.read.as_ref(), &from, epoch, received, timing) {
            Err(why) => {
                let _ = ask.reply.send(refuse(why, local.marks.refused));
            }
            Ok(until) => {
                self.granted_until = self.granted_until.max(Some(until));
                let until_ms = u64::try_from(until.as_millis()).unwrap_or(u64::MAX).saturating_add(1);
                let granted = Granted {
                    boot: self.env.boot.clone(),
                    until_ms,
                    to: from,
                    epoch,
                };
                let kept = self.kept.clone();
                tokio::spawn(async move {
                    let written = kept.change(move |k| k.granted = Some(granted)).await;
                    let answer = match written {
                        Ok(()) => v1::GrantAnswer {
                            granted: true,
                            ..v1::GrantAnswer::default()
                        },
                        Err(e) => refuse(e.to_string(), 0),
                    };
                    let _ = ask.reply.send(answer);
                });
            }
        }
    }
}
