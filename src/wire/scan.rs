//! The one pass over bytes from outside: JSON grammar, bounds, duplicate keys, escapes, line breaks.
//!
//! Decides whether bytes are one JSON value that every parser behind us reads alike. Invariant: after a
//! scan there is no CR or LF left, so no message can pretend to be two lines.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use bytestring::ByteString;

use super::value::Span;
use crate::limit;

/// Where the bytes come from; what a caller sends is held to more than what an upstream answers,
/// because one odd string in a result must not lose the whole result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// From a client: duplicate keys at every depth and lone surrogates are refused.
    Client,
    /// From an upstream: duplicate keys are refused in the envelope and directly below it.
    Upstream,
}

impl Source {
    const fn bytes_max(self) -> usize {
        match self {
            Self::Client => limit::REQUEST_BYTES_MAX,
            Self::Upstream => limit::RESPONSE_BYTES_MAX,
        }
    }

    const fn duplicates_depth_max(self) -> usize {
        match self {
            Self::Client => usize::MAX,
            Self::Upstream => 2,
        }
    }
}

/// Why bytes are not a message; a lower-case fragment, with the place where there is one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Not UTF-8.
    #[error("it is not UTF-8 (byte {at})")]
    Encoding {
        /// Offset of the first wrong byte.
        at: usize,
    },
    /// Not JSON.
    #[error("it is not JSON: {what} at byte {at}")]
    Syntax {
        /// What is wrong there.
        what: &'static str,
        /// Offset.
        at: usize,
    },
    /// A key stands twice in one object.
    #[error("the key at byte {at} stands twice in its object")]
    DuplicateKey {
        /// Offset of the second one.
        at: usize,
    },
    /// A bound is exceeded.
    #[error("it is too large: {what} is at most {max}")]
    TooLarge {
        /// Which bound.
        what: &'static str,
        /// Its value.
        max: usize,
    },
    /// JSON, but not a JSON-RPC 2.0 message.
    #[error("it is not one JSON-RPC 2.0 message: {0}")]
    NotRpc(&'static str),
}

/// The members of the outermost object, as byte ranges of key content and value, and those of the objects in it.
#[derive(Debug, Default)]
pub(super) struct Members {
    pub(super) outer: Vec<(Range<usize>, Range<usize>)>,
    /// At most one more than [`limit::JSON_MEMBERS_KEPT_MAX`]: so many are walked instead.
    inner: Vec<Span>,
}

impl Members {
    /// The members of the object that stands there, as they stand in a text that begins with it.
    pub(super) fn inside(&self, object: &Range<usize>) -> Option<Arc<[Span]>> {
        let is_inside = |span: &&Span| object.contains(&span.key_start);
        (!self.is_full()).then(|| self.inner.iter().filter(is_inside).map(|span| span.from(object.start)).collect())
    }

    fn is_full(&self) -> bool {
        self.inner.len() > limit::JSON_MEMBERS_KEPT_MAX
    }
}

/// Scans, replaces line breaks between tokens by spaces, and finds the outermost members (if an object).
pub(super) fn scan(bytes: &mut [u8], source: Source) -> Result<Members, WireError> {
    if bytes.len() > source.bytes_max() {
        return Err(WireError::TooLarge { what: "its length in bytes", max: source.bytes_max() });
    }
    std::str::from_utf8(bytes).map_err(|error| WireError::Encoding { at: error.valid_up_to() })?;
    let mut scanner =
        Scanner { bytes, at: 0, source, nodes: 0, keys: Vec::with_capacity(16), frames: Vec::with_capacity(8) };
    scanner.document()
}

/// The text of bytes that were scanned.
pub(super) fn text(bytes: Vec<u8>) -> Result<ByteString, WireError> {
    let text = String::from_utf8(bytes);
    Ok(text.map_err(|error| WireError::Encoding { at: error.utf8_error().valid_up_to() })?.into())
}

/// One open container.
struct Frame {
    object: bool,
    /// Where this object's keys begin in the arena.
    keys_start: usize,
}

struct Key {
    content: Range<usize>,
    escaped: bool,
}

struct Scanner<'a> {
    bytes: &'a mut [u8],
    at: usize,
    source: Source,
    nodes: usize,
    keys: Vec<Key>,
    frames: Vec<Frame>,
}

impl Scanner<'_> {
    fn document(&mut self) -> Result<Members, WireError> {
        let mut members = Members { outer: Vec::with_capacity(4), inner: Vec::with_capacity(8) };
        let (mut value_start, mut inner_start) = (0, 0);
        self.space();
        loop {
            // A value begins here.
            self.nodes += 1;
            if self.nodes > limit::JSON_NODES_MAX {
                return Err(WireError::TooLarge { what: "its number of values", max: limit::JSON_NODES_MAX });
            }
            match self.frames.len() {
                1 => value_start = self.at,
                2 => inner_start = self.at,
                _ => {}
            }
            match self.peek() {
                Some(b'{') => {
                    self.open(true)?;
                    self.space();
                    if self.peek() == Some(b'}') {
                        self.close()?;
                    } else {
                        self.key()?;
                        continue;
                    }
                }
                Some(b'[') => {
                    self.open(false)?;
                    self.space();
                    if self.peek() == Some(b']') {
                        self.close()?;
                    } else {
                        continue;
                    }
                }
                Some(b'"') => {
                    self.string()?;
                }
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.word(b"true")?,
                Some(b'f') => self.word(b"false")?,
                Some(b'n') => self.word(b"null")?,
                _ => return Err(self.syntax("a value is missing")),
            }
            // A value ended here; so may its parents.
            loop {
                match (self.frames.as_slice(), self.keys.last()) {
                    ([Frame { object: true, .. }], Some(key)) => {
                        members.outer.push((key.content.clone(), value_start..self.at));
                    }
                    ([Frame { object: true, .. }, Frame { object: true, .. }], Some(key)) if !members.is_full() => {
                        let span = Span {
                            key_start: key.content.start - 1,
                            key_end: key.content.end + 1,
                            value_start: inner_start,
                            value_end: self.at,
                        };
                        members.inner.push(span);
                    }
                    _ => {}
                }
                self.space();
                let Some(frame) = self.frames.last() else {
                    return if self.at == self.bytes.len() {
                        Ok(members)
                    } else {
                        Err(self.syntax("something follows the value"))
                    };
                };
                match (self.peek(), frame.object) {
                    (Some(b','), true) => {
                        self.at += 1;
                        self.space();
                        self.key()?;
                        break;
                    }
                    (Some(b','), false) => {
                        self.at += 1;
                        self.space();
                        break;
                    }
                    (Some(b'}'), true) | (Some(b']'), false) => self.close()?,
                    _ => return Err(self.syntax("a comma or a closing bracket is missing")),
                }
            }
        }
    }

    fn open(&mut self, object: bool) -> Result<(), WireError> {
        if self.frames.len() >= limit::JSON_DEPTH_MAX {
            return Err(WireError::TooLarge { what: "its nesting", max: limit::JSON_DEPTH_MAX });
        }
        self.frames.push(Frame { object, keys_start: self.keys.len() });
        self.at += 1;
        Ok(())
    }

    fn close(&mut self) -> Result<(), WireError> {
        self.at += 1;
        let depth = self.frames.len();
        let Some(frame) = self.frames.pop() else { return Ok(()) };
        if frame.object {
            if depth <= self.source.duplicates_depth_max() {
                self.refuse_duplicates(frame.keys_start)?;
            }
            self.keys.truncate(frame.keys_start);
        }
        Ok(())
    }

    fn key(&mut self) -> Result<(), WireError> {
        if self.peek() != Some(b'"') {
            return Err(self.syntax("a key is missing"));
        }
        let start = self.at + 1;
        let escaped = self.string()?;
        self.keys.push(Key { content: start..self.at - 1, escaped });
        self.space();
        if self.peek() != Some(b':') {
            return Err(self.syntax("a colon is missing"));
        }
        self.at += 1;
        self.space();
        Ok(())
    }

    fn refuse_duplicates(&self, keys_start: usize) -> Result<(), WireError> {
        let keys = self.keys.get(keys_start..).unwrap_or_default();
        if keys.len() < 2 {
            return Ok(());
        }
        // Comparing each with each is fastest for the objects that occur; a set is safe for the others.
        if keys.len() <= 8 && keys.iter().all(|key| !key.escaped) {
            for (index, key) in keys.iter().enumerate() {
                let earlier = keys.get(..index).unwrap_or_default();
                if earlier.iter().any(|other| self.text(&other.content) == self.text(&key.content)) {
                    return Err(WireError::DuplicateKey { at: key.content.start });
                }
            }
            return Ok(());
        }
        let mut seen: HashSet<Cow<'_, [u8]>> = HashSet::with_capacity(keys.len());
        for key in keys {
            let text = self.text(&key.content);
            let plain = if key.escaped { Cow::Owned(unescape(text).into_bytes()) } else { Cow::Borrowed(text) };
            if !seen.insert(plain) {
                return Err(WireError::DuplicateKey { at: key.content.start });
            }
        }
        Ok(())
    }

    fn text(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
    }

    /// Passes over a string; answers whether it has escapes.
    fn string(&mut self) -> Result<bool, WireError> {
        self.at += 1;
        let mut escaped = false;
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let Some(plain) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f)) else {
                return Err(self.syntax("a string does not end"));
            };
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return Err(self.syntax("a control character stands in a string")),
            }
        }
    }

    fn escape(&mut self) -> Result<(), WireError> {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => {
                let unit = self.code_unit(self.at + 2)?;
                let paired = match unit {
                    0xd800..=0xdbff => {
                        self.bytes.get(self.at + 6..self.at + 8) == Some(b"\\u")
                            && matches!(self.code_unit(self.at + 8), Ok(0xdc00..=0xdfff))
                    }
                    0xdc00..=0xdfff => false,
                    _ => {
                        self.at += 6;
                        return Ok(());
                    }
                };
                if paired {
                    self.at += 12;
                } else if self.source == Source::Client {
                    return Err(self.syntax("half of a surrogate pair stands alone"));
                } else {
                    self.at += 6;
                }
                Ok(())
            }
            _ => Err(self.syntax("an escape is unknown")),
        }
    }

    fn code_unit(&self, at: usize) -> Result<u32, WireError> {
        self.bytes
            .get(at..at + 4)
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .ok_or(WireError::Syntax { what: "an escape is not four hexadecimal digits", at })
    }

    fn number(&mut self) -> Result<(), WireError> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.syntax("a number has no digits")),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Ok(())
    }

    fn some_digits(&mut self) -> Result<(), WireError> {
        if matches!(self.peek(), Some(b'0'..=b'9')) {
            self.digits();
            return Ok(());
        }
        Err(self.syntax("a number has no digits"))
    }

    fn digits(&mut self) {
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }

    fn word(&mut self, word: &'static [u8]) -> Result<(), WireError> {
        if self.bytes.get(self.at..self.at + word.len()) == Some(word) {
            self.at += word.len();
            return Ok(());
        }
        Err(self.syntax("a word is none of true, false, null"))
    }

    fn space(&mut self) {
        while let Some(byte) = self.bytes.get_mut(self.at) {
            match byte {
                b' ' | b'\t' => {}
                // Legal between tokens, and a second line to a line-based transport.
                b'\r' | b'\n' => *byte = b' ',
                _ => return,
            }
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    const fn syntax(&self, what: &'static str) -> WireError {
        WireError::Syntax { what, at: self.at }
    }
}

/// The text of a scanned string's content; half surrogates become U+FFFD.
pub(super) fn unescape(content: &[u8]) -> String {
    let mut units: Vec<u16> = Vec::new();
    let mut text = String::with_capacity(content.len());
    let content = String::from_utf8_lossy(content);
    let mut characters = content.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            flush(&mut units, &mut text);
            text.push(character);
            continue;
        }
        let plain = match characters.next() {
            Some('u') => {
                let digits: String = characters.by_ref().take(4).collect();
                units.push(u16::from_str_radix(&digits, 16).unwrap_or(0xfffd));
                continue;
            }
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some(other) => other,
            None => break,
        };
        flush(&mut units, &mut text);
        text.push(plain);
    }
    flush(&mut units, &mut text);
    text
}

fn flush(units: &mut Vec<u16>, text: &mut String) {
    text.extend(char::decode_utf16(units.drain(..)).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, source: Source) -> Result<String, WireError> {
        let mut bytes = text.as_bytes().to_vec();
        scan(&mut bytes, source)?;
        Ok(String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn line_breaks_between_tokens_become_spaces() {
        assert_eq!(check("{\r\n\"a\"\n:\r1 }\n", Source::Client).unwrap(), "{  \"a\" : 1 } ");
    }

    #[test]
    fn a_duplicate_key_is_refused_however_it_is_spelled() {
        for text in [r#"{"a":1,"a":2}"#, r#"{"x":{"a":1,"\u0061":2}}"#, r#"[[{"a":[],"b":0,"a":{}}]]"#] {
            assert!(matches!(check(text, Source::Client), Err(WireError::DuplicateKey { .. })), "{text}");
        }
        assert!(check(r#"{"a":1,"b":{"a":1}}"#, Source::Client).is_ok());
        let many: String = (0..100).map(|n| format!("\"k{n}\":0,")).collect();
        assert!(check(&format!("{{{many}\"k100\":1}}"), Source::Client).is_ok());
        assert!(matches!(check(&format!("{{{many}\"k0\":1}}"), Source::Client), Err(WireError::DuplicateKey { .. })));
    }

    #[test]
    fn an_upstreams_deep_duplicate_hides_nothing_but_its_envelope_may_not_lie() {
        assert!(check(r#"{"result":{"tools":[{"a":1,"a":2}]}}"#, Source::Upstream).is_ok());
        assert!(check(r#"{"id":1,"id":2}"#, Source::Upstream).is_err());
        assert!(check(r#"{"result":{"a":1,"a":2}}"#, Source::Upstream).is_err());
    }

    #[test]
    fn half_a_surrogate_pair_is_refused_from_clients_only() {
        assert!(check(r#"["\ud83d"]"#, Source::Client).is_err());
        assert!(check(r#"["\ude00\ud83d"]"#, Source::Client).is_err());
        assert!(check(r#"["\ud83d"]"#, Source::Upstream).is_ok());
        assert!(check(r#"["\ud83d\ude00"]"#, Source::Client).is_ok());
    }

    #[test]
    fn depth_is_bounded_without_recursion() {
        let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(check(&deep(limit::JSON_DEPTH_MAX), Source::Client).is_ok());
        assert!(matches!(check(&deep(limit::JSON_DEPTH_MAX + 1), Source::Client), Err(WireError::TooLarge { .. })));
        assert!(check(&"[".repeat(1_000_000), Source::Client).is_err());
    }

    #[test]
    fn the_number_of_values_is_bounded() {
        let many = format!("[{}0]", "0,".repeat(limit::JSON_NODES_MAX));
        assert!(matches!(check(&many, Source::Client), Err(WireError::TooLarge { .. })));
    }

    #[test]
    fn the_length_is_bounded() {
        let long = format!("[\"{}\"]", "a".repeat(limit::REQUEST_BYTES_MAX));
        assert!(matches!(check(&long, Source::Client), Err(WireError::TooLarge { .. })));
    }

    proptest! {
        /// What we accept, serde_json accepts; what it accepts without duplicates and half surrogates, we accept.
        #[test]
        fn the_scanner_agrees_with_serde_json(text in r#"[\[\]{},:"\\a-c0-2eE.+\-truefalsn u\t\r\n]{0,24}"#) {
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            match check(&text, Source::Upstream) {
                Ok(clean) => {
                    prop_assert!(!clean.contains(['\r', '\n']));
                    if theirs.is_err() {
                        // They refuse half surrogates and numbers beyond f64, which upstreams may send.
                        prop_assert!(text.contains("\\u") || text.contains(['e', 'E']), "{text}");
                    }
                }
                Err(WireError::DuplicateKey { .. }) => {}
                Err(error) => prop_assert!(theirs.is_err(), "{text}: {error}"),
            }
        }

        #[test]
        fn a_scanned_string_reads_as_serde_json_reads_it(content in "\\PC{0,40}") {
            let json = serde_json::to_string(&content).unwrap();
            prop_assert_eq!(unescape(&json.as_bytes()[1..json.len() - 1]), content);
        }

        /// Scanning twice changes nothing, and no line break is ever left.
        #[test]
        fn one_message_in_is_one_line_out(value in "\\PC{0,20}", breaks in "[ \t\r\n]{0,5}") {
            let text = format!("{breaks}{{{breaks}{}{breaks}:{breaks}[1,{breaks}null]}}{breaks}", serde_json::to_string(&value).unwrap());
            let once = check(&text, Source::Client).unwrap();
            prop_assert!(!once.contains(['\r', '\n']));
            prop_assert_eq!(check(&once, Source::Client).unwrap(), once);
        }
    }
}
