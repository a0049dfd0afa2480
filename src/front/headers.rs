//! Reads headers, and finds out whether the headers of a modern request equal its body.
//!
//! Headers are for routing on the way; decisions read the body. Invariant: a request that gets past
//! [`check`] means the same to whoever reads its headers and to whoever reads its body
//! (2026-07-28, streamable HTTP, standard headers).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::HeaderMap;

use crate::outcome::{Reason, Refusal};
use crate::wire::mcp::{Method, header};
use crate::wire::{Message, Object};

/// A header came more than once, or is not text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ambiguous;

/// The value of a header that may come once, without the space around it.
pub(super) fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Ambiguous> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Ambiguous);
    }
    value.to_str().map(|text| Some(text.trim_matches([' ', '\t']))).map_err(|_| Ambiguous)
}

/// The token of an `Authorization: Bearer` header; tokens anywhere else are not looked at.
///
/// Another scheme, two headers or bytes that are not text count as a token that nobody can read.
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = match single(headers, http::header::AUTHORIZATION.as_str()) {
        Ok(value) => value?,
        Err(Ambiguous) => return Some(""),
    };
    let token = value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    Some(token.map_or("", |(_, token)| token.trim_start_matches(' ')))
}

/// Whether the headers of a modern request equal its body; the version was compared before.
///
/// # Errors
/// [`Reason::HeaderMismatch`], naming the header.
pub(super) fn check(
    headers: &HeaderMap,
    method_name: &str,
    method: Option<Method>,
    params: Option<Object<'_>>,
) -> Result<(), Refusal> {
    match single(headers, header::METHOD) {
        Ok(Some(value)) if value == method_name => {}
        Ok(None) => return Err(mismatch("the Mcp-Method header is missing")),
        _ => return Err(mismatch("the Mcp-Method header differs from the method of the body")),
    }
    let Some(parameter) = method.and_then(Method::name_parameter) else { return Ok(()) };
    let in_body = params.and_then(|params| params.get(parameter)).and_then(crate::wire::Value::as_str);
    let in_header = single(headers, header::NAME).map_err(|_| mismatch("the Mcp-Name header is not one text"))?;
    match (in_header, in_body) {
        (None, Some(_)) => Err(mismatch("the Mcp-Name header is missing")),
        (Some(value), Some(body)) if decoded(value).as_deref() == Some(body.as_ref()) => Ok(()),
        (Some(_), _) => Err(mismatch("the Mcp-Name header differs from the body")),
        // The body lacks its name: the method itself says so, as a wrong parameter.
        (None, None) => Ok(()),
    }
}

/// The `Mcp-Param-*` headers, lower-case names and decoded values.
///
/// # Errors
/// [`Reason::HeaderMismatch`] for one that cannot be read or comes twice.
pub(super) fn parameters(headers: &HeaderMap) -> Result<Vec<(String, String)>, Refusal> {
    let mut found = Vec::new();
    for name in headers.keys() {
        if !name.as_str().starts_with(header::PARAMETER_PREFIX) {
            continue;
        }
        let value = single(headers, name.as_str()).ok().flatten().and_then(decoded);
        let Some(value) = value else {
            return Err(mismatch("a Mcp-Param header is not one readable text"));
        };
        found.push((name.as_str().to_owned(), value));
    }
    Ok(found)
}

/// The handle of the mandate that a request is part of.
///
/// # Errors
/// [`Reason::HeaderMismatch`] where the header comes twice or differs from the body.
pub(super) fn mandate(headers: &HeaderMap, message: &Message) -> Result<Option<String>, Refusal> {
    let header =
        single(headers, header::MANDATE).map_err(|_| mismatch("the Bailiwick-Mandate header is not one text"))?;
    crate::call::named(message, header.filter(|text| !text.is_empty()))
}

/// The refusal of a header that does not equal the body.
pub(super) fn mismatch(hint: &'static str) -> Refusal {
    Refusal::new(Reason::HeaderMismatch).hint(hint)
}

/// Reads `=?base64?...?=`; any other value stands for itself.
fn decoded(value: &str) -> Option<String> {
    match value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?=")) {
        Some(encoded) => String::from_utf8(STANDARD.decode(encoded).ok()?).ok(),
        None => Some(value.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::mcp::Era;
    use crate::wire::{Json, Source};

    fn checked(method: &str, params: &str, lines: &[(&'static str, &str)]) -> bool {
        let params = Json::parse(params, Source::Client).unwrap();
        let params = params.value().as_object();
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        match check(&headers, method, Method::parse(method, Era::Modern), params) {
            Ok(()) => true,
            Err(refusal) => {
                assert_eq!(refusal.reason, Reason::HeaderMismatch);
                false
            }
        }
    }

    #[test]
    fn headers_must_equal_the_body() {
        let call: &'static str = r#"{"name":"add"}"#;
        assert!(checked("tools/call", call, &[("mcp-method", " tools/call "), ("mcp-name", "add")]));
        assert!(checked(
            "tools/call",
            call,
            &[("Mcp-Method".to_lowercase().leak(), "tools/call"), ("mcp-name", "=?base64?YWRk?=")]
        ));
        assert!(checked(
            "tools/call",
            r#"{"name":"gr\u00fcn"}"#,
            &[("mcp-method", "tools/call"), ("mcp-name", "=?base64?Z3LDvG4=?=")]
        ));
        assert!(checked(
            "resources/read",
            r#"{"uri":"a://b"}"#,
            &[("mcp-method", "resources/read"), ("mcp-name", "a://b")]
        ));
        assert!(checked("tools/list", "{}", &[("mcp-method", "tools/list")]));
        // A body without its name is the method's matter.
        assert!(checked("tools/call", "{}", &[("mcp-method", "tools/call")]));
        type Row = (&'static str, &'static str, &'static [(&'static str, &'static str)]);
        let refused: &[Row] = &[
            ("tools/list", "{}", &[]),
            ("tools/list", "{}", &[("mcp-method", "Tools/List")]),
            ("tools/list", "{}", &[("mcp-method", "tools/list"), ("mcp-method", "tools/list")]),
            ("tools/call", call, &[("mcp-method", "tools/list"), ("mcp-name", "add")]),
            ("tools/call", call, &[("mcp-method", "tools/call")]),
            ("tools/call", call, &[("mcp-method", "tools/call"), ("mcp-name", "Add")]),
            ("tools/call", call, &[("mcp-method", "tools/call"), ("mcp-name", "add"), ("mcp-name", "add")]),
            ("tools/call", call, &[("mcp-method", "tools/call"), ("mcp-name", "=?base64?YWR?=")]),
            ("tools/call", call, &[("mcp-method", "tools/call"), ("mcp-name", "=?BASE64?YWRk?=")]),
            ("tools/call", "{}", &[("mcp-method", "tools/call"), ("mcp-name", "add")]),
            ("tools/call", r#"{"name":7}"#, &[("mcp-method", "tools/call"), ("mcp-name", "7")]),
        ];
        for (method, params, lines) in refused {
            assert!(!checked(method, params, lines), "{method} {params} {lines:?}");
        }
    }

    #[test]
    fn mirrored_parameters_are_decoded_and_unreadable_ones_refused() {
        let mut headers = HeaderMap::new();
        headers.append("Mcp-Param-Region", "=?base64?w7x4?=".parse().unwrap());
        headers.append("mcp-param-count", "7".parse().unwrap());
        let mut found = parameters(&headers).unwrap();
        found.sort();
        assert_eq!(found, [("mcp-param-count".into(), "7".into()), ("mcp-param-region".into(), "üx".to_owned())]);
        headers.append("mcp-param-count", "8".parse().unwrap());
        assert!(parameters(&headers).is_err());
    }

    #[test]
    fn a_token_is_taken_from_one_bearer_header_only() {
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(http::header::AUTHORIZATION, value.parse().unwrap());
            }
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(read(&[]), None);
        assert_eq!(read(&["Bearer abc"]).as_deref(), Some("abc"));
        assert_eq!(read(&["bearer  abc"]).as_deref(), Some("abc"));
        for unreadable in [&["Basic abc"][..], &["abc"], &["Bearer a", "Bearer a"], &[""]] {
            assert_eq!(read(unreadable).as_deref(), Some(""), "{unreadable:?}");
        }
    }
}
