//! Runs many processes in one thread, each of which can be stopped, continued and killed whole.
//!
//! A process is a group of futures: its root and whatever it spawned. The executor polls one ready future at a time and
//! draws which from its own generator, so that a run follows from a seed alone: in what order the futures were woken must
//! never matter, for Tokio's own wake-ups are partly random. Time is Tokio's and is to be paused: it moves on when nothing
//! is ready.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use controlplane::coordination::Spawner;
use futures::future::BoxFuture;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::time::Instant;

/// Number of a process.
pub type Group = u32;

/// Polls without any progress of time after which a run is taken for stuck.
const SPIN: u32 = 200_000;

type Local = Pin<Box<dyn Future<Output = ()>>>;

thread_local! {
    static CURRENT: Cell<Group> = const { Cell::new(0) };
}

/// The process whose future is being polled; 0 is the simulation itself.
pub fn current() -> Group {
    CURRENT.get()
}

/// What wakers and spawners of other threads' types may reach.
#[derive(Default)]
struct Inbox {
    ready: Mutex<BTreeSet<u64>>,
    spawned: Mutex<Vec<(Group, BoxFuture<'static, ()>)>>,
    root: Mutex<Option<Waker>>,
}

impl Inbox {
    fn wake_root(&self) {
        let root = self.root.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(root) = root {
            root.wake();
        }
    }
}

struct TaskWaker {
    task: u64,
    inbox: Arc<Inbox>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        lock(&self.inbox.ready).insert(self.task);
        self.inbox.wake_root();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing panics under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Task {
    group: Group,
    /// Absent while it is being polled.
    future: Option<Local>,
    waker: Waker,
}

#[derive(Default)]
struct State {
    tasks: BTreeMap<u64, Task>,
    next: u64,
    /// How many times each is stopped.
    paused: BTreeMap<Group, u32>,
    dead: BTreeSet<Group>,
    polls: u64,
}

/// See the module. A cheap handle: clones are the same executor.
#[derive(Clone)]
pub struct Executor {
    state: Rc<RefCell<State>>,
    inbox: Arc<Inbox>,
}

impl Default for Executor {
    fn default() -> Self {
        Self::new()
    }
}

impl Executor {
    /// An executor without processes.
    pub fn new() -> Self {
        Self {
            state: Rc::default(),
            inbox: Arc::default(),
        }
    }

    /// Adds a future to a process. A dead process gets no more of them.
    pub fn spawn(&self, group: Group, future: impl Future<Output = ()> + 'static) {
        self.add(group, Box::pin(future));
    }

    /// Spawns into a process, from wherever it is called.
    pub fn spawner(&self, group: Group) -> Spawner {
        let inbox = self.inbox.clone();
        Arc::new(move |future| {
            lock(&inbox.spawned).push((group, future));
            inbox.wake_root();
        })
    }

    fn add(&self, group: Group, future: Local) {
        let mut state = self.state.borrow_mut();
        if state.dead.contains(&group) {
            return;
        }
        state.next += 1;
        let task = state.next;
        let inbox = self.inbox.clone();
        let waker = Waker::from(Arc::new(TaskWaker { task, inbox }));
        let future = Some(future);
        state.tasks.insert(task, Task { group, future, waker });
        drop(state);
        lock(&self.inbox.ready).insert(task);
        self.inbox.wake_root();
    }

    /// Stops a process as SIGSTOP does; time goes on without it. It counts: two stops take two continuations.
    pub fn pause(&self, group: Group) {
        *self.state.borrow_mut().paused.entry(group).or_default() += 1;
    }

    /// Continues it.
    pub fn resume(&self, group: Group) {
        let mut state = self.state.borrow_mut();
        if let Some(times) = state.paused.get_mut(&group) {
            *times -= 1;
            if *times == 0 {
                state.paused.remove(&group);
            }
        }
        drop(state);
        self.inbox.wake_root();
    }

    /// Continues all.
    pub fn resume_all(&self) {
        self.state.borrow_mut().paused.clear();
        self.inbox.wake_root();
    }

    /// Whether it is stopped.
    pub fn is_paused(&self, group: Group) -> bool {
        self.state.borrow().paused.contains_key(&group)
    }

    /// Ends a process as SIGKILL does: its futures are dropped where they stand.
    pub fn kill(&self, group: Group) {
        let mut state = self.state.borrow_mut();
        state.dead.insert(group);
        let ids: Vec<u64> = state
            .tasks
            .iter()
            .filter(|(_, t)| t.group == group)
            .map(|(id, _)| *id)
            .collect();
        let tasks: Vec<Task> = ids.iter().filter_map(|id| state.tasks.remove(id)).collect();
        drop(state);
        let mut ready = lock(&self.inbox.ready);
        for id in ids {
            ready.remove(&id);
        }
        drop(ready);
        // Dropping runs code that may wake others or come back here.
        drop(tasks);
    }

    /// How many times futures were polled.
    pub fn polls(&self) -> u64 {
        self.state.borrow().polls
    }

    /// Runs `main` as process 0 until it ends. `step` is called before a future is chosen, with the process that was polled
    /// last; an error ends the run.
    ///
    /// # Errors
    /// What `step` says; or that futures wake each other on and on without any time passing.
    pub async fn run<T: 'static>(
        &self,
        seed: u64,
        main: impl Future<Output = T> + 'static,
        mut step: impl FnMut(Group) -> Result<(), String>,
    ) -> Result<T, String> {
        let mut rng = SmallRng::seed_from_u64(seed);
        let done: Rc<RefCell<Option<T>>> = Rc::default();
        let slot = done.clone();
        self.spawn(0, async move {
            let value = main.await;
            *slot.borrow_mut() = Some(value);
        });
        let (mut since, mut spins, mut last) = (Instant::now(), 0, 0);
        std::future::poll_fn(|cx| {
            *lock(&self.inbox.root) = Some(cx.waker().clone());
            self.take_spawned();
            if let Err(e) = step(last) {
                return Poll::Ready(Err(e));
            }
            let Some(task) = self.pick(&mut rng) else {
                return Poll::Pending;
            };
            last = self.poll(task);
            if let Some(value) = done.borrow_mut().take() {
                return Poll::Ready(Ok(value));
            }
            let now = Instant::now();
            if now > since {
                (since, spins) = (now, 0);
            }
            spins += 1;
            if spins > SPIN {
                return Poll::Ready(Err(format!("process {last} spins: no time passes any more")));
            }
            // One future for each poll of this one: Tokio grants each poll its own budget, so even a future that never
            // waits comes back.
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await
    }

    fn take_spawned(&self) {
        let spawned = std::mem::take(&mut *lock(&self.inbox.spawned));
        for (group, future) in spawned {
            self.add(group, future);
        }
    }

    /// One of the futures that are ready and not stopped.
    fn pick(&self, rng: &mut SmallRng) -> Option<u64> {
        let state = self.state.borrow();
        let mut ready = lock(&self.inbox.ready);
        ready.retain(|id| state.tasks.contains_key(id));
        let stopped = |id: &u64| !state.paused.is_empty() && state.paused.contains_key(&state.tasks[id].group);
        let count = ready.iter().filter(|id| !stopped(id)).count();
        let nth = if count > 1 { rng.random_range(0..count) } else { 0 };
        let task = ready.iter().filter(|id| !stopped(id)).nth(nth).copied()?;
        ready.remove(&task);
        Some(task)
    }

    fn poll(&self, task: u64) -> Group {
        let taken = {
            let mut state = self.state.borrow_mut();
            state.polls += 1;
            state
                .tasks
                .get_mut(&task)
                .and_then(|t| Some((t.group, t.future.take()?, t.waker.clone())))
        };
        let Some((group, mut future, waker)) = taken else {
            return 0;
        };
        CURRENT.set(group);
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        CURRENT.set(0);
        let mut state = self.state.borrow_mut();
        if polled.is_pending()
            && let Some(entry) = state.tasks.get_mut(&task)
        {
            entry.future = Some(future);
        } else {
            state.tasks.remove(&task);
            drop(state);
            drop(future);
        }
        group
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::sleep;

    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(future)
    }

    #[test]
    fn stopped_processes_wait_and_killed_ones_are_gone() {
        let x = Executor::new();
        let log: Rc<RefCell<Vec<(u64, Group)>>> = Rc::default();
        let begun = Rc::new(Cell::new(None));
        for group in [1, 2, 3] {
            let (log, begun) = (log.clone(), begun.clone());
            x.spawn(group, async move {
                loop {
                    sleep(Duration::from_secs(1)).await;
                    let begun: Instant = begun.get().unwrap();
                    log.borrow_mut().push((begun.elapsed().as_secs(), current()));
                }
            });
        }
        let ctl = x.clone();
        let main = async move {
            begun.set(Some(Instant::now()));
            sleep(Duration::from_millis(1500)).await;
            ctl.pause(1);
            ctl.kill(2);
            sleep(Duration::from_secs(2)).await;
            ctl.resume(1);
            sleep(Duration::from_millis(100)).await;
            ctl.kill(1);
            ctl.kill(3);
            sleep(Duration::from_secs(5)).await;
        };
        block_on(async { x.run(7, main, |_| Ok(())).await }).unwrap();
        let mut seen = log.borrow().clone();
        seen.sort_unstable();
        assert_eq!(seen, [(1, 1), (1, 2), (1, 3), (2, 3), (3, 1), (3, 3)]);
    }

    #[test]
    fn a_spinning_process_is_told() {
        let x = Executor::new();
        x.spawn(4, async {
            loop {
                tokio::task::yield_now().await;
            }
        });
        let main = async { sleep(Duration::from_secs(1)).await };
        let e = block_on(async { x.run(7, main, |_| Ok(())).await });
        assert!(e.unwrap_err().contains("spins"));
    }
}
