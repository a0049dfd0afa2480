//! What of one call's arguments is left out of the record, because `[record] redact` names it.
//!
//! Decides what is as good as the value: itself wherever it stands in words, and whatever holds it. Refuses to know who
//! named it. Invariant: where there is more of it than is looked for, all the words are left out.

use std::borrow::Cow;
use std::fmt;

use aho_corasick::{AhoCorasick, MatchKind};

use crate::config::RedactedPath;
use crate::limit;
use crate::wire::{Json, Value};

/// What stands in the place of it.
pub const REDACTED: &str = "[redacted]";

/// The paths of one call that are left out, and what is there.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden {
    paths: Vec<String>,
    /// Strings and numbers that words are looked through for.
    values: Vec<String>,
}

impl Hidden {
    /// Of the call of that tool or prompt; nothing where nobody has named anything of it.
    #[must_use]
    pub fn of(rows: &[RedactedPath], name: &str, arguments: Option<&Json>) -> Option<Box<Self>> {
        if rows.is_empty() {
            return None;
        }
        let paths: Vec<String> = rows.iter().filter(|row| row.is_of(name)).map(|row| row.path().to_owned()).collect();
        if paths.is_empty() {
            return None;
        }
        let mut values = Vec::new();
        for path in &paths {
            if let Some(arguments) = arguments {
                led_to(arguments.value(), path, &mut values);
            }
        }
        Some(Box::new(Self { paths, values }))
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
        if self.values.is_empty() || words.is_empty() {
            return Cow::Borrowed(words);
        }
        if self.values.len() > limit::REDACTED_VALUES_MAX {
            return Cow::Borrowed(REDACTED);
        }
        let search = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&self.values);
        let Ok(search) = search else { return Cow::Borrowed(REDACTED) };
        let mut clean = String::with_capacity(words.len());
        search.replace_all_with(words, &mut clean, |_, _, clean| {
            clean.push_str(REDACTED);
            true
        });
        Cow::Owned(clean)
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Hidden({:?})", self.paths)
    }
}

/// Collects what a path leads to; through lists it leads to each of their elements, and a name may have dots itself.
fn led_to(value: Value<'_>, path: &str, values: &mut Vec<String>) {
    if values.len() > limit::REDACTED_VALUES_MAX {
        return;
    }
    if let Some(elements) = value.as_array() {
        elements.for_each(|element| led_to(element, path, values));
    } else if let Some(object) = value.as_object() {
        for (name, member) in object.members() {
            match path.strip_prefix(&*name) {
                Some("") => all_of(member, values),
                Some(rest) if rest.starts_with('.') => led_to(member, rest.trim_start_matches('.'), values),
                _ => {}
            }
        }
    }
}

/// Collects every string and number of a value. What is true or false says nothing by itself.
fn all_of(value: Value<'_>, values: &mut Vec<String>) {
    if values.len() > limit::REDACTED_VALUES_MAX {
        return;
    }
    if let Some(elements) = value.as_array() {
        elements.for_each(|element| all_of(element, values));
    } else if let Some(object) = value.as_object() {
        object.members().for_each(|(_, member)| all_of(member, values));
    } else if let Some(text) = value.as_str() {
        // As a server may show the text that it was sent.
        let raw = value.raw();
        let written = raw.get(1..raw.len().saturating_sub(1)).filter(|written| *written != text && !written.is_empty());
        values.extend(written.map(str::to_owned));
        if !text.is_empty() {
            values.push(text.into_owned());
        }
    } else if value.is_number() {
        values.push(value.raw().to_owned());
    }
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
    fn of_too_many_values_no_word_is_left() {
        let many = |count: usize| {
            let list: Vec<String> = (0..count).map(|number| format!("\"value-{number}\"")).collect();
            hidden(&["shop/pay:list"], &format!("{{\"list\":[{}]}}", list.join(","))).unwrap()
        };
        assert_eq!(many(limit::REDACTED_VALUES_MAX).without("a value-7 here"), "a [redacted] here");
        assert_eq!(many(limit::REDACTED_VALUES_MAX + 1).without("a value-7 here"), REDACTED);
    }
}
