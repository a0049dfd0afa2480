//! Names and URIs that an upstream or a caller chooses: public names are legal and never meet, URIs that
//! pass hide nothing, templates match only what they could expand to.

use bailiwick::catalog::{Naming, Template, is_confusing, public_name};
use bailiwick::ids::ServerId;

/// Panics where something that must hold does not. The first line is one name or template, the rest another
/// name or a URI.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (first, second) = text.split_once('\n').unwrap_or((text, "x://h/a"));
    names(first, second);
    uris(second);
    template(first, second);
}

fn names(first: &str, second: &str) {
    let servers = ["a", "a-", "long-server-name"].map(|id| ServerId::new(id).expect("a server id"));
    for server in &servers {
        let public = public_name(server, Naming::Prefixed, first);
        assert!(public.len() <= 48 && public.starts_with(&format!("{server}__")), "{public}");
        assert!(public.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')), "{public}");
        assert_eq!(public_name(server, Naming::Verbatim, first), first);
        if !first.is_empty() && !second.is_empty() && first != second {
            assert_ne!(public_name(server, Naming::Prefixed, second), public, "{first:?} and {second:?}");
        }
        let own = public.split_once("__").map(|(_, own)| own).unwrap_or_default();
        assert!(own == first || public_name(server, Naming::Prefixed, own) != public, "{first:?} can be imitated");
    }
}

fn uris(uri: &str) {
    if is_confusing(uri) {
        return;
    }
    assert!(!uri.chars().any(|character| character.is_control() || character == '\\'));
    // However often it is decoded, no segment climbs.
    let mut decoded = uri.to_owned();
    for _ in 0..8 {
        decoded = percent_decode(&decoded);
    }
    let path = decoded.split_once(':').map_or(decoded.as_str(), |(_, path)| path);
    assert!(!path.split(['/', '\\', '?', '#']).any(|segment| segment == ".."), "{uri:?} climbs");
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escape = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = escape
            .filter(|digits| *first == b'%' && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn template(template: &str, uri: &str) {
    let Some(parsed) = Template::parse(template) else { return };
    let matches = parsed.matches(uri);
    let literal = template.split('{').next().unwrap_or_default();
    assert!(!matches || uri.starts_with(literal), "{template:?} matched {uri:?}");
    if !template.contains('{') {
        assert_eq!(matches, template == uri);
    }
    if matches && !template.contains(['+', '?', '#', '&']) && !template.contains("{/") {
        assert_eq!(uri.matches('/').count(), template.matches('/').count(), "{template:?} crossed in {uri:?}");
    }
}
