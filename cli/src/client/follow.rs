//! Following an operation to its end, across the loss of the node or the master that told of it.

use std::time::{Duration, Instant};

use ha_proto::codes;
use ha_proto::v1::{GetOperationRequest, Operation};
use tokio_stream::StreamExt as _;

use super::Client;
use crate::error::CliError;

/// Watches an operation until it is finished or `seen`, which is called at each change, returns true.
///
/// # Errors
/// `HA0104` if that takes longer than `limit`: the operation goes on. `HA0501` if there is none of this id.
pub async fn operation(
    client: &mut Client,
    id: &str,
    limit: Duration,
    mut seen: impl FnMut(&Operation) -> bool,
) -> Result<Operation, CliError> {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::ZERO;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let watched = tokio::time::timeout(left, once(client, id, &mut seen)).await;
        match watched {
            Ok(Ok(Some(op))) => return Ok(op),
            // The stream ended before the operation did: the node or the master is gone.
            Ok(Ok(None)) => {}
            Ok(Err(error)) if error.retryable() && Instant::now() < deadline => {
                client.notes().detail(&error.to_string());
            }
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(timed_out(id, limit)),
        }
        pause = (pause * 2).clamp(Duration::from_millis(20), Duration::from_millis(500));
        tokio::time::sleep(pause.min(deadline.saturating_duration_since(Instant::now()))).await;
    }
}

async fn once(
    client: &mut Client,
    id: &str,
    seen: &mut impl FnMut(&Operation) -> bool,
) -> Result<Option<Operation>, CliError> {
    let mut stream = client
        .watch_operation(GetOperationRequest { id: id.to_owned() })
        .await?;
    while let Some(next) = stream.next().await {
        let op = next.map_err(|status| client.stream_error(&status))?;
        let enough = seen(&op);
        if enough || op.state().is_final() {
            return Ok(Some(op));
        }
    }
    Ok(None)
}

fn timed_out(id: &str, limit: Duration) -> CliError {
    CliError::new(
        codes::TIMEOUT,
        format!("operation {id} is still running after {} s", limit.as_secs()),
    )
    .next(format!("hactl op wait {id}"), "wait for it again")
    .next(format!("hactl op cancel {id}"), "end it")
    .detail("operation", id.to_owned())
}
