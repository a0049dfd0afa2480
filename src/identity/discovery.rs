//! What an issuer publishes about itself: its metadata and its keys, at the places that the standards name.
//!
//! Decides which metadata is believed. Refuses to know when it is fetched. Invariant: metadata counts only where it
//! names the issuer to the character. What a login would need is not asked for here: an issuer that signs for workloads
//! (Kubernetes) has no place to log in.

use http::{Request, StatusCode, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::keys::Jwks;
use crate::egress::OauthClient;
use crate::limit;

/// What of an issuer's metadata is used here.
#[derive(Debug, Deserialize)]
pub(super) struct Metadata {
    /// Its exact name.
    pub issuer: String,
    /// Where its keys are; one that has opaque tokens alone has none.
    pub jwks_uri: Option<Url>,
    /// Where tokens are got and exchanged.
    pub token_endpoint: Option<Url>,
    /// Where people log in; an issuer that signs for workloads alone has none.
    pub authorization_endpoint: Option<Url>,
    /// Where one asks what a token is (RFC 7662).
    pub introspection_endpoint: Option<Url>,
}

/// Why nothing could be fetched.
#[derive(Debug, PartialEq, Eq)]
enum Trouble {
    /// There is nothing at that place.
    Missing,
    /// Something else.
    Other(String),
}

/// The issuer's metadata: as OpenID Connect publishes it, or else as RFC 8414 does.
pub(super) async fn metadata(client: &OauthClient, issuer: &str) -> Result<Metadata, String> {
    let openid = openid_place(issuer);
    let found = match fetch::<Metadata>(client, &openid).await {
        Err(Trouble::Missing) => match oauth_place(issuer) {
            Some(place) => fetch::<Metadata>(client, &place).await,
            None => Err(Trouble::Missing),
        },
        found => found,
    };
    let metadata = found.map_err(|trouble| match trouble {
        Trouble::Missing => format!("there is no metadata at {}", cut(&openid)),
        Trouble::Other(problem) => problem,
    })?;
    if metadata.issuer != issuer {
        return Err(format!(
            "its metadata says issuer `{}`, the configuration says `{issuer}`; they must be equal to the character",
            cut(&metadata.issuer)
        ));
    }
    Ok(metadata)
}

/// The key set at a place.
pub(super) async fn keys(client: &OauthClient, place: &Url) -> Result<Jwks, String> {
    fetch(client, place.as_str()).await.map_err(|trouble| match trouble {
        Trouble::Missing => format!("there is no key set at {}", cut(place.as_str())),
        Trouble::Other(problem) => problem,
    })
}

/// Where OpenID Connect Discovery 1.0 has the metadata.
pub(super) fn openid_place(issuer: &str) -> String {
    format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'))
}

/// Where RFC 8414 has it: the well-known part stands between host and path.
pub(super) fn oauth_place(issuer: &str) -> Option<String> {
    let url = Url::parse(issuer).ok()?;
    let path = url.path().trim_end_matches('/');
    Some(format!("{}/.well-known/oauth-authorization-server{path}", url.origin().ascii_serialization()))
}

async fn fetch<T: DeserializeOwned>(client: &OauthClient, place: &str) -> Result<T, Trouble> {
    let request = Request::get(place)
        .header(header::ACCEPT, "application/json")
        .body(Vec::new())
        .map_err(|error| Trouble::Other(format!("`{}` cannot be asked: {error}", cut(place))))?;
    let answer = client.send(request).await.map_err(|error| Trouble::Other(error.to_string()))?;
    match answer.status() {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => return Err(Trouble::Missing),
        status => return Err(Trouble::Other(format!("{} answered {status}", cut(place)))),
    }
    serde_json::from_slice(answer.body()).map_err(|error| {
        Trouble::Other(format!("the answer of {} cannot be read: {}", cut(place), cut(&error.to_string())))
    })
}

fn cut(text: &str) -> String {
    let plain = text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character });
    plain.take(limit::ERROR_SHOWN_CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_stands_below_the_issuer_or_between_its_host_and_its_path() {
        assert_eq!(openid_place("https://idp.example/"), "https://idp.example/.well-known/openid-configuration");
        assert_eq!(openid_place("https://idp.example/a/b"), "https://idp.example/a/b/.well-known/openid-configuration");
        let oauth = |issuer| oauth_place(issuer).unwrap();
        assert_eq!(oauth("https://idp.example"), "https://idp.example/.well-known/oauth-authorization-server");
        assert_eq!(oauth("https://idp.example/a/"), "https://idp.example/.well-known/oauth-authorization-server/a");
    }

    #[test]
    fn a_member_that_stands_there_twice_is_not_believed() {
        let twice = r#"{"issuer":"https://a","issuer":"https://b"}"#;
        assert!(serde_json::from_str::<Metadata>(twice).is_err());
    }

    #[test]
    fn what_an_issuer_says_is_cut() {
        let long = "x".repeat(limit::ERROR_SHOWN_CHARACTERS_MAX + 1);
        assert_eq!(cut(&long).len(), limit::ERROR_SHOWN_CHARACTERS_MAX);
        assert_eq!(cut("a\u{1b}[2J"), "a\u{fffd}[2J");
    }
}
