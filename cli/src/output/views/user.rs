//! A user: a person or program with a certificate, or a node's certificates.

use ha_proto::v1::User;
use serde::Serialize;

use crate::output::table::{Cell, Tone};
use crate::output::units;
use crate::output::{Column, View, col, wide};

/// A user, as hactl shows it.
#[derive(Debug, Clone, Serialize)]
pub struct UserView {
    name: String,
    spec: Spec,
    status: Status,
    #[serde(skip)]
    times: (i64, i64, i64),
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    kind: String,
    role: &'static str,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    state: &'static str,
    serials: Vec<String>,
    expires_at: Option<String>,
    created_at: Option<String>,
    revoked_at: Option<String>,
}

impl UserView {
    /// The user at `now`, which decides whether its certificate has expired.
    pub fn new(user: User, now: i64) -> Self {
        let role = user.role().word();
        let state = match () {
            () if user.revoked => "revoked",
            () if user.expires_unix_ms != 0 && user.expires_unix_ms < now => "expired",
            () => "valid",
        };
        Self {
            name: user.name,
            spec: Spec {
                kind: if user.kind.is_empty() { "user".into() } else { user.kind },
                role,
            },
            status: Status {
                state,
                serials: user.serials,
                expires_at: units::moment(user.expires_unix_ms),
                created_at: units::moment(user.created_unix_ms),
                revoked_at: units::moment(user.revoked_unix_ms),
            },
            times: (user.expires_unix_ms, user.created_unix_ms, user.revoked_unix_ms),
        }
    }

    /// Whether it is a person or program, and not a node.
    pub fn is_user(&self) -> bool {
        self.spec.kind == "user"
    }
}

impl View for UserView {
    const KIND: &'static str = "user";
    const COLUMNS: &'static [Column] = &[
        col("NAME"),
        wide("KIND"),
        col("ROLE"),
        col("STATE"),
        col("EXPIRES"),
        col("ADDED"),
        wide("SERIAL"),
    ];

    fn name(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, now: i64) -> Vec<Cell> {
        let (expires, created, revoked) = self.times;
        let state = match self.status.state {
            "revoked" if revoked != 0 => Cell::new(format!("revoked {}", units::ago(revoked, now))).tone(Tone::Bad),
            "valid" => Cell::new("valid").tone(Tone::Good),
            other => Cell::new(other).tone(Tone::Bad),
        };
        let soon = expires != 0 && expires - now < 14 * 86_400_000;
        vec![
            Cell::new(&self.name),
            Cell::new(&self.spec.kind),
            Cell::new(if self.is_user() { self.spec.role } else { "-" }),
            state,
            Cell::new(units::until(expires, now))
                .key(expires)
                .tone(if soon { Tone::Warning } else { Tone::Plain }),
            Cell::new(units::ago(created, now)).key(-created),
            Cell::new(self.status.serials.last().cloned().unwrap_or_default()),
        ]
    }
}
