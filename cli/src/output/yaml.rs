//! YAML from JSON, so that both say the same. Only what JSON can hold is ever written; strings are quoted unless they
//! can be nothing else.

use std::fmt::Write as _;

use serde::Deserialize;
use serde::de::{MapAccess, SeqAccess, Visitor};

/// A JSON value that keeps the order of its keys.
enum Tree {
    Scalar(String),
    Text(String),
    List(Vec<Tree>),
    Map(Vec<(String, Tree)>),
}

/// The YAML of a JSON text.
///
/// # Errors
/// If the text is not JSON.
pub fn from_json(json: &str) -> Result<String, serde_json::Error> {
    let tree: Tree = serde_json::from_str(json)?;
    let mut text = String::new();
    emit(&mut text, &tree, 0, true);
    if text.starts_with(' ') {
        text.remove(0);
    }
    Ok(text)
}

/// Writes what follows `key:` or `-`: on the same line, or indented on the next ones.
fn emit(out: &mut String, tree: &Tree, depth: usize, top: bool) {
    match tree {
        Tree::Scalar(text) => {
            let _ = writeln!(out, " {text}");
        }
        Tree::Text(text) => {
            let _ = writeln!(out, " {}", scalar(text));
        }
        Tree::List(items) if items.is_empty() => out.push_str(" []\n"),
        Tree::Map(fields) if fields.is_empty() => out.push_str(" {}\n"),
        Tree::List(items) => {
            if !top {
                out.push('\n');
            }
            for item in items {
                let _ = write!(out, "{:depth$}-", "");
                match item {
                    Tree::Map(fields) if !fields.is_empty() => {
                        out.push(' ');
                        emit_fields(out, fields, depth + 2, true);
                    }
                    item => emit(out, item, depth + 2, false),
                }
            }
        }
        Tree::Map(fields) => {
            if !top {
                out.push('\n');
            }
            emit_fields(out, fields, depth, false);
        }
    }
}

fn emit_fields(out: &mut String, fields: &[(String, Tree)], depth: usize, mut inline: bool) {
    for (key, value) in fields {
        let indent = if inline { 0 } else { depth };
        inline = false;
        let _ = write!(out, "{:indent$}{}:", "", scalar(key));
        // A list stands at the depth of its key, as is usual.
        let below = if matches!(value, Tree::List(_)) {
            depth
        } else {
            depth + 2
        };
        emit(out, value, below, false);
    }
}

/// A string, plain where it cannot be taken for anything else.
fn scalar(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-' | ' ');
    let reserved = ["true", "false", "yes", "no", "on", "off", "null", "y", "n"];
    let safe = text.chars().next().is_some_and(|c| c.is_ascii_alphabetic())
        && text.chars().all(plain)
        && !text.ends_with(' ')
        && !reserved.contains(&text.to_ascii_lowercase().as_str());
    if safe {
        return text.to_owned();
    }
    // JSON strings are YAML strings.
    serde_json::Value::String(text.to_owned()).to_string()
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Tree;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("JSON")
            }
            fn visit_bool<E>(self, v: bool) -> Result<Tree, E> {
                Ok(Tree::Scalar(v.to_string()))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Tree, E> {
                Ok(Tree::Scalar(v.to_string()))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Tree, E> {
                Ok(Tree::Scalar(v.to_string()))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Tree, E> {
                Ok(Tree::Scalar(v.to_string()))
            }
            fn visit_str<E>(self, v: &str) -> Result<Tree, E> {
                Ok(Tree::Text(v.to_owned()))
            }
            fn visit_unit<E>(self) -> Result<Tree, E> {
                Ok(Tree::Scalar("null".into()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Tree::List(items))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Tree::Map(fields))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_the_json_says() {
        let json = r#"{"b":1,"a":[{"x":"y","z":[1,2],"e":{}},[],"yes","a: b","1.5",""],"m":{"k-1":null,"t":true,"time":"2025-11-22T15:40:00Z"},"l":[[1],[2]]}"#;
        insta::assert_snapshot!(from_json(json).unwrap(), @r#"
        b: 1
        a:
        - x: "y"
          z:
          - 1
          - 2
          e: {}
        - []
        - "yes"
        - "a: b"
        - "1.5"
        - ""
        m:
          k-1: null
          t: true
          time: "2025-11-22T15:40:00Z"
        l:
        -
          - 1
        -
          - 2
        "#);
    }
}
