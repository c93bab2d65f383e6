//! `hactl db dsn`: how applications connect, with every host that may be the primary. Never a password.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ha_proto::codes;
use ha_proto::v1::{Group, InstanceRole};
use serde::Serialize;

use crate::commands::Cx;
use crate::error::CliError;
use crate::output::Format;
use crate::output::document::{Document, Meta};
use crate::output::table::clean;

/// How a connection is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Syntax {
    /// postgresql://…, as libpq and most drivers take it.
    Uri,
    /// host=… port=…, as libpq takes it.
    Kv,
    /// jdbc:postgresql://…
    Jdbc,
    /// Lines for a shell: export PGHOST=…
    Env,
}

/// `hactl db dsn`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A client with several hosts finds the primary itself (target_session_attrs) and comes back after a failover. The proxy \
                        of\nany node leads to the primary too, and lets new connections wait for it. Passwords: ~/.pgpass or PGPASSWORD.\n\n\
                        Examples:\n  psql \"$(hactl db dsn)\"\n  eval \"$(hactl db dsn --format env --proxy)\""
)]
pub struct Args {
    /// For reading from standbys.
    #[arg(long)]
    pub standby: bool,
    /// Through the proxies of the nodes instead of to PostgreSQL itself.
    #[arg(long)]
    pub proxy: bool,
    /// How it is written: uri, kv, jdbc or env.
    #[arg(long, short, value_enum, value_name = "FORMAT", default_value_t = Syntax::Uri, hide_default_value = true,
          hide_possible_values = true)]
    pub format: Syntax,
    /// The role; without it the owner of the database.
    #[arg(long, short, value_name = "ROLE")]
    pub user: Option<String>,
    /// The database; without it the group's first one, else postgres.
    #[arg(long, short, value_name = "NAME")]
    pub database: Option<String>,
    /// Encryption that the client asks for: require, verify-full, …
    #[arg(long, value_name = "MODE",
          value_parser = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"])]
    pub sslmode: Option<String>,
}

/// Seconds a client gives each host.
const CONNECT_TIMEOUT: &str = "2";

/// A connection, before it is written.
#[derive(Debug)]
struct Connection {
    /// Host and port, the likeliest first.
    hosts: Vec<(String, String)>,
    database: String,
    user: String,
    standby: bool,
    proxy: bool,
    sslmode: Option<String>,
}

#[derive(Serialize)]
struct DsnView {
    name: String,
    status: DsnStatus,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DsnStatus {
    uri: String,
    kv: String,
    jdbc: String,
    env: BTreeMap<String, String>,
    hosts: Vec<String>,
    standby: bool,
    proxy: bool,
}

fn split(address: &str) -> Option<(String, String)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (!host.is_empty() && port.parse::<u16>().is_ok()).then(|| (host.to_owned(), port.to_owned()))
}

/// The hosts that lead to what is wanted; those that lead there now come first.
fn hosts(group: &Group, args: &Args) -> Vec<(String, String)> {
    let mut found: Vec<(bool, &str)> = if args.proxy {
        let address = |p: &ha_proto::v1::ProxyStatus| -> String {
            if args.standby {
                p.standby_address.clone()
            } else {
                p.address.clone()
            }
        };
        return group.proxies.iter().filter_map(|p| split(&address(p))).collect();
    } else {
        let real = group.instances.iter().filter(|i| i.role() != InstanceRole::None);
        real.map(|i| (i.wanted_primary == args.standby, i.address.as_str()))
            .collect()
    };
    found.sort_by_key(|(last, _)| *last);
    found.into_iter().filter_map(|(_, address)| split(address)).collect()
}

/// Whatever is not plain, as URIs write it.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// A value as libpq's `key=value` takes it.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ',' | ':' | '/');
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// A value as a shell takes it.
fn shell(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ',' | ':' | '/');
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

impl Connection {
    fn list(&self, part: impl Fn(&(String, String)) -> String) -> String {
        self.hosts.iter().map(part).collect::<Vec<_>>().join(",")
    }

    fn host_list(&self) -> String {
        self.list(|(host, port)| {
            if host.contains(':') {
                format!("[{host}]:{port}")
            } else {
                format!("{host}:{port}")
            }
        })
    }

    /// The proxy's port says which it is; of several servers the client finds it out.
    fn target(&self) -> Option<&'static str> {
        match (self.proxy, self.standby) {
            (true, _) => None,
            (false, true) => Some("prefer-standby"),
            (false, false) => Some("read-write"),
        }
    }

    /// Options of libpq beside hosts, user and database.
    fn options(&self) -> Vec<(&'static str, String)> {
        let mut options = Vec::new();
        options.extend(self.target().map(|target| ("target_session_attrs", target.to_owned())));
        options.push(("connect_timeout", CONNECT_TIMEOUT.to_owned()));
        options.extend(self.sslmode.clone().map(|mode| ("sslmode", mode)));
        options
    }

    fn uri(&self) -> String {
        let options: Vec<String> = self
            .options()
            .iter()
            .map(|(k, v)| format!("{k}={}", encoded(v)))
            .collect();
        format!(
            "postgresql://{}@{}/{}?{}",
            encoded(&self.user),
            self.host_list(),
            encoded(&self.database),
            options.join("&")
        )
    }

    fn kv(&self) -> String {
        let mut parts = vec![
            ("host", self.list(|(host, _)| host.clone())),
            ("port", self.list(|(_, port)| port.clone())),
            ("dbname", self.database.clone()),
            ("user", self.user.clone()),
        ];
        parts.extend(self.options());
        let parts: Vec<String> = parts.iter().map(|(k, v)| format!("{k}={}", quoted(v))).collect();
        parts.join(" ")
    }

    fn jdbc(&self) -> String {
        let mut options = vec![format!("user={}", encoded(&self.user))];
        match (self.proxy, self.standby) {
            (true, _) => {}
            (false, true) => options.extend([
                "targetServerType=preferSecondary".into(),
                "loadBalanceHosts=true".into(),
            ]),
            (false, false) => options.push("targetServerType=primary".into()),
        }
        options.push(format!("connectTimeout={CONNECT_TIMEOUT}"));
        options.extend(self.sslmode.as_ref().map(|mode| format!("sslmode={mode}")));
        format!(
            "jdbc:postgresql://{}/{}?{}",
            self.host_list(),
            encoded(&self.database),
            options.join("&")
        )
    }

    fn env(&self) -> BTreeMap<String, String> {
        let mut env = BTreeMap::from([
            ("PGHOST".to_owned(), self.list(|(host, _)| host.clone())),
            ("PGPORT".to_owned(), self.list(|(_, port)| port.clone())),
            ("PGDATABASE".to_owned(), self.database.clone()),
            ("PGUSER".to_owned(), self.user.clone()),
            ("PGCONNECT_TIMEOUT".to_owned(), CONNECT_TIMEOUT.to_owned()),
        ]);
        if let Some(target) = self.target() {
            env.insert("PGTARGETSESSIONATTRS".to_owned(), target.to_owned());
        }
        if let Some(mode) = &self.sslmode {
            env.insert("PGSSLMODE".to_owned(), mode.clone());
        }
        env
    }

    fn write(&self, syntax: Syntax) -> String {
        match syntax {
            Syntax::Uri => self.uri(),
            Syntax::Kv => self.kv(),
            Syntax::Jdbc => self.jdbc(),
            Syntax::Env => {
                let lines = self.env();
                let lines: Vec<String> = lines.iter().map(|(k, v)| format!("export {k}={}", shell(v))).collect();
                lines.join("\n")
            }
        }
    }
}

fn connection(group: &Group, args: &Args) -> Result<Connection, CliError> {
    let hosts = hosts(group, args);
    if hosts.is_empty() {
        let (code, what, next) = if args.proxy {
            (codes::NOT_REPORTING, "no proxy of the group listens", "hactl db dsn")
        } else {
            (
                codes::NOT_REPORTING,
                "no instance of the group says where it listens",
                "hactl db dsn --proxy",
            )
        };
        return Err(CliError::new(code, format!("group {}: {what}", group.name))
            .next(
                format!("hactl db status --group {}", group.name),
                "how its instances are",
            )
            .next(next, "the other way to it"));
    }
    let spec = group.spec.clone().unwrap_or_default();
    let database = args
        .database
        .clone()
        .or_else(|| spec.databases.first().map(|d| d.name.clone()))
        .unwrap_or_else(|| "postgres".to_owned());
    let owner = spec
        .databases
        .iter()
        .find(|d| d.name == database)
        .map(|d| d.owner.clone());
    let login = spec.roles.iter().find(|r| !r.no_login).map(|r| r.name.clone());
    Ok(Connection {
        hosts,
        user: args
            .user
            .clone()
            .or(owner)
            .or(login)
            .unwrap_or_else(|| "postgres".to_owned()),
        database,
        standby: args.standby,
        proxy: args.proxy,
        sslmode: args.sslmode.clone(),
    })
}

pub(super) async fn run(args: &Args, name: Option<String>, cx: &Cx) -> Result<(), CliError> {
    let mut client = cx.client()?;
    let group = super::group(&mut client, name.as_deref()).await?;
    let connection = connection(&group, args)?;
    let out = &cx.out;
    match out.format {
        Format::Json | Format::Yaml => {
            let status = DsnStatus {
                uri: connection.uri(),
                kv: connection.kv(),
                jdbc: connection.jdbc(),
                env: connection.env(),
                hosts: connection.hosts.iter().map(|(h, p)| format!("{h}:{p}")).collect(),
                standby: args.standby,
                proxy: args.proxy,
            };
            let meta = Meta::of(client.cluster(), group.revision, group.observed_unix_ms);
            let view = DsnView {
                name: group.name,
                status,
            };
            out.document(&Document::new("Dsn", &meta, view))
        }
        Format::Name => out.line(&format!("db/{}", group.name)),
        Format::Table | Format::Wide => {
            let text = connection.write(args.format);
            let lines: String = text.lines().map(|line| format!("{}\n", clean(line))).collect();
            out.text(&lines)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(standby: bool, proxy: bool) -> Connection {
        Connection {
            hosts: vec![("10.0.0.1".into(), "5432".into()), ("fd00::2".into(), "5433".into())],
            database: "my app".into(),
            user: "o'neil".into(),
            standby,
            proxy,
            sslmode: Some("require".into()),
        }
    }

    #[test]
    fn every_way_of_writing_it() {
        insta::assert_snapshot!(connection(false, false).uri(), @"postgresql://o%27neil@10.0.0.1:5432,[fd00::2]:5433/my%20app?target_session_attrs=read-write&connect_timeout=2&sslmode=require");
        insta::assert_snapshot!(connection(true, false).kv(), @r"host=10.0.0.1,fd00::2 port=5432,5433 dbname='my app' user='o\'neil' target_session_attrs=prefer-standby connect_timeout=2 sslmode=require");
        insta::assert_snapshot!(connection(true, true).uri(), @"postgresql://o%27neil@10.0.0.1:5432,[fd00::2]:5433/my%20app?connect_timeout=2&sslmode=require");
        insta::assert_snapshot!(connection(true, false).jdbc(), @"jdbc:postgresql://10.0.0.1:5432,[fd00::2]:5433/my%20app?user=o%27neil&targetServerType=preferSecondary&loadBalanceHosts=true&connectTimeout=2&sslmode=require");
        insta::assert_snapshot!(connection(false, false).write(Syntax::Env), @r"
        export PGCONNECT_TIMEOUT=2
        export PGDATABASE='my app'
        export PGHOST=10.0.0.1,fd00::2
        export PGPORT=5432,5433
        export PGSSLMODE=require
        export PGTARGETSESSIONATTRS=read-write
        export PGUSER='o'\''neil'
        ");
    }

    #[test]
    fn addresses_are_split_at_the_port() {
        assert_eq!(split("[::1]:5432"), Some(("::1".into(), "5432".into())));
        assert_eq!(split("h:1"), Some(("h".into(), "1".into())));
        for bad in ["", "h", ":1", "h:x"] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }
}
