//! What is in the way of serving, and how a refusal is told (RFC 9457).

use serde::{Deserialize, Serialize};

/// The answer to `GET /readyz`; 503 where something is in the way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// What was looked at.
    pub checks: Vec<ReadinessCheck>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadinessCheck {
    /// What: `journal`, `store`, `policy`, `issuer:corp`, `server:git`.
    pub name: String,
    /// Whether it is well.
    pub well: bool,
    /// Whether the gateway can serve without it.
    pub optional: bool,
    /// What is wrong.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl Readiness {
    /// Whether everything that is needed is well.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.checks.iter().all(|check| check.well || check.optional)
    }
}

/// What is answered where something went wrong: problem details (RFC 9457) with a stable code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Nothing beyond the code, which says what kind it is.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// What the status means.
    #[serde(default)]
    pub title: String,
    /// The status.
    #[serde(default)]
    pub status: u16,
    /// The stable code.
    pub reason: String,
    /// What happened.
    pub detail: String,
}
