//! Files in the repository that this program writes: completion scripts, the pages of the error codes, the help.
//! `UPDATE_GENERATED=1 cargo test -p hactl generated` writes them anew.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ha_proto::codes;
use hactl::commands::completion::Shell;
use hactl::commands::explain;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

#[track_caller]
fn fresh(dir: &str, files: &[(String, String)]) {
    let dir = root().join(dir);
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::create_dir_all(&dir).unwrap();
        for (name, text) in files {
            std::fs::write(dir.join(name), text).unwrap();
        }
    }
    let expected: BTreeSet<_> = files.iter().map(|(name, _)| name.clone()).collect();
    let found: BTreeSet<_> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.'))
        .collect();
    let how = "UPDATE_GENERATED=1 cargo test -p hactl generated";
    assert_eq!(
        found,
        expected,
        "{} holds other files than it should: {how}",
        dir.display()
    );
    for (name, text) in files {
        let stored = std::fs::read_to_string(dir.join(name)).unwrap();
        assert!(stored == *text, "{}/{name} is out of date: {how}", dir.display());
    }
}

#[test]
fn generated_completions_are_fresh() {
    let files: Vec<_> = Shell::ALL
        .map(|shell| (shell.file().to_owned(), shell.script().unwrap()))
        .to_vec();
    fresh("completions", &files);
}

#[test]
fn generated_error_pages_are_fresh() {
    let mut files: Vec<_> = codes::ALL
        .iter()
        .map(|code| (format!("{}.md", code.id), explain::page(code)))
        .collect();
    files.push(("README.md".into(), explain::index()));
    fresh("docs/errors", &files);
}
