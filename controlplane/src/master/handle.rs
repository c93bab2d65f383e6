//! What the API calls of the master. A [`Handle`] exists only while this node acts as master; when mastership ends every
//! call on it fails with "electing" and its streams end.

use ha_proto::{codes, v1};
use tokio::sync::{mpsc, oneshot};

use super::databases::{GroupChange, Question};
use crate::error::ApiError;
use crate::security::Identity;

/// Who asks, and under which request id.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The identity in the caller's certificate, or in a proxied call the one a node vouches for.
    pub identity: Identity,
    /// A repeated change with the same id is the same change; empty if the caller gave none.
    pub request_id: String,
}

/// A change that only the master makes. Few are on their way at once, so the size of the largest costs nothing that counts.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)]
pub enum Request {
    /// Adds a node.
    AddNode(v1::AddNodeRequest),
    /// Removes a node.
    RemoveNode(v1::RemoveNodeRequest),
    /// A node goes for good, by its own word.
    LeaveNode {
        /// The node.
        name: String,
        /// The operator's reason.
        reason: String,
    },
    /// Changes a node's specification.
    UpdateNode(v1::UpdateNodeRequest),
    /// Drains a node, or ends that.
    DrainNode(v1::DrainNodeRequest),
    /// Switches maintenance.
    SetMaintenance(v1::SetMaintenanceRequest),
    /// Moves mastership.
    TransferMaster(v1::TransferMasterRequest),
    /// Records a user's certificate.
    RecordUser(v1::RecordUserRequest),
    /// Revokes certificates.
    RevokeUser(v1::RevokeUserRequest),
    /// Cancels an operation.
    CancelOperation(v1::CancelOperationRequest),
    /// A refused call, for the record.
    RecordDenied(v1::Denied),
    /// A change to a database group.
    Group(GroupChange),
}

/// What the master's task is told. The queue is bounded, so the size of the rare large variant costs nothing that counts.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)]
pub enum Command {
    /// A change, answered when it is stored.
    Change {
        /// Who asks.
        caller: Caller,
        /// What for.
        request: Request,
        /// The answer.
        reply: oneshot::Sender<Result<v1::ChangeResult, ApiError>>,
    },
    /// A node's agent opened its report stream.
    Attached {
        /// The node.
        node: String,
        /// Tells streams of one node apart.
        stream: u64,
    },
    /// The stream ended.
    Detached {
        /// The node.
        node: String,
        /// Which stream.
        stream: u64,
    },
    /// A report.
    Report {
        /// Which stream.
        stream: u64,
        /// The report.
        report: Box<v1::AgentReport>,
    },
    /// A question about a database group.
    Question(Question),
}

/// What the hub is asked.
#[derive(Debug)]
pub enum HubQuery {
    /// The whole state.
    State(oneshot::Sender<v1::ClusterState>),
    /// A watcher.
    Watch {
        /// Where it resumes.
        request: v1::WatchRequest,
        /// Its stream; ended with an error when it is too slow or mastership ends.
        reply: oneshot::Sender<mpsc::Receiver<Result<v1::WatchFrame, ApiError>>>,
    },
    /// Changes in order from a sequence number on (0: only new ones), without gaps.
    Follow {
        /// First number wanted.
        from_seq: u64,
        /// The stream.
        reply: oneshot::Sender<mpsc::Receiver<Result<v1::Change, ApiError>>>,
    },
    /// Kept changes.
    Changes(
        v1::ListChangesRequest,
        oneshot::Sender<Result<v1::ListChangesResponse, ApiError>>,
    ),
    /// Operations.
    Operations(oneshot::Sender<Vec<v1::Operation>>),
    /// One operation, live until it is finished.
    WatchOperation(String, oneshot::Sender<Result<mpsc::Receiver<v1::Operation>, ApiError>>),
    /// Users.
    Users(oneshot::Sender<Vec<v1::User>>),
    /// Findings.
    Doctor(oneshot::Sender<v1::DoctorReport>),
    /// The messages a node's agent receives.
    Agent {
        /// The node.
        node: String,
        /// The last change it has applied.
        cursor: u64,
        /// The stream, or why the node gets none.
        reply: oneshot::Sender<Result<mpsc::Receiver<v1::MasterMessage>, ApiError>>,
    },
}

/// A node's two-way link to the master.
#[derive(Debug)]
pub struct AgentLink {
    /// Number of the link.
    pub stream: u64,
    /// What the master sends.
    pub messages: mpsc::Receiver<v1::MasterMessage>,
}

/// The acting master, as the API sees it.
#[derive(Debug, Clone)]
pub struct Handle {
    /// Its term.
    pub term: u64,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) hub: mpsc::Sender<HubQuery>,
}

fn electing() -> ApiError {
    ApiError::new(&codes::NO_MASTER, "the cluster is electing a master").why("this node has just ceased to be master")
}

impl Handle {
    /// Makes a change.
    ///
    /// # Errors
    /// What the change was refused with, or [`codes::NO_MASTER`] when mastership ended before it was taken up, or
    /// [`codes::OUTCOME_UNKNOWN`] when it ended before the answer.
    pub async fn change(&self, caller: Caller, request: Request) -> Result<v1::ChangeResult, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.commands
            .send(Command::Change { caller, request, reply })
            .await
            .map_err(|_| electing())?;
        // Changes carry a request id, so trying again at the next master is safe.
        answer.await.unwrap_or_else(|_| Err(electing()))
    }

    /// Tells the master's task something that needs no answer.
    ///
    /// # Errors
    /// [`codes::NO_MASTER`] when mastership has ended.
    pub async fn tell(&self, command: Command) -> Result<(), ApiError> {
        self.commands.send(command).await.map_err(|_| electing())
    }

    /// Asks the hub.
    ///
    /// # Errors
    /// [`codes::NO_MASTER`] when mastership has ended.
    pub async fn ask<T>(&self, query: impl FnOnce(oneshot::Sender<T>) -> HubQuery) -> Result<T, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.hub.send(query(reply)).await.map_err(|_| electing())?;
        answer.await.map_err(|_| electing())
    }

    /// Asks the master's task about a database group.
    ///
    /// # Errors
    /// What the question was refused with, or [`codes::NO_MASTER`] when mastership has ended.
    pub async fn question<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<Result<T, ApiError>>) -> Question,
    ) -> Result<T, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.tell(Command::Question(question(reply))).await?;
        answer.await.unwrap_or_else(|_| Err(electing()))
    }
}
