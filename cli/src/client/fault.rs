//! What a failed call means: final, worth trying again here, or worth trying at another node.

use ha_proto::codes;
use ha_proto::v1::ErrorDetail;
use prost::Message as _;
use tonic::{Code, Status};

use crate::error::CliError;

/// A failed call, sorted.
#[derive(Debug)]
pub(crate) enum Fault {
    /// Trying again changes nothing.
    Final(CliError),
    /// The same node may answer in a moment.
    Again(CliError),
    /// This node cannot answer; another may. Whether it received the call is not known.
    Elsewhere(CliError),
}

impl Fault {
    pub(crate) fn into_error(self) -> CliError {
        match self {
            Self::Final(e) | Self::Again(e) | Self::Elsewhere(e) => e,
        }
    }
}

/// Sorts the status of a call to `endpoint`.
pub(crate) fn sort(status: &Status, endpoint: &str) -> Fault {
    if let Some(detail) = detail(status) {
        return sort_detail(detail);
    }
    if let Some(fault) = refused_certificate(status, endpoint) {
        return fault;
    }
    let lost = |why: &str| {
        Fault::Elsewhere(
            CliError::new(codes::UNREACHABLE, format!("the connection to {endpoint} was lost")).why(why.to_owned()),
        )
    };
    let message = status.message();
    match status.code() {
        _ if std::error::Error::source(status).is_some() => lost(&root_cause(status)),
        Code::Unavailable | Code::Cancelled | Code::Aborted => lost(message),
        Code::DeadlineExceeded => Fault::Elsewhere(
            CliError::new(codes::TIMEOUT, format!("{endpoint} did not answer in time")).why(message.to_owned()),
        ),
        Code::ResourceExhausted => {
            Fault::Again(CliError::new(codes::INTERNAL, format!("{endpoint} is overloaded")).why(message.to_owned()))
        }
        Code::PermissionDenied | Code::Unauthenticated => {
            Fault::Final(CliError::new(codes::DENIED, "not permitted").why(message.to_owned()))
        }
        Code::Unimplemented => Fault::Final(
            CliError::new(codes::INTERNAL, format!("{endpoint} does not know this call"))
                .why("its daemon is older than this hactl, or what answers there is not had")
                .next("hactl version --server", "compare the versions"),
        ),
        code => Fault::Final(
            CliError::new(codes::INTERNAL, format!("{endpoint} failed: {code}"))
                .why(message.to_owned())
                .next("journalctl -u had", "on that node"),
        ),
    }
}

/// Whether the node said what happened, so that nothing is left in the dark.
pub(crate) fn is_told(status: &Status) -> bool {
    detail(status).is_some()
}

fn detail(status: &Status) -> Option<ErrorDetail> {
    let bytes = status.metadata().get_bin(ha_proto::ERROR_DETAIL)?.to_bytes().ok()?;
    let mut detail = ErrorDetail::decode(bytes).ok().filter(|d| !d.code.is_empty())?;
    if detail.message.is_empty() {
        detail.message = status.message().to_owned();
    }
    Some(detail)
}

fn sort_detail(detail: ErrorDetail) -> Fault {
    let error = CliError::from_detail(detail);
    // A stream that was ended for its reader's slowness is its reader's to open again.
    if !error.retryable() || error.is(codes::SLOW_WATCHER) {
        return Fault::Final(error);
    }
    if error.is(codes::NO_COORDINATOR) || error.is(codes::UNREACHABLE) || error.is(codes::NOT_INITIALISED) {
        return Fault::Elsewhere(error);
    }
    Fault::Again(error)
}

/// TLS alerts: with TLS 1.3 a server's refusal of our certificate arrives only after the handshake, as the end of the
/// connection. HTTP/2 keeps no more of it than its text.
fn refused_certificate(status: &Status, endpoint: &str) -> Option<Fault> {
    const ALERT: &str = "fatal alert: ";
    let mut cause = std::error::Error::source(status);
    let mut alert = None;
    while let Some(error) = cause {
        let text = error.to_string();
        alert = text.find(ALERT).map(|at| text[at + ALERT.len()..].to_owned()).or(alert);
        cause = error.source();
    }
    let alert = alert?;
    let name = alert
        .split(|c: char| !c.is_ascii_alphanumeric())
        .next()
        .unwrap_or_default();
    Some(Fault::Final(match name {
        "CertificateExpired" => CliError::new(
            codes::CERT_EXPIRED,
            format!("{endpoint} says that the certificate has expired"),
        )
        .why("this machine's clock or the node's is wrong, or it expired just now")
        .next("date -u", "compare the clocks"),
        "CertificateRevoked" => CliError::new(
            codes::REVOKED,
            format!("{endpoint} says that the certificate was revoked"),
        ),
        "UnknownCA" | "DecryptError" | "BadCertificate" | "AccessDenied" | "UnsupportedCertificate" => {
            CliError::new(codes::WRONG_CLUSTER, format!("{endpoint} refuses this certificate"))
                .why("it was not signed by the authority that the node trusts")
                .why(format!("TLS alert {name}"))
                .next("hactl context list", "which cluster is this context of?")
        }
        _ => return None,
    }))
}

fn root_cause(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(code: codes::Code) -> Status {
        let detail = ErrorDetail {
            code: code.id.into(),
            message: "m".into(),
            retryable: code.retryable,
            ..ErrorDetail::default()
        };
        let mut metadata = tonic::metadata::MetadataMap::new();
        metadata.insert_bin(
            ha_proto::ERROR_DETAIL,
            tonic::metadata::MetadataValue::from_bytes(&detail.encode_to_vec()),
        );
        Status::with_metadata(Code::Unavailable, "s", metadata)
    }

    #[test]
    fn what_is_tried_again_and_where() {
        assert!(matches!(sort(&with(codes::NO_MASTER), "e"), Fault::Again(_)));
        assert!(matches!(sort(&with(codes::NO_COORDINATOR), "e"), Fault::Elsewhere(_)));
        assert!(matches!(sort(&with(codes::NODE_EXISTS), "e"), Fault::Final(_)));
        assert!(matches!(sort(&with(codes::SLOW_WATCHER), "e"), Fault::Final(_)));
        assert!(matches!(sort(&Status::unavailable("x"), "e"), Fault::Elsewhere(_)));
        assert!(matches!(sort(&Status::unimplemented("x"), "e"), Fault::Final(_)));
        assert!(
            sort(&Status::permission_denied("x"), "e")
                .into_error()
                .is(codes::DENIED)
        );
    }
}
