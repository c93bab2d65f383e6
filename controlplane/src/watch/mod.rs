//! The node's side of the broadcast: every change of the cluster, in order, to whoever in this daemon wants it; and the
//! records every daemon keeps at hand.
//!
//! The master's stream is fast and may be cut, repeated or reordered by a change of masters; the change log in ZooKeeper
//! is slow and complete. [`Applier`] makes one sequence of both, [`drive`] feeds it, [`Feed`] hands it on. Nothing here may
//! skip an entry without a `log.gap` entry in its place, and nothing here spawns a task: whoever runs it can stop it whole.

mod applier;
mod feed;
mod log;
mod records;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use ha_core::{Change, Severity};
use tokio::sync::{mpsc, watch};

pub use applier::{Answer, Applier, Input, LOG_GAP, Want};
pub use feed::{Feed, Subscription};
pub use log::{newest, read};
pub use records::follow_records;

use crate::coordination::{CoordError, Coordinator};
use crate::platform::Clock;

/// The open session, as [`crate::shared::Shared::coordinator`] has it.
pub type Session = watch::Receiver<Option<Arc<dyn Coordinator>>>;

/// How long a hole in the log is looked at before it is taken for lost.
const HOLE_PATIENCE: Duration = Duration::from_secs(10);

/// Brings the change log to `feed`: applies what comes in by `inputs` and reads from the log what is missing there.
///
/// Ends when the sending end of `inputs` is dropped.
pub async fn drive(
    session: Session,
    clock: Arc<dyn Clock>,
    mut applier: Applier,
    mut inputs: mpsc::Receiver<Input>,
    feed: &Feed,
) {
    if let Some(cursor) = applier.cursor() {
        feed.start(cursor);
    }
    let mut reading: Option<(Want, BoxFuture<'static, Answer>)> = None;
    loop {
        // What streams in meanwhile neither waits for a reading nor starts it anew.
        let want = applier.want();
        reading = match (reading, want) {
            (Some((read, future)), Some(want)) if read.begins_like(&want) => Some((read, future)),
            (_, Some(want)) => Some((want, Box::pin(fetch(session.clone(), want)))),
            (_, None) => None,
        };
        let answer = async {
            match &mut reading {
                Some((_, future)) => future.await,
                None => std::future::pending().await,
            }
        };
        let input = tokio::select! {
            biased;
            input = inputs.recv() => match input {
                Some(input) => input,
                None => return,
            },
            answer = answer => {
                reading = None;
                Input::Log(answer)
            }
        };
        let applied = applier.apply(input, clock.wall_ms());
        for gap in applied.changes.iter().filter(|c| c.kind == LOG_GAP) {
            tracing::warn!(seq = gap.seq, "{}", gap.text);
        }
        if let Some(cursor) = applied.began {
            feed.start(cursor);
        }
        feed.publish(applied.restarted, applied.changes);
    }
}

/// Reads what is wanted, however long it takes: sessions end and begin, and an entry may not be there yet.
async fn fetch(mut session: Session, want: Want) -> Answer {
    let mut pause = Duration::from_millis(20);
    let mut hole_since = None;
    loop {
        let coordinator = connected(&mut session).await;
        let read = match &want {
            Want::Entries { from, to } => log::read(&*coordinator, *from, *to).await,
            Want::Newest => newest_for_certain(&*coordinator).await,
        };
        match read {
            Ok(Answer::NotYet) => {}
            // An entry that is being written may be missing for a moment.
            Ok(Answer::Hole { from, to }) => {
                let since = *hole_since.get_or_insert_with(tokio::time::Instant::now);
                if since.elapsed() >= HOLE_PATIENCE {
                    return Answer::Hole { from, to };
                }
            }
            Ok(answer) => return answer,
            Err(e) => tracing::debug!("the change log could not be read: {e}"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// The newest entry, looked at twice: a server that lags behind may not have it yet.
async fn newest_for_certain(coordinator: &dyn Coordinator) -> Result<Answer, CoordError> {
    let first = log::newest(coordinator).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let second = log::newest(coordinator).await?;
    Ok(Answer::Newest(first.max(second)))
}

/// The session, once there is one.
async fn connected(session: &mut Session) -> Arc<dyn Coordinator> {
    loop {
        if let Some(coordinator) = session.borrow_and_update().clone() {
            return coordinator;
        }
        if session.changed().await.is_err() {
            // The daemon is ending; whoever polls this is about to be dropped.
            std::future::pending::<()>().await;
        }
    }
}

/// A change as the master sent it.
pub fn from_wire(change: ha_proto::v1::Change) -> Change {
    use ha_proto::v1;
    let value = |text: &str| match serde_json::from_str(text) {
        _ if text.is_empty() => serde_json::Value::Null,
        Ok(value) => value,
        Err(_) => serde_json::Value::String(text.to_owned()),
    };
    let severity = match change.severity() {
        v1::Severity::Error => Severity::Error,
        v1::Severity::Warning => Severity::Warning,
        v1::Severity::Info | v1::Severity::Unspecified => Severity::Info,
    };
    Change {
        v: ha_core::FORMAT,
        seq: change.seq,
        time_ms: change.time_unix_ms,
        before: value(&change.before),
        after: value(&change.after),
        severity,
        kind: change.kind,
        subject: change.subject,
        text: change.text,
        cause: change.cause,
        actor: change.actor,
        term: change.term,
        request: String::new(),
        write: String::new(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
