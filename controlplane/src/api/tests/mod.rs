//! The API in one process: real TLS on loopback, several servers, hostile clients.

mod access;
mod hostile;
mod http;
mod links;
mod passing;
mod patroni;
mod raw;
mod rig;

/// A call that is not in the table of permissions is never reached, so each must be there.
#[test]
fn every_call_has_its_permission() {
    let generated = include_str!("../../../../proto/src/generated/ha.v1.rs");
    let paths: std::collections::BTreeSet<_> = generated
        .split('"')
        .filter(|text| text.starts_with("/ha.v1.") && text.matches('/').count() == 2)
        .collect();
    assert!(paths.len() > 20, "{paths:?}");
    for path in &paths {
        assert!(ha_core::access::call(path).is_some(), "{path}");
    }
    let ours = ha_core::access::CALLS
        .iter()
        .filter(|(path, _)| path.starts_with("/ha.v1."));
    assert_eq!(ours.count(), paths.len(), "the table has calls that do not exist");
}
