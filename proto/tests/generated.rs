//! The committed code in `src/generated` is what the files in `proto/` produce. `UPDATE_GENERATED=1` writes it anew.

use std::path::Path;

const FILES: [&str; 6] = [
    "ha/v1/database.proto",
    "ha/v1/types.proto",
    "ha/v1/api.proto",
    "ha/v1/database_service.proto",
    "ha/v1/agent.proto",
    "ha/v1/bundle.proto",
];

#[test]
fn generated_code_is_fresh() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().unwrap();
    let descriptors = protox::compile(FILES, [root.join("proto")]).expect("the proto files compile");
    tonic_prost_build::configure()
        .out_dir(out.path())
        .emit_rerun_if_changed(false)
        .btree_map(".")
        .type_attribute(
            ".ha.v1.Bundle",
            "#[derive(serde::Serialize, serde::Deserialize)]\n#[serde(default)]",
        )
        .type_attribute(
            ".ha.v1.Bootstrap",
            "#[derive(serde::Serialize, serde::Deserialize)]\n#[serde(default)]",
        )
        .field_attribute(
            ".ha.v1.Bundle.bootstrap",
            "#[serde(skip_serializing_if = \"Option::is_none\")]",
        )
        .field_attribute(
            ".ha.v1.Bundle.zookeeper",
            "#[serde(skip_serializing_if = \"Vec::is_empty\")]",
        )
        .field_attribute(
            ".ha.v1.Bundle.secret",
            "#[serde(skip_serializing_if = \"String::is_empty\")]",
        )
        .skip_debug([".ha.v1.Bundle"])
        .compile_fds(descriptors)
        .expect("the generator runs");
    let committed = root.join("src/generated/ha.v1.rs");
    let fresh = std::fs::read_to_string(out.path().join("ha.v1.rs")).unwrap();
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(&committed, &fresh).unwrap();
        return;
    }
    let stored = std::fs::read_to_string(&committed).unwrap_or_default();
    assert!(
        stored == fresh,
        "src/generated/ha.v1.rs is stale: UPDATE_GENERATED=1 cargo test -p ha-proto"
    );
}
