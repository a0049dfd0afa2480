//! Secrets that this process has read: whatever is printed or written down in words is looked through for them.
//!
//! Decides what is long enough to be told from a word. Refuses to know where a secret came from and who prints what.
//! Invariants: what was read is known before anybody can use it; so many are remembered, the latest; none is shown here.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{LazyLock, Mutex, PoisonError};

use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, MatchKind};
use arc_swap::ArcSwapOption;
use secrecy::{ExposeSecret as _, SecretString};

use crate::limit;

/// What stands in the place of one.
const REDACTED: &str = "[redacted]";

static KNOWN: LazyLock<Known> = LazyLock::new(Known::default);

/// Remembers a secret, each of its lines by itself: that is how it would come. What is shorter than
/// [`limit::KNOWN_SECRET_BYTES_MIN`] may be a word that has to be read.
pub fn remember(secret: &SecretString) {
    KNOWN.remember(secret, Kind::Secret);
}

/// The same of a key of our own: it is read once and used for as long as we live, however many others are read meanwhile.
pub fn remember_key(secret: &SecretString) {
    KNOWN.remember(secret, Kind::Key);
}

/// The text without secrets that are known.
#[must_use]
pub fn without(text: &str) -> Cow<'_, str> {
    KNOWN.without(text)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Secret,
    Key,
}

#[derive(Default)]
struct Known {
    secrets: Mutex<Secrets>,
    search: ArcSwapOption<Search>,
}

/// What is searched for: whole lines, or the beginnings of long ones; those that were read last come last.
#[derive(Default)]
struct Secrets {
    others: VecDeque<SecretString>,
    keys: VecDeque<SecretString>,
}

struct Search {
    /// Each in every way in which it may be spelled.
    spelled: AhoCorasick,
    /// For each of those whether it is the beginning of a long one.
    long: Vec<bool>,
}

impl Known {
    fn remember(&self, secret: &SecretString, kind: Kind) {
        let lines = secret.expose_secret().lines().map(str::trim);
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut is_new = false;
        for line in lines.filter(|line| line.len() >= limit::KNOWN_SECRET_BYTES_MIN) {
            let sought = beginning(line);
            let kept = match kind {
                Kind::Secret => &mut secrets.others,
                Kind::Key => &mut secrets.keys,
            };
            // What is read again and again pushes nothing out, and is not pushed out.
            let before = kept.iter().position(|secret| secret.expose_secret() == sought);
            is_new |= before.is_none();
            let known = before.and_then(|before| kept.remove(before));
            kept.push_back(known.unwrap_or_else(|| SecretString::from(sought)));
            while kept.len() > limit::KNOWN_SECRETS_MAX {
                kept.pop_front();
            }
        }
        if !is_new {
            return;
        }
        // Small and quickly made: nobody searches much text at once.
        match Search::of(secrets.others.iter().chain(&secrets.keys)) {
            Ok(search) => self.search.store(Some(search.into())),
            Err(error) => tracing::error!(%error, "defect: known secrets cannot be searched for"),
        }
    }

    fn without<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let search = self.search.load();
        let search = search.as_ref().filter(|search| search.spelled.is_match(text));
        let Some(Search { spelled, long }) = search.map(AsRef::as_ref) else { return Cow::Borrowed(text) };
        let (mut clean, mut at) = (String::with_capacity(text.len()), 0);
        while let Some(found) = spelled.find(Input::new(text).range(at..)) {
            clean.push_str(text.get(at..found.start()).unwrap_or_default());
            clean.push_str(REDACTED);
            at = found.end();
            if long.get(found.pattern().as_usize()).copied().unwrap_or_default() {
                // The rest of a long one: it ends where a word does.
                let rest = text.get(at..).unwrap_or_default();
                at += rest.find(|letter: char| letter.is_whitespace() || letter == '"').unwrap_or(rest.len());
            }
        }
        clean.push_str(text.get(at..).unwrap_or_default());
        Cow::Owned(clean)
    }
}

impl Search {
    fn of<'s>(secrets: impl Iterator<Item = &'s SecretString>) -> Result<Self, aho_corasick::BuildError> {
        let (mut words, mut long): (Vec<String>, Vec<bool>) = (Vec::new(), Vec::new());
        for secret in secrets {
            let is_long = secret.expose_secret().len() >= limit::KNOWN_SECRET_SOUGHT_BYTES_MAX;
            for spelled in spellings(secret.expose_secret()) {
                words.push(spelled);
                long.push(is_long);
            }
        }
        let spelled = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .kind(Some(AhoCorasickKind::NoncontiguousNFA))
            .build(&words)?;
        Ok(Self { spelled, long })
    }
}

/// As it is, as JSON writes it, as Rust shows a text, and that in JSON: lines of the log are the one or the other.
fn spellings(secret: &str) -> Vec<String> {
    fn quoted(text: &str) -> String {
        text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text).to_owned()
    }
    let json = |text: &str| quoted(&serde_json::to_string(text).unwrap_or_default());
    let shown = quoted(&format!("{secret:?}"));
    let mut all = vec![secret.to_owned(), json(secret), json(&shown), shown];
    all.retain(|spelled| !spelled.is_empty());
    all.sort_unstable();
    all.dedup();
    all
}

/// So much of a line as is searched for: whole characters, and never fewer bytes than a long one is known by.
fn beginning(line: &str) -> &str {
    let mut end = line.len().min(limit::KNOWN_SECRET_SOUGHT_BYTES_MAX);
    while !line.is_char_boundary(end) {
        end += 1;
    }
    line.get(..end).unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_left_out_of_whatever_is_said_and_a_word_is_not() {
        let known = Known::default();
        let [long, pem, short] = ["correct-horse-battery", "-----BEGIN X-----\r\nTUlJRXZRSUJBREFO\n", "battery"];
        assert_eq!(known.without(long), long);
        for secret in [long, pem, short] {
            known.remember(&SecretString::from(secret), Kind::Secret);
        }
        let said = format!("it answered {long}{long}, a battery, and TUlJRXZRSUJBREFO");
        assert_eq!(known.without(&said), "it answered [redacted][redacted], a battery, and [redacted]");
        let least = |bytes: usize| "s".repeat(bytes);
        known.remember(&SecretString::from(least(limit::KNOWN_SECRET_BYTES_MIN - 1)), Kind::Secret);
        assert_eq!(known.without(&least(limit::KNOWN_SECRET_BYTES_MIN)), least(limit::KNOWN_SECRET_BYTES_MIN));
        known.remember(&SecretString::from(least(limit::KNOWN_SECRET_BYTES_MIN)), Kind::Secret);
        assert_eq!(known.without(&least(limit::KNOWN_SECRET_BYTES_MIN)), REDACTED);
    }

    #[test]
    fn a_long_one_is_known_by_its_beginning_and_left_out_whole() {
        let known = Known::default();
        for more in [0, 1, 9_000] {
            let long = "ab".repeat((limit::KNOWN_SECRET_SOUGHT_BYTES_MAX + more) / 2 + 1);
            known.remember(&SecretString::from(long.as_str()), Kind::Secret);
            let said = format!("it said \"{long}\" and {long} again");
            assert_eq!(known.without(&said), "it said \"[redacted]\" and [redacted] again");
        }
        let odd = format!("x{}", "é".repeat(limit::KNOWN_SECRET_SOUGHT_BYTES_MAX));
        known.remember(&SecretString::from(odd.as_str()), Kind::Secret);
        assert_eq!(known.without(&odd), REDACTED);
    }

    #[test]
    fn one_with_quotes_is_found_however_a_line_spells_it() {
        let known = Known::default();
        let secret = "pa\"ss\\word\u{7}-123";
        known.remember(&SecretString::from(secret), Kind::Secret);
        let said = |text: &str| format!("it answered {text}");
        let json = |text: &str| serde_json::to_string(text).unwrap();
        for text in
            [said(secret), json(&said(secret)), format!("{:?}", said(secret)), json(&format!("{:?}", said(secret)))]
        {
            let clean = known.without(&text).into_owned();
            assert!(clean.contains("it answered [redacted]") && !clean.contains("word"), "{text}: {clean}");
        }
    }

    #[test]
    fn what_is_read_again_stays_and_a_key_is_pushed_out_by_nothing_else() {
        let known = Known::default();
        let remember = |text: &str, kind| known.remember(&SecretString::from(text), kind);
        remember("the-key-of-the-start", Kind::Key);
        remember("read-every-minute", Kind::Secret);
        for number in 0..2 * limit::KNOWN_SECRETS_MAX {
            if number % 100 == 0 {
                let lines: String = (0..100).map(|line| format!("number-{:06}\n", number + line)).collect();
                remember(&lines, Kind::Secret);
                remember("read-every-minute", Kind::Secret);
            }
        }
        assert_eq!(known.without("number-000000"), "number-000000");
        assert_eq!(known.without("read-every-minute"), REDACTED);
        assert_eq!(known.without("the-key-of-the-start"), REDACTED);
    }

    #[test]
    fn the_latest_are_remembered() {
        let known = Known::default();
        let lines =
            |from: usize, to: usize| (from..to).map(|number| format!("number-{number:06}\n")).collect::<String>();
        known.remember(&SecretString::from(lines(0, limit::KNOWN_SECRETS_MAX)), Kind::Secret);
        assert_eq!(known.without("number-000000"), REDACTED);
        known
            .remember(&SecretString::from(lines(limit::KNOWN_SECRETS_MAX, limit::KNOWN_SECRETS_MAX + 1)), Kind::Secret);
        assert_eq!(known.without("number-000000"), "number-000000");
        assert_eq!(known.without("number-000001"), REDACTED);
        assert_eq!(known.without(lines(limit::KNOWN_SECRETS_MAX, limit::KNOWN_SECRETS_MAX + 1).trim()), REDACTED);
    }
}
