//! Stops that are asked for, and those that nobody asked for.

use std::time::Duration;

use controlplane::guard::{Cause, GuardError, Refusal, State, Stop};
use nix::sys::signal::Signal;

use crate::rig::{PATIENCE, POLITE, Rig, STUBBORN, busy, guard_pid, now, pid, read, send};

#[tokio::test]
async fn a_fast_stop_asks_and_a_stubborn_tree_is_killed() {
    for (script, said) in [(POLITE, "fast\n"), (STUBBORN, "")] {
        let rig = Rig::new(true);
        let client = rig.client().await;
        client.start(rig.script(7, script, None)).await.unwrap();
        busy(&rig).await;
        let stale = client.stop(Stop::immediate(6)).await;
        assert!(
            matches!(
                stale,
                Err(GuardError::Refused {
                    code: Refusal::Stale,
                    ..
                })
            ),
            "{stale:?}"
        );
        let stop = Stop {
            incarnation: 7,
            fast_ms: Some(if said.is_empty() { 300 } else { 60_000 }),
            quit_ms: 300,
        };
        let proof = client.stopped(stop, PATIENCE).await.unwrap();
        rig.assert_stopped();
        assert_eq!((proof.incarnation, proof.cause), (7, Cause::Asked));
        assert_eq!(proof.exit.unwrap().is_clean(), !said.is_empty());
        assert_eq!(read(&rig.work().join("log")), said);
        // Asked again it is as good as done.
        assert_eq!(client.stopped(stop, PATIENCE).await.unwrap(), proof);
    }
}

/// A dead postmaster proves nothing: its backends go on committing, each in a session of its own.
#[tokio::test]
async fn backends_that_outlive_their_postmaster_are_ended_before_the_proof() {
    for cgroups in [false, true] {
        let rig = Rig::new(cgroups);
        let client = rig.client().await;
        let status = client.start(rig.script(1, STUBBORN, None)).await.unwrap();
        busy(&rig).await;
        assert!(rig.running().len() > 4);
        send(pid(&status), Signal::SIGKILL);
        let mut view = client.view();
        let stopped = view.wait_for(|v| v.status.as_ref().is_some_and(|s| s.proves_stop(1)));
        let view = tokio::time::timeout(PATIENCE, stopped).await.unwrap().unwrap().clone();
        rig.assert_stopped();
        let proof = view.status.unwrap().proof.unwrap();
        assert_eq!(proof.cause, Cause::Died);
        assert_eq!(proof.exit.unwrap().signal, Some(9));
    }
}

/// Protocol R10: nothing is started again but by a newer order, whoever repeats an old one.
#[tokio::test]
async fn an_old_order_starts_nothing() {
    let rig = Rig::new(true);
    let client = rig.client().await;
    client.start(rig.script(5, "exit 3", None)).await.unwrap();
    let mut view = client.view();
    let stopped = view.wait_for(|v| v.status.as_ref().is_some_and(|s| s.proves_stop(5)));
    tokio::time::timeout(PATIENCE, stopped).await.unwrap().unwrap();
    for old in [5, 4, 0] {
        let refused = client.start(rig.script(old, STUBBORN, None)).await;
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
    }
    let status = client.start(rig.script(6, STUBBORN, None)).await.unwrap();
    assert_eq!((status.state, status.incarnation), (State::Running, 6));
    assert!(!status.proves_stop(5), "what runs now is not the proof of anything");
    let refused = client.start(rig.script(7, STUBBORN, None)).await;
    assert!(
        matches!(
            refused,
            Err(GuardError::Refused {
                code: Refusal::Running,
                ..
            })
        ),
        "{refused:?}"
    );
}

#[tokio::test]
async fn what_cannot_be_started_leaves_nothing_and_says_so() {
    let rig = Rig::new(true);
    let client = rig.client().await;
    let mut start = rig.script(1, "", None);
    start.program = rig.work().join("none");
    let Err(GuardError::Refused { code, why }) = client.start(start).await else {
        panic!("it was started");
    };
    assert!(code == Refusal::Failed && why.contains("work/none"), "{why}");
    let mut start = rig.script(2, "", None);
    start.cwd = rig.work().join("none");
    assert!(client.start(start).await.is_err());
    let status = client.status().await.unwrap();
    assert!(status.state == State::Idle && status.proves_stop(2), "{status:?}");
    client.start(rig.script(3, STUBBORN, None)).await.unwrap();
}

#[tokio::test]
async fn sigterm_to_the_guard_is_a_fast_stop() {
    let rig = Rig::new(true);
    let client = rig.client().await;
    let until = now() + Duration::from_secs(60);
    let status = client.start(rig.script(1, POLITE, Some(until))).await.unwrap();
    busy(&rig).await;
    drop(client);
    send(guard_pid(&status), Signal::SIGTERM);
    rig.until("the guard ends", || rig.guards().is_empty()).await;
    rig.assert_stopped();
    assert_eq!(read(&rig.work().join("log")), "fast\n");
    // The next one knows of it.
    let client = rig.client_of(2).await;
    let status = client.status().await.unwrap();
    assert_eq!(status.proof.unwrap().cause, Cause::Terminated);
}

#[tokio::test]
async fn a_guard_quits_only_when_nothing_runs() {
    let rig = Rig::new(true);
    let client = rig.client().await;
    client.start(rig.script(1, STUBBORN, None)).await.unwrap();
    let refused = client.quit().await;
    assert!(
        matches!(
            refused,
            Err(GuardError::Refused {
                code: Refusal::Running,
                ..
            })
        ),
        "{refused:?}"
    );
    // The daemon before has ended: while it lived it would start another guard.
    drop(client);
    let client = rig.client_of(2).await;
    client.stopped(Stop::immediate(1), PATIENCE).await.unwrap();
    client.quit().await.unwrap();
    rig.until("the guard ends", || rig.guards().is_empty()).await;
    // No other is started in its place.
    assert!(matches!(client.status().await, Err(GuardError::Unreachable(_))));
    assert!(rig.guards().is_empty());
}

/// The disk is full: what could not be noted is not started, for the next guard would not know of it.
#[tokio::test]
async fn without_a_record_nothing_is_started() {
    let rig = Rig::new(true);
    let client = rig.client().await;
    // In the way of the new record, for root as well.
    let obstacle = rig.guard_dir().join("record.new");
    std::fs::create_dir(&obstacle).unwrap();
    let refused = client.start(rig.script(1, STUBBORN, None)).await;
    assert!(
        matches!(
            refused,
            Err(GuardError::Refused {
                code: Refusal::Record,
                ..
            })
        ),
        "{refused:?}"
    );
    rig.assert_stopped();
    std::fs::remove_dir(&obstacle).unwrap();
    client.start(rig.script(1, STUBBORN, None)).await.unwrap();
    // A disk that fails later keeps nothing from being stopped.
    std::fs::create_dir(&obstacle).unwrap();
    client.stopped(Stop::immediate(1), PATIENCE).await.unwrap();
    rig.assert_stopped();
    std::fs::remove_dir(&obstacle).unwrap();
}
