//! The bundle that a node starts from: the file that `hactl cluster init` or `hactl node add` wrote. It is checked here
//! from end to end, so that everything after can rely on it. It is never logged and never sent.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use ha_core::access::issued_ms;
use ha_core::{valid_address, valid_name, valid_node_name};
use ha_proto::{codes, v1};

use super::authority::Authority;
use super::identity::is_cluster_id;
use super::own::Own;
use super::secret::ClusterSecret;
use crate::error::ApiError;
use crate::platform::{Exposure, exposure};

/// Version of the format that this program reads.
const VERSION: u32 = 1;
/// Greatest bundle that is read, in bytes; ours have some 3,000.
const MAX_BUNDLE: u64 = 64 * 1024;
/// Session timeouts that make sense.
const SESSION_TIMEOUT_MS: std::ops::RangeInclusive<u64> = 500..=60_000;
const MAX_SERVERS: usize = 64;

/// A node's bundle, checked.
#[derive(Debug, Clone)]
pub struct NodeBundle {
    /// The node's name.
    pub name: String,
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's id.
    pub cluster_id: String,
    /// The node's own gRPC endpoint, host:port.
    pub address: String,
    /// ZooKeeper servers, host:port.
    pub zookeeper: Vec<String>,
    /// The cluster secret.
    pub secret: ClusterSecret,
    /// The session timeout to ask for.
    pub session_timeout: Duration,
    /// In the first node's bundle: what the cluster's root is made with.
    pub bootstrap: Option<v1::Bootstrap>,
    pub(crate) authority: Authority,
    pub(crate) own: Own,
}

impl NodeBundle {
    /// Reads and checks a bundle. Blocks on the file system.
    ///
    /// # Errors
    /// [`codes::BAD_BUNDLE`] with the file and the reason.
    pub fn read(path: &Path) -> Result<Self, ApiError> {
        let refuse = |why: String| {
            ApiError::new(
                &codes::BAD_BUNDLE,
                format!("the bundle {} cannot be used", path.display()),
            )
            .why(why)
        };
        let bundle = load(path).map_err(|why| {
            let e = refuse(why.clone());
            if why.contains("chmod") {
                e.next(format!("chmod 600 {}", path.display()))
            } else {
                e
            }
        })?;
        let name = bundle.name.clone();
        Self::check(bundle).map_err(|why| {
            let known = valid_node_name(&name).is_ok();
            let e = refuse(why);
            if known {
                e.next(format!("hactl node renew {name}"))
            } else {
                e
            }
        })
    }

    fn check(bundle: v1::Bundle) -> Result<Self, String> {
        match (bundle.version, bundle.kind.as_str()) {
            (VERSION, "node") => {}
            (VERSION, "user") => return Err("it is a user's bundle; a daemon starts from a node's".into()),
            (0 | VERSION, _) => return Err("it has no version or no kind: it is not a bundle".into()),
            (other, _) => return Err(format!("it has version {other}, this had knows version {VERSION}")),
        }
        valid_node_name(&bundle.name).map_err(|e| format!("name: {e}"))?;
        valid_name(&bundle.cluster).map_err(|e| format!("cluster: {e}"))?;
        if !is_cluster_id(&bundle.cluster_id) {
            return Err("cluster_id is not a UUID".into());
        }
        let [address] = bundle.endpoints.as_slice() else {
            return Err("endpoints holds exactly the node's own gRPC address".into());
        };
        valid_address(address).map_err(|e| format!("endpoints: {e}"))?;
        if bundle.zookeeper.is_empty() || bundle.zookeeper.len() > MAX_SERVERS {
            return Err(format!("zookeeper names 1 to {MAX_SERVERS} servers"));
        }
        for server in &bundle.zookeeper {
            valid_address(server).map_err(|e| format!("zookeeper: {e}"))?;
        }
        let secret = ClusterSecret::from_base64(&bundle.secret).ok_or("secret is not base64 of 32 bytes")?;
        if !SESSION_TIMEOUT_MS.contains(&bundle.session_timeout_ms) {
            return Err("session_timeout_ms lies between 500 and 60000".into());
        }
        if let Some(b) = &bundle.bootstrap {
            valid_name(&b.user).map_err(|e| format!("bootstrap.user: {e}"))?;
            if issued_ms(&b.user_serial).is_none() || issued_ms(&b.node_serial).is_none() {
                return Err("bootstrap: a serial number has 32 hexadecimal digits".into());
            }
        }
        let authority =
            Authority::new(&bundle.ca, &bundle.cluster, &bundle.cluster_id).map_err(|e| format!("ca: {e}"))?;
        let own = Own::load(&authority, &bundle.name, &bundle.certificate, &bundle.key)
            .map_err(|e| format!("certificate: {e}"))?;
        Ok(Self {
            address: address.clone(),
            name: bundle.name,
            cluster: bundle.cluster,
            cluster_id: bundle.cluster_id,
            zookeeper: bundle.zookeeper,
            secret,
            session_timeout: Duration::from_millis(bundle.session_timeout_ms),
            bootstrap: bundle.bootstrap,
            authority,
            own,
        })
    }
}

fn load(path: &Path) -> Result<v1::Bundle, String> {
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    let meta = file.metadata().map_err(|e| e.to_string())?;
    if !meta.is_file() {
        return Err("it is not a file".into());
    }
    match exposure(&meta) {
        Exposure::Private => {}
        Exposure::Group => {
            tracing::warn!(file = %path.display(), "the group may read the bundle, which holds a private key");
        }
        Exposure::Others => {
            return Err("it holds a private key, and others than its owner may read or change it: chmod 600".into());
        }
    }
    let mut text = String::new();
    file.take(MAX_BUNDLE + 1)
        .read_to_string(&mut text)
        .map_err(|e| e.to_string())?;
    if text.len() as u64 > MAX_BUNDLE {
        return Err(format!("it is larger than {} KiB", MAX_BUNDLE / 1024));
    }
    // The parser's own text quotes the line, which may be the key.
    toml::from_str(&text).map_err(|e| {
        let line = e
            .span()
            .map(|s| text[..s.start.min(text.len())].matches('\n').count() + 1);
        line.map_or_else(
            || e.message().to_owned(),
            |line| format!("line {line}: {}", e.message()),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Leaf, TestCa};
    use super::*;
    use proptest::prelude::*;

    fn why(edit: impl FnOnce(&mut v1::Bundle)) -> String {
        let ca = TestCa::new("prod");
        let mut bundle = ca.bundle("n1", &ca.issue(&Leaf::node("n1")));
        edit(&mut bundle);
        NodeBundle::check(bundle).map(|_| ()).unwrap_err()
    }

    #[test]
    fn a_good_bundle_is_read_and_shows_no_secret() {
        let (dir, ca) = (tempfile::tempdir().unwrap(), TestCa::new("prod"));
        let path = ca.write_bundle(dir.path(), "n1", &ca.issue(&Leaf::node("n1")));
        let bundle = NodeBundle::read(&path).unwrap();
        assert_eq!((bundle.name.as_str(), bundle.cluster.as_str()), ("n1", "prod"));
        assert_eq!(bundle.secret.expose(), &[7; 32]);
        let text = format!("{bundle:?}");
        assert!(
            !text.contains("PRIVATE") && !text.contains("BwcH") && text.contains("[secret]"),
            "{text}"
        );
    }

    #[test]
    fn an_expired_certificate_does_not_make_the_bundle_bad() {
        let ca = TestCa::new("prod");
        let bundle = ca.bundle("n1", &ca.issue(&Leaf::node("n1").expired()));
        assert!(NodeBundle::check(bundle).is_ok());
    }

    #[test]
    fn each_fault_is_told() {
        let other = TestCa::new("prod");
        let foreign = other.issue(&Leaf::node("n1"));
        for (text, told) in [
            (why(|b| b.kind = "user".into()), "a user's bundle"),
            (why(|b| b.version = 9), "version 9"),
            (why(|b| b.name = "../x".into()), "name:"),
            (
                why(|b| b.name = "n2".into()),
                "it is the certificate of node/n1, not of node/n2",
            ),
            (why(|b| b.cluster = String::new()), "cluster:"),
            (why(|b| b.cluster_id = "x".into()), "cluster_id"),
            (why(|b| b.endpoints.clear()), "endpoints"),
            (why(|b| b.endpoints = vec!["nowhere".into()]), "endpoints"),
            (why(|b| b.zookeeper.clear()), "zookeeper"),
            (why(|b| b.secret = "short".into()), "secret"),
            (why(|b| b.session_timeout_ms = 1), "session_timeout_ms"),
            (why(|b| b.ca = "nothing".into()), "ca:"),
            (why(|b| b.certificate = "nothing".into()), "certificate:"),
            (why(|b| b.key = foreign.key.clone()), "the key is not the certificate's"),
            (why(|b| b.ca = other.pem.clone()), "another certificate authority"),
            (
                why(|b| b.cluster_id = other.cluster_id.clone()),
                "belongs to the cluster with the id",
            ),
            (why(|b| b.bootstrap = Some(v1::Bootstrap::default())), "bootstrap"),
        ] {
            assert!(text.contains(told), "{told}: {text}");
        }
    }

    #[test]
    fn faults_of_the_file_are_told_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.toml");
        let told = |content: &[u8]| {
            crate::platform::write_atomic(&path, content).unwrap();
            NodeBundle::read(&path).unwrap_err().to_string()
        };
        assert!(told(b"secret = \"hunter2").contains("line 1"));
        assert!(!told(b"secret = \"hunter2").contains("hunter2"));
        assert!(told(&vec![b'#'; 100_000]).contains("larger than 64 KiB"));
        assert!(told(&[0xff, 0xfe]).starts_with("HA0005"));
        assert!(
            NodeBundle::read(dir.path())
                .unwrap_err()
                .to_string()
                .contains("not a file")
        );
        let e = NodeBundle::read(&dir.path().join("none")).unwrap_err();
        assert!(e.message.contains("none"), "{e}");
    }

    #[test]
    fn a_bundle_that_others_may_read_is_refused() {
        let (dir, ca) = (tempfile::tempdir().unwrap(), TestCa::new("prod"));
        let path = ca.write_bundle(dir.path(), "n1", &ca.issue(&Leaf::node("n1")));
        for (mode, fine) in [
            (0o600, true),
            (0o400, true),
            (0o440, true),
            (0o644, false),
            (0o660, false),
        ] {
            if !crate::platform::set_mode(&path, mode) {
                continue;
            }
            let read = NodeBundle::read(&path);
            assert_eq!(read.is_ok(), fine, "{mode:o}");
            if let Err(e) = read {
                assert_eq!((e.code.id, e.next.len()), ("HA0005", 1));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn hostile_bundles_never_panic(text in ".{0,400}", name in ".{0,80}", address in ".{0,60}") {
            if let Ok(bundle) = toml::from_str::<v1::Bundle>(&text) {
                let _ = NodeBundle::check(bundle);
            }
            let _ = NodeBundle::check(v1::Bundle {
                version: 1, kind: "node".into(), name, cluster: "c".into(), endpoints: vec![address],
                ca: text.clone(), certificate: text, ..v1::Bundle::default()
            });
        }
    }
}
