//! One message in is exactly one line and exactly one SSE event out, and it means what it meant.
//!
//! Holds for bytes from either side. `serde_json` is the second opinion on what is JSON.

use bailiwick::wire::{Kind, Message, Source, WireError, sse};
use serde::de::IgnoredAny;
use serde_json::Value;

/// Panics where something that must hold does not.
pub fn check(data: &[u8]) {
    for source in [Source::Client, Source::Upstream] {
        match Message::parse(data, source) {
            Ok(message) => accepted(data, &message, source),
            Err(error) => refused(data, &error),
        }
    }
}

fn accepted(data: &[u8], message: &Message, source: Source) {
    let bytes = message.as_bytes();
    assert!(!bytes.iter().any(|byte| matches!(byte, b'\r' | b'\n')), "a message holds a line break");
    assert_eq!(bytes.len(), data.len(), "line breaks are replaced, nothing is added or lost");

    let again = Message::parse(&bytes[..], source).expect("what was accepted is accepted again");
    assert_eq!(again.as_bytes(), bytes);

    let mut events = Vec::new();
    let mut reader = sse::Reader::new(bytes.len() + 1_000);
    reader.push(&sse::event(message, Some("1")), &mut |event| events.push(event)).expect("it fits");
    assert_eq!(events.len(), 1, "one message is one event");
    assert_eq!(events[0].data, bytes[..]);

    if let Err(error) = serde_json::from_slice::<IgnoredAny>(data) {
        assert!(beyond_serde(&error), "accepted, though it is not JSON: {error}");
        return;
    }
    // Half surrogates in what an upstream says, and numbers that no float holds, have no `Value`.
    let (Ok(before), Ok(after)) = (serde_json::from_slice::<Value>(data), serde_json::from_slice::<Value>(bytes))
    else {
        return;
    };
    assert_eq!(before, after, "the meaning changed");
    let object = after.as_object().expect("a message is an object");
    assert_eq!(object["jsonrpc"], "2.0");
    assert_eq!(message.method(), object.get("method").and_then(Value::as_str).unwrap_or_default());
    let body = match message.kind() {
        Kind::Request | Kind::Notification => object.get("params"),
        Kind::Result => object.get("result"),
        Kind::Error => object.get("error"),
    };
    let own = message.body().map(|body| serde_json::from_str::<Value>(body.as_str()).expect("a part of it is JSON"));
    assert_eq!(own.as_ref(), body);
    let id = message.id().map(|id| serde_json::from_str::<Value>(id.as_str()).expect("an id is JSON"));
    assert_eq!(id.as_ref(), object.get("id").filter(|id| !id.is_null()));
}

fn refused(data: &[u8], error: &WireError) {
    if matches!(error, WireError::Syntax { .. } | WireError::Encoding { .. }) {
        assert!(serde_json::from_slice::<Value>(data).is_err(), "refused, though it is JSON: {error}");
    }
}

/// `serde_json` stops a little earlier in the depth.
fn beyond_serde(error: &serde_json::Error) -> bool {
    error.to_string().starts_with("recursion limit exceeded")
}
