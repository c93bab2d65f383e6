//! One method for each call of the API.

use std::time::Duration;

use ha_proto::v1::*;
use tonic::Streaming;

use super::{Client, MESSAGE_LIMIT};
use crate::error::CliError;

use cluster_service_client::ClusterServiceClient;
use database_service_client::DatabaseServiceClient;
use event_service_client::EventServiceClient;
use local_service_client::LocalServiceClient;
use node_service_client::NodeServiceClient;
use operation_service_client::OperationServiceClient;
use user_service_client::UserServiceClient;

macro_rules! reads {
    ($($(#[$doc:meta])* $name:ident($service:ident, $request:ty) -> $answer:ty;)*) => {
        impl Client {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// What the node said, or why none answered.
            pub async fn $name(&mut self, request: $request) -> Result<$answer, CliError> {
                self.read(|channel, limit| {
                    let mut request = tonic::Request::new(request.clone());
                    request.set_timeout(limit);
                    async move {
                        $service::new(channel).max_decoding_message_size(MESSAGE_LIMIT).$name(request).await
                    }
                })
                .await
            }
        )*}
    };
}

macro_rules! streams {
    ($($(#[$doc:meta])* $name:ident($service:ident, $request:ty) -> $answer:ty;)*) => {
        impl Client {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// What the node said, or why none answered.
            pub async fn $name(&mut self, request: $request) -> Result<Streaming<$answer>, CliError> {
                self.read(|channel, _: Duration| {
                    let request = request.clone();
                    async move {
                        $service::new(channel).max_decoding_message_size(MESSAGE_LIMIT).$name(request).await
                    }
                })
                .await
            }
        )*}
    };
}

macro_rules! changes {
    ($($(#[$doc:meta])* $name:ident($service:ident, $request:ty) -> $answer:ty;)*) => {
        impl Client {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// What the node said, or why none answered.
            pub async fn $name(&mut self, request: $request) -> Result<$answer, CliError> {
                self.change(request, |channel, request| async move {
                    $service::new(channel).max_decoding_message_size(MESSAGE_LIMIT).$name(request).await
                })
                .await
            }
        )*}
    };
}

reads! {
    /// The whole state as the master sees it.
    get_state(ClusterServiceClient, GetStateRequest) -> ClusterState;
    /// What the cluster finds wrong with itself.
    doctor(ClusterServiceClient, DoctorRequest) -> DoctorReport;
    /// All nodes.
    list_nodes(NodeServiceClient, ListNodesRequest) -> ListNodesResponse;
    /// One node.
    get_node(NodeServiceClient, GetNodeRequest) -> Node;
    /// All users and nodes with certificates.
    list_users(UserServiceClient, ListUsersRequest) -> ListUsersResponse;
    /// Entries of the change log.
    list_changes(EventServiceClient, ListChangesRequest) -> ListChangesResponse;
    /// All operations that are kept.
    list_operations(OperationServiceClient, ListOperationsRequest) -> ListOperationsResponse;
    /// One operation.
    get_operation(OperationServiceClient, GetOperationRequest) -> Operation;
    /// All database groups.
    list_groups(DatabaseServiceClient, ListGroupsRequest) -> ListGroupsResponse;
    /// One database group.
    get_group(DatabaseServiceClient, GetGroupRequest) -> Group;
    /// What is wanted of a group, and what is in force.
    get_config(DatabaseServiceClient, GetConfigRequest) -> GroupConfig;
    /// A group's changes of primary.
    history(DatabaseServiceClient, HistoryRequest) -> HistoryResponse;
    /// Why a group is as it is.
    explain(DatabaseServiceClient, ExplainRequest) -> Explanation;
    /// Who answers, and as whom the caller is known there.
    get_info(LocalServiceClient, GetInfoRequest) -> Info;
}

streams! {
    /// The change log from a sequence number on, then live.
    follow_changes(EventServiceClient, FollowChangesRequest) -> Change;
    /// An operation now and at each change, until it is finished.
    watch_operation(OperationServiceClient, GetOperationRequest) -> Operation;
}

changes! {
    /// Switches maintenance on or off.
    set_maintenance(ClusterServiceClient, SetMaintenanceRequest) -> ChangeResult;
    /// Hands mastership over; an operation.
    transfer_master(ClusterServiceClient, TransferMasterRequest) -> ChangeResult;
    /// Adds a node.
    add_node(NodeServiceClient, AddNodeRequest) -> ChangeResult;
    /// Removes a node that is not online.
    remove_node(NodeServiceClient, RemoveNodeRequest) -> ChangeResult;
    /// Changes what is wanted of a node.
    update_node(NodeServiceClient, UpdateNodeRequest) -> ChangeResult;
    /// Cordons and empties a node; an operation.
    drain_node(NodeServiceClient, DrainNodeRequest) -> ChangeResult;
    /// Makes a user's certificate known.
    record_user(UserServiceClient, RecordUserRequest) -> ChangeResult;
    /// Revokes all certificates of a user or node.
    revoke_user(UserServiceClient, RevokeUserRequest) -> ChangeResult;
    /// Makes a database group; an operation.
    create_group(DatabaseServiceClient, CreateGroupRequest) -> ChangeResult;
    /// Removes a database group; an operation.
    remove_group(DatabaseServiceClient, RemoveGroupRequest) -> ChangeResult;
    /// Assigns a node its place in a group; an operation.
    assign_instance(DatabaseServiceClient, AssignInstanceRequest) -> ChangeResult;
    /// Makes another instance primary, in order; an operation.
    switchover(DatabaseServiceClient, SwitchoverRequest) -> ChangeResult;
    /// Gives the primary up; an operation.
    failover(DatabaseServiceClient, FailoverRequest) -> FailoverResult;
    /// Copies an instance afresh; an operation.
    reinit(DatabaseServiceClient, ReinitRequest) -> ChangeResult;
    /// Restarts instances; an operation.
    restart(DatabaseServiceClient, RestartRequest) -> ChangeResult;
    /// Pauses a group, or resumes it.
    pause(DatabaseServiceClient, PauseRequest) -> ChangeResult;
    /// Changes what is wanted of a group.
    set_config(DatabaseServiceClient, SetConfigRequest) -> ChangeResult;
    /// Ends an operation.
    cancel_operation(OperationServiceClient, CancelOperationRequest) -> ChangeResult;
    /// A certificate request of a node for a new key.
    request_certificate(LocalServiceClient, RequestCertificateRequest) -> CertificateRequest;
    /// Gives a node the certificate that answers its request.
    install_certificate(LocalServiceClient, InstallCertificateRequest) -> ChangeResult;
}
