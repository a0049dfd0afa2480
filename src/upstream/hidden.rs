//! What a child knows and nobody is to read in the log: the secrets among its variables, and what it was handed.
//!
//! Decides what is left out of a line that it writes on standard error. Knows nothing of processes. Invariant: a secret
//! that a child was given stays hidden for as long as the child lives, also after it was given another one.

use std::borrow::Cow;
use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};

use super::handover::Ever;

/// What stands in the place of a secret.
const HIDDEN: &str = "[credential]";
/// So much of the beginning of one is nothing that could be guessed from; a variable that is shorter may well be a word
/// that has to be read, such as `true`.
const HIDDEN_BYTES_MIN: usize = 8;

/// What one child knows.
#[derive(Debug)]
pub(super) struct Hidden {
    /// Of its variables, each line by itself: that is how it would come.
    written: Vec<SecretString>,
    given: Option<Arc<Ever>>,
}

impl Hidden {
    pub(super) fn new(secrets: &[SecretString], given: Option<Arc<Ever>>) -> Self {
        let lines = secrets.iter().flat_map(|secret| secret.expose_secret().lines().map(str::trim));
        let lines = lines.filter(|line| line.len() >= HIDDEN_BYTES_MIN);
        let mut written: Vec<SecretString> = lines.map(SecretString::from).collect();
        // One may stand within another.
        written.sort_by_key(|secret| std::cmp::Reverse(secret.expose_secret().len()));
        Self { written, given }
    }

    /// A line without them.
    pub(super) fn left_out_of<'a>(&self, line: &'a str) -> Cow<'a, str> {
        let given = self.given.as_ref().map(|given| given.all()).unwrap_or_default();
        let secrets = self.written.iter().chain(given.iter().map(|handed| handed.secret()));
        let mut left = Cow::Borrowed(line);
        for secret in secrets {
            if let Cow::Owned(without) = without(&left, secret.expose_secret()) {
                left = Cow::Owned(without);
            }
        }
        left
    }
}

/// A line without the secret, also where the line was cut in the middle of it.
fn without<'a>(line: &'a str, secret: &str) -> Cow<'a, str> {
    if secret.is_empty() {
        return Cow::Borrowed(line);
    }
    let whole = if line.contains(secret) { Cow::Owned(line.replace(secret, HIDDEN)) } else { Cow::Borrowed(line) };
    let begun = (HIDDEN_BYTES_MIN..secret.len()).rev().filter_map(|length| secret.get(..length));
    match begun.into_iter().find_map(|begun| whole.strip_suffix(begun)) {
        Some(rest) => Cow::Owned(format!("{rest}{HIDDEN}")),
        None => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delegate::Handed;
    use crate::limit;
    use crate::upstream::handover::Hand;

    fn hidden(secrets: &[&str], hand: Option<&Hand>) -> Hidden {
        let secrets: Vec<SecretString> = secrets.iter().copied().map(SecretString::from).collect();
        Hidden::new(&secrets, hand.map(Hand::given))
    }

    #[test]
    fn what_a_child_says_is_shown_without_what_it_was_handed() {
        let hand = Hand::new(Handed::of("secret-token-of-hers", b"", None), None);
        let hidden = hidden(&[], Some(&hand));
        let shown = |line: &str| hidden.left_out_of(line).into_owned();
        assert_eq!(shown("a secret-token-of-hers, twice: secret-token-of-hers"), "a [credential], twice: [credential]");
        assert_eq!(shown("cut in the middle: secret-tok"), "cut in the middle: [credential]");
        assert_eq!(shown("a secret is no secret"), "a secret is no secret");
        assert_eq!(without("a line", ""), "a line");
    }

    #[test]
    fn the_secrets_among_its_variables_are_left_out_as_well() {
        let pem = "-----BEGIN KEY-----\nMIIEvQIBADANBg\n-----END KEY-----";
        let hidden = hidden(&["sk-live-1", "sk-live-1-and-more", pem, "true"], None);
        let shown = |line: &str| hidden.left_out_of(line).into_owned();
        assert_eq!(shown("key=sk-live-1-and-more other=sk-live-1"), "key=[credential] other=[credential]");
        assert_eq!(shown("bad key: MIIEvQIBADANBg"), "bad key: [credential]");
        assert_eq!(shown("it is true"), "it is true", "a word is no secret");
    }

    #[test]
    fn what_it_was_handed_before_stays_hidden_for_as_long_as_that_is_remembered() {
        let token = |number: usize| format!("token-number-{number:03}");
        let hand = Hand::new(Handed::of(&token(0), b"", Some((0, 1))), None);
        let hidden = hidden(&[], Some(&hand));
        for number in 1..=limit::HANDED_REMEMBERED_MAX {
            let at = i64::try_from(number).unwrap();
            hand.renew(&Handed::of(&token(number), b"", Some((at, at + 1)))).unwrap();
            assert_eq!(hidden.left_out_of(&token(number - 1)), "[credential]", "{number}");
        }
        assert_eq!(hidden.left_out_of(&token(1)), "[credential]");
        assert_eq!(hidden.left_out_of(&token(0)), token(0), "so many are remembered");
    }
}
