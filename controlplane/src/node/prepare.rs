//! From files and flags to what the daemon's parts are made of.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use ha_core::{AccessRole, UserRecord};
use ha_proto::{codes, v1};
use tokio::sync::watch;

use super::Overrides;
use crate::agent::StateDir;
use crate::config::{Config, Hook};
use crate::coordination::ZooKeeperOptions;
use crate::error::ApiError;
use crate::platform::{self, Clock, SystemClock};
use crate::security::{NodeBundle, Security, keys};
use crate::shared::Me;
use crate::{logging, session};

/// The configuration: the file, and what the command line says before it.
///
/// # Errors
/// As [`Config::load`].
pub fn load(overrides: &Overrides) -> Result<Config, ApiError> {
    let mut config = Config::load(overrides.config.as_deref())?;
    let absolute = |p: &PathBuf| std::path::absolute(p).unwrap_or_else(|_| p.clone());
    if let Some(bundle) = &overrides.bundle {
        config.bundle = absolute(bundle);
    }
    if let Some(dir) = &overrides.state_dir {
        config.state_dir = absolute(dir);
    }
    config.grpc_listen = overrides.grpc.or(config.grpc_listen);
    config.http_listen = overrides.http.unwrap_or(config.http_listen);
    config.log.level = overrides.log_level.unwrap_or(config.log.level);
    Ok(config)
}

/// What `had check` found: nothing that keeps the daemon from starting, and remarks.
///
/// # Errors
/// The first thing that would keep the daemon from starting, or from being of any use.
pub fn check(overrides: &Overrides) -> Result<Vec<String>, ApiError> {
    let config = load(overrides)?;
    let bundle = NodeBundle::read(&config.bundle)?;
    let grpc = config.grpc_listen(&bundle.address)?;
    let security = Security::new(&bundle, &config.bundle, &config.state_dir, Arc::new(SystemClock))?;
    let certificate = security.certificate();
    let now = SystemClock.wall_ms();
    let time = |ms: i64| jiff::Timestamp::from_millisecond(ms).map_or_else(|_| "?".into(), |t| format!("{t:.0}"));
    if !certificate.is_timely(now) {
        let (code, what) = if now < certificate.not_before_ms {
            (
                &codes::CERT_NOT_YET_VALID,
                format!("is valid from {}", time(certificate.not_before_ms)),
            )
        } else {
            (
                &codes::CERT_EXPIRED,
                format!("expired at {}", time(certificate.not_after_ms)),
            )
        };
        return Err(
            ApiError::new(code, format!("the certificate of node {} {what}", bundle.name))
                .next(format!("hactl node renew {}", bundle.name)),
        );
    }
    let (address, http) = config.advertised(&bundle.address, config.http_listen.port());
    let mut remarks = vec![
        format!(
            "node {} of cluster {} ({})",
            bundle.name, bundle.cluster, bundle.cluster_id
        ),
        format!("certificate valid until {}", time(certificate.not_after_ms)),
        format!("zookeeper {}", bundle.zookeeper.join(",")),
        format!("gRPC on {grpc}, reached by others at {address}"),
        format!("HTTP on {}, reached by others at {http}", config.http_listen),
        format!("state in {}", config.state_dir.display()),
    ];
    for hook in &config.on_change {
        let program = hook.command.first().map_or("", String::as_str);
        let there = !program.contains('/') || std::path::Path::new(program).is_file();
        let note = if there { "" } else { ": WARNING: there is no such file" };
        remarks.push(format!("hook {} runs {program}{note}", hook.name));
    }
    Ok(remarks)
}

/// Who this daemon is.
pub(super) fn me(config: &Config, bundle: &NodeBundle, state: &StateDir, clock: &dyn Clock, http_port: u16) -> Me {
    let (address, http_address) = config.advertised(&bundle.address, http_port);
    Me {
        node: bundle.name.clone(),
        cluster: bundle.cluster.clone(),
        cluster_id: bundle.cluster_id.clone(),
        address,
        http_address,
        boot_id: platform::boot_id(),
        token: state.token(),
        run: uuid::Uuid::new_v4().to_string(),
        started_ms: clock.wall_ms(),
    }
}

/// What the first daemon makes the cluster's root with.
pub(super) fn bootstrap(b: &v1::Bootstrap) -> session::Bootstrap {
    let record = |role, serial: &str, expires_ms| UserRecord {
        role,
        serials: vec![serial.to_owned()],
        expires_ms,
        created_ms: b.created_unix_ms,
        revoked_ms: None,
    };
    session::Bootstrap {
        user: (
            b.user.clone(),
            record(Some(AccessRole::Admin), &b.user_serial, b.user_expires_unix_ms),
        ),
        node: record(None, &b.node_serial, b.node_expires_unix_ms),
        created_ms: b.created_unix_ms,
    }
}

/// How ZooKeeper is reached.
pub(super) fn zookeeper(bundle: &NodeBundle) -> ZooKeeperOptions {
    ZooKeeperOptions {
        hosts: bundle.zookeeper.clone(),
        root: format!("/ha/{}", bundle.cluster),
        session_timeout: bundle.session_timeout,
        digest_user: keys::ZOOKEEPER_USER.to_owned(),
        digest_password: keys::zookeeper_password(&bundle.secret).expose().clone(),
    }
}

/// Where a listener is reached on its own machine.
pub(super) fn loopback(listening: SocketAddr) -> SocketAddr {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listening.port())
}

/// What SIGHUP does.
pub(super) struct Reload {
    pub(super) overrides: Overrides,
    pub(super) config: Config,
    pub(super) log: logging::Handle,
    pub(super) hooks: watch::Sender<Vec<Hook>>,
    pub(super) security: Arc<Security>,
}

impl Reload {
    /// Takes over what can be taken over, and says what cannot. What is wrong changes nothing.
    pub(super) async fn now(&mut self) {
        let (security, overrides) = (self.security.clone(), self.overrides.clone());
        let read = tokio::task::spawn_blocking(move || (security.reload(), load(&overrides))).await;
        let Ok((certificates, config)) = read else { return };
        match certificates {
            Ok(true) => tracing::info!("reloaded: another certificate is in use"),
            Ok(false) => {}
            Err(e) => tracing::error!("the certificate in use stays in use: {e}"),
        }
        let new = match config {
            Ok(new) => new,
            Err(e) => {
                tracing::error!("the configuration in use stays in use: {e}");
                return;
            }
        };
        self.log.set(new.log.level);
        self.hooks.send_if_modified(|hooks| {
            let changed = *hooks != new.on_change;
            hooks.clone_from(&new.on_change);
            changed
        });
        let rest = |c: &Config| Config {
            log: self.config.log.clone(),
            on_change: Vec::new(),
            ..c.clone()
        };
        if rest(&new) != rest(&self.config) || new.log.format != self.config.log.format {
            tracing::warn!("reloaded log.level and on_change; what else was changed takes a restart");
        } else {
            tracing::info!("reloaded log.level and on_change");
        }
        self.config.on_change = new.on_change;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_goes_first() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("had.toml");
        std::fs::write(&file, "state_dir = \"/a\"\n[listen]\nhttp = \"127.0.0.1:1\"\n").unwrap();
        let config = load(&Overrides {
            config: Some(file),
            bundle: Some("here.toml".into()),
            http: Some("127.0.0.1:2".parse().unwrap()),
            ..Overrides::default()
        });
        let config = config.unwrap();
        assert_eq!((config.state_dir.to_str(), config.http_listen.port()), (Some("/a"), 2));
        assert!(config.bundle.is_absolute());
    }

    #[test]
    fn own_address() {
        for (listening, reached) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:1", "[::1]:1"),
            ("127.0.0.2:1", "127.0.0.2:1"),
        ] {
            assert_eq!(loopback(listening.parse().unwrap()).to_string(), reached);
        }
    }
}
