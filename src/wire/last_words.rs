//! Why a client cancels a request, on its way to whoever tells the upstream that nobody waits any more.
//!
//! Decides how much of it goes on: its reason, in so many bytes, and nothing else. Knows nothing of sessions. Invariant:
//! what was said first counts, and it is said before the end of the request is recorded or never.

use std::sync::{Arc, OnceLock};

use super::Message;
use crate::limit;

/// The place where a client's last words about one request are left.
#[derive(Debug, Clone, Default)]
pub struct LastWords(Arc<OnceLock<Option<Box<str>>>>);

impl LastWords {
    /// Leaves the `reason` of `notifications/cancelled`, without control characters and cut to
    /// [`limit::CANCEL_REASON_BYTES_MAX`].
    pub fn say(&self, reason: &str) {
        let harmless = |character: char| if character.is_control() { '\u{fffd}' } else { character };
        let mut kept = String::new();
        for character in reason.chars().map(harmless) {
            if kept.len() + character.len_utf8() > limit::CANCEL_REASON_BYTES_MAX {
                break;
            }
            kept.push(character);
        }
        let _first_counts = self.0.set(Some(kept.into_boxed_str()));
    }

    /// What was said until now; nothing can be said from here on.
    #[must_use]
    pub fn end(&self) -> Option<&str> {
        self.0.get_or_init(|| None).as_deref()
    }
}

/// `notifications/cancelled` for the request of that id: with its client's reason, where it has left one.
#[must_use]
pub fn cancelled(id: i64, words: Option<&LastWords>) -> Message {
    let said = words.and_then(|words| words.0.get()).and_then(|said| said.as_deref());
    let params = serde_json::json!({ "requestId": id, "reason": said.unwrap_or("nobody waits for it any more") });
    Message::notification("notifications/cancelled", Some(&super::Json::of(&params)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(words: Option<&LastWords>) -> serde_json::Value {
        let message: serde_json::Value = serde_json::from_slice(cancelled(7, words).as_bytes()).unwrap();
        assert_eq!(message["method"], "notifications/cancelled");
        message["params"].clone()
    }

    fn with(reason: &str) -> serde_json::Value {
        serde_json::json!({ "requestId": 7, "reason": reason })
    }

    #[test]
    fn a_request_is_cancelled_with_the_first_reason_of_its_client_and_under_our_id() {
        let words = LastWords::default();
        let plain = with("nobody waits for it any more");
        assert_eq!((told(None), told(Some(&words))), (plain.clone(), plain));
        words.say("enough");
        words.say("another");
        assert_eq!((told(Some(&words)), words.end()), (with("enough"), Some("enough")));
    }

    #[test]
    fn of_a_reason_so_many_bytes_go_on_and_no_control_character() {
        let words = LastWords::default();
        words.say(&format!("a\r\n\u{7}{}", "é".repeat(limit::CANCEL_REASON_BYTES_MAX)));
        let said = words.end().unwrap();
        assert!(said.starts_with("a\u{fffd}\u{fffd}\u{fffd}é") && said.len() <= limit::CANCEL_REASON_BYTES_MAX);
        assert!(said.len() > limit::CANCEL_REASON_BYTES_MAX - 2, "as much as fits");
        assert_eq!(told(Some(&words)), with(said));
    }

    #[test]
    fn nothing_is_said_once_the_end_is_on_the_record() {
        let words = LastWords::default();
        assert_eq!(words.end(), None);
        words.say("too late");
        assert_eq!((words.end(), told(Some(&words))), (None, with("nobody waits for it any more")));
    }
}
