//! The task that keeps the stream open, against scripted servers.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use futures::stream::{self, BoxStream};
use ha_proto::v1::{Beat, ClusterState, Delta};

use super::*;

const FAST: Limits = Limits {
    open: Duration::from_millis(200),
    silence: Duration::from_millis(200),
    pause: Duration::from_millis(1),
    pause_max: Duration::from_millis(4),
};

/// What a server does when it is dialled.
enum Script {
    /// It refuses.
    Refuse(CliError),
    /// It never answers.
    Hang,
    /// It sends these, then ends the stream.
    Send(Vec<WatchFrame>),
    /// It sends these, then an error.
    Break(Vec<WatchFrame>),
    /// It sends these, then nothing more.
    Stall(Vec<WatchFrame>),
}

struct Scripted {
    scripts: VecDeque<Script>,
    /// What was asked for.
    asked: Arc<Mutex<Vec<(String, u64, u64)>>>,
    at: usize,
}

impl Source for Scripted {
    type Frames = BoxStream<'static, Result<WatchFrame, Status>>;

    fn endpoint(&self) -> String {
        format!("n{}", self.at % 3 + 1)
    }

    async fn open(&mut self, term: u64, seq: u64) -> Result<Self::Frames, CliError> {
        self.asked.lock().unwrap().push((self.endpoint(), term, seq));
        let ok = |frames: Vec<WatchFrame>| stream::iter(frames.into_iter().map(Ok));
        match self.scripts.pop_front() {
            Some(Script::Refuse(error)) => Err(error),
            Some(Script::Send(frames)) => Ok(ok(frames).boxed()),
            Some(Script::Break(frames)) => {
                let end = Err(Status::resource_exhausted("slow"));
                Ok(ok(frames).chain(stream::iter([end])).boxed())
            }
            Some(Script::Stall(frames)) => Ok(ok(frames).chain(stream::pending()).boxed()),
            Some(Script::Hang) | None => std::future::pending().await,
        }
    }

    fn fault(&mut self, status: &Status) -> CliError {
        CliError::new(codes::SLOW_WATCHER, status.message().to_owned())
    }

    fn rotate(&mut self) {
        self.at += 1;
    }
}

fn frame(term: u64, seq: u64, body: Body) -> WatchFrame {
    WatchFrame {
        seq,
        term,
        server_unix_ms: 1,
        body: Some(body),
    }
}

fn snapshot(term: u64, seq: u64) -> WatchFrame {
    frame(term, seq, Body::Snapshot(ClusterState::default()))
}

fn delta(term: u64, seq: u64) -> WatchFrame {
    frame(term, seq, Body::Delta(Delta::default()))
}

fn beat(term: u64, seq: u64) -> WatchFrame {
    frame(term, seq, Body::Beat(Beat {}))
}

fn unreachable() -> CliError {
    CliError::new(codes::UNREACHABLE, "refused")
}

/// Runs the scripts until the last of them was dialled, and tells in short what was told, and what was asked for.
async fn run(scripts: Vec<Script>) -> (Vec<String>, Vec<(String, u64, u64)>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let streams = scripts.len();
    let source = Scripted {
        scripts: scripts.into(),
        asked: Arc::clone(&asked),
        at: 0,
    };
    let (tell, mut told) = mpsc::channel(WAITING_MAX);
    let task = tokio::spawn(keep(source, FAST, tell));
    let mut out = Vec::new();
    while let Some(what) = told.recv().await {
        let dialled = out.iter().filter(|line: &&String| line.starts_with("dial")).count();
        out.push(match what {
            Told::Dialling { .. } if dialled == streams => break,
            Told::Dialling { endpoint, attempt } => format!("dial {endpoint} {attempt}"),
            Told::Joined {
                endpoint,
                join: Join::First,
            } => format!("first {endpoint}"),
            Told::Joined {
                endpoint,
                join: Join::Resumed { seq },
            } => format!("resumed {endpoint} {seq}"),
            Told::Joined {
                endpoint,
                join: Join::Over { why },
            } => format!("over {endpoint}: {why}"),
            Told::Frame(frame) => format!("frame {}/{}", frame.term, frame.seq),
            Told::Lost { error } => format!("lost {}", error.code()),
            Told::Refused { error } => format!("refused {}", error.code()),
        });
    }
    drop(told);
    // It ends when nobody listens, wherever it stands.
    timeout(Duration::from_secs(5), task).await.unwrap().unwrap();
    let asked = asked.lock().unwrap().clone();
    (out, asked)
}

#[tokio::test]
async fn it_resumes_after_the_last_frame_at_the_next_node() {
    let (told, asked) = run(vec![
        Script::Send(vec![snapshot(4, 10), delta(4, 11), beat(4, 11)]),
        Script::Refuse(unreachable()),
        Script::Send(vec![delta(4, 12)]),
        Script::Send(vec![beat(4, 12)]),
    ])
    .await;
    assert_eq!(
        told,
        [
            "dial n1 1",
            "first n1",
            "frame 4/10",
            "frame 4/11",
            "frame 4/11",
            "lost HA0101", //
            "dial n2 2",
            "lost HA0101", //
            "dial n3 3",
            "resumed n3 11",
            "frame 4/12",
            "lost HA0101", //
            "dial n1 2",
            "resumed n1 12",
            "frame 4/12",
            "lost HA0101",
        ]
    );
    let from: Vec<_> = asked.iter().take(4).map(|(_, term, seq)| (*term, *seq)).collect();
    assert_eq!(from, [(0, 0), (4, 11), (4, 11), (4, 12)]);
}

#[tokio::test]
async fn it_says_why_it_starts_over() {
    let (told, _) = run(vec![
        Script::Send(vec![snapshot(4, 10)]),
        Script::Send(vec![snapshot(5, 2)]),
        Script::Break(vec![snapshot(5, 700)]),
        Script::Send(vec![snapshot(5, 900)]),
    ])
    .await;
    let over: Vec<_> = told.iter().filter(|line| line.starts_with("over")).collect();
    assert_eq!(
        over,
        [
            "over n2: term 5 began",
            "over n3: frame 2 is no longer kept",
            "over n1: slow"
        ]
    );
}

#[tokio::test]
async fn a_missing_frame_is_never_passed_over() {
    let (told, asked) = run(vec![
        Script::Stall(vec![snapshot(4, 10), delta(4, 11), delta(4, 13)]),
        Script::Stall(vec![snapshot(4, 13), beat(4, 15)]),
        Script::Stall(vec![snapshot(4, 15), delta(5, 16)]),
        Script::Stall(vec![delta(4, 1)]),
        Script::Send(vec![snapshot(4, 16)]),
    ])
    .await;
    let frames: Vec<_> = told.iter().filter(|line| line.starts_with("frame")).collect();
    assert_eq!(
        frames,
        ["frame 4/10", "frame 4/11", "frame 4/13", "frame 4/15", "frame 4/16"]
    );
    assert!(
        asked.iter().take(5).all(|(_, term, seq)| (*term, *seq) == (0, 0)),
        "{asked:?}"
    );
    assert!(
        told.contains(&"over n2: frames between 11 and 13 are missing".to_owned()),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_frame_that_comes_again_is_taken_once() {
    let (told, _) = run(vec![Script::Send(vec![
        snapshot(4, 10),
        delta(4, 11),
        delta(4, 11),
        delta(4, 12),
    ])])
    .await;
    let frames: Vec<_> = told.iter().filter(|line| line.starts_with("frame")).collect();
    assert_eq!(frames, ["frame 4/10", "frame 4/11", "frame 4/12"]);
}

#[tokio::test]
async fn silence_and_a_node_that_hangs_are_losses() {
    let (told, _) = run(vec![
        Script::Stall(vec![snapshot(4, 10)]),
        Script::Hang,
        Script::Send(vec![beat(4, 10)]),
    ])
    .await;
    assert_eq!(
        told,
        [
            "dial n1 1",
            "first n1",
            "frame 4/10",
            "lost HA0101", //
            "dial n2 2",
            "lost HA0101", //
            "dial n3 3",
            "resumed n3 10",
            "frame 4/10",
            "lost HA0101",
        ]
    );
}

#[tokio::test]
async fn a_refusal_counts_only_before_the_first_frame() {
    let denied = || Script::Refuse(CliError::new(codes::REVOKED, "revoked"));
    let (told, _) = run(vec![Script::Refuse(unreachable()), denied()]).await;
    assert_eq!(told.last().unwrap(), "refused HA0202");
    let (told, _) = run(vec![
        Script::Send(vec![snapshot(4, 10)]),
        denied(),
        Script::Send(vec![beat(4, 10)]),
    ])
    .await;
    assert!(
        told.contains(&"lost HA0202".to_owned()) && told.contains(&"resumed n3 10".to_owned()),
        "{told:?}"
    );
}

#[test]
fn pauses_grow_and_are_bounded() {
    let limits = Limits::default();
    for attempt in [2, 3, 10, 1000, u32::MAX] {
        let pause = limits.pause_before(attempt);
        assert!(
            pause >= limits.pause / 2 && pause <= limits.pause_max,
            "{attempt}: {pause:?}"
        );
    }
    assert!(limits.pause_before(2) <= limits.pause);
    assert!(limits.pause_before(20) >= limits.pause_max / 2);
}
