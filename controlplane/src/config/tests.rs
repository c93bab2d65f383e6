//! had.toml: its example, its errors, what follows from it.

use super::*;

const EXAMPLE: &str = include_str!("../../dist/had.toml");

/// The example with every key in use.
fn all_keys() -> String {
    let code = |l: &str| {
        l.strip_prefix('#')
            .filter(|r| !r.starts_with(' ') && !r.is_empty())
            .map(str::to_owned)
    };
    EXAMPLE
        .lines()
        .map(|l| code(l).unwrap_or_else(|| l.to_owned()) + "\n")
        .collect()
}

#[cfg(unix)]
#[test]
fn the_example_says_the_defaults() {
    assert_eq!(Config::parse(EXAMPLE, "had.toml").unwrap(), Config::default());
    assert_eq!(Config::parse("", "had.toml").unwrap(), Config::default());
}

#[cfg(unix)]
#[test]
fn the_example_has_every_key() {
    let all = Config::parse(&all_keys(), "had.toml").unwrap();
    // No field may be left at "nothing": the pattern breaks when a field is added.
    let Config {
        bundle: _,
        state_dir: _,
        grpc_listen: Some(_),
        http_listen: _,
        grpc_advertise: Some(_),
        http_advertise: Some(_),
        log: _,
        report_interval: _,
        measure_disk: Some(_),
        postgres:
            Postgres {
                run_as: Some(_),
                bin_dir: Some(_),
                data_root: Some(_),
                socket_dir: Some(_),
                listen: _,
            },
        proxy,
        on_change,
    } = all
    else {
        panic!("a key is missing: {all:?}");
    };
    let ports = &proxy.ports["main"];
    assert!(ports.primary.is_some() && ports.standbys.is_some() && proxy.proxy_protocol_from.len() == 2);
    let [hook] = &on_change[..] else { panic!("one hook") };
    assert!(!hook.kinds.is_empty() && !hook.environment.is_empty());
    assert_eq!(
        (hook.timeout, hook.retries),
        (Duration::from_secs(30), 3),
        "the defaults"
    );
    // And the other way round: the parser names every key that it knows when it meets one that it does not.
    let table: toml::Table = all_keys().parse().unwrap();
    let known = |text: &str| -> Vec<String> {
        let e = Config::parse(text, "").unwrap_err();
        let (_, list) = e.why[0].split_once("expected").unwrap();
        list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let keys = |t: &toml::Value| {
        t.as_table()
            .unwrap()
            .keys()
            .cloned()
            .collect::<std::collections::BTreeSet<_>>()
    };
    for (section, text) in [
        ("listen", "[listen]\nx = 1"),
        ("advertise", "[advertise]\nx = 1"),
        ("log", "[log]\nx = 1"),
        ("report", "[report]\nx = 1"),
        ("measure", "[measure]\nx = 1"),
        ("postgres", "[postgres]\nx = 1"),
        ("proxy", "[proxy]\nx = 1"),
    ] {
        assert_eq!(keys(&table[section]), known(text).into_iter().collect(), "{section}");
    }
    assert_eq!(
        keys(&toml::Value::Table(table.clone())),
        known("x = 1").into_iter().collect()
    );
    assert_eq!(
        keys(&table["proxy"]["ports"]["main"]),
        known("[proxy.ports.main]\nx = 1").into_iter().collect()
    );
    assert_eq!(
        keys(&table["on_change"][0]),
        known("[[on_change]]\nx = 1").into_iter().collect()
    );
}

#[test]
fn errors_name_the_key() {
    let golden = [
        (
            "x = 1",
            "HA0801: f, line 1: x; unknown field `x`, expected one of `bundle`, `state_dir`, `listen`, `advertise`, `log`, `report`, `measure`, `postgres`, `proxy`, `on_change`",
        ),
        (
            "\n[log]\nlevel = \"loud\"",
            "HA0801: f, line 3: log.level; unknown variant `loud`, expected one of `error`, `warn`, `info`, `debug`, `trace`",
        ),
        (
            "[log]\nlevel = 3",
            "HA0801: f, line 2: log.level; wanted string or table",
        ),
        (
            "[listen]\ngrpc = \"localhost\"",
            "HA0801: f: listen.grpc; \"localhost\" is not an IP address and a port, as in \"0.0.0.0:7400\"",
        ),
        (
            "[advertise]\nhttp = \"a\"",
            "HA0801: f: advertise.http; \"a\" is not HOST:PORT: an address is HOST:PORT",
        ),
        (
            "[report]\ninterval = \"1h\"",
            "HA0801: f: report.interval; \"1h\" is out of range: from 100ms to 1s",
        ),
        (
            "[report]\ninterval = \"soon\"",
            "HA0801: f: report.interval; \"soon\" is not a time, as in \"500ms\" or \"30s\", from 100ms to 1s",
        ),
        (
            "[postgres]\nbin_dir = \"bin\"",
            "HA0801: f: postgres.bin_dir; \"bin\" is not an absolute path",
        ),
        (
            "[postgres]\nrun_as = \"a:b\"",
            "HA0801: f: postgres.run_as; \"a:b\" is no name of an account",
        ),
        (
            "[proxy]\nlisten = \"localhost\"",
            "HA0801: f: proxy.listen; \"localhost\" is not an IP address, as in \"0.0.0.0\"",
        ),
        (
            "[proxy]\nthreads = 0",
            "HA0801: f: proxy.threads; 0 is out of range: from 1 to 64",
        ),
        (
            "[proxy]\nproxy_protocol_from = [\"10.0.0.0/99\"]",
            "HA0801: f: proxy.proxy_protocol_from; \"10.0.0.0/99\" is not an IP address or a network, as in \"10.0.0.0/8\"",
        ),
        (
            "[proxy.ports.main]\nprimary = 5000\nstandbys = 5000",
            "HA0801: f: proxy.ports.main; primary and standbys need a port each",
        ),
        (
            "[proxy.ports.\"A b\"]\nprimary = 5000",
            "HA0801: f: proxy.ports.A b; \"A b\": a name has lower-case letters, digits and hyphens only",
        ),
        (
            "state_dir = \"here\"",
            "HA0801: f: state_dir; \"here\" is not an absolute path",
        ),
        (
            "[[on_change]]\nname = \"a\"",
            "HA0801: f, line 1: on_change.command; missing field `command`",
        ),
        (
            "[[on_change]]\nname = \"a\"\ncommand = []",
            "HA0801: f: on_change.command (hook a); it is empty; the program and its arguments are wanted",
        ),
        (
            "[[on_change]]\nname = \"a\"\ncommand = [\"x\"]\nkind = []",
            "HA0801: f, line 4: on_change.kind; unknown field `kind`, expected one of `name`, `command`, `kinds`, `timeout`, `retries`, `environment`",
        ),
        (
            "[[on_change]]\nname = \"A b\"\ncommand = [\"x\"]",
            "HA0801: f: on_change.name; \"A b\": a name has lower-case letters, digits and hyphens only",
        ),
        (
            "[[on_change]]\nname = \"a\"\ncommand = [\"x\"]\n[[on_change]]\nname = \"a\"\ncommand = [\"y\"]",
            "HA0801: f: on_change.name; two hooks are named \"a\"",
        ),
        (
            "[[on_change]]\nname = \"a\"\ncommand = [\"x\"]\nenvironment = { HA_SEQ = \"1\" }",
            "HA0801: f: on_change.environment (hook a); HA_SEQ is set by had itself",
        ),
        (
            "bundle = ",
            "HA0801: f, line 1: bundle; string values must be quoted, expected literal string",
        ),
    ];
    for (text, error) in golden {
        assert_eq!(Config::parse(text, "f").unwrap_err().to_string(), error, "{text}");
    }
}

#[test]
fn addresses_follow_from_the_bundle() {
    let config = Config::default();
    assert_eq!(config.grpc_listen("10.0.0.1:7500").unwrap().to_string(), "0.0.0.0:7500");
    assert_eq!(config.grpc_listen("[::1]:7500").unwrap().to_string(), "[::]:7500");
    assert!(config.grpc_listen("nowhere").is_err());
    assert_eq!(
        config.advertised("[::1]:7500", 7401),
        ("[::1]:7500".to_owned(), "[::1]:7401".to_owned())
    );
    let set = "[advertise]\ngrpc = \"db1:1\"";
    assert_eq!(
        Config::parse(set, "").unwrap().advertised("x:2", 3),
        ("db1:1".to_owned(), "db1:3".to_owned())
    );
}

#[test]
fn only_the_default_file_may_be_missing() {
    let dir = tempfile::tempdir().unwrap();
    let e = Config::load(Some(&dir.path().join("none.toml"))).unwrap_err();
    assert_eq!(e.code.id, "HA0801");
    assert!(e.message.contains("none.toml"), "{e}");
}
