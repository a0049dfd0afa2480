//! What a 401 says about getting a token (RFC 6750, RFC 9728, RFC 9470).
//!
//! Decides nothing. Invariant: what cannot be read is as if it were not there.

use http::header::{HeaderMap, WWW_AUTHENTICATE};
use url::Url;

/// What a server's 401 says about getting a token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Challenge {
    /// Where the RFC 9728 document is.
    pub metadata: Option<Url>,
    /// Which scopes are wanted, separated by blanks.
    pub scope: Option<String>,
    /// Which kind of login is wanted (RFC 9470), separated by blanks.
    acr_values: Option<String>,
    /// How many seconds ago it may have been.
    max_age_s: Option<String>,
    step_up: bool,
    insufficient_scope: bool,
    /// Tokens that are bound to a key are taken (RFC 9449, section 7.1).
    pub dpop: bool,
}

impl Challenge {
    /// Reads `WWW-Authenticate: Bearer ...`, or `DPoP ...` where that is all there is.
    #[must_use]
    pub fn read(headers: &HeaderMap) -> Self {
        let of = |scheme: &'static str| {
            let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
            let is_own =
                |value: &&str| value.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
            values.into_iter().find(is_own)
        };
        let dpop = of("dpop ");
        let Some(value) = of("bearer ").or(dpop) else { return Self::default() };
        let max_age = parameter(value, "max_age").filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        Self {
            metadata: parameter(value, "resource_metadata").and_then(|url| Url::parse(url).ok()),
            scope: parameter(value, "scope").map(str::to_owned),
            acr_values: parameter(value, "acr_values").map(str::to_owned),
            max_age_s: max_age.map(str::to_owned),
            step_up: parameter(value, "error") == Some("insufficient_user_authentication"),
            insufficient_scope: parameter(value, "error") == Some("insufficient_scope"),
            dpop: dpop.is_some(),
        }
    }

    /// Wants a login of now, whatever session the browser still has.
    #[must_use]
    pub fn fresh() -> Self {
        Self { max_age_s: Some("0".to_owned()), ..Self::default() }
    }

    /// Whether the token is good, and only the login behind it is not.
    #[must_use]
    pub const fn is_step_up(&self) -> bool {
        self.step_up
    }

    /// The scopes that this operation needs, where the token is good and has too few (RFC 6750, section 3.1).
    #[must_use]
    pub fn lacking(&self) -> Option<&str> {
        self.scope.as_deref().filter(|_| self.insufficient_scope)
    }

    /// What of the login is asked of the issuer (OpenID Connect Core, section 3.1.2.1); `acr` goes before what is
    /// wanted here.
    #[must_use]
    pub fn wanted<'a>(&'a self, acr: Option<&'a String>) -> Vec<(&'static str, &'a str)> {
        let acr = acr.or(self.acr_values.as_ref()).map(|acr| ("acr_values", acr.as_str()));
        let age = self.max_age_s.as_ref().map(|age| ("max_age", age.as_str()));
        acr.into_iter().chain(age).collect()
    }
}

/// The value of `name="..."`.
fn parameter<'v>(value: &'v str, name: &str) -> Option<&'v str> {
    let (_, rest) = value
        .match_indices(name)
        .map(|(start, _)| (value.get(..start).unwrap_or(""), value.get(start + name.len()..).unwrap_or("")))
        .find(|(before, rest)| before.ends_with([' ', ',']) && rest.starts_with("=\""))?;
    rest.get(2..)?.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_read_whatever_stands_around_it() {
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(WWW_AUTHENTICATE, value.parse().unwrap());
            let challenge = Challenge::read(&headers);
            (challenge.metadata.map(String::from), challenge.scope)
        };
        let url = "https://gw.example/.well-known/oauth-protected-resource/mcp";
        let full = format!("Bearer resource_metadata=\"{url}\", error=\"invalid_token\", scope=\"a b\"");
        assert_eq!(read(&full), (Some(url.to_owned()), Some("a b".to_owned())));
        assert_eq!(read(&format!("bearer scope=\"\",resource_metadata=\"{url}\"")).0.as_deref(), Some(url));
        let mut headers = HeaderMap::new();
        headers.insert(WWW_AUTHENTICATE, "Bearer error=\"insufficient_scope\", scope=\"a b\"".parse().unwrap());
        assert_eq!(Challenge::read(&headers).lacking(), Some("a b"));
        headers.insert(WWW_AUTHENTICATE, "Bearer error=\"invalid_token\", scope=\"a b\"".parse().unwrap());
        assert_eq!(Challenge::read(&headers).lacking(), None);
        assert!(!Challenge::read(&headers).dpop);
        headers.append(WWW_AUTHENTICATE, format!("DPoP resource_metadata=\"{url}\"").parse().unwrap());
        assert!(Challenge::read(&headers).dpop && Challenge::read(&headers).metadata.is_none());
        headers.remove(WWW_AUTHENTICATE);
        headers.insert(WWW_AUTHENTICATE, format!("DPoP resource_metadata=\"{url}\"").parse().unwrap());
        assert_eq!(Challenge::read(&headers).metadata.map(String::from).as_deref(), Some(url));
        for nothing in ["Basic realm=\"x\"", "Bearer", "Bearer resource_metadata=\"nonsense\"", "Bearer xscope=\"a\""] {
            assert_eq!(read(nothing), (None, None), "{nothing}");
        }
    }
}
