//! Operators' commands that run at changes: in order, at least once each.
//!
//! Each hook has its own place in the change log and reads from there, so a slow one holds up nobody. Its place is durable
//! after each change. A change that cannot be done after all retries is skipped, loudly: one bad change must not hold up
//! all that follow.

use std::sync::Arc;
use std::time::Duration;

use ha_core::{Change, Severity};
use serde::Serialize;

use super::{Conditions, Cursors, command};
use crate::config::Hook;
use crate::shared::Me;
use crate::watch::{Feed, LOG_GAP};

/// Pauses between the runs for one change.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A change as a hook reads it. Only additions.
#[derive(Serialize)]
struct Entry<'a> {
    seq: u64,
    time: String,
    time_ms: i64,
    kind: &'a str,
    subject: &'a str,
    severity: &'a str,
    text: &'a str,
    cause: &'a str,
    actor: &'a str,
    term: u64,
    before: &'a serde_json::Value,
    after: &'a serde_json::Value,
    cluster: &'a str,
    /// The node the hook runs on.
    node: &'a str,
}

/// Runs a hook until it is dropped. A run that is under way then is killed, and repeated by the next daemon.
pub(super) async fn run(hook: Hook, me: Arc<Me>, feed: Feed, cursors: Arc<Cursors>, conditions: Conditions) {
    let mut changes = match cursors.hook(&hook.name) {
        Some(cursor) => feed.subscribe_after(cursor),
        None => {
            // A new hook begins with what comes after its first start.
            let mut changes = feed.subscribe();
            let cursor = changes.begins().await;
            cursors.hook_done(&hook.name, cursor).await;
            changes
        }
    };
    let key = format!("hook/{}", hook.name);
    loop {
        let change = changes.next().await;
        if !wanted(&hook, &change) {
            cursors.hook_passed(&hook.name, change.seq);
            continue;
        }
        if change.kind == LOG_GAP {
            tracing::warn!(hook = %hook.name, "the hook missed changes: {}", change.text);
        }
        match attempt(&hook, &me, &change).await {
            Ok(()) => {
                conditions.clear(&key);
            }
            Err(why) => {
                let what = format!(
                    "hook {} failed at change {} ({}): {why}",
                    hook.name, change.seq, change.kind
                );
                tracing::error!(
                    "{what}; the change is skipped; mend the command, the hook goes on with the next change"
                );
                conditions.set(&key, &what);
            }
        }
        cursors.hook_done(&hook.name, change.seq).await;
    }
}

fn wanted(hook: &Hook, change: &Change) -> bool {
    hook.kinds.is_empty() || hook.kinds.iter().any(|k| change.kind.starts_with(k.as_str()))
}

/// Runs the command until it succeeds, as often as it may.
async fn attempt(hook: &Hook, me: &Me, change: &Change) -> Result<(), String> {
    let time = jiff::Timestamp::from_millisecond(change.time_ms)
        .unwrap_or_default()
        .to_string();
    let entry = Entry {
        seq: change.seq,
        time: time.clone(),
        time_ms: change.time_ms,
        kind: &change.kind,
        subject: &change.subject,
        severity: word(change.severity),
        text: &change.text,
        cause: &change.cause,
        actor: &change.actor,
        term: change.term,
        before: &change.before,
        after: &change.after,
        cluster: &me.cluster,
        node: &me.node,
    };
    let mut input = serde_json::to_vec(&entry).map_err(|e| e.to_string())?;
    input.push(b'\n');
    let variables = [
        ("HA_SEQ", change.seq.to_string()),
        ("HA_KIND", plain(&change.kind)),
        ("HA_SUBJECT", plain(&change.subject)),
        ("HA_SEVERITY", word(change.severity).to_owned()),
        ("HA_TEXT", plain(&change.text)),
        ("HA_TIME", time),
        ("HA_NODE", me.node.clone()),
        ("HA_CLUSTER", me.cluster.clone()),
    ];
    let mut pause = FIRST_PAUSE;
    for tries_left in (0..=hook.retries).rev() {
        match command::run(hook, &variables, &input).await {
            Ok(()) => return Ok(()),
            Err(why) if tries_left == 0 => return Err(why),
            Err(why) => {
                let again = humantime::format_duration(pause);
                tracing::warn!(hook = %hook.name, seq = change.seq, "the hook failed: {why}; trying again in {again}");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(())
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

/// Fit for an environment variable and whatever a script does with it.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(1000)
        .collect()
}
