//! `hactl db create`: from flags, or from a file as `hactl db status -o yaml` writes it.

use std::path::PathBuf;

use ha_proto::codes;
use ha_proto::v1::CreateGroupRequest;

use super::config::file;
use super::scram;
use crate::args::ChangeArgs;
use crate::commands::{Cx, change};
use crate::complete;
use crate::error::CliError;
use crate::names;
use crate::output::views::database::spec::{Database, Member, PRIORITY, Role, Spec};

/// `hactl db create`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  hactl db create main --node n1 --node n2 --node n3 --role app --password-file pw --database app\n  \
                        hactl db create main --instances 3                     the master chooses the nodes\n  \
                        hactl db create old --node n1=primary --node n2 --directory /var/lib/postgresql/15/main\n  \
                                                                               adopts what is there\n  \
                        hactl db create main -f main.yaml"
)]
pub struct Args {
    /// Name of the group.
    #[arg(value_name = "GROUP")]
    pub name: Option<String>,
    /// A file with the specification; flags win over it. - is standard input.
    #[arg(long, short, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// A node with an instance, and its role where it is not sync: n1, n1=primary, n4=async; may be given more than once.
    #[arg(long = "node", value_name = "NODE[=ROLE]", value_parser = member, add = complete::nodes())]
    pub nodes: Vec<Member>,
    /// How many instances there are to be; the master chooses nodes for those that are missing.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub instances: Option<u32>,
    /// What an acknowledged commit is worth: quorum, quorum-strict or async.
    #[arg(long, value_name = "MODE", value_parser = ["quorum", "quorum-strict", "async"])]
    pub durability: Option<String>,
    /// Major release of PostgreSQL.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(13..=99))]
    pub pg_version: Option<u32>,
    /// Port of PostgreSQL on each node.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,
    /// Port on every node's proxy that leads to the primary; without it a free one from 5000 on; 0: none.
    #[arg(long, value_name = "PORT")]
    pub proxy_port: Option<u16>,
    /// Port on every node's proxy that leads to the standbys; without it a free one from 5001 on; 0: none.
    #[arg(long, value_name = "PORT")]
    pub proxy_standby_port: Option<u16>,
    /// Data directory on each node; an existing one is adopted.
    #[arg(long, value_name = "DIR")]
    pub directory: Option<String>,
    /// A parameter of PostgreSQL; may be given more than once.
    #[arg(long = "parameter", short = 'p', value_name = "K=V", value_parser = super::config::pair)]
    pub parameters: Vec<(String, String)>,
    /// A line of pg_hba.conf for applications; may be given more than once.
    #[arg(long, value_name = "LINE")]
    pub hba: Vec<String>,
    /// A database, and its owner where it is not the first --role; may be given more than once.
    #[arg(long = "database", value_name = "NAME[:OWNER]")]
    pub databases: Vec<String>,
    /// A role that applications log in as; may be given more than once.
    #[arg(long = "role", value_name = "NAME")]
    pub roles: Vec<String>,
    /// The file with the password of the first --role; - is standard input.
    #[arg(long, value_name = "FILE", requires = "roles")]
    pub password_file: Option<PathBuf>,
    /// Flags of every change.
    #[command(flatten)]
    pub change: ChangeArgs,
}

/// `NODE[=ROLE]`, for clap.
fn member(text: &str) -> Result<Member, String> {
    let (node, role) = text.split_once('=').unwrap_or((text, "sync"));
    if !names::is_name(node) {
        return Err(format!("`{node}` is not the name of a node"));
    }
    match super::assign::role(role)? {
        ha_proto::v1::InstanceRole::None => Err("a node without an instance is left out".into()),
        role => Ok(Member {
            node: node.to_owned(),
            role: role.word().to_owned(),
            priority: PRIORITY,
            port: 0,
            directory: String::new(),
        }),
    }
}

/// The specification that file and flags give, and the name that the file has.
fn specification(args: &Args) -> Result<(Spec, Option<String>), CliError> {
    let (mut spec, name) = match &args.file {
        Some(path) => file::read(path)?,
        None => (Spec::default(), None),
    };
    if !args.nodes.is_empty() {
        spec.members = Some(args.nodes.clone());
    }
    if let Some(n) = args.instances {
        spec.instances = n;
    }
    if let Some(durability) = &args.durability {
        spec.durability.clone_from(durability);
    }
    if let Some(version) = args.pg_version {
        spec.version = version;
    }
    if let Some(port) = args.port {
        spec.port = port;
    }
    spec.proxy.port = args.proxy_port.or(spec.proxy.port);
    spec.proxy.standby_port = args.proxy_standby_port.or(spec.proxy.standby_port);
    if let Some(directory) = &args.directory {
        spec.directory.clone_from(directory);
    }
    spec.parameters.extend(args.parameters.iter().cloned());
    spec.hba.extend(args.hba.iter().cloned());
    for name in &args.roles {
        spec.roles.retain(|r| r.name != *name);
        spec.roles.push(Role {
            name: name.clone(),
            login: true,
            ..Role::default()
        });
    }
    for text in &args.databases {
        let (name, owner) = match text.split_once(':') {
            Some((name, owner)) => (name, owner.to_owned()),
            None => match args.roles.first() {
                Some(role) => (text.as_str(), role.clone()),
                None => {
                    return Err(CliError::new(codes::USAGE, format!("database {text} has no owner"))
                        .why("a database belongs to a role of the group")
                        .next(
                            format!("--database {text}:OWNER"),
                            "a role that is there or in the file",
                        )
                        .next("--role OWNER", "makes the role"));
                }
            },
        };
        spec.databases.retain(|d| d.name != name);
        spec.databases.push(Database {
            name: name.to_owned(),
            owner,
            extensions: Vec::new(),
        });
    }
    Ok((spec, name))
}

pub(super) async fn run(args: Args, group: Option<String>, cx: &Cx) -> Result<(), CliError> {
    let (spec, in_file) = specification(&args)?;
    let Some(name) = args.name.clone().or(group).or(in_file) else {
        return Err(CliError::new(codes::USAGE, "the new database group has no name")
            .next("hactl db create NAME --node N1 --node N2", ""));
    };
    names::check_name("database group", &name)?;
    let members = spec.members.as_deref().unwrap_or_default();
    if members.is_empty() && spec.instances == 0 {
        return Err(
            CliError::new(codes::USAGE, format!("group {name} would have no instance"))
                .why("neither --node nor --instances was given")
                .next(
                    format!("hactl db create {name} --node n1 --node n2 --node n3"),
                    "on these nodes",
                )
                .next(
                    format!("hactl db create {name} --instances 3"),
                    "the master chooses the nodes",
                ),
        );
    }
    let mut wire = spec
        .to_wire()
        .map_err(|why| CliError::new(codes::BAD_GROUP, format!("group {name} cannot be made")).why(why))?;
    if let (Some(path), Some(role)) = (&args.password_file, args.roles.first()) {
        let verifier = scram::verifier(&scram::read_password(path)?)?;
        if let Some(role) = wire.roles.iter_mut().find(|r| r.name == *role) {
            role.verifier = verifier;
            role.has_password = true;
        }
    }
    if let Some(role) = wire.roles.iter().find(|r| r.verifier.is_empty() && r.has_password) {
        return Err(CliError::new(
            codes::BAD_GROUP,
            format!("the password of role {} is not known", role.name),
        )
        .why("files never hold passwords: a new group's are given beside it")
        .next(format!("--role {} --password-file FILE", role.name), "gives one")
        .next("hasPassword: false", "in the file: the role has none"));
    }
    let mut client = cx.client()?;
    let request = CreateGroupRequest {
        name: name.clone(),
        spec: Some(wire),
        options: Some(args.change.options()),
    };
    let result = client.create_group(request).await?;
    let told = change::Told {
        subject: format!("db/{name}"),
        done: format!("group {name} created"),
        next: vec![
            format!("hactl db status --group {name}"),
            format!("hactl db dsn --group {name}"),
        ],
        ..change::Told::default()
    };
    change::finish(cx, &mut client, &args.change, result, told).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members() {
        assert_eq!(member("n1").unwrap().role, "sync");
        assert_eq!(member("n1=primary").unwrap().role, "primary");
        for bad in ["n1=none", "n1=master", "N1", "=sync", ""] {
            assert!(member(bad).is_err(), "{bad}");
        }
    }
}
