//! Decides how a line becomes bytes: the header that every kind has, and the place where the writer
//! puts number and chain.
//!
//! Refuses to know what the kinds mean. Invariant: one event is exactly one line, whatever its fields hold.

use std::cell::RefCell;
use std::fmt::Write as _;

use serde::Serialize;

use super::who::Who;
use crate::ids::{CallId, Digest, LegId, ReplicaId};
use crate::limit;

/// What `prev` of the very first line says.
pub(super) const GENESIS: Digest = Digest::from_bytes([0; 32]);

/// Every kind of line that there is: whoever reads the record for somebody else is held against it.
pub const KINDS: [&str; 21] = [
    "intent",
    "result",
    "refusal",
    "failure",
    "list",
    "noise",
    "revocation",
    "admin",
    "approval",
    "relay",
    "reload",
    "executable",
    "pin",
    "mandate",
    "lifecycle",
    "change",
    "start",
    "stop",
    "repair",
    "retention",
    "rotation",
];

/// The header that every kind has.
#[derive(Clone, Copy)]
pub(super) struct Header<'a> {
    pub(super) replica: &'a ReplicaId,
    pub(super) kind: &'static str,
    pub(super) of: Option<(CallId, LegId)>,
    pub(super) who: Option<&'a Who>,
}

/// Why a line could not be made.
#[derive(Debug, thiserror::Error)]
#[error("a record of type `{0}` could not be written as one line")]
pub(super) struct LineError(&'static str);

/// Appends everything of a line but `v`, `seq` and `prev`: from the comma before `replica` to the brace
/// that closes it, without the line break.
pub(super) fn body(line: &mut Vec<u8>, header: Header<'_>, fields: &impl Serialize) -> Result<(), LineError> {
    debug_assert!(KINDS.contains(&header.kind), "`{}` is not among KINDS", header.kind);
    let start = line.len();
    let result = write(line, header, fields);
    if result.is_err() {
        line.truncate(start);
    }
    result
}

fn write(line: &mut Vec<u8>, header: Header<'_>, fields: &impl Serialize) -> Result<(), LineError> {
    let error = || LineError(header.kind);
    let start = line.len();
    let mut head = Text(line);
    write!(head, r#","replica":"{}","at":""#, header.replica).map_err(|_| error())?;
    moment(&mut head, jiff::Timestamp::now()).map_err(|_| error())?;
    head.write_str(r#"","type":""#).and_then(|()| head.write_str(header.kind)).map_err(|_| error())?;
    head.write_str("\"").map_err(|_| error())?;
    if let Some((call, leg)) = header.of {
        write!(head, r#","call":"{call}","leg":"{leg}""#).map_err(|_| error())?;
    }
    head.write_str(header.who.map_or("", Who::as_str)).map_err(|_| error())?;
    let brace = line.len();
    serde_json::to_writer(&mut *line, fields).map_err(|_| error())?;
    // The fields are an object of their own; its opening brace becomes the comma that joins it.
    match line.get(brace..) {
        Some(b"{}") => line.truncate(brace),
        Some([b'{', ..]) => {}
        _ => return Err(error()),
    }
    match line.get_mut(brace) {
        Some(joint) => *joint = b',',
        None => line.push(b'}'),
    }
    // Raw JSON may carry line breaks between its tokens, where a space means the same.
    let body = line.get_mut(start..).unwrap_or_default();
    if memchr::memchr2(b'\n', b'\r', body).is_some() {
        body.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
    }
    if body.len() > limit::JOURNAL_LINE_BYTES_MAX { Err(error()) } else { Ok(()) }
}

/// Writes a moment as RFC 3339 in UTC with microseconds. The seconds are written anew only when they change:
/// a calendar costs more than all the digits of a line.
fn moment(text: &mut impl std::fmt::Write, now: jiff::Timestamp) -> std::fmt::Result {
    thread_local! {
        static SECOND: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
    }
    let micros = now.subsec_microsecond();
    if micros < 0 {
        // Before 1970; no clock should say so.
        return write!(text, "{now:.6}");
    }
    SECOND.with(|second| {
        let Ok(mut second) = second.try_borrow_mut() else { return write!(text, "{now:.6}") };
        if second.0 != now.as_second() {
            let whole = jiff::Timestamp::from_second(now.as_second()).map_err(|_| std::fmt::Error)?;
            let written = whole.to_string();
            *second = (now.as_second(), written.trim_end_matches('Z').to_owned());
        }
        write!(text, "{}.{micros:06}Z", second.1)
    })
}

/// Appends the whole line, with its break, and answers the digest that the next one carries.
pub(super) fn chain(lines: &mut Vec<u8>, sequence: u64, previous: &Digest, body: &[u8]) -> Digest {
    let start = lines.len();
    let mut head = Text(lines);
    // Writing to a vector cannot fail.
    let _ = write!(head, r#"{{"v":1,"seq":{sequence},"prev":"{previous}""#);
    lines.extend_from_slice(body);
    let digest = Digest::sha256(lines.get(start..).unwrap_or_default());
    lines.push(b'\n');
    digest
}

/// Lets `write!` append text to bytes.
struct Text<'a>(&'a mut Vec<u8>);

impl std::fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// Lends this thread's buffer: a line is made without an allocation.
pub(super) fn scratch<T>(write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    thread_local! {
        static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
        Ok(mut scratch) => {
            scratch.clear();
            write(&mut scratch)
        }
        Err(_) => write(&mut Vec::new()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_whatever_its_fields_hold() {
        #[derive(Serialize)]
        struct Fields {
            raw: Box<serde_json::value::RawValue>,
            text: &'static str,
        }
        let fields = Fields {
            raw: serde_json::value::RawValue::from_string("{\n\"a\":\r\n1}".to_owned()).unwrap(),
            text: "x\ny",
        };
        let replica = ReplicaId::new();
        let mut line = Vec::new();
        body(&mut line, Header { replica: &replica, kind: "start", of: None, who: None }, &fields).unwrap();
        let mut lines = Vec::new();
        chain(&mut lines, 7, &GENESIS, &line);
        assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), 1);
        let value: serde_json::Value = serde_json::from_slice(&lines).unwrap();
        assert_eq!(value["seq"], 7);
        assert_eq!(value["raw"]["a"], 1);
        assert_eq!(value["text"], "x\ny");
    }

    #[test]
    fn a_moment_is_written_as_the_calendar_has_it() {
        for nanoseconds in [0, 1_000, 999_999_999, 1_764_000_000_000_001_999, 1_764_000_000_999_999_999, -1_500] {
            let now = jiff::Timestamp::from_nanosecond(nanoseconds).unwrap();
            let mut text = String::new();
            moment(&mut text, now).unwrap();
            assert_eq!(text, format!("{now:.6}"));
        }
    }

    #[test]
    fn a_kind_without_fields_is_still_an_object() {
        #[derive(Serialize)]
        struct Nothing {}
        let replica = ReplicaId::new();
        let (mut line, mut lines) = (Vec::new(), Vec::new());
        body(&mut line, Header { replica: &replica, kind: "stop", of: None, who: None }, &Nothing {}).unwrap();
        chain(&mut lines, 1, &GENESIS, &line);
        assert!(serde_json::from_slice::<serde_json::Value>(&lines).is_ok(), "{}", String::from_utf8_lossy(&lines));
    }

    #[test]
    fn a_line_beyond_the_limit_is_refused_and_leaves_nothing_behind() {
        #[derive(Serialize)]
        struct Fields {
            text: String,
        }
        let replica = ReplicaId::new();
        let mut line = Vec::new();
        let fields = Fields { text: "x".repeat(limit::JOURNAL_LINE_BYTES_MAX) };
        assert!(body(&mut line, Header { replica: &replica, kind: "stop", of: None, who: None }, &fields).is_err());
        assert!(line.is_empty());
    }
}
