//! What outlives the daemons on purpose: the guards of databases, and the servers below them. When a playground ends, they
//! end with it.
//!
//! They are known by what nobody else's processes have: a guard runs the copy of `had` in this playground's directory, and a
//! server works in a directory below it.

use std::path::Path;
use std::time::{Duration, Instant};

use super::place::Place;
use super::system::Process;

/// Longest time for a fast stop of the servers.
const FAST: Duration = Duration::from_secs(4);
/// Longest time for what was killed to be gone.
const KILLED: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(20);

/// Process ids of everything that still runs.
fn left(place: &Place) -> (Vec<u32>, Vec<u32>) {
    let had = place.bin().join("had");
    let data = place.data("");
    let (mut guards, mut servers) = (Vec::new(), Vec::new());
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return (guards, servers);
    };
    for entry in entries.filter_map(Result::ok) {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let link = |name: &str| std::fs::read_link(entry.path().join(name)).ok();
        let Some(exe) = link("exe") else { continue };
        if exe == had {
            guards.push(pid);
        } else if is_server(&exe) && link("cwd").is_some_and(|cwd| cwd.starts_with(&data)) {
            servers.push(pid);
        }
    }
    (guards, servers)
}

fn is_server(exe: &Path) -> bool {
    exe.file_name().is_some_and(|name| name == "postgres")
}

/// Ends them: first as a guard is told to by whoever stops its unit, then by force. The daemons have ended before.
pub(super) async fn end(place: &Place) {
    let (guards, _) = left(place);
    if guards.is_empty() {
        return kill(place);
    }
    for pid in guards {
        Process::now(pid).terminate();
    }
    let deadline = Instant::now() + FAST;
    while left(place) != (Vec::new(), Vec::new()) {
        if Instant::now() >= deadline {
            return kill(place);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Kills what is left and waits until it is gone. Servers first: a guard would take the death of its server for a crash.
pub(super) fn kill(place: &Place) {
    let deadline = Instant::now() + KILLED;
    loop {
        let (guards, servers) = left(place);
        if (guards.is_empty() && servers.is_empty()) || Instant::now() >= deadline {
            return;
        }
        for pid in servers.into_iter().chain(guards) {
            Process::now(pid).kill();
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_guard_that_outlived_its_daemon_ends_with_the_playground() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::find(Some(&dir.path().canonicalize().unwrap()), false).unwrap();
        std::fs::create_dir_all(place.bin()).unwrap();
        std::fs::create_dir_all(place.data("n1")).unwrap();
        let had = place.bin().join("had");
        let server = dir.path().join("postgres");
        for copy in [&had, &server] {
            std::fs::copy("/bin/sleep", copy).unwrap();
        }
        let mut guard = std::process::Command::new(&had).arg("1000").spawn().unwrap();
        let mut below = std::process::Command::new(&server)
            .arg("1000")
            .current_dir(place.data("n1"))
            .spawn()
            .unwrap();
        let mut elsewhere = std::process::Command::new(&server)
            .arg("1000")
            .current_dir("/")
            .spawn()
            .unwrap();
        let reaped = tokio::task::spawn_blocking(move || (guard.wait().unwrap(), below.wait().unwrap()));
        end(&place).await;
        let (guard, below) = reaped.await.unwrap();
        let lives = elsewhere.try_wait().unwrap().is_none();
        elsewhere.kill().unwrap();
        elsewhere.wait().unwrap();
        use std::os::unix::process::ExitStatusExt as _;
        assert_eq!(guard.signal(), Some(15), "asked before it was killed");
        assert!(below.signal().is_some());
        assert!(lives, "what works elsewhere is somebody else's");
    }
}
