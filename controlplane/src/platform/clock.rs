//! Two clocks: one that never jumps and counts suspended time, for leases; one that people read.

use std::time::Duration;

/// Where time comes from. The simulation has its own.
pub trait Clock: Send + Sync + 'static {
    /// Time since boot, suspended time included (CLOCK_BOOTTIME). Leases and deadlines are on this clock only.
    fn boottime(&self) -> Duration;
    /// Wall-clock time in milliseconds since 1970-01-01 UTC, for people and records; it may jump.
    fn wall_ms(&self) -> i64;
}

/// The machine's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[cfg(target_os = "linux")]
    fn boottime(&self) -> Duration {
        use nix::time::{ClockId, clock_gettime};
        // CLOCK_BOOTTIME exists on every kernel Rust supports; the fallback keeps the type total.
        clock_gettime(ClockId::CLOCK_BOOTTIME)
            .map(Duration::from)
            .unwrap_or_default()
    }

    /// Milliseconds since the machine's start, suspended time included: the same for all processes, as deadlines pass
    /// from one to another.
    #[cfg(windows)]
    fn boottime(&self) -> Duration {
        #[link(name = "kernel32")]
        #[allow(unsafe_code)]
        unsafe extern "system" {
            safe fn GetTickCount64() -> u64;
        }
        Duration::from_millis(GetTickCount64())
    }

    #[cfg(not(any(target_os = "linux", windows)))]
    fn boottime(&self) -> Duration {
        use std::sync::OnceLock;
        use std::time::Instant;
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed() + Duration::from_secs(1)
    }

    fn wall_ms(&self) -> i64 {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
    }
}
