//! Looks at a running server, apart from the decisions: a server or disk that hangs holds up nothing but these looks.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use super::lock;
use crate::platform::Clock;
use crate::postgres::control::{self, InForce};
use crate::postgres::place::Place;
use crate::postgres::probe::{Details, Probe, Prober, Written};

/// Between looks while nothing changes.
const EVERY: Duration = Duration::from_millis(200);
/// Between looks while something is expected.
const SOON: Duration = Duration::from_millis(40);
/// A short step that takes longer is looked at all the same.
const HOLD: Duration = Duration::from_millis(500);
/// A look that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(1);
/// What is in force is asked anew at every so many looks, though nothing was changed.
const FORCE_EVERY: u64 = 10;
/// Between looks at what changes seldom.
const DETAILS_EVERY: Duration = Duration::from_secs(15);
const DETAILS_LIMIT: Duration = Duration::from_secs(5);
/// Between write probes, and how long one may take.
const WRITE_EVERY: Duration = Duration::from_millis(500);
const WRITE_LIMIT: Duration = Duration::from_secs(1);

/// One look.
#[derive(Debug, Clone)]
pub(super) struct Look {
    /// At which incarnation.
    pub(super) incarnation: u64,
    /// When it began, on the clock of leases.
    pub(super) began: Duration,
    /// What it says of itself.
    pub(super) probe: Probe,
    /// What a new connection found in force, asked after that.
    pub(super) force: InForce,
}

/// What the looks showed.
#[derive(Debug, Clone, Default)]
pub(super) struct Looked {
    /// The last one that was answered, of the incarnation that runs.
    pub(super) look: Option<Look>,
    /// Since when none was answered, and why.
    pub(super) failing: Option<(Duration, String)>,
    /// What changes seldom.
    pub(super) details: Option<Details>,
    /// When the last one ended, answered or not.
    pub(super) ended: Duration,
}

/// What is to be looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Target {
    /// The incarnation; none: nothing runs.
    pub(super) incarnation: Option<u64>,
    /// Something is expected: look often.
    pub(super) soon: bool,
    /// What is in force is not what was set, or was not seen since: ask for it each time. It costs the server a process.
    pub(super) force: bool,
    /// A short step is being taken: look when it has ended, or when it takes long.
    pub(super) hold: bool,
    /// Commit probes are wanted.
    pub(super) write: bool,
}

/// What a step of the driver has seen in force last, and of which incarnation; whoever takes it need not ask.
pub(super) type Seen = Arc<Mutex<Option<(u64, InForce)>>>;

/// What the looks have to do with.
pub(super) struct Looks {
    pub(super) place: Place,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) target: watch::Receiver<Target>,
    /// Each notice begins another look at once.
    pub(super) kick: Arc<Notify>,
    pub(super) seen: Seen,
    pub(super) tx: watch::Sender<Looked>,
}

/// Looks on and on, until nobody points at anything any more.
pub(super) async fn run(looks: Looks) {
    let Looks {
        place,
        clock,
        mut target,
        kick,
        seen,
        tx,
    } = looks;
    let mut prober = Prober::new(place.clone());
    let mut present = None;
    let (mut count, mut first) = (0u64, true);
    let mut details_at: Option<Duration> = None;
    loop {
        let mut wanted = *target.borrow_and_update();
        if wanted.hold && wanted.incarnation == present {
            tokio::select! {
                changed = target.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(HOLD) => {}
            }
            wanted = *target.borrow_and_update();
        }
        if wanted.incarnation != present {
            present = wanted.incarnation;
            prober.close();
            (first, details_at) = (true, None);
            tx.send_replace(Looked::default());
        }
        let Some(incarnation) = present else {
            if target.changed().await.is_err() {
                return;
            }
            continue;
        };
        count += 1;
        let began = clock.boottime();
        let ask_force = first || wanted.force || count.is_multiple_of(FORCE_EVERY);
        let told = lock(&seen).take().filter(|(of, _)| *of == incarnation).map(|(_, f)| f);
        let last = || tx.borrow().look.as_ref().map(|l| l.force.clone());
        let force = told.or_else(|| last().filter(|_| !ask_force));
        let looked = async {
            let probe = prober.probe(LIMIT).await?;
            let force = match force {
                Some(force) => force,
                None => control::in_force(&place, LIMIT).await?,
            };
            Ok::<_, crate::postgres::PgError>((probe, force))
        };
        let looked = looked.await;
        let ended = clock.boottime();
        // It may have stopped meanwhile, and another one run.
        if target.borrow().incarnation != present {
            continue;
        }
        let answered = looked.is_ok();
        first = !answered;
        tx.send_modify(|l| {
            l.ended = ended;
            match looked {
                Ok((probe, force)) => {
                    l.failing = None;
                    l.look = Some(Look {
                        incarnation,
                        began,
                        probe,
                        force,
                    });
                }
                Err(e) => {
                    let since = l.failing.take().map_or(began, |(since, _)| since);
                    l.failing = Some((since, e.to_string()));
                }
            }
        });
        if answered && !wanted.soon && details_at.is_none_or(|at| ended >= at + DETAILS_EVERY) {
            details_at = Some(ended);
            if let Ok(details) = prober.details(DETAILS_LIMIT).await {
                tx.send_modify(|l| l.details = Some(details));
            }
        }
        let pause = if wanted.soon || !answered { SOON } else { EVERY };
        tokio::select! {
            () = kick.notified() => {}
            () = tokio::time::sleep(pause) => {}
            changed = target.changed() => if changed.is_err() { return },
        }
    }
}

/// How commit probes go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Writes {
    /// They fail since, and why.
    pub(super) failing: Option<(Duration, String)>,
    /// How long the last good one took.
    pub(super) took: Option<Duration>,
}

/// Writes now and then, while that is wanted, over a connection of its own.
pub(super) async fn write(
    place: Place,
    clock: Arc<dyn Clock>,
    mut target: watch::Receiver<Target>,
    tx: watch::Sender<Writes>,
) {
    let mut prober = Prober::new(place);
    let mut present = None;
    loop {
        let wanted = *target.borrow_and_update();
        if !wanted.write || wanted.incarnation.is_none() || wanted.incarnation != present {
            present = wanted.incarnation.filter(|_| wanted.write);
            prober.close();
            tx.send_if_modified(|w| std::mem::take(w) != Writes::default());
            if present.is_none() {
                if target.changed().await.is_err() {
                    return;
                }
                continue;
            }
        }
        let began = clock.boottime();
        let written = prober.write(WRITE_LIMIT).await;
        if target.borrow().incarnation != present {
            continue;
        }
        let why = match written {
            Written::Done(took) => {
                tx.send_replace(Writes {
                    failing: None,
                    took: Some(took),
                });
                None
            }
            Written::Failed(why) => Some(why),
            Written::Hung => Some("a write was not done in time".to_owned()),
            Written::Full(left) => Some(format!("the disk is full: {left} bytes are left")),
        };
        if let Some(why) = why {
            tx.send_modify(|w| {
                let since = w.failing.take().map_or(began, |(since, _)| since);
                w.failing = Some((since, why));
            });
        }
        tokio::select! {
            () = tokio::time::sleep(WRITE_EVERY) => {}
            changed = target.changed() => if changed.is_err() { return },
        }
    }
}
