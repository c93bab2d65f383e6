//! Sizes, spans and moments in words. Pure.

use jiff::tz::TimeZone;

/// A moment as RFC 3339 in UTC; empty for 0, which stands for never.
pub fn rfc3339(unix_ms: i64) -> String {
    if unix_ms == 0 {
        return String::new();
    }
    jiff::Timestamp::from_millisecond(unix_ms)
        .map(|t| t.to_string())
        .unwrap_or_default()
}

/// As [`rfc3339`], `None` for never: `null` in JSON.
pub fn moment(unix_ms: i64) -> Option<String> {
    Some(rfc3339(unix_ms)).filter(|text| !text.is_empty())
}

/// A moment in this machine's time zone, to the second; `-` for never.
pub fn local(unix_ms: i64) -> String {
    in_zone(unix_ms, TimeZone::system())
}

fn in_zone(unix_ms: i64, zone: TimeZone) -> String {
    match jiff::Timestamp::from_millisecond(unix_ms) {
        Ok(at) if unix_ms != 0 => at.to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        _ => "-".into(),
    }
}

/// A span in its two largest units: `2m 11s`, `3d 4h`, `0.4s`.
pub fn span(ms: i64) -> String {
    let ms = ms.unsigned_abs();
    let (s, m, h, d) = (ms / 1000, ms / 60_000, ms / 3_600_000, ms / 86_400_000);
    let two = |a: u64, x: &str, b: u64, y: &str| {
        if b == 0 {
            format!("{a}{x}")
        } else {
            format!("{a}{x} {b}{y}")
        }
    };
    match () {
        () if s < 10 && ms % 1000 >= 100 => format!("{s}.{}s", ms % 1000 / 100),
        () if m == 0 => format!("{s}s"),
        () if h == 0 => two(m, "m", s % 60, "s"),
        () if d == 0 => two(h, "h", m % 60, "m"),
        () if d < 366 => two(d, "d", h % 24, "h"),
        () => two(d / 365, "y", d % 365, "d"),
    }
}

/// How long something took: `0.19 s` below ten seconds, then as [`span`].
pub fn took(ms: i64) -> String {
    match ms.max(0) {
        ms @ 0..10_000 => format!("{}.{:02} s", ms / 1000, ms % 1000 / 10),
        ms => span(ms),
    }
}

/// How long ago a moment was: `now` within two seconds, `2m 11s ago`, `-` for never.
pub fn ago(unix_ms: i64, now_ms: i64) -> String {
    match now_ms - unix_ms {
        _ if unix_ms == 0 => "-".into(),
        age if age.abs() < 2_000 => "now".into(),
        age if age < 0 => format!("in {}", span(-age / 1000 * 1000)),
        age => format!("{} ago", span(age / 1000 * 1000)),
    }
}

/// How long something has been so: `3d 4h`, `0s`; empty where that is not known.
pub fn since(unix_ms: i64, now_ms: i64) -> String {
    match unix_ms {
        0 => String::new(),
        at => span((now_ms - at).max(0) / 1000 * 1000),
    }
}

/// How long it is until a moment: `in 3d 4h`, `2m ago`, `-` for never.
pub fn until(unix_ms: i64, now_ms: i64) -> String {
    ago(unix_ms, now_ms)
}

const STEPS: [(u64, &str); 5] = [
    (1 << 40, "TiB"),
    (1 << 30, "GiB"),
    (1 << 20, "MiB"),
    (1 << 10, "KiB"),
    (1, "B"),
];

fn step(bytes: u64) -> (u64, &'static str) {
    STEPS.into_iter().find(|(size, _)| bytes >= *size).unwrap_or((1, "B"))
}

#[allow(clippy::cast_precision_loss)]
fn in_step(bytes: u64, size: u64) -> String {
    let value = bytes as f64 / size as f64;
    if size == 1 || value >= 99.95 || (value.fract() < 0.05 && value >= 1.0) {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    }
}

/// A size: `3.1 GiB`.
pub fn bytes(bytes: u64) -> String {
    let (size, unit) = step(bytes);
    format!("{} {unit}", in_step(bytes, size))
}

/// A part of a size in the unit of the whole: `3.1 of 16 GiB`; `-` where the whole is not known.
pub fn bytes_of(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".into();
    }
    let (size, unit) = step(whole);
    format!("{} of {} {unit}", in_step(part, size), in_step(whole, size))
}

/// Cores: `8`, `7.5`.
pub fn cores(milli: u64) -> String {
    if milli.is_multiple_of(1000) {
        return format!("{}", milli / 1000);
    }
    let text = format!("{}.{:03}", milli / 1000, milli % 1000);
    text.trim_end_matches('0').to_owned()
}

/// A part of some cores in percent: `12% of 8`; `-` where the whole is not known.
pub fn cores_of(part_milli: u64, whole_milli: u64) -> String {
    if whole_milli == 0 {
        return "-".into();
    }
    format!(
        "{:>2}% of {}",
        part_milli.saturating_mul(100) / whole_milli,
        cores(whole_milli)
    )
}

/// `1 node`, `2 nodes`.
pub fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        for (ms, text) in [
            (0, "0s"),
            (400, "0.4s"),
            (9_950, "9.9s"),
            (12_400, "12s"),
            (131_000, "2m 11s"),
            (120_000, "2m"),
            (3 * 86_400_000 + 4 * 3_600_000, "3d 4h"),
            (400 * 86_400_000, "1y 35d"),
        ] {
            assert_eq!(span(ms), text);
        }
    }

    #[test]
    fn durations() {
        assert_eq!(took(190), "0.19 s");
        assert_eq!(took(9_999), "9.99 s");
        assert_eq!(took(30_000), "30s");
    }

    #[test]
    fn ages() {
        assert_eq!(ago(0, 5_000), "-");
        assert_eq!(ago(4_000, 5_000), "now");
        assert_eq!(ago(1_000, 132_500), "2m 11s ago");
        assert_eq!(until(65_000, 5_000), "in 1m");
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(16 << 30), "16 GiB");
        assert_eq!(bytes_of(3_328_599_654, 16 << 30), "3.1 of 16 GiB");
        assert_eq!(bytes_of(1 << 20, 16 << 30), "0.0 of 16 GiB");
        assert_eq!(bytes_of(1, 0), "-");
        assert_eq!(cores_of(960, 8000), "12% of 8");
        assert_eq!(cores_of(320, 8000), " 4% of 8");
        assert_eq!(cores(7_500), "7.5");
    }

    #[test]
    fn moments() {
        assert_eq!(rfc3339(1_763_826_000_123), "2025-11-22T15:40:00.123Z");
        assert_eq!(moment(0), None);
        assert_eq!(in_zone(1_763_826_000_123, TimeZone::UTC), "2025-11-22 15:40:00");
    }
}
