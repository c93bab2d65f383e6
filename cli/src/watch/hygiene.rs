//! Every string of every message of the stream is made harmless where it enters, so that no view has to think of it.
//!
//! Each message is taken apart field by field: one that gains a field does not compile until it is decided here.

use std::collections::BTreeMap;

use ha_proto::v1::{
    Alert, AlertList, Change, ClusterState, DatabaseRoleSpec, DatabaseSpec, Delta, DurabilityRule, Group, GroupPause,
    GroupRecord, GroupSpec, HistoryEntry, HistoryPhase, Instance, InstanceSpec, Maintenance, Master, Node,
    NodeInstance, NodeSpec, NodeStatus, PendingRestart, ProxyStatus, ZooKeeperList, ZooKeeperServer,
};

use super::text::clean;

/// A message whose strings can be made harmless.
pub(crate) trait Clean {
    /// Makes them harmless.
    fn clean(&mut self);
}

impl Clean for String {
    fn clean(&mut self) {
        clean(self);
    }
}

impl<T: Clean> Clean for Vec<T> {
    fn clean(&mut self) {
        self.iter_mut().for_each(Clean::clean);
    }
}

impl<T: Clean> Clean for Option<T> {
    fn clean(&mut self) {
        self.iter_mut().for_each(Clean::clean);
    }
}

impl Clean for BTreeMap<String, String> {
    fn clean(&mut self) {
        *self = std::mem::take(self)
            .into_iter()
            .map(|(mut key, mut value)| {
                key.clean();
                value.clean();
                (key, value)
            })
            .collect();
    }
}

macro_rules! messages {
    ($($message:ident { $($text:ident)* } without text { $($plain:ident)* })*) => {$(
        impl Clean for $message {
            fn clean(&mut self) {
                let Self { $($text,)* $($plain: _,)* } = self;
                $($text.clean();)*
            }
        }
    )*};
}

messages! {
    ClusterState { cluster cluster_id master zookeeper nodes alerts maintenance recent_changes databases }
        without text { revision observed_unix_ms session_timeout_ms }
    Delta { nodes removed_nodes changes alerts master maintenance zookeeper databases removed_databases }
        without text { revision }
    AlertList { alerts } without text {}
    ZooKeeperList { servers } without text {}
    Node { name spec status } without text { revision }
    NodeSpec { address labels scenarios }
        without text { capacity_override master_eligible master_preference cordoned draining }
    NodeStatus { reason version boot_id http_address conditions registered_address os databases }
        without text { state role state_since_unix_ms last_seen_unix_ms usage started_unix_ms
            certificate_expires_unix_ms clock_skew_ms restarting }
    Alert { id subject text hint } without text { severity since_unix_ms }
    Change { kind subject text before after cause actor } without text { seq time_unix_ms severity term }
    ZooKeeperServer { address mode version error } without text { reachable sync_timeout_ms }
    Maintenance { reason actor } without text { on until_unix_ms }
    Master { node address pinned } without text { term since_unix_ms }
    NodeInstance { group } without text { primary state }
    Group { name spec record problems instances proxies why_no_failover last_change operation_id }
        without text { health last_failover_unix_ms last_failover_gap_ms revision observed_unix_ms }
    GroupSpec { members directory parameters hba databases roles pause }
        without text { version durability instances port limits proxy }
    InstanceSpec { node directory } without text { role priority port }
    DatabaseSpec { name owner extensions } without text {}
    DatabaseRoleSpec { name verifier member_of } without text { has_password no_login createdb createrole }
    GroupPause { reason actor } without text { on until_unix_ms since_unix_ms }
    GroupRecord { primary rules granters reason former switching_to switching_step degraded }
        without text { term epoch phase applying timeline lineage system_id since_unix_ms version }
    DurabilityRule { voters primaries } without text { need id }
    Instance { node detail waits_for held_because not_eligible address version upstream errors pending_restart }
        without text { role priority chosen wanted_primary voter reported_unix_ms reported_primary state timeline lsn
            behind_bytes behind_ms sync lease_left_ms held_until_unix_ms data_bytes wal_bytes connections }
    PendingRestart { parameter current wanted } without text {}
    ProxyStatus { node address standby_address error } without text { connections waiting }
    HistoryEntry { from to phases reason actor decision operation_id error }
        without text { epoch kind started_unix_ms finished_unix_ms gap_ms timeline fork_lsn from_epoch lost_bytes }
    HistoryPhase { name text } without text { at_ms }
}
