//! The wire of `hactl` and `had`: the protobuf package `ha.v1`, its generated code and the error codes. Nothing else.

pub mod codes;
pub mod database;

/// The generated messages, clients and servers of `ha.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod v1 {
    include!("generated/ha.v1.rs");
}

/// Metadata entry that carries an encoded [`v1::ErrorDetail`].
pub const ERROR_DETAIL: &str = "ha-error-bin";
/// Metadata entry that makes a repeated change the same change.
pub const REQUEST_ID: &str = "ha-request-id";
/// Metadata entry with the original caller of a proxied call: `user/<name>/<role>` or `node/<name>`.
pub const FORWARDED_IDENTITY: &str = "ha-forwarded-identity";
/// Metadata entry that counts how often a call was passed on; it stops loops while mastership moves.
pub const FORWARDED_HOPS: &str = "ha-forwarded-hops";

impl std::fmt::Debug for v1::Bundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bundle")
            .field("kind", &self.kind)
            .field("name", &self.name)
            .field("cluster", &self.cluster)
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

impl v1::NodeState {
    /// The word shown for the state.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unspecified => "unknown",
            Self::Pending => "pending",
            Self::Online => "online",
            Self::Suspect => "suspect",
            Self::Offline => "offline",
            Self::Cordoned => "cordoned",
            Self::Draining => "draining",
            Self::Removed => "removed",
        }
    }
}

impl v1::Role {
    /// The word shown for the role.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unspecified => "-",
            Self::Member => "member",
            Self::Master => "master",
        }
    }
}

impl v1::AccessRole {
    /// The word shown for the role, as it stands in certificates.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unspecified => "none",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// The role that `word` names.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "viewer" => Some(Self::Viewer),
            "operator" => Some(Self::Operator),
            "admin" => Some(Self::Admin),
            _ => None,
        }
    }
}

impl v1::Severity {
    /// The word shown for the severity.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unspecified => "none",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl v1::OperationState {
    /// The word shown for the state.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unspecified => "unknown",
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more happens to the operation.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}
