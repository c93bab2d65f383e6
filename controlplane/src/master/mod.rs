//! The master: observe, decide (in core), act. One task owns all state; the hub fans it out.

pub mod handle;
