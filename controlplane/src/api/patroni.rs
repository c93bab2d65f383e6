//! The checks of load balancers and monitoring, with the paths, answers and names of Patroni's REST API, so that what was
//! written for it works here: `/primary`, `/replica?lag=16MB`, `/patroni`, `/cluster` and the rest.
//!
//! The bare paths mean the node's only group, or the one named `main`; `/db/<group>/…` means that one. Nothing here decides
//! anything: it is told what this node's instances do and where clients belong.

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use serde_json::{Map, Value, json};

use super::http::{self, Context};
use crate::proxy::local::{Instance, Instances, Role};
use crate::proxy::routes::{Routes, StandbyState, Sync, Table};

/// The group that the bare paths mean on a node that has several.
const MAIN: &str = "main";
/// How far behind a standby may be to be ready, unless the request or the group says otherwise.
const READY_LAG: u64 = 1024 * 1024;

/// What follows `?`, in order.
type Params = Vec<(String, String)>;

/// The routes of this file. `/health` is among them, for it is both the node's and its instance's.
pub(super) fn routes() -> Router<Context> {
    fn all<H, T>(handler: H) -> MethodRouter<Context>
    where
        H: axum::handler::Handler<T, Context>,
        T: 'static,
    {
        get(handler.clone()).options(handler)
    }
    let root = |state, method, query| bare(state, method, Path("primary".to_owned()), query);
    Router::new()
        .route("/", all(root))
        .route("/{check}", all(bare))
        .route("/db/{group}", all(group_root))
        .route("/db/{group}/", all(group_root))
        .route("/db/{group}/{check}", all(of_group))
}

async fn bare(
    State(context): State<Context>,
    method: Method,
    Path(check): Path<String>,
    Query(query): Query<Params>,
) -> Response {
    let instances = context.shared.instances.borrow().clone();
    let routes = context.shared.routes.borrow().clone();
    let group = meant(&instances, &routes);
    if check == "health" && group.as_ref().is_none_or(|g| !instances.groups.contains_key(g)) {
        return bodiless(&method, http::node_health(&context));
    }
    answer(&context, &method, group.as_deref(), &check, &query)
}

async fn group_root(
    State(context): State<Context>,
    method: Method,
    Path(group): Path<String>,
    Query(query): Query<Params>,
) -> Response {
    answer(&context, &method, Some(&group), "primary", &query)
}

async fn of_group(
    State(context): State<Context>,
    method: Method,
    Path((group, check)): Path<(String, String)>,
    Query(query): Query<Params>,
) -> Response {
    let routes = context.shared.routes.borrow().clone();
    let instances = context.shared.instances.borrow().clone();
    if !routes.groups.contains_key(&group) && !instances.groups.contains_key(&group) {
        let text = format!("there is no group {group}\n");
        return bodiless(&method, (StatusCode::NOT_FOUND, text).into_response());
    }
    answer(&context, &method, Some(&group), &check, &query)
}

/// The group that the bare paths mean: the only one with an instance here, or `main`; without any instance here the only
/// one there is.
fn meant(instances: &Instances, routes: &Routes) -> Option<String> {
    let only = |mut names: Vec<&String>| match names.len() {
        0 | 1 => names.pop().cloned(),
        _ => Some(MAIN.to_owned()),
    };
    only(instances.groups.keys().collect()).or_else(|| only(routes.groups.keys().collect()))
}

/// An answer to OPTIONS is its status and nothing more; that of HEAD loses its body on the way out.
fn bodiless(method: &Method, response: Response) -> Response {
    if *method == Method::OPTIONS {
        return response.status().into_response();
    }
    response
}

fn answer(context: &Context, method: &Method, group: Option<&str>, check: &str, query: &Params) -> Response {
    let routes = context.shared.routes.borrow().clone();
    let instances = context.shared.instances.borrow().clone();
    let table = group.and_then(|g| routes.groups.get(g));
    let unknown = Instance {
        role: Role::Uninitialized,
        ..Instance::default()
    };
    let here = group.and_then(|g| instances.groups.get(g));
    let instance = here.unwrap_or(&unknown);
    let good = match check {
        // It answers, so it lives: neither ZooKeeper nor PostgreSQL being down is cured by killing the daemon.
        "liveness" => true,
        "readiness" => is_ready(instance, table, query),
        "patroni" => true,
        "cluster" => {
            let document = table.map(|t| cluster(context, group.unwrap_or_default(), t, instance));
            return bodiless(
                method,
                document.map_or_else(no_group, |d| json_answer(StatusCode::OK, &d)),
            );
        }
        check => match passes(check, instance, query) {
            Some(good) => good,
            None => return bodiless(method, StatusCode::NOT_FOUND.into_response()),
        },
    };
    let code = if good {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    if matches!(check, "liveness" | "readiness") {
        return code.into_response();
    }
    let mut document = status(context, group, instance);
    if check == "health" {
        // Who reads the node's own health finds all of it but the role, which is the instance's here.
        for (key, value) in http::document(context, good) {
            document.entry(key).or_insert(value);
        }
    }
    bodiless(method, json_answer(code, &Value::Object(document)))
}

fn no_group() -> Response {
    let document = json!({"members": []});
    json_answer(StatusCode::SERVICE_UNAVAILABLE, &document)
}

fn json_answer(code: StatusCode, document: &Value) -> Response {
    (
        code,
        [(header::CONTENT_TYPE, "application/json")],
        format!("{document}\n"),
    )
        .into_response()
}

/// Whether the instance passes a health check; none: there is no such check.
fn passes(check: &str, instance: &Instance, query: &Params) -> Option<bool> {
    let primary = instance.leader && instance.is_running() && instance.role == Role::Primary;
    let first = |key: &str| query.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
    let replica = || {
        let near = first("lag").is_none_or(|most| {
            // Neither a limit that cannot be read nor a distance that is not known is within the limit.
            bytes(most).is_some_and(|most| behind(instance, false).is_some_and(|lag| lag <= most))
        });
        let state = first("replication_state").is_none_or(|s| s.is_empty() || s == instance.replication_state);
        !instance.no_load_balance && near && state && instance.role == Role::Replica && instance.is_running()
    };
    let tagged = || {
        query.iter().all(|(key, value)| {
            let Some(tag) = key.strip_prefix("tag_") else {
                return true;
            };
            // Of a key that is given twice, the first counts.
            first(key) != Some(value) || instance.tags.get(tag) == Some(value)
        })
    };
    Some(match check {
        "primary" | "master" | "read-write" | "leader" => primary,
        // Standby clusters there are none.
        "standby-leader" | "standby_leader" => false,
        "replica" => replica() && tagged(),
        "read-only" => (primary || replica()) && tagged(),
        "sync" | "synchronous" => instance.sync == Sync::Sync && replica() && tagged(),
        "quorum" => instance.sync == Sync::Quorum && replica() && tagged(),
        "async" | "asynchronous" => instance.sync == Sync::Async && replica() && tagged(),
        "read-only-sync" | "read-only-synchronous" => (primary || instance.sync == Sync::Sync && replica()) && tagged(),
        "read-only-quorum" => (primary || instance.sync == Sync::Quorum && replica()) && tagged(),
        "health" => instance.is_running() && tagged(),
        _ => return None,
    })
}

/// Whether clients may be sent to it: the primary, or a standby that streams and is not far behind.
fn is_ready(instance: &Instance, table: Option<&Table>, query: &Params) -> bool {
    let first = |key: &str| query.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
    let most = match first("lag") {
        Some(lag) => bytes(lag),
        None => Some(table.and_then(|t| t.max_lag).unwrap_or(READY_LAG)),
    };
    let lag = behind(instance, first("mode") == Some("write"));
    let near = most.zip(lag).is_some_and(|(most, lag)| lag <= most);
    instance.is_running() && (instance.leader || instance.replication_state == "streaming" && near)
}

/// Bytes that the instance has not replayed, or not received, of what its primary is known to have written.
fn behind(instance: &Instance, received: bool) -> Option<u64> {
    let own = if received {
        instance.wal.received
    } else {
        instance.wal.replayed
    };
    (instance.primary_lsn > 0 && own > 0).then(|| instance.primary_lsn.saturating_sub(own))
}

/// A size as `1048576`, `16MB` or `1.5 GB`.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    let unit = match text[end..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" => 1024.0,
        "mb" => 1024.0 * 1024.0,
        "gb" => 1024.0 * 1024.0 * 1024.0,
        "tb" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Some((number * unit).round() as u64)
}

/// What `/patroni` and every health check say of an instance.
fn status(context: &Context, group: Option<&str>, instance: &Instance) -> Map<String, Value> {
    let mut document = Map::new();
    let mut put = |key: &str, value: Value| drop(document.insert(key.to_owned(), value));
    put("state", instance.state.word().into());
    put("role", instance.role.word().into());
    if instance.postmaster_start_ms > 0 {
        put("postmaster_start_time", time(instance.postmaster_start_ms));
    }
    if instance.version > 0 {
        put("server_version", instance.version.into());
    }
    if instance.is_running() {
        put("xlog", xlog(instance));
    }
    if instance.timeline > 0 {
        put("timeline", instance.timeline.into());
    }
    if !instance.replication_state.is_empty() {
        put("replication_state", instance.replication_state.as_str().into());
    }
    if !instance.replication.is_empty() {
        let senders = instance.replication.iter().map(|w| {
            json!({
                "usename": w.user,
                "application_name": w.application_name,
                "client_addr": w.client_addr,
                "state": w.state,
                "sync_state": w.sync_state,
                "sync_priority": w.sync_priority,
            })
        });
        put("replication", senders.collect());
    }
    if instance.role == Role::Replica {
        match instance.sync {
            Sync::Sync => put("sync_standby", true.into()),
            Sync::Quorum => put("quorum_standby", true.into()),
            Sync::Async => {}
        }
    }
    if instance.paused {
        put("pause", true.into());
    }
    if instance.unlocked {
        put("cluster_unlocked", true.into());
    }
    if instance.coordinator_seen_ms > 0 {
        put("dcs_last_seen", (instance.coordinator_seen_ms / 1000).into());
    }
    if !instance.tags.is_empty() {
        put("tags", tags(&instance.tags));
    }
    if instance.system_id > 0 {
        put("database_system_identifier", instance.system_id.to_string().into());
    }
    if !instance.pending_restart.is_empty() {
        put("pending_restart", true.into());
        let reasons = instance.pending_restart.iter().map(|p| {
            let values = json!({"old_value": p.old, "new_value": p.new});
            (p.parameter.clone(), values)
        });
        put("pending_restart_reason", Value::Object(reasons.collect()));
    }
    let me = &context.shared.me;
    let about = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "scope": scope(&me.cluster, group.unwrap_or_default()),
        "name": me.node,
    });
    put("patroni", about);
    document
}

fn xlog(instance: &Instance) -> Value {
    let wal = &instance.wal;
    match instance.role {
        Role::Primary => json!({"location": wal.location}),
        _ => json!({
            "received_location": wal.received,
            "replayed_location": wal.replayed,
            "replayed_timestamp": if wal.replayed_ms > 0 { time(wal.replayed_ms) } else { Value::Null },
            "paused": wal.paused,
        }),
    }
}

/// What `/cluster` says: every instance of the group, as far as this node knows.
fn cluster(context: &Context, group: &str, table: &Table, here: &Instance) -> Value {
    let mut members = Vec::new();
    let mut add = |server: &crate::proxy::routes::Server, role: &str, state: &str, timeline: u32| {
        let mut member = Map::new();
        member.insert("name".into(), server.node.as_str().into());
        member.insert("role".into(), role.into());
        member.insert("state".into(), state.into());
        if !server.http.is_empty() {
            let url = format!("http://{}/db/{group}/patroni", server.http);
            member.insert("api_url".into(), url.into());
        }
        if let Some((host, port)) = server.address.rsplit_once(':') {
            member.insert("host".into(), host.trim_matches(['[', ']']).into());
            if let Ok(port) = port.parse::<u16>() {
                member.insert("port".into(), port.into());
            }
        }
        if timeline > 0 {
            member.insert("timeline".into(), timeline.into());
        }
        if !server.tags.is_empty() {
            member.insert("tags".into(), tags(&server.tags));
        }
        members.push(member);
        members.len() - 1
    };
    if let Some(primary) = &table.primary {
        let state = if table.steady { "running" } else { "unknown" };
        let role = if table.steady { "leader" } else { "replica" };
        add(primary, role, state, table.timeline);
    }
    let mut standbys = Vec::new();
    for standby in &table.standbys {
        let role = match standby.sync {
            Sync::Sync => "sync_standby",
            Sync::Quorum => "quorum_standby",
            Sync::Async => "replica",
        };
        let state = match standby.state {
            StandbyState::Streaming => "streaming",
            StandbyState::Running => "running",
            StandbyState::Preparing => "starting",
            StandbyState::Down => "stopped",
        };
        standbys.push((add(&standby.server, role, state, standby.timeline), standby));
    }
    for (index, standby) in standbys {
        let member = &mut members[index];
        let unknown = || Value::from("unknown");
        let lag = standby.lag.map_or_else(unknown, Value::from);
        // How far the log was received follows from the two positions: the primary's end lies `lag` behind replay.
        let receive_lag = standby
            .lag
            .map(|lag| (standby.replayed + lag).saturating_sub(standby.received));
        member.insert("lag".into(), lag.clone());
        member.insert("replay_lag".into(), lag);
        let known = standby.received > 0;
        let receive_lag = receive_lag.filter(|_| known).map_or_else(unknown, Value::from);
        member.insert("receive_lag".into(), receive_lag);
        member.insert("lsn".into(), lsn(standby.replayed));
        member.insert("replay_lsn".into(), lsn(standby.replayed));
        member.insert("receive_lsn".into(), lsn(standby.received));
    }
    members.sort_by(|a, b| {
        a.get("name")
            .map(Value::to_string)
            .cmp(&b.get("name").map(Value::to_string))
    });
    let mut document = json!({
        "members": members,
        "scope": scope(&context.shared.me.cluster, group),
    });
    if table.paused || here.paused {
        document["pause"] = true.into();
    }
    document
}

fn scope(cluster: &str, group: &str) -> String {
    format!("{cluster}/{group}")
}

fn tags(tags: &BTreeMap<String, String>) -> Value {
    // As they would be read from a configuration file.
    let typed = tags.iter().map(|(key, value)| {
        let value = match value.as_str() {
            "true" => true.into(),
            "false" => false.into(),
            text => text.parse::<i64>().map_or_else(|_| Value::from(text), Value::from),
        };
        (key.clone(), value)
    });
    Value::Object(typed.collect())
}

fn lsn(position: u64) -> Value {
    if position == 0 {
        return "unknown".into();
    }
    format!("{:X}/{:X}", position >> 32, position & 0xffff_ffff).into()
}

/// As Patroni writes times: `2024-08-28 19:39:26.352526+00:00`.
fn time(ms: i64) -> Value {
    jiff::Timestamp::from_millisecond(ms).map_or(Value::Null, |t| {
        t.strftime("%Y-%m-%d %H:%M:%S.%6f+00:00").to_string().into()
    })
}
