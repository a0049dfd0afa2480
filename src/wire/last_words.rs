//! Why a client cancels a request, on its way to whoever tells the upstream that nobody waits any more.
//!
//! Decides how much of it goes on: its reason, in so many bytes, and nothing else. Knows nothing of sessions. Invariant:
//! what was said first counts, and it is said before the end of a leg of the request is recorded, or never: while no leg
//! is open, because its client is asked, there is no end left that would tell it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Message;
use crate::limit;

/// The place where a client's last words about one request are left.
#[derive(Debug, Clone, Default)]
pub struct LastWords(Arc<Mutex<Words>>);

#[derive(Debug, Default)]
struct Words {
    said: Option<Arc<str>>,
    /// The end of the last leg is on the record, and no other one has begun since.
    ended: bool,
}

impl LastWords {
    /// A leg of the request is open: what is said from here on is on the line of its end.
    pub fn begin(&self) {
        self.lock().ended = false;
    }

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
        let mut words = self.lock();
        if !words.ended && words.said.is_none() {
            words.said = Some(kept.into());
        }
    }

    /// What was said until now; nothing can be said from here on, until another leg begins.
    #[must_use]
    pub fn end(&self) -> Option<Arc<str>> {
        let mut words = self.lock();
        words.ended = true;
        words.said.clone()
    }

    fn said(&self) -> Option<Arc<str>> {
        self.lock().said.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Words> {
        // Nothing in here can be left half done by a panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `notifications/cancelled` for the request of that id: with its client's reason, where it has left one.
#[must_use]
pub fn cancelled(id: i64, words: Option<&LastWords>) -> Message {
    let said = words.and_then(LastWords::said);
    let reason = said.as_deref().unwrap_or("nobody waits for it any more");
    let params = serde_json::json!({ "requestId": id, "reason": reason });
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
        assert_eq!((told(Some(&words)), words.end().as_deref()), (with("enough"), Some("enough")));
    }

    #[test]
    fn of_a_reason_so_many_bytes_go_on_and_no_control_character() {
        let words = LastWords::default();
        words.say(&format!("a\r\n\u{7}{}", "é".repeat(limit::CANCEL_REASON_BYTES_MAX)));
        let said = words.end().unwrap();
        assert!(said.starts_with("a\u{fffd}\u{fffd}\u{fffd}é") && said.len() <= limit::CANCEL_REASON_BYTES_MAX);
        assert!(said.len() > limit::CANCEL_REASON_BYTES_MAX - 2, "as much as fits");
        assert_eq!(told(Some(&words)), with(&said));
    }

    #[test]
    fn nothing_is_said_once_the_end_is_on_the_record() {
        let words = LastWords::default();
        assert_eq!(words.end(), None);
        words.say("too late");
        assert_eq!((words.end(), told(Some(&words))), (None, with("nobody waits for it any more")));
    }

    #[test]
    fn of_a_request_that_goes_on_it_is_said_while_a_leg_is_open_and_not_in_between() {
        let words = LastWords::default();
        words.begin();
        assert_eq!(words.end(), None, "its client is asked");
        words.say("in between");
        assert_eq!(told(Some(&words)), with("nobody waits for it any more"));
        words.begin();
        words.say("enough");
        assert_eq!((told(Some(&words)), words.end().as_deref()), (with("enough"), Some("enough")));
    }
}
