//! Server-sent events, both ways: one message is one event.
//!
//! The reader follows the WHATWG parsing rules as far as MCP uses them (`data`, `event`, `id`, `retry`),
//! accepts any of the three line ends and any split of the bytes, and is bounded.

use bytes::{BufMut, Bytes, BytesMut};

use super::message::Message;

/// One event that arrived.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    /// The `event` field, empty for a message.
    pub name: String,
    /// The `data` lines, joined.
    pub data: Vec<u8>,
    /// The `id` field.
    pub id: Option<String>,
    /// The `retry` field, milliseconds.
    pub retry_ms: Option<u64>,
}

/// An event grew beyond the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event is larger than {bytes_max} bytes")]
pub struct EventTooLarge {
    bytes_max: usize,
}

/// Reads events out of chunks of bytes.
#[derive(Debug)]
pub struct Reader {
    line: Vec<u8>,
    event: Event,
    some_field: bool,
    after_carriage_return: bool,
    first_line: bool,
    bytes_max: usize,
}

impl Reader {
    /// A reader for events of at most so many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            line: Vec::new(),
            event: Event::default(),
            some_field: false,
            after_carriage_return: false,
            first_line: true,
            bytes_max,
        }
    }

    /// Takes a chunk and gives the events that it completed to `emit`.
    ///
    /// # Errors
    /// [`EventTooLarge`]; the stream is unusable afterwards.
    pub fn push(&mut self, chunk: &[u8], emit: &mut impl FnMut(Event)) -> Result<(), EventTooLarge> {
        let mut rest = chunk;
        if self.after_carriage_return {
            self.after_carriage_return = false;
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
            if chunk.is_empty() {
                self.after_carriage_return = true;
            }
        }
        while let Some(end) = memchr::memchr2(b'\r', b'\n', rest) {
            let (line, tail) = rest.split_at(end);
            self.grow(line)?;
            self.end_of_line(emit);
            rest = match tail {
                [b'\r', b'\n', after @ ..] => after,
                [b'\r'] => {
                    self.after_carriage_return = true;
                    &[]
                }
                [_, after @ ..] => after,
                [] => &[],
            };
        }
        self.grow(rest)
    }

    fn grow(&mut self, part: &[u8]) -> Result<(), EventTooLarge> {
        if self.line.len() + self.event.data.len() + part.len() > self.bytes_max {
            return Err(EventTooLarge { bytes_max: self.bytes_max });
        }
        self.line.extend_from_slice(part);
        Ok(())
    }

    fn end_of_line(&mut self, emit: &mut impl FnMut(Event)) {
        let line = std::mem::take(&mut self.line);
        let mut line = line.as_slice();
        if std::mem::take(&mut self.first_line) {
            line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
        }
        if line.is_empty() {
            let mut event = std::mem::take(&mut self.event);
            if std::mem::take(&mut self.some_field) {
                // Each data line ended with a line feed; the last one is not part of the data.
                event.data.pop();
                emit(event);
            }
            return;
        }
        let (field, value) = match memchr::memchr(b':', line) {
            Some(0) => return,
            Some(colon) => {
                let (field, value) = line.split_at(colon);
                let value = value.get(1..).unwrap_or_default();
                (field, value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (line, &[][..]),
        };
        match field {
            b"data" => {
                self.event.data.extend_from_slice(value);
                self.event.data.push(b'\n');
            }
            b"event" => self.event.name = String::from_utf8_lossy(value).into_owned(),
            b"id" if !value.contains(&0) => self.event.id = Some(String::from_utf8_lossy(value).into_owned()),
            b"retry" => self.event.retry_ms = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()),
            _ => return,
        }
        self.some_field = true;
    }
}

/// Writes a message as one event; the id is ours and has no line breaks.
#[must_use]
pub fn event(message: &Message, id: Option<&str>) -> Bytes {
    let bytes = message.as_bytes();
    let mut event = BytesMut::with_capacity(bytes.len() + 64);
    if let Some(id) = id {
        event.put_slice(b"id: ");
        event.put_slice(id.as_bytes());
        event.put_slice(b"\n");
    }
    event.put_slice(b"data: ");
    event.put_slice(bytes);
    event.put_slice(b"\n\n");
    event.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::Source;

    fn read(chunks: &[&[u8]]) -> Vec<Event> {
        let mut reader = Reader::new(1_000);
        let mut events = Vec::new();
        for chunk in chunks {
            reader.push(chunk, &mut |event| events.push(event)).unwrap();
        }
        events
    }

    #[test]
    fn every_split_and_every_line_end_reads_the_same() {
        for end in ["\n", "\r\n", "\r"] {
            let text =
                [": comment", "event: message", "id: 7", "data: {\"a\":", "data:1}", "", "data", "", ""].join(end);
            let expected = read(&[text.as_bytes()]);
            assert_eq!(expected.len(), 2, "{end:?}");
            assert_eq!(expected[0].data, b"{\"a\":\n1}");
            assert_eq!(expected[0].id.as_deref(), Some("7"));
            for split in 0..text.len() {
                let (left, right) = text.as_bytes().split_at(split);
                assert_eq!(read(&[left, b"", right]), expected, "{end:?} {split}");
            }
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut reader = Reader::new(100);
        let mut result = Ok(());
        for _ in 0..20 {
            result = result.and(reader.push(b"data: xxxxxxxx\n", &mut |_| panic!("no event ends here")));
        }
        assert!(result.is_err());
    }

    proptest! {
        #[test]
        fn one_message_is_one_event(value in "\\PC{0,30}") {
            let text = format!("{{\"jsonrpc\":\"2.0\",\r\n\"method\":{}}}", serde_json::to_string(&value).unwrap());
            let message = Message::parse(text, Source::Client).unwrap();
            let events = read(&[&event(&message, Some("1"))]);
            prop_assert_eq!(events.len(), 1);
            prop_assert_eq!(&events[0].data[..], &message.as_bytes()[..]);
        }
    }
}
