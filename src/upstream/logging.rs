//! Log messages of upstreams: asked for only where a client asked, and passed on only to who asked.
//!
//! Decides which messages one request wants. Knows no transport. Invariant: a request that named no level gets none,
//! whatever its upstream says.

use std::sync::atomic::{AtomicU8, Ordering};

use super::answer::member;
use crate::wire::mcp::{LogLevel, meta};
use crate::wire::{Json, Message, Value};

/// The level of one legacy session or process, which has one for all of its requests.
#[derive(Debug)]
pub(super) struct SessionLevel(AtomicU8);

const UNSET: u8 = u8::MAX;

impl SessionLevel {
    /// Nothing was asked of it yet.
    pub(super) const fn new() -> Self {
        Self(AtomicU8::new(UNSET))
    }

    /// Whether the session must be told of this level: it is lower than all that were asked for before. A level is
    /// never raised again, because another request may still want what is below; each gets what it asked for.
    pub(super) fn lower(&self, wanted: LogLevel) -> bool {
        self.0.fetch_min(wanted as u8, Ordering::AcqRel) > wanted as u8
    }
}

/// From which level on a request wants messages.
pub(super) fn wanted(params: &Json) -> Option<LogLevel> {
    let level = member(params.value().as_object(), "_meta", meta::LOG_LEVEL)?;
    LogLevel::parse(&level.as_str()?)
}

/// Whether a request with these parameters wants this message.
pub(super) fn passes(params: &Json, message: &Message) -> bool {
    let Some(wanted) = wanted(params) else { return false };
    let level = message.params().and_then(|params| params.get("level")).and_then(Value::as_str);
    // A level that nobody knows is not below any.
    level.and_then(|level| LogLevel::parse(&level)).is_none_or(|level| level >= wanted)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn message(level: &str) -> Message {
        let params = Json::of(&json!({ "level": level, "data": 1 }));
        Message::notification("notifications/message", Some(&params))
    }

    #[test]
    fn a_request_gets_what_it_asked_for_and_nothing_where_it_did_not() {
        let asked = Json::of(&json!({ "_meta": { meta::LOG_LEVEL: "notice" } }));
        for (level, heard) in [("debug", false), ("info", false), ("notice", true), ("emergency", true), ("odd", true)]
        {
            assert_eq!(passes(&asked, &message(level)), heard, "{level}");
        }
        for silent in [json!({}), json!({ "_meta": {} }), json!({ "_meta": { meta::LOG_LEVEL: "loud" } })] {
            assert!(!passes(&Json::of(&silent), &message("emergency")), "{silent}");
        }
    }

    #[test]
    fn a_session_is_told_only_of_levels_below_all_before() {
        let level = SessionLevel::new();
        assert!(level.lower(LogLevel::Error));
        assert!(!level.lower(LogLevel::Error) && !level.lower(LogLevel::Alert));
        assert!(level.lower(LogLevel::Debug));
        assert!(!level.lower(LogLevel::Info));
    }
}
