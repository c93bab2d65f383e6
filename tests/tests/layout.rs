//! The rules of the tree, enforced: imports run one way, the core stays pure, ZooKeeper and the operating system have one
//! place each, files stay short and say why they exist. Reads sources and `cargo metadata`; builds and changes nothing.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

/// A crate of this workspace and the crates of this workspace that it may use.
struct Member {
    package: &'static str,
    /// As it is written in a path of Rust.
    ident: &'static str,
    dir: &'static str,
    may_use: &'static [&'static str],
}

const MEMBERS: [Member; 5] = [
    Member {
        package: "ha-proto",
        ident: "ha_proto",
        dir: "proto",
        may_use: &[],
    },
    Member {
        package: "ha-core",
        ident: "ha_core",
        dir: "controlplane/core",
        may_use: &[],
    },
    Member {
        package: "controlplane",
        ident: "controlplane",
        dir: "controlplane",
        may_use: &["ha-core", "ha-proto"],
    },
    Member {
        package: "hactl",
        ident: "hactl",
        dir: "cli",
        may_use: &["ha-proto"],
    },
    Member {
        package: "ha-tests",
        ident: "ha_tests",
        dir: "tests",
        may_use: &["ha-core", "ha-proto", "controlplane", "hactl"],
    },
];

/// All that the core may depend on: decisions need no runtime, no clock and no random numbers.
const CORE_DEPENDENCIES: [&str; 4] = ["proptest", "serde", "serde_json", "thiserror"];

/// What stands at the top of the tree.
const TOP: [&str; 15] = [
    ".ci",
    ".gitignore",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "Makefile",
    "README.md",
    "cli",
    "clippy.toml",
    "completions",
    "controlplane",
    "docs",
    "proto",
    "rustfmt.toml",
    "tests",
];

const MAX_LINES: usize = 500;

struct Source {
    /// Relative to the top, with `/`.
    path: String,
    text: String,
}

impl Source {
    /// Whether it is compiled for tests only, by its name.
    fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("tests.rs")
    }

    /// The lines with their numbers, comments cut off.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(i, line)| (i + 1, without_comment(line)))
    }

    fn member(&self) -> &'static Member {
        let owners = MEMBERS.iter().filter(|m| self.path.starts_with(&format!("{}/", m.dir)));
        owners
            .max_by_key(|m| m.dir.len())
            .unwrap_or_else(|| panic!("{} belongs to no crate", self.path))
    }
}

/// Cuts a `//` comment off. One inside a string is taken for a comment too, which loses nothing that is looked for here.
fn without_comment(line: &str) -> &str {
    line.find("//").map_or(line, |at| &line[..at])
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate is below the top")
        .to_path_buf()
}

fn is_skipped(name: &str) -> bool {
    name == ".git" || name == "target" || name.starts_with("target-")
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = std::fs::read_dir(dir).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        if is_skipped(&entry.file_name().to_string_lossy()) {
            continue;
        }
        // Neither links nor what vanished between listing and looking is of interest.
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => walk(&entry.path(), found),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
}

fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(&top(), &mut found);
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(top()).unwrap().to_string_lossy().replace('\\', "/")
}

/// Every Rust source that was written by hand.
fn sources() -> Vec<Source> {
    let rust = files().into_iter().filter(|p| p.extension().is_some_and(|e| e == "rs"));
    let sources: Vec<_> = rust
        .map(|p| Source {
            path: relative(&p),
            text: std::fs::read_to_string(&p).unwrap_or_default(),
        })
        .filter(|s| !s.path.contains("/generated/"))
        .collect();
    assert!(sources.len() > 20, "the sources were not found: {}", sources.len());
    sources
}

fn assert_none(findings: &[String], rule: &str) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}

/// Whether `word` stands in `line` with nothing that belongs to a name right before it.
fn mentions(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '-')
    })
}

fn metadata() -> serde_json::Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let out = Command::new(cargo)
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
            "--locked",
        ])
        .current_dir(top())
        .output()
        .expect("cargo runs");
    assert!(
        out.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    serde_json::from_slice(&out.stdout).unwrap()
}

/// Package names and their direct dependencies of every kind.
fn dependencies() -> Vec<(String, BTreeSet<String>)> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    let name = |v: &serde_json::Value| v["name"].as_str().unwrap().to_owned();
    packages
        .iter()
        .map(|p| {
            (
                name(p),
                p["dependencies"].as_array().unwrap().iter().map(name).collect(),
            )
        })
        .collect()
}

#[test]
fn manifests_import_one_way() {
    let packages = dependencies();
    let names: BTreeSet<_> = packages.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        MEMBERS.iter().map(|m| m.package).collect(),
        "the members of the workspace"
    );
    let mut findings = Vec::new();
    for (package, uses) in &packages {
        let member = MEMBERS.iter().find(|m| m.package == package).unwrap();
        let ours = uses.iter().filter(|d| names.contains(d.as_str()));
        for wrong in ours.filter(|d| !member.may_use.contains(&d.as_str())) {
            findings.push(format!("{}/Cargo.toml depends on {wrong}", member.dir));
        }
    }
    assert_none(
        &findings,
        "imports run one way: cli -> proto; controlplane -> core, proto; core -> nothing of ours",
    );
}

#[test]
fn sources_import_one_way() {
    let mut findings = Vec::new();
    for source in sources() {
        let member = source.member();
        for other in &MEMBERS {
            if other.package == member.package || member.may_use.contains(&other.package) {
                continue;
            }
            let path = format!("{}::", other.ident);
            for (line, _) in source.code().filter(|(_, code)| mentions(code, &path)) {
                findings.push(format!("{}:{line} uses {}", source.path, other.ident));
            }
        }
    }
    assert_none(&findings, "imports run one way");
}

#[test]
fn no_source_reaches_into_another_crate() {
    let mut findings = Vec::new();
    for source in sources().iter().filter(|s| !s.is_test()) {
        let dir = source.member().dir;
        for (line, code) in source.code() {
            let includes = ["include!(\"", "include_str!(\"", "include_bytes!(\"", "#[path = \""];
            let Some(start) = includes.iter().find_map(|i| code.find(i).map(|at| at + i.len())) else {
                continue;
            };
            let Some(target) = code[start..].split('"').next() else {
                continue;
            };
            let reached = resolve(Path::new(&source.path).parent().unwrap(), Path::new(target));
            let foreign = MEMBERS.iter().any(|m| {
                let inside = |d: &str| reached.starts_with(d);
                m.dir != dir && inside(m.dir) && !(inside(dir) && dir.len() > m.dir.len())
            });
            if foreign {
                findings.push(format!("{}:{line} includes {}", source.path, reached.display()));
            }
        }
    }
    assert_none(&findings, "a crate is used by its name, not by its files");
}

/// `target` seen from `base`, without `..`.
fn resolve(base: &Path, target: &Path) -> PathBuf {
    let mut path = PathBuf::new();
    for part in base.join(target).components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            other => path.push(other),
        }
    }
    path
}

#[test]
fn the_core_is_pure() {
    let packages = dependencies();
    let (_, uses) = packages.iter().find(|(name, _)| name == "ha-core").unwrap();
    let unknown: Vec<_> = uses
        .iter()
        .filter(|d| !CORE_DEPENDENCIES.contains(&d.as_str()))
        .cloned()
        .collect();
    assert_none(&unknown, "controlplane/core takes no such dependency");

    // Addresses are parsed, which is pure; connecting is not.
    let outside = "std::fs std::process std::env std::thread std::io std::sync TcpStream TcpListener UdpSocket tokio:: \
        rand:: Instant SystemTime async";
    let mut findings = Vec::new();
    for source in sources()
        .iter()
        .filter(|s| s.path.starts_with("controlplane/core/src/"))
    {
        for (line, code) in source.code() {
            for word in outside.split_whitespace().filter(|w| mentions(code, w)) {
                findings.push(format!("{}:{line} has {word}", source.path));
            }
        }
    }
    assert_none(
        &findings,
        "core decides and never observes: no I/O, clock, randomness, threads or waiting",
    );
}

#[test]
fn only_coordination_knows_zookeeper() {
    let mut findings = Vec::new();
    for source in sources() {
        let allowed = source.path.starts_with("controlplane/src/coordination/");
        for (line, _) in source
            .code()
            .filter(|(_, code)| !allowed && mentions(code, concat!("zookeeper_", "async::")))
        {
            findings.push(format!("{}:{line}", source.path));
        }
    }
    assert_none(
        &findings,
        "zookeeper-async is used in controlplane/src/coordination/ alone",
    );
}

#[test]
fn only_platform_knows_the_operating_system() {
    let conditions = [
        "cfg(unix)",
        "cfg(windows)",
        "cfg(not(unix))",
        "cfg(not(windows))",
        "cfg(target_os",
    ];
    let mut findings = Vec::new();
    for source in sources() {
        let inside = source.path.starts_with("controlplane/src/");
        if !inside || source.is_test() || source.path.starts_with("controlplane/src/platform/") {
            continue;
        }
        for (line, code) in source.code() {
            if conditions.iter().any(|c| code.contains(c)) {
                findings.push(format!("{}:{line} {}", source.path, code.trim()));
            }
        }
    }
    assert_none(
        &findings,
        "the daemon asks for its operating system in controlplane/src/platform/ alone",
    );
}

#[test]
fn files_stay_short() {
    let long = sources().into_iter().filter_map(|s| {
        let lines = s.text.lines().count();
        (lines > MAX_LINES).then(|| format!("{} has {lines} lines", s.path))
    });
    assert_none(&long.collect::<Vec<_>>(), "a file above 500 lines is two ideas");
}

#[test]
fn files_say_why_they_exist() {
    let silent = sources().into_iter().filter(|s| {
        let head = s.text.lines().find(|l| !l.trim().is_empty() && !l.starts_with("#!["));
        !head.is_some_and(|l| l.starts_with("//!") && l.len() > 8)
    });
    assert_none(
        &silent.map(|s| s.path).collect::<Vec<_>>(),
        "a file begins with //! and why it exists",
    );
}

#[test]
fn nothing_is_left_unfinished() {
    // Put together here, so that this file does not find itself.
    let marks = [
        ["TO", "DO"].concat(),
        ["FIX", "ME"].concat(),
        ["todo", "!("].concat(),
        ["unimplemented", "!("].concat(),
        ["dbg", "!("].concat(),
        ["#[ign", "ore"].concat(),
    ];
    let mut findings = Vec::new();
    for source in sources() {
        for (i, line) in source.text.lines().enumerate() {
            if marks.iter().any(|m| mentions(line, m)) {
                findings.push(format!("{}:{} {}", source.path, i + 1, line.trim()));
            }
        }
    }
    assert_none(&findings, "marks of unfinished work");
}

#[test]
fn no_developer_s_machine_is_in_the_tree() {
    // Home directories and the like, put together here so that this file does not find itself.
    let roots = [
        ["/wo", "rk/"],
        ["/ho", "me/"],
        ["/Us", "ers/"],
        ["/ro", "ot/"],
        ["/fa", "rm/"],
        ["C:\\Us", "ers"],
    ];
    let roots = roots.map(|r| r.concat());
    let mut findings = Vec::new();
    for path in files() {
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        for (i, line) in text.lines().enumerate() {
            if roots.iter().any(|r| mentions_path(line, r)) {
                findings.push(format!("{}:{} {}", relative(&path), i + 1, line.trim()));
            }
        }
    }
    assert_none(&findings, "paths of a developer's machine");
}

/// Whether an absolute path that begins with `root` stands in `line`.
fn mentions_path(line: &str, root: &str) -> bool {
    line.match_indices(root).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '}' | ')' | '>' | '$'))
    })
}

#[test]
fn the_top_is_as_designed() {
    let entries = std::fs::read_dir(top())
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned());
    let unknown: Vec<_> = entries
        .filter(|e| !TOP.contains(&e.as_str()) && !is_skipped(e))
        .collect();
    assert_none(&unknown, "stands at the top without a place in the layout");
    for needed in TOP {
        assert!(top().join(needed).exists(), "{needed} is missing");
    }
}

#[cfg(test)]
mod the_rules_bite {
    use super::*;

    #[test]
    fn a_forbidden_import_is_seen() {
        assert!(mentions("use controlplane::node;", "controlplane::"));
        assert!(mentions("    let x = controlplane::node::run();", "controlplane::"));
        assert!(!mentions("use my_controlplane::node;", "controlplane::"));
        assert_eq!(without_comment("use a; // controlplane::node"), "use a; ");
    }

    #[test]
    fn a_path_is_resolved() {
        assert_eq!(
            resolve(Path::new("cli/src"), Path::new("../../proto/x.rs")),
            Path::new("proto/x.rs")
        );
    }

    #[test]
    fn a_path_of_a_machine_is_seen() {
        let root = ["/ho", "me/"].concat();
        assert!(mentions_path(&format!("in {root}alice/src"), &root));
        assert!(!mentions_path(&format!("$XDG{root}x"), &root));
        assert!(!mentions_path(&format!("a{root}x"), &root));
    }
}
