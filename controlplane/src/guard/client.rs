//! The daemon's side: finds the guard or starts one, feeds it deadlines, and tells what it says.
//!
//! The link mends itself. Nothing here may hold up a deadline: it goes out by itself as soon as the lease moves, whatever
//! else is being asked. A call's time limit ends the waiting, never what the guard has begun: after [`GuardError::Unknown`]
//! the [`View`] tells how things stand.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::launch::launch;
use super::wire::{Ask, Event, MAX_LINE, Proof, Refusal, Request, Start, State, Status, Stop, VERSION, Word, to_ns};
use crate::coordination::Lease;
use crate::platform::guard::{Link, connect};

/// What a client needs to know.
#[derive(Clone)]
pub struct Options {
    /// The daemon's state directory; the guard takes the daemon's token from the file `token` in it.
    pub state_dir: PathBuf,
    /// The group.
    pub group: String,
    /// The daemon's token.
    pub token: String,
    /// Tells this daemon's runs apart: nanoseconds of CLOCK_BOOTTIME at its start.
    pub run: u64,
    /// The program that is the guard; by default this one.
    pub program: Option<PathBuf>,
    /// Whether the guard may make control groups.
    pub cgroups: bool,
    /// The session's lease: each step of it becomes a deadline of what needs one.
    pub lease: watch::Receiver<Lease>,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    /// The guard said no: nothing was changed.
    #[error("the guard refused: {why}")]
    Refused {
        /// For programs.
        code: Refusal,
        /// For people.
        why: String,
    },
    /// It was never asked.
    #[error("the guard cannot be reached: {0}")]
    Unreachable(String),
    /// It was asked, and did not answer: whether it was carried out is open.
    #[error("the guard has not answered: whether it carried the request out is open")]
    Unknown,
    /// A stop that has begun has not ended in time. It goes on.
    #[error("the stop goes on: it has not ended in time")]
    Slow,
}

/// What is known of the guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Why it cannot be reached at the moment; none while it can.
    pub detached: Option<String>,
    /// What it said last, in this run of the daemon.
    pub status: Option<Status>,
}

/// Something that the guard told by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What.
    pub event: Event,
    /// How things stand since.
    pub status: Status,
}

/// How long one request may take; a start writes to the disk.
const CALL: Duration = Duration::from_secs(2);
const START: Duration = Duration::from_secs(15);
/// How long a connection and its hello may take.
const HELLO: Duration = Duration::from_secs(2);
const WRITE: Duration = Duration::from_secs(1);
/// How often the guard is asked for a sign of life, and how long it may be silent: it may be frozen.
const PING: Duration = Duration::from_secs(2);
const SILENT: Duration = Duration::from_secs(5);
const MIN_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(2);

struct Call {
    ask: Ask,
    answer: oneshot::Sender<Result<Status, GuardError>>,
}

/// One guard, as its daemon sees it. The guard lives on when this is dropped.
pub struct Client {
    calls: mpsc::Sender<Call>,
    view: watch::Receiver<View>,
    notices: broadcast::Sender<Notice>,
    grants: watch::Sender<Option<Duration>>,
    task: JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Client {
    /// Begins to look for the guard, and starts one if there is none; again and again, until the client is dropped.
    pub fn attach(options: Options) -> Client {
        let (calls, rx) = mpsc::channel(16);
        let (view_tx, view) = watch::channel(View {
            detached: Some("it has not been reached yet".to_owned()),
            status: None,
        });
        let (notices, _) = broadcast::channel(64);
        let (grants, grants_rx) = watch::channel(None);
        let task = Task {
            lease: options.lease.clone(),
            options,
            calls: rx,
            view: view_tx,
            notices: notices.clone(),
            grants: grants_rx,
            waiting: HashMap::new(),
            next: 0,
            pushed: (0, 0),
            quitting: None,
            ended: false,
        };
        Client {
            calls,
            view,
            notices,
            grants,
            task: tokio::spawn(task.run()),
        }
    }

    /// What is known, live.
    pub fn view(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    /// What the guard tells from now on. What was missed is in the view.
    pub fn notices(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    /// Waits until the guard is reached.
    ///
    /// # Errors
    /// [`GuardError::Unreachable`] after `limit`, with the reason.
    pub async fn attached(&self, limit: Duration) -> Result<Status, GuardError> {
        let found = self.when(limit, |v| v.detached.is_none().then(|| v.status.clone()).flatten());
        found.await.ok_or_else(|| {
            let why = self.view.borrow().detached.clone();
            GuardError::Unreachable(why.unwrap_or_default())
        })
    }

    /// Starts a postmaster. Answered when it runs, which does not mean that it accepts connections.
    ///
    /// # Errors
    /// See [`GuardError`].
    pub async fn start(&self, start: Start) -> Result<Status, GuardError> {
        self.call(Ask::Start(Box::new(start)), START).await
    }

    /// From now on this start needs a lease, until it has stopped. To be done, and answered, before a promotion.
    ///
    /// # Errors
    /// See [`GuardError`].
    pub async fn arm(&self, incarnation: u64, until: Duration) -> Result<Status, GuardError> {
        let until = to_ns(until);
        self.call(Ask::Arm { incarnation, until }, CALL).await
    }

    /// A deadline from another source than the lease: grants (protocol R13). The later of the two holds.
    pub fn granted(&self, until: Duration) {
        self.grants.send_if_modified(|old| {
            let later = old.is_none_or(|old| until > old);
            if later {
                *old = Some(until);
            }
            later
        });
    }

    /// Begins a stop.
    ///
    /// # Errors
    /// See [`GuardError`].
    pub async fn stop(&self, stop: Stop) -> Result<Status, GuardError> {
        self.call(Ask::Stop(stop), CALL).await
    }

    /// Begins a stop and waits for its proof.
    ///
    /// # Errors
    /// See [`GuardError`]; [`GuardError::Slow`] after `limit`.
    pub async fn stopped(&self, stop: Stop, limit: Duration) -> Result<Proof, GuardError> {
        let proof = |status: &Status| {
            status
                .proves_stop(stop.incarnation)
                .then(|| status.proof.clone())
                .flatten()
        };
        if let Some(proof) = proof(&self.stop(stop).await?) {
            return Ok(proof);
        }
        let proved = self.when(limit, |v| v.status.as_ref().and_then(proof));
        proved.await.ok_or(GuardError::Slow)
    }

    /// Asks how things stand.
    ///
    /// # Errors
    /// See [`GuardError`].
    pub async fn status(&self) -> Result<Status, GuardError> {
        self.call(Ask::Status, CALL).await
    }

    /// Ends the guard, if nothing runs, and this client with it.
    ///
    /// # Errors
    /// See [`GuardError`].
    pub async fn quit(&self) -> Result<(), GuardError> {
        self.call(Ask::Quit, CALL).await.map(drop)
    }

    async fn when<T>(&self, limit: Duration, found: impl Fn(&View) -> Option<T>) -> Option<T> {
        let mut view = self.view.clone();
        let look = async {
            loop {
                if let Some(found) = found(&view.borrow_and_update()) {
                    return Some(found);
                }
                view.changed().await.ok()?;
            }
        };
        timeout(limit, look).await.ok().flatten()
    }

    async fn call(&self, ask: Ask, limit: Duration) -> Result<Status, GuardError> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            let gone = || GuardError::Unreachable("the client has ended".to_owned());
            self.calls.send(Call { ask, answer }).await.map_err(|_| gone())?;
            answered.await.map_err(|_| gone())?
        };
        match timeout(limit, asked).await {
            Ok(outcome) => outcome,
            // A request that was not sent yet is not sent any more: nobody waits for its answer.
            Err(_) => match self.view.borrow().detached.clone() {
                Some(why) => Err(GuardError::Unreachable(why)),
                None => Err(GuardError::Unknown),
            },
        }
    }
}

struct Task {
    options: Options,
    calls: mpsc::Receiver<Call>,
    view: watch::Sender<View>,
    notices: broadcast::Sender<Notice>,
    lease: watch::Receiver<Lease>,
    grants: watch::Receiver<Option<Duration>>,
    /// Who waits for which answer.
    waiting: HashMap<u64, oneshot::Sender<Result<Status, GuardError>>>,
    next: u64,
    /// The incarnation and the deadline that were sent last on this connection.
    pushed: (u64, u64),
    /// The request that ends the guard.
    quitting: Option<u64>,
    /// It was carried out.
    ended: bool,
}

impl Task {
    async fn run(mut self) {
        let mut pause = MIN_PAUSE;
        let mut told = String::new();
        loop {
            let why = match self.reach().await {
                Ok(link) => {
                    pause = MIN_PAUSE;
                    told.clear();
                    self.converse(link).await
                }
                Err(why) => why,
            };
            for (_, waits) in self.waiting.drain() {
                let _ = waits.send(Err(GuardError::Unknown));
            }
            if why != told {
                tracing::warn!(group = %self.options.group, "no guard: {why}");
                told.clone_from(&why);
            }
            self.view.send_modify(|v| v.detached = Some(why));
            if self.ended {
                return;
            }
            sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// Connects to the guard; starts one if there is none.
    async fn reach(&self) -> Result<Link, String> {
        let dir = super::directory(&self.options.state_dir, &self.options.group);
        for started in [false, true] {
            let connected = timeout(HELLO, connect(&dir)).await;
            match connected.map_err(|_| "its socket does not answer".to_owned())? {
                Ok(link) => return Ok(link),
                Err(e) if !started && is_absence(&e) => launch(&self.options).await?,
                Err(e) => return Err(format!("{}: {e}", dir.display())),
            }
        }
        Err("it ended as soon as it was started".to_owned())
    }

    /// Serves calls and deadlines over one connection. Returns why it ended.
    async fn converse(&mut self, link: Link) -> String {
        let (mut reads, mut writes) = tokio::io::split(link);
        self.pushed = (0, 0);
        let hello = Ask::Hello {
            version: VERSION,
            token: self.options.token.clone(),
            run: self.options.run,
        };
        let (answer, mut greeted) = oneshot::channel();
        if let Err(why) = self.send(&mut writes, hello, Some(answer)).await {
            return why;
        }
        let mut input = Vec::new();
        let (mut is_heard, mut lease_moves) = (false, true);
        let mut last_word = Instant::now();
        let mut ping = interval(PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = self.due().filter(|_| is_heard);
            if let Some((incarnation, until)) = due {
                self.pushed = (incarnation, until);
                if let Err(why) = self.send(&mut writes, Ask::Deadline { incarnation, until }, None).await {
                    return why;
                }
            }
            tokio::select! {
                biased;
                // Whoever kept the lease may be gone: the last deadline is left to run out.
                changed = self.lease.changed(), if lease_moves => lease_moves = changed.is_ok(),
                changed = self.grants.changed() => if changed.is_err() {
                    return "the client has ended".to_owned();
                },
                read = reads.read_buf(&mut input) => match read {
                    Ok(0) => return "it closed the connection".to_owned(),
                    Err(e) => return e.to_string(),
                    Ok(_) => {
                        last_word = Instant::now();
                        while let Some(end) = input.iter().position(|b| *b == b'\n') {
                            let line: Vec<u8> = input.drain(..=end).collect();
                            self.hear(&line);
                        }
                        if self.ended {
                            return "it was told to end".to_owned();
                        }
                        if input.len() > MAX_LINE {
                            return "it does not speak as a guard does".to_owned();
                        }
                        if !is_heard {
                            match greeted.try_recv() {
                                Ok(Ok(status)) => {
                                    is_heard = true;
                                    tracing::info!(
                                        group = %self.options.group, guard = status.guard, state = ?status.state,
                                        incarnation = status.incarnation, "the guard is reached"
                                    );
                                    self.view.send_modify(|v| v.detached = None);
                                }
                                Ok(Err(e)) => return e.to_string(),
                                Err(_) => {}
                            }
                        }
                    }
                },
                call = self.calls.recv(), if is_heard => match call {
                    None => return "the client has ended".to_owned(),
                    Some(call) if call.answer.is_closed() => {}
                    Some(call) => if let Err(why) = self.send(&mut writes, call.ask, Some(call.answer)).await {
                        return why;
                    },
                },
                _ = ping.tick() => {
                    let silent = last_word.elapsed();
                    if silent > SILENT || (!is_heard && silent > HELLO) {
                        return format!("it has been silent for {} s", silent.as_secs());
                    }
                    self.waiting.retain(|_, waits| !waits.is_closed());
                    if is_heard && let Err(why) = self.send(&mut writes, Ask::Status, None).await {
                        return why;
                    }
                }
            }
        }
    }

    /// The deadline that the guard should have and was not sent.
    fn due(&self) -> Option<(u64, u64)> {
        let view = self.view.borrow();
        let status = view.status.as_ref().filter(|s| s.state != State::Idle)?;
        let has = status.until?;
        let lease = self.lease.borrow().until;
        let until = to_ns(lease.max(*self.grants.borrow())?);
        let new = (status.incarnation, until);
        (until > has && self.pushed != new).then_some(new)
    }

    fn hear(&mut self, line: &[u8]) {
        match serde_json::from_slice(line) {
            Ok(Word::Done { id, status }) => {
                self.see(&status);
                self.ended |= self.quitting == Some(id);
                if let Some(waits) = self.waiting.remove(&id) {
                    let _ = waits.send(Ok(*status));
                }
            }
            Ok(Word::Refused { id, code, why, status }) => {
                if let Some(status) = status {
                    self.see(&status);
                }
                match self.waiting.remove(&id) {
                    Some(waits) => drop(waits.send(Err(GuardError::Refused { code, why }))),
                    None => tracing::debug!(group = %self.options.group, "the guard refused: {why}"),
                }
            }
            Ok(Word::Event { event, status }) => {
                self.see(&status);
                tracing::info!(
                    group = %self.options.group, incarnation = status.incarnation, cause = ?status.cause,
                    took_ms = status.proof.as_ref().map(|p| p.took_ms), "guard: {event:?}"
                );
                let _ = self.notices.send(Notice { event, status: *status });
            }
            // Of a newer guard.
            Err(_) => {}
        }
    }

    fn see(&self, status: &Status) {
        self.view.send_if_modified(|v| {
            let timeless = |s: &Status| Status {
                left_ms: None,
                ..s.clone()
            };
            let changed = v.status.as_ref().map(timeless) != Some(timeless(status));
            v.status = Some(status.clone());
            changed
        });
    }

    async fn send(
        &mut self,
        writes: &mut (impl tokio::io::AsyncWrite + Unpin),
        ask: Ask,
        answer: Option<oneshot::Sender<Result<Status, GuardError>>>,
    ) -> Result<(), String> {
        self.next += 1;
        if matches!(ask, Ask::Quit) {
            self.quitting = Some(self.next);
        }
        let mut line = serde_json::to_vec(&Request { id: self.next, ask }).map_err(|e| e.to_string())?;
        line.push(b'\n');
        if let Some(answer) = answer {
            self.waiting.insert(self.next, answer);
        }
        match timeout(WRITE, writes.write_all(&line)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(e.to_string()),
            Err(_) => Err("it does not read".to_owned()),
        }
    }
}

/// Whether this error says that no guard listens.
fn is_absence(e: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, ConnectionReset, NotFound};
    matches!(e.kind(), ConnectionRefused | ConnectionReset | NotFound)
}
