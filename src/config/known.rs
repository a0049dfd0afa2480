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
    KNOWN.remember(secret);
}

/// The text without secrets that are known.
#[must_use]
pub fn without(text: &str) -> Cow<'_, str> {
    KNOWN.without(text)
}

#[derive(Default)]
struct Known {
    /// What is searched for: whole lines, or the beginnings of long ones.
    secrets: Mutex<VecDeque<SecretString>>,
    search: ArcSwapOption<AhoCorasick>,
}

impl Known {
    fn remember(&self, secret: &SecretString) {
        let lines = secret.expose_secret().lines().map(str::trim);
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut is_new = false;
        for line in lines.filter(|line| line.len() >= limit::KNOWN_SECRET_BYTES_MIN) {
            let sought = beginning(line);
            if !secrets.iter().any(|secret| secret.expose_secret() == sought) {
                secrets.push_back(SecretString::from(sought));
                is_new = true;
            }
        }
        if !is_new {
            return;
        }
        while secrets.len() > limit::KNOWN_SECRETS_MAX {
            secrets.pop_front();
        }
        // Small and quickly made: nobody searches much text at once.
        let search = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .kind(Some(AhoCorasickKind::NoncontiguousNFA))
            .build(secrets.iter().map(|secret| secret.expose_secret().as_bytes()));
        match search {
            Ok(search) => self.search.store(Some(search.into())),
            Err(error) => tracing::error!(%error, "defect: known secrets cannot be searched for"),
        }
    }

    fn without<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let search = self.search.load();
        let Some(search) = search.as_ref().filter(|search| search.is_match(text)) else { return Cow::Borrowed(text) };
        let (mut clean, mut at) = (String::with_capacity(text.len()), 0);
        while let Some(found) = search.find(Input::new(text).range(at..)) {
            clean.push_str(text.get(at..found.start()).unwrap_or_default());
            clean.push_str(REDACTED);
            at = found.end();
            if found.len() >= limit::KNOWN_SECRET_SOUGHT_BYTES_MAX {
                // The rest of a long one: it ends where a word does.
                let rest = text.get(at..).unwrap_or_default();
                at += rest.find(|letter: char| letter.is_whitespace() || letter == '"').unwrap_or(rest.len());
            }
        }
        clean.push_str(text.get(at..).unwrap_or_default());
        Cow::Owned(clean)
    }
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
            known.remember(&SecretString::from(secret));
        }
        let said = format!("it answered {long}{long}, a battery, and TUlJRXZRSUJBREFO");
        assert_eq!(known.without(&said), "it answered [redacted][redacted], a battery, and [redacted]");
        let least = |bytes: usize| "s".repeat(bytes);
        known.remember(&SecretString::from(least(limit::KNOWN_SECRET_BYTES_MIN - 1)));
        assert_eq!(known.without(&least(limit::KNOWN_SECRET_BYTES_MIN)), least(limit::KNOWN_SECRET_BYTES_MIN));
        known.remember(&SecretString::from(least(limit::KNOWN_SECRET_BYTES_MIN)));
        assert_eq!(known.without(&least(limit::KNOWN_SECRET_BYTES_MIN)), REDACTED);
    }

    #[test]
    fn a_long_one_is_known_by_its_beginning_and_left_out_whole() {
        let known = Known::default();
        for more in [0, 1, 9_000] {
            let long = "ab".repeat((limit::KNOWN_SECRET_SOUGHT_BYTES_MAX + more) / 2 + 1);
            known.remember(&SecretString::from(long.as_str()));
            let said = format!("it said \"{long}\" and {long} again");
            assert_eq!(known.without(&said), "it said \"[redacted]\" and [redacted] again");
        }
        let odd = format!("x{}", "é".repeat(limit::KNOWN_SECRET_SOUGHT_BYTES_MAX));
        known.remember(&SecretString::from(odd.as_str()));
        assert_eq!(known.without(&odd), REDACTED);
    }

    #[test]
    fn the_latest_are_remembered() {
        let known = Known::default();
        let lines =
            |from: usize, to: usize| (from..to).map(|number| format!("number-{number:06}\n")).collect::<String>();
        known.remember(&SecretString::from(lines(0, limit::KNOWN_SECRETS_MAX)));
        assert_eq!(known.without("number-000000"), REDACTED);
        known.remember(&SecretString::from(lines(limit::KNOWN_SECRETS_MAX, limit::KNOWN_SECRETS_MAX + 1)));
        assert_eq!(known.without("number-000000"), "number-000000");
        assert_eq!(known.without("number-000001"), REDACTED);
        assert_eq!(known.without(lines(limit::KNOWN_SECRETS_MAX, limit::KNOWN_SECRETS_MAX + 1).trim()), REDACTED);
    }
}
