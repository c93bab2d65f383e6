//! A master with everything it has, on a ZooKeeper in memory, over instances that are not real.

mod instance;
mod life;
mod operators;
mod rig;
