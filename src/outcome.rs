//! How a call ends, and the one table that says how each ending reaches a client.
//!
//! Decides which reasons exist and what a client of either era is told about each. Knows nothing of the
//! rooms that refuse or fail. Invariant: what is told about a hidden thing and about one that does not
//! exist is the same bytes.

use std::borrow::Cow;
use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use memchr::memmem::Finder;

use crate::ids::{Digest, ParkId};
use crate::wire::Json;

pub mod reason;
pub mod reply;

pub use reason::Reason;

/// A decision against the call: stable reason, the rule that decided, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The stable code.
    pub reason: Reason,
    /// The rule that decided, as `file:line`, where one did. For the record and `explain`, never for clients.
    pub rule: Option<String>,
    /// One lower-case sentence for the caller: what to do next. Never names what the caller may not see.
    pub hint: Cow<'static, str>,
    /// All scopes that this operation needs, where a step-up would help.
    pub scopes: Vec<String>,
    /// The client capabilities that it needs, where the client lacks them.
    pub capabilities: Option<Json>,
    /// What it waits for, where a person can still say yes.
    pub pending: Option<Box<Pending>>,
}

/// A call that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// The request for approval.
    pub approval: String,
    /// What that is good for.
    pub binding: Digest,
    /// What is missing.
    pub kind: PendingKind,
    /// Until when it waits.
    pub expires_at: jiff::Timestamp,
    /// Where people see how it stands.
    pub url: Option<String>,
}

/// What a call that waits is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PendingKind {
    /// Another person approves.
    Approve,
    /// Whoever calls confirms.
    Confirm,
}

impl Refusal {
    /// A refusal with the reason's own hint.
    #[must_use]
    pub fn new(reason: Reason) -> Self {
        Self {
            reason,
            rule: None,
            hint: Cow::Borrowed(reason.hint()),
            scopes: Vec::new(),
            capabilities: None,
            pending: None,
        }
    }

    /// Replaces the hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Names the capabilities that the client has to declare.
    #[must_use]
    pub fn needs(mut self, capabilities: Json) -> Self {
        self.capabilities = Some(capabilities);
        self
    }

    /// Says what it waits for.
    #[must_use]
    pub fn pending(mut self, pending: Pending) -> Self {
        self.pending = Some(Box::new(pending));
        self
    }

    /// Names the rule that decided.
    #[must_use]
    pub fn rule(mut self, rule: impl Into<String>) -> Self {
        self.rule = Some(rule.into());
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.reason, self.hint)
    }
}

/// Our trouble or the upstream's; it stops the call like a refusal, and alerts unlike one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The stable code.
    pub reason: Reason,
    /// What happened, for the record and the operational log; may name hosts, never secrets.
    pub detail: String,
    /// Whether the upstream may have acted: `false` only where nothing was sent.
    pub may_have_acted: bool,
}

impl Failure {
    /// A failure before anything was sent.
    #[must_use]
    pub fn before(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), may_have_acted: false }
    }

    /// A failure after something may have been sent.
    #[must_use]
    pub fn after(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), may_have_acted: true }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.reason, self.detail)
    }
}

/// Why a call stopped before it was forwarded: a decision or a trouble.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// A decision.
    Refused(Refusal),
    /// A trouble.
    Failed(Failure),
}

impl Stop {
    /// The stable code.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Refused(refusal) => refusal.reason,
            Self::Failed(failure) => failure.reason,
        }
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(formatter),
            Self::Failed(failure) => failure.fmt(formatter),
        }
    }
}

/// Whether a tool's result says that the tool failed. Large results that never say so are not walked; a server that spells
/// the name with escapes hides nothing from the record and the breaker.
#[must_use]
pub fn says_error(result: &Json) -> bool {
    static NAME: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"isError\""));
    let bytes = result.as_bytes();
    let may = NAME.find(bytes).is_some() || memchr::memmem::find(bytes, b"\\u").is_some();
    let said = || result.value().as_object()?.get("isError")?.as_bool();
    may && said().unwrap_or_default()
}

/// How one leg of a call ended. Every exchange has exactly one.
///
/// Results are in the modern shape (with `resultType`).
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The upstream answered; the result object.
    Complete(Json),
    /// Input is needed before there is an answer; the whole result object as the client will see it.
    InputRequired {
        /// Who asks.
        origin: Origin,
        /// The `input_required` result object.
        result: Json,
        /// How the call goes on.
        resume: Resume,
    },
    /// The upstream goes on as a task; the result object.
    Task(Json),
    /// The upstream answered with a JSON-RPC error; the error object.
    Error(Json),
    /// Refused by a decision of ours.
    Refused(Refusal),
    /// Failed.
    Failed(Failure),
}

impl From<Stop> for Outcome {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Refused(refusal) => Self::Refused(refusal),
            Stop::Failed(failure) => Self::Failed(failure),
        }
    }
}

impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// How a call goes on when its input is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Resume {
    /// The exchange that stays open meanwhile; `None` where the upstream keeps nothing open.
    pub parked: Option<ParkId>,
    /// How long the answer may take.
    pub within: Duration,
}

/// Who asks for input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The upstream server.
    Upstream,
    /// The gateway itself (a gate).
    Gateway,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Source;

    #[test]
    fn a_result_says_that_it_failed_however_it_spells_that_and_only_where_it_says_so_itself() {
        let says = |text: &str| says_error(&Json::parse(text, Source::Upstream).unwrap());
        assert!(says(r#"{"content":[],"isError":true}"#) && says(r#"{"is\u0045rror":true}"#));
        assert!(!says(r#"{"isError":false}"#) && !says("{}"));
        assert!(!says(
            r#"{"content":[{"type":"text","text":"\"isError\":true \u0045"}],"structuredContent":{"isError":true}}"#
        ));
    }
}
