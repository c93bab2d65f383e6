//! The error every API call ends with: a stable code, what failed, why, and what to do next.

use ha_proto::codes::{self, Code};
use ha_proto::{ERROR_DETAIL, v1};
use prost::Message as _;
use tonic::metadata::MetadataValue;

use crate::coordination::CoordError;

/// An error that reaches a person.
#[derive(Debug, Clone)]
pub struct ApiError {
    /// Its code.
    pub code: &'static Code,
    /// What failed.
    pub message: String,
    /// Why, most telling first.
    pub why: Vec<String>,
    /// What to type next.
    pub next: Vec<String>,
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code.id, self.message)?;
        for why in &self.why {
            write!(f, "; {why}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ApiError {}

impl ApiError {
    /// An error of this code.
    pub fn new(code: &'static Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            why: Vec::new(),
            next: Vec::new(),
        }
    }

    /// Adds a reason.
    #[must_use]
    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.why.push(why.into());
        self
    }

    /// Adds something to do.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next.push(next.into());
        self
    }

    fn grpc_code(&self) -> tonic::Code {
        use codes::exit;
        match self.code.exit {
            exit::USAGE => tonic::Code::InvalidArgument,
            exit::DENIED => tonic::Code::PermissionDenied,
            exit::NOT_FOUND => tonic::Code::NotFound,
            exit::CONFLICT => tonic::Code::Aborted,
            exit::REFUSED | exit::UNPLACEABLE => tonic::Code::FailedPrecondition,
            exit::UNREACHABLE => tonic::Code::Unavailable,
            exit::TIMED_OUT => tonic::Code::DeadlineExceeded,
            _ if self.code.retryable => tonic::Code::Unavailable,
            _ => tonic::Code::Internal,
        }
    }
}

impl From<ApiError> for tonic::Status {
    fn from(e: ApiError) -> Self {
        let detail = v1::ErrorDetail {
            code: e.code.id.to_owned(),
            message: e.message.clone(),
            why: e.why.clone(),
            next: e.next.clone(),
            retryable: e.code.retryable,
            details: Default::default(),
        };
        let mut status = tonic::Status::new(e.grpc_code(), e.message);
        status
            .metadata_mut()
            .insert_bin(ERROR_DETAIL, MetadataValue::from_bytes(&detail.encode_to_vec()));
        status
    }
}

impl From<CoordError> for ApiError {
    fn from(e: CoordError) -> Self {
        let code = match &e {
            CoordError::SessionLost(_) => &codes::NO_MASTER,
            CoordError::Unavailable(_) => &codes::NO_COORDINATOR,
            CoordError::Unknown(_) => &codes::OUTCOME_UNKNOWN,
            CoordError::NoAuth(_) => &codes::WRONG_SECRET,
            CoordError::Misconfigured(_) => &codes::SESSION_TIMEOUT,
            CoordError::BadVersion(_) => &codes::REVISION_CONFLICT,
            CoordError::NotFound(_) | CoordError::Exists(_) | CoordError::NotEmpty(_) | CoordError::Invalid(_) => {
                &codes::INTERNAL
            }
        };
        Self::new(code, e.to_string())
    }
}

impl From<ha_core::StoredError> for ApiError {
    fn from(e: ha_core::StoredError) -> Self {
        Self::new(&codes::BAD_STORED, e.to_string())
    }
}
