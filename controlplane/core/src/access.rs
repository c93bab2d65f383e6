//! Who may do what: the permission of each call, which certificates are refused, and what becomes of the record of users.
//!
//! Roles are read from certificates; the record only takes away. This module never decides by a clock of its own: the
//! time a certificate was issued stands in its serial number, and what counts as now is an argument.

use std::collections::BTreeMap;

use crate::{AccessRecord, AccessRole, UserRecord};

/// Serial numbers kept for one name; older ones were replaced long ago.
const MAX_SERIALS: usize = 16;

/// What a call asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Any certificate of the cluster, a user's or a node's.
    Anyone,
    /// A user's certificate with at least this role.
    Role(AccessRole),
    /// A node's certificate, and what is asked may concern that node alone.
    OwnNode,
}

/// Whom a certificate names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bearer<'a> {
    /// A node's daemon.
    Node(&'a str),
    /// A user with its role.
    User(&'a str, AccessRole),
}

/// Why a call is not permitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The role is too low.
    #[error("it needs the role {}, the certificate has {}", need.word(), have.word())]
    Role {
        /// The role needed.
        need: AccessRole,
        /// The role in the certificate.
        have: AccessRole,
    },
    /// A node's certificate was used for an operator's call.
    #[error("a node's certificate cannot be used for what operators do")]
    NodeCertificate,
    /// Daemons do this among each other.
    #[error("only a node's own daemon may do this")]
    NotANode,
}

impl AccessRole {
    /// The word in certificates and on screens.
    pub fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// The role that `word` names.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Viewer, Self::Operator, Self::Admin]
            .into_iter()
            .find(|r| r.word() == word)
    }
}

/// Every call there is, by its gRPC path, and what it asks of the caller. A path that is not here does not exist.
pub const CALLS: &[(&str, Need)] = {
    use AccessRole::{Admin, Operator, Viewer};
    use Need::{Anyone, OwnNode, Role};
    &[
        ("/grpc.health.v1.Health/Check", Anyone),
        ("/grpc.health.v1.Health/List", Anyone),
        ("/grpc.health.v1.Health/Watch", Anyone),
        ("/ha.v1.AgentService/Report", OwnNode),
        ("/ha.v1.ClusterService/Doctor", Role(Viewer)),
        ("/ha.v1.ClusterService/GetState", Role(Viewer)),
        ("/ha.v1.ClusterService/SetMaintenance", Role(Operator)),
        ("/ha.v1.ClusterService/TransferMaster", Role(Operator)),
        ("/ha.v1.EventService/FollowChanges", Role(Viewer)),
        ("/ha.v1.EventService/ListChanges", Role(Viewer)),
        ("/ha.v1.LocalService/GetInfo", Anyone),
        ("/ha.v1.LocalService/InstallCertificate", Role(Admin)),
        ("/ha.v1.LocalService/Leave", OwnNode),
        ("/ha.v1.LocalService/RequestCertificate", Role(Admin)),
        ("/ha.v1.NodeService/AddNode", Role(Operator)),
        ("/ha.v1.NodeService/DrainNode", Role(Operator)),
        ("/ha.v1.NodeService/GetNode", Role(Viewer)),
        ("/ha.v1.NodeService/ListNodes", Role(Viewer)),
        ("/ha.v1.NodeService/RemoveNode", Role(Operator)),
        ("/ha.v1.NodeService/UpdateNode", Role(Operator)),
        ("/ha.v1.OperationService/CancelOperation", Role(Operator)),
        ("/ha.v1.OperationService/GetOperation", Role(Viewer)),
        ("/ha.v1.OperationService/ListOperations", Role(Viewer)),
        ("/ha.v1.OperationService/WatchOperation", Role(Viewer)),
        ("/ha.v1.UserService/ListUsers", Role(Viewer)),
        ("/ha.v1.UserService/RecordUser", Role(Admin)),
        ("/ha.v1.UserService/RevokeUser", Role(Admin)),
        ("/ha.v1.WatchService/Watch", Role(Viewer)),
    ]
};

/// The entry of a call, or none if there is no such call. The path in the entry lives for ever, so it may label metrics.
pub fn call(path: &str) -> Option<&'static (&'static str, Need)> {
    CALLS.binary_search_by(|(p, _)| (*p).cmp(path)).ok().map(|i| &CALLS[i])
}

/// Whether `bearer` may make a call that asks for `need`.
///
/// # Errors
/// [`Denial`] with the reason.
pub fn permits(need: Need, bearer: Bearer<'_>) -> Result<(), Denial> {
    match (need, bearer) {
        (Need::Anyone, _) | (Need::OwnNode, Bearer::Node(_)) => Ok(()),
        (Need::Role(need), Bearer::User(_, have)) if have >= need => Ok(()),
        (Need::Role(need), Bearer::User(_, have)) => Err(Denial::Role { need, have }),
        (Need::Role(_), Bearer::Node(_)) => Err(Denial::NodeCertificate),
        (Need::OwnNode, Bearer::User(..)) => Err(Denial::NotANode),
    }
}

/// When the certificate with this serial number was issued, ms; none if the number is not one of ours.
pub fn issued_ms(serial: &str) -> Option<i64> {
    let valid = serial.len() == 32 && serial.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    valid.then(|| i64::from_str_radix(&serial[..12], 16).ok()).flatten()
}

/// Whether the certificate with this serial number is refused.
///
/// A revocation refuses every certificate issued up to then, known or not. Certificates recorded since are accepted
/// whatever their serial number says, for the clock of the machine that issued them may be hours behind.
pub fn revoked(record: &AccessRecord, bearer: Bearer<'_>, serial: &str) -> bool {
    let entry = match bearer {
        Bearer::Node(name) => record.nodes.get(name),
        Bearer::User(name, _) => record.users.get(name),
    };
    let Some((entry, since)) = entry.and_then(|e| e.revoked_ms.map(|since| (e, since))) else {
        return false;
    };
    if entry.serials.iter().any(|s| s == serial) {
        return false;
    }
    issued_ms(serial).is_none_or(|issued| issued <= since)
}

impl UserRecord {
    /// Whether it was revoked and nothing was recorded since.
    pub fn is_revoked(&self) -> bool {
        self.revoked_ms.is_some() && self.serials.is_empty()
    }
}

/// A certificate that was issued, to be recorded.
#[derive(Debug, Clone, Copy)]
pub struct Issued<'a> {
    /// Its serial number, 32 hexadecimal digits in lower case.
    pub serial: &'a str,
    /// When it expires, ms.
    pub expires_ms: i64,
}

/// Why a change to the record is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The user exists.
    #[error("the user exists already")]
    UserExists,
    /// There is no such user.
    #[error("there is no user of this name")]
    UserUnknown,
    /// The user was revoked; it can be added anew, not renewed.
    #[error("the user was revoked and can only be added anew")]
    UserRevoked,
    /// Nobody could manage users afterwards.
    #[error("it is the last admin")]
    LastAdmin,
    /// There is no such node.
    #[error("there is no node of this name")]
    NodeUnknown,
    /// Not the serial number of a certificate of this cluster.
    #[error("a serial number has 32 hexadecimal digits in lower case")]
    BadSerial,
}

impl From<Refusal> for crate::refusal::Refusal {
    fn from(refusal: Refusal) -> Self {
        let (code, next) = match refusal {
            Refusal::UserExists => ("HA0205", "hactl user list"),
            Refusal::UserUnknown => ("HA0206", "hactl user list"),
            Refusal::UserRevoked => ("HA0206", "hactl user add NAME --role ROLE"),
            Refusal::LastAdmin => ("HA0207", "hactl user add NAME --role admin"),
            Refusal::NodeUnknown => ("HA0302", "hactl node list"),
            Refusal::BadSerial => return Self::new("HA0009", refusal.to_string()),
        };
        Self::new(code, refusal.to_string()).next(next)
    }
}

/// The record after a change.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// False: it was so already, and `record` is what it was.
    pub changed: bool,
    /// The record to be stored.
    pub record: AccessRecord,
    /// One line for people.
    pub text: String,
}

fn changed(record: AccessRecord, text: String) -> Result<Outcome, Refusal> {
    Ok(Outcome {
        changed: true,
        record,
        text,
    })
}

fn unchanged(record: &AccessRecord, text: &str) -> Result<Outcome, Refusal> {
    Ok(Outcome {
        changed: false,
        record: record.clone(),
        text: text.to_owned(),
    })
}

fn admins(record: &AccessRecord, now_ms: i64) -> impl Iterator<Item = &str> {
    record
        .users
        .iter()
        .filter(move |(_, u)| u.role == Some(AccessRole::Admin) && !u.is_revoked() && u.expires_ms > now_ms)
        .map(|(name, _)| name.as_str())
}

fn is_last_admin(record: &AccessRecord, name: &str, now_ms: i64) -> bool {
    let mut any = false;
    for admin in admins(record, now_ms) {
        if admin != name {
            return false;
        }
        any = true;
    }
    any
}

fn note(entry: &mut UserRecord, issued: Issued<'_>) {
    entry.serials.push(issued.serial.to_owned());
    if entry.serials.len() > MAX_SERIALS {
        entry.serials.remove(0);
    }
    entry.expires_ms = issued.expires_ms;
}

fn fresh(role: Option<AccessRole>, now_ms: i64) -> UserRecord {
    UserRecord {
        role,
        serials: Vec::new(),
        expires_ms: 0,
        created_ms: now_ms,
        revoked_ms: None,
    }
}

/// Records a new user's first certificate. A user that was revoked may be added anew; its old certificates stay refused.
///
/// # Errors
/// [`Refusal::UserExists`], unless it is exactly this certificate that was recorded before; [`Refusal::BadSerial`].
pub fn add_user(
    record: &AccessRecord,
    name: &str,
    role: AccessRole,
    issued: Issued<'_>,
    now_ms: i64,
) -> Result<Outcome, Refusal> {
    issued_ms(issued.serial).ok_or(Refusal::BadSerial)?;
    let mut next = record.clone();
    let entry = match next.users.get_mut(name) {
        Some(old) if old.serials.iter().any(|s| s == issued.serial) && old.role == Some(role) => {
            return unchanged(record, "the user was added already with this certificate");
        }
        Some(old) if !old.is_revoked() => return Err(Refusal::UserExists),
        Some(old) => {
            old.created_ms = now_ms;
            old.role = Some(role);
            old
        }
        None => next
            .users
            .entry(name.to_owned())
            .or_insert_with(|| fresh(Some(role), now_ms)),
    };
    note(entry, issued);
    changed(next, format!("user {name} added as {}", role.word()))
}

/// Records a further certificate of an existing user, which may carry another role. Earlier certificates stay valid.
///
/// # Errors
/// [`Refusal::UserUnknown`], [`Refusal::UserRevoked`], [`Refusal::BadSerial`], and [`Refusal::LastAdmin`] if the role
/// would leave no admin.
pub fn renew_user(
    record: &AccessRecord,
    name: &str,
    role: AccessRole,
    issued: Issued<'_>,
    now_ms: i64,
) -> Result<Outcome, Refusal> {
    issued_ms(issued.serial).ok_or(Refusal::BadSerial)?;
    let mut next = record.clone();
    let entry = next.users.get_mut(name).ok_or(Refusal::UserUnknown)?;
    if entry.is_revoked() {
        return Err(Refusal::UserRevoked);
    }
    if entry.serials.iter().any(|s| s == issued.serial) && entry.role == Some(role) {
        return unchanged(record, "this certificate was recorded already");
    }
    if role != AccessRole::Admin && is_last_admin(record, name, now_ms) {
        return Err(Refusal::LastAdmin);
    }
    let before = entry.role.replace(role);
    note(entry, issued);
    let text = match before.filter(|b| *b != role) {
        Some(before) => format!(
            "certificate of user {name} renewed, {} becomes {}",
            before.word(),
            role.word()
        ),
        None => format!("certificate of user {name} renewed"),
    };
    changed(next, text)
}

/// Refuses every certificate that a user has had until now.
///
/// # Errors
/// [`Refusal::UserUnknown`], [`Refusal::LastAdmin`].
pub fn revoke_user(record: &AccessRecord, name: &str, now_ms: i64) -> Result<Outcome, Refusal> {
    let entry = record.users.get(name).ok_or(Refusal::UserUnknown)?;
    if entry.is_revoked() {
        return unchanged(record, "the user was revoked already");
    }
    if is_last_admin(record, name, now_ms) {
        return Err(Refusal::LastAdmin);
    }
    let mut next = record.clone();
    revoke(&mut next.users, name, now_ms);
    changed(next, format!("certificates of user {name} revoked"))
}

/// Records a node's certificate. A node that was revoked before is accepted again with this one.
///
/// # Errors
/// [`Refusal::BadSerial`].
pub fn record_node(record: &AccessRecord, name: &str, issued: Issued<'_>, now_ms: i64) -> Result<Outcome, Refusal> {
    issued_ms(issued.serial).ok_or(Refusal::BadSerial)?;
    if record
        .nodes
        .get(name)
        .is_some_and(|n| n.serials.iter().any(|s| s == issued.serial))
    {
        return unchanged(record, "this certificate was recorded already");
    }
    let mut next = record.clone();
    note(
        next.nodes.entry(name.to_owned()).or_insert_with(|| fresh(None, now_ms)),
        issued,
    );
    changed(next, format!("certificate of node {name} recorded"))
}

/// Refuses every certificate that a node has had until now. `exists` says whether there is a node of this name, for a
/// node's certificate need not have been recorded.
///
/// # Errors
/// [`Refusal::NodeUnknown`].
pub fn revoke_node(record: &AccessRecord, name: &str, exists: bool, now_ms: i64) -> Result<Outcome, Refusal> {
    match record.nodes.get(name) {
        None if !exists => return Err(Refusal::NodeUnknown),
        Some(entry) if entry.is_revoked() => return unchanged(record, "the node was revoked already"),
        Some(_) | None => {}
    }
    let mut next = record.clone();
    next.nodes.entry(name.to_owned()).or_insert_with(|| fresh(None, now_ms));
    revoke(&mut next.nodes, name, now_ms);
    changed(next, format!("certificates of node {name} revoked"))
}

fn revoke(entries: &mut BTreeMap<String, UserRecord>, name: &str, now_ms: i64) {
    let Some(entry) = entries.get_mut(name) else { return };
    // A certificate may come from a machine whose clock is ahead: what is known is refused whatever its time.
    let newest = entry
        .serials
        .iter()
        .filter_map(|s| issued_ms(s))
        .max()
        .unwrap_or(now_ms);
    entry.revoked_ms = Some(now_ms.max(newest).max(entry.revoked_ms.unwrap_or(now_ms)));
    entry.serials.clear();
}

#[cfg(test)]
mod tests {
    use super::*;
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
            let reads = ["Get", "List", "Watch", "Follow", "Check", "Doctor"]
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
}
