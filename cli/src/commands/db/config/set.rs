//! `hactl db config set`: fields of the specification, parameters, access, databases, roles.

use std::path::PathBuf;

use ha_proto::codes;
use ha_proto::v1::GroupConfig;

use super::{Wanted, file, finish, read, send, stored};
use crate::args::ChangeArgs;
use crate::commands::Cx;
use crate::commands::db::scram;
use crate::complete;
use crate::error::CliError;
use crate::names;
use crate::output::views::database::config::differences;
use crate::output::views::database::spec::{Database, Role, Spec};

/// How often a lost race is run again, where no --revision was given.
const TRIES: usize = 3;

/// `hactl db config set`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Settings:\n  durability  instances  version  port  directory          fields of the group\n  \
                        limits.NAME                                              hactl explain group.limits\n  \
                        proxy.NAME                                               hactl explain group.proxy\n  \
                        any other name                                           a parameter of PostgreSQL\n\n\
                        Examples:\n  hactl db config set work_mem=64MB max_connections=200\n  \
                        hactl db config set jit-                              the default again\n  \
                        hactl db config set durability=quorum-strict limits.degradeAfterMs=30s\n  \
                        hactl db config set proxy.port=6000 proxy.standbyPort=6001\n  \
                        hactl db config set --add-hba 'host all app 10.0.0.0/8 scram-sha-256'\n  \
                        hactl db config set --role app --password-file pw --database app:app"
)]
pub struct Args {
    /// Settings: NAME=VALUE to set, NAME- for the default.
    #[arg(value_name = "SETTING", value_parser = setting, add = complete::settings())]
    pub settings: Vec<Setting>,
    /// Take everything from this file, as `hactl db config get -o yaml` writes it; - is standard input.
    #[arg(long, short, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Add a line to pg_hba.conf; may be given more than once.
    #[arg(long, value_name = "LINE")]
    pub add_hba: Vec<String>,
    /// Take a line out of pg_hba.conf; may be given more than once.
    #[arg(long, value_name = "LINE")]
    pub remove_hba: Vec<String>,
    /// Add a role, or change the one whose password is given; may be given more than once.
    #[arg(long = "role", value_name = "NAME")]
    pub roles: Vec<String>,
    /// The file with the password of --role; - is standard input.
    #[arg(long, value_name = "FILE", requires = "roles")]
    pub password_file: Option<PathBuf>,
    /// Keep a role no more; it stays in PostgreSQL. May be given more than once.
    #[arg(long, value_name = "NAME")]
    pub remove_role: Vec<String>,
    /// Add a database with its owner; may be given more than once.
    #[arg(long = "database", value_name = "NAME:OWNER", value_parser = database)]
    pub databases: Vec<(String, String)>,
    /// Keep a database no more; it stays in PostgreSQL. May be given more than once.
    #[arg(long, value_name = "NAME")]
    pub remove_database: Vec<String>,
    /// Flags of every change.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// `NAME=VALUE` or `NAME-`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    name: String,
    /// None: the default.
    value: Option<String>,
}

fn setting(text: &str) -> Result<Setting, String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => match text.strip_suffix('-') {
            Some(name) => (name, None),
            None => return Err(format!("`{text}`: write NAME=VALUE to set, or NAME- for the default")),
        },
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    if name.is_empty() || !name.chars().all(allowed) {
        return Err(format!("`{name}` is not the name of a setting"));
    }
    Ok(Setting {
        name: name.to_owned(),
        value,
    })
}

/// `K=V` of a parameter, for clap.
pub(in crate::commands::db) fn pair(text: &str) -> Result<(String, String), String> {
    let setting = setting(text)?;
    let value = setting.value.ok_or_else(|| format!("`{text}`: write NAME=VALUE"))?;
    Ok((setting.name, value))
}

fn database(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((name, owner)) if !name.is_empty() && !owner.is_empty() => Ok((name.to_owned(), owner.to_owned())),
        _ => Err(format!("`{text}`: write NAME:OWNER")),
    }
}

/// Sets one field or parameter.
fn apply(spec: &mut Spec, setting: &Setting) -> Result<(), String> {
    let default = Spec::default();
    let value = setting.value.as_deref();
    let number = |what: &str, text: &str| -> Result<u32, String> {
        text.parse().map_err(|_| format!("{what}: `{text}` is not a number"))
    };
    match setting.name.as_str() {
        "durability" => spec.durability = value.map_or(default.durability, str::to_owned),
        "instances" => spec.instances = value.map_or(Ok(0), |v| number("instances", v))?,
        "version" => spec.version = value.map_or(Ok(0), |v| number("version", v))?,
        "port" => {
            spec.port = match value {
                None => default.port,
                Some(text) => text
                    .parse::<u16>()
                    .ok()
                    .filter(|p| *p > 0)
                    .ok_or_else(|| format!("port: `{text}` is not a port"))?,
            };
        }
        "directory" => spec.directory = value.unwrap_or_default().to_owned(),
        "hba" | "databases" | "roles" | "members" | "limits" | "proxy" | "parameters" => {
            return Err(format!("{} is not a single value", setting.name));
        }
        name => match name.split_once('.') {
            Some(("limits", limit)) => set_limit(spec, limit, value)?,
            Some(("proxy", name)) => set_proxy(spec, name, value)?,
            Some(("parameters", name)) => set_parameter(spec, name, value),
            _ => set_parameter(spec, name, value),
        },
    }
    Ok(())
}

fn set_parameter(spec: &mut Spec, name: &str, value: Option<&str>) {
    match value {
        Some(value) => {
            spec.parameters.insert(name.to_owned(), value.to_owned());
        }
        None => {
            spec.parameters.remove(name);
        }
    }
}

/// Milliseconds, also with a unit.
fn span(text: &str) -> Result<u64, String> {
    text.parse::<u64>()
        .or_else(|_| names::duration(text).map(|d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
}

/// Bytes, also with a unit.
fn size(text: &str) -> Result<u64, String> {
    text.parse::<u64>().or_else(|_| names::bytes(text))
}

/// How proxies lead clients to the group, by its name.
fn set_proxy(spec: &mut Spec, name: &str, value: Option<&str>) -> Result<(), String> {
    let port = |text: &str| -> Result<u16, String> {
        let port = text.parse().ok();
        port.ok_or_else(|| format!("proxy.{name}: `{text}` is not a port; 0 is none"))
    };
    let proxy = &mut spec.proxy;
    match name {
        "port" => proxy.port = value.map(port).transpose()?,
        "standbyPort" => proxy.standby_port = value.map(port).transpose()?,
        "waitMs" => proxy.wait_ms = value.map(span).transpose()?,
        "maxLagBytes" => proxy.max_lag_bytes = value.map(size).transpose()?,
        "fallBack" => {
            proxy.fall_back = match value {
                None => None,
                Some("true" | "on" | "yes") => Some(true),
                Some("false" | "off" | "no") => Some(false),
                Some(text) => return Err(format!("proxy.fallBack: `{text}` is neither true nor false")),
            };
        }
        other => return Err(format!("there is no setting `proxy.{other}`")),
    }
    Ok(())
}

/// A limit by its name; spans and sizes also with a unit.
fn set_limit(spec: &mut Spec, name: &str, value: Option<&str>) -> Result<(), String> {
    let parse = |read: &dyn Fn(&str) -> Result<u64, String>| value.map(read).transpose();
    let limits = &mut spec.limits;
    match name {
        "maxSwitchoverLagBytes" => limits.max_switchover_lag_bytes = parse(&size)?,
        "maxFailoverLagBytes" => limits.max_failover_lag_bytes = parse(&size)?,
        "slotRetentionBytes" => limits.slot_retention_bytes = parse(&size)?,
        "degradeAfterMs" => limits.degrade_after_ms = parse(&span)?,
        "startTimeoutMs" => limits.start_timeout_ms = parse(&span)?,
        "stopTimeoutMs" => limits.stop_timeout_ms = parse(&span)?,
        "promoteTimeoutMs" => limits.promote_timeout_ms = parse(&span)?,
        "replaceAfterMs" => limits.replace_after_ms = parse(&span)?,
        "flapWindowMs" => limits.flap_window_ms = parse(&span)?,
        "holdDownMs" => limits.hold_down_ms = parse(&span)?,
        "flapCount" => {
            let count = |text: &str| text.parse::<u32>().map_err(|_| format!("`{text}` is not a number"));
            limits.flap_count = value.map(count).transpose()?;
        }
        other => return Err(format!("there is no limit `{other}`")),
    }
    Ok(())
}

impl Args {
    fn names_nothing(&self) -> bool {
        self.settings.is_empty()
            && self.file.is_none()
            && self.add_hba.is_empty()
            && self.remove_hba.is_empty()
            && self.roles.is_empty()
            && self.remove_role.is_empty()
            && self.databases.is_empty()
            && self.remove_database.is_empty()
    }

    /// What is wanted, from what is stored.
    fn change(&self, config: &GroupConfig) -> Result<Spec, CliError> {
        let bad = |why: String| {
            CliError::new(codes::BAD_VALUE, "a setting cannot be set so")
                .why(why)
                .next("hactl explain group", "the fields")
        };
        let mut spec = match &self.file {
            Some(path) => {
                let (mut spec, _) = file::read(path)?;
                file::without_members(&mut spec, config)?;
                spec
            }
            None => stored(config),
        };
        for setting in &self.settings {
            apply(&mut spec, setting).map_err(bad)?;
        }
        for line in &self.remove_hba {
            let before = spec.hba.len();
            spec.hba.retain(|l| l != line);
            if spec.hba.len() == before {
                return Err(bad(format!("pg_hba.conf has no line `{line}`")));
            }
        }
        for line in &self.add_hba {
            if !spec.hba.contains(line) {
                spec.hba.push(line.clone());
            }
        }
        for name in &self.roles {
            if !spec.roles.iter().any(|r| r.name == *name) {
                spec.roles.push(Role {
                    name: name.clone(),
                    login: true,
                    ..Role::default()
                });
            }
        }
        for (name, owner) in &self.databases {
            match spec.databases.iter_mut().find(|d| d.name == *name) {
                Some(database) => database.owner.clone_from(owner),
                None => spec.databases.push(Database {
                    name: name.clone(),
                    owner: owner.clone(),
                    extensions: Vec::new(),
                }),
            }
        }
        let missing = |what: &str, name: &str| bad(format!("there is no {what} {name} in the group's specification"));
        for name in &self.remove_database {
            let at = spec.databases.iter().position(|d| d.name == *name);
            spec.databases.remove(at.ok_or_else(|| missing("database", name))?);
        }
        for name in &self.remove_role {
            let at = spec.roles.iter().position(|r| r.name == *name);
            spec.roles.remove(at.ok_or_else(|| missing("role", name))?);
        }
        Ok(spec)
    }

    /// As the API takes it, with the verifier of a password that was given.
    fn wanted(&self, group: &str, config: GroupConfig, verifier: Option<&str>) -> Result<Wanted, CliError> {
        let mut spec = self.change(&config)?;
        let mut differences = differences(&stored(&config), &spec);
        if let (Some(_), Some(name)) = (verifier, self.roles.first()) {
            for role in spec.roles.iter_mut().filter(|r| r.name == *name) {
                role.has_password = true;
            }
            differences.push(format!("+ roles[{name}].password: (new)"));
        }
        let mut wire = spec
            .to_wire()
            .map_err(|why| CliError::new(codes::BAD_GROUP, format!("group {group} cannot be so")).why(why))?;
        if let (Some(verifier), Some(name)) = (verifier, self.roles.first()) {
            for role in wire.roles.iter_mut().filter(|r| r.name == *name) {
                verifier.clone_into(&mut role.verifier);
            }
        }
        Ok(Wanted {
            group: group.to_owned(),
            config,
            spec: wire,
            differences,
        })
    }
}

pub(super) async fn run(args: Args, group: Option<String>, cx: &Cx) -> Result<(), CliError> {
    if args.names_nothing() {
        return Err(CliError::new(codes::USAGE, "nothing to set was named")
            .next("hactl db config set --help", "what can be set")
            .next("hactl db config get", "what is set"));
    }
    let verifier = match &args.password_file {
        Some(path) => Some(scram::verifier(&scram::read_password(path)?)?),
        None => None,
    };
    let mut client = cx.client()?;
    let group = crate::commands::db::group_name(&mut client, group).await?;
    let mut tries = 0;
    loop {
        tries += 1;
        let config = read(&mut client, &group).await?;
        let wanted = args.wanted(&group, config, verifier.as_deref())?;
        match send(&mut client, &args.change, &wanted).await {
            Ok(result) => return finish(cx, &mut client, &args.change, result, wanted).await,
            // Somebody else's change came first: this one still means the same.
            Err(error) if error.is(codes::REVISION_CONFLICT) && args.change.revision == 0 && tries < TRIES => {
                cx.out.notes.detail(&error.to_string());
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(lines: &[&str]) -> Result<Spec, String> {
        let mut spec = Spec::default();
        for line in lines {
            apply(&mut spec, &setting(line)?)?;
        }
        Ok(spec)
    }

    #[test]
    fn fields_limits_and_parameters() {
        let spec = set(&[
            "durability=async",
            "instances=3",
            "work_mem=64MB",
            "pg_stat_statements.max=100",
            "parameters.jit=off",
            "limits.degradeAfterMs=30s",
            "limits.holdDownMs=500",
            "limits.maxSwitchoverLagBytes=16MiB",
            "limits.flapCount=5",
            "proxy.port=6000",
            "proxy.waitMs=5s",
            "proxy.maxLagBytes=1MiB",
            "proxy.fallBack=on",
        ])
        .unwrap();
        assert_eq!((spec.durability.as_str(), spec.instances), ("async", 3));
        let names: Vec<_> = spec.parameters.keys().map(String::as_str).collect();
        assert_eq!(names, ["jit", "pg_stat_statements.max", "work_mem"]);
        assert_eq!(spec.limits.degrade_after_ms, Some(30_000));
        assert_eq!(spec.limits.hold_down_ms, Some(500));
        assert_eq!(spec.limits.max_switchover_lag_bytes, Some(16 << 20));
        assert_eq!(spec.limits.flap_count, Some(5));
        assert_eq!((spec.proxy.port, spec.proxy.standby_port), (Some(6000), None));
        assert_eq!(
            (spec.proxy.wait_ms, spec.proxy.max_lag_bytes),
            (Some(5000), Some(1 << 20))
        );
        assert_eq!(spec.proxy.fall_back, Some(true));
        assert_eq!(
            set(&["jit=off", "jit-", "limits.flapCount=5", "limits.flapCount-"]).unwrap(),
            Spec::default()
        );
    }

    #[test]
    fn mistakes() {
        for bad in [
            "work_mem",
            "=1",
            "a b=1",
            "instances=x",
            "port=0",
            "limits.nothing=1",
            "proxy.nothing=1",
            "proxy.port=70000",
            "proxy.fallBack=maybe",
            "proxy=1",
            "limits.degradeAfterMs=soon",
            "roles=x",
        ] {
            assert!(set(&[bad]).is_err(), "{bad}");
        }
    }
}
