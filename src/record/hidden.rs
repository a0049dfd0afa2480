//! What of one call's arguments is left out of the record, because `[record] redact` names it.
//!
//! Decides what is as good as the value: itself wherever it stands in words, a long one's beginning, and whatever holds it.
//! Refuses to know who named it. Invariants: where there is more of it than is looked for, all the words are left out;
//! how much a caller sends decides neither how much is kept nor how much is built.

use std::borrow::Cow;
use std::fmt;

use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, MatchKind};

use crate::config::RedactedPath;
use crate::limit;
use crate::wire::{Json, Value};

/// What stands in the place of it.
pub const REDACTED: &str = "[redacted]";

/// The paths of one call that are left out, and where they lead into.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden {
    paths: Vec<String>,
    /// Shared with the call, and walked only where there are words to be looked through.
    arguments: Option<Json>,
}

impl Hidden {
    /// Of the call of that tool or prompt; nothing where nobody has named anything of it.
    #[must_use]
    pub fn of(rows: &[RedactedPath], name: &str, arguments: Option<&Json>) -> Option<Box<Self>> {
        Self::named(rows.iter().filter(|row| row.is_of(name)), arguments)
    }

    /// Of a call of which nobody knows yet where it goes: whatever is named of any.
    #[must_use]
    pub fn named<'a>(rows: impl Iterator<Item = &'a RedactedPath>, arguments: Option<&Json>) -> Option<Box<Self>> {
        let paths: Vec<String> = rows.map(|row| row.path().to_owned()).collect();
        (!paths.is_empty()).then(|| Box::new(Self { paths, arguments: arguments.cloned() }))
    }

    /// Whether the value at a path is one of them, holds one, or is a part of one.
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        let below = |outer: &str, inner: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'));
        self.paths.iter().any(|own| own == path || below(own, path) || below(path, own))
    }

    /// Words without any of the values, as they are and as JSON writes them.
    #[must_use]
    pub fn without<'a>(&self, words: &'a str) -> Cow<'a, str> {
        let Some(arguments) = self.arguments.as_ref().filter(|_| !words.is_empty()) else {
            return Cow::Borrowed(words);
        };
        let (paths, mut values): (Vec<&str>, _) = (self.paths.iter().map(String::as_str).collect(), Vec::new());
        led_to(arguments.value(), &paths, &mut values);
        if values.len() > limit::REDACTED_VALUES_MAX {
            return Cow::Borrowed(REDACTED);
        }
        // Of what is sent here any part may be long; words are short.
        values.retain(|value| beginning(value).len() <= words.len());
        if values.is_empty() { Cow::Borrowed(words) } else { replaced(words, &values) }
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Hidden({:?})", self.paths)
    }
}

/// Collects what paths lead to; through lists they lead to each of their elements, and a name may have dots itself.
fn led_to<'a>(value: Value<'a>, paths: &[&str], values: &mut Vec<Cow<'a, str>>) {
    for (name, member) in value.flat().filter_map(Value::as_object).flat_map(|object| object.members()) {
        let rests = || paths.iter().filter_map(|path| path.strip_prefix(&*name));
        if rests().any(str::is_empty) {
            all_of(member, values);
        } else {
            let below: Vec<&str> =
                rests().filter_map(|rest| Some(rest.strip_prefix('.')?.trim_start_matches('.'))).collect();
            if !below.is_empty() {
                led_to(member, &below, values);
            }
        }
        if values.len() > limit::REDACTED_VALUES_MAX {
            return;
        }
    }
}

/// Collects every string and number of a value. What is true or false says nothing by itself.
fn all_of<'a>(value: Value<'a>, values: &mut Vec<Cow<'a, str>>) {
    for scalar in value.scalars() {
        if values.len() > limit::REDACTED_VALUES_MAX {
            return;
        }
        let raw = scalar.raw();
        let Some(text) = scalar.as_str() else {
            values.push(Cow::Borrowed(raw));
            continue;
        };
        // As a server may show the text that it was sent.
        let written = raw.get(1..raw.len().saturating_sub(1)).filter(|written| *written != text && !written.is_empty());
        values.extend(written.map(Cow::Borrowed));
        values.extend(Some(text).filter(|text| !text.is_empty()));
    }
}

/// Words in which each of the values was replaced, and as much of a long one as stands there.
fn replaced<'a>(words: &'a str, values: &[Cow<'_, str>]) -> Cow<'a, str> {
    let sought = values.iter().map(|value| beginning(value));
    let search = AhoCorasick::builder()
        .match_kind(MatchKind::LeftmostLongest)
        // Others are built for much text, and are far larger.
        .kind(Some(AhoCorasickKind::NoncontiguousNFA))
        .build(sought);
    let Ok(search) = search else { return Cow::Borrowed(REDACTED) };
    let (mut clean, mut at) = (String::new(), 0);
    while let Some(found) = search.find(Input::new(words).range(at..)) {
        let (Some(before), Some(rest)) = (words.get(at..found.start()), words.get(found.start()..)) else { break };
        clean.push_str(before);
        clean.push_str(REDACTED);
        let begin_so = values.iter().filter(|value| rest.get(..found.len()) == Some(beginning(value)));
        at = found.start() + begin_so.map(|value| common(value, rest)).max().unwrap_or_default().max(found.len());
    }
    if at == 0 {
        return Cow::Borrowed(words);
    }
    clean.push_str(words.get(at..).unwrap_or_default());
    Cow::Owned(clean)
}

/// So much of a value as is searched for: all of a short one.
fn beginning(value: &str) -> &str {
    let mut end = value.len().min(limit::REDACTED_SOUGHT_BYTES_MAX);
    while !value.is_char_boundary(end) {
        end += 1;
    }
    value.get(..end).unwrap_or(value)
}

/// How many bytes are the same in both, in whole characters.
fn common(one: &str, other: &str) -> usize {
    let alike = one.chars().zip(other.chars()).take_while(|(one, other)| one == other);
    alike.map(|(character, _)| character.len_utf8()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Source;

    fn hidden(rows: &[&str], arguments: &str) -> Option<Box<Hidden>> {
        let rows: Vec<_> = rows.iter().map(|row| RedactedPath::parse(row).unwrap()).collect();
        let arguments = Json::parse(arguments.as_bytes(), Source::Client).unwrap();
        Hidden::of(&rows, "pay", Some(&arguments))
    }

    #[test]
    fn a_value_is_left_out_with_whatever_holds_it_and_wherever_words_repeat_it() {
        let arguments = r#"{"card":{"number":4111,"owner":"Ann \"A\" Lee"},"list":[{"pin":"0815"},{"pin":"4711"}],
            "a.b":{"c":"dotted"},"note":"a note"}"#;
        let own = hidden(&["shop/pay:card", "*/*:list.pin", "shop/pay:a.b.c", "shop/refund:note"], arguments).unwrap();
        for covered in ["card", "card.number", "card.owner.first", "list", "list.pin", "a.b", "a.b.c"] {
            assert!(own.covers(covered), "{covered}");
        }
        for open in ["note", "cards", "car", "a", "list.pins"] {
            assert_eq!(own.covers(open), open == "a", "{open}: what holds it shows it");
        }
        let said = r#"no 4111 of Ann "A" Lee (Ann \"A\" Lee): 0815, 4711, dotted and a note"#;
        let clean = own.without(said);
        assert_eq!(clean, "no [redacted] of [redacted] ([redacted]): [redacted], [redacted], [redacted] and a note");
        assert_eq!(own.without(""), "");
        assert_eq!(hidden(&["shop/refund:note"], arguments), None, "nothing of this tool is named");
        assert_eq!(Hidden::of(&[], "pay", None), None);
        assert_eq!(hidden(&["shop/pay:absent"], arguments).unwrap().without(said), said);
    }

    #[test]
    fn of_a_long_one_its_beginning_is_enough_and_as_much_as_stands_there_is_left_out() {
        let (least, long) =
            ("s".repeat(limit::REDACTED_SOUGHT_BYTES_MAX), "s".repeat(2 * limit::REDACTED_SOUGHT_BYTES_MAX));
        let own =
            hidden(&["shop/pay:card", "shop/pay:pin"], &format!(r#"{{"card":"{long}-end","pin":"é{long}"}}"#)).unwrap();
        let cases = [
            (format!("no {long}-end."), "no [redacted].".to_owned()),
            (format!("no {long}-en…"), "no [redacted]…".to_owned()),
            (format!("no {least}: cut"), "no [redacted]: cut".to_owned()),
            (format!("no é{least}, é{long}"), "no [redacted], [redacted]".to_owned()),
            (format!("no {}", &least[1..]), format!("no {}", &least[1..])),
        ];
        for (said, clean) in cases {
            assert_eq!(own.without(&said), clean, "{said}");
        }
    }

    #[test]
    fn however_much_a_caller_sends_little_is_kept_of_it_and_little_is_built() {
        let mut long: String = (0..limit::REQUEST_BYTES_MAX / 16).map(|number| format!("{number:08}")).collect();
        long.push_str("\\n");
        let arguments = Json::parse(format!(r#"{{"card":"{long}"}}"#), Source::Client).unwrap();
        let rows = [RedactedPath::parse("shop/pay:card").unwrap()];
        let began = std::time::Instant::now();
        let own = Hidden::of(&rows, "pay", Some(&arguments)).unwrap();
        let kept = own.arguments.as_ref().unwrap();
        assert_eq!(kept.as_bytes().as_ptr(), arguments.as_bytes().as_ptr(), "no copy of it");
        assert_eq!(own.without("no 00000000000000010000000200000003!"), "no [redacted]!");
        assert_eq!(own.without("nobody waited for the end"), "nobody waited for the end");
        assert!(began.elapsed() < std::time::Duration::from_secs(2), "{:?}", began.elapsed());
    }

    #[test]
    fn of_too_many_values_no_word_is_left() {
        let many = |count: usize| {
            let list: Vec<String> = (0..count).map(|number| format!("\"value-{number}\"")).collect();
            hidden(&["shop/pay:list"], &format!("{{\"list\":[{}]}}", list.join(","))).unwrap()
        };
        assert_eq!(many(limit::REDACTED_VALUES_MAX).without("a value-7 here"), "a [redacted] here");
        assert_eq!(many(limit::REDACTED_VALUES_MAX + 1).without("a value-7 here"), REDACTED);
    }
}
