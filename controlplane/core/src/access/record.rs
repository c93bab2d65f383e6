//! What becomes of the record of users and nodes' certificates when one is added, renewed or revoked.
//!
//! Each function returns the record to be stored, or why it stays as it is; none stores anything. An admin is always left.

use std::collections::BTreeMap;

use super::issued_ms;
use crate::{AccessRecord, AccessRole, UserRecord};

/// Serial numbers kept for one name; older ones were replaced long ago.
pub(super) const MAX_SERIALS: usize = 16;

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

pub(super) fn admins(record: &AccessRecord, now_ms: i64) -> impl Iterator<Item = &str> {
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

pub(super) fn fresh(role: Option<AccessRole>, now_ms: i64) -> UserRecord {
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
