//! What differs between operating systems, and the clocks. The only place with `cfg(unix)` and `cfg(windows)`.

mod clock;

pub use clock::{Clock, SystemClock};
