//! Who may do what: the permission of each call, which certificates are refused, and what becomes of the record of users.
//!
//! Roles are read from certificates; the record only takes away. This module never decides by a clock of its own: the
//! time a certificate was issued stands in its serial number, and what counts as now is an argument.

mod record;
#[cfg(test)]
mod tests;

pub use record::{Issued, Outcome, Refusal, add_user, record_node, renew_user, revoke_node, revoke_user};

use crate::{AccessRecord, AccessRole};

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
        ("/ha.v1.DatabaseService/AssignInstance", Role(Operator)),
        ("/ha.v1.DatabaseService/CreateGroup", Role(Operator)),
        ("/ha.v1.DatabaseService/Explain", Role(Viewer)),
        ("/ha.v1.DatabaseService/Failover", Role(Operator)),
        ("/ha.v1.DatabaseService/GetConfig", Role(Viewer)),
        ("/ha.v1.DatabaseService/GetGroup", Role(Viewer)),
        ("/ha.v1.DatabaseService/History", Role(Viewer)),
        ("/ha.v1.DatabaseService/ListGroups", Role(Viewer)),
        ("/ha.v1.DatabaseService/Pause", Role(Operator)),
        ("/ha.v1.DatabaseService/Reinit", Role(Operator)),
        ("/ha.v1.DatabaseService/RemoveGroup", Role(Admin)),
        ("/ha.v1.DatabaseService/Restart", Role(Operator)),
        ("/ha.v1.DatabaseService/SetConfig", Role(Operator)),
        ("/ha.v1.DatabaseService/Switchover", Role(Operator)),
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
        ("/ha.v1.PeerService/Grant", OwnNode),
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
