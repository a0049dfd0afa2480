//! Decides what free text must never reach a disk, a log or a metric: secrets that this process has read, and those that
//! can be recognised by their shape.
//!
//! Refuses to know where the text came from. Invariant: what matches a pattern is gone completely; it
//! is better to lose a word too many. This is the second line of defence: the first is that secrets
//! live in types that cannot be printed.

use std::borrow::Cow;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, Input, MatchKind};
use serde::Serializer;

use crate::config::known;
use crate::limit;

/// The text without secrets that are known or recognisable, cut to [`limit::RECORD_TEXT_BYTES_MAX`].
#[must_use]
pub fn text(text: &str) -> Cow<'_, str> {
    // Redacted before it is cut: half a token would no longer be recognised.
    short(secrets(text))
}

/// The text with every secret that is known or recognisable replaced by `[redacted]`.
#[must_use]
pub fn secrets(text: &str) -> Cow<'_, str> {
    match known::without(text) {
        Cow::Borrowed(text) => shapes(text),
        Cow::Owned(text) => Cow::Owned(shapes(&text).into_owned()),
    }
}

fn short(text: Cow<'_, str>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(cut(text)),
        Cow::Owned(text) if text.len() <= limit::RECORD_TEXT_BYTES_MAX => Cow::Owned(text),
        Cow::Owned(text) => Cow::Owned(cut(&text).to_owned()),
    }
}

/// The text without what has the shape of a secret.
fn shapes(text: &str) -> Cow<'_, str> {
    let Some(prefixes) = &*PREFIXES else { return Cow::Borrowed("[redacted]") };
    let mut clean = String::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some(found) = prefixes.find(Input::new(text).range(at..)) {
        let start = found.start();
        let matched = PATTERNS.get(found.pattern().as_usize()).and_then(|pattern| pattern.at(text.as_bytes(), start));
        let Some((kept, length)) = matched else {
            at = start + 1;
            continue;
        };
        clean.push_str(text.get(copied..start + kept).unwrap_or_default());
        clean.push_str("[redacted]");
        at = start + length;
        copied = at;
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    clean.push_str(text.get(copied..).unwrap_or_default());
    Cow::Owned(clean)
}

/// For `#[serde(serialize_with = ...)]` on names that somebody else chose: every line has some, so that they are looked
/// through for shapes alone.
pub(super) fn serialize<S: Serializer>(value: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&short(shapes(value)))
}

/// The same for a name that may be missing.
pub(super) fn serialize_option<S: Serializer>(value: &Option<&str>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.serialize_some(&*short(shapes(value))),
        None => serializer.serialize_none(),
    }
}

/// For `#[serde(serialize_with = ...)]` on what was said in words, by people or by whatever went wrong.
pub(super) fn serialize_words<S: Serializer>(value: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text(value))
}

/// The same for words that may be missing.
pub(super) fn serialize_words_option<S: Serializer>(value: &Option<&str>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => serializer.serialize_some(&*text(value)),
        None => serializer.serialize_none(),
    }
}

/// For `#[serde(serialize_with = ...)]` on an optional list of texts that somebody else chose.
pub(super) fn serialize_list<S: Serializer, T: AsRef<str>>(
    values: &Option<&[T]>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match values {
        Some(values) => serializer.collect_seq(values.iter().map(|value| short(shapes(value.as_ref())))),
        None => serializer.serialize_none(),
    }
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(limit::RECORD_TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// How one kind of secret is recognised: ASCII prefix, then a run of allowed characters.
struct Pattern {
    prefix: &'static [u8],
    /// Whether the prefix is kept (it is a word, not part of the secret).
    keep: bool,
    /// Whether it must begin a word: short prefixes are parts of harmless words.
    word: bool,
    run: fn(u8) -> bool,
    run_min: usize,
}

const fn pattern(prefix: &'static str, run: fn(u8) -> bool, run_min: usize) -> Pattern {
    Pattern { prefix: prefix.as_bytes(), keep: false, word: false, run, run_min }
}

const fn keep(prefix: &'static str, run: fn(u8) -> bool) -> Pattern {
    Pattern { prefix: prefix.as_bytes(), keep: true, word: false, run, run_min: 1 }
}

const fn word(prefix: &'static str, run: fn(u8) -> bool, run_min: usize) -> Pattern {
    Pattern { prefix: prefix.as_bytes(), keep: false, word: true, run, run_min }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

fn is_value(byte: u8) -> bool {
    !byte.is_ascii_whitespace() && !b"&\"';,<>)".contains(&byte)
}

/// Everything up to the end: nothing after the start of a private key is worth keeping.
const fn is_anything(_: u8) -> bool {
    true
}

const PATTERNS: &[Pattern] = &[
    pattern("eyJ", is_token, 16),
    keep("bearer ", is_token),
    keep("bearer%20", is_token),
    keep("basic ", is_token),
    keep("dpop ", is_token),
    pattern("bwk_", is_word, 16),
    pattern("ghp_", is_word, 16),
    pattern("gho_", is_word, 16),
    pattern("ghu_", is_word, 16),
    pattern("ghs_", is_word, 16),
    pattern("ghr_", is_word, 16),
    pattern("github_pat_", is_word, 16),
    pattern("glpat-", is_word, 16),
    pattern("AKIA", |byte| byte.is_ascii_uppercase() || byte.is_ascii_digit(), 16),
    pattern("ASIA", |byte| byte.is_ascii_uppercase() || byte.is_ascii_digit(), 16),
    pattern("AIza", is_word, 30),
    pattern("xoxb-", is_word, 10),
    pattern("xoxp-", is_word, 10),
    word("sk-", is_word, 20),
    word("sk_live_", is_word, 16),
    pattern("-----BEGIN ", is_anything, 1),
    keep("token=", is_value),
    keep("client_secret=", is_value),
    keep("client_assertion=", is_value),
    keep("assertion=", is_value),
    keep("password=", is_value),
    keep("secret=", is_value),
    keep("api_key=", is_value),
    keep("apikey=", is_value),
];

impl Pattern {
    /// Whether it matches where its prefix was found: how many bytes stay, and how long the whole match is.
    fn at(&self, text: &[u8], start: usize) -> Option<(usize, usize)> {
        let before = start.checked_sub(1).and_then(|before| text.get(before)).copied();
        let rest = text.get(start..)?;
        let same = self.keep || rest.starts_with(self.prefix);
        if !same || (self.word && before.is_some_and(is_word)) {
            return None;
        }
        let run = rest.get(self.prefix.len()..)?.iter().take_while(|byte| (self.run)(**byte)).count();
        let kept = if self.keep { self.prefix.len() } else { 0 };
        (run >= self.run_min).then_some((kept, self.prefix.len() + run))
    }
}

/// Finds where a prefix stands, in any case; every line of the record is searched, so all are looked for at once.
/// None begins with another one, so at most one stands at a place.
static PREFIXES: LazyLock<Option<AhoCorasick>> = LazyLock::new(|| {
    AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .match_kind(MatchKind::LeftmostFirst)
        .build(PATTERNS.iter().map(|pattern| pattern.prefix))
        .inspect_err(|error| tracing::error!(%error, "defect: secrets cannot be searched for; no text is kept"))
        .ok()
});

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_shapes_of_secrets_are_removed() {
        for (dirty, clean) in [
            ("got eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl from b", "got [redacted] from b"),
            ("header Authorization: Bearer abc.def-ghi", "header Authorization: Bearer [redacted]"),
            ("BEARER abc", "BEARER [redacted]"),
            ("ghp_0123456789abcdefABCD is bad", "[redacted] is bad"),
            ("key AKIAIOSFODNN7EXAMPLE", "key [redacted]"),
            ("-----BEGIN PRIVATE KEY-----\nMII\n-----END PRIVATE KEY-----", "[redacted]"),
            ("https://a.example/x?access_token=abc&b=1", "https://a.example/x?access_token=[redacted]&b=1"),
            ("a task-force-of-twenty-letters-and-more", "a task-force-of-twenty-letters-and-more"),
            ("plain words", "plain words"),
        ] {
            assert_eq!(secrets(dirty), clean);
        }
    }

    #[test]
    fn what_is_said_in_words_is_looked_through_for_secrets_that_were_read() {
        #[derive(serde::Serialize)]
        struct Said<'a> {
            #[serde(serialize_with = "serialize_words")]
            words: &'a str,
            #[serde(serialize_with = "serialize_words_option")]
            more: Option<&'a str>,
        }
        known::remember(&secrecy::SecretString::from("no-shape-at-all-7"));
        let said = "refused: no-shape-at-all-7 is wrong";
        let told = serde_json::to_value(Said { words: said, more: Some(said) }).unwrap();
        assert_eq!(told["words"], "refused: [redacted] is wrong");
        assert_eq!(told["more"], told["words"]);
        assert_eq!(secrets("password=no-shape-at-all-7"), "password=[redacted]");
    }

    #[test]
    fn no_prefix_begins_with_another_one() {
        for (index, one) in PATTERNS.iter().enumerate() {
            for (other, two) in PATTERNS.iter().enumerate() {
                let begins = two.prefix.to_ascii_lowercase().starts_with(&one.prefix.to_ascii_lowercase());
                assert!(index == other || !begins, "{index} and {other}");
            }
        }
    }

    #[test]
    fn long_text_is_cut_after_it_was_redacted() {
        let long = format!("{}eyJ{}", "é".repeat(limit::RECORD_TEXT_BYTES_MAX / 2 - 4), "a".repeat(600));
        let clean = text(&long);
        assert!(clean.len() <= limit::RECORD_TEXT_BYTES_MAX);
        assert!(!clean.contains("eyJ"), "a cut token is still a token: {clean}");
    }

    proptest! {
        #[test]
        fn a_canary_never_survives(
            before in "[ -~é]{0,40}",
            canary in prop_oneof![
                "eyJ[A-Za-z0-9_-]{20}\\.[A-Za-z0-9_-]{20}\\.[A-Za-z0-9_-]{20}",
                "ghp_[A-Za-z0-9]{36}",
                "AKIA[A-Z0-9]{16}",
                "Bearer [A-Za-z0-9]{12,40}",
            ],
            after in "[ -~é]{0,40}",
        ) {
            let secret = canary.strip_prefix("Bearer ").unwrap_or(&canary);
            let clean = secrets(&format!("{before}{canary}{after}")).into_owned();
            prop_assert!(!clean.contains(secret), "{clean}");
        }
    }
}
