//! What an instance never does, over arbitrary situations.

use std::time::Duration;

use proptest::prelude::*;

use super::{Case, NOW, electing, named, nodes, primary, standby};
use crate::database::local::{Receiver, Server};
use crate::database::member::{Action, StartAs, report};
use crate::database::names::Names;
use crate::database::record::{How, Phase};

fn any_case() -> impl Strategy<Value = Case> {
    let bases = prop_oneof![
        Just(standby()),
        Just(primary()),
        Just(named(How::Promote)),
        Just(named(How::InPlace)),
        Just(electing()),
    ];
    let servers = proptest::sample::select(vec![
        Server::Stopped,
        Server::Starting,
        Server::Running,
        Server::Stopping,
        Server::Orphaned,
    ]);
    let names = proptest::sample::select(vec![
        None,
        Some(Names::Closed),
        Some(Names::Empty),
        Some(Names::Any {
            need: 1,
            epoch: 8,
            voters: nodes(&["a", "c"]),
        }),
    ]);
    let phases = proptest::sample::select(vec![Phase::Steady, Phase::Electing, Phase::Promoting, Phase::Switching]);
    let numbers = (0u64..10, 0u64..10, 0u64..5, proptest::option::of(0u64..10));
    (
        bases,
        servers,
        names,
        phases,
        numbers,
        any::<(bool, bool, bool, bool)>(),
    )
        .prop_map(
            |(base, server, names, phase, (refused, epoch, incarnation, marker), (fresh, recovery, leased, marked))| {
                base.with(|c| {
                    c.local.server = server;
                    c.local.names = names;
                    c.state.phase = phase;
                    c.local.marks.refused = refused;
                    c.local.marks.promotion = marker.filter(|_| marked).or(c.local.marks.promotion);
                    c.state.epoch = epoch;
                    c.local.incarnation = incarnation;
                    c.fresh = fresh;
                    c.local.in_recovery = recovery;
                    c.local.lease_until = leased.then_some(NOW + Duration::from_secs(1));
                })
            },
        )
}

proptest! {
    /// What cannot be taken back needs a fresh read, a lease, an epoch that is not refused, and to be named; what starts,
    /// starts closed; nobody asks nobody but by the record's word.
    #[test]
    fn nothing_irreversible_without_authority(case in any_case()) {
        let named = case.state.primary.as_deref() == Some("b");
        for action in case.actions() {
            let enables = match &action {
                Action::Start { role: StartAs::Primary, names } | Action::Promote { names, .. } | Action::Create { names } => {
                    prop_assert_eq!(names, &Names::Closed);
                    prop_assert_ne!(case.state.phase, Phase::Steady);
                    true
                }
                Action::Start { names, .. } => {
                    prop_assert_eq!(names, &Names::Closed);
                    false
                }
                Action::SetNames { names } => {
                    if *names != Names::Closed {
                        prop_assert!(case.state.may_open("b"));
                        prop_assert_eq!(&case.local.names, &Some(Names::Closed));
                    }
                    prop_assert!(*names != Names::Empty || case.state.rule().unwrap().need == 0);
                    *names != Names::Closed
                }
                _ => false,
            };
            if enables {
                prop_assert!(named && case.fresh && case.local.lease_until.is_some(), "{:?}", action);
                prop_assert!(case.state.epoch >= case.local.marks.refused, "{:?}", action);
            }
        }
    }

    /// An answer to a seal says that nothing is received and nothing can be: whatever else is going on.
    #[test]
    fn an_answer_to_a_seal_is_true(case in any_case(), receiving: bool, bound: bool) {
        let case = case.with(|c| {
            c.local.receiver = if receiving { Receiver::Running } else { Receiver::Gone };
            c.local.grant_given_until = bound.then_some(NOW + Duration::from_secs(1));
        });
        if let Some(epoch) = case.ask(report).sealed {
            prop_assert_eq!(epoch, case.state.epoch);
            prop_assert!(case.local.marks.refused >= epoch && case.local.upstream.is_none() && !bound);
            prop_assert!(case.local.server == Server::Stopped || (case.local.in_recovery && !receiving));
        }
    }
}
