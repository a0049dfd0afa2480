//! What a client says when it cancels a request, on its way to whoever tells the upstream that nobody waits any more.
//!
//! Decides nothing. Knows nothing of sessions. Invariant: what was said first counts, and it is said before the request is
//! dropped or never.

use std::sync::{Arc, OnceLock};

use super::mcp::meta;
use super::{Edit, Json, Message, Object, Value, notification_without_own_keys};

/// The place where a client's last words about one request are left.
#[derive(Debug, Clone, Default)]
pub struct LastWords(Arc<OnceLock<Json>>);

impl LastWords {
    /// Leaves the parameters of `notifications/cancelled`.
    pub fn say(&self, params: Json) {
        let _first_counts = self.0.set(params);
    }
}

/// `notifications/cancelled` for the request of that id: in the words of its client, where it has left any.
#[must_use]
pub fn cancelled(id: i64, words: Option<&LastWords>) -> Message {
    let method = "notifications/cancelled";
    let said = words.and_then(|words| words.0.get()).and_then(|said| said.value().as_object());
    match said {
        Some(said) => notification_without_own_keys(Message::notification(method, Some(&of_ours(said, id)))),
        None => {
            let params = serde_json::json!({ "requestId": id, "reason": "nobody waits for it any more" });
            Message::notification(method, Some(&Json::of(&params)))
        }
    }
}

/// The same words about a request of ours. Our keys go, and so does what names a task by an id of ours.
fn of_ours(said: Object<'_>, id: i64) -> Json {
    let mut edits = vec![Edit::Set("requestId", Json::of(&id))];
    if let Some(own) = said.get("_meta").and_then(Value::as_object) {
        let gone = [Edit::Remove(meta::RELATED_TASK), Edit::RemovePrefix(meta::OWN_PREFIX)];
        edits.push(Edit::Set("_meta", own.edited(&gone)));
    }
    said.edited(&edits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Source;

    #[test]
    fn a_request_is_cancelled_in_its_clients_words_and_under_our_id() {
        let words = LastWords::default();
        let plain = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"reason":"nobody waits for it any more","requestId":7}}"#;
        let told = |words: Option<&LastWords>| {
            serde_json::from_slice::<serde_json::Value>(cancelled(7, words).as_bytes()).unwrap()
        };
        let plain: serde_json::Value = serde_json::from_str(plain).unwrap();
        assert_eq!((told(None), told(Some(&words))), (plain.clone(), plain));
        let said = |text: &str| Json::parse(text, Source::Client).unwrap();
        words
            .say(said(r#"{"odd":1.50,"requestId":"a","reason":"enough","_meta":{"x":1,"dev.bailiwick/mandate":"m"}}"#));
        words.say(said(r#"{"requestId":"a","reason":"another"}"#));
        assert_eq!(
            cancelled(7, Some(&words)).as_bytes(),
            r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"odd":1.50,"requestId":7,"reason":"enough","_meta":{"x":1}}}"#
        );
    }
}
