//! The database group of a playground: made over the API, as an operator makes one.

use std::path::Path;

use ha_proto::codes;
use ha_proto::v1::{
    ChangeOptions, CreateGroupRequest, DatabaseRoleSpec, DatabaseSpec, Durability, GroupSpec, InstanceRole,
    InstanceSpec,
};
use rand::distr::{Alphanumeric, SampleString as _};

use super::place::{Node, Place};
use crate::client::Client;
use crate::commands::db::scram;
use crate::error::CliError;
use crate::files;

/// Name of the group.
pub(super) const GROUP: &str = "main";
/// The role and the database of applications.
pub(super) const APP: &str = "app";
/// The most instances: more nodes have none.
const INSTANCES: usize = 3;

/// Whether PostgreSQL's servers are installed where the daemon looks for them.
pub(super) fn is_installed() -> bool {
    let server = |dir: &Path| dir.join("bin").join("postgres").is_file();
    ["/usr/lib/postgresql", "/usr/local/lib/postgresql", "/opt/postgresql"]
        .iter()
        .filter_map(|dir| std::fs::read_dir(dir).ok())
        .flatten()
        .filter_map(Result::ok)
        .any(|release| server(&release.path()))
}

/// Where the password of [`APP`] is, as libpq reads it.
pub(super) fn pgpass(place: &Place) -> std::path::PathBuf {
    place.dir().join("pgpass")
}

/// The group's specification, and writes the password that only its verifier is told of.
///
/// # Errors
/// `HA0002` if the password cannot be written.
fn specification(place: &Place, nodes: &[Node]) -> Result<GroupSpec, CliError> {
    let password = Alphanumeric.sample_string(&mut rand::rng(), 20);
    files::replace(&pgpass(place), &format!("*:*:*:{APP}:{password}\n"))?;
    Ok(GroupSpec {
        durability: Durability::Quorum.into(),
        members: nodes
            .iter()
            .take(INSTANCES)
            .map(|node| InstanceSpec {
                node: node.name.clone(),
                role: InstanceRole::Sync.into(),
                port: u32::from(node.postgres),
                ..InstanceSpec::default()
            })
            .collect(),
        // Loopback alone: what listens there is the playground's.
        hba: vec!["host all all 127.0.0.0/8 scram-sha-256".to_owned()],
        databases: vec![DatabaseSpec {
            name: APP.to_owned(),
            owner: APP.to_owned(),
            extensions: Vec::new(),
        }],
        roles: vec![DatabaseRoleSpec {
            name: APP.to_owned(),
            verifier: scram::verifier(&password)?,
            has_password: true,
            ..DatabaseRoleSpec::default()
        }],
        ..GroupSpec::default()
    })
}

/// Asks for the group; whether it came about is seen by looking at it.
///
/// # Errors
/// What the cluster says.
pub(super) async fn create(client: &mut Client, place: &Place, nodes: &[Node]) -> Result<(), CliError> {
    let request = CreateGroupRequest {
        name: GROUP.to_owned(),
        spec: Some(specification(place, nodes)?),
        options: Some(ChangeOptions {
            reason: "hactl playground up".into(),
            ..ChangeOptions::default()
        }),
    };
    match client.create_group(request).await {
        // An answer that got lost leaves a group that was made.
        Err(error) if !error.is(codes::GROUP_EXISTS) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}
