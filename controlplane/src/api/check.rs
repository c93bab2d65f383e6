//! What is refused before anybody acts on it: names, texts and numbers that are malformed, whoever sent them.

use ha_core::valid_name;
use ha_proto::{codes, v1};

use crate::error::ApiError;

/// Greatest reason, in bytes.
const MAX_REASON: usize = 512;
/// Greatest id of an operation.
const MAX_ID: usize = 64;
/// Most entries one list may ask for.
const MAX_LIST: u32 = 10_000;

/// A name.
pub(crate) fn name(what: &str, name: &str) -> Result<(), ApiError> {
    valid_name(name).map_err(|e| {
        ApiError::new(&codes::BAD_NAME, format!("{what} {:?} is not a name", shown(name))).why(e.to_string())
    })
}

/// A name that may be left out.
pub(crate) fn optional_name(what: &str, value: &str) -> Result<(), ApiError> {
    if value.is_empty() { Ok(()) } else { name(what, value) }
}

/// What is common to all changes.
pub(crate) fn options(options: Option<&v1::ChangeOptions>) -> Result<(), ApiError> {
    let Some(options) = options else { return Ok(()) };
    text("reason", &options.reason, MAX_REASON)
}

/// A text for people.
pub(crate) fn text(what: &str, value: &str, most: usize) -> Result<(), ApiError> {
    if value.len() > most {
        return Err(bad(what, format!("it has more than {most} bytes")));
    }
    if value.chars().any(char::is_control) {
        return Err(bad(what, "it has control characters".into()));
    }
    Ok(())
}

/// The id of an operation, or its beginning.
pub(crate) fn operation_id(id: &str) -> Result<(), ApiError> {
    let plain = id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if plain && !id.is_empty() && id.len() <= MAX_ID {
        return Ok(());
    }
    Err(bad("operation id", format!("{:?} is none", shown(id))))
}

/// A point in time, ms; 0 stands for none.
pub(crate) fn time(what: &str, ms: i64) -> Result<(), ApiError> {
    if ms >= 0 {
        Ok(())
    } else {
        Err(bad(what, "it lies before 1970".into()))
    }
}

/// How many entries of a list are wanted.
pub(crate) fn limit(limit: u32) -> Result<(), ApiError> {
    if limit <= MAX_LIST {
        Ok(())
    } else {
        Err(bad("limit", format!("at most {MAX_LIST} entries at once")))
    }
}

/// A certificate's serial number.
pub(crate) fn serial(serial: &str) -> Result<(), ApiError> {
    let told = || {
        bad(
            "serial",
            "a serial number has 32 hexadecimal digits in lower case".into(),
        )
    };
    ha_core::access::issued_ms(serial).map(|_| ()).ok_or_else(told)
}

/// A value that is malformed.
pub(crate) fn bad(what: &str, why: String) -> ApiError {
    ApiError::new(&codes::BAD_VALUE, format!("{what} is malformed")).why(why)
}

/// The beginning of a text that may be anything.
fn shown(text: &str) -> String {
    text.chars().take(70).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_malformed_is_refused() {
        assert_eq!(name("node", "N1").unwrap_err().code.id, "HA0007");
        assert!(optional_name("node", "").is_ok() && optional_name("node", "../x").is_err());
        let reason = |r: &str| {
            options(Some(&v1::ChangeOptions {
                reason: r.into(),
                ..Default::default()
            }))
        };
        assert!(reason("disk replaced").is_ok() && reason("\u{1b}[31m").is_err() && reason(&"x".repeat(513)).is_err());
        assert!(operation_id("0199f3").is_ok() && operation_id("").is_err() && operation_id("a/b").is_err());
        assert!(time("until", 0).is_ok() && time("until", -1).is_err());
        assert!(limit(10_000).is_ok() && limit(u32::MAX).is_err());
        assert!(serial(&"0".repeat(32)).is_ok() && serial("x").is_err());
    }

    proptest! {
        #[test]
        fn hostile_text_is_quoted_harmlessly(s in ".{0,300}") {
            for e in [name("node", &s), operation_id(&s), text("reason", &s, 100)].into_iter().filter_map(Result::err) {
                prop_assert!(!e.to_string().chars().any(char::is_control) && e.to_string().len() < 700);
            }
        }
    }
}
