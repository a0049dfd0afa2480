//! Matching a URI against a template (RFC 6570), conservatively and in linear time.
//!
//! Decides whether a template routes and whether a URI is one of its expansions. What is not understood
//! matches nothing. Invariant: a simple variable never matches a separator.

use super::uri;
use crate::limit;

/// A template that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// This text.
    Literal(String),
    /// `{var}`: at least one character, none of `/?#`.
    Simple,
    /// `{+var}`: at least one character, whatever it is except `?#`.
    Reserved,
    /// `{/var}`: a slash and a segment.
    Segment,
    /// `{/var*}`: any number of segments, each with its slash.
    Segments,
    /// `{?var}` and `{&var}`: nothing, or this character and anything but `#`.
    Query(u8),
    /// `{#var}`: nothing, or `#` and anything.
    Fragment,
}

impl Template {
    /// Reads a template; `None` where it uses something that is not matched here.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > limit::URI_BYTES_MAX {
            return None;
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if parts.len() >= limit::TEMPLATE_PARTS_MAX {
                return None;
            }
            if let Some(expression) = rest.strip_prefix('{') {
                let (expression, after) = expression.split_once('}')?;
                parts.push(Self::expression(expression)?);
                rest = after;
            } else {
                let end = rest.find('{').unwrap_or(rest.len());
                let (literal, after) = rest.split_at(end);
                if literal.contains('}') {
                    return None;
                }
                parts.push(Part::Literal(literal.to_owned()));
                rest = after;
            }
        }
        Some(Self { parts })
    }

    fn expression(expression: &str) -> Option<Part> {
        let plain = |name: &str| {
            name.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_')
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'%'))
        };
        let one = |name: &str, part: Part| plain(name).then_some(part);
        let list = |names: &str, part: Part| {
            names.split(',').all(|name| plain(name.strip_suffix('*').unwrap_or(name))).then_some(part)
        };
        match (expression.bytes().next()?, expression.get(1..).unwrap_or_default()) {
            (b'+', name) => one(name.strip_suffix('*').unwrap_or(name), Part::Reserved),
            (b'/', name) => match name.strip_suffix('*') {
                Some(name) => one(name, Part::Segments),
                None => one(name, Part::Segment),
            },
            (first @ (b'?' | b'&'), names) => list(names, Part::Query(first)),
            (b'#', names) => list(names, Part::Fragment),
            _ => one(expression, Part::Simple),
        }
    }

    /// Whether its scheme and authority are literal, so that it can say whose a URI is: `x://host/{id}`.
    #[must_use]
    pub fn routes(&self) -> bool {
        let Some(Part::Literal(start)) = self.parts.first() else { return false };
        let Some((_, rest)) = uri::scheme(start) else { return false };
        // The authority ends with a literal `/`, or the template says nothing variable at all.
        rest.strip_prefix("//").is_some_and(|rest| rest.contains('/') || self.parts.len() == 1)
            || matches!((rest.strip_prefix("//"), self.parts.get(1)), (Some(host), Some(Part::Segment | Part::Segments))
                if !host.is_empty())
    }

    /// Whether a URI is one of its expansions. Linear in the length of the URI for each part.
    #[must_use]
    pub fn matches(&self, uri: &str) -> bool {
        let bytes = uri.as_bytes();
        // `reached[at]`: everything before `at` is matched by the parts so far.
        let mut reached = vec![false; bytes.len() + 1];
        if let Some(start) = reached.first_mut() {
            *start = true;
        }
        for part in &self.parts {
            reached = part.step(&reached, bytes);
        }
        reached.last().copied().unwrap_or(false)
    }
}

impl Part {
    fn step(&self, reached: &[bool], bytes: &[u8]) -> Vec<bool> {
        let mut next = vec![false; reached.len()];
        match self {
            Self::Literal(text) => {
                for (at, _) in reached.iter().enumerate().filter(|(_, reached)| **reached) {
                    if bytes.get(at..).is_some_and(|rest| rest.starts_with(text.as_bytes())) {
                        mark(&mut next, at + text.len());
                    }
                }
            }
            Self::Simple => run(reached, bytes, &mut next, |byte| !matches!(byte, b'/' | b'?' | b'#')),
            Self::Reserved => run(reached, bytes, &mut next, |byte| !matches!(byte, b'?' | b'#')),
            Self::Segment => {
                let after = Self::Literal("/".to_owned()).step(reached, bytes);
                next = Self::Simple.step(&after, bytes);
            }
            Self::Segments => {
                // A walk that begins with a slash and never has two in a row nor one at the end.
                let mut slash = false;
                let mut inside = false;
                for (at, from) in reached.iter().enumerate() {
                    let byte = at.checked_sub(1).and_then(|before| bytes.get(before));
                    let was_start = at.checked_sub(1).and_then(|before| reached.get(before)).copied().unwrap_or(false);
                    (slash, inside) = match byte {
                        Some(b'/') => (was_start || inside, false),
                        Some(b'?' | b'#') | None => (false, false),
                        Some(_) => (false, slash || inside),
                    };
                    if *from || inside {
                        mark(&mut next, at);
                    }
                }
            }
            Self::Query(first) => optional(reached, bytes, &mut next, *first, |byte| byte != b'#'),
            Self::Fragment => optional(reached, bytes, &mut next, b'#', |_| true),
        }
        next
    }
}

fn mark(positions: &mut [bool], at: usize) {
    if let Some(position) = positions.get_mut(at) {
        *position = true;
    }
}

/// One or more bytes that are allowed, from any reached position on.
fn run(reached: &[bool], bytes: &[u8], next: &mut [bool], allowed: impl Fn(u8) -> bool) {
    let mut running = false;
    for (at, byte) in bytes.iter().enumerate() {
        running = (running || reached.get(at).copied().unwrap_or(false)) && allowed(*byte);
        if running {
            mark(next, at + 1);
        }
    }
}

/// Nothing, or one given byte and then any number of allowed ones.
fn optional(reached: &[bool], bytes: &[u8], next: &mut [bool], first: u8, allowed: impl Fn(u8) -> bool) {
    let mut running = false;
    for at in 0..reached.len() {
        let here = reached.get(at).copied().unwrap_or(false);
        let before = at.checked_sub(1);
        let started = before
            .is_some_and(|before| reached.get(before).copied().unwrap_or(false) && bytes.get(before) == Some(&first));
        let continued = running && before.and_then(|before| bytes.get(before)).is_some_and(|byte| allowed(*byte));
        running = started || continued;
        if here || running {
            mark(next, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(template: &str, uri: &str) -> bool {
        Template::parse(template).is_some_and(|template| template.matches(uri))
    }

    #[test]
    fn a_simple_variable_never_crosses_a_separator() {
        assert!(matches("test://template/{id}/data", "test://template/7/data"));
        assert!(matches("x://h/{a}-{b}", "x://h/1-2-3"));
        assert!(!matches("test://template/{id}/data", "test://template/7/8/data"));
        assert!(!matches("test://template/{id}/data", "test://template//data"));
        assert!(!matches("test://template/{id}", "test://template/7?x"));
        assert!(!matches("test://template/{id}", "test://template/7/"));
        assert!(!matches("test://template/{id}", "TEST://template/7"));
    }

    #[test]
    fn other_operators_match_what_they_expand_to() {
        assert!(matches("file:///{+path}", "file:///a/b/c"));
        assert!(!matches("file:///{+path}", "file:///"));
        assert!(!matches("file:///{+path}", "file:///a?b"));
        assert!(matches("x://h{/path*}", "x://h/a/b"));
        assert!(matches("x://h{/path*}", "x://h"));
        assert!(!matches("x://h{/path*}", "x://h/a//b"));
        assert!(!matches("x://h{/path*}", "x://h.evil/a"));
        assert!(matches("x://h{/name}/end", "x://h/a/end"));
        assert!(!matches("x://h{/name}/end", "x://h/a/b/end"));
        assert!(matches("x://h/s{?q,lang}", "x://h/s"));
        assert!(matches("x://h/s{?q,lang}", "x://h/s?q=1&lang=de"));
        assert!(!matches("x://h/s{?q}", "x://h/s&q=1"));
        assert!(matches("x://h/s{#part}", "x://h/s#p"));
    }

    #[test]
    fn what_is_not_understood_matches_nothing() {
        for template in ["x://h/{a", "x://h/a}", "x://h/{}", "x://h/{.a}", "x://h/{;a}", "x://h/{a,b}", "x://h/{a:3}"] {
            assert_eq!(Template::parse(template), None, "{template}");
        }
        let many = format!("x://h/{}", "{a}".repeat(limit::TEMPLATE_PARTS_MAX));
        assert_eq!(Template::parse(&many), None);
    }

    #[test]
    fn only_a_literal_scheme_and_authority_say_whose_a_uri_is() {
        for template in ["test://template/{id}/data", "file:///{+path}", "x://h{/path*}", "x://h/plain", "x://h"] {
            assert!(Template::parse(template).unwrap().routes(), "{template}");
        }
        for template in [
            "{+uri}",
            "{scheme}://h/x",
            "x://{host}/a",
            "x://h{rest}",
            "x://h{+rest}",
            "x://h{?q}",
            "memo:{id}",
            "/{a}",
        ] {
            assert!(!Template::parse(template).unwrap().routes(), "{template}");
        }
    }

    proptest! {
        #[test]
        fn an_expansion_matches_its_template(a in "[a-z0-9.~_-]{1,8}", b in "[a-z/]{1,8}", q in "[a-z=&]{0,8}") {
            let uri = format!("x://h/{a}/f/{b}?{q}");
            let matched = matches("x://h/{a}/f/{+b}{?q}", &uri);
            prop_assert!(matched, "{}", uri);
        }

        #[test]
        fn matching_is_total_and_linear(template in "[a-c{}/+?#*:]{0,40}", uri in "[a-c/?#:]{0,200}") {
            let _ = matches(&template, &uri);
        }
    }
}
