//! The arithmetic of a stop, driven by hand and at random.

use super::*;
use proptest::prelude::*;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn running(deadline: u64) -> Machine {
    let mut m = Machine::new();
    m.started(Some(ms(deadline)));
    m
}

#[test]
fn a_deadline_quits_before_and_kills_after() {
    let mut m = running(10_000);
    assert_eq!(m.wake(), Some(ms(9850)));
    assert_eq!(m.step(ms(9849)), None);
    assert_eq!(m.step(ms(9850)), Some(Order::Quit));
    assert_eq!(m.step(ms(9850)), None);
    assert_eq!(m.wake(), Some(ms(10_050)));
    assert!(!m.extend(ms(9900), ms(20_000)), "a stop is not taken back");
    assert_eq!(m.step(ms(10_049)), None);
    assert_eq!(m.step(ms(10_050)), Some(Order::Kill));
    assert_eq!(m.step(ms(10_050)), None);
    // It is repeated until the tree is empty, more and more seldom.
    assert_eq!(m.step(ms(10_055)), Some(Order::Kill));
    m.reaped(ms(10_056));
    assert_eq!(m.step(ms(10_056)), Some(Order::Kill));
    assert_eq!(m.stop_began(), Some((Cause::LeaseOver, ms(9850))));
    m.emptied();
    assert!(m.is_idle() && m.wake().is_none() && m.step(ms(99_999)).is_none());
}

#[test]
fn a_guard_that_comes_late_kills_no_later() {
    let mut m = running(10_000);
    assert_eq!(m.step(ms(10_030)), Some(Order::Quit));
    assert_eq!(m.wake(), Some(ms(10_050)));
    // Frozen beyond everything: the kill is the first thing.
    let mut m = running(10_000);
    assert_eq!(m.step(ms(60_000)), Some(Order::Kill));
}

#[test]
fn deadlines_only_grow_and_not_without_bounds() {
    let mut m = running(10_000);
    assert!(!m.extend(ms(0), ms(9000)));
    assert!(!m.extend(ms(0), ms(200_000)));
    assert!(m.extend(ms(0), ms(11_000)));
    assert_eq!(m.deadline(), Some(ms(11_000)));
    assert_eq!(m.step(ms(10_849)), None);
}

#[test]
fn without_a_lease_it_runs_until_one_is_asked_for() {
    let mut m = Machine::new();
    m.started(None);
    assert_eq!((m.step(ms(1 << 40)), m.wake()), (None, None));
    assert!(m.extend(ms(1000), ms(3000)));
    assert_eq!(m.step(ms(2850)), Some(Order::Quit));
}

#[test]
fn a_fast_stop_becomes_harder() {
    let mut m = running(60_000);
    let limits = Limits {
        fast: Some(ms(5000)),
        quit: ms(1000),
    };
    m.stop(ms(100), limits, Cause::Asked);
    assert_eq!(m.wake(), Some(Duration::ZERO));
    assert_eq!(m.step(ms(100)), Some(Order::Interrupt));
    assert_eq!(m.step(ms(101)), None);
    assert_eq!(m.wake(), Some(ms(5100)));
    assert_eq!(m.step(ms(5100)), Some(Order::Quit));
    assert_eq!(m.step(ms(6100)), Some(Order::Kill));
    assert_eq!(m.stop_began(), Some((Cause::Asked, ms(100))));
}

#[test]
fn the_lease_ends_a_fast_stop() {
    let mut m = running(10_000);
    let limits = Limits {
        fast: Some(ms(60_000)),
        quit: ms(30_000),
    };
    m.stop(ms(9000), limits, Cause::Terminated);
    assert_eq!(m.step(ms(9000)), Some(Order::Interrupt));
    assert_eq!(m.step(ms(9850)), Some(Order::Quit));
    assert_eq!(m.step(ms(10_050)), Some(Order::Kill));
    assert_eq!(m.stop_began().unwrap().0, Cause::Terminated);
}

#[test]
fn a_fast_stop_may_outlast_one_lease() {
    let mut m = running(10_000);
    let limits = Limits {
        fast: Some(ms(60_000)),
        quit: ms(1000),
    };
    m.stop(ms(9000), limits, Cause::Asked);
    assert_eq!(m.step(ms(9000)), Some(Order::Interrupt));
    assert!(m.extend(ms(9500), ms(13_000)));
    assert_eq!(m.step(ms(12_849)), None);
    assert_eq!(m.step(ms(12_850)), Some(Order::Quit));
    assert!(!m.extend(ms(12_850), ms(20_000)));
}

#[test]
fn what_a_dead_postmaster_leaves_is_killed_at_once_and_what_a_good_end_leaves_soon() {
    let mut m = running(10_000);
    m.exited(ms(50), false);
    assert_eq!(m.step(ms(50)), Some(Order::Kill));
    assert_eq!(m.stop_began().unwrap().0, Cause::Died);
    let mut m = running(10_000);
    m.exited(ms(50), true);
    assert_eq!(m.step(ms(50)), None);
    assert_eq!(m.wake(), Some(ms(150)));
    assert_eq!(m.step(ms(150)), Some(Order::Kill));
}

#[test]
fn left_overs_have_little_time() {
    let mut m = Machine::new();
    m.left_over(ms(7));
    assert_eq!(m.step(ms(7)), Some(Order::Quit));
    assert_eq!(m.step(ms(207)), Some(Order::Kill));
    assert_eq!(m.stop_began(), Some((Cause::LeftOver, ms(7))));
}

#[derive(Debug, Clone)]
enum Input {
    Extend(u64),
    Stop(Option<u64>, u64),
    Pass(u64),
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        (0u64..20_000).prop_map(Input::Extend),
        (proptest::option::of(0u64..20_000), 0u64..20_000).prop_map(|(f, q)| Input::Stop(f, q)),
        (0u64..3000).prop_map(Input::Pass),
    ]
}

proptest! {
    /// Whatever is asked for in whatever order: the SIGQUIT or the SIGKILL goes out no later than the first wake after the
    /// SIGQUIT's time, the SIGKILL no later than the first after its time, and the machine always wakes in time for them.
    #[test]
    fn the_deadline_always_holds(first in 200u64..10_000, inputs in proptest::collection::vec(input(), 0..40)) {
        let mut m = running(first);
        let mut now = ms(0);
        let (mut quit, mut killed) = (false, false);
        let mut look = |m: &mut Machine, now: Duration| {
            for _ in 0..4 {
                match m.step(now) {
                    Some(Order::Quit) => { assert!(!killed, "a quit after a kill"); quit = true; }
                    Some(Order::Kill) => { killed = true; }
                    Some(Order::Interrupt) => assert!(!quit && !killed, "a stop became softer"),
                    None => break,
                }
            }
            let deadline = m.deadline().unwrap();
            assert!(now < deadline.saturating_sub(QUIT_BEFORE) || quit || killed);
            assert!(now < deadline.saturating_sub(QUIT_BEFORE) + KILL_AFTER || killed);
            if !killed {
                let wake = m.wake().unwrap();
                let due = deadline.saturating_sub(QUIT_BEFORE) + if quit { KILL_AFTER } else { ms(0) };
                assert!(wake <= due, "{wake:?} is after {due:?}");
            }
        };
        for i in inputs {
            match i {
                Input::Extend(ahead) => { m.extend(now, now + ms(ahead)); }
                Input::Stop(fast, q) => m.stop(now, Limits { fast: fast.map(ms), quit: ms(q) }, Cause::Asked),
                Input::Pass(by) => now += ms(by),
            }
            look(&mut m, now);
        }
        // Left alone it comes to a kill, in a bounded number of wakes, each of them in the future or due.
        for _ in 0..10 {
            now = now.max(m.wake().unwrap());
            look(&mut m, now);
        }
        assert!(killed, "{m:?}");
    }
}
