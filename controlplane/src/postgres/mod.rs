//! PostgreSQL's own tools: everything an instance's driver does to a real server and its directory.
//!
//! Nothing here decides: the core does, and the driver calls. Nothing here starts or stops the postmaster, which is the
//! guard's; [`start`] only says how it is to be started. No directory of data is deleted before its replacement streams,
//! none of another system id is touched, and no password, verifier or key reaches a log, an error or a process list.
//! Everything that leaves the daemon has a time limit, and dropping a future ends the programs that it runs.

pub mod adopt;
pub mod command;
pub mod conf;
pub mod connection;
pub mod control;
pub mod control_data;
pub mod copy;
pub mod erase;
pub mod error;
pub mod history;
pub mod install;
pub mod instance;
pub mod marks;
pub mod place;
pub mod probe;
pub mod provision;
pub mod rewind;
pub mod start;
pub mod tls;
pub mod wal;

pub use error::{PgError, Result};

#[cfg(all(test, unix))]
mod tests;
