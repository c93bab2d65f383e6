//! The node's own certificate: which one it uses, how it is renewed, and that a new one is taken up without a restart.
//!
//! Renewal never moves a key: the node makes one, keeps it in `tls/pending.pem`, and hands out a request for it; the
//! holder of the certificate authority signs, and what comes back is installed beside the key. In every state that a
//! crash can leave, one of the pairs below is whole.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use ha_proto::codes;
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, SanType};
use tokio_util::sync::CancellationToken;

use super::authority::Authority;
use super::bundle::NodeBundle;
use super::identity::Credential;
use super::own::Own;
use crate::error::ApiError;
use crate::platform::{Clock, private_dir, write_atomic};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// Looks after which the choice is made anew though no file changed: certificates begin and end by themselves.
const LOOKS_A_CHOICE: u32 = 20;
/// Greatest certificate or key file that is read, in bytes.
const MAX_PEM: u64 = 16 * 1024;

/// The store of the node's certificates.
pub(crate) struct Certificates {
    authority: Authority,
    node: String,
    bundle: PathBuf,
    dir: PathBuf,
    clock: Arc<dyn Clock>,
    pub(crate) current: Arc<ArcSwap<Own>>,
    /// One change of the files at a time.
    files: Mutex<()>,
}

type Stamp = [Option<(SystemTime, u64)>; 4];

impl Certificates {
    /// Chooses among the bundle's certificate and those in `<state_dir>/tls`.
    pub(crate) fn new(bundle: &NodeBundle, path: &Path, state_dir: &Path, clock: Arc<dyn Clock>) -> Self {
        let this = Self {
            authority: bundle.authority.clone(),
            node: bundle.name.clone(),
            bundle: path.to_owned(),
            dir: state_dir.join("tls"),
            clock,
            current: Arc::new(ArcSwap::from_pointee(bundle.own.clone())),
            files: Mutex::new(()),
        };
        let best = this.best(Some(bundle.own.clone()));
        if let Some(best) = best {
            this.current.store(Arc::new(best));
        }
        this.warn_of_time();
        this
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A pair in the state directory, if it is whole.
    fn pair(&self, key: &str) -> Option<Own> {
        let (certificate, key) = (read(&self.file("cert.pem")).ok()?, read(&self.file(key)).ok()?);
        Own::load(&self.authority, &self.node, &certificate, &key).ok()
    }

    fn best(&self, from_bundle: Option<Own>) -> Option<Own> {
        let now = self.clock.wall_ms();
        let pairs = [from_bundle, self.pair("key.pem"), self.pair("pending.pem")];
        pairs.into_iter().flatten().max_by_key(|own| own.rank(now))
    }

    /// Reads the files again and takes up the best certificate. Returns whether it is another one than before.
    ///
    /// # Errors
    /// [`codes::BAD_BUNDLE`] if the bundle's file is of no use; the choice is then made among the others.
    pub(crate) fn reload(&self) -> Result<bool, ApiError> {
        let _held = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let bundle = NodeBundle::read(&self.bundle).and_then(|b| self.same_node(b));
        let (from_bundle, outcome) = match bundle {
            Ok(own) => (Some(own), Ok(())),
            Err(e) => (None, Err(e)),
        };
        // The one in use is a candidate as well: a file that is gone or damaged is no reason to lose it.
        let now = self.clock.wall_ms();
        let present = self.current.load_full();
        let best = self.best(from_bundle).filter(|best| best.rank(now) > present.rank(now));
        let changed = best.is_some();
        if let Some(best) = best {
            tracing::info!(
                serial = best.credential.serial,
                expires_ms = best.credential.not_after_ms,
                "certificate taken up"
            );
            self.current.store(Arc::new(best));
        }
        if changed {
            self.warn_of_time();
        }
        outcome.map(|()| changed)
    }

    fn same_node(&self, bundle: NodeBundle) -> Result<Own, ApiError> {
        // A bundle of another authority cannot be told by its names alone: its certificate must pass ours.
        let own = bundle.own;
        let same = bundle.name == self.node && bundle.cluster_id == self.authority.cluster_id;
        if same
            && own
                .key
                .cert
                .first()
                .is_some_and(|c| self.authority.signed(c, &own.credential).is_ok())
        {
            return Ok(own);
        }
        Err(ApiError::new(
            &codes::BAD_BUNDLE,
            format!("the bundle {} was replaced by another's", self.bundle.display()),
        )
        .why(format!(
            "it is of node {} of cluster {}; this daemon goes on as {}",
            bundle.name, bundle.cluster, self.node
        )))
    }

    fn warn_of_time(&self) {
        let (own, now) = (self.current.load(), self.clock.wall_ms());
        if own.credential.not_after_ms < now {
            tracing::error!(
                "HA0203: this node's certificate has expired: nobody accepts it; next: hactl node renew {}",
                self.node
            );
        } else if own.credential.not_before_ms > now {
            tracing::error!("HA0208: this node's certificate is not valid yet: check the clocks");
        }
    }

    /// A request for a certificate of a key that stays here. Asked again before it was answered, it is for the same key.
    ///
    /// # Errors
    /// [`codes::STATE_UNWRITABLE`] if the key cannot be kept.
    pub(crate) fn request(&self) -> Result<String, ApiError> {
        let _held = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let pending = self.file("pending.pem");
        let kept = read(&pending).ok().and_then(|pem| KeyPair::from_pem(&pem).ok());
        let key = match kept {
            // After a crash in the middle of an installation the pending key is the one in use: it is not pending.
            Some(key) if self.pair("pending.pem").is_none() => key,
            _ => {
                let key = KeyPair::generate().map_err(internal)?;
                private_dir(&self.dir).map_err(|e| self.unwritable(&e))?;
                write_atomic(&pending, key.serialize_pem().as_bytes()).map_err(|e| self.unwritable(&e))?;
                key
            }
        };
        let name = |text: String| text.try_into().map_err(internal);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let common_name = format!("node:{}", self.node);
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![
            SanType::URI(name(format!("ha://{}/node/{}", self.authority.cluster_id, self.node))?),
            SanType::DnsName(name(format!("had.{}", self.authority.cluster))?),
            SanType::DnsName(name(format!("{}.had.{}", self.node, self.authority.cluster))?),
        ];
        params
            .serialize_request(&key)
            .and_then(|csr| csr.pem())
            .map_err(internal)
    }

    /// Installs the certificate that answers the pending request and takes it up at once. False: it is in use already.
    ///
    /// # Errors
    /// [`codes::BAD_VALUE`] if it is not acceptable, [`codes::STATE_UNWRITABLE`] if it cannot be kept; the certificate
    /// in use stays in use then.
    pub(crate) fn install(&self, certificate: &str) -> Result<bool, ApiError> {
        let _held = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let refuse = |why: String| {
            ApiError::new(
                &codes::BAD_VALUE,
                format!("the certificate for node {} is refused", self.node),
            )
            .why(why)
            .next(format!("hactl node renew {}", self.node))
        };
        if certificate.len() as u64 > MAX_PEM {
            return Err(refuse(format!("it is larger than {} KiB", MAX_PEM / 1024)));
        }
        let der = super::authority::single(certificate).map_err(refuse)?;
        if self.current.load().key.cert.first() == Some(&der) {
            return Ok(false);
        }
        let pending = self.file("pending.pem");
        let key = read(&pending).map_err(|_| refuse("no certificate was requested of this node".into()))?;
        let own = Own::load(&self.authority, &self.node, certificate, &key).map_err(refuse)?;
        if !own.credential.is_timely(self.clock.wall_ms()) {
            return Err(refuse("by this node's clock it is not valid now".into()));
        }
        // In this order: after the first step cert.pem and pending.pem are a pair, after the second cert.pem and key.pem.
        write_atomic(&self.file("cert.pem"), certificate.as_bytes()).map_err(|e| self.unwritable(&e))?;
        write_atomic(&self.file("key.pem"), key.as_bytes()).map_err(|e| self.unwritable(&e))?;
        if let Err(e) = std::fs::remove_file(&pending) {
            tracing::warn!(file = %pending.display(), "left over: {e}");
        }
        tracing::info!(serial = own.credential.serial, "certificate installed");
        self.current.store(Arc::new(own));
        Ok(true)
    }

    fn unwritable(&self, e: &std::io::Error) -> ApiError {
        ApiError::new(
            &codes::STATE_UNWRITABLE,
            format!("node {} cannot write {}", self.node, self.dir.display()),
        )
        .why(e.to_string())
    }

    fn stamp(&self) -> Stamp {
        let files = [
            self.bundle.clone(),
            self.file("cert.pem"),
            self.file("key.pem"),
            self.file("pending.pem"),
        ];
        files.map(|f| {
            std::fs::metadata(f)
                .ok()
                .and_then(|m| Some((m.modified().ok()?, m.len())))
        })
    }

    /// Takes up what changes on disk, until `stop`.
    pub(crate) async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let (mut seen, mut told, mut looks) = (None, None, 0);
        while !stop.is_cancelled() {
            let stamp = self.stamp();
            looks = (looks + 1) % LOOKS_A_CHOICE;
            if seen != Some(stamp) || looks == 0 {
                let this = self.clone();
                // Verifying takes a millisecond and reading may take longer: not on the runtime's threads.
                let outcome = tokio::task::spawn_blocking(move || this.reload()).await;
                let problem = outcome.ok().and_then(Result::err).map(|e| e.to_string());
                if problem != told
                    && let Some(problem) = &problem
                {
                    tracing::warn!("{problem}");
                }
                (seen, told) = (Some(stamp), problem);
            }
            let _ = tokio::time::timeout(LOOK_EVERY, stop.cancelled()).await;
        }
    }

    /// The certificate in use, and the authority's certificate.
    pub(crate) fn pem(&self) -> (Arc<Own>, String) {
        (self.current.load_full(), self.authority.pem.clone())
    }

    /// What the certificate in use says.
    pub(crate) fn credential(&self) -> Credential {
        self.current.load().credential.clone()
    }
}

#[allow(clippy::needless_pass_by_value)] // for map_err
fn internal(e: rcgen::Error) -> ApiError {
    ApiError::new(&codes::INTERNAL, "the certificate request cannot be made").why(e.to_string())
}

fn read(path: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_PEM).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Leaf, TestCa};
    use super::*;
    use crate::platform::SystemClock;

    struct Rig {
        dir: tempfile::TempDir,
        ca: TestCa,
        path: PathBuf,
        first: String,
    }

    impl Rig {
        fn new(leaf: &Leaf) -> Self {
            let (dir, ca) = (tempfile::tempdir().unwrap(), TestCa::new("prod"));
            let cert = ca.issue(leaf);
            let path = ca.write_bundle(dir.path(), "n1", &cert);
            Self {
                path,
                ca,
                first: cert.serial,
                dir,
            }
        }

        fn open(&self) -> Certificates {
            let bundle = NodeBundle::read(&self.path).unwrap();
            Certificates::new(&bundle, &self.path, self.dir.path(), Arc::new(SystemClock))
        }

        fn tls(&self, name: &str) -> PathBuf {
            self.dir.path().join("tls").join(name)
        }
    }

    fn later(leaf: Leaf) -> Leaf {
        let now = SystemClock.wall_ms();
        leaf.issued(now + 60_000)
    }

    #[test]
    fn renewal_takes_the_new_certificate_up_and_keeps_it() {
        let rig = Rig::new(&Leaf::node("n1"));
        let store = rig.open();
        let csr = store.request().unwrap();
        let pem = rig.ca.sign(&later(Leaf::node("n1")), &csr);
        assert_eq!(store.credential().serial, rig.first);
        assert!(store.install(&pem).unwrap());
        assert!(!store.install(&pem).unwrap(), "installing again changes nothing");
        let serial = store.credential().serial;
        assert_ne!(serial, rig.first);
        assert!(!rig.tls("pending.pem").exists());
        assert_eq!(rig.open().credential().serial, serial);
        let kept = rig.tls("key.pem").metadata().unwrap();
        assert_eq!(crate::platform::exposure(&kept), crate::platform::Exposure::Private);
    }

    #[test]
    fn a_crash_at_any_step_of_an_installation_loses_nothing() {
        let rig = Rig::new(&Leaf::node("n1").expired());
        let store = rig.open();
        let first = rig.ca.sign(&later(Leaf::node("n1")), &store.request().unwrap());
        store.install(&first).unwrap();
        let serial = store.credential().serial;
        // Requested: the pending key disturbs nothing, and asking again gives the same key.
        let csr = store.request().unwrap();
        assert_eq!(rig.open().credential().serial, serial);
        let key = std::fs::read(rig.tls("pending.pem")).unwrap();
        rig.open().request().unwrap();
        assert_eq!(std::fs::read(rig.tls("pending.pem")).unwrap(), key);
        // The certificate is written, its key still is the pending one.
        let second = rig.ca.sign(&later(Leaf::node("n1")).since(10), &csr);
        write_atomic(&rig.tls("cert.pem"), second.as_bytes()).unwrap();
        let crashed = rig.open();
        assert_ne!(crashed.credential().serial, serial);
        assert!(crashed.credential().is_timely(SystemClock.wall_ms()));
        // A further renewal does not reuse the key that is in use, and does not lose it before it is installed.
        let key = std::fs::read(rig.tls("pending.pem")).unwrap();
        write_atomic(&rig.tls("key.pem"), &key).unwrap();
        crashed.request().unwrap();
        assert_ne!(std::fs::read(rig.tls("pending.pem")).unwrap(), key);
        assert_eq!(rig.open().credential().serial, crashed.credential().serial);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_changes_nothing() {
        let rig = Rig::new(&Leaf::node("n1"));
        let store = rig.open();
        let any = rig.ca.issue(&later(Leaf::node("n1")));
        assert!(
            store
                .install(&any.pem)
                .unwrap_err()
                .to_string()
                .contains("no certificate was requested")
        );
        let csr = store.request().unwrap();
        let other = TestCa::new("prod");
        for (pem, told) in [
            (any.pem.clone(), "the key is not the certificate's"),
            (
                rig.ca.sign(&Leaf::node("n2"), &csr),
                "certificate of node/n2, not of node/n1",
            ),
            (rig.ca.sign(&Leaf::user("n1", "admin"), &csr), "certificate of user/n1"),
            (rig.ca.sign(&Leaf::node("n1").expired(), &csr), "not valid now"),
            (other.sign(&Leaf::node("n1"), &csr), "belongs to the cluster"),
            ("garbage".to_owned(), "PEM"),
            ("x".repeat(20_000), "larger"),
            (format!("{}{}", any.pem, any.pem), "more than one"),
        ] {
            let e = store.install(&pem).unwrap_err();
            assert_eq!(e.code.id, "HA0009");
            assert!(e.to_string().contains(told), "{told}: {e}");
        }
        assert_eq!(store.credential().serial, rig.first);
        assert_eq!(rig.open().credential().serial, rig.first);
    }

    #[test]
    fn the_best_of_several_is_chosen() {
        let rig = Rig::new(&Leaf::node("n1").expired());
        let store = rig.open();
        assert_eq!(
            store.credential().serial,
            rig.first,
            "an expired one is better than none"
        );
        let good = rig.ca.issue(&Leaf::node("n1").issued(5));
        rig.ca.write_bundle(rig.dir.path(), "n1", &good);
        assert!(store.reload().unwrap());
        assert_eq!(store.credential().serial, good.serial);
        // An older certificate, a stranger's bundle and garbage are not taken up.
        rig.ca
            .write_bundle(rig.dir.path(), "n1", &rig.ca.issue(&Leaf::node("n1").issued(4)));
        assert!(!store.reload().unwrap());
        let other = TestCa::new("prod");
        other.write_bundle(rig.dir.path(), "n1", &other.issue(&later(Leaf::node("n1"))));
        assert!(
            store
                .reload()
                .unwrap_err()
                .to_string()
                .contains("replaced by another's")
        );
        std::fs::write(&rig.path, "garbage").unwrap();
        assert!(store.reload().is_err());
        assert_eq!(store.credential().serial, good.serial);
    }

    #[test]
    fn an_unwritable_state_directory_is_told() {
        let rig = Rig::new(&Leaf::node("n1"));
        std::fs::write(rig.dir.path().join("tls"), "in the way").unwrap();
        let e = rig.open().request().unwrap_err();
        assert_eq!(e.code.id, "HA0808");
        assert_eq!(rig.open().credential().serial, rig.first);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_bundle_is_taken_up_while_running() {
        let rig = Rig::new(&Leaf::node("n1"));
        let (store, stop) = (Arc::new(rig.open()), CancellationToken::new());
        let task = tokio::spawn(store.clone().watch(stop.clone()));
        let new = rig.ca.issue(&later(Leaf::node("n1")));
        tokio::time::sleep(Duration::from_secs(1)).await;
        rig.ca.write_bundle(rig.dir.path(), "n1", &new);
        while store.credential().serial != new.serial {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        stop.cancel();
        task.await.unwrap();
    }
}
