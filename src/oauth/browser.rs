//! What a browser keeps for us while it is away, and brings back: cookies, and answers in a query.
//!
//! Over TLS both have the prefix `__Host-`: the browser then takes them from this host alone, over TLS alone, for all
//! paths. On plain HTTP, which is served to this machine only, not every browser takes a `Secure` cookie, so there
//! they have no prefix and no `Secure`; a program on another port of this machine could then read them, as it could
//! read the memory of the browser. Invariant: no cookie can be read by a script or is sent with another site's POST.

use std::time::Duration;

use http::HeaderMap;
use http::header::{COOKIE, HeaderValue};

/// The cookie's name where it is sent over TLS, and where it is not.
fn spelled(name: &str, secure: bool) -> String {
    if secure { format!("__Host-{name}") } else { name.to_owned() }
}

/// The value of `Set-Cookie`; without an age it lives as long as the browser.
#[must_use]
pub fn set(name: &str, value: &str, secure: bool, age: Option<Duration>) -> Option<HeaderValue> {
    let age = age.map(|age| format!("; Max-Age={}", age.as_secs())).unwrap_or_default();
    let safe = if secure { "; Secure" } else { "" };
    // Lax: whoever comes back from the issuer, or follows a link in a ticket, is still signed in.
    let text = format!("{}={value}; Path=/; HttpOnly; SameSite=Lax{safe}{age}", spelled(name, secure));
    HeaderValue::from_str(&text).ok()
}

/// Makes the browser forget it.
#[must_use]
pub fn clear(name: &str, secure: bool) -> Option<HeaderValue> {
    set(name, "", secure, Some(Duration::ZERO))
}

/// Its value; none where it comes twice, because one of them is then not ours.
#[must_use]
pub fn read<'a>(headers: &'a HeaderMap, name: &str, secure: bool) -> Option<&'a str> {
    let name = spelled(name, secure);
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut found = all.flat_map(|value| value.split(';')).filter_map(|pair| {
        let (key, value) = pair.trim().split_once('=')?;
        (key == name).then_some(value)
    });
    let value = found.next().filter(|value| !value.is_empty());
    if found.next().is_some() { None } else { value }
}

/// A value of a query; nothing where it comes twice.
#[must_use]
pub fn query(raw: Option<&str>, name: &str) -> Option<String> {
    let mut found = url::form_urlencoded::parse(raw?.as_bytes()).filter(|(own, _)| own == name);
    match (found.next(), found.next()) {
        (Some((_, value)), None) => Some(value.into_owned()),
        _ => None,
    }
}

/// Whether two texts are equal; takes as long whatever differs.
#[must_use]
pub fn equal(one: &str, other: &str) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(one.as_bytes(), other.as_bytes()).is_ok()
}

/// 256 random bits, as a cookie or a form carries them.
#[must_use]
pub fn random() -> String {
    openidconnect::CsrfToken::new_random_len(32).into_secret()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_read_by_its_whole_name_and_only_where_it_comes_once() {
        let headers = |cookies: &[&'static str]| {
            let pairs = cookies.iter().map(|cookie| (COOKIE, HeaderValue::from_static(cookie)));
            pairs.collect::<HeaderMap>()
        };
        let read =
            |cookies: &[&'static str], secure| read(&headers(cookies), "bailiwick_session", secure).map(str::to_owned);
        assert_eq!(read(&["a=b; __Host-bailiwick_session=x1"], true).as_deref(), Some("x1"));
        assert_eq!(read(&["bailiwick_session=x1"], true), None, "whoever can set one without TLS sets none of ours");
        assert_eq!(read(&["bailiwick_session=x1"], false).as_deref(), Some("x1"));
        assert_eq!(read(&["bailiwick_session=x1; bailiwick_session=x2"], false), None);
        assert_eq!(read(&["bailiwick_session=x1", "bailiwick_session=x2"], false), None);
        assert_eq!(read(&["bailiwick_session="], false), None);
    }

    #[test]
    fn over_tls_a_cookie_is_bound_to_its_host() {
        let told = set("bailiwick_session", "x", true, None).unwrap();
        assert_eq!(told, "__Host-bailiwick_session=x; Path=/; HttpOnly; SameSite=Lax; Secure");
        assert!(clear("bailiwick_session", false).unwrap().to_str().unwrap().ends_with("Max-Age=0"));
    }
}
