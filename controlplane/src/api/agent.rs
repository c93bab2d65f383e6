//! The link of each node's agent to the master: reports come in, what happened goes out.
//!
//! A link belongs to the node in its certificate and to nobody else. Its end is told to the master exactly once.

use std::time::Duration;

use futures::StreamExt as _;
use ha_proto::v1::agent_service_server::AgentService;
use ha_proto::{codes, v1};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{Answers, Context, caller};
use crate::error::ApiError;
use crate::master::handle::{Command, Handle, HubQuery};

/// Within this time a link's first report must be there.
const FIRST_REPORT: Duration = Duration::from_secs(5);
/// What of a report is believed at most.
const MAX_CONDITIONS: usize = 32;
const MAX_DENIED: usize = 32;
const MAX_LINE: usize = 300;

pub(crate) struct AgentApi(pub(crate) Context);

/// A link that is open.
struct Link {
    handle: Handle,
    node: String,
    stream: u64,
}

#[tonic::async_trait]
impl AgentService for AgentApi {
    type ReportStream = Answers<v1::MasterMessage>;

    async fn report(
        &self,
        request: Request<Streaming<v1::AgentReport>>,
    ) -> Result<Response<Self::ReportStream>, Status> {
        let handle = self.0.elected().await?;
        let node = caller(&request)?.identity.name().to_owned();
        let mut reports = request.into_inner();
        let first = tokio::time::timeout(FIRST_REPORT, reports.message()).await;
        let first = first.map_err(|_| no_report())??.ok_or_else(no_report)?;
        let link = Link {
            handle: handle.clone(),
            node: node.clone(),
            stream: self.0.next_stream(),
        };
        let first = link.tidy(first)?;
        let (cursor, stream) = (first.cursor, link.stream);
        handle
            .tell(Command::Attached {
                node: node.clone(),
                stream,
            })
            .await?;
        let messages = handle
            .ask(|reply| HubQuery::Agent {
                node: node.clone(),
                cursor,
                reply,
            })
            .await
            .and_then(|admitted| admitted);
        let messages = match messages {
            Ok(messages) => messages,
            Err(e) => {
                link.detach().await;
                return Err(e.into());
            }
        };
        tracing::debug!(node, stream, cursor, "agent attached");
        // Whichever direction ends first ends the other.
        let gone = CancellationToken::new();
        let (closed, failure) = tokio::sync::oneshot::channel();
        let task_gone = gone.clone();
        tokio::spawn(async move {
            let outcome = tokio::select! {
                () = task_gone.cancelled() => None,
                outcome = link.read(first, reports) => outcome.err(),
            };
            link.detach().await;
            let _ = closed.send(outcome);
        });
        let context = self.0.clone();
        let guard = gone.drop_guard();
        let end = futures::stream::once(async move { Err(Status::from(context.electing())) });
        let failed = futures::stream::once(async move {
            let _held = guard;
            failure.await.ok().flatten().map(|e| Err(Status::from(e)))
        });
        let messages = ReceiverStream::new(messages).map(Ok).chain(end).map(Some);
        // The reports' end, with or without an error, ends the messages; an error among the messages ends them too.
        let answers = futures::stream::select(messages, failed).take_while(|item| std::future::ready(item.is_some()));
        Ok(Response::new(Box::pin(answers.filter_map(std::future::ready))))
    }
}

impl Link {
    /// Hands reports to the master until the node closes the link (`Ok`) or something is wrong.
    async fn read(&self, first: v1::AgentReport, mut reports: Streaming<v1::AgentReport>) -> Result<(), ApiError> {
        let mut next = Some(first);
        while let Some(report) = next {
            let report = Box::new(report);
            self.handle
                .tell(Command::Report {
                    stream: self.stream,
                    report,
                })
                .await?;
            next = match reports.message().await {
                Ok(Some(report)) => Some(self.tidy(report)?),
                Ok(None) => None,
                Err(status) => {
                    tracing::debug!(
                        node = self.node,
                        stream = self.stream,
                        "link broken: {}",
                        status.message()
                    );
                    None
                }
            };
        }
        Ok(())
    }

    async fn detach(&self) {
        tracing::debug!(node = self.node, stream = self.stream, "agent detached");
        let command = Command::Detached {
            node: self.node.clone(),
            stream: self.stream,
        };
        // A master that has ended needs no word of it.
        let _ = self.handle.tell(command).await;
    }

    /// The report, held to what it may say.
    fn tidy(&self, mut report: v1::AgentReport) -> Result<v1::AgentReport, ApiError> {
        if report.node != self.node {
            tracing::warn!(node = self.node, "link refused: it reports for another node");
            return Err(ApiError::new(
                &codes::DENIED,
                format!("node {} may not report for another", self.node),
            ));
        }
        report.conditions.truncate(MAX_CONDITIONS);
        report.denied.truncate(MAX_DENIED);
        let lines = report.conditions.iter_mut();
        let lines = lines.chain([
            &mut report.version,
            &mut report.os,
            &mut report.boot_id,
            &mut report.http_address,
        ]);
        let denied = report
            .denied
            .iter_mut()
            .flat_map(|d| [&mut d.actor, &mut d.method, &mut d.why, &mut d.peer]);
        for line in lines.chain(denied) {
            if line.len() > MAX_LINE || line.chars().any(char::is_control) {
                *line = line.chars().filter(|c| !c.is_control()).take(MAX_LINE).collect();
            }
        }
        Ok(report)
    }
}

fn no_report() -> ApiError {
    ApiError::new(&codes::BAD_VALUE, "a link begins with a report")
}
