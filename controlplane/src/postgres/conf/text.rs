//! The syntax of PostgreSQL's configuration files: quoting what had writes, and reading what others wrote.

use std::path::{Path, PathBuf};

use super::super::error::{PgError, Result};

/// How deep files may include each other; PostgreSQL's own limit.
const MAX_DEPTH: u32 = 10;
/// Greatest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// A value as it stands in a configuration file.
pub(crate) fn quoted(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    text.push('\'');
    for c in value.chars() {
        if c == '\'' || c == '\\' {
            text.push(c);
        }
        text.push(c);
    }
    text.push('\'');
    text
}

/// A value as it stands in a connection string.
pub(crate) fn conninfo_value(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    text.push('\'');
    for c in value.chars() {
        if c == '\'' || c == '\\' {
            text.push('\\');
        }
        text.push(c);
    }
    text.push('\'');
    text
}

/// One setting of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) value: String,
}

/// Reads a configuration file and what it includes, in the order in which PostgreSQL does: of two settings the later
/// holds.
///
/// # Errors
/// [`PgError::Files`]; [`PgError::Unreadable`] with file and line.
pub(crate) fn read(path: &Path) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    read_into(path, 0, None, &mut lines)?;
    Ok(lines)
}

fn read_into(path: &Path, depth: u32, passed_over: Option<&Path>, lines: &mut Vec<Line>) -> Result<()> {
    let wrong = |why: String| PgError::unreadable(path.display().to_string(), why);
    if depth > MAX_DEPTH {
        return Err(wrong("files include each other too deeply".into()));
    }
    let meta = std::fs::metadata(path).map_err(PgError::files(path))?;
    if meta.len() > MAX_FILE {
        return Err(wrong("it is too large for a configuration file".into()));
    }
    let text = std::fs::read(path).map_err(PgError::files(path))?;
    let text = String::from_utf8_lossy(&text);
    let base = path.parent().unwrap_or(Path::new("/"));
    for (n, raw) in text.lines().enumerate() {
        let Some(line) = parse_line(raw).map_err(|why| wrong(format!("line {}: {why}", n + 1)))? else {
            continue;
        };
        let target = || base.join(&line.value);
        match line.name.as_str() {
            "include" if passed_over.is_some_and(|p| p == target()) => {}
            "include" => read_into(&target(), depth + 1, passed_over, lines)?,
            "include_if_exists" if !target().exists() => {}
            "include_if_exists" => read_into(&target(), depth + 1, passed_over, lines)?,
            "include_dir" => {
                for file in files_of(&target())? {
                    read_into(&file, depth + 1, passed_over, lines)?;
                }
            }
            _ => lines.push(line),
        }
    }
    Ok(())
}

/// What `include_dir` includes: `*.conf` but no hidden ones, by name.
fn files_of(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(PgError::files(dir))? {
        let name = entry.map_err(PgError::files(dir))?.file_name();
        let wanted = name
            .to_str()
            .is_some_and(|n| Path::new(n).extension().is_some_and(|e| e == "conf") && !n.starts_with('.'));
        if wanted {
            files.push(dir.join(name));
        }
    }
    files.sort();
    Ok(files)
}

/// The name and value that stand on a line, if any do.
pub(crate) fn setting(line: &str) -> Option<(String, String)> {
    parse_line(line).ok().flatten().map(|l| (l.name, l.value))
}

/// Reads what had appended as if it were not there: `include` of this file is passed over.
pub(crate) fn read_without(path: &Path, passed_over: &Path) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    read_into(path, 0, Some(passed_over), &mut lines)?;
    Ok(lines)
}

/// `name = value`, `name value` or `name 'value'`, with a comment after it.
fn parse_line(raw: &str) -> std::result::Result<Option<Line>, String> {
    let line = raw.trim_start();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let end = line
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.' || c == '$'))
        .unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    if name.is_empty() {
        return Err(format!("{:?} is no setting", line.trim_end()));
    }
    let (value, after) = match rest.strip_prefix('\'') {
        Some(inside) => unquote(inside)?,
        None => {
            let end = rest.find(|c: char| c.is_whitespace() || c == '#').unwrap_or(rest.len());
            (rest[..end].to_owned(), &rest[end..])
        }
    };
    let after = after.trim();
    if !after.is_empty() && !after.starts_with('#') {
        return Err(format!("{after:?} follows the value of {name}"));
    }
    Ok(Some(Line {
        name: name.to_ascii_lowercase(),
        value,
    }))
}

/// The value up to its closing quote, and what follows.
fn unquote(text: &str) -> std::result::Result<(String, &str), String> {
    let mut value = String::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\'' if chars.peek().is_some_and(|(_, c)| *c == '\'') => {
                chars.next();
                value.push('\'');
            }
            '\'' => return Ok((value, &text[at + 1..])),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, c)) => value.push(c),
                None => break,
            },
            c => value.push(c),
        }
    }
    Err("a quote is not closed".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn files_are_read_as_postgresql_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        std::fs::create_dir(dir.path().join("conf.d")).unwrap();
        write(
            "postgresql.conf",
            "# comment\nshared_buffers = 128MB\t# more\n  Log_Line_Prefix='%m ''q'' \\\\ # x'\nwork_mem 4MB\n\
             include_dir = 'conf.d'\ninclude_if_exists 'none.conf'\nfsync=on\n",
        );
        write("conf.d/b.conf", "work_mem = 8MB\n");
        write("conf.d/a.conf", "work_mem = 6MB\nmy.setting = ''\n");
        write("conf.d/.hidden.conf", "broken '\n");
        write("conf.d/readme", "broken '\n");
        let lines = read(&dir.path().join("postgresql.conf")).unwrap();
        let pairs: Vec<_> = lines.iter().map(|l| (l.name.as_str(), l.value.as_str())).collect();
        assert_eq!(
            pairs,
            [
                ("shared_buffers", "128MB"),
                ("log_line_prefix", "%m 'q' \\ # x"),
                ("work_mem", "4MB"),
                ("work_mem", "6MB"),
                ("my.setting", ""),
                ("work_mem", "8MB"),
                ("fsync", "on"),
            ]
        );
    }

    #[test]
    fn what_postgresql_would_refuse_is_refused_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.conf");
        for (text, why) in [
            ("\nwork_mem = '4MB\n", "line 2: a quote is not closed"),
            ("work_mem = 4MB 5MB\n", "line 1: \"5MB\" follows the value of work_mem"),
            ("= 4\n", "line 1: \"= 4\" is no setting"),
            ("include 'x.conf'\n", "too deeply"),
        ] {
            std::fs::write(&path, text).unwrap();
            let e = read(&path).unwrap_err().to_string();
            assert!(e.contains(why), "{e}");
        }
        std::fs::write(&path, "include 'gone.conf'\n").unwrap();
        assert!(matches!(read(&path), Err(PgError::Files { .. })));
    }

    proptest! {
        #[test]
        fn what_is_quoted_is_read_back(value in "[^\\x00-\\x1f]*") {
            let line = parse_line(&format!("a = {} # {}", quoted(&value), "c")).unwrap().unwrap();
            prop_assert_eq!(line.value, value);
        }

        #[test]
        fn no_line_panics(line in ".*") {
            let _ = parse_line(&line);
        }
    }
}
