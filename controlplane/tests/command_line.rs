//! The program as it is started: what it prints where, and how it exits.

#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

fn had(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_had"))
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn version() {
    let out = had(&["version"]);
    assert_eq!(text(&out.stdout), format!("had {}\n", env!("CARGO_PKG_VERSION")));
    assert!(out.status.success() && out.stderr.is_empty());
}

#[test]
fn a_wrong_command_line() {
    for arguments in [&["--grpc", "nowhere"][..], &["--log-level", "loud"], &["start"]] {
        let out = had(arguments);
        assert_eq!(out.status.code(), Some(2), "the unit does not start it again then");
        assert!(
            out.stdout.is_empty() && text(&out.stderr).starts_with("error: "),
            "{out:?}"
        );
    }
}

#[test]
fn errors_say_what_why_and_what_next() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let config = file("had.toml", "[log]\nlevel = \"loud\"\n");
    let out = had(&["--config", &config]);
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(
        text(&out.stderr),
        format!(
            "error HA0801: {config}, line 2: log.level\n  why   unknown variant `loud`, expected one of `error`, \
             `warn`, `info`, `debug`, `trace`\n"
        )
    );
    let empty = file("empty.toml", "");
    let none = dir.path().join("none.toml").display().to_string();
    let state = dir.path().join("state").display().to_string();
    for command in [&["check"][..], &["leave"], &[]] {
        let mut arguments = command.to_vec();
        arguments.extend(["--config", &empty, "--bundle", &none, "--state-dir", &state]);
        let out = had(&arguments);
        assert_eq!(out.status.code(), Some(1));
        let said = text(&out.stderr);
        assert!(
            said.starts_with(&format!("error HA0005: the bundle {none} cannot be used\n  why   ")),
            "{said}"
        );
        assert!(out.stdout.is_empty());
    }
}
