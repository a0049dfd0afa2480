//! The cookie that a login is bound to its browser by.
//!
//! Invariant: over TLS only this host can have set it; no script can read it, and it comes with no other site's POST.

use http::HeaderMap;
use http::header::{COOKIE, HeaderValue};

use crate::limit;

fn name(is_secure: bool) -> &'static str {
    // On plain HTTP, which is served to this machine only, not every browser takes a `Secure` cookie.
    if is_secure { "__Host-bailiwick_oauth" } else { "bailiwick_oauth" }
}

/// The value of `Set-Cookie`; an empty value makes the browser forget it.
pub(super) fn set(value: &str, is_secure: bool) -> Option<HeaderValue> {
    let age = if value.is_empty() { 0 } else { limit::FACADE_LOGIN_LIFE.as_secs() };
    let safe = if is_secure { "; Secure" } else { "" };
    // Lax: it has to come along when the provider sends the browser back.
    let text = format!("{}={value}; Path=/; HttpOnly; SameSite=Lax{safe}; Max-Age={age}", name(is_secure));
    // Browsers drop what is longer.
    HeaderValue::from_str(&text).ok().filter(|text| text.len() <= 4_096)
}

/// Its value; none where it comes twice, because one of them is then not ours.
pub(super) fn read(headers: &HeaderMap, is_secure: bool) -> Option<&str> {
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut found = all.flat_map(|value| value.split(';')).filter_map(|pair| {
        let (key, value) = pair.trim().split_once('=')?;
        (key == name(is_secure)).then_some(value)
    });
    let value = found.next();
    if found.next().is_some() { None } else { value }
}
