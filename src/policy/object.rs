//! Objects, `server/name`, and the patterns that rules write for them.
//!
//! Decides whether a pattern means an object. Casbin's stock matchers panic, are unanchored or let `*`
//! cross a `/`; this is the only matcher, registered with Casbin and used for choosing candidate rows
//! alike. Invariant: matching is anchored at both ends, and no name that an upstream chooses is a set.

use std::sync::Arc;

use crate::ids::Action;

/// Sets that exist without any member: administrators label tools with them.
pub const RESERVED_SETS: [&str; 4] = ["@read", "@write", "@destructive", "@external"];

/// How a rule names objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ObjectPattern {
    /// As written.
    pub(super) text: Arc<str>,
    /// How it is looked up.
    pub(super) kind: PatternKind,
}

/// How a pattern is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PatternKind {
    /// One object, verbatim.
    Exact,
    /// A set: `server/@name` or `*/@name`.
    Set,
    /// With `*`.
    Glob,
}

impl ObjectPattern {
    /// Checks the spelling for an action.
    pub(super) fn parse(text: &str, action: &Action) -> Result<Self, String> {
        let Some((server, name)) = text.split_once('/') else {
            return Err(format!("`{text}` is not an object; write SERVER/NAME"));
        };
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'*';
        if server.is_empty() || !server.bytes().all(plain) || server.contains("**") {
            return Err(format!("`{server}` is not a server; write its id, or * for every server"));
        }
        if name.contains("***") {
            return Err("`***` means nothing; write * or **".to_owned());
        }
        if name.contains("**") && !crosses(action_text(action).as_ref()) {
            return Err(format!("`**` is for URIs (read, subscribe, complete); write * for {action}"));
        }
        if name.is_empty() && !is_server_wide(action) {
            return Err(format!("the name is missing; write {server}/* for all of them"));
        }
        if let Some(set) = name.strip_prefix('@') {
            if set.is_empty() || !set.bytes().all(|byte| plain(byte) && byte != b'*') {
                return Err(format!("`@{set}` is not a set; use a-z, 0-9 and -, or \\@ for a name that starts with @"));
            }
            if server != "*" && server.contains('*') {
                return Err(format!(
                    "`{server}` cannot be part of a set; write the server's id, or * for every server"
                ));
            }
            return Ok(Self { text: text.into(), kind: PatternKind::Set });
        }
        let kind = if text.contains('*') { PatternKind::Glob } else { PatternKind::Exact };
        Ok(Self { text: text.into(), kind })
    }

    /// The server part.
    pub(super) fn server(&self) -> &str {
        self.text.split_once('/').map_or("", |(server, _)| server)
    }

    /// The name part.
    pub(super) fn name(&self) -> &str {
        self.text.split_once('/').map_or("", |(_, name)| name)
    }

    /// Whether the server part names exactly one server.
    pub(super) fn names_one_server(&self) -> bool {
        !self.server().contains('*')
    }

    /// Whether everything that `other` means is surely meant by this too.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.text == other.text
            || (self.kind == PatternKind::Glob
                && other.kind != PatternKind::Set
                && (matches!(&*self.text, "*/*" | "*/**")
                    && !other.name().contains('/')
                    && !other.name().contains("**")
                    || &*self.text == "*/**"
                    || (other.kind == PatternKind::Exact && matches(&other.text, &self.text, true))))
    }
}

fn action_text(action: &Action) -> std::borrow::Cow<'static, str> {
    match action {
        Action::Read => "read".into(),
        Action::Subscribe => "subscribe".into(),
        Action::Complete => "complete".into(),
        Action::Call | Action::Get | Action::Elicit | Action::Sample | Action::Roots | Action::Admin => "".into(),
        Action::Method(_) => "".into(),
    }
}

/// Whether `**` may cross a `/` for this action: where names are URIs.
pub(super) fn crosses(action: &str) -> bool {
    matches!(action, "read" | "subscribe" | "complete")
}

/// Whether the action is about a server and not about one of its primitives: its objects have no name.
pub(super) fn is_server_wide(action: &Action) -> bool {
    matches!(action, Action::Elicit | Action::Sample | Action::Roots | Action::Method(_))
}

/// The object of a request. A name that starts like a set is escaped, so that it never is one.
pub(super) fn object(server: &str, name: &str) -> String {
    let escape = if name.starts_with(['@', '\\']) { "\\" } else { "" };
    format!("{server}/{escape}{name}")
}

/// Whether a pattern means an object: `*` within a segment, `**` across segments where `crossing`.
///
/// Sets are never matched here, only through `g2`.
#[must_use]
pub(super) fn matches(object: &str, pattern: &str, crossing: bool) -> bool {
    let (Some((server, name)), Some((server_pattern, name_pattern))) =
        (object.split_once('/'), pattern.split_once('/'))
    else {
        return false;
    };
    !name_pattern.starts_with('@')
        && glob(server.as_bytes(), server_pattern.as_bytes(), false)
        && glob(name.as_bytes(), name_pattern.as_bytes(), crossing)
}

/// Whether a pattern's server part means a server.
pub(super) fn server_matches(server: &str, pattern: &str) -> bool {
    glob(server.as_bytes(), pattern.as_bytes(), false)
}

/// Anchored matching by backtracking to the last `*`, then to the last `**`; quadratic at worst.
fn glob(text: &[u8], pattern: &[u8], crossing: bool) -> bool {
    let (mut at, mut next) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    let mut double: Option<(usize, usize)> = None;
    loop {
        match pattern.get(next) {
            Some(b'*') if crossing && pattern.get(next + 1) == Some(&b'*') => {
                next += 2;
                double = Some((next, at));
                star = None;
                continue;
            }
            Some(b'*') => {
                next += 1;
                star = Some((next, at));
                continue;
            }
            Some(literal) if text.get(at) == Some(literal) => {
                at += 1;
                next += 1;
                continue;
            }
            None if at == text.len() => return true,
            _ => {}
        }
        // Let the last `*` take one more byte of its segment; where it cannot, the last `**`.
        match (star, double) {
            (Some((after, taken)), _) if text.get(taken).is_some_and(|byte| *byte != b'/') => {
                star = Some((after, taken + 1));
                (next, at) = (after, taken + 1);
            }
            (_, Some((after, taken))) if taken < text.len() => {
                star = None;
                double = Some((after, taken + 1));
                (next, at) = (after, taken + 1);
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_stays_in_its_segment_and_both_ends_are_anchored() {
        for (object, pattern, expected) in [
            ("github/list", "github/list", true),
            ("github/list", "github/*", true),
            ("github/list", "*/list", true),
            ("github/list", "github/li", false),
            ("evil-github/list", "github/list", false),
            ("github/a/b", "github/*", false),
            ("github/a/b", "github/*/*", true),
            ("github/a/b", "*", false),
            ("github/List", "github/list", false),
            ("github/delete_repo", "github/*read", false),
            ("github/gé", "github/gi*", false),
            ("github/fsXread", "github/fs.read", false),
            ("github/", "github/*", true),
        ] {
            assert_eq!(matches(object, pattern, false), expected, "{object} {pattern}");
        }
    }

    #[test]
    fn two_stars_cross_segments_only_for_uris() {
        assert!(matches("fs/file:///srv/a/b", "fs/file:///srv/**", true));
        assert!(matches("fs/file:///srv/a/b.md", "fs/file:///srv/**/*.md", true));
        assert!(!matches("fs/file:///srv/a/b", "fs/file:///srv/**", false));
        assert!(!matches("fs/file:///etc/a", "fs/file:///srv/**", true));
    }

    #[test]
    fn a_tool_that_is_called_like_a_set_is_not_the_set() {
        assert_eq!(object("github", "@read"), "github/\\@read");
        assert!(!matches(&object("github", "@read"), "github/@read", false));
        assert!(matches(&object("github", "@read"), "github/\\@read", false));
        assert!(matches(&object("github", "@read"), "github/*", false));
        assert_ne!(object("github", "@read"), object("github", "\\@read"));
    }

    #[test]
    fn spellings_that_mean_nothing_are_refused() {
        for bad in ["github", "/x", "Git/x", "git**/x", "git/***", "git/**", "git/", "g*/@read", "git/@", "git/@a*"] {
            assert!(ObjectPattern::parse(bad, &Action::Call).is_err(), "{bad}");
        }
        assert!(ObjectPattern::parse("git/**", &Action::Read).is_ok());
        assert!(ObjectPattern::parse("git/", &Action::Sample).is_ok());
        assert!(ObjectPattern::parse("*/@destructive", &Action::Call).is_ok());
    }

    /// The naive meaning of a pattern, by trying every split.
    fn oracle(text: &[u8], pattern: &[u8], crossing: bool) -> bool {
        match pattern {
            [] => text.is_empty(),
            [b'*', b'*', rest @ ..] if crossing => (0..=text.len()).any(|taken| oracle(&text[taken..], rest, crossing)),
            [b'*', rest @ ..] => (0..=text.len())
                .take_while(|taken| !text[..*taken].contains(&b'/'))
                .any(|taken| oracle(&text[taken..], rest, crossing)),
            [literal, rest @ ..] => text.first() == Some(literal) && oracle(&text[1..], rest, crossing),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn the_matcher_agrees_with_trying_every_split(text in "[ab/]{0,8}", pattern in "[ab/*]{0,6}", crossing: bool) {
            prop_assert_eq!(
                glob(text.as_bytes(), pattern.as_bytes(), crossing),
                oracle(text.as_bytes(), pattern.as_bytes(), crossing)
            );
        }
    }
}
