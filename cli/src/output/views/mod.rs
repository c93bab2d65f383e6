//! What each kind looks like, as lines of a table and as items of a document. Field names and their meaning are for
//! ever; fields are only added. `explain` describes each.

pub mod cluster;
pub mod context;
pub mod database;
pub mod event;
pub mod node;
pub mod operation;
pub mod result;
pub mod user;

use ha_proto::v1::Severity;

use super::table::Tone;

/// The tone of a severity.
pub fn severity_tone(severity: Severity) -> Tone {
    match severity {
        Severity::Error => Tone::Bad,
        Severity::Warning => Tone::Warning,
        Severity::Info | Severity::Unspecified => Tone::Plain,
    }
}
