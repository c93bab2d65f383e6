//! Contexts: which clusters this operator knows, with which certificate, and which one is meant now.
//!
//! `<config>/config.toml` names the current one; `contexts/<name>/` holds `bundle.toml` (the operator's certificate and
//! key), `ca.toml` for whoever made the cluster, and `cache.toml`: what was last seen of the cluster, which may vanish
//! at any time without harm.

use std::path::{Path, PathBuf};

use ha_proto::codes;
use ha_proto::v1::Bundle;
use serde::{Deserialize, Serialize};

use crate::ca::ClusterAuthority;
use crate::error::{CliError, file_error};
use crate::{bundle, files, names};

/// The contexts of this operator.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

/// One cluster as one user.
#[derive(Debug, Clone)]
pub struct Context {
    /// Its name here.
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
    /// The user's bundle.
    pub bundle: Bundle,
}

/// What was last seen of a cluster. Never authoritative.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cache {
    /// The endpoint that answered last.
    pub good: String,
    /// Endpoints of the nodes as the cluster listed them.
    pub endpoints: Vec<String>,
    /// Names, for completion without the server.
    pub nodes: Vec<String>,
    /// Names, for completion without the server.
    pub users: Vec<String>,
    /// Ids, for completion without the server.
    pub operations: Vec<String>,
    /// Names, for completion without the server.
    pub groups: Vec<String>,
}

#[derive(Default, Serialize, Deserialize)]
struct Config {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    current: String,
}

impl Store {
    /// The store in `HACTL_CONFIG_DIR`, or where the system keeps a user's configuration.
    ///
    /// # Errors
    /// `HA0002` if there is no such place.
    pub fn open() -> Result<Self, CliError> {
        let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let dir = set("HACTL_CONFIG_DIR")
            .or_else(|| {
                set("XDG_CONFIG_HOME")
                    .filter(|p| p.is_absolute())
                    .map(|p| p.join("hactl"))
            })
            .or_else(|| {
                if cfg!(windows) {
                    set("APPDATA").map(|p| p.join("hactl"))
                } else {
                    set("HOME").map(|p| p.join(".config").join("hactl"))
                }
            });
        match dir {
            Some(dir) => Ok(Self { dir }),
            None => Err(CliError::new(codes::BAD_FILE, "there is no place for hactl's contexts")
                .why("neither HACTL_CONFIG_DIR nor XDG_CONFIG_HOME nor a home directory is set")
                .next("export HACTL_CONFIG_DIR=DIR", "")),
        }
    }

    /// The store in this directory.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Where the store is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the context of this name is, or would be.
    pub fn context_dir(&self, name: &str) -> PathBuf {
        self.dir.join("contexts").join(name)
    }

    /// Where the certificate authority of this context is, or would be.
    pub fn authority_path(&self, name: &str) -> PathBuf {
        self.context_dir(name).join("ca.toml")
    }

    /// The names of all contexts, sorted. Damaged ones too.
    ///
    /// # Errors
    /// `HA0002` if the directory cannot be read.
    pub fn names(&self) -> Result<Vec<String>, CliError> {
        let dir = self.dir.join("contexts");
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(file_error("read", &dir, &e)),
        };
        let mut found: Vec<String> = entries
            .filter_map(Result::ok)
            .filter(|entry| entry.path().join("bundle.toml").exists())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| names::is_name(name))
            .collect();
        found.sort();
        Ok(found)
    }

    /// Whether there is a context of this name.
    pub fn exists(&self, name: &str) -> bool {
        names::is_name(name) && self.context_dir(name).join("bundle.toml").exists()
    }

    /// The name of the current context, if one was chosen and still exists.
    ///
    /// # Errors
    /// `HA0002` if the configuration cannot be read.
    pub fn current(&self) -> Result<Option<String>, CliError> {
        let path = self.dir.join("config.toml");
        if !path.exists() {
            return Ok(None);
        }
        let config: Config = toml::from_str(&files::read(&path)?).map_err(|e| {
            CliError::new(codes::BAD_FILE, format!("cannot read {}", path.display())).why(e.message().to_owned())
        })?;
        Ok(Some(config.current).filter(|name| self.exists(name)))
    }

    /// Makes a context the current one.
    ///
    /// # Errors
    /// `HA0004` if there is none of this name, `HA0002` if it cannot be written.
    pub fn set_current(&self, name: &str) -> Result<(), CliError> {
        self.require(name)?;
        files::create_private_dir(&self.dir)?;
        let text = toml::to_string(&Config {
            current: name.to_owned(),
        })
        .map_err(|e| CliError::new(codes::INTERNAL, "cannot write the configuration").why(e.to_string()))?;
        files::replace(&self.dir.join("config.toml"), &text)
    }

    /// The context that is meant: `wanted`, or the current one.
    ///
    /// # Errors
    /// `HA0003` if none is chosen, `HA0004` if `wanted` does not exist, `HA0005` if it is damaged.
    pub fn select(&self, wanted: Option<&str>) -> Result<Context, CliError> {
        if let Some(name) = wanted {
            return self.load(name);
        }
        if let Some(name) = self.current()? {
            return self.load(&name);
        }
        let known = self.names()?;
        let error = CliError::new(codes::NO_CONTEXT, "no cluster is chosen");
        Err(if known.is_empty() {
            error
                .why(format!("there is no context in {}", self.dir.display()))
                .next(
                    "hactl context add --bundle FILE",
                    "with a bundle that another operator wrote for you",
                )
                .next(
                    "hactl cluster init --zookeeper HOSTS --node NAME=ADDR",
                    "to make a new cluster",
                )
                .next("hactl playground up", "to try everything on a local cluster")
        } else {
            error
                .why(format!(
                    "there are contexts, but none is the current one: {}",
                    known.join(", ")
                ))
                .next("hactl context use NAME", "to choose one")
        })
    }

    /// Reads a context.
    ///
    /// # Errors
    /// `HA0004` if it does not exist, `HA0005` if it is damaged.
    pub fn load(&self, name: &str) -> Result<Context, CliError> {
        self.require(name)?;
        let dir = self.context_dir(name);
        let bundle = bundle::read(&dir.join("bundle.toml"), bundle::Kind::User)?;
        Ok(Context {
            name: name.to_owned(),
            dir,
            bundle,
        })
    }

    /// Adds a context. With `replace` an existing one of the same cluster gets the new bundle.
    ///
    /// # Errors
    /// `HA0008` if it exists, `HA0007` for a bad name, `HA0005` if the bundle is not a user's.
    pub fn add(&self, name: &str, bundle: &Bundle, replace: bool) -> Result<Context, CliError> {
        names::check_name("context", name)?;
        if bundle.kind != bundle::Kind::User.word() {
            return Err(
                CliError::new(codes::BAD_BUNDLE, "a context is made from a user's bundle")
                    .why(format!("this is a {}'s bundle", bundle.kind)),
            );
        }
        let dir = self.context_dir(name);
        let path = dir.join("bundle.toml");
        if path.exists() {
            if !replace {
                return Err(
                    CliError::new(codes::EXISTS_LOCALLY, format!("there is a context {name} already"))
                        .next("hactl context add --bundle FILE --name OTHER", "another name")
                        .next(
                            "hactl context add --bundle FILE --replace",
                            "a renewed bundle of the same cluster",
                        ),
                );
            }
            let old = bundle::read(&path, bundle::Kind::User)?;
            if old.cluster_id != bundle.cluster_id {
                return Err(
                    CliError::new(codes::EXISTS_LOCALLY, format!("context {name} is of another cluster"))
                        .why(format!(
                            "it has cluster id {}, the bundle {}",
                            old.cluster_id, bundle.cluster_id
                        ))
                        .next("hactl context add --bundle FILE --name OTHER", "another name"),
                );
            }
        }
        files::create_private_dir(&dir)?;
        let text = bundle::to_toml(bundle)?;
        if replace {
            files::replace(&path, &text)?;
        } else {
            files::write_new(&path, &text)?;
        }
        Ok(Context {
            name: name.to_owned(),
            dir,
            bundle: bundle.clone(),
        })
    }

    /// Adds the certificate authority to the contexts of its cluster and returns their names.
    ///
    /// # Errors
    /// `HA0004` if no context is of that cluster, `HA0008` if all have it already.
    pub fn add_authority(&self, authority: &ClusterAuthority, only: Option<&str>) -> Result<Vec<String>, CliError> {
        let mut matching = Vec::new();
        for name in self.names()? {
            let of_cluster = self
                .load(&name)
                .is_ok_and(|c| c.bundle.cluster_id == authority.cluster_id);
            if of_cluster && only.is_none_or(|only| only == name) {
                matching.push(name);
            }
        }
        if matching.is_empty() {
            return Err(CliError::new(
                codes::UNKNOWN_CONTEXT,
                format!("there is no context of cluster {} to add it to", authority.cluster),
            )
            .why(format!(
                "the authority is of the cluster with id {}",
                authority.cluster_id
            ))
            .next(
                "hactl context add --bundle FILE",
                "your own bundle of that cluster first",
            ));
        }
        let mut added = Vec::new();
        for name in &matching {
            let path = self.authority_path(name);
            if !path.exists() {
                authority.save_new(&path)?;
                added.push(name.clone());
            }
        }
        if added.is_empty() {
            return Err(CliError::new(
                codes::EXISTS_LOCALLY,
                format!("context {} has its certificate authority already", matching.join(", ")),
            ));
        }
        Ok(added)
    }

    /// Forgets a context with all its files.
    ///
    /// # Errors
    /// `HA0004` if it does not exist, `HA0002` if it cannot be deleted.
    pub fn remove(&self, name: &str) -> Result<(), CliError> {
        self.require(name)?;
        let dir = self.context_dir(name);
        std::fs::remove_dir_all(&dir).map_err(|e| file_error("delete", &dir, &e))
    }

    fn require(&self, name: &str) -> Result<(), CliError> {
        if self.exists(name) {
            return Ok(());
        }
        let known = self.names()?;
        let error = CliError::new(codes::UNKNOWN_CONTEXT, format!("there is no context {name}"));
        Err(if known.is_empty() {
            error
                .why("there is none at all")
                .next("hactl context add --bundle FILE", "")
        } else {
            error
                .why(format!("there are: {}", known.join(", ")))
                .next("hactl context list", "")
        })
    }
}

impl Context {
    /// The cluster's certificate authority, if this operator keeps it.
    ///
    /// # Errors
    /// `HA0006` if it is not here, `HA0005` if it is damaged.
    pub fn authority(&self) -> Result<ClusterAuthority, CliError> {
        let path = self.dir.join("ca.toml");
        if !path.exists() {
            return Err(
                CliError::new(codes::NO_CA, "this needs the cluster's certificate authority")
                    .why(format!(
                        "context {} has none: it stays with whoever made cluster {}",
                        self.name, self.bundle.cluster
                    ))
                    .next("hactl context add --ca FILE", "if you have been given it"),
            );
        }
        let authority = ClusterAuthority::load(&path)?;
        if authority.cluster_id != self.bundle.cluster_id {
            return Err(
                CliError::new(codes::BAD_BUNDLE, format!("{} is of another cluster", path.display())).why(format!(
                    "it has cluster id {}, the context {}",
                    authority.cluster_id, self.bundle.cluster_id
                )),
            );
        }
        Ok(authority)
    }

    /// Whether this operator keeps the certificate authority.
    pub fn has_authority(&self) -> bool {
        self.dir.join("ca.toml").exists()
    }

    /// What was last seen of the cluster; empty if nothing was or it cannot be read.
    pub fn cache(&self) -> Cache {
        files::read(&self.dir.join("cache.toml"))
            .ok()
            .and_then(|text| toml::from_str(&text).ok())
            .unwrap_or_default()
    }

    /// Remembers what was seen of the cluster. Best effort: nothing depends on it.
    pub fn update_cache(&self, change: impl FnOnce(&mut Cache)) {
        let old = self.cache();
        let mut new = old.clone();
        change(&mut new);
        if new != old
            && let Ok(text) = toml::to_string(&new)
        {
            let _ = files::replace(&self.dir.join("cache.toml"), &text);
        }
    }

    /// Endpoints to dial, the likeliest first: the one that answered last, those that the cluster listed, those in the
    /// bundle.
    pub fn endpoints(&self) -> Vec<String> {
        let cache = self.cache();
        let mut all: Vec<String> = Vec::new();
        let listed = cache.endpoints.iter().chain(&self.bundle.endpoints);
        let good = Some(&cache.good).filter(|good| listed.clone().any(|e| e == *good));
        for endpoint in good.into_iter().chain(listed) {
            if names::address(endpoint, names::GRPC_PORT).is_ok() && !all.contains(endpoint) {
                all.push(endpoint.clone());
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ha_proto::v1::AccessRole;

    fn store() -> (tempfile::TempDir, Store, ClusterAuthority, Bundle) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path());
        let ca = ClusterAuthority::create("prod", &["zk".into()], crate::ca::DEFAULT_SESSION_TIMEOUT).unwrap();
        let bundle = ca.user_bundle(
            &ca.issue_user("alice", AccessRole::Admin).unwrap(),
            vec!["127.0.0.1:7400".into()],
        );
        (dir, store, ca, bundle)
    }

    #[test]
    fn choosing() {
        let (_dir, store, _, bundle) = store();
        assert!(store.select(None).unwrap_err().is(codes::NO_CONTEXT));
        store.add("prod", &bundle, false).unwrap();
        assert!(store.select(None).unwrap_err().is(codes::NO_CONTEXT));
        store.set_current("prod").unwrap();
        assert_eq!(store.select(None).unwrap().name, "prod");
        assert!(store.select(Some("other")).unwrap_err().is(codes::UNKNOWN_CONTEXT));
        assert!(store.select(Some("../prod")).unwrap_err().is(codes::UNKNOWN_CONTEXT));
        store.remove("prod").unwrap();
        assert!(store.names().unwrap().is_empty());
        assert_eq!(store.current().unwrap(), None);
    }

    #[test]
    fn nothing_is_overwritten_unless_it_is_the_same_cluster() {
        let (_dir, store, _, bundle) = store();
        store.add("prod", &bundle, false).unwrap();
        assert!(store.add("prod", &bundle, false).unwrap_err().is(codes::EXISTS_LOCALLY));
        store.add("prod", &bundle, true).unwrap();
        let other = Bundle {
            cluster_id: "another".into(),
            ..bundle.clone()
        };
        assert!(store.add("prod", &other, true).unwrap_err().is(codes::EXISTS_LOCALLY));
        let node = Bundle {
            kind: "node".into(),
            ..bundle
        };
        assert!(store.add("n", &node, false).unwrap_err().is(codes::BAD_BUNDLE));
    }

    #[test]
    fn the_authority_goes_to_its_own_cluster() {
        let (_dir, store, ca, bundle) = store();
        assert!(store.add_authority(&ca, None).unwrap_err().is(codes::UNKNOWN_CONTEXT));
        let context = store.add("prod", &bundle, false).unwrap();
        assert!(context.authority().unwrap_err().is(codes::NO_CA));
        assert_eq!(store.add_authority(&ca, None).unwrap(), ["prod"]);
        assert_eq!(context.authority().unwrap().cluster_id, ca.cluster_id);
        assert!(store.add_authority(&ca, None).unwrap_err().is(codes::EXISTS_LOCALLY));
    }

    #[test]
    fn the_endpoint_that_answered_comes_first() {
        let (_dir, store, _, bundle) = store();
        let context = store.add("prod", &bundle, false).unwrap();
        context.update_cache(|c| {
            c.endpoints = vec!["a:1".into(), "b:1".into()];
            c.good = "b:1".into();
        });
        assert_eq!(context.endpoints(), ["b:1", "a:1", "127.0.0.1:7400"]);
        std::fs::write(context.dir.join("cache.toml"), "rubbish").unwrap();
        assert_eq!(context.endpoints(), ["127.0.0.1:7400"]);
    }
}
