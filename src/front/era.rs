//! Decides, for each request by itself, in which era it is spoken, and reads what a modern one says of itself.
//!
//! Invariant: the answer depends on this request alone, never on an earlier one of the connection.

use crate::call::ClientFacts;
use crate::outcome::{Reason, Refusal};
use crate::wire::mcp::{Era, LogLevel, Version, meta};
use crate::wire::{Message, Object, Value};

/// The keys of `_meta` that say how a request is to be read.
#[derive(Default, Clone, Copy)]
pub(super) struct Meta<'a> {
    pub(super) version: Option<Value<'a>>,
    capabilities: Option<Value<'a>>,
    info: Option<Value<'a>>,
    log_level: Option<Value<'a>>,
}

impl<'a> Meta<'a> {
    /// Reads `params._meta` in one walk.
    pub(super) fn read(params: Option<Object<'a>>) -> Self {
        let mut read = Self::default();
        let Some(object) = params.and_then(|params| params.get("_meta")).and_then(Value::as_object) else {
            return read;
        };
        for (key, value) in object.members() {
            match key.as_ref() {
                meta::PROTOCOL_VERSION => read.version = Some(value),
                meta::CLIENT_CAPABILITIES => read.capabilities = Some(value),
                meta::CLIENT_INFO => read.info = Some(value),
                meta::LOG_LEVEL => read.log_level = Some(value),
                _ => {}
            }
        }
        read
    }

    /// What the client says of itself.
    ///
    /// # Errors
    /// [`Reason::MetaInvalid`] when a required key is missing or one is of the wrong type.
    pub(super) fn facts(&self, message: &Message, version: Version) -> Result<ClientFacts, Refusal> {
        let capabilities = self.capabilities.filter(|value| value.as_object().is_some());
        let Some(capabilities) = capabilities else {
            return Err(Refusal::new(Reason::MetaInvalid).hint("send clientCapabilities in _meta, as an object"));
        };
        let known = |level: Value<'_>| level.as_str().is_some_and(|level| LogLevel::parse(&level).is_some());
        if self.log_level.is_some_and(|level| !known(level)) {
            return Err(Refusal::new(Reason::MetaInvalid).hint("send logLevel in _meta as one of the eight levels"));
        }
        Ok(ClientFacts {
            version,
            capabilities: message.cut(capabilities),
            // Self-reported and for display only: an odd one is left out instead of refused.
            info: self.info.filter(|value| value.as_object().is_some()).map(|value| message.cut(value)),
            log_level: self.log_level.map(|value| message.cut(value)),
        })
    }
}

/// In which era a message is spoken.
///
/// `_meta` with a protocol version is modern, whatever the version: only the stateless protocol has that
/// key. So is a version header of 2026-07-28 or later, except on an `initialize` without the key, which
/// some clients send after trying the stateless protocol.
pub(super) fn era(meta: &Meta<'_>, header: Option<&str>, method: &str) -> Era {
    if meta.version.is_some() || (method != "initialize" && header.is_some_and(is_modern)) {
        Era::Modern
    } else {
        Era::Legacy
    }
}

/// Whether a version header names the stateless protocol or something after it.
pub(super) fn is_modern(version: &str) -> bool {
    let bytes = version.as_bytes();
    let date = bytes.len() == 10
        && bytes
            .iter()
            .enumerate()
            .all(|(at, byte)| if at == 4 || at == 7 { *byte == b'-' } else { byte.is_ascii_digit() });
    date && version >= Version::V2026_07_28.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Source;

    fn spoken(body: &str, header: Option<&str>) -> Era {
        let message = Message::parse(body, Source::Client).unwrap();
        era(&Meta::read(message.params()), header, &message.method())
    }

    #[test]
    fn the_first_message_of_each_real_client_is_read_in_its_era() {
        let discover = r#"{"jsonrpc":"2.0","id":0,"method":"server/discover","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"}}}}"#;
        let initialize = |version: &str| {
            format!(
                r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"{version}","capabilities":{{}},"clientInfo":{{"name":"c","version":"1"}}}}}}"#
            )
        };
        let table = [
            ("Claude Code", discover.to_owned(), Some("2026-07-28"), Era::Modern),
            ("Claude Code, falling back", initialize("2025-11-25"), None, Era::Legacy),
            ("Codex", initialize("2025-06-18"), None, Era::Legacy),
            ("Gemini CLI", initialize("2025-06-18"), None, Era::Legacy),
            ("Gemini CLI, later", r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#.to_owned(), None, Era::Legacy),
            ("Inspector", initialize("2025-11-25"), None, Era::Legacy),
            ("fastmcp", discover.to_owned(), Some("2026-07-28"), Era::Modern),
            ("a client that asks for what initialize cannot give", initialize("2026-07-28"), None, Era::Legacy),
            ("a fallback that keeps its header", initialize("2025-11-25"), Some("2026-07-28"), Era::Legacy),
            (
                "an old header",
                r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#.to_owned(),
                Some("2025-11-25"),
                Era::Legacy,
            ),
            (
                "a modern header alone",
                r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#.to_owned(),
                Some("2026-07-28"),
                Era::Modern,
            ),
            (
                "a version to come",
                r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#.to_owned(),
                Some("2031-01-01"),
                Era::Modern,
            ),
            ("nonsense", r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#.to_owned(), Some("latest"), Era::Legacy),
        ];
        for (who, body, header, expected) in table {
            assert_eq!(spoken(&body, header), expected, "{who}");
        }
        let modern_initialize = discover.replace("server/discover", "initialize");
        assert_eq!(spoken(&modern_initialize, Some("2026-07-28")), Era::Modern);
    }

    #[test]
    fn a_required_key_that_is_missing_or_wrong_is_refused() {
        let facts = |meta: &str| {
            let body = format!(r#"{{"jsonrpc":"2.0","id":0,"method":"tools/list","params":{{"_meta":{meta}}}}}"#);
            let message = Message::parse(body, Source::Client).unwrap();
            Meta::read(message.params()).facts(&message, Version::V2026_07_28)
        };
        let good = facts(
            r#"{"io.modelcontextprotocol/clientCapabilities":{"x":1},"io.modelcontextprotocol/logLevel":"info"}"#,
        )
        .unwrap();
        assert_eq!(good.capabilities.as_str(), r#"{"x":1}"#);
        assert_eq!(good.log_level.unwrap().as_str(), "\"info\"");
        for bad in [
            "{}",
            r#"{"io.modelcontextprotocol/clientCapabilities":[]}"#,
            r#"{"io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/logLevel":7}"#,
        ] {
            assert_eq!(facts(bad).unwrap_err().reason, Reason::MetaInvalid, "{bad}");
        }
    }
}
