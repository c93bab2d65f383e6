//! Whether what `had.toml` says can be used.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ha_core::{valid_address, valid_name};

use super::file::{self, File, OnChange, Proxy};
use super::{Config, Hook, Log, Postgres, Problem};
use crate::proxy::routes::Ports;
use crate::proxy::{Network, Settings};

/// Defaults of a hook.
const HOOK_TIMEOUT: Duration = Duration::from_secs(30);
const HOOK_RETRIES: u32 = 3;

fn wrong(key: impl Into<String>, why: impl Into<String>) -> Problem {
    Problem {
        line: None,
        key: key.into(),
        why: why.into(),
    }
}

/// Fills in the defaults.
pub(super) fn checked(file: File) -> Result<Config, Problem> {
    let default = Config::default();
    let http_listen = file
        .listen
        .http
        .as_deref()
        .map(|v| socket("listen.http", v))
        .transpose()?;
    let interval = file.report.interval.as_deref();
    let interval = interval
        .map(|v| duration("report.interval", v, Duration::from_millis(100), Duration::from_secs(1)))
        .transpose()?;
    let config = Config {
        bundle: path("bundle", file.bundle)?.unwrap_or(default.bundle),
        state_dir: path("state_dir", file.state_dir)?.unwrap_or(default.state_dir),
        grpc_listen: file
            .listen
            .grpc
            .as_deref()
            .map(|v| socket("listen.grpc", v))
            .transpose()?,
        http_listen: http_listen.unwrap_or(default.http_listen),
        grpc_advertise: address("advertise.grpc", file.advertise.grpc)?,
        http_advertise: address("advertise.http", file.advertise.http)?,
        log: Log {
            level: file.log.level.unwrap_or(default.log.level),
            format: file.log.format.unwrap_or(default.log.format),
        },
        report_interval: interval.unwrap_or(default.report_interval),
        measure_disk: path("measure.disk", file.measure.disk)?,
        postgres: postgres(file.postgres)?,
        proxy: proxy(file.proxy)?,
        on_change: file.on_change.into_iter().map(hook).collect::<Result<_, _>>()?,
    };
    let mut names = BTreeSet::new();
    for hook in &config.on_change {
        if !names.insert(&hook.name) {
            return Err(wrong("on_change.name", format!("two hooks are named {:?}", hook.name)));
        }
    }
    Ok(config)
}

fn path(key: &str, value: Option<PathBuf>) -> Result<Option<PathBuf>, Problem> {
    match value {
        Some(p) if !p.is_absolute() => Err(wrong(key, format!("{:?} is not an absolute path", p.display()))),
        value => Ok(value),
    }
}

fn socket(key: &str, value: &str) -> Result<SocketAddr, Problem> {
    value.parse().map_err(|_| {
        wrong(
            key,
            format!("{value:?} is not an IP address and a port, as in \"0.0.0.0:7400\""),
        )
    })
}

fn address(key: &str, value: Option<String>) -> Result<Option<String>, Problem> {
    if let Some(v) = &value {
        valid_address(v).map_err(|e| wrong(key, format!("{v:?} is not HOST:PORT: {e}")))?;
    }
    Ok(value)
}

fn duration(key: &str, value: &str, least: Duration, most: Duration) -> Result<Duration, Problem> {
    let range = format!(
        "from {} to {}",
        humantime::format_duration(least),
        humantime::format_duration(most)
    );
    match humantime::parse_duration(value) {
        Ok(d) if (least..=most).contains(&d) => Ok(d),
        Ok(_) => Err(wrong(key, format!("{value:?} is out of range: {range}"))),
        Err(_) => Err(wrong(
            key,
            format!("{value:?} is not a time, as in \"500ms\" or \"30s\", {range}"),
        )),
    }
}

fn postgres(raw: file::Postgres) -> Result<Postgres, Problem> {
    let key = |k: &str| format!("postgres.{k}");
    let named = |n: &String| !n.is_empty() && !n.contains(|c: char| c.is_control() || c == ':' || c == '/');
    if let Some(bad) = raw.run_as.as_ref().filter(|n| !named(n)) {
        return Err(wrong(key("run_as"), format!("{bad:?} is no name of an account")));
    }
    let listen = raw.listen.map(|v| {
        v.parse()
            .map_err(|_| wrong(key("listen"), format!("{v:?} is not an IP address, as in \"0.0.0.0\"")))
    });
    Ok(Postgres {
        run_as: raw.run_as,
        bin_dir: path(&key("bin_dir"), raw.bin_dir)?,
        data_root: path(&key("data_root"), raw.data_root)?,
        socket_dir: path(&key("socket_dir"), raw.socket_dir)?,
        listen: listen.transpose()?.unwrap_or(Postgres::default().listen),
    })
}

fn proxy(raw: Proxy) -> Result<Settings, Problem> {
    let default = Settings::default();
    let listen = raw.listen.map(|v| {
        v.parse().map_err(|_| {
            let why = format!("{v:?} is not an IP address, as in \"0.0.0.0\"");
            wrong("proxy.listen", why)
        })
    });
    let within = |key: &str, value: Option<usize>, most: usize| match value {
        Some(n) if !(1..=most).contains(&n) => Err(wrong(key, format!("{n} is out of range: from 1 to {most}"))),
        n => Ok(n),
    };
    let networks = raw.proxy_protocol_from.iter().map(|v| {
        v.parse::<Network>().map_err(|()| {
            let why = format!("{v:?} is not an IP address or a network, as in \"10.0.0.0/8\"");
            wrong("proxy.proxy_protocol_from", why)
        })
    });
    let ports = raw.ports.into_iter().map(|(group, ports)| {
        let key = format!("proxy.ports.{group}");
        valid_name(&group).map_err(|e| wrong(&key, format!("{group:?}: {e}")))?;
        if ports.primary.is_some() && ports.primary == ports.standbys {
            return Err(wrong(&key, "primary and standbys need a port each"));
        }
        // 0 stands for no port in the file; what it stands for elsewhere is of no use to clients.
        let port = |p: Option<u16>| p.filter(|p| *p > 0);
        Ok((
            group,
            Ports {
                primary: port(ports.primary),
                standbys: port(ports.standbys),
            },
        ))
    });
    Ok(Settings {
        enabled: raw.enabled.unwrap_or(default.enabled),
        listen: listen.transpose()?.unwrap_or(default.listen),
        ports: ports.collect::<Result<_, _>>()?,
        max_connections: within("proxy.max_connections", raw.max_connections, 100_000)?
            .unwrap_or(default.max_connections),
        threads: within("proxy.threads", raw.threads, 64)?.unwrap_or(default.threads),
        proxy_protocol_from: networks.collect::<Result<_, _>>()?,
    })
}

fn hook(raw: OnChange) -> Result<Hook, Problem> {
    // The name becomes part of a key in the state directory and of log lines.
    valid_name(&raw.name).map_err(|e| wrong("on_change.name", format!("{:?}: {e}", raw.name)))?;
    let key = |k: &str| format!("on_change.{k} (hook {})", raw.name);
    match raw.command.first() {
        None => {
            return Err(wrong(
                key("command"),
                "it is empty; the program and its arguments are wanted",
            ));
        }
        Some(program) if program.is_empty() => return Err(wrong(key("command"), "the program has no name")),
        Some(_) => {}
    }
    if raw.command.iter().any(|a| a.contains('\0')) {
        return Err(wrong(key("command"), "an argument contains a zero byte"));
    }
    if raw.kinds.iter().any(String::is_empty) {
        return Err(wrong(
            key("kinds"),
            "an empty beginning matches everything; leave kinds out for all changes",
        ));
    }
    for (name, value) in &raw.environment {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(wrong(key("environment"), format!("{name:?} cannot be a variable")));
        }
        if name.starts_with("HA_") {
            return Err(wrong(key("environment"), format!("{name} is set by had itself")));
        }
    }
    let timeout = raw.timeout.as_deref();
    let timeout = timeout
        .map(|v| {
            duration(
                &key("timeout"),
                v,
                Duration::from_millis(100),
                Duration::from_secs(3600),
            )
        })
        .transpose()?;
    if raw.retries.is_some_and(|r| r > 100) {
        return Err(wrong(key("retries"), "at most 100"));
    }
    Ok(Hook {
        timeout: timeout.unwrap_or(HOOK_TIMEOUT),
        retries: raw.retries.unwrap_or(HOOK_RETRIES),
        name: raw.name,
        command: raw.command,
        kinds: raw.kinds,
        environment: raw.environment,
    })
}
