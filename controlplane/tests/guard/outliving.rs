//! Who outlives whom: the guard its daemon, nothing its guard, and no lie a guard's death.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use controlplane::guard::{Cause, GuardError, Refusal, State};
use nix::sys::signal::Signal;

use crate::rig::{PATIENCE, POLITE, Rig, STUBBORN, busy, guard_pid, now, pid, read, send};

#[tokio::test]
async fn a_daemon_that_ends_leaves_it_running_and_the_next_one_finds_it() {
    let rig = Rig::new(true);
    let client = rig.client().await;
    let before = client
        .start(rig.script(1, STUBBORN, Some(now() + Duration::from_secs(60))))
        .await
        .unwrap();
    drop(client);
    busy(&rig).await;
    rig.lease_until(now() + Duration::from_secs(90));
    let client = rig.client_of(2).await;
    let after = client.status().await.unwrap();
    assert_eq!(
        (after.state, after.pid, after.guard),
        (State::Running, before.pid, before.guard)
    );
    // The new daemon's lease goes on from there.
    let mut view = client.view();
    let fed = view.wait_for(|v| v.status.as_ref().is_some_and(|s| s.until > before.until));
    tokio::time::timeout(PATIENCE, fed).await.unwrap().unwrap();
}

#[tokio::test]
async fn it_is_nobodys_child() {
    let rig = Rig::new(true);
    let status = rig.client().await.status().await.unwrap();
    let stat = read(format!("/proc/{}/stat", status.guard).as_ref());
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let own = std::process::id().to_string();
    let (parent, group, session) = (fields[1], fields[2], fields[3]);
    assert_ne!(parent, own);
    let guard = status.guard.to_string();
    assert_eq!(
        (group, session),
        (guard.as_str(), guard.as_str()),
        "a session of its own"
    );
    assert_eq!(
        std::fs::read_link(format!("/proc/{guard}/cwd")).unwrap().to_str(),
        Some("/")
    );
    let memory = read(format!("/proc/{guard}/status").as_ref());
    let resident = memory.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    let resident: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(resident < 16 << 10, "{resident} KiB for a process that waits");
    let mode = rig.guard_dir().join("control").metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// What a killed guard leaves: a postmaster that heeds SIGQUIT is gone by itself, whatever else there was is ended by the
/// next guard before it says anything.
#[tokio::test]
async fn a_killed_guard_is_followed_by_one_that_proves_the_end() {
    for (cgroups, script) in [(false, POLITE), (false, STUBBORN), (true, STUBBORN)] {
        let rig = Rig::new(cgroups);
        let client = rig.client().await;
        let status = client.start(rig.script(3, script, None)).await.unwrap();
        busy(&rig).await;
        send(guard_pid(&status), Signal::SIGKILL);
        if script == POLITE {
            rig.until("the guard's death is the postmaster's", || rig.running().is_empty())
                .await;
            assert_eq!(read(&rig.work().join("log")), "quit\n");
        } else {
            assert!(!rig.running().is_empty(), "nobody but the next guard ends these");
        }
        let mut view = client.view();
        let proved = view.wait_for(|v| v.status.as_ref().is_some_and(|s| s.proves_stop(3)));
        let view = tokio::time::timeout(PATIENCE, proved).await.unwrap().unwrap().clone();
        rig.assert_stopped();
        let after = view.status.unwrap();
        assert_ne!(after.guard, status.guard);
        assert_eq!(after.proof.unwrap().cause, Cause::LeftOver);
        let refused = client.start(rig.script(3, STUBBORN, None)).await;
        assert!(
            matches!(
                refused,
                Err(GuardError::Refused {
                    code: Refusal::Stale,
                    ..
                })
            ),
            "{refused:?}"
        );
        client.start(rig.script(4, STUBBORN, None)).await.unwrap();
        busy(&rig).await;
    }
}

/// Both at once: neither is there to take the backends along.
#[tokio::test]
async fn guard_and_postmaster_killed_together() {
    let rig = Rig::new(false);
    let client = rig.client().await;
    let status = client
        .start(rig.script(1, STUBBORN, Some(now() + Duration::from_secs(60))))
        .await
        .unwrap();
    busy(&rig).await;
    send(guard_pid(&status), Signal::SIGSTOP);
    send(pid(&status), Signal::SIGKILL);
    send(guard_pid(&status), Signal::SIGKILL);
    let mut view = client.view();
    let proved = view.wait_for(|v| v.status.as_ref().is_some_and(|s| s.proves_stop(1)));
    tokio::time::timeout(PATIENCE, proved).await.unwrap().unwrap();
    rig.assert_stopped();
}

#[tokio::test]
async fn one_guard_a_group() {
    let rig = Rig::new(true);
    let client = rig.client().await;
    let status = client.start(rig.script(1, STUBBORN, None)).await.unwrap();
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_had"))
        .args(["guard", "main", "--state-dir"])
        .arg(rig.state_dir())
        .output()
        .unwrap();
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(
        !second.status.success() && said.contains("another guard of this group runs already"),
        "{said}"
    );
    let after = client.status().await.unwrap();
    assert_eq!((after.guard, after.pid), (status.guard, status.pid));
    for name in ["", "..", "a/b", "-x", "a b"] {
        let out = std::process::Command::new(env!("CARGO_BIN_EXE_had"))
            .args(["guard", "--state-dir"])
            .arg(rig.state_dir())
            .args(["--", name])
            .output()
            .unwrap();
        assert!(!out.status.success(), "{name:?}");
    }
}

#[tokio::test]
async fn a_damaged_record_is_not_guessed() {
    let rig = Rig::new(true);
    let client = rig.client().await;
    client.start(rig.script(1, "exit 0", None)).await.unwrap();
    drop(client);
    for guard in rig.guards() {
        send(guard, Signal::SIGTERM);
    }
    rig.until("the guard ends", || rig.guards().is_empty()).await;
    std::fs::write(rig.guard_dir().join("record"), "{").unwrap();
    let client = controlplane::guard::Client::attach(rig.options(2));
    let mut view = client.view();
    let told = view.wait_for(|v| v.detached.as_ref().is_some_and(|why| why.contains("record is damaged")));
    tokio::time::timeout(PATIENCE, told).await.unwrap().unwrap();
}

/// A socket's path has at most 107 bytes; a directory's has not.
#[tokio::test]
async fn a_deep_state_directory() {
    let outer = tempfile::Builder::new().prefix(&"deep".repeat(40)).tempdir().unwrap();
    let rig = Rig::in_dir(true, outer);
    let client = rig.client().await;
    client.start(rig.script(1, STUBBORN, None)).await.unwrap();
    busy(&rig).await;
}

/// A guard that does not answer is told from one that does, and heard again when it wakes.
#[tokio::test]
async fn a_frozen_guard_is_noticed() {
    let rig = Rig::new(true);
    let client = rig.client().await;
    let status = client.start(rig.script(1, STUBBORN, None)).await.unwrap();
    send(guard_pid(&status), Signal::SIGSTOP);
    let mut view = client.view();
    let noticed = view.wait_for(|v| v.detached.is_some());
    tokio::time::timeout(PATIENCE, noticed).await.unwrap().unwrap();
    assert!(client.status().await.is_err(), "and calls end");
    send(guard_pid(&status), Signal::SIGCONT);
    let after = client.attached(PATIENCE).await.unwrap();
    assert_eq!((after.guard, after.pid), (status.guard, status.pid));
}
