//! What happened in a run, one line each: for people, and for telling whether two runs were the same.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Event, Level, Metadata, Subscriber};

use super::executor::{Group, current};

/// The lines of one run. Clones are the same trace.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<Lines>>);

struct Lines {
    begun: Instant,
    lines: Vec<(Duration, String, String)>,
    names: BTreeMap<Group, String>,
}

impl Default for Trace {
    fn default() -> Self {
        Self::new()
    }
}

impl Trace {
    /// An empty trace that counts time from now.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Lines {
            begun: Instant::now(),
            lines: Vec::new(),
            names: BTreeMap::new(),
        })))
    }

    /// Adds a line.
    pub fn say(&self, who: &str, what: impl Into<String>) {
        let mut t = self.lock();
        let at = t.begun.elapsed();
        let what = what.into();
        if std::env::var_os("SIM_LIVE").is_some() {
            eprintln!("{:>9.3} {who:<8} {what}", at.as_secs_f64());
        }
        t.lines.push((at, who.to_owned(), what));
    }

    /// From now on a process is called so in lines that come from the program's own log.
    pub fn name(&self, group: Group, name: &str) {
        self.lock().names.insert(group, name.to_owned());
    }

    /// Time since the run began.
    pub fn elapsed(&self) -> Duration {
        self.lock().begun.elapsed()
    }

    /// The lines, for people.
    pub fn text(&self) -> String {
        let t = self.lock();
        let mut out = String::new();
        for (at, who, what) in &t.lines {
            let _ = writeln!(out, "{:>9.3} {who:<8} {what}", at.as_secs_f64());
        }
        out
    }

    /// Equal for equal runs. Ids that are drawn at random are no part of the lines.
    pub fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.lock().lines.hash(&mut hasher);
        hasher.finish()
    }

    /// Writes the program's own log into this trace.
    pub fn subscriber(&self) -> impl Subscriber + Send + Sync + 'static {
        Log(self.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        // A failed assertion under the lock must not hide the trace.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Log(Trace);

#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let ours = metadata.target().starts_with("controlplane") || metadata.target().starts_with("had");
        ours && *metadata.level() <= Level::DEBUG
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        let group = current();
        let name = self.0.lock().names.get(&group).cloned();
        let name = name.unwrap_or_else(|| group.to_string());
        let level = event.metadata().level().as_str().to_lowercase();
        self.0.say(&name, format!("  {level}: {}{}", text.message, text.fields));
    }
}
