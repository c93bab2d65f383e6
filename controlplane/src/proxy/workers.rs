//! The proxy's own threads. A thread with a runtime of its own moves a message with fewer wake-ups than a shared pool, and
//! no load of clients delays the daemon's heartbeats.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// The threads; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Workers(Arc<[Worker]>);

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    tasks: Arc<AtomicUsize>,
}

impl Workers {
    /// Starts `n` threads, one at least. They end with `stop`, and everything on them with them.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub(super) fn start(n: usize, stop: &CancellationToken) -> std::io::Result<Self> {
        let workers = (0..n.max(1)).map(|_| {
            let runtime = Builder::new_current_thread()
                .max_blocking_threads(4)
                .enable_all()
                .build()?;
            let handle = runtime.handle().clone();
            let stop = stop.clone();
            std::thread::Builder::new()
                .name("had-proxy".to_owned())
                .spawn(move || {
                    runtime.block_on(stop.cancelled());
                    // A name that is looked up must not hold the thread.
                    runtime.shutdown_background();
                })?;
            Ok(Worker {
                runtime: handle,
                tasks: Arc::default(),
            })
        });
        Ok(Self(workers.collect::<std::io::Result<Vec<_>>>()?.into()))
    }

    /// Runs a connection on the thread that has fewest.
    pub(super) fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let Some(worker) = self.0.iter().min_by_key(|w| w.tasks.load(Ordering::Relaxed)) else {
            return;
        };
        let here = Here::new(&worker.tasks);
        worker.runtime.spawn(async move {
            connection.await;
            drop(here);
        });
    }
}

/// Counts a task on its thread.
struct Here(Arc<AtomicUsize>);

impl Here {
    fn new(tasks: &Arc<AtomicUsize>) -> Self {
        tasks.fetch_add(1, Ordering::Relaxed);
        Self(tasks.clone())
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
