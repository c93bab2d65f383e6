//! Short steps, in the order they were decided: configuration, seals, markers, slots.
//!
//! Each is taken again when the next look does not show it, so it must do no harm twice; what announces a later step is on
//! disk before it returns.

use std::collections::BTreeSet;
use std::time::Duration;

use ha_core::database::local::Upstream;
use ha_core::database::member::Action;
use ha_core::database::names::application_name;
use ha_core::database::{Lsn, Names};

use super::disk::{self, Clues};
use super::kept::off_thread;
use crate::postgres::conf::Settings;
use crate::postgres::connection::Connection;
use crate::postgres::control::{self, InForce};
use crate::postgres::instance::Instance;
use crate::postgres::probe::{Prober, Slot};
use crate::postgres::{PgError, Result};

/// Connecting to one's own server.
pub(super) const CONNECT: Duration = Duration::from_secs(2);
/// Until a reload is seen.
const RELOAD: Duration = Duration::from_secs(2);
/// Until a receiver is seen to have ended.
const END_RECEIVER: Duration = Duration::from_secs(3);
/// Ending walsenders must not hold up the stop that follows.
const END_SENDERS: Duration = Duration::from_millis(300);

/// Limit of each part of releasing commits early, the pause between two nudges, and their number: a walsender may follow
/// the reload a little later than the postmaster.
const RELEASE: Duration = Duration::from_millis(500);
const RELEASE_AGAIN: Duration = Duration::from_millis(5);
const RELEASES: u32 = 3;

/// What is stored in the configuration by decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Set {
    /// Whom commits wait for.
    pub(super) names: Names,
    /// Whom it streams from.
    pub(super) upstream: Option<Upstream>,
}

/// A step with all it needs.
pub(super) enum Step {
    /// The mark of the refused epoch, and nobody to stream from.
    Refuse(u64, Box<Settings>),
    /// The receiver's end, of this incarnation.
    EndReceiver(u64),
    /// The promotion marker.
    MarkPromotion(u64),
    /// Configuration, and a reload if the server runs.
    Configure(Box<Settings>),
    /// Exactly these slots.
    Slots(Vec<String>, Vec<Slot>),
    /// No walsenders but this node's.
    EndSenders(String, u64),
}

/// What a step did, for what the driver remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Did {
    /// Something that has to show in a look at the server before anything is decided upon it.
    Done,
    /// Something on disk alone: no look would show it.
    Marked,
    /// The receiver of this incarnation was seen to end, while this was in force.
    ReceiverEnded(u64, InForce),
}

/// Takes one step.
pub(super) async fn step(instance: &Instance, step: Step, clues: &Clues, running: bool) -> Result<Did> {
    match step {
        Step::Refuse(epoch, settings) => {
            // Once nobody is named to receive from, what was received could not be told from what was made here.
            let newest = newest_timeline(instance).await?;
            if newest > 1
                && !instance.marks.get().timelines.contains_key(&newest)
                && let Ok(history) = instance.history(newest).await
            {
                disk::lineage(instance, &history, clues).await?;
            }
            instance.marks.refuse_below(epoch).await?;
            configure(instance, &settings, running).await?;
        }
        Step::EndReceiver(incarnation) => {
            let mut prober = Prober::new(instance.place.clone());
            let force = control::end_receiver(instance, &mut prober, END_RECEIVER).await?;
            return Ok(Did::ReceiverEnded(incarnation, force));
        }
        Step::MarkPromotion(epoch) => {
            instance.marks.promote_in(epoch).await?;
            return Ok(Did::Marked);
        }
        Step::Configure(settings) => {
            configure(instance, &settings, running).await?;
            if running && matches!(settings.names, Names::Any { .. }) {
                release(instance, &settings.names).await;
            }
        }
        Step::Slots(nodes, present) => {
            let names = nodes
                .iter()
                .map(|n| control::slot_name(n))
                .collect::<Result<BTreeSet<_>>>()?;
            let mut connection = Connection::open(&instance.place, CONNECT).await?;
            control::keep_slots(&mut connection, &names, &present).await?;
        }
        Step::EndSenders(except, epoch) => {
            let mut connection = Connection::open(&instance.place, END_SENDERS).await?;
            let keep = [application_name(&except, epoch)];
            control::end_senders(&mut connection, &keep, END_SENDERS).await?;
        }
    }
    Ok(Did::Done)
}

/// The newest timeline that an instance has heard of: its history is there before any of its records.
async fn newest_timeline(instance: &Instance) -> Result<u32> {
    let wal = instance.place.data.join("pg_wal");
    off_thread(move || {
        let names = std::fs::read_dir(&wal)
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| e.file_name());
        let timelines = names.filter_map(|n| u32::from_str_radix(n.to_str()?.strip_suffix(".history")?, 16).ok());
        Ok(timelines.max().unwrap_or(1))
    })
    .await
}

/// Writes the configuration; a running server is told to take it over. Whether it did is seen by the next look alone.
async fn configure(instance: &Instance, settings: &Settings, running: bool) -> Result<()> {
    instance.configure(settings).await?;
    if !running {
        return Ok(());
    }
    // A signal needs no connection, and reaches a server that is full.
    if !instance.reload_by_signal() {
        let mut connection = Connection::open(&instance.place, CONNECT).await?;
        control::reload(&mut connection, RELOAD).await?;
    }
    Ok(())
}

/// What was committed while the names were closed waits for the next word of a standby, which would come with its next
/// status, up to a second later: a small commit of had's own, once the names are in force, makes the standbys answer now.
/// It only saves time; whether the names are in force is seen by the next look.
async fn release(instance: &Instance, names: &Names) {
    let nudge = async {
        let began = std::time::Instant::now();
        while control::in_force(&instance.place, RELEASE).await?.names != *names {
            if began.elapsed() > RELEASE {
                return Ok(());
            }
            tokio::time::sleep(RELEASE_AGAIN).await;
        }
        let mut connection = Connection::open(&instance.place, RELEASE).await?;
        for _ in 0..RELEASES {
            control::nudge(&mut connection, RELEASE).await?;
            tokio::time::sleep(RELEASE_AGAIN).await;
        }
        Ok::<_, PgError>(())
    };
    if let Err(e) = nudge.await {
        tracing::debug!("commits that wait were not released early: {e}");
    }
}

/// Lets the slots of a standby go forward, as its primary's did: what others have need not be kept here.
pub(super) async fn advance(instance: &Instance, to: &[(String, Lsn)]) -> Result<()> {
    let mut connection = Connection::open(&instance.place, CONNECT).await?;
    for (slot, lsn) in to {
        control::advance_slot(&mut connection, slot, *lsn).await?;
    }
    Ok(())
}

/// Whether a step is a short one.
pub(super) fn is_short(action: &Action) -> bool {
    matches!(
        action,
        Action::Refuse { .. }
            | Action::EndReceiver
            | Action::MarkPromotion { .. }
            | Action::SetNames { .. }
            | Action::Follow { .. }
            | Action::Slots { .. }
    )
}

/// An error for people.
pub(super) fn told(e: &PgError) -> String {
    e.to_string()
}
