//! One JSON-RPC 2.0 message: the envelope read once, everything else left as it was sent.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;

use super::scan::{self, Source, WireError};
use super::value::{Json, Object, Span, Value};

/// One JSON-RPC 2.0 message. Transports accept nothing else.
#[derive(Clone)]
pub struct Message {
    text: ByteString,
    kind: Kind,
    id: Option<Range<usize>>,
    method: Option<Range<usize>>,
    /// `params` of a request, `result` or `error` of a response.
    body: Option<Range<usize>>,
    /// Where the members of the body stand, if they are not too many.
    members: Option<Arc<[Span]>>,
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A method and an id.
    Request,
    /// A method without an id.
    Notification,
    /// An id and a result.
    Result,
    /// An error, mostly with an id.
    Error,
}

impl Message {
    /// Reads one message: bounds, grammar, duplicate keys, and the JSON-RPC envelope.
    ///
    /// # Errors
    /// [`WireError`] says what is wrong and where.
    pub fn parse(bytes: impl Into<Vec<u8>>, source: Source) -> Result<Self, WireError> {
        let mut bytes = bytes.into();
        let members = scan::scan(&mut bytes, source)?;
        let text = scan::text(bytes)?;
        let whole: &str = &text;
        if !whole.trim_start().starts_with('{') {
            return Err(WireError::NotRpc("it is not an object"));
        }
        let (mut version, mut id, mut method, mut params, mut result, mut error) = (None, None, None, None, None, None);
        for (key, value) in &members.outer {
            let slot = match super::value::text(whole.get(key.clone()).unwrap_or_default()).as_ref() {
                "jsonrpc" => &mut version,
                "id" => &mut id,
                "method" => &mut method,
                "params" => &mut params,
                "result" => &mut result,
                "error" => &mut error,
                _ => continue,
            };
            *slot = Some(value.clone());
        }
        let at = |range: &Option<Range<usize>>| range.clone().and_then(|range| whole.get(range)).map(Value::new);
        if at(&version).and_then(Value::as_str).as_deref() != Some("2.0") {
            return Err(WireError::NotRpc("`jsonrpc` is not \"2.0\""));
        }
        if let Some(value) = at(&id) {
            let null_of_an_error = value.is_null() && error.is_some();
            if !(value.is_string() || value.as_i64().is_some() || null_of_an_error) {
                return Err(WireError::NotRpc("`id` is neither a string nor an integer"));
            }
            if null_of_an_error {
                id = None;
            }
        }
        let kind = match (&method, &id, &result, &error) {
            (Some(_), Some(_), None, None) => Kind::Request,
            (Some(_), None, None, None) => Kind::Notification,
            (None, Some(_), Some(_), None) => Kind::Result,
            (None, _, None, Some(_)) => Kind::Error,
            _ => return Err(WireError::NotRpc("it is neither a request, a notification nor a response")),
        };
        if at(&method).is_some_and(|method| !method.is_string()) {
            return Err(WireError::NotRpc("`method` is not a string"));
        }
        if at(&params).is_some_and(|params| params.as_object().is_none()) {
            return Err(WireError::NotRpc("`params` is not an object"));
        }
        if at(&error).is_some_and(|error| error.as_object().is_none()) {
            return Err(WireError::NotRpc("`error` is not an object"));
        }
        if at(&result).is_some_and(|result| result.as_object().is_none()) {
            return Err(WireError::NotRpc("`result` is not an object"));
        }
        let body = params.or(result).or(error);
        let members = body.as_ref().and_then(|body| members.inside(body));
        Ok(Self { kind, id, method, body, members, text })
    }

    /// A request of ours.
    #[must_use]
    pub fn request(id: &Json, method: &str, params: &Json) -> Self {
        Self::own(Kind::Request, Some(id), Some(method), "params", Some(params))
    }

    /// A notification of ours.
    #[must_use]
    pub fn notification(method: &str, params: Option<&Json>) -> Self {
        Self::own(Kind::Notification, None, Some(method), "params", params)
    }

    /// A response of ours.
    #[must_use]
    pub fn result(id: &Json, result: &Json) -> Self {
        Self::own(Kind::Result, Some(id), None, "result", Some(result))
    }

    /// An error response of ours; without an id where the request's could not be read.
    #[must_use]
    pub fn error(id: Option<&Json>, error: &Json) -> Self {
        Self::own(Kind::Error, id, None, "error", Some(error))
    }

    fn own(kind: Kind, id: Option<&Json>, method: Option<&str>, name: &str, body: Option<&Json>) -> Self {
        let length = body.map_or(0, |body| body.as_bytes().len()) + method.map_or(0, str::len) + 96;
        let mut text = String::with_capacity(length);
        text.push_str(r#"{"jsonrpc":"2.0""#);
        let mut part = |key: &str, value: &str| {
            text.push_str(",\"");
            text.push_str(key);
            text.push_str("\":");
            let start = text.len();
            text.push_str(value);
            start..text.len()
        };
        let id = id.map(|id| part("id", id.as_str()));
        let method = method.map(|method| part("method", Json::of(method).as_str()));
        let body = body.map(|body| part(name, body.as_str()));
        text.push('}');
        Self { text: text.into(), kind, id, method, body, members: None }
    }

    /// What it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The whole message: one line without its end.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        self.text.as_bytes()
    }

    /// The id, its type and spelling preserved.
    #[must_use]
    pub fn id(&self) -> Option<Json> {
        self.share(self.id.as_ref())
    }

    /// The id's text.
    #[must_use]
    pub fn id_value(&self) -> Option<Value<'_>> {
        self.view(self.id.as_ref())
    }

    /// The method; empty for a response.
    #[must_use]
    pub fn method(&self) -> Cow<'_, str> {
        self.view(self.method.as_ref()).and_then(Value::as_str).unwrap_or_default()
    }

    /// The parameters of a request or notification.
    #[must_use]
    pub fn params(&self) -> Option<Object<'_>> {
        matches!(self.kind, Kind::Request | Kind::Notification)
            .then(|| self.view(self.body.as_ref()))
            .flatten()
            .and_then(Value::as_object)
            .map(|params| params.indexed(self.members.as_deref()))
    }

    /// `params`, `result` or `error`; shares the memory of the message.
    #[must_use]
    pub fn body(&self) -> Option<Json> {
        self.share(self.body.as_ref())
    }

    /// Cuts a value out that was found by walking this message; shares its memory.
    #[must_use]
    pub fn cut(&self, part: Value<'_>) -> Json {
        Json::scanned(slice_of(&self.text, part.raw()))
    }

    fn view(&self, range: Option<&Range<usize>>) -> Option<Value<'_>> {
        Some(Value::new(self.text.get(range?.clone())?))
    }

    fn share(&self, range: Option<&Range<usize>>) -> Option<Json> {
        Some(Json::scanned(self.text.slice_ref(self.text.get(range?.clone())?)))
    }
}

impl fmt::Debug for Message {
    /// Never the content: messages carry what users say.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Message({:?} {} {} bytes)", self.kind, self.method(), self.text.len())
    }
}

/// The part of `whole` that `text` borrows from; a copy if it borrows from elsewhere.
pub(super) fn slice_of(whole: &ByteString, text: &str) -> ByteString {
    let outer = whole.as_ptr() as usize;
    let inner = text.as_ptr() as usize;
    match inner.checked_sub(outer) {
        Some(start) if start + text.len() <= whole.len() => whole.slice_ref(text),
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit;

    fn parse(text: &str) -> Result<Message, WireError> {
        Message::parse(text, Source::Client)
    }

    #[test]
    fn the_envelope_is_read_and_the_rest_left_alone() {
        let text = r#"{ "id" : "7", "x":1, "method":"tools/call","params":{"name":"a"},"jsonrpc":"2.0"}"#;
        let message = parse(text).unwrap();
        assert_eq!(message.kind(), Kind::Request);
        assert_eq!(message.id().unwrap().as_str(), "\"7\"");
        assert_eq!(message.method(), "tools/call");
        assert_eq!(message.params().unwrap().get("name").unwrap().as_str().unwrap(), "a");
        assert_eq!(message.as_bytes(), text.as_bytes());
    }

    /// The members that the scan has kept, and those that a walk finds.
    fn both(params: &str) -> [Vec<(String, String)>; 2] {
        let text = format!(
            "{{\"x\" : {{\"y\":1}},\n \"jsonrpc\":\"2.0\",\"method\":\"a\",\"params\":\r\n {params} ,\"z\":{{\"name\":0}}}}"
        );
        let message = parse(&text).unwrap();
        let walked = message.body().unwrap();
        let read = |object: Object<'_>| {
            object.members().map(|(name, value)| (name.into_owned(), value.raw().to_owned())).collect()
        };
        [read(message.params().unwrap()), read(walked.value().as_object().unwrap())]
    }

    #[test]
    fn the_members_whose_places_are_kept_are_those_that_a_walk_finds() {
        for params in [
            "{}",
            "{ }",
            r#"{"name":"a","arguments":{"name":"b","x":[{"name":1}]},"_meta":{}}"#,
            "{\"a\" :\n 1 , \"\\u0062\\\"\":\t[ {\"c\":\"}\"} ] ,\"d\":\"\\\\\"}",
        ] {
            let [kept, walked] = both(params);
            assert_eq!(kept, walked, "{params}");
        }
    }

    #[test]
    fn of_more_members_than_are_kept_each_is_found_all_the_same() {
        for count in [limit::JSON_MEMBERS_KEPT_MAX - 2, limit::JSON_MEMBERS_KEPT_MAX, 4 * limit::JSON_MEMBERS_KEPT_MAX]
        {
            let members: Vec<_> = (0..count).map(|number| format!("\"m{number}\":{number}")).collect();
            let [kept, walked] = both(&format!("{{{}}}", members.join(",")));
            assert_eq!(kept, walked);
            assert_eq!(kept.len(), count);
        }
    }

    #[test]
    fn what_is_not_one_rpc_message_is_refused() {
        for text in [
            "[]",
            "1",
            "{}",
            r#"{"jsonrpc":"1.0","method":"a"}"#,
            r#"{"jsonrpc":"2.0","id":null,"method":"a"}"#,
            r#"{"jsonrpc":"2.0","id":1.5,"method":"a"}"#,
            r#"{"jsonrpc":"2.0","id":[],"method":"a"}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":2}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"a","params":[]}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"a","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{}}"#,
            r#"{"jsonrpc":"2.0","result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":"x"}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":[]}"#,
        ] {
            assert!(matches!(parse(text), Err(WireError::NotRpc(_))), "{text}");
        }
        assert_eq!(parse(r#"{"jsonrpc":"2.0","id":null,"error":{}}"#).unwrap().kind(), Kind::Error);
    }

    #[test]
    fn a_message_of_ours_reads_back_as_itself() {
        let id = Json::of("x\"y");
        for message in [
            Message::request(&id, "a\nb", &Json::of(&serde_json::json!({"k": 1}))),
            Message::notification("n", None),
            Message::result(&id, &Json::of(&serde_json::json!({}))),
            Message::error(None, &Json::of(&serde_json::json!({"code": -32600, "message": "m"}))),
        ] {
            let back = parse(std::str::from_utf8(message.as_bytes()).unwrap()).unwrap();
            assert_eq!(back.kind(), message.kind());
            assert_eq!(back.id(), message.id());
            assert_eq!(back.method(), message.method());
            assert_eq!(back.body(), message.body());
        }
    }
}
