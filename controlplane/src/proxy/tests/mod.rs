//! The proxy on loopback, with servers that are none and clients of every kind.

mod leading;
mod ports;
mod rig;
