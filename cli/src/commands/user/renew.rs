//! `hactl user renew`: a further certificate with the same role. Of oneself, the context takes it at once.

use std::path::PathBuf;

use ha_proto::codes;
use ha_proto::v1::{AccessRole, ListUsersRequest, RecordUserRequest};

use crate::args::ChangeArgs;
use crate::bundle;
use crate::commands::{Cx, change};
use crate::complete;
use crate::error::CliError;
use crate::names;

/// `hactl user renew`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The user; without it you.
    #[arg(value_name = "NAME", add = complete::users())]
    pub name: Option<String>,
    /// Directory for the bundle. Without it your own new bundle goes into the context, and others' into this directory.
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub out: Option<PathBuf>,
    /// Flags of every change.
    #[command(flatten)]
    pub change: ChangeArgs,
}

pub(super) async fn run(args: Args, cx: &Cx) -> Result<(), CliError> {
    let store = cx.store()?;
    let mut context = cx.context()?;
    let authority = context.authority()?;
    let name = args.name.clone().unwrap_or_else(|| context.bundle.name.clone());
    names::check_name("user", &name)?;
    let own = name == context.bundle.name && args.out.is_none();
    let path = match (&args.out, own) {
        (Some(out), _) => Some(super::bundle_path(out, &name)?),
        (None, true) => None,
        (None, false) => Some(super::bundle_path(std::path::Path::new("."), &name)?),
    };
    if own && expired(&context.bundle)? {
        // Whoever has the authority can renew an expired certificate of his own: a short-lived one asks for it.
        let role = role_of(&context.bundle)?;
        let validity = crate::ca::Validity::lasting(std::time::Duration::from_secs(3600));
        let passing = authority.issue_user_valid(&name, role, validity)?;
        context.bundle.certificate = passing.certificate;
        context.bundle.key = passing.key;
    }
    let mut client = cx.client_of(&context)?;
    let users = client.list_users(ListUsersRequest {}).await?.users;
    let Some(user) = users.into_iter().find(|u| u.name == name && u.kind != "node") else {
        return Err(CliError::new(codes::USER_UNKNOWN, format!("there is no user {name}"))
            .next("hactl user list", "")
            .next(format!("hactl user add {name} --role ROLE"), ""));
    };
    if user.revoked {
        return Err(CliError::new(codes::REVOKED, format!("user {name} was revoked"))
            .why("its old certificates stay refused; the name may be added anew")
            .next(format!("hactl user add {name} --role {}", user.role().word()), ""));
    }
    let issued = authority.issue_user(&name, user.role())?;
    let request = RecordUserRequest {
        name: name.clone(),
        role: user.role,
        serial: issued.serial.clone(),
        expires_unix_ms: issued.expires_unix_ms,
        options: Some(args.change.options()),
        renew: true,
    };
    let result = client.record_user(request).await?;
    let mut files = Vec::new();
    if !args.change.dry_run {
        let endpoints = super::endpoints(&mut client, &context).await;
        let bundle = authority.user_bundle(&issued, endpoints);
        match &path {
            Some(path) => {
                bundle::write_new(path, &bundle)?;
                files.push(path.display().to_string());
            }
            None => {
                store.add(&context.name, &bundle, true)?;
                files.push(context.dir.join("bundle.toml").display().to_string());
            }
        }
    }
    let told = change::Told {
        subject: format!("user/{name}"),
        done: format!(
            "user {name} has a certificate until {}",
            crate::output::units::local(issued.expires_unix_ms)
        ),
        files,
        ..change::Told::default()
    };
    change::finish(cx, &mut client, &args.change, result, told).await
}

fn expired(bundle: &ha_proto::v1::Bundle) -> Result<bool, CliError> {
    Ok(crate::certificate::parse(&bundle.certificate)?.not_after_ms < names::now_ms())
}

fn role_of(bundle: &ha_proto::v1::Bundle) -> Result<AccessRole, CliError> {
    let info = crate::certificate::parse(&bundle.certificate)?;
    info.uri
        .rsplit('/')
        .next()
        .and_then(AccessRole::from_word)
        .ok_or_else(|| CliError::new(codes::BAD_BUNDLE, "the certificate names no role"))
}
