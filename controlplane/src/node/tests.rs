//! What keeps a daemon from starting, as an operator reads it; and what is packaged with it.

use std::path::Path;

use super::*;
use crate::security::testing::{Leaf, TestCa};

fn text(e: &ApiError) -> String {
    let lines = |word: &str, all: &[String]| all.iter().map(|l| format!("\n{word} {l}")).collect::<String>();
    format!(
        "{} {}{}{}",
        e.code.id,
        e.message,
        lines("why", &e.why),
        lines("next", &e.next)
    )
}

/// A node's files, on addresses of its own.
fn files(dir: &Path, leaf: &Leaf) -> (Overrides, NodeBundle) {
    let ca = TestCa::new("prod");
    let bundle = ca.write_bundle(dir, "n1", &ca.issue(leaf));
    let config = dir.join("had.toml");
    std::fs::write(&config, "").unwrap();
    let overrides = Overrides {
        config: Some(config),
        bundle: Some(bundle.clone()),
        state_dir: Some(dir.join("state")),
        grpc: Some("127.0.0.1:0".parse().unwrap()),
        http: Some("127.0.0.1:0".parse().unwrap()),
        log_level: Some(Level::Error),
    };
    (overrides, NodeBundle::read(&bundle).unwrap())
}

#[test]
fn check_tells_what_would_run() {
    let dir = tempfile::tempdir().unwrap();
    let (mut overrides, bundle) = files(dir.path(), &Leaf::node("n1"));
    overrides.grpc = None;
    let hooks = "[[on_change]]\nname = \"mail\"\ncommand = [\"/nonexistent/mail\"]\n\
                 [[on_change]]\nname = \"log\"\ncommand = [\"logger\"]\n";
    std::fs::write(overrides.config.as_ref().unwrap(), hooks).unwrap();
    let remarks = check(&overrides).unwrap();
    let valid = &remarks[1];
    assert!(valid.starts_with("certificate valid until 2"), "{valid}");
    assert_eq!(
        [&remarks[..1], &remarks[2..]].concat(),
        [
            format!("node n1 of cluster prod ({})", bundle.cluster_id),
            "zookeeper 127.0.0.1:2181".into(),
            "gRPC on 0.0.0.0:7400, reached by others at 127.0.0.1:7400".into(),
            "HTTP on 127.0.0.1:0, reached by others at 127.0.0.1:0".into(),
            format!("state in {}", dir.path().join("state").display()),
            "hook mail runs /nonexistent/mail: WARNING: there is no such file".into(),
            "hook log runs logger".into(),
        ]
    );
    assert!(!dir.path().join("state").exists(), "nothing is made");
}

#[test]
fn check_refuses_what_is_of_no_use() {
    let dir = tempfile::tempdir().unwrap();
    let (overrides, _) = files(dir.path(), &Leaf::node("n1").expired());
    let e = text(&check(&overrides).unwrap_err());
    assert!(
        e.starts_with("HA0203 the certificate of node n1 expired at 2") && e.ends_with("\nnext hactl node renew n1"),
        "{e}"
    );
    std::fs::write(overrides.config.as_ref().unwrap(), "[listen]\ngrcp = \"x\"\n").unwrap();
    let e = text(&check(&overrides).unwrap_err());
    assert!(e.contains("had.toml, line 2: listen.grcp"), "{e}");
}

#[test]
fn a_locked_state_directory_and_a_taken_port() {
    let dir = tempfile::tempdir().unwrap();
    let (mut overrides, _) = files(dir.path(), &Leaf::node("n1"));
    let state = dir.path().join("state");
    let lock = StateDir::open(&state).unwrap();
    assert_eq!(
        text(&run(&overrides).unwrap_err()),
        format!(
            "HA0807 another had uses the state directory {}\n\
             next systemctl status had    shows the one that the service manager runs\n\
             next --state-dir DIR gives this one a directory of its own",
            state.display()
        )
    );
    drop(lock);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    overrides.http = Some(address);
    let e = text(&run(&overrides).unwrap_err());
    assert!(
        e.starts_with(&format!(
            "HA0806 HTTP cannot listen on {address}\nwhy Address already in use"
        )),
        "{e}"
    );
    assert!(e.ends_with("listen.http in had.toml names another address"), "{e}");
}

#[test]
fn leaving_takes_a_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let (mut overrides, _) = files(dir.path(), &Leaf::node("n1"));
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    overrides.grpc = Some(nobody);
    let e = text(&leave(&overrides, "").unwrap_err());
    assert!(
        e.starts_with(&format!(
            "HA0811 the daemon of node n1 cannot be reached at {nobody}\nwhy "
        )),
        "{e}"
    );
    assert!(e.to_lowercase().contains("refused"), "{e}");
}

#[cfg(unix)]
#[test]
fn the_unit_fits_the_daemon() {
    let unit = include_str!("../../dist/had.service");
    let value = |key: &str| {
        let mut found = unit.lines().filter_map(|l| l.strip_prefix(key)?.strip_prefix('='));
        let first = found.next().unwrap_or_else(|| panic!("{key} is missing"));
        assert_eq!(found.next(), None, "{key} is there twice");
        first
    };
    let config = Config::default();
    assert_eq!(
        format!("/var/lib/{}", value("StateDirectory")),
        config.state_dir.display().to_string()
    );
    assert_eq!(value("Type"), "notify");
    // had ends with 0 when it was told to leave.
    assert_eq!(value("Restart"), "on-failure");
    assert!(value("ExecReload").contains("-HUP"));
    let seconds = |key: &str| Duration::from_secs(value(key).parse().unwrap());
    assert!(seconds("TimeoutStartSec") > PATIENCE * 2);
    assert!(seconds("TimeoutStopSec") > HARD_LIMIT);
    let user = value("User");
    for file in [
        include_str!("../../dist/had.sysusers"),
        include_str!("../../dist/had.tmpfiles"),
    ] {
        assert!(
            file.lines()
                .any(|l| !l.starts_with('#') && l.split(' ').any(|w| w == user)),
            "{file}"
        );
    }
}
