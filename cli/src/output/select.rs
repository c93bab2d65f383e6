//! `-l SELECTOR` and `--sort-by FIELD`. Pure.

use std::collections::BTreeMap;

use ha_proto::codes;

use super::View;
use crate::error::CliError;

/// Conditions on labels, all of which must hold: `zone=a`, `zone!=b`, `ssd` (has it), `!ssd` (has it not).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector(Vec<Condition>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    Is(String, String),
    IsNot(String, String),
    Has(String),
    HasNot(String),
}

impl Selector {
    /// # Errors
    /// `HA0009` if it cannot be read.
    pub fn parse(text: &str) -> Result<Self, CliError> {
        let condition = |part: &str| -> Option<Condition> {
            let part = part.trim();
            let pair = |a: &str, b: &str| (a.trim().to_owned(), b.trim().to_owned());
            let condition = if let Some((key, value)) = part.split_once("!=") {
                let (key, value) = pair(key, value);
                Condition::IsNot(key, value)
            } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
                let (key, value) = pair(key, value);
                Condition::Is(key, value)
            } else if let Some(key) = part.strip_prefix('!') {
                Condition::HasNot(key.trim().to_owned())
            } else {
                Condition::Has(part.to_owned())
            };
            let (Condition::Is(key, _) | Condition::IsNot(key, _) | Condition::Has(key) | Condition::HasNot(key)) =
                &condition;
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/');
            (!key.is_empty() && key.chars().all(allowed)).then_some(condition)
        };
        let conditions: Option<Vec<_>> = text.split(',').map(condition).collect();
        conditions.map(Self).ok_or_else(|| {
            CliError::new(codes::BAD_VALUE, format!("`{text}` is not a selector"))
                .why("write conditions on labels between commas: zone=a, zone!=b, ssd, !ssd")
        })
    }

    /// Whether all conditions hold.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|condition| match condition {
            Condition::Is(key, value) => labels.get(key) == Some(value),
            Condition::IsNot(key, value) => labels.get(key) != Some(value),
            Condition::Has(key) => labels.contains_key(key),
            Condition::HasNot(key) => !labels.contains_key(key),
        })
    }
}

/// Sorts by a column, descending with `-` before it. Equal ones keep their order.
///
/// # Errors
/// `HA0009` if there is no such column.
pub fn sort<V: View>(items: &mut Vec<V>, field: &str, now: i64) -> Result<(), CliError> {
    let (name, descending) = match field.strip_prefix('-') {
        Some(name) => (name, true),
        None => (field, false),
    };
    let Some(at) = V::COLUMNS.iter().position(|c| c.title.eq_ignore_ascii_case(name)) else {
        let fields: Vec<_> = V::COLUMNS.iter().map(|c| c.title.to_ascii_lowercase()).collect();
        return Err(CliError::new(codes::BAD_VALUE, format!("cannot sort by `{name}`"))
            .why(format!("the fields are {}", fields.join(", ")))
            .why("a hyphen before the field sorts from the largest"));
    };
    let mut keyed: Vec<_> = std::mem::take(items)
        .into_iter()
        .map(|item| (item.cells(now), item))
        .collect();
    keyed.sort_by(|(a, _), (b, _)| {
        let key = |cells: &[super::table::Cell]| cells.get(at).cloned().unwrap_or_default();
        let (a, b) = (key(a), key(b));
        let order = a
            .sort_key()
            .partial_cmp(&b.sort_key())
            .unwrap_or(std::cmp::Ordering::Equal);
        if descending { order.reverse() } else { order }
    });
    *items = keyed.into_iter().map(|(_, item)| item).collect();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors() {
        let labels: BTreeMap<String, String> = [("zone", "a"), ("ssd", "")]
            .into_iter()
            .map(|(k, v)| (k.into(), v.into()))
            .collect();
        for (text, expected) in [
            ("zone=a", true),
            ("zone==a", true),
            ("zone=b", false),
            ("zone!=b,ssd", true),
            ("!ssd", false),
            ("rack!=1", true),
            ("!rack, zone = a", true),
        ] {
            assert_eq!(Selector::parse(text).unwrap().matches(&labels), expected, "{text}");
        }
        for bad in ["", "=a", "zone=a,,x", "a b", "!"] {
            assert!(Selector::parse(bad).is_err(), "{bad}");
        }
    }
}
