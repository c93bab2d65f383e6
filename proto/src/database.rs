//! The words of database groups, as they are shown, typed and written in documents, and how a log position is written.

use crate::v1;

/// A log position as PostgreSQL writes it: `0/5A1F0380`.
pub fn lsn(position: u64) -> String {
    format!("{:X}/{:08X}", position >> 32, position & 0xffff_ffff)
}

/// The log position in `text`, if it is one.
pub fn parse_lsn(text: &str) -> Option<u64> {
    let half = |part: &str| {
        let hex = (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit());
        hex.then(|| u64::from_str_radix(part, 16).ok()).flatten()
    };
    let (high, low) = text.split_once('/')?;
    Some((half(high)? << 32) | half(low)?)
}

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($value:ident = $word:literal),* $(,)? })*) => {$(
        impl v1::$name {
            $(#[$doc])*
            pub fn word(self) -> &'static str {
                match self {
                    $(Self::$value => $word,)*
                }
            }

            /// The value that `word` names.
            pub fn from_word(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$value),)*
                    _ => None,
                }
            }
        }
    )*};
}

words! {
    /// What is promised of a commit, in a word.
    Durability {
        Unspecified = "unknown",
        Quorum = "quorum",
        QuorumStrict = "quorum-strict",
        Async = "async",
    }
    /// What an operator assigned, in a word.
    InstanceRole {
        Unspecified = "unknown",
        Primary = "primary",
        Sync = "sync",
        Async = "async",
        None = "none",
    }
    /// The group's phase, in a word.
    GroupPhase {
        Unspecified = "unknown",
        New = "new",
        Steady = "steady",
        Switching = "switching",
        Electing = "electing",
        Promoting = "promoting",
        Bootstrapping = "bootstrapping",
    }
    /// The group's health, in a word.
    GroupHealth {
        Unspecified = "unknown",
        Healthy = "healthy",
        Degraded = "degraded",
        NoPrimary = "no-primary",
    }
    /// What the instance does, in a word.
    InstanceState {
        Unspecified = "unknown",
        Empty = "empty",
        Stopped = "stopped",
        Starting = "starting",
        Running = "running",
        Closed = "closed",
        Streaming = "streaming",
        CatchingUp = "catching-up",
        Disconnected = "disconnected",
        Sealed = "sealed",
        Promoting = "promoting",
        Rewinding = "rewinding",
        Copying = "copying",
        Initialising = "initialising",
        Stopping = "stopping",
        Failed = "failed",
    }
    /// How commits wait for the instance, in a word.
    SyncState {
        Unspecified = "-",
        Async = "async",
        Potential = "potential",
        Sync = "sync",
        Quorum = "quorum",
    }
    /// What kind of change of primary it was, in a word.
    PrimaryChange {
        Unspecified = "unknown",
        Bootstrap = "bootstrap",
        Failover = "failover",
        Switchover = "switchover",
        Restart = "restart",
        Aborted = "aborted",
        Forced = "forced",
    }
    /// What the data directory is, in a word.
    DirectoryState {
        Unspecified = "unknown",
        Empty = "empty",
        Present = "present",
        Incomplete = "incomplete",
    }
    /// What the server does, in a word.
    ServerState {
        Unspecified = "unknown",
        Stopped = "stopped",
        Starting = "starting",
        Running = "running",
        Stopping = "stopping",
        Orphaned = "orphaned",
    }
    /// What the agent is busy with, in a word.
    InstanceTask {
        Unspecified = "nothing",
        Create = "create",
        Start = "start",
        Promote = "promote",
        Rewind = "rewind",
        Copy = "copy",
        Stop = "stop",
    }
}

impl v1::GroupRecord {
    /// The rule that PostgreSQL is being given, if there is one.
    pub fn rule(&self) -> Option<&v1::DurabilityRule> {
        self.rules.iter().find(|rule| rule.id == self.applying)
    }
}

impl v1::DurabilityRule {
    /// The rule for people: `ANY 1 of (n2, n3)`, or `no standby` where none is waited for.
    pub fn text(&self) -> String {
        match self.need {
            0 => "no standby".to_owned(),
            need => format!("ANY {need} of ({})", self.voters.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_written_as_postgresql_does() {
        assert_eq!(lsn(0x5A1F_0380), "0/5A1F0380");
        assert_eq!(lsn(0x1F_0000_0001), "1F/00000001");
        for position in [0, 1, 0xffff_ffff, 0x1_0000_0000, u64::MAX] {
            assert_eq!(parse_lsn(&lsn(position)), Some(position));
        }
        for bad in ["", "/", "0/", "x/1", "+1/1", "1", "123456789/0"] {
            assert_eq!(parse_lsn(bad), None, "{bad}");
        }
    }

    #[test]
    fn words_name_one_value_each() {
        for value in 0..=15 {
            let state = v1::InstanceState::try_from(value).unwrap();
            assert_eq!(v1::InstanceState::from_word(state.word()), Some(state));
        }
        assert_eq!(
            v1::Durability::from_word("quorum-strict"),
            Some(v1::Durability::QuorumStrict)
        );
        assert_eq!(v1::InstanceRole::from_word("standby"), None);
    }
}
