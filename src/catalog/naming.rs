//! How a tool or prompt is called on `/mcp`: `server__name`, short and plain, whatever the upstream calls it.
//!
//! Knows one server and one name at a time, so adding a server renames nothing. Names are looked up in a
//! table and never split. Invariant: two different (server, name) pairs have two different public names,
//! up to 40 bits of a digest for names that had to be replaced; those collide inside one server only.

use crate::config::Prefix;
use crate::ids::{Digest, ServerId};
use crate::limit;

const SEPARATOR: &str = "__";
const SUFFIX_LENGTH: usize = 8;

/// How the names of a server appear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// `server__name`.
    Prefixed,
    /// The upstream's own: on `/mcp/{server}`, and on `/mcp` with `prefix = "none"`.
    Verbatim,
}

impl From<Prefix> for Naming {
    fn from(prefix: Prefix) -> Self {
        match prefix {
            Prefix::Server => Self::Prefixed,
            Prefix::None => Self::Verbatim,
        }
    }
}

/// What every prefixed name of a server begins with; no other server's does, because ids have no `_`.
#[must_use]
pub fn prefix(server: &ServerId) -> String {
    format!("{server}{SEPARATOR}")
}

/// The public name of a tool or prompt.
#[must_use]
pub fn public_name(server: &ServerId, naming: Naming, name: &str) -> String {
    if naming == Naming::Verbatim {
        return name.to_owned();
    }
    let mut public = prefix(server);
    if is_plain(name) && public.len() + name.len() <= limit::PUBLIC_NAME_BYTES_MAX && !looks_replaced(name) {
        public.push_str(name);
        return public;
    }
    let room = limit::PUBLIC_NAME_BYTES_MAX.saturating_sub(public.len() + 1 + SUFFIX_LENGTH);
    let readable = |character: char| if is_plain_character(character) { character } else { '_' };
    public.extend(name.chars().map(readable).take(room));
    public.push('_');
    public.push_str(&suffix(server, name));
    public
}

/// Eight base32 characters of the digest, at least one of them a digit, which tells them from a word.
fn suffix(server: &ServerId, name: &str) -> String {
    let mut suffix = String::new();
    for attempt in 0_u8..=u8::MAX {
        let digest = Digest::of("bailiwick public name", &[server.as_str().as_bytes(), name.as_bytes(), &[attempt]]);
        suffix = data_encoding::BASE32_NOPAD.encode(digest.as_bytes()).to_ascii_lowercase();
        suffix.truncate(SUFFIX_LENGTH);
        if has_digit(&suffix) {
            break;
        }
    }
    suffix
}

/// Whether a plain name could be taken for a replaced one; it is replaced too, so that the two never meet.
fn looks_replaced(name: &str) -> bool {
    name.rsplit_once('_').is_some_and(|(_, last)| is_suffix(last))
}

fn is_suffix(text: &str) -> bool {
    text.len() == SUFFIX_LENGTH
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'2'..=b'7'))
        && has_digit(text)
}

fn has_digit(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_digit())
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(is_plain_character)
}

const fn is_plain_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-')
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn name(server: &str, name: &str) -> String {
        public_name(&ServerId::new(server).unwrap(), Naming::Prefixed, name)
    }

    #[test]
    fn a_plain_short_name_is_only_prefixed() {
        assert_eq!(name("git", "git_commit"), "git__git_commit");
        assert_eq!(name("notes", "list_projects"), "notes__list_projects");
        assert_eq!(name("a", &"x".repeat(45)), format!("a__{}", "x".repeat(45)));
    }

    #[test]
    fn anything_else_stays_readable_and_fits() {
        let public = name("db", "query.run");
        assert!(public.starts_with("db__query_run_") && public.len() == "db__query_run_".len() + 8, "{public}");
        let long = name("a-long-server-id", &"very_long_tool_name".repeat(50));
        assert_eq!(long.len(), limit::PUBLIC_NAME_BYTES_MAX);
        assert_ne!(name("db", "query.run"), name("db", "query:run"));
        // The first letter is Cyrillic.
        assert_ne!(name("db", "\u{430}dmin"), name("db", "admin"));
    }

    #[test]
    fn a_name_made_to_look_like_a_replaced_one_does_not_meet_it() {
        let replaced = name("db", "query.run");
        let imitation = replaced.strip_prefix("db__").unwrap();
        assert_ne!(name("db", imitation), replaced);
    }

    #[test]
    fn the_spelling_of_replaced_names_is_fixed_for_ever() {
        insta::assert_snapshot!(name("db", "query.run"), @"db__query_run_bur74cab");
        insta::assert_snapshot!(name("git", "\u{202e}commit\n"), @"git___commit__gdh5ncqw");
    }

    proptest! {
        #[test]
        fn public_names_are_legal_and_repeatable(
            server in "[a-z0-9-]{1,16}", own in prop_oneof!["\\PC{0,80}", "[a-zA-Z0-9_.-]{0,60}", ".{0,20}"],
        ) {
            let public = name(&server, &own);
            prop_assert!(public.len() <= limit::PUBLIC_NAME_BYTES_MAX);
            prop_assert!(public.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-'), "{public}");
            let prefix = format!("{server}__");
            prop_assert!(public.starts_with(&prefix));
            prop_assert_eq!(name(&server, &own), public);
        }

        #[test]
        fn different_primitives_have_different_names(
            pairs in proptest::collection::hash_set(("[a-b-]{1,2}", "[a-b_.2]{0,12}"), 2..40),
        ) {
            let mut seen: HashMap<String, (String, String)> = HashMap::new();
            // Each name also comes as an imitation of its own public name.
            let imitations: Vec<_> = pairs.iter().map(|(server, own)| {
                (server.clone(), name(server, own).strip_prefix(&format!("{server}__")).unwrap().to_owned())
            }).collect();
            for pair in pairs.into_iter().chain(imitations) {
                let public = name(&pair.0, &pair.1);
                if let Some(other) = seen.insert(public.clone(), pair.clone()) {
                    prop_assert_eq!(other, pair, "{}", public);
                }
            }
        }
    }
}
