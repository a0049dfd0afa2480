//! The headers of a message that is sent over HTTP, read off its body.
//!
//! Invariant: a value that a header cannot carry as it is goes in its base64 form, so no message can add a
//! header of its own (2026-07-28, streamable HTTP, standard headers).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::wire::mcp::{Era, Method, header, meta};
use crate::wire::{Kind, Message, Value};

/// Whether a message is spoken in the modern era: only that has a version in `_meta`.
pub(super) fn is_modern(message: &Message) -> bool {
    version(message).is_some()
}

/// Adds what a modern message must carry in its headers.
pub(super) fn modern(message: &Message, headers: &mut HeaderMap) {
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(&encoded(value)) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    if let Some(version) = version(message) {
        set(header::PROTOCOL_VERSION, &version);
    }
    if message.kind() != Kind::Request {
        return;
    }
    let method = message.method();
    set(header::METHOD, &method);
    let parameter = Method::parse(&method, Era::Modern).and_then(Method::name_parameter);
    let name = parameter.and_then(|parameter| message.params()?.get(parameter)?.as_str());
    if let Some(name) = name {
        set(header::NAME, &name);
    }
}

fn version(message: &Message) -> Option<String> {
    let meta = message.params()?.get("_meta")?.as_object()?;
    meta.get(meta::PROTOCOL_VERSION).and_then(Value::as_str).map(Into::into)
}

/// A value as a header carries it.
pub(super) fn encoded(value: &str) -> String {
    let plain = value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
        && value.trim_matches(' ').len() == value.len()
        && !value.starts_with("=?base64?");
    if plain { value.to_owned() } else { format!("=?base64?{}?=", STANDARD.encode(value)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Source;

    #[test]
    fn headers_say_what_the_body_says() {
        let of = |name: &str| {
            let body = format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":{},"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}}}}"#,
                serde_json::to_string(name).unwrap()
            );
            let mut headers = HeaderMap::new();
            modern(&Message::parse(body, Source::Client).unwrap(), &mut headers);
            assert_eq!(headers["mcp-protocol-version"], "2026-07-28");
            assert_eq!(headers["mcp-method"], "tools/call");
            headers["mcp-name"].to_str().unwrap().to_owned()
        };
        assert_eq!(of("add"), "add");
        assert_eq!(of("grün"), "=?base64?Z3LDvG4=?=");
        assert_eq!(of("a\r\nx-evil: 1"), "=?base64?YQ0KeC1ldmlsOiAx?=");
        assert_eq!(of(" a"), "=?base64?IGE=?=");
        assert_eq!(of("=?base64?x?="), "=?base64?PT9iYXNlNjQ/eD89?=");
    }
}
