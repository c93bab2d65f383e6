//! What operators type as values: names, addresses, sizes, cores, labels and times. Nothing here touches the outside.

use std::time::Duration;

use ha_proto::codes;

use crate::error::CliError;

/// Port of a node's gRPC endpoint where an address names none.
pub const GRPC_PORT: u16 = 7400;
/// Port of a ZooKeeper server where an address names none.
pub const ZOOKEEPER_PORT: u16 = 2181;

/// Whether `name` may name a cluster, a node, a user or a context.
pub fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
    (1..=63).contains(&bytes.len())
        && bytes[0].is_ascii_lowercase()
        && bytes[bytes.len() - 1] != b'-'
        && bytes.iter().all(inner)
}

/// Greatest length of a node's name: replication slots and connections of PostgreSQL are named after it, with a few
/// characters more, and it cuts names at 63 bytes.
pub const NODE_NAME: usize = 50;

/// `name`, if it may name a `what`.
///
/// # Errors
/// `HA0007` otherwise.
pub fn check_name(what: &str, name: &str) -> Result<(), CliError> {
    if what == "node" && is_name(name) && name.len() > NODE_NAME {
        let short = name[..NODE_NAME].trim_end_matches('-');
        return Err(
            CliError::new(codes::BAD_NAME, format!("`{name}` cannot be the name of a node"))
                .why(format!(
                    "it has {} characters, and at most {NODE_NAME} fit into the names that PostgreSQL takes for it",
                    name.len()
                ))
                .next(short, "for instance"),
        );
    }
    if is_name(name) {
        return Ok(());
    }
    Err(CliError::new(codes::BAD_NAME, format!("`{name}` cannot be the name of a {what}")).why(
        "names are 1 to 63 lower-case letters, digits and hyphens, beginning with a letter and not ending with a hyphen",
    ))
}

/// `host:port`, with the default port added where it is missing. IPv6 addresses stand in brackets.
///
/// # Errors
/// A sentence on what is wrong.
pub fn address(text: &str, default_port: u16) -> Result<String, String> {
    let text = text.trim();
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, tail) = rest
            .split_once(']')
            .ok_or_else(|| format!("`{text}`: the bracket is not closed"))?;
        host.parse::<std::net::Ipv6Addr>()
            .map_err(|_| format!("`{host}` is not an IPv6 address"))?;
        (format!("[{host}]"), tail.strip_prefix(':'))
    } else if text.matches(':').count() > 1 {
        return Err(format!(
            "`{text}`: write an IPv6 address in brackets, [::1]:{default_port}"
        ));
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host.to_owned(), Some(port)),
            None => (text.to_owned(), None),
        }
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '[' | ']' | ':');
    if host.is_empty() || !host.chars().all(allowed) {
        return Err(format!("`{text}` is not HOST or HOST:PORT"));
    }
    let port = match port {
        None => default_port,
        Some(port) => port
            .parse::<u16>()
            .ok()
            .filter(|p| *p > 0)
            .ok_or_else(|| format!("`{port}` is not a port"))?,
    };
    Ok(format!("{host}:{port}"))
}

/// The gRPC address of a node, for clap.
pub(crate) fn grpc_address(text: &str) -> Result<String, String> {
    address(text, GRPC_PORT)
}

/// The address of a ZooKeeper server, for clap.
pub(crate) fn zookeeper_address(text: &str) -> Result<String, String> {
    address(text, ZOOKEEPER_PORT)
}

/// `NAME=ADDRESS`, for clap.
pub(crate) fn named_address(text: &str) -> Result<(String, String), String> {
    let (name, addr) = text
        .split_once('=')
        .ok_or("write NAME=ADDRESS, for instance n1=10.0.0.11")?;
    if !is_name(name) {
        return Err(format!(
            "`{name}` is not a name: lower-case letters, digits and hyphens, at most 63"
        ));
    }
    Ok((name.to_owned(), grpc_address(addr)?))
}

/// `K=V` (set) or `K-` (remove), for clap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelChange {
    /// Give the label this value.
    Set(String, String),
    /// Take the label away.
    Remove(String),
}

pub(crate) fn label_change(text: &str) -> Result<LabelChange, String> {
    if let Some((key, value)) = text.split_once('=') {
        label_key(key)?;
        label_value(value)?;
        return Ok(LabelChange::Set(key.to_owned(), value.to_owned()));
    }
    let key = text
        .strip_suffix('-')
        .ok_or_else(|| format!("`{text}`: write KEY=VALUE to set or KEY- to remove"))?;
    label_key(key)?;
    Ok(LabelChange::Remove(key.to_owned()))
}

pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    match label_change(text)? {
        LabelChange::Set(key, value) => Ok((key, value)),
        LabelChange::Remove(_) => Err(format!("`{text}`: write KEY=VALUE")),
    }
}

fn label_key(key: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/');
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if key.len() <= 63 && key.chars().all(allowed) && edge(key.chars().next()) && edge(key.chars().last()) {
        return Ok(());
    }
    Err(format!(
        "`{key}` is not a label's key: letters, digits, `.`, `-`, `_`, `/`, at most 63"
    ))
}

fn label_value(value: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if value.len() <= 63 && value.chars().all(allowed) {
        return Ok(());
    }
    Err(format!(
        "`{value}` is not a label's value: letters, digits, `.`, `-`, `_`, at most 63"
    ))
}

/// Bytes from `16GiB`, `512 MiB`, `16G` (binary, as memory is), `10GB` (decimal) or a plain number.
///
/// # Errors
/// A sentence on what is wrong.
pub fn bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let split = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number
        .parse()
        .map_err(|_| format!("`{text}` is not a size, for instance 16GiB"))?;
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        other => return Err(format!("`{other}` is not a unit: KiB, MiB, GiB, TiB")),
    };
    #[allow(clippy::cast_precision_loss)]
    let value = number * factor as f64;
    if !(1.0..=1e18).contains(&value) {
        return Err(format!("`{text}` is out of range"));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Ok(value as u64)
}

/// Thousandths of a core from `8`, `7.5` or `7500m`.
///
/// # Errors
/// A sentence on what is wrong.
pub fn cores(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not a number of cores, for instance 8, 7.5 or 7500m");
    let milli = if let Some(milli) = text.strip_suffix('m') {
        milli.parse::<u64>().map_err(|_| wrong())?
    } else {
        let value: f64 = text.parse().map_err(|_| wrong())?;
        if !(0.001..=1e6).contains(&value) {
            return Err(wrong());
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let milli = (value * 1000.0).round() as u64;
        milli
    };
    if milli == 0 || milli > 1_000_000_000 {
        return Err(wrong());
    }
    Ok(milli)
}

/// A span of time above zero, for instance `60s`, `5m`, `1h 30m`; a plain number is seconds.
///
/// # Errors
/// A sentence on what is wrong.
pub fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let parsed = match text.parse::<u64>() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => humantime::parse_duration(text),
    };
    match parsed {
        Ok(d) if !d.is_zero() && d <= Duration::from_secs(100 * 366 * 86_400) => Ok(d),
        Ok(_) => Err(format!("`{text}` is out of range")),
        Err(e) => Err(format!("`{text}` is not a duration such as 30s, 5m or 2h: {e}")),
    }
}

/// A point in time: RFC 3339, or a span from `now` in the direction of `sign` (1: ahead, -1: back). Milliseconds since
/// 1970.
///
/// # Errors
/// A sentence on what is wrong.
pub fn instant(text: &str, now_ms: i64, sign: i64) -> Result<i64, String> {
    if let Ok(span) = duration(text) {
        let ms = i64::try_from(span.as_millis()).map_err(|_| format!("`{text}` is out of range"))?;
        return Ok(now_ms + sign * ms);
    }
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(at.as_millisecond());
    }
    // A time without a zone is this machine's time.
    match text
        .parse::<jiff::civil::DateTime>()
        .and_then(|at| at.to_zoned(jiff::tz::TimeZone::system()))
    {
        Ok(at) => Ok(at.timestamp().as_millisecond()),
        Err(_) => Err(format!(
            "`{text}` is neither a duration (2h) nor a time (2026-01-31T18:00:00Z)"
        )),
    }
}

/// The clock of this machine, milliseconds since 1970.
pub fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule() {
        for good in ["n1", "a", "web-01", &"a".repeat(63)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "1n", "N1", "n_1", "n1-", "-n", &"a".repeat(64), "n1.x", "ä"] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[test]
    fn addresses_get_their_port() {
        assert_eq!(address("10.0.0.1", 7400).unwrap(), "10.0.0.1:7400");
        assert_eq!(address("host.example:1", 7400).unwrap(), "host.example:1");
        assert_eq!(address("[::1]", 7400).unwrap(), "[::1]:7400");
        assert_eq!(address("[::1]:9", 7400).unwrap(), "[::1]:9");
        for bad in ["", ":1", "::1", "h:0", "h:65536", "h:x", "[::1", "a b"] {
            assert!(address(bad, 7400).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_and_cores() {
        assert_eq!(bytes("16GiB").unwrap(), 16 << 30);
        assert_eq!(bytes("1.5 GiB").unwrap(), 3 << 29);
        assert_eq!(bytes("10GB").unwrap(), 10_000_000_000);
        assert!(bytes("x").is_err() && bytes("-1").is_err() && bytes("0").is_err() && bytes("1PiB").is_err());
        assert_eq!(cores("7.5").unwrap(), 7500);
        assert_eq!(cores("250m").unwrap(), 250);
        assert!(cores("0").is_err() && cores("x").is_err() && cores("NaN").is_err());
    }

    #[test]
    fn labels() {
        assert_eq!(
            label_change("zone=a").unwrap(),
            LabelChange::Set("zone".into(), "a".into())
        );
        assert_eq!(label_change("zone-").unwrap(), LabelChange::Remove("zone".into()));
        for bad in ["zone", "=a", "-", "zo ne=a", "zone=a b"] {
            assert!(label_change(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(instant("2h", 10_000_000, 1).unwrap(), 17_200_000);
        assert_eq!(instant("1s", 10_000, -1).unwrap(), 9_000);
        assert_eq!(instant("1970-01-01T00:00:01Z", 0, 1).unwrap(), 1000);
        assert!(instant("soon", 0, 1).is_err());
        assert!(duration("0s").is_err());
        assert_eq!(duration("60").unwrap(), Duration::from_secs(60));
    }
}
