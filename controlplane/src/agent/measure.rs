//! What the node has and uses, measured all the time.
//!
//! It must cost next to nothing: three small files of `/proc` each time, the disk now and then and off the runtime's
//! threads, for a dead network file system answers nobody.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ha_core::Resources;
use ha_proto::v1;
use tokio::sync::watch;

use super::StateDir;
use crate::platform::{self, CpuTimes};

/// How often the slow things are looked at: the disk, one's own memory.
const SLOW: Duration = Duration::from_secs(5);
/// How long the disk may take to answer before the last figure is left standing.
const PATIENCE: Duration = Duration::from_secs(2);
/// With less than this free the state directory is tried.
const NEARLY_FULL: u64 = 1 << 20;

/// What the node has.
pub fn capacity(disk: &Path) -> Resources {
    Resources {
        cpu_milli: platform::cores() as u64 * 1000,
        memory: platform::memory().map(|m| m.total).unwrap_or_default(),
        disk: platform::disk(disk).map(|(total, _)| total).unwrap_or_default(),
    }
}

/// Measures every `interval` until it is dropped.
pub(super) async fn run(disk: PathBuf, interval: Duration, usage: watch::Sender<v1::Usage>, state: StateDir) {
    let mut meter = Meter::new();
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut slow_at = tokio::time::Instant::now();
    loop {
        ticks.tick().await;
        let now = tokio::time::Instant::now();
        if now >= slow_at {
            slow_at = now + SLOW;
            meter.rss = platform::daemon_rss().unwrap_or(meter.rss);
            meter.cores = platform::cores() as u64;
            let path = disk.clone();
            let asked = tokio::task::spawn_blocking(move || platform::disk(&path));
            match tokio::time::timeout(PATIENCE, asked).await {
                Ok(Ok(Ok(sizes))) => meter.disk = sizes,
                Ok(_) => tracing::debug!("{} cannot be measured", disk.display()),
                // Asking again would only tie up another thread.
                Err(_) => slow_at = now + SLOW * 12,
            }
            let path = state.path().to_owned();
            let room = tokio::task::spawn_blocking(move || platform::disk(&path));
            if let Ok(Ok(Ok((total, used)))) = tokio::time::timeout(PATIENCE, room).await
                && total.saturating_sub(used) < NEARLY_FULL
            {
                state.probe().await;
            }
        }
        let sample = meter.sample();
        usage.send_if_modified(|u| {
            let news = *u != sample;
            *u = sample;
            news
        });
    }
}

/// Measures against the measurement before.
struct Meter {
    cores: u64,
    earlier: CpuTimes,
    share: u64,
    rss: u64,
    disk: (u64, u64),
}

impl Meter {
    fn new() -> Self {
        let earlier = platform::cpu_times().unwrap_or_default();
        Self {
            cores: platform::cores() as u64,
            earlier,
            share: 0,
            rss: 0,
            disk: (0, 0),
        }
    }

    fn sample(&mut self) -> v1::Usage {
        if let Ok(times) = platform::cpu_times() {
            self.share = times.since(&self.earlier).unwrap_or(self.share);
            self.earlier = times;
        }
        let memory = platform::memory().unwrap_or_default();
        let (disk_bytes, disk_used_bytes) = self.disk;
        v1::Usage {
            capacity: Some(v1::Resources {
                cpu_milli: self.cores * 1000,
                memory_bytes: memory.total,
                disk_bytes,
            }),
            // The share is in thousandths of all cores.
            cpu_used_milli: self.share * self.cores,
            memory_used_bytes: memory.used,
            disk_used_bytes,
            daemon_rss_bytes: self.rss,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_machine_is_measured() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let (tx, mut rx) = watch::channel(v1::Usage::default());
        let measuring = run(dir.path().to_owned(), Duration::from_millis(20), tx, state);
        let seen = async {
            let mut all = Vec::new();
            while all.len() < 3 {
                rx.changed().await.unwrap();
                all.push(*rx.borrow_and_update());
                // Something to measure.
                std::hint::black_box((0..3_000_000u64).fold(0, u64::wrapping_add));
            }
            all
        };
        let all = tokio::select! { () = measuring => unreachable!(), all = seen => all };
        let has = capacity(dir.path());
        for usage in all {
            let capacity = usage.capacity.unwrap();
            assert_eq!((capacity.cpu_milli, capacity.memory_bytes), (has.cpu_milli, has.memory));
            assert!(usage.cpu_used_milli <= capacity.cpu_milli);
            assert!(usage.memory_used_bytes > 0 && usage.disk_used_bytes <= capacity.disk_bytes);
            assert!(usage.daemon_rss_bytes > 0);
        }
    }
}
