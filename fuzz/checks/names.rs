//! Public names are short and plain, say which server they belong to, and no two primitives share one.
//!
//! The input is two lines: two names of one server. A third line, if there is one, is another server's.

use bailiwick::catalog::{Naming, is_confusing, public_name};
use bailiwick::ids::ServerId;
use bailiwick::limit::PUBLIC_NAME_BYTES_MAX;

/// Panics where something that must hold does not.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.splitn(3, '\n');
    let (one, other) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let servers = ["a", "a-b", "files-of-people"].map(|name| ServerId::new(name).expect("a server's name"));
    let first = public_name(&servers[0], Naming::Prefixed, one);
    check_name(&servers[0], one, &first);
    let second = public_name(&servers[0], Naming::Prefixed, other);
    // Forty bits of a digest do not collide by chance in a minute; plain names must never collide.
    assert_eq!(one == other, first == second, "{one:?} and {other:?} are both {first:?}");
    let foreign = lines.next().unwrap_or(one);
    for server in &servers[1..] {
        let name = public_name(server, Naming::Prefixed, foreign);
        check_name(server, foreign, &name);
        assert_ne!(name, first, "two servers share a name");
        assert_ne!(name, second, "two servers share a name");
    }
    assert_eq!(public_name(&servers[0], Naming::Verbatim, one), one);
    check_uri(one);
}

fn check_name(server: &ServerId, own: &str, public: &str) {
    assert!(public.len() <= PUBLIC_NAME_BYTES_MAX, "{public:?} is too long");
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    assert!(public.bytes().all(plain), "{public:?} is not plain");
    assert!(public.starts_with(&format!("{server}__")), "{public:?} does not say whose it is");
    assert_eq!(public, public_name(server, Naming::Prefixed, own), "the same name, twice");
}

/// What a matcher and an upstream could read differently is confusing, however it is spelled.
fn check_uri(uri: &str) {
    let path = uri.split_once("://").map_or("", |(_, rest)| rest.split(['?', '#']).next().unwrap_or(rest));
    let lower = path.to_ascii_lowercase();
    let dotted = lower.split('/').skip(1).any(|segment| segment == "." || segment == "..");
    if dotted || lower.contains("%2e") || lower.contains("%2f") {
        assert!(is_confusing(uri), "{uri:?} is routed");
    }
}
