//! The commands of the README, as its reader types them, against a playground; and what they print.

#![allow(clippy::unwrap_used)]
#![cfg(unix)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use ha_tests::cluster::{LIMIT, programs};

/// A command and what the README says that it prints.
#[derive(Debug)]
struct Step {
    line: usize,
    command: String,
    output: Vec<String>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn readme() -> String {
    std::fs::read_to_string(root().join("README.md")).unwrap()
}

/// The steps of all ```console blocks.
fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for (i, line) in text.lines().enumerate() {
        match line {
            "```console" => inside = true,
            "```" => inside = false,
            line if inside => match line.strip_prefix("$ ") {
                Some(command) => steps.push(Step {
                    line: i + 1,
                    command: command.into(),
                    output: Vec::new(),
                }),
                None => steps
                    .last_mut()
                    .expect("a block begins with a command")
                    .output
                    .push(line.into()),
            },
            _ => {}
        }
    }
    steps
}

/// A line without what differs from run to run: numbers that are no part of a name, ids, positions in WAL, ages, and spaces.
fn plain(line: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in line.split_whitespace() {
        let is_id = word.len() == 12 && word.chars().all(|c| c.is_ascii_hexdigit());
        let hex = |half: &str| !half.is_empty() && half.chars().all(|c| matches!(c, '0'..='9' | 'A'..='F'));
        let is_lsn = word.split_once('/').is_some_and(|(high, low)| hex(high) && hex(low));
        let word = match (is_id, is_lsn) {
            (true, _) => "ID".to_owned(),
            (_, true) => "LSN".to_owned(),
            _ => without_numbers(word),
        };
        // `2m 11s ago`, `3s` and `now` are ages.
        let is_age = matches!(word.as_str(), "#s" | "#m" | "#h" | "#d" | "now");
        match (is_age, words.last().map(String::as_str)) {
            (true, Some("AGE")) => {}
            (true, _) => words.push("AGE".into()),
            (false, Some("AGE")) if word == "ago" => {}
            (false, _) => words.push(word),
        }
    }
    // What has not been measured yet is shown as a hyphen.
    words.join(" ").replace("#% of #", "-").replace("# of # GiB", "-")
}

fn without_numbers(word: &str) -> String {
    let mut plain = String::new();
    let mut last = ' ';
    let mut chars = word.chars().peekable();
    while let Some(c) = chars.next() {
        if c.is_ascii_digit() && !last.is_alphanumeric() {
            // A decimal point belongs to the number.
            while chars.peek().is_some_and(|n| n.is_ascii_digit() || *n == '.') {
                chars.next();
            }
            plain.push('#');
            last = '#';
        } else {
            plain.push(c);
            last = c;
        }
    }
    plain
}

/// Whether `actual` is what was expected; a line `...` stands for any lines.
fn fits(expected: &[String], actual: &[String]) -> bool {
    match expected.split_first() {
        None => actual.is_empty(),
        Some((first, rest)) if first == "..." => (0..=actual.len()).any(|skip| fits(rest, &actual[skip..])),
        Some((first, rest)) => actual
            .split_first()
            .is_some_and(|(a, others)| a == first && fits(rest, others)),
    }
}

struct Shell {
    dir: tempfile::TempDir,
    path: std::ffi::OsString,
}

impl Shell {
    fn new() -> Self {
        let hactl = programs().unwrap().hactl;
        let mut path = vec![hactl.parent().unwrap().to_path_buf()];
        path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
        let dir = tempfile::Builder::new().prefix("readme-").tempdir().unwrap();
        // PostgreSQL's own account has to pass through it.
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        Self {
            dir,
            path: std::env::join_paths(path).unwrap(),
        }
    }

    /// Whether it ended well, and all that it printed.
    fn run(&self, command: &str) -> (bool, String) {
        let output = Command::new("bash")
            .args(["-c", &format!("exec 2>&1; {command}")])
            .current_dir(self.dir.path())
            .env("PATH", &self.path)
            .env("HACTL_CONFIG_DIR", self.dir.path().join("config"))
            .env("HACTL_PLAYGROUND_DIR", self.dir.path().join("playground"))
            .env_remove("HACTL_CONTEXT")
            .env_remove("HACTL_OUTPUT")
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        )
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.run("hactl playground down");
        let _ = self.run("hactl playground down --dir pg");
    }
}

#[test]
fn the_tour_is_true() {
    let shell = Shell::new();
    let steps = steps(&readme());
    assert!(steps.len() >= 10, "the README has lost its tour");
    for step in steps {
        let expected: Vec<String> = step.output.iter().map(|line| plain(line)).collect();
        let succeeds = !step.output.first().is_some_and(|line| line.starts_with("error HA"));
        // What only looks may look again: the reader is slower than the test, and what they wait for has happened.
        let looks = ["list", "show", "status"]
            .iter()
            .any(|verb| step.command.contains(&format!(" {verb}")));
        let deadline = Instant::now() + LIMIT;
        loop {
            let (ok, text) = shell.run(&step.command);
            let actual: Vec<String> = text.lines().map(plain).collect();
            // The first run as root in a closed directory warns of it; readers have no such directory.
            let actual: Vec<String> = actual
                .into_iter()
                .filter(|line| !line.starts_with("warning:"))
                .collect();
            if ok == succeeds && fits(&expected, &actual) {
                break;
            }
            assert!(
                looks && Instant::now() < deadline,
                "README.md:{}: $ {}\nexpected:\n{}\nprinted:\n{text}",
                step.line,
                step.command,
                step.output.join("\n")
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

#[test]
fn what_it_tells_to_make_can_be_made() {
    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
    let text = readme();
    let targets = text
        .lines()
        .filter_map(|line| line.strip_prefix("make ")?.split_whitespace().next());
    let mut count = 0;
    for target in targets {
        count += 1;
        assert!(
            makefile.contains(&format!("\n{target}:")),
            "the Makefile has no target {target}"
        );
    }
    assert!(count >= 3, "the README has lost its make commands");
}

#[test]
fn its_links_lead_somewhere() {
    for file in [
        "README.md",
        "docs/architecture.md",
        "docs/benchmarks.md",
        "docs/clients.md",
        "docs/operations.md",
        "docs/protocol.md",
        "docs/protocol-databases.md",
    ] {
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        let base = root().join(file).parent().unwrap().to_path_buf();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap();
            if !path.is_empty() && !path.contains("://") {
                assert!(base.join(path).exists(), "{file}: {link} leads nowhere");
            }
        }
    }
}

#[test]
fn lines_are_compared_by_what_matters() {
    assert_eq!(
        plain("n1  online  master  127.0.0.11:7400  9% of 2  1.9 of 23.5 GiB  -  now"),
        "n1 online master #:# - - - AGE"
    );
    assert_eq!(plain("since 2m 11s ago"), "since AGE");
    assert_eq!(plain("n1  primary  2  0/05016A00  zone/a"), "n1 primary # LSN zone/a");
    assert_eq!(
        plain("operation 041f7f23fb29 of n1 HA0303"),
        "operation ID of n1 HA0303"
    );
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert!(fits(&lines("a\n...\nd"), &lines("a\nb\nc\nd")));
    assert!(!fits(&lines("a\n...\nd"), &lines("a\nb\nc")));
}
