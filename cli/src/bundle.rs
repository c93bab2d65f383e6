//! Bundles: the files with which a daemon or an operator joins a cluster. Read here and checked before anything is
//! believed; never sent anywhere.

use std::path::Path;

use ha_proto::codes;
use ha_proto::v1::Bundle;

use crate::error::CliError;
use crate::{files, names};

/// The version of the format that this program writes and reads.
pub const VERSION: u32 = 1;

/// What a bundle is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Starts a daemon.
    Node,
    /// Makes a context.
    User,
}

impl Kind {
    /// The word in the file.
    pub fn word(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::User => "user",
        }
    }
}

/// Writes `bundle` to a new file of mode 600.
///
/// # Errors
/// `HA0008` if the file exists, `HA0002` if it cannot be written.
pub fn write_new(path: &Path, bundle: &Bundle) -> Result<(), CliError> {
    files::write_new(path, &to_toml(bundle)?)
}

/// The bundle as it stands in its file.
///
/// # Errors
/// `HA0005` if it cannot be expressed.
pub fn to_toml(bundle: &Bundle) -> Result<String, CliError> {
    let text = toml::to_string(bundle)
        .map_err(|e| CliError::new(codes::BAD_BUNDLE, "the bundle cannot be written").why(e.to_string()))?;
    let what = match bundle.kind.as_str() {
        "node" => "Starts the daemon of this node: had --bundle FILE. Holds its private key and the cluster's secret.",
        _ => "Makes a context of hactl: hactl context add --bundle FILE. Holds a private key.",
    };
    Ok(format!("# {what}\n# Keep it as you keep a password.\n{text}"))
}

/// Reads a bundle of this kind.
///
/// # Errors
/// `HA0002` if the file cannot be read, `HA0005` if it is damaged or of another kind.
pub fn read(path: &Path, kind: Kind) -> Result<Bundle, CliError> {
    let text = files::read(path)?;
    parse(&text, kind, path)
}

/// Checks and parses the text of a bundle; `path` is named in errors.
///
/// # Errors
/// `HA0005` if it is damaged or of another kind.
pub fn parse(text: &str, kind: Kind, path: &Path) -> Result<Bundle, CliError> {
    let bad = |why: String| {
        CliError::new(
            codes::BAD_BUNDLE,
            format!("{} is not a {}'s bundle", path.display(), kind.word()),
        )
        .why(why)
        .detail("path", path.display().to_string())
    };
    let bundle: Bundle = toml::from_str(text).map_err(|e| bad(e.message().to_owned()))?;
    if bundle.version == 0 || bundle.kind.is_empty() {
        return Err(bad("it has no version or no kind".into()));
    }
    if bundle.version > VERSION {
        return Err(bad(format!(
            "it has version {}, this program knows version {VERSION}",
            bundle.version
        )));
    }
    if bundle.kind != kind.word() {
        let error = bad(format!("it is a {}'s bundle", bundle.kind));
        return Err(match kind {
            Kind::User => error.next(
                format!("had --bundle {}", path.display()),
                "a node's bundle starts its daemon",
            ),
            Kind::Node => error,
        });
    }
    if !names::is_name(&bundle.name) || !names::is_name(&bundle.cluster) {
        return Err(bad("the name in it is not a name".into()));
    }
    for (what, value) in [
        ("cluster_id", &bundle.cluster_id),
        ("ca", &bundle.ca),
        ("certificate", &bundle.certificate),
        ("key", &bundle.key),
    ] {
        if value.trim().is_empty() {
            return Err(bad(format!("`{what}` is missing")));
        }
    }
    for endpoint in &bundle.endpoints {
        names::address(endpoint, names::GRPC_PORT).map_err(&bad)?;
    }
    Ok(bundle)
}
