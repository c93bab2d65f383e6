//! The supervisor: the parent of every process of a playground. Starts what it is told to, starts again what dies, and
//! takes everything with it when it ends.
//!
//! Only unreaped children of its own are ever signalled. It knows nothing of clusters: whoever sets one up tells it what
//! to start.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::child::Child;
use super::control::{self, Answer, Reach, Request};
use super::guards;
use super::managed::{Managed, Now, say};
use super::place::Place;
use super::system::{self, Process, Running};
use crate::error::{CliError, file_error};
use crate::names::now_ms;
use ha_proto::codes;

/// Longest time for a caller to say what it wants.
const CALLER: Duration = Duration::from_secs(2);
/// Children are looked at this often even if no signal told of their end.
const LOOK: Duration = Duration::from_secs(1);
/// The shortest pause between two looks that no event asked for.
const SOON: Duration = Duration::from_millis(10);

/// Runs the supervisor of the playground in `dir` until it is told to end.
///
/// # Errors
/// `HA0904` if it cannot listen.
pub(super) fn run(dir: &Path, tied_to: Option<u32>) -> Result<(), CliError> {
    if let Some(parent) = tied_to {
        system::end_with_parent(parent);
    }
    system::detach();
    let place = Place::find(Some(dir), false)?;
    std::env::set_current_dir(place.dir()).map_err(|e| file_error("enter", place.dir(), &e))?;
    let failed = |e: std::io::Error| CliError::new(codes::PLAYGROUND_FAILED, "the supervisor ended").why(e.to_string());
    // Children die with the thread that started them: this one, which lives as long as the supervisor does.
    let thread = std::thread::Builder::new().name("supervisor".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(supervise(place))
    });
    match thread.map_err(failed)?.join() {
        Ok(ended) => ended.map_err(failed),
        Err(_) => Err(CliError::new(codes::INTERNAL, "the supervisor ended by a defect")),
    }
}

type Asked = (Request, oneshot::Sender<Answer>);

async fn supervise(place: Place) -> std::io::Result<()> {
    let mut child_ended = signal(SignalKind::child())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let socket = place.socket();
    let _ = std::fs::remove_file(&socket);
    // The directory is closed to others, and so is the socket.
    let listener = UnixListener::bind(&Reach::new(&socket)?.path)?;
    let (asked, mut asks) = mpsc::channel::<Asked>(16);
    let mut callers = tokio::task::JoinSet::new();
    let mut kept = Kept {
        place,
        children: Vec::new(),
        stopping: None,
    };
    kept.record();
    let mut waiting: Vec<oneshot::Sender<Answer>> = Vec::new();
    say("started");
    loop {
        let pause = kept
            .next()
            .map_or(LOOK, |at| at.saturating_duration_since(Instant::now()).min(LOOK));
        tokio::select! {
            _ = child_ended.recv() => {}
            _ = terminated.recv() => kept.stop(),
            _ = interrupted.recv() => kept.stop(),
            () = tokio::time::sleep(pause) => {}
            Some(_) = callers.join_next() => {}
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    callers.spawn(serve(stream, asked.clone()));
                }
            }
            Some((request, answer)) = asks.recv() => match request {
                Request::Status => drop(answer.send(kept.report())),
                Request::Start(child) => drop(answer.send(kept.start(*child))),
                Request::Down => {
                    kept.stop();
                    waiting.push(answer);
                }
            },
        }
        kept.look();
        if kept.is_over() {
            break;
        }
    }
    guards::end(&kept.place).await;
    for answer in waiting {
        let _ = answer.send(Answer::Done);
    }
    // Whoever asked is told before this process ends.
    let _ = tokio::time::timeout(CALLER, async { while callers.join_next().await.is_some() {} }).await;
    let _ = std::fs::remove_file(&socket);
    say("ended");
    Ok(())
}

async fn serve(mut stream: UnixStream, asked: mpsc::Sender<Asked>) {
    let answer = match tokio::time::timeout(CALLER, control::read::<Request>(&mut stream)).await {
        Ok(Ok(request)) => {
            let (sender, receiver) = oneshot::channel();
            if asked.send((request, sender)).await.is_err() {
                return;
            }
            receiver
                .await
                .unwrap_or(Answer::Refused("the supervisor is ending".into()))
        }
        Ok(Err(e)) => Answer::Refused(e.to_string()),
        Err(_) => return,
    };
    let _ = tokio::time::timeout(CALLER, control::write(&mut stream, &answer)).await;
}

/// The children, and whether they are to end.
struct Kept {
    place: Place,
    children: Vec<Managed>,
    stopping: Option<Stopping>,
}

struct Stopping {
    stage: u8,
    since: Instant,
}

impl Kept {
    fn start(&mut self, child: Child) -> Answer {
        if self.stopping.is_some() {
            return Answer::Refused("the supervisor is ending".into());
        }
        if self.children.iter().any(|c| c.child.name == child.name) {
            return Answer::Refused(format!("{} was started before", child.name));
        }
        let program = child.program.clone();
        match Managed::start(child) {
            Ok(managed) => self.children.push(managed),
            Err(e) => return Answer::Refused(format!("cannot start {}: {e}", program.display())),
        }
        self.record();
        Answer::Done
    }

    /// Begins to end everything, the highest stage first.
    fn stop(&mut self) {
        if self.stopping.is_none() {
            say("ending all children");
            let stage = self.children.iter().map(|c| c.child.stage).max().unwrap_or(0);
            self.stop_stage(stage);
        }
    }

    fn stop_stage(&mut self, stage: u8) {
        self.stopping = Some(Stopping {
            stage,
            since: Instant::now(),
        });
        for managed in &mut self.children {
            match &managed.state {
                Now::Running { process, .. } if managed.child.stage == stage => system::terminate(process),
                Now::Waiting { exit, .. } => {
                    managed.state = Now::Ended {
                        exit: *exit,
                        at_ms: now_ms(),
                    }
                }
                Now::Running { .. } | Now::Ended { .. } => {}
            }
        }
    }

    fn is_over(&self) -> bool {
        self.stopping.is_some() && !self.children.iter().any(Managed::runs)
    }

    /// When something is to be done next.
    fn next(&self) -> Option<Instant> {
        let restarts = self.children.iter().filter_map(|c| match &c.state {
            Now::Waiting { until, .. } => Some(*until),
            Now::Running { .. } | Now::Ended { .. } => None,
        });
        let kills = self.stopping.iter().flat_map(|s| {
            let stage = self.children.iter().filter(|c| c.child.stage == s.stage && c.runs());
            stage.map(|c| s.since + Duration::from_millis(c.child.patience_ms))
        });
        // A child that is killed and still there is looked at again soon, not at once.
        restarts.chain(kills).min().map(|at| at.max(Instant::now() + SOON))
    }

    /// Sees to every child: reaps it, starts it again, or goes on ending.
    fn look(&mut self) {
        let now = Instant::now();
        let mut changed = false;
        for managed in &mut self.children {
            changed |= managed.reap(now, self.stopping.is_some());
            changed |= managed.start_again(now);
        }
        if let Some(Stopping { stage, since }) = self.stopping {
            for managed in self.children.iter_mut().filter(|c| c.child.stage == stage) {
                let patience = Duration::from_millis(managed.child.patience_ms);
                if let Now::Running { process, .. } = &mut managed.state
                    && now >= since + patience
                {
                    let _ = process.kill();
                }
            }
            let below = self.children.iter().filter(|c| c.runs()).map(|c| c.child.stage).max();
            if let Some(below) = below.filter(|b| *b < stage) {
                self.stop_stage(below);
            }
        }
        if changed {
            self.record();
        }
    }

    fn report(&self) -> Answer {
        Answer::Children {
            supervisor: std::process::id(),
            children: self.children.iter().map(Managed::report).collect(),
        }
    }

    /// Writes down what runs, for the case that this process hangs or is killed.
    fn record(&self) {
        let children = self.children.iter().filter_map(Managed::identity).collect();
        let running = Running {
            supervisor: Process::now(std::process::id()),
            children,
        };
        let text = serde_json::to_string(&running).unwrap_or_default();
        if let Err(e) = crate::files::replace(&self.place.running(), &text) {
            say(&format!("{e}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::child::{Exit, Report, Restart, State};
    use super::*;

    /// A supervisor in this process, in a directory of its own.
    struct Bench {
        place: Place,
        task: tokio::task::JoinHandle<std::io::Result<()>>,
        _dir: tempfile::TempDir,
    }

    impl Bench {
        async fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let place = Place::find(Some(dir.path()), false).unwrap();
            std::fs::create_dir(place.logs()).unwrap();
            let task = tokio::spawn(supervise(place.clone()));
            let bench = Self { place, task, _dir: dir };
            until(async || control::ask(&bench.place, &Request::Status).await.is_ok()).await;
            bench
        }

        async fn start(&self, name: &str, script: &str, restart: Restart, stage: u8) {
            let child = Child {
                name: name.into(),
                kind: "script".into(),
                address: String::new(),
                program: "/bin/sh".into(),
                args: vec!["-c".into(), script.into()],
                env: Vec::new(),
                log: self.place.log(name),
                restart,
                stage,
                patience_ms: 300,
            };
            control::ask(&self.place, &Request::Start(Box::new(child)))
                .await
                .unwrap();
        }

        async fn report(&self, name: &str) -> Report {
            let answer = control::ask(&self.place, &Request::Status).await.unwrap();
            let Answer::Children { children, .. } = answer else {
                panic!("{answer:?}")
            };
            children.into_iter().find(|c| c.name == name).unwrap()
        }

        async fn pid(&self, name: &str) -> Option<u32> {
            match self.report(name).await.state {
                State::Running { pid, .. } => Some(pid),
                State::Waiting { .. } | State::Ended { .. } => None,
            }
        }

        fn log(&self, name: &str) -> String {
            std::fs::read_to_string(self.place.log(name)).unwrap_or_default()
        }
    }

    async fn until(mut condition: impl AsyncFnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition().await {
            assert!(Instant::now() < deadline, "it never became so");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn what_is_killed_comes_back_with_what_it_left_cleared_away() {
        let bench = Bench::new().await;
        bench
            .start("a", "sleep 1000 & echo $!; wait", Restart::OnFailure, 0)
            .await;
        until(async || bench.log("a").lines().count() == 1).await;
        let left = Process::now(bench.log("a").trim().parse().unwrap());
        let first = bench.pid("a").await.unwrap();
        assert!(left.is_alive());
        Process::now(first).kill();
        until(async || bench.pid("a").await.is_some_and(|pid| pid != first)).await;
        assert!(!left.is_alive(), "a process of the group went on");
        assert_eq!(bench.report("a").await.restarts, 1);
        control::ask(&bench.place, &Request::Down).await.unwrap();
        bench.task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn what_left_by_itself_stays_away() {
        let bench = Bench::new().await;
        bench.start("a", "exit 0", Restart::OnFailure, 0).await;
        bench.start("b", "exit 3", Restart::Never, 0).await;
        let ended =
            |report: Report, code: i32| matches!(report.state, State::Ended { exit, .. } if exit == Exit::Code(code));
        until(async || ended(bench.report("a").await, 0) && ended(bench.report("b").await, 3)).await;
        control::ask(&bench.place, &Request::Down).await.unwrap();
        bench.task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn the_end_goes_by_stages_and_waits_for_nobody_for_ever() {
        let bench = Bench::new().await;
        bench
            .start(
                "below",
                "trap 'echo below; exit 0' TERM; echo ready; while :; do sleep 0.01; done",
                Restart::Always,
                0,
            )
            .await;
        bench
            .start(
                "stubborn",
                "trap '' TERM; echo ready; while :; do sleep 0.01; done",
                Restart::Always,
                1,
            )
            .await;
        until(async || ["below", "stubborn"].iter().all(|n| bench.log(n).contains("ready"))).await;
        let stubborn = Process::now(bench.pid("stubborn").await.unwrap());
        let asked = Instant::now();
        control::ask(&bench.place, &Request::Down).await.unwrap();
        assert!(
            asked.elapsed() >= Duration::from_millis(300),
            "the stubborn one was not waited for"
        );
        assert!(!stubborn.is_alive());
        assert!(
            bench.log("below").ends_with("below\n"),
            "the lower stage was not asked to end"
        );
        bench.task.await.unwrap().unwrap();
        assert!(!bench.place.socket().exists());
    }

    #[tokio::test]
    async fn what_cannot_be_started_is_refused() {
        let bench = Bench::new().await;
        bench.start("a", "sleep 1000", Restart::Never, 0).await;
        let mut child = Child {
            name: "a".into(),
            kind: String::new(),
            address: String::new(),
            program: "/nonexistent".into(),
            args: Vec::new(),
            env: Vec::new(),
            log: bench.place.log("x"),
            restart: Restart::Never,
            stage: 0,
            patience_ms: 0,
        };
        let error = control::ask(&bench.place, &Request::Start(Box::new(child.clone())))
            .await
            .unwrap_err();
        assert!(error.reasons()[0].contains("started before"), "{error}");
        child.name = "b".into();
        let error = control::ask(&bench.place, &Request::Start(Box::new(child)))
            .await
            .unwrap_err();
        assert!(error.reasons()[0].contains("/nonexistent"), "{error}");
        control::ask(&bench.place, &Request::Down).await.unwrap();
        bench.task.await.unwrap().unwrap();
    }
}
