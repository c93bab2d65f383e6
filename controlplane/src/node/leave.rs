//! `had leave`: tells the daemon of this machine, with the node's own certificate, that its node goes for good.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ha_proto::v1::local_service_client::LocalServiceClient;
use ha_proto::{ERROR_DETAIL, REQUEST_ID, codes, v1};
use prost::Message as _;

use super::{Overrides, load, prepare};
use crate::error::ApiError;
use crate::platform::{DirLock, SystemClock};
use crate::security::{NodeBundle, Security};

/// How long leaving may take; an election in between takes the session timeout.
const LIMIT: Duration = Duration::from_secs(30);
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(300);
/// How long the daemon's end is waited for.
const END: Duration = Duration::from_secs(5);

/// Makes the node leave its cluster and its daemon end. Returns what happened, one line each.
///
/// # Errors
/// [`codes::NO_CONTROL`] if the daemon does not answer; otherwise what the cluster refuses it with.
pub fn leave(overrides: &Overrides, reason: &str) -> Result<Vec<String>, ApiError> {
    let config = load(overrides)?;
    let bundle = NodeBundle::read(&config.bundle)?;
    let security = Security::new(&bundle, &config.bundle, &config.state_dir, Arc::new(SystemClock))?;
    let address = prepare::loopback(config.grpc_listen(&bundle.address)?).to_string();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| ApiError::new(&codes::INTERNAL, "the runtime cannot be started").why(e.to_string()))?;
    let request = v1::LeaveRequest {
        options: Some(v1::ChangeOptions {
            reason: reason.to_owned(),
            ..Default::default()
        }),
    };
    runtime.block_on(ask(&security, &bundle.name, &address, request))?;
    let mut lines = vec![format!("node {} has left cluster {}", bundle.name, bundle.cluster)];
    let begun = Instant::now();
    while begun.elapsed() < END {
        // The directory is free as soon as the daemon has ended.
        match DirLock::acquire(&config.state_dir) {
            Ok(Some(_)) => {
                lines.push("its daemon has ended".to_owned());
                return Ok(lines);
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(50)),
            Err(_) => break,
        }
    }
    lines.push("its daemon is ending".to_owned());
    Ok(lines)
}

async fn ask(security: &Security, node: &str, address: &str, request: v1::LeaveRequest) -> Result<(), ApiError> {
    let channel = security.dialer().channel(node, address)?;
    let mut client = LocalServiceClient::new(channel);
    let id = uuid::Uuid::new_v4().to_string();
    let begun = Instant::now();
    loop {
        let mut onward = tonic::Request::new(request.clone());
        if let Ok(id) = id.parse() {
            // The same at each attempt, so that they are one change.
            onward.metadata_mut().insert(REQUEST_ID, id);
        }
        let why = match tokio::time::timeout(ATTEMPT, client.leave(onward)).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(status)) => match detail(&status) {
                Some((e, true)) if begun.elapsed() < LIMIT => {
                    tracing::debug!("not yet: {e}");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Some((e, _)) => return Err(e),
                None => reasons(&status),
            },
            Err(_) => vec![format!("it did not answer within {} s", ATTEMPT.as_secs())],
        };
        let e = ApiError::new(
            &codes::NO_CONTROL,
            format!("the daemon of node {node} cannot be reached at {address}"),
        );
        return Err(why.into_iter().fold(e, ApiError::why).next("systemctl status had"));
    }
}

/// The error that the daemon answered, and whether trying again may help.
fn detail(status: &tonic::Status) -> Option<(ApiError, bool)> {
    let bytes = status.metadata().get_bin(ERROR_DETAIL)?.to_bytes().ok()?;
    let detail = v1::ErrorDetail::decode(bytes).ok()?;
    let code = codes::find(&detail.code).unwrap_or(&codes::INTERNAL);
    let mut e = ApiError::new(code, detail.message);
    (e.why, e.next) = (detail.why, detail.next);
    Some((e, detail.retryable))
}

/// Why a call did not get through, down to the cause.
fn reasons(status: &tonic::Status) -> Vec<String> {
    let mut reasons = Vec::new();
    let mut source = std::error::Error::source(status);
    while let Some(cause) = source {
        let text = cause.to_string();
        if text != "transport error" && !reasons.contains(&text) {
            reasons.push(text);
        }
        source = cause.source();
    }
    if reasons.is_empty() {
        reasons.push(status.message().to_owned());
    }
    reasons
}
