//! Permissions, revocation and the record, by example and by property.

use super::record::{MAX_SERIALS, admins, fresh};
use super::*;
use crate::{AccessRecord, AccessRole};
use proptest::prelude::*;

fn serial(ms: i64, tail: u64) -> String {
    format!("{ms:012x}{tail:020x}")
}

fn issue(serial: &str) -> Issued<'_> {
    Issued {
        serial,
        expires_ms: i64::MAX,
    }
}

fn admin(name: &'static str) -> Bearer<'static> {
    Bearer::User(name, AccessRole::Admin)
}

#[test]
fn calls_are_sorted_and_found() {
    assert!(CALLS.windows(2).all(|w| w[0].0 < w[1].0));
    assert_eq!(
        call("/ha.v1.NodeService/AddNode").map(|c| c.1),
        Some(Need::Role(AccessRole::Operator))
    );
    for none in [
        "",
        "/",
        "/ha.v1.NodeService/addnode",
        "/ha.v1.NodeService/AddNode/",
        "ha.v1.NodeService/AddNode",
    ] {
        assert!(call(none).is_none(), "{none}");
    }
}

#[test]
fn roles_include_the_ones_before_and_nodes_none() {
    use AccessRole::{Admin, Operator, Viewer};
    let user = |r| Bearer::User("a", r);
    assert!(permits(Need::Role(Viewer), user(Viewer)).is_ok());
    assert!(permits(Need::Role(Viewer), user(Admin)).is_ok());
    assert_eq!(
        permits(Need::Role(Operator), user(Viewer)),
        Err(Denial::Role {
            need: Operator,
            have: Viewer
        })
    );
    assert_eq!(
        permits(Need::Role(Viewer), Bearer::Node("n1")),
        Err(Denial::NodeCertificate)
    );
    assert_eq!(permits(Need::OwnNode, user(Admin)), Err(Denial::NotANode));
    assert!(permits(Need::OwnNode, Bearer::Node("n1")).is_ok());
    assert!(permits(Need::Anyone, Bearer::Node("n1")).is_ok());
}

#[test]
fn only_admins_manage_users_and_only_operators_change() {
    for (path, need) in CALLS {
        let method = path.rsplit('/').next().unwrap_or_default();
        let reads = [
            "Get", "List", "Watch", "Follow", "Check", "Doctor", "History", "Explain",
        ]
        .iter()
        .any(|p| method.starts_with(p));
        match need {
            Need::Role(AccessRole::Viewer) | Need::Anyone => assert!(reads, "{path}"),
            Need::Role(_) | Need::OwnNode => assert!(!reads, "{path}"),
        }
        if path.contains("UserService") && !reads {
            assert_eq!(*need, Need::Role(AccessRole::Admin));
        }
    }
}

#[test]
fn a_user_comes_is_renewed_and_goes() {
    let (s1, s2, s3) = (serial(1000, 1), serial(2000, 2), serial(3000, 3));
    let r = AccessRecord::default();
    let r = add_user(&r, "root", AccessRole::Admin, issue(&s1), 1).unwrap().record;
    assert_eq!(revoke_user(&r, "root", 5), Err(Refusal::LastAdmin));
    assert_eq!(revoke_user(&r, "nobody", 5), Err(Refusal::UserUnknown));
    assert_eq!(
        renew_user(&r, "root", AccessRole::Viewer, issue(&s2), 5),
        Err(Refusal::LastAdmin)
    );
    assert_eq!(
        renew_user(&r, "eve", AccessRole::Viewer, issue(&s2), 5),
        Err(Refusal::UserUnknown)
    );
    assert_eq!(
        add_user(&r, "root", AccessRole::Admin, issue(&s2), 5),
        Err(Refusal::UserExists)
    );
    assert!(!add_user(&r, "root", AccessRole::Admin, issue(&s1), 5).unwrap().changed);

    let r = add_user(&r, "eve", AccessRole::Admin, issue(&s2), 2).unwrap().record;
    let out = renew_user(&r, "eve", AccessRole::Operator, issue(&s3), 3).unwrap();
    assert_eq!(out.text, "certificate of user eve renewed, admin becomes operator");
    assert_eq!(out.record.users["eve"].serials, [s2.clone(), s3.clone()]);
    let r = revoke_user(&out.record, "eve", 10).unwrap().record;
    assert!(revoked(&r, admin("eve"), &s2) && revoked(&r, admin("eve"), &s3));
    assert!(!revoked(&r, admin("root"), &s1));
    assert!(!revoke_user(&r, "eve", 11).unwrap().changed);
    assert_eq!(
        renew_user(&r, "eve", AccessRole::Viewer, issue(&serial(9, 9)), 12),
        Err(Refusal::UserRevoked)
    );

    // Added anew from a machine whose clock is far behind: the new certificate counts, the old ones do not.
    let s4 = serial(5, 4);
    let r = add_user(&r, "eve", AccessRole::Viewer, issue(&s4), 12).unwrap().record;
    assert!(!revoked(&r, admin("eve"), &s4));
    assert!(revoked(&r, admin("eve"), &s2) && revoked(&r, admin("eve"), &s3));
}

#[test]
fn an_expired_admin_is_none() {
    let (s1, s2) = (serial(1, 1), serial(2, 2));
    let r = add_user(&AccessRecord::default(), "a", AccessRole::Admin, issue(&s1), 1)
        .unwrap()
        .record;
    let r = add_user(
        &r,
        "b",
        AccessRole::Admin,
        Issued {
            serial: &s2,
            expires_ms: 50,
        },
        1,
    )
    .unwrap()
    .record;
    assert!(revoke_user(&r, "a", 49).is_ok());
    assert_eq!(revoke_user(&r, "a", 50), Err(Refusal::LastAdmin));
    assert!(revoke_user(&r, "b", 60).is_ok());
}

#[test]
fn nodes_are_revoked_even_unrecorded() {
    let r = AccessRecord::default();
    assert_eq!(revoke_node(&r, "n1", false, 5), Err(Refusal::NodeUnknown));
    let r = revoke_node(&r, "n1", true, 5000).unwrap().record;
    assert!(revoked(&r, Bearer::Node("n1"), &serial(4000, 1)));
    assert!(!revoked(&r, Bearer::User("n1", AccessRole::Viewer), &serial(4000, 1)));
    assert!(!revoked(&r, Bearer::Node("n1"), &serial(6000, 1)));
    let s = serial(4500, 2);
    let r = record_node(&r, "n1", issue(&s), 6000).unwrap().record;
    assert!(!revoked(&r, Bearer::Node("n1"), &s));
    assert!(!record_node(&r, "n1", issue(&s), 6000).unwrap().changed);
}

#[test]
fn serials_are_bounded_and_checked() {
    let mut r = add_user(
        &AccessRecord::default(),
        "a",
        AccessRole::Admin,
        issue(&serial(1, 0)),
        1,
    )
    .unwrap()
    .record;
    for i in 2..100 {
        r = renew_user(&r, "a", AccessRole::Admin, issue(&serial(i, 0)), i)
            .unwrap()
            .record;
    }
    assert_eq!(r.users["a"].serials.len(), MAX_SERIALS);
    assert_eq!(r.users["a"].serials.last(), Some(&serial(99, 0)));
    for bad in ["", "zz", &"0".repeat(31), &"A".repeat(32), &"é".repeat(16)] {
        assert_eq!(
            renew_user(&r, "a", AccessRole::Admin, issue(bad), 1),
            Err(Refusal::BadSerial),
            "{bad}"
        );
    }
}

#[derive(Debug, Clone)]
enum Step {
    Add(usize, AccessRole, i64),
    Renew(usize, AccessRole, i64),
    Revoke(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let role = prop_oneof![
        Just(AccessRole::Viewer),
        Just(AccessRole::Operator),
        Just(AccessRole::Admin)
    ];
    // Issuers' clocks are up to 5 s off the master's.
    let step = (0..3usize, role, -5000..5000i64, 0..3u8).prop_map(|(who, role, skew, what)| match what {
        0 => Step::Add(who, role, skew),
        1 => Step::Renew(who, role, skew),
        _ => Step::Revoke(who),
    });
    proptest::collection::vec(step, 1..40)
}

proptest! {
    #[test]
    fn whatever_happens_an_admin_is_left_and_what_was_revoked_stays_refused(steps in steps()) {
        const NAMES: [&str; 3] = ["a", "b", "c"];
        let first = serial(10_000, 0);
        let mut r = add_user(&AccessRecord::default(), "a", AccessRole::Admin, issue(&first), 10_000).unwrap().record;
        let (mut now, mut dead) = (10_000, Vec::<(usize, String)>::new());
        let mut live: [Vec<String>; 3] = [vec![first], vec![], vec![]];
        for (i, step) in steps.into_iter().enumerate() {
            now += 100;
            let outcome = match step {
                Step::Add(who, role, skew) | Step::Renew(who, role, skew) => {
                    let s = serial(now + skew, i as u64 + 1);
                    let done = if matches!(step, Step::Add(..)) {
                        add_user(&r, NAMES[who], role, issue(&s), now)
                    } else {
                        renew_user(&r, NAMES[who], role, issue(&s), now)
                    };
                    if done.is_ok() {
                        live[who].push(s);
                    }
                    done
                }
                Step::Revoke(who) => {
                    let done = revoke_user(&r, NAMES[who], now);
                    if done.is_ok() {
                        dead.extend(live[who].drain(..).map(|s| (who, s)));
                    }
                    done
                }
            };
            if let Ok(outcome) = outcome {
                r = outcome.record;
            }
            prop_assert!(admins(&r, now).next().is_some());
            for (who, s) in &dead {
                prop_assert!(revoked(&r, Bearer::User(NAMES[*who], AccessRole::Viewer), s));
            }
            for (who, serials) in live.iter().enumerate() {
                for s in serials.iter().rev().take(MAX_SERIALS) {
                    prop_assert!(!revoked(&r, Bearer::User(NAMES[who], AccessRole::Viewer), s));
                }
            }
        }
    }

    #[test]
    fn any_text_as_a_serial_is_answered(s in ".*", since in any::<Option<i64>>()) {
        let mut entry = fresh(None, 0);
        entry.revoked_ms = since;
        let r = AccessRecord { nodes: [("n".to_owned(), entry)].into(), ..AccessRecord::default() };
        let refused = revoked(&r, Bearer::Node("n"), &s);
        prop_assert!(since.is_some() || !refused);
        let _ = call(&s);
    }
}
