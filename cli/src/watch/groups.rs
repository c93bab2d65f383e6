//! Database groups as the stream tells of them, and the last minute of how far each standby was behind.

use std::collections::{BTreeMap, VecDeque};

use ha_proto::v1::{Group, Instance, InstanceState};

use super::cluster::SAMPLES;

/// From this age on a report says how it was, not how it is.
const OLD_MS: i64 = 3_000;
/// Bits of the lag that fills a sparkline: a tebibyte.
const FULL_BITS: u32 = 40;

/// The last minute of a standby's lag, in hundredths of a scale on which each step is twice the one before: a few kilobytes
/// and a few gigabytes both show.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lag(VecDeque<Option<u8>>);

impl Lag {
    fn push(&mut self, sample: Option<u8>) {
        if self.0.len() >= SAMPLES {
            self.0.pop_front();
        }
        self.0.push_back(sample);
    }

    /// The samples, oldest first.
    pub(crate) fn samples(&self) -> impl DoubleEndedIterator<Item = Option<u8>> {
        self.0.iter().copied()
    }
}

fn scaled(bytes: u64) -> u8 {
    let bits = (u64::BITS - bytes.leading_zeros()).min(FULL_BITS);
    u8::try_from(bits * 100 / FULL_BITS).unwrap_or(100)
}

/// A group and what is remembered of it.
#[derive(Debug, Clone)]
pub(crate) struct GroupRow {
    /// The group as last told.
    pub(crate) group: Group,
    /// By node.
    pub(crate) lag: BTreeMap<String, Lag>,
}

impl GroupRow {
    /// A group that was never seen before, or what is new of one that was.
    pub(crate) fn of(group: Group, before: Option<Self>) -> Self {
        let mut lag = before.map(|row| row.lag).unwrap_or_default();
        lag.retain(|node, _| group.instances.iter().any(|i| i.node == *node));
        Self { group, lag }
    }

    /// Takes a sample of every standby, `gaps` seconds after the last one.
    pub(crate) fn sample(&mut self, server_ms: i64, gaps: i64) {
        for instance in &self.group.instances {
            let lag = self.lag.entry(instance.node.clone()).or_default();
            for _ in 0..gaps {
                lag.push(None);
            }
            let behind = instance.behind_bytes.filter(|_| fresh(instance, server_ms));
            lag.push(behind.map(scaled));
        }
    }

    /// The instance of this node.
    pub(crate) fn instance(&self, node: &str) -> Option<&Instance> {
        self.group.instances.iter().find(|i| i.node == node)
    }

    /// The primary by the record; empty where there is none.
    pub(crate) fn primary(&self) -> &str {
        self.group.record.as_ref().map_or("", |r| r.primary.as_str())
    }

    /// Whether nothing is done by itself.
    pub(crate) fn paused(&self) -> bool {
        let pause = self.group.spec.as_ref().and_then(|s| s.pause.as_ref());
        pause.is_some_and(|p| p.on)
    }
}

/// Whether an instance's report was young when the last frame came. While the stream is lost this stays as it was: the
/// frame that is shown is what is old then.
pub(crate) fn fresh(instance: &Instance, server_ms: i64) -> bool {
    instance.reported_unix_ms > 0 && server_ms.saturating_sub(instance.reported_unix_ms) < OLD_MS
}

/// What an instance is, in a word: a primary that takes writes is `primary`, everything else what it does.
pub(crate) fn word(instance: &Instance) -> &'static str {
    match (instance.state(), instance.reported_primary) {
        (InstanceState::Running, true) => "primary",
        (state, _) => state.word(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_lags_both_show() {
        let scale: Vec<u8> = [0, 1, 8 << 10, 16 << 20, 1 << 30, 1 << 40, u64::MAX]
            .map(scaled)
            .to_vec();
        assert_eq!(scale, [0, 2, 35, 62, 77, 100, 100]);
    }
}
