//! Both machines together, on instances whose every step succeeds at once: whole stories, from the first primary to a
//! switchover, with the invariants looked at after each step. Delays and reordering are the simulation's.

mod random;
mod stories;
mod world;
