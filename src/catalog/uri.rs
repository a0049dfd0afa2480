//! Which URIs are routed at all, and which prefixes cover them.
//!
//! Decides by refusing: nothing is normalised, because the upstream, the policy and we would each do it
//! a little differently. Invariant: a URI that passes means the same to all three.

use crate::limit;

/// Whether a URI could confuse a matcher: dot segments, encoded separators or what could hide
/// them, backslashes, control characters, userinfo, or simply too long.
///
/// All of the text is looked at, the query too: to an upstream that reads files a `?` is a letter.
#[must_use]
pub fn is_confusing(uri: &str) -> bool {
    uri.is_empty()
        || uri.len() > limit::URI_BYTES_MAX
        || uri.chars().any(|character| character.is_control() || character == '\\')
        || has_userinfo(uri)
        || has_dot_segment(uri)
        || has_encoded_separator(uri)
}

/// Whether a prefix of `uris` covers a URI, ending where a part of the URI ends: `file:///work` does not
/// cover `file:///workspace`, nor `https://docs` the host `docs.example`.
#[must_use]
pub fn covers(prefix: &str, uri: &str) -> bool {
    let Some(rest) = uri.strip_prefix(prefix) else { return false };
    !prefix.is_empty()
        && (rest.is_empty() || prefix.ends_with(['/', ':', '?', '#', '=']) || rest.starts_with(['/', '?', '#']))
}

/// The scheme and the rest, for `scheme:rest`.
#[must_use]
pub fn scheme(uri: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = uri.split_once(':')?;
    let mut bytes = scheme.bytes();
    let plain = bytes.next().is_some_and(|first| first.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    plain.then_some((scheme, rest))
}

fn has_userinfo(uri: &str) -> bool {
    // Also where there is no scheme: `//user@host` is a reference that some parsers resolve.
    let Some((_, rest)) = uri.split_once("//") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.contains('@') || authority.to_ascii_lowercase().contains("%40")
}

/// Looked for in the text as it reads when nothing is encoded any more: an encoded `?`, `;` or `:` ends a
/// segment as well for a server that decodes before it splits.
fn has_dot_segment(uri: &str) -> bool {
    decoded(uri.as_bytes()).split(|byte| b"/?#&=:".contains(byte)).any(|segment| {
        // `..;x` is a dot segment to servers that cut parameters off, `C:..` to those that know drives.
        matches!(segment.split(|byte| *byte == b';').next(), Some(b"." | b".."))
    })
}

/// What is left when every escape is undone, however often its percent sign was encoded. One pass is enough:
/// an escape that spells part of another one encodes a letter or digit, and [`has_encoded_separator`] refuses it.
fn decoded(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match (byte == &b'%').then(|| escape(bytes, at)).flatten() {
            Some((byte, end)) => {
                text.push(byte);
                at = end;
            }
            None => {
                text.push(*byte);
                at += 1;
            }
        }
    }
    text
}

/// The byte that the escape at a percent sign stands for, behind any number of encoded percent signs, and
/// where it ends.
fn escape(bytes: &[u8], percent: usize) -> Option<(u8, usize)> {
    let mut at = percent + 1;
    while bytes.get(at..at + 2) == Some(b"25") {
        at += 2;
    }
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let byte = u8::try_from(digit(at)? * 16 + digit(at + 1)?).ok()?;
    Some((byte, at + 2))
}

/// An encoded slash, dot, backslash or control character, behind any number of encoded percent signs; an
/// encoded letter or digit, which no encoder writes and which spells another escape when decoded twice
/// (`%%32e`); and bytes that are not UTF-8, among them the overlong forms of a dot.
fn has_encoded_separator(uri: &str) -> bool {
    let bytes = uri.as_bytes();
    let bad = memchr::memchr_iter(b'%', bytes)
        .filter_map(|at| escape(bytes, at))
        .any(|(byte, _)| matches!(byte, b'/' | b'.' | b'\\' | 0..=0x1f | 0x7f) || byte.is_ascii_alphanumeric());
    bad || percent_encoding::percent_decode_str(uri).decode_utf8().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_uris_pass() {
        for uri in [
            "file:///workspace/notes.md",
            "test://template/1/data",
            "ui://clock/view.html",
            "git://repo/.github/a..b/x.",
            "https://docs.example/a%20b?q=1&r=%C3%A9#top",
            "mailto:someone@example.org",
            "file:///mnt/100%/x",
            "https://h/a%2525",
            "memo",
        ] {
            assert!(!is_confusing(uri), "{uri}");
        }
    }

    #[test]
    fn uris_that_could_mean_two_things_are_refused() {
        for uri in [
            "",
            "file:///a/../b",
            "file:///a/./b",
            "file:///a/..",
            "file:..",
            "x:./a",
            "../a",
            // Found by the fuzzer: no scheme, so the colon ends a segment.
            "x/)/sh/sx/)/:..",
            "file:///C:..",
            "file:///a/%3a..",
            "file:///a/..%3fb",
            "file:///a/..%253bx",
            "file:///a/..;x/b",
            "file:///public/x?/../secret",
            "file:///a?path=../b",
            "file:///a#/../b",
            "file:///a/%2e%2E/b",
            "file:///a%2fb",
            "file:///a%2Fb",
            "file:///a%5cb",
            "file:///a%252fb",
            "file:///a%25252Eb",
            "file:///a\\b",
            "file:///a/%%32e%%32e/b",
            "file:///a/%2%65%2%65/b",
            "file:///a/%25%32e/b",
            "file:///a/%c0%ae%c0%ae/b",
            "file:///a/%e0%80%ae/b",
            "file:///a%00b",
            "file:///a%0d%0ab",
            "file:///a\nb",
            "file:///a\u{0}b",
            "file:///a\u{85}b",
            "https://user@host/",
            "https://user:secret@host/",
            "https://user%40host/",
            "//user@host/",
        ] {
            assert!(is_confusing(uri), "{uri:?}");
        }
        assert!(is_confusing(&format!("x:{}", "a".repeat(limit::URI_BYTES_MAX))));
    }

    #[test]
    fn a_prefix_ends_where_a_part_ends() {
        assert!(covers("file:///work/", "file:///work/a"));
        assert!(covers("file:///work", "file:///work/a"));
        assert!(covers("file:///work", "file:///work"));
        assert!(covers("notes:", "notes:a"));
        assert!(!covers("file:///work", "file:///workspace"));
        assert!(!covers("https://docs", "https://docs.evil.example/"));
        assert!(!covers("", "file:///work"));
        assert!(!covers("file:///work/", "FILE:///work/a"));
    }
}
