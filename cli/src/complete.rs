//! Names for the shell's completion: from the server if it answers within 200 ms, else those last seen.
//!
//! Never an error, never a word on the terminal: a shell is asking.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::time::Duration;

use clap_complete::engine::{ArgValueCandidates, ArgValueCompleter, CompletionCandidate};
use ha_proto::v1::{ListGroupsRequest, ListNodesRequest, ListOperationsRequest, ListUsersRequest};

use crate::client::Client;
use crate::context::{Context, Store};
use crate::output::notes::Notes;

/// What the server gets to answer in.
const LIMIT: Duration = Duration::from_millis(200);

/// Names of contexts.
pub(crate) fn contexts() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates(Store::open().and_then(|store| store.names()).unwrap_or_default()))
}

/// Names of nodes.
pub(crate) fn nodes() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates(names(Kind::Node)))
}

/// Names of users.
pub(crate) fn users() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates(names(Kind::User)))
}

/// Ids of operations.
pub(crate) fn operations() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates(names(Kind::Operation)))
}

/// Names of database groups.
pub(crate) fn groups() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates(names(Kind::Group)))
}

/// What a node can be in a group.
pub(crate) fn instance_roles() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates(["primary", "sync", "async", "none"].map(str::to_owned).to_vec()))
}

/// Settings of a group that have a name of their own.
pub(crate) fn settings() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let group = crate::commands::explain::KINDS.iter().find(|k| k.name == "group");
        let fields = group.map_or(&[][..], |k| k.fields).iter();
        let spec = fields.filter_map(|f| f.path.strip_prefix("spec."));
        let single = spec.filter(|path| !path.contains('[') && *path != "parameters");
        candidates(single.map(|path| format!("{path}=")).collect())
    })
}

/// What `wait` waits for: KIND/NAME.
pub(crate) fn targets() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let current = current.to_str().unwrap_or_default();
        let full = |kind: &str, names: Vec<String>| names.into_iter().map(|n| format!("{kind}/{n}")).collect();
        let all: Vec<String> = match current.split_once('/') {
            Some(("node", _)) => full("node", names(Kind::Node)),
            Some(("op", _)) => full("op", names(Kind::Operation)),
            Some(("master", _)) => full("master", names(Kind::Node)),
            Some(("db", rest)) => match rest.split_once('/') {
                Some((group, _)) => full(&format!("db/{group}"), names(Kind::Node)),
                None => full("db", names(Kind::Group)),
            },
            _ => ["node/", "op/", "db/", "cluster", "master"].map(str::to_owned).to_vec(),
        };
        candidates(all.into_iter().filter(|name| name.starts_with(current)).collect())
    })
}

/// Kinds, fields and codes that `explain` knows.
pub(crate) fn topics() -> ArgValueCandidates {
    ArgValueCandidates::new(|| candidates(crate::commands::explain::topics()))
}

fn candidates(names: Vec<String>) -> Vec<CompletionCandidate> {
    names.into_iter().map(CompletionCandidate::new).collect()
}

#[derive(Clone, Copy)]
enum Kind {
    Node,
    User,
    Operation,
    Group,
}

fn names(kind: Kind) -> Vec<String> {
    let words: Vec<String> = std::env::args().collect();
    let wanted = context_in(&words)
        .or_else(|| std::env::var("HACTL_CONTEXT").ok())
        .filter(|c| !c.is_empty());
    let Ok(context) = Store::open().and_then(|store| store.select(wanted.as_deref())) else {
        return Vec::new();
    };
    let Some(names) = ask(&context, kind) else {
        let cache = context.cache();
        return match kind {
            Kind::Node => cache.nodes,
            Kind::User => cache.users,
            Kind::Operation => cache.operations,
            Kind::Group => cache.groups,
        };
    };
    context.update_cache(|cache| {
        let slot = match kind {
            Kind::Node => &mut cache.nodes,
            Kind::User => &mut cache.users,
            Kind::Operation => &mut cache.operations,
            Kind::Group => &mut cache.groups,
        };
        slot.clone_from(&names);
    });
    names
}

/// The `--context` of the line that is being completed.
fn context_in(words: &[String]) -> Option<String> {
    let after = words
        .iter()
        .position(|w| w == "--context")
        .and_then(|at| words.get(at + 1))
        .cloned();
    after.or_else(|| {
        words
            .iter()
            .find_map(|w| w.strip_prefix("--context="))
            .map(str::to_owned)
    })
}

fn ask(context: &Context, kind: Kind) -> Option<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    let answer = runtime.block_on(async {
        let mut client = Client::new(context, &[], LIMIT, Notes::silent()).ok()?;
        let names = async {
            let names: BTreeSet<String> = match kind {
                Kind::Node => {
                    let answer = client.list_nodes(ListNodesRequest::default()).await.ok()?;
                    answer.nodes.into_iter().map(|n| n.name).collect()
                }
                Kind::User => {
                    let answer = client.list_users(ListUsersRequest::default()).await.ok()?;
                    answer
                        .users
                        .into_iter()
                        .filter(|u| u.kind != "node")
                        .map(|u| u.name)
                        .collect()
                }
                Kind::Operation => {
                    let answer = client.list_operations(ListOperationsRequest::default()).await.ok()?;
                    answer.operations.into_iter().map(|o| o.id).collect()
                }
                Kind::Group => {
                    let answer = client.list_groups(ListGroupsRequest {}).await.ok()?;
                    answer.groups.into_iter().map(|g| g.name).collect()
                }
            };
            Some(names.into_iter().collect())
        };
        tokio::time::timeout(LIMIT, names).await.ok().flatten()
    });
    runtime.shutdown_background();
    answer
}
