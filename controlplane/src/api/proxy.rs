//! Calls that another node answers: passed on as they are, both ways, with the caller's identity beside them.
//!
//! Requests are not read and answers are not kept: whatever streams, streams through. A call is never sent twice.

use ha_proto::{FORWARDED_HOPS, FORWARDED_IDENTITY, REQUEST_ID, codes};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tower::ServiceExt as _;

use super::Context;
use super::peer::{FORWARDED_SERIAL, Via};
use crate::coordination::SessionState;
use crate::error::ApiError;

/// What is passed on of a call's metadata.
const PASSED: [&str; 6] = [
    "content-type",
    "te",
    "grpc-timeout",
    "grpc-encoding",
    "grpc-accept-encoding",
    REQUEST_ID,
];

impl Context {
    /// Why there is no master to ask.
    pub(crate) fn electing(&self) -> ApiError {
        let me = &self.shared.me.node;
        let session = self.shared.session.borrow().clone();
        let lost = match session {
            SessionState::Live => {
                let master = self.shared.master.borrow();
                let e = ApiError::new(&codes::NO_MASTER, "the cluster is electing a master");
                return match &master.holder {
                    Some(holder) if holder.node == *me => e.why(format!(
                        "{me} is taking mastership over, or has just lost it (term {})",
                        master.term
                    )),
                    Some(holder) => e.why(format!(
                        "the last one known to {me} is {} (term {})",
                        holder.node, master.term
                    )),
                    None => e.why(format!("the master of term {} gave up its place", master.term)),
                };
            }
            SessionState::Suspended => "its connection to ZooKeeper is broken".to_owned(),
            SessionState::Lost(why) => format!("its ZooKeeper session is over: {why}"),
        };
        ApiError::new(&codes::NO_COORDINATOR, format!("node {me} has no ZooKeeper session"))
            .why(lost)
            .next("hactl cluster doctor")
    }

    /// A channel to the master, which is not this node, with its name and address.
    pub(crate) fn master_channel(&self) -> Result<(Channel, String), ApiError> {
        let holder = self.shared.master.borrow().holder.clone();
        let holder = holder
            .filter(|h| h.node != self.shared.me.node)
            .ok_or_else(|| self.electing())?;
        let channel = self.security.dialer().channel(&holder.node, &holder.address)?;
        Ok((channel, format!("{} at {}", holder.node, holder.address)))
    }

    /// Passes a call on to the master. `changes` says whether the call changes anything.
    pub(crate) async fn to_master(
        &self,
        via: &Via,
        request: Request<Body>,
        changes: bool,
    ) -> Result<Response<Body>, ApiError> {
        let (channel, master) = self.master_channel()?;
        self.metrics.forwarded.inc();
        let (parts, body) = request.into_parts();
        let mut onward = Request::new(body);
        *onward.method_mut() = parts.method;
        *onward.version_mut() = http::Version::HTTP_2;
        // The channel puts its own scheme and authority in front.
        *onward.uri_mut() = parts
            .uri
            .path()
            .parse()
            .map_err(|_| ApiError::new(&codes::BAD_VALUE, "malformed path"))?;
        *onward.headers_mut() = onward_headers(via, &parts.headers)?;
        channel
            .oneshot(onward)
            .await
            .map_err(|e| self.unanswered(&e, &master, changes))
    }

    /// What a call that got no answer is told as.
    pub(crate) fn unanswered(&self, e: &(dyn std::error::Error + 'static), node: &str, changes: bool) -> ApiError {
        let me = &self.shared.me.node;
        let why = root_cause(e);
        if chain(e).any(<dyn std::error::Error>::is::<tonic::TimeoutExpired>) {
            return ApiError::new(&codes::TIMEOUT, format!("{node} did not answer in time"));
        }
        if !was_sent(e) {
            return ApiError::new(&codes::NO_MASTER, format!("node {me} cannot reach {node}")).why(why);
        }
        broken(changes)().why(format!("{node}: {why}"))
    }
}

/// What a connection is told as that broke before the answer was complete.
pub(crate) fn broken(changes: bool) -> fn() -> ApiError {
    if changes {
        || {
            ApiError::new(
                &codes::OUTCOME_UNKNOWN,
                "the node that was asked fell silent before its answer",
            )
            .next("hactl event list     shows whether the change was made")
        }
    } else {
        || {
            ApiError::new(
                &codes::NO_MASTER,
                "the node that was asked fell silent before its answer",
            )
        }
    }
}

/// An error and what it came from.
fn chain<'a>(e: &'a (dyn std::error::Error + 'static)) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(e), |e| e.source())
}

/// Whether anything of the call may have reached the other node.
fn was_sent(e: &(dyn std::error::Error + 'static)) -> bool {
    !chain(e).any(<dyn std::error::Error>::is::<tonic::ConnectError>)
}

fn root_cause(e: &(dyn std::error::Error + 'static)) -> String {
    chain(e).last().unwrap_or(e).to_string()
}

fn onward_headers(via: &Via, from: &HeaderMap) -> Result<HeaderMap, ApiError> {
    let mut headers = HeaderMap::new();
    for name in PASSED {
        if let Some(value) = from.get(name) {
            headers.insert(name, value.clone());
        }
    }
    headers.insert(
        header::USER_AGENT,
        HeaderValue::from_static(concat!("had/", env!("CARGO_PKG_VERSION"))),
    );
    vouch(via, &mut headers)?;
    Ok(headers)
}

/// Vouches for the caller of a call that is passed on. Nodes are not vouched for.
fn vouch(via: &Via, headers: &mut HeaderMap) -> Result<(), ApiError> {
    if via.identity.role().is_none() {
        return Ok(());
    }
    let entries = [
        (FORWARDED_IDENTITY, via.identity.vouched()),
        (FORWARDED_SERIAL, via.serial.clone()),
        (FORWARDED_HOPS, (via.hops + 1).to_string()),
    ];
    for (name, value) in entries {
        let value = HeaderValue::try_from(value).map_err(|_| ApiError::new(&codes::BAD_VALUE, "malformed identity"))?;
        headers.insert(name, value);
    }
    Ok(())
}

/// A message for another node, with the caller vouched for.
pub(crate) fn onward<T>(message: T, via: &Via, request_id: &str) -> Result<tonic::Request<T>, ApiError> {
    let mut headers = HeaderMap::new();
    vouch(via, &mut headers)?;
    if let Ok(id) = HeaderValue::try_from(request_id)
        && !request_id.is_empty()
    {
        headers.insert(REQUEST_ID, id);
    }
    let mut request = tonic::Request::new(message);
    *request.metadata_mut() = MetadataMap::from_headers(headers);
    Ok(request)
}
