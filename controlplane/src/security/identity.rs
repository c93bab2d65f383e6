//! The identity in a certificate's SAN URI: `ha://<cluster_id>/node/<name>` or `ha://<cluster_id>/user/<name>/<role>`.

use ha_core::AccessRole;

/// Who a certificate says its bearer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// A node's daemon.
    Node {
        /// The node's name.
        name: String,
    },
    /// A person or a script.
    User {
        /// The user's name.
        name: String,
        /// What it may do.
        role: AccessRole,
    },
}

impl std::fmt::Display for Identity {
    /// `node/n1` or `user/alice`, as actors are written in the change log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Node { name } => write!(f, "node/{name}"),
            Self::User { name, .. } => write!(f, "user/{name}"),
        }
    }
}
