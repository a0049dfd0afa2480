//! Reading scanned JSON without building a tree: objects are walked, values stay text.
//!
//! Knows JSON and nothing of MCP. Invariant: every [`Value`] and [`Json`] is text that a scan accepted,
//! so walking it cannot fail.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use bytestring::ByteString;

use super::scan::{self, Source, WireError};

/// An owned JSON value that was scanned: one line, within the bounds.
#[derive(Clone, PartialEq, Eq)]
pub struct Json(ByteString);

impl Json {
    /// Scans bytes from outside.
    ///
    /// # Errors
    /// [`WireError`] says what is wrong and where.
    pub fn parse(bytes: impl Into<Vec<u8>>, source: Source) -> Result<Self, WireError> {
        let mut bytes = bytes.into();
        scan::scan(&mut bytes, source)?;
        Ok(Self(scan::text(bytes)?))
    }

    /// What `serde_json` writes for a value of ours, `null` if it cannot (a map with odd keys).
    #[must_use]
    pub fn of<T: serde::Serialize + ?Sized>(value: &T) -> Self {
        Self(serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned()).into())
    }

    /// Text of ours that was put together from scanned values; not checked again. Only for the crate, where
    /// each use shows that the parts are JSON.
    pub(crate) fn joined(text: String) -> Self {
        debug_assert!(serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok(), "joined text is not JSON");
        Self(text.into())
    }

    /// Text that was cut out of a scanned message; not checked again.
    pub(super) const fn scanned(text: ByteString) -> Self {
        Self(text)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        self.0.as_bytes()
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A view to walk.
    #[must_use]
    pub fn value(&self) -> Value<'_> {
        Value(self.as_str().trim())
    }

    /// Cuts a value out that was found by walking this one; shares the memory.
    #[must_use]
    pub fn share(&self, part: Value<'_>) -> Self {
        Self(super::message::slice_of(&self.0, part.0))
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Json({} bytes)", self.0.len())
    }
}

/// A borrowed JSON value; its text has no space around it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Value<'a>(&'a str);

impl<'a> Value<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self(text.trim())
    }

    /// The text as it was sent.
    #[must_use]
    pub const fn raw(self) -> &'a str {
        self.0
    }

    /// An owned copy.
    #[must_use]
    pub fn to_json(self) -> Json {
        Json(self.0.into())
    }

    /// The text of a string.
    #[must_use]
    pub fn as_str(self) -> Option<Cow<'a, str>> {
        let content = self.0.strip_prefix('"')?.strip_suffix('"')?;
        Some(text(content))
    }

    /// An integer that fits; `1.0` and `1e0` are not integers here.
    #[must_use]
    pub fn as_i64(self) -> Option<i64> {
        self.0.parse().ok()
    }

    /// `true` or `false`.
    #[must_use]
    pub fn as_bool(self) -> Option<bool> {
        match self.0 {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }

    /// Whether it is `null`.
    #[must_use]
    pub fn is_null(self) -> bool {
        self.0 == "null"
    }

    /// Whether it is a number.
    #[must_use]
    pub fn is_number(self) -> bool {
        self.0.starts_with(|first: char| first == '-' || first.is_ascii_digit())
    }

    /// Whether it is a string.
    #[must_use]
    pub fn is_string(self) -> bool {
        self.0.starts_with('"')
    }

    /// The members, if it is an object.
    #[must_use]
    pub fn as_object(self) -> Option<Object<'a>> {
        self.0.starts_with('{').then_some(Object { text: self.0, index: None })
    }

    /// The elements, if it is an array.
    #[must_use]
    pub fn as_array(self) -> Option<impl Iterator<Item = Value<'a>>> {
        if !self.0.starts_with('[') {
            return None;
        }
        let text = self.0;
        let mut at = space(text, 1);
        Some(std::iter::from_fn(move || {
            if matches!(byte(text, at), None | Some(b']')) {
                return None;
            }
            let end = value_end(text, at);
            let element = Value(text.get(at..end)?);
            at = space(text, end);
            if byte(text, at) == Some(b',') {
                at = space(text, at + 1);
            }
            Some(element)
        }))
    }

    /// The elements of a list, and of the lists in it, that are no lists themselves; of what is no list itself alone. One
    /// walk, however deep they are.
    pub fn flat(self) -> impl Iterator<Item = Value<'a>> {
        let (text, mut at) = (self.0, 0);
        std::iter::from_fn(move || {
            while matches!(byte(text, at)?, b'[' | b']' | b',' | b' ' | b'\t') {
                at += 1;
            }
            let start = at;
            at = value_end(text, start).max(start + 1);
            text.get(start..at).map(Value)
        })
    }

    /// Every string and number in it, in their order, without the names of members. One walk, however deep they are.
    pub fn scalars(self) -> impl Iterator<Item = Value<'a>> {
        let (text, mut at) = (self.0, 0);
        std::iter::from_fn(move || {
            loop {
                let start = at;
                match byte(text, start)? {
                    b'"' => {
                        at = string_end(text, start);
                        if byte(text, space(text, at)) != Some(b':') {
                            return text.get(start..at).map(Value);
                        }
                    }
                    b'-' | b'0'..=b'9' => {
                        at = value_end(text, start);
                        return text.get(start..at).map(Value);
                    }
                    _ => at += 1,
                }
            }
        })
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Value({} bytes)", self.0.len())
    }
}

/// A borrowed JSON object.
#[derive(Clone, Copy)]
pub struct Object<'a> {
    text: &'a str,
    /// Where its members stand, if the scan has kept that: then nothing is walked.
    index: Option<&'a [Span]>,
}

impl<'a> Object<'a> {
    /// The members in their order. Looking up several keys is one walk: match on the key.
    pub fn members(self) -> impl Iterator<Item = (Cow<'a, str>, Value<'a>)> {
        self.spans().filter_map(move |span| {
            let key = text(self.text.get(span.key_start + 1..span.key_end - 1)?);
            Some((key, Value(self.text.get(span.value_start..span.value_end)?)))
        })
    }

    /// The first member of that name.
    #[must_use]
    pub fn get(self, key: &str) -> Option<Value<'a>> {
        self.members().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The text as it was sent.
    #[must_use]
    pub const fn raw(self) -> &'a str {
        self.text
    }

    /// The same object, whose members stand there.
    pub(super) const fn indexed(self, index: Option<&'a [Span]>) -> Self {
        Self { text: self.text, index }
    }

    pub(super) fn spans(self) -> impl Iterator<Item = Span> {
        let source = self.text;
        let mut known = self.index.map(<[Span]>::iter);
        let mut at = space(source, 1);
        std::iter::from_fn(move || {
            if let Some(known) = &mut known {
                return known.next().copied();
            }
            if byte(source, at) != Some(b'"') {
                return None;
            }
            let key_start = at;
            let key_end = string_end(source, at);
            let colon = space(source, key_end);
            let value_start = space(source, colon + 1);
            let value_end = value_end(source, value_start);
            at = space(source, value_end);
            if byte(source, at) == Some(b',') {
                at = space(source, at + 1);
            }
            Some(Span { key_start, key_end, value_start, value_end })
        })
    }
}

/// Where one member stands: key with its quotes, and value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) key_start: usize,
    pub(super) key_end: usize,
    pub(super) value_start: usize,
    pub(super) value_end: usize,
}

impl Span {
    /// The same in a text that begins there.
    pub(super) const fn from(self, start: usize) -> Self {
        Self {
            key_start: self.key_start - start,
            key_end: self.key_end - start,
            value_start: self.value_start - start,
            value_end: self.value_end - start,
        }
    }
}

/// The text of a string's content, borrowed where it has no escapes.
pub(super) fn text(content: &str) -> Cow<'_, str> {
    if memchr::memchr(b'\\', content.as_bytes()).is_none() {
        Cow::Borrowed(content)
    } else {
        Cow::Owned(scan::unescape(content.as_bytes()))
    }
}

fn byte(text: &str, at: usize) -> Option<u8> {
    text.as_bytes().get(at).copied()
}

fn space(text: &str, mut at: usize) -> usize {
    while matches!(byte(text, at), Some(b' ' | b'\t')) {
        at += 1;
    }
    at
}

/// Where the string that begins at `at` ends, past its closing quote.
fn string_end(text: &str, mut at: usize) -> usize {
    at += 1;
    while let Some(offset) = text.as_bytes().get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        at += offset;
        if byte(text, at) == Some(b'"') {
            return at + 1;
        }
        at += 2;
    }
    text.len()
}

/// Where the value that begins at `at` ends.
fn value_end(text: &str, mut at: usize) -> usize {
    match byte(text, at) {
        Some(b'"') => string_end(text, at),
        Some(b'{' | b'[') => {
            let mut depth = 0_usize;
            while let Some(offset) = text
                .as_bytes()
                .get(at..)
                .and_then(|rest| rest.iter().position(|b| matches!(b, b'"' | b'{' | b'[' | b'}' | b']')))
            {
                at += offset;
                match byte(text, at) {
                    Some(b'"') => at = string_end(text, at),
                    Some(b'{' | b'[') => {
                        depth += 1;
                        at += 1;
                    }
                    _ => {
                        depth = depth.saturating_sub(1);
                        at += 1;
                        if depth == 0 {
                            return at;
                        }
                    }
                }
            }
            text.len()
        }
        _ => {
            while matches!(byte(text, at), Some(other) if !matches!(other, b',' | b'}' | b']' | b' ' | b'\t')) {
                at += 1;
            }
            at
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_keep_their_order_and_text() {
        let json =
            Json::parse(r#"{"b" : [1, {"x":"]"}] ,"a":"q\"{", "n":-1.50e2,"e":{}, "\u0061a":true}"#, Source::Client)
                .unwrap();
        let object = json.value().as_object().unwrap();
        let seen: Vec<_> = object.members().map(|(key, value)| format!("{key}={}", value.raw())).collect();
        assert_eq!(seen, [r#"b=[1, {"x":"]"}]"#, r#"a="q\"{""#, "n=-1.50e2", "e={}", "aa=true"]);
        assert_eq!(object.get("a").unwrap().as_str().unwrap(), "q\"{");
        let elements: Vec<_> = object.get("b").unwrap().as_array().unwrap().map(Value::raw).collect();
        assert_eq!(elements, ["1", r#"{"x":"]"}"#]);
    }

    #[test]
    fn empty_containers_have_no_elements() {
        let json = Json::parse("[ ]", Source::Client).unwrap();
        assert_eq!(json.value().as_array().unwrap().count(), 0);
        let json = Json::parse("{ }", Source::Client).unwrap();
        assert_eq!(json.value().as_object().unwrap().members().count(), 0);
    }

    #[test]
    fn what_is_in_lists_and_what_is_in_anything_is_found_however_deep_it_is() {
        let json = |text: &str| Json::parse(text, Source::Client).unwrap();
        let found = |values: &mut dyn Iterator<Item = Value<'_>>| {
            values.map(|value| value.raw().to_owned()).collect::<Vec<_>>()
        };
        let lists = json(r#"[ [1, [ {"x":[2]} , "]" ]],[], true]"#);
        assert_eq!(found(&mut lists.value().flat()), ["1", r#"{"x":[2]}"#, r#""]""#, "true"]);
        assert_eq!(found(&mut json(r#"{"x":[2]}"#).value().flat()), [r#"{"x":[2]}"#]);
        assert_eq!(found(&mut json("[[]]").value().flat()), [""; 0]);
        let all = json(r#"{"1" : {"a":["b:", -1.5e3,true ,null],"\"c":"q\"{"},"d":"", "e":7}"#);
        assert_eq!(found(&mut all.value().scalars()), [r#""b:""#, "-1.5e3", r#""q\"{""#, r#""""#, "7"]);
        assert_eq!(found(&mut json("12").value().scalars()), ["12"]);
    }

    #[test]
    fn a_shared_part_is_the_same_text() {
        let json = Json::parse(r#"{"a":{"b":[1,2]}}"#, Source::Client).unwrap();
        let part = json.value().as_object().unwrap().get("a").unwrap();
        assert_eq!(json.share(part).as_str(), r#"{"b":[1,2]}"#);
    }
}
