//! What the machine has and uses. On Linux read from `/proc` directly: it is asked for twice a second for ever, and a
//! general library's refresh costs many times as much.

use std::io;
use std::path::Path;

/// Processor time since boot, all cores together, in the kernel's ticks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuTimes {
    /// Spent on something.
    pub busy: u64,
    /// Spent, idle time included.
    pub total: u64,
}

impl CpuTimes {
    /// Share of the processors in use since `earlier`, in thousandths of all cores; `None` if no time has passed.
    pub fn since(&self, earlier: &CpuTimes) -> Option<u64> {
        let total = self.total.checked_sub(earlier.total).filter(|t| *t > 0)?;
        // Idle time may run backwards a little on some kernels.
        let busy = self.busy.saturating_sub(earlier.busy).min(total);
        Some(busy * 1000 / total)
    }
}

/// Memory in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Installed.
    pub total: u64,
    /// Not available to a new process.
    pub used: u64,
}

#[cfg(target_os = "linux")]
mod system {
    use super::{CpuTimes, Memory};
    use std::io::{self, Read as _};

    /// Reads the beginning of a file of `/proc`.
    fn head<const N: usize>(path: &str) -> io::Result<String> {
        let mut buffer = [0; N];
        let mut length = 0;
        let mut file = std::fs::File::open(path)?;
        while length < N {
            match file.read(&mut buffer[length..])? {
                0 => break,
                n => length += n,
            }
        }
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }

    pub(super) fn cpu_line(line: &str) -> Option<CpuTimes> {
        let mut fields = line.strip_prefix("cpu ")?.split_ascii_whitespace();
        // user nice system idle iowait irq softirq steal; guest time is in user already.
        let mut ticks = [0u64; 8];
        for (tick, field) in ticks.iter_mut().zip(&mut fields) {
            *tick = field.parse().ok()?;
        }
        let total = ticks.iter().sum();
        Some(CpuTimes {
            busy: total - ticks[3] - ticks[4],
            total,
        })
    }

    pub(super) fn kilobytes(text: &str, key: &str) -> Option<u64> {
        let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
    }

    fn unreadable(what: &str) -> io::Error {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{what} has another form than expected"),
        )
    }

    pub(super) fn cpu_times() -> io::Result<CpuTimes> {
        let text = head::<256>("/proc/stat")?;
        text.lines()
            .next()
            .and_then(cpu_line)
            .ok_or_else(|| unreadable("/proc/stat"))
    }

    pub(super) fn memory() -> io::Result<Memory> {
        let text = head::<512>("/proc/meminfo")?;
        let total = kilobytes(&text, "MemTotal").ok_or_else(|| unreadable("/proc/meminfo"))?;
        let available = kilobytes(&text, "MemAvailable")
            .or_else(|| kilobytes(&text, "MemFree"))
            .unwrap_or(0);
        Ok(Memory {
            total,
            used: total.saturating_sub(available),
        })
    }

    pub(super) fn daemon_rss() -> io::Result<u64> {
        let text = head::<4096>("/proc/self/status")?;
        kilobytes(&text, "VmRSS").ok_or_else(|| unreadable("/proc/self/status"))
    }

    pub(super) fn cores() -> Option<usize> {
        let stat = std::fs::read_to_string("/proc/stat").ok()?;
        let is_core = |l: &&str| {
            l.strip_prefix("cpu")
                .is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit()))
        };
        Some(
            stat.lines()
                .take_while(|l| l.starts_with("cpu"))
                .filter(is_core)
                .count(),
        )
        .filter(|n| *n > 0)
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use super::{CpuTimes, Memory};
    use std::io;
    use std::sync::{Mutex, PoisonError};

    use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};

    /// The library remembers one call to the next, so it has to be kept.
    static KEPT: Mutex<Option<System>> = Mutex::new(None);

    fn with<T>(f: impl FnOnce(&mut System) -> T) -> io::Result<T> {
        let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.is_none() {
            *kept = Some(System::new().map_err(io::Error::other)?);
        }
        match kept.as_mut() {
            Some(system) => Ok(f(system)),
            None => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Windows counts time itself. The library would ask the performance counters, which are often switched off or
    /// damaged, and which Wine does not have.
    #[cfg(windows)]
    pub(super) fn cpu_times() -> io::Result<CpuTimes> {
        /// Units of 100 ns, the low half first.
        type FileTime = [u32; 2];
        #[link(name = "kernel32")]
        #[allow(unsafe_code)]
        unsafe extern "system" {
            fn GetSystemTimes(idle: *mut FileTime, kernel: *mut FileTime, user: *mut FileTime) -> i32;
        }
        let (mut idle, mut kernel, mut user) = (FileTime::default(), FileTime::default(), FileTime::default());
        // SAFETY: the three pointers lead to variables of the size and alignment of a FILETIME, which outlive the call.
        #[allow(unsafe_code)]
        let done = unsafe { GetSystemTimes(&raw mut idle, &raw mut kernel, &raw mut user) };
        if done == 0 {
            return Err(io::Error::last_os_error());
        }
        let number = |[low, high]: FileTime| u64::from(high) << 32 | u64::from(low);
        // The kernel's time includes the idle time.
        let total = number(kernel).saturating_add(number(user));
        Ok(CpuTimes {
            busy: total.saturating_sub(number(idle)),
            total,
        })
    }

    #[cfg(not(windows))]
    pub(super) fn cpu_times() -> io::Result<CpuTimes> {
        static TIMES: Mutex<CpuTimes> = Mutex::new(CpuTimes { busy: 0, total: 0 });
        let share = with(|system| {
            system.refresh_cpu_usage();
            f64::from(system.global_cpu_usage().clamp(0.0, 100.0))
        })?;
        let mut times = TIMES.lock().unwrap_or_else(PoisonError::into_inner);
        // Each call counts as a hundred thousand ticks: only the share matters.
        times.busy += (share * 1000.0) as u64;
        times.total += 100_000;
        Ok(*times)
    }

    pub(super) fn memory() -> io::Result<Memory> {
        with(|system| {
            system.refresh_memory();
            let total = system.total_memory();
            Memory {
                total,
                used: total.saturating_sub(system.available_memory()),
            }
        })
    }

    pub(super) fn daemon_rss() -> io::Result<u64> {
        let me = sysinfo::get_current_pid().map_err(io::Error::other)?;
        with(|system| {
            let what = ProcessRefreshKind::nothing().with_memory();
            system.refresh_processes_specifics(ProcessesToUpdate::Some(&[me]), true, what);
            system.process(me).map_or(0, sysinfo::Process::memory)
        })
    }

    pub(super) fn cores() -> Option<usize> {
        None
    }
}

/// Processor time so far.
///
/// # Errors
/// If the system does not tell.
pub fn cpu_times() -> io::Result<CpuTimes> {
    system::cpu_times()
}

/// The machine's memory.
///
/// # Errors
/// If the system does not tell.
pub fn memory() -> io::Result<Memory> {
    system::memory()
}

/// Resident memory of this process, in bytes.
///
/// # Errors
/// If the system does not tell.
pub fn daemon_rss() -> io::Result<u64> {
    system::daemon_rss()
}

/// Cores of the machine, whatever share of them this process may use itself.
pub fn cores() -> usize {
    system::cores()
        .or_else(|| std::thread::available_parallelism().ok().map(usize::from))
        .unwrap_or(1)
}

/// Size of the file system that holds `path` and how much of it is used, in bytes. May block where a server is silent.
///
/// # Errors
/// If the path cannot be looked at.
#[cfg(unix)]
pub fn disk(path: &Path) -> io::Result<(u64, u64)> {
    let s = nix::sys::statvfs::statvfs(path)?;
    // The types differ from one Unix to the next.
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
    let (unit, blocks, free) = (s.fragment_size() as u64, s.blocks() as u64, s.blocks_free() as u64);
    Ok((
        blocks.saturating_mul(unit),
        blocks.saturating_sub(free).saturating_mul(unit),
    ))
}

/// Size of the volume that holds `path` and how much of it is used, in bytes. May block where a server is silent.
///
/// # Errors
/// If the path cannot be looked at.
#[cfg(windows)]
pub fn disk(path: &Path) -> io::Result<(u64, u64)> {
    let path = path.canonicalize()?;
    let text = path.to_string_lossy().to_lowercase();
    let text = text.strip_prefix(r"\\?\").unwrap_or(&text);
    let disks = sysinfo::Disks::new_with_refreshed_list().map_err(io::Error::other)?;
    let holds = |d: &&sysinfo::Disk| text.starts_with(&d.mount_point().to_string_lossy().to_lowercase());
    let disk = disks
        .iter()
        .filter(holds)
        .max_by_key(|d| d.mount_point().as_os_str().len());
    let disk = disk.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no volume holds it"))?;
    Ok((
        disk.total_space(),
        disk.total_space().saturating_sub(disk.available_space()),
    ))
}

/// Bytes that an ordinary account can still write to the volume that holds `path`.
///
/// # Errors
/// If the path cannot be looked at.
#[cfg(unix)]
pub fn available(path: &Path) -> io::Result<u64> {
    let s = nix::sys::statvfs::statvfs(path)?;
    // The types differ from one Unix to the next.
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
    let (unit, blocks) = (s.fragment_size() as u64, s.blocks_available() as u64);
    Ok(blocks.saturating_mul(unit))
}

/// Bytes that can still be written to the volume that holds `path`.
///
/// # Errors
/// If the path cannot be looked at.
#[cfg(windows)]
pub fn available(path: &Path) -> io::Result<u64> {
    disk(path).map(|(total, used)| total.saturating_sub(used))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares() {
        let a = CpuTimes { busy: 10, total: 100 };
        assert_eq!(CpuTimes { busy: 35, total: 200 }.since(&a), Some(250));
        assert_eq!(CpuTimes { busy: 5, total: 200 }.since(&a), Some(0));
        assert_eq!(a.since(&a), None);
        assert_eq!(CpuTimes::default().since(&a), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn proc_is_read() {
        let line = "cpu  100 1 50 800 20 3 4 5 60 0";
        assert_eq!(system::cpu_line(line), Some(CpuTimes { busy: 163, total: 983 }));
        assert_eq!(system::cpu_line("cpu0 1 2 3"), None);
        assert_eq!(system::cpu_line("cpu  x"), None);
        let info = "MemTotal:       16 kB\nMemFree: 4 kB\nMemAvailable:   8 kB\n";
        assert_eq!(system::kilobytes(info, "MemAvailable"), Some(8192));
        assert_eq!(system::kilobytes(info, "Mem"), None);
    }

    #[test]
    fn this_machine_has_something() {
        let times = cpu_times().unwrap();
        assert!(times.total > times.busy);
        let memory = memory().unwrap();
        assert!(memory.total > memory.used && memory.used > 0);
        assert!(daemon_rss().unwrap() > 1 << 20);
        assert!(cores() > 0);
        let dir = tempfile::tempdir().unwrap();
        let (total, used) = disk(dir.path()).unwrap();
        assert!(total >= used && total > 0);
    }
}
