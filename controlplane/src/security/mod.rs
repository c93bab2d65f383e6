//! Who is who: bundles, certificates, identities, and what each role may do.

mod identity;

pub use identity::Identity;
