//! Why a request is refused: a code that `hactl explain` knows, what failed, why, and what to type next.

/// A refused request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// Its stable code, for instance `HA0301`.
    pub code: &'static str,
    /// What failed.
    pub message: String,
    /// Why, most telling first.
    pub why: Vec<String>,
    /// What to type next.
    pub next: Vec<String>,
}

impl Refusal {
    /// A refusal with this code.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            why: Vec::new(),
            next: Vec::new(),
        }
    }

    /// Adds a reason.
    #[must_use]
    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.why.push(why.into());
        self
    }

    /// Adds something to do.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next.push(next.into());
        self
    }
}
