//! A specification in a file: the YAML that `-o yaml` writes, with its envelope or without.

use std::io::Read as _;
use std::path::Path;

use ha_proto::codes;
use ha_proto::v1::GroupConfig;
use serde::Deserialize as _;
use serde_norway::Value;

use crate::error::{CliError, file_error};
use crate::output::views::database::spec::Spec;

/// A specification is a few kilobytes; a larger file is another one by mistake.
const FILE_MAX: u64 = 1 << 20;

/// The specification in a file, and the group's name where it has one. `-` is standard input.
///
/// # Errors
/// `HA0002` if it cannot be read, `HA0405` if it is not a group's.
pub(in crate::commands::db) fn read(path: &Path) -> Result<(Spec, Option<String>), CliError> {
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(FILE_MAX).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(FILE_MAX).read_to_string(&mut text))
    };
    read.map_err(|e| file_error("read", path, &e))?;
    parse(&text, &path.display().to_string())
}

/// # Errors
/// `HA0405` if it is not a group's specification.
pub(super) fn parse(text: &str, origin: &str) -> Result<(Spec, Option<String>), CliError> {
    let bad = |why: String| {
        CliError::new(
            codes::BAD_GROUP,
            format!("{origin} is not the specification of a database group"),
        )
        .why(why)
        .next("hactl explain group", "the fields")
    };
    let value: Value = serde_norway::from_str(text).map_err(|e| bad(e.to_string()))?;
    let kind = value.get("kind").and_then(Value::as_str).map(str::to_owned);
    let (spec, name) = match kind.as_deref() {
        None if value.is_null() => (Value::Mapping(serde_norway::Mapping::new()), None),
        None => (value, None),
        Some("Group" | "GroupConfig") => {
            let name = value.get("name").and_then(Value::as_str).map(str::to_owned);
            let spec = value.get("spec").cloned().ok_or_else(|| bad("it has no spec".into()))?;
            (spec, name)
        }
        Some(other) => return Err(bad(format!("its kind is {other}, not Group"))),
    };
    let spec = Spec::deserialize(spec).map_err(|e| bad(e.to_string()))?;
    // What is wrong in it is wrong before the cluster is asked.
    spec.to_wire().map_err(bad)?;
    Ok((spec, name))
}

/// Takes the members out, which a configuration does not change.
///
/// # Errors
/// `HA0405` if they are others than the group's.
pub(super) fn without_members(spec: &mut Spec, config: &GroupConfig) -> Result<(), CliError> {
    let Some(mut members) = spec.members.take() else {
        return Ok(());
    };
    members.sort_by(|a, b| a.node.cmp(&b.node));
    let stored = Spec::from(&config.spec.clone().unwrap_or_default()).members;
    if stored.as_ref() == Some(&members) {
        return Ok(());
    }
    Err(CliError::new(
        codes::BAD_GROUP,
        format!("the file has other members than group {}", config.group),
    )
    .why("where instances are is changed one by one, for each such change moves data")
    .next("hactl db assign NODE --role sync", "makes an instance")
    .next("hactl db assign NODE --role none", "ends one"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_and_without_an_envelope() {
        let (spec, name) = parse("durability: async\n", "x").unwrap();
        assert_eq!((spec.durability.as_str(), name), ("async", None));
        let (spec, name) = parse("kind: Group\nname: main\nspec:\n  instances: 3\nstatus: {}\n", "x").unwrap();
        assert_eq!((spec.instances, name.as_deref()), (3, Some("main")));
        assert_eq!(parse("", "x").unwrap().0, Spec::default());
        for bad in ["kind: Node\nspec: {}", "a: b", "- 1", "{", "durability: 3x"] {
            assert_eq!(parse(bad, "x").unwrap_err().code(), "HA0405", "{bad}");
        }
    }
}
