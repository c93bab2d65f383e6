//! The daemon's log, on standard error.
//!
//! A line says what happened, why, and where somebody must act what to do. Secrets have no text form and cannot get here.

use std::io::IsTerminal as _;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, reload};

use crate::config::{Format, Level, Log};
use crate::platform::service;

/// Changes the level of a log that is running.
pub struct Handle(reload::Handle<Targets, Registry>);

/// Starts the log. Only the first call of a process has an effect.
pub fn start(log: &Log) -> Handle {
    let (filter, handle) = reload::Layer::new(targets(log.level));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match log.format {
        Format::Json => lines.json().flatten_event(true).boxed(),
        Format::Text => {
            let lines = lines.with_ansi(std::io::stderr().is_terminal());
            // The journal has its own times.
            if service::logs_to_journal() {
                lines.without_time().boxed()
            } else {
                lines.boxed()
            }
        }
    };
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    Handle(handle)
}

impl Handle {
    /// From now on logs from this level on.
    pub fn set(&self, level: Level) {
        let _ = self.0.reload(targets(level));
    }
}

/// Everything of our own from this level on; of the libraries only what an operator can act on, unless all is wanted.
fn targets(level: Level) -> Targets {
    let own = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    let others = if level == Level::Trace {
        LevelFilter::DEBUG
    } else {
        LevelFilter::ERROR.min(own)
    };
    Targets::new()
        .with_default(others)
        .with_targets([("controlplane", own), ("had", own), ("ha_core", own)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_quieter() {
        let info = targets(Level::Info);
        assert!(info.would_enable("controlplane::session", &tracing::Level::INFO));
        assert!(info.would_enable("had::lease", &tracing::Level::INFO));
        assert!(!info.would_enable("controlplane::session", &tracing::Level::DEBUG));
        assert!(!info.would_enable("h2::client", &tracing::Level::WARN));
        assert!(targets(Level::Trace).would_enable("h2::client", &tracing::Level::DEBUG));
        assert!(!targets(Level::Error).would_enable("controlplane", &tracing::Level::WARN));
    }
}
