//! What other processes of the machine are: whose children, with which title, started when.
//!
//! Numbers of processes are used again, so a number alone is never a reason to signal one.

use std::path::PathBuf;

/// When a process started, in a unit of the operating system's; with the number it tells one process from all others of
/// this boot. `None` if there is none, or if the system does not say.
pub fn process_start(pid: u32) -> Option<u64> {
    stat(pid)?.split_whitespace().nth(19)?.parse().ok()
}

/// The parent of a process.
pub fn process_parent(pid: u32) -> Option<u32> {
    stat(pid)?.split_whitespace().nth(1)?.parse().ok()
}

/// What follows the program's name in `/proc/<pid>/stat`: state, parent, … The name may hold anything.
fn stat(pid: u32) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.to_owned())
}

/// The directory a process works in.
pub fn working_dir(pid: u32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/cwd")).ok()
}

/// The children of a process with their titles (the command line, arguments divided by spaces). Empty where the
/// operating system does not say.
pub fn children(parent: u32) -> Vec<(u32, String)> {
    // The kernel's own lists, one for each thread, where it keeps them; a look at every process otherwise.
    let listed = || -> Option<Vec<u32>> {
        let mut all = Vec::new();
        for thread in std::fs::read_dir(format!("/proc/{parent}/task")).ok()?.flatten() {
            let list = std::fs::read_to_string(thread.path().join("children")).ok()?;
            all.extend(list.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
        Some(all)
    };
    let pids = listed().unwrap_or_else(|| {
        let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        all.filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
    });
    pids.into_iter()
        .filter(|pid| process_parent(*pid) == Some(parent))
        .filter_map(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            Some((pid, line.trim_end().to_owned()))
        })
        .collect()
}

/// Asks a process to end. The caller has made sure of what it is.
#[cfg(unix)]
pub fn terminate(pid: u32) {
    signal(pid, nix::sys::signal::Signal::SIGTERM);
}

/// Asks a process to read its configuration again. The caller has made sure of what it is.
#[cfg(unix)]
pub fn hang_up(pid: u32) {
    signal(pid, nix::sys::signal::Signal::SIGHUP);
}

#[cfg(unix)]
fn signal(pid: u32, signal: nix::sys::signal::Signal) {
    if let Some(pid) = i32::try_from(pid).ok().filter(|p| *p > 1) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal);
    }
}

/// Windows has no such request.
#[cfg(windows)]
pub fn terminate(_: u32) {}

/// Windows has no such request.
#[cfg(windows)]
pub fn hang_up(_: u32) {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_found_by_its_parent() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let own = std::process::id();
        assert!(process_start(child.id()) >= process_start(own));
        assert_eq!(process_parent(child.id()), Some(own));
        assert_eq!(working_dir(child.id()), std::env::current_dir().ok());
        // Between fork and exec the child still has its parent's title.
        for _ in 0..500 {
            if children(own).contains(&(child.id(), "sleep 60".to_owned())) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(children(own).contains(&(child.id(), "sleep 60".to_owned())));
        terminate(child.id());
        assert!(!child.wait().unwrap().success());
        assert_eq!(process_start(child.id()), None);
    }
}
