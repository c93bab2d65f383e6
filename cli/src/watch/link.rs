//! The client as the dashboard uses it: the stream, and the changes that were confirmed. The only file here that knows it.

use ha_proto::v1::{
    ChangeOptions, ChangeResult, DrainNodeRequest, PauseRequest, ReinitRequest, SwitchoverRequest,
    TransferMasterRequest, UpdateNodeRequest, WatchFrame,
};
use tonic::{Status, Streaming};

use super::{
    act::{Act, Confirmed},
    conn::Source,
};
use crate::{client::Client, error::CliError};

/// Streams of a cluster.
pub(super) struct Link {
    client: Client,
    /// The endpoint that the last stream was opened at, or tried first.
    dialled: String,
}

impl Link {
    /// Streams of the client's cluster, over a connection of their own.
    pub(super) fn new(client: &Client) -> Self {
        Self {
            client: client.quiet(),
            dialled: String::new(),
        }
    }
}

impl Source for Link {
    type Frames = Streaming<WatchFrame>;

    fn endpoint(&self) -> String {
        self.client.endpoint().to_owned()
    }

    async fn open(&mut self, term: u64, seq: u64) -> Result<Self::Frames, CliError> {
        self.client.endpoint().clone_into(&mut self.dialled);
        let frames = self.client.watch(term, seq).await?;
        self.client.endpoint().clone_into(&mut self.dialled);
        Ok(frames)
    }

    fn fault(&mut self, status: &Status) -> CliError {
        self.client.stream_error(status)
    }

    fn rotate(&mut self) {
        // A failure may have turned the client to the next one already.
        if self.client.endpoint() == self.dialled {
            self.client.next_endpoint();
        }
    }
}

/// Sends a change. The client tries again inside its time limit, with the same request id.
pub(super) async fn perform(mut client: Client, confirmed: &Confirmed) -> Result<ChangeResult, CliError> {
    let options = Some(ChangeOptions {
        reason: "hactl watch".to_owned(),
        ..ChangeOptions::default()
    });
    match confirmed.act() {
        Act::Cordon { node, on } => {
            let name = node.clone();
            client
                .update_node(UpdateNodeRequest {
                    name,
                    cordoned: Some(*on),
                    options,
                    ..Default::default()
                })
                .await
        }
        Act::Drain { node, cancel } => {
            let name = node.clone();
            client
                .drain_node(DrainNodeRequest {
                    name,
                    cancel: *cancel,
                    deadline_ms: 0,
                    options,
                })
                .await
        }
        Act::Transfer { to } => {
            client
                .transfer_master(TransferMasterRequest {
                    to: to.clone(),
                    options,
                })
                .await
        }
        Act::Switchover { group, to } => {
            client
                .switchover(SwitchoverRequest {
                    group: group.clone(),
                    to: to.clone(),
                    at_unix_ms: 0,
                    options,
                })
                .await
        }
        Act::Reinit { group, node } => {
            client
                .reinit(ReinitRequest {
                    group: group.clone(),
                    node: node.clone(),
                    options,
                })
                .await
        }
        Act::Pause { group, on } => {
            client
                .pause(PauseRequest {
                    group: group.clone(),
                    on: *on,
                    until_unix_ms: 0,
                    options,
                })
                .await
        }
    }
}
