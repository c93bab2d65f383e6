//! `hactl user add`: the record in the cluster first, then the bundle.

use std::path::PathBuf;

use clap::ValueEnum;
use ha_proto::v1::{AccessRole, RecordUserRequest};

use crate::args::ChangeArgs;
use crate::bundle;
use crate::commands::{Cx, change};
use crate::error::CliError;
use crate::names;

/// What a user may do; each includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Read.
    Viewer,
    /// Change nodes, mastership, maintenance, operations.
    Operator,
    /// Also manage users and certificates.
    Admin,
}

impl From<Role> for AccessRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Viewer => Self::Viewer,
            Role::Operator => Self::Operator,
            Role::Admin => Self::Admin,
        }
    }
}

/// `hactl user add`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the user.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// What the user may do.
    #[arg(long, value_enum)]
    pub role: Role,
    /// Directory for the bundle.
    #[arg(long, value_name = "DIR", default_value = ".", value_hint = clap::ValueHint::DirPath)]
    pub out: PathBuf,
    /// Flags of every change.
    #[command(flatten)]
    pub change: ChangeArgs,
}

pub(super) async fn run(args: Args, cx: &Cx) -> Result<(), CliError> {
    names::check_name("user", &args.name)?;
    let context = cx.context()?;
    let authority = context.authority()?;
    let path = super::bundle_path(&args.out, &args.name)?;
    let mut client = cx.client_of(&context)?;
    let role = AccessRole::from(args.role);
    let issued = authority.issue_user(&args.name, role)?;
    let request = RecordUserRequest {
        name: args.name.clone(),
        role: role as i32,
        serial: issued.serial.clone(),
        expires_unix_ms: issued.expires_unix_ms,
        options: Some(args.change.options()),
        renew: false,
    };
    let result = client.record_user(request).await?;
    let mut files = Vec::new();
    if !args.change.dry_run {
        let endpoints = super::endpoints(&mut client, &context).await;
        bundle::write_new(&path, &authority.user_bundle(&issued, endpoints)).map_err(|error| {
            error
                .why(format!(
                    "user {} is known to the cluster; only the bundle is missing",
                    args.name
                ))
                .next(
                    format!("hactl user renew {} --out DIR", args.name),
                    "write it elsewhere",
                )
        })?;
        files.push(path.display().to_string());
    }
    let told = change::Told {
        subject: format!("user/{}", args.name),
        done: format!("user {} added as {}", args.name, role.word()),
        files,
        next: vec![format!(
            "give {} to {} over a safe way: hactl context add --bundle {0}",
            path.display(),
            args.name
        )],
        ..change::Told::default()
    };
    change::finish(cx, &mut client, &args.change, result, told).await
}
