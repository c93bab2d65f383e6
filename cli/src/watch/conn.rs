//! The stream of frames: one task that keeps it open, node after node, and passes on what arrives.
//!
//! It resumes after the last frame it passed on, and says so where it had to start over. It never ends because a server
//! did, never waits without a limit, and never passes on a frame that does not follow from the one before.

use std::{future::Future, time::Duration};

use futures::{Stream, StreamExt};
use ha_proto::{
    codes::{self, exit},
    v1::{WatchFrame, watch_frame::Body},
};
use rand::Rng;
use tokio::{sync::mpsc, time::timeout};
use tonic::Status;

use crate::error::CliError;

/// Frames that may wait for the screen; a screen slower than that is told so by the server and starts over.
pub(crate) const WAITING_MAX: usize = 256;

/// Where streams come from.
pub(crate) trait Source: Send + 'static {
    /// An open stream.
    type Frames: Stream<Item = Result<WatchFrame, Status>> + Send + Unpin;

    /// host:port of the node that the stream is open at; else of the one that [`Source::open`] tries first.
    fn endpoint(&self) -> String;

    /// Opens the stream after frame `seq` of `term`; zeros: from a snapshot.
    fn open(&mut self, term: u64, seq: u64) -> impl Future<Output = Result<Self::Frames, CliError>> + Send;

    /// What a status that ended a stream means.
    fn fault(&mut self, status: &Status) -> CliError;

    /// Makes the next node the one that is dialled.
    fn rotate(&mut self);
}

/// What the task tells.
#[derive(Debug, Clone)]
pub(crate) enum Told {
    /// It dials `endpoint`, for the `attempt`th time since the stream was lost.
    Dialling { endpoint: String, attempt: u32 },
    /// A stream is open: the next frame is its first.
    Joined { endpoint: String, join: Join },
    /// The next frame.
    Frame(Box<WatchFrame>),
    /// The stream ended, or could not be opened.
    Lost { error: CliError },
    /// No server will ever give a stream to this caller. The last message.
    Refused { error: CliError },
}

/// How a stream continues the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Join {
    /// The first of all.
    First,
    /// After the frame of this number: nothing was missed.
    Resumed { seq: u64 },
    /// From a new snapshot, and why.
    Over { why: String },
}

/// Time limits and pauses, all bounded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// For opening a stream and for its first frame.
    pub(crate) open: Duration,
    /// Between frames; servers send one every second.
    pub(crate) silence: Duration,
    /// Before the second attempt; doubles up to `pause_max`.
    pub(crate) pause: Duration,
    /// Longest pause between attempts.
    pub(crate) pause_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            open: Duration::from_secs(5),
            silence: Duration::from_secs(3),
            pause: Duration::from_millis(100),
            pause_max: Duration::from_secs(3),
        }
    }
}

impl Limits {
    /// Pause before an attempt: exponential, bounded, and spread so that many dashboards do not dial at once.
    fn pause_before(&self, attempt: u32) -> Duration {
        let longest = self
            .pause
            .saturating_mul(1 << attempt.saturating_sub(2).min(10))
            .min(self.pause_max);
        longest.mul_f64(rand::rng().random_range(0.5..=1.0))
    }
}

/// Position in the stream, and whether a frame follows from it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    term: u64,
    seq: u64,
    /// A snapshot was taken.
    joined: bool,
}

/// What to do with a frame.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It follows.
    Take,
    /// It was taken before.
    Again,
    /// Something between it and the cursor is missing.
    Gap,
}

impl Cursor {
    fn judge(&mut self, frame: &WatchFrame) -> Verdict {
        let known = self.joined && self.term == frame.term;
        let step = frame.seq.checked_sub(self.seq);
        let verdict = match (&frame.body, step) {
            (Some(Body::Snapshot(_)), _) => Verdict::Take,
            _ if !known => Verdict::Gap,
            (Some(Body::Delta(_)), Some(1)) => Verdict::Take,
            (Some(Body::Delta(_)), Some(0) | None) => Verdict::Again,
            // A beat says that nothing changed, whether or not it has a number of its own.
            (Some(Body::Beat(_)) | None, Some(0 | 1)) => Verdict::Take,
            (_, Some(_) | None) => Verdict::Gap,
        };
        if verdict == Verdict::Take {
            *self = Self {
                term: frame.term,
                seq: frame.seq,
                joined: true,
            };
        }
        verdict
    }
}

/// How one stream ended.
enum End {
    /// Nobody listens any more.
    Deaf,
    /// With an error of the server or the network.
    Error(CliError),
    /// A frame is missing.
    Gap(u64),
}

/// Keeps the stream open until nobody listens any more.
pub(crate) async fn keep(mut source: impl Source, limits: Limits, told: mpsc::Sender<Told>) {
    let mut cursor = Cursor::default();
    let mut attempt = 1;
    let mut first = true;
    let mut why_over = String::new();
    loop {
        let dialling = Told::Dialling {
            endpoint: source.endpoint(),
            attempt,
        };
        if told.send(dialling).await.is_err() {
            return;
        }
        let from = cursor;
        let mut taken = 0_u64;
        let end = follow(&mut source, &limits, &told, &mut cursor, |frame| {
            taken += 1;
            (taken == 1).then(|| match frame.body {
                _ if first => Join::First,
                Some(Body::Snapshot(_)) => Join::Over {
                    why: over(&why_over, from, frame),
                },
                _ => Join::Resumed { seq: from.seq },
            })
        })
        .await;
        if taken > 0 {
            (first, attempt) = (false, 1);
            why_over.clear();
        }
        let error = match end {
            End::Deaf => return,
            End::Error(error) => error,
            End::Gap(seq) => {
                let missing = format!("frames between {} and {seq} are missing", cursor.seq);
                cursor = Cursor::default();
                CliError::new(codes::SLOW_WATCHER, missing)
            }
        };
        if first && matches!(error.exit(), exit::DENIED | exit::USAGE) {
            let _ = told.send(Told::Refused { error }).await;
            return;
        }
        if error.is(codes::SLOW_WATCHER) {
            why_over = error.message().to_owned();
        }
        if told.send(Told::Lost { error }).await.is_err() {
            return;
        }
        attempt += 1;
        source.rotate();
        tokio::select! {
            () = tokio::time::sleep(limits.pause_before(attempt)) => {}
            () = told.closed() => return,
        }
    }
}

/// Why a snapshot came where the rest of the old stream was wanted.
fn over(told: &str, from: Cursor, frame: &WatchFrame) -> String {
    if !told.is_empty() {
        told.to_owned()
    } else if frame.term != from.term {
        format!("term {} began", frame.term)
    } else {
        format!("frame {} is no longer kept", from.seq)
    }
}

async fn follow<S: Source>(
    source: &mut S,
    limits: &Limits,
    told: &mpsc::Sender<Told>,
    cursor: &mut Cursor,
    mut joins: impl FnMut(&WatchFrame) -> Option<Join>,
) -> End {
    let late = |endpoint: &str, what: &str, limit: Duration| {
        let text = format!("{endpoint} {what} for {} s", limit.as_secs_f32());
        End::Error(CliError::new(codes::UNREACHABLE, text))
    };
    let mut frames = tokio::select! {
        opened = timeout(limits.open, source.open(cursor.term, cursor.seq)) => match opened {
            Ok(Ok(frames)) => frames,
            Ok(Err(error)) => return End::Error(error),
            Err(_) => return late(&source.endpoint(), "did not answer", limits.open),
        },
        () = told.closed() => return End::Deaf,
    };
    // Only now is it known which node answered.
    let endpoint = source.endpoint();
    let mut limit = limits.open;
    loop {
        let frame = tokio::select! {
            next = timeout(limit, frames.next()) => match next {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(status))) => return End::Error(source.fault(&status)),
                Ok(None) => {
                    return End::Error(CliError::new(codes::UNREACHABLE, format!("{endpoint} ended the stream")));
                }
                Err(_) => return late(&endpoint, "was silent", limit),
            },
            () = told.closed() => return End::Deaf,
        };
        match cursor.judge(&frame) {
            Verdict::Again => continue,
            Verdict::Gap => return End::Gap(frame.seq),
            Verdict::Take => limit = limits.silence,
        }
        if let Some(join) = joins(&frame)
            && told
                .send(Told::Joined {
                    endpoint: endpoint.clone(),
                    join,
                })
                .await
                .is_err()
        {
            return End::Deaf;
        }
        if told.send(Told::Frame(Box::new(frame))).await.is_err() {
            return End::Deaf;
        }
    }
}

#[cfg(test)]
#[path = "tests/conn.rs"]
mod tests;
