//! A lease that runs out stops everything, and one that is kept stops nothing.

use std::time::Duration;

use controlplane::guard::{Cause, Event, FURTHEST, GuardError, QUIT_BEFORE, Refusal, State};
use nix::sys::signal::Signal;

use crate::rig::{PATIENCE, POLITE, Rig, STUBBORN, busy, guard_pid, now, read, send};

async fn a_lease_that_ends(cgroups: bool, script: &str) -> Rig {
    let rig = Rig::new(cgroups);
    let client = rig.client().await;
    let mut notices = client.notices();
    let until = now() + Duration::from_millis(1500);
    client.start(rig.script(1, script, Some(until))).await.unwrap();
    busy(&rig).await;
    let mut seen = Vec::new();
    while seen.last() != Some(&Event::Stopped) {
        let notice = tokio::time::timeout(PATIENCE, notices.recv()).await.unwrap().unwrap();
        if seen.is_empty() {
            assert!(now() >= until - QUIT_BEFORE, "stopped before its time");
            assert_eq!(notice.status.cause, Some(Cause::LeaseOver));
        }
        if notice.event == Event::Stopped {
            rig.assert_stopped();
            assert!(notice.status.proves_stop(1));
            assert!(!notice.status.proves_stop(2));
        }
        seen.push(notice.event);
    }
    assert_eq!(seen, [Event::Stopping, Event::Exited, Event::Stopped]);
    let status = client.status().await.unwrap();
    assert_eq!((status.state, status.until), (State::Idle, None));
    let proof = status.proof.unwrap();
    assert_eq!((proof.incarnation, proof.cause), (1, Cause::LeaseOver));
    rig
}

#[tokio::test]
async fn the_end_of_a_lease_ends_backends_that_ignore_everything() {
    a_lease_that_ends(false, STUBBORN).await;
}

#[tokio::test]
async fn the_end_of_a_lease_ends_a_control_group() {
    a_lease_that_ends(true, STUBBORN).await;
}

#[tokio::test]
async fn a_postmaster_is_asked_first() {
    let rig = a_lease_that_ends(true, POLITE).await;
    assert_eq!(
        read(&rig.work().join("log")),
        "quit\n",
        "SIGQUIT, and nothing before it"
    );
}

#[tokio::test]
async fn heartbeats_keep_it_running() {
    let rig = Rig::new(true);
    let client = rig.client().await;
    let first = now() + Duration::from_millis(1500);
    client.start(rig.script(1, POLITE, Some(first))).await.unwrap();
    // As long as the lease moves on, the deadlines that were do not matter.
    while now() < first + Duration::from_millis(1500) {
        rig.lease_until(now() + Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let status = client.status().await.unwrap();
    assert_eq!((status.state, status.incarnation), (State::Running, 1));
    // A lease that goes backwards is none.
    let until = status.until.unwrap();
    rig.lease_until(now());
    client.granted(now());
    assert!(client.status().await.unwrap().until.unwrap() >= until);
    // Grants count as the lease does.
    client.granted(now() + Duration::from_secs(60));
    let mut view = client.view();
    let grown = view.wait_for(|v| v.status.as_ref().and_then(|s| s.until).is_some_and(|u| u > until));
    tokio::time::timeout(PATIENCE, grown).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_standby_needs_no_lease_until_it_is_armed() {
    let rig = Rig::new(true);
    let client = rig.client().await;
    let status = client.start(rig.script(1, STUBBORN, None)).await.unwrap();
    assert_eq!((status.until, status.left_ms), (None, None));
    // The node's lease moves on, and ends; neither concerns it.
    rig.lease_until(now() + Duration::from_millis(200));
    busy(&rig).await;
    rig.until("that lease is over", || {
        rig.lease
            .borrow()
            .until
            .is_some_and(|until| now() > until + Duration::from_millis(100))
    })
    .await;
    assert_eq!(client.status().await.unwrap().state, State::Running);
    let refused = client.arm(2, now() + Duration::from_secs(30)).await;
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
    let refused = client.arm(1, now() + Duration::from_millis(100)).await;
    assert!(
        matches!(
            refused,
            Err(GuardError::Refused {
                code: Refusal::Lease,
                ..
            })
        ),
        "{refused:?}"
    );
    let status = client.arm(1, now() + Duration::from_millis(700)).await.unwrap();
    assert!(status.until.is_some());
    rig.until("its lease is over", || rig.running().is_empty()).await;
    let mut view = client.view();
    let stopped = view.wait_for(|v| v.status.as_ref().is_some_and(|s| s.proves_stop(1)));
    tokio::time::timeout(PATIENCE, stopped).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_lease_that_cannot_be_starts_nothing() {
    let rig = Rig::new(true);
    let client = rig.client().await;
    for until in [now(), now() + QUIT_BEFORE, now() + FURTHEST * 2] {
        let refused = client.start(rig.script(1, STUBBORN, Some(until))).await;
        assert!(
            matches!(
                refused,
                Err(GuardError::Refused {
                    code: Refusal::Lease,
                    ..
                })
            ),
            "{refused:?}"
        );
    }
    assert_eq!(client.status().await.unwrap().incarnation, 0, "nothing was used up");
    rig.assert_stopped();
}

/// The node was frozen past its lease: the guard's first thought is the deadline.
#[tokio::test]
async fn a_guard_that_was_frozen_acts_when_it_wakes() {
    let rig = Rig::new(true);
    let client = rig.client().await;
    let until = now() + Duration::from_millis(1500);
    let status = client.start(rig.script(1, STUBBORN, Some(until))).await.unwrap();
    busy(&rig).await;
    send(guard_pid(&status), Signal::SIGSTOP);
    rig.until("the deadline is over", || now() > until + Duration::from_millis(300))
        .await;
    assert!(!rig.running().is_empty(), "nobody else stops it");
    send(guard_pid(&status), Signal::SIGCONT);
    let mut view = client.view();
    let stopped = view.wait_for(|v| v.status.as_ref().is_some_and(|s| s.proves_stop(1)));
    let view = tokio::time::timeout(PATIENCE, stopped).await.unwrap().unwrap().clone();
    rig.assert_stopped();
    assert_eq!(view.status.unwrap().proof.unwrap().cause, Cause::LeaseOver);
}

/// Everything of the node was frozen and goes on, the tree before the guard.
#[tokio::test]
async fn a_frozen_tree_is_killed() {
    let rig = Rig::new(false);
    let client = rig.client().await;
    let until = now() + Duration::from_millis(1500);
    client.start(rig.script(1, STUBBORN, Some(until))).await.unwrap();
    busy(&rig).await;
    for pid in rig.running() {
        send(pid, Signal::SIGSTOP);
    }
    let mut view = client.view();
    let stopped = view.wait_for(|v| v.status.as_ref().is_some_and(|s| s.proves_stop(1)));
    tokio::time::timeout(PATIENCE, stopped).await.unwrap().unwrap();
    rig.assert_stopped();
}
