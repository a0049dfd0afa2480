//! Where tokens for a resource come from: RFC 9728 metadata of the resource, then RFC 8414 or OpenID Connect Discovery.
//!
//! Decides which documents are believed. Invariants: a resource names itself as it was asked for, an authorization
//! server exactly as the resource did; nothing is fetched or opened over a wire that can be read unless all of it is on
//! this machine.

use http::StatusCode;
use http::header::ACCEPT;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::{Challenge, shown};
use crate::egress::{EgressPolicy, OauthClient, is_loopback, oauth_client};

/// Where a resource that is a whole origin describes itself; a path follows where it is less.
pub const RESOURCE: &str = "/.well-known/oauth-protected-resource";
const OAUTH: &str = "/.well-known/oauth-authorization-server";
const OPENID: &str = "/.well-known/openid-configuration";

/// An authorization server, as its metadata describes it.
#[derive(Debug, Clone, Deserialize)]
pub struct Server {
    /// Its name, as the resource spells it.
    pub issuer: String,
    /// Where people log in.
    pub authorization_endpoint: Option<Url>,
    /// Where tokens are got.
    pub token_endpoint: Url,
    /// Where clients register themselves (RFC 7591).
    pub registration_endpoint: Option<Url>,
    /// Where logins without a browser begin (RFC 8628).
    pub device_authorization_endpoint: Option<Url>,
    /// Where tokens are given back (RFC 7009).
    pub revocation_endpoint: Option<Url>,
    /// Scopes that it tells of.
    #[serde(default)]
    pub scopes_supported: Vec<String>,
    /// Which PKCE methods it checks; absent where it does not say.
    pub code_challenge_methods_supported: Option<Vec<String>>,
    /// Its answers name it (RFC 9207).
    #[serde(default)]
    pub authorization_response_iss_parameter_supported: bool,
    /// It reads a client's own document.
    #[serde(default)]
    pub client_id_metadata_document_supported: bool,
    /// How clients prove themselves to it; absent means `client_secret_basic`.
    pub token_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// With what proofs may be signed, where it binds tokens to keys (RFC 9449).
    #[serde(default)]
    pub dpop_signing_alg_values_supported: Vec<String>,
}

/// The RFC 9728 document.
#[derive(Debug, Clone, Deserialize)]
pub struct Protected {
    /// What it calls itself.
    pub resource: String,
    /// Who issues tokens for it.
    #[serde(default)]
    pub authorization_servers: Vec<String>,
    /// Scopes that it tells of.
    #[serde(default)]
    pub scopes_supported: Vec<String>,
    /// With what proofs may be signed, where it takes tokens that are bound to a key.
    #[serde(default)]
    pub dpop_signing_alg_values_supported: Vec<String>,
    /// It takes no others.
    #[serde(default)]
    pub dpop_bound_access_tokens_required: bool,
}

/// Why there is no document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoDocument {
    /// There is one, of something else: what that calls itself.
    OfAnother(String),
    /// Nobody answered with one.
    None(String),
}

/// The metadata of the resource at `url`, which must call itself as `is_own` wants it of a document at that place.
///
/// # Errors
/// [`NoDocument`].
pub async fn protected(
    asker: &OauthClient,
    url: &Url,
    challenge: &Challenge,
    is_own: impl Fn(&Url, &str) -> bool,
) -> Result<Protected, NoDocument> {
    let mut places: Vec<Url> =
        challenge.metadata.iter().filter(|place| place.origin() == url.origin()).cloned().collect();
    let path = url.path().trim_end_matches('/');
    for place in [format!("{RESOURCE}{path}"), RESOURCE.to_owned()] {
        let mut at = url.clone();
        at.set_path(&place);
        at.set_query(None);
        if !places.contains(&at) {
            places.push(at);
        }
    }
    let mut problem = String::new();
    for place in &places {
        match fetch::<Protected>(asker, place).await {
            Ok(found) if is_own(place, &found.resource) => return Ok(found),
            // A token for another name would be refused, or would be good somewhere else.
            Ok(found) => return Err(NoDocument::OfAnother(shown(&found.resource))),
            Err(found) => problem = found,
        }
    }
    Err(NoDocument::None(problem))
}

/// The metadata of an issuer: OAuth's place first, then OpenID Connect's two. Answers a client that may go there.
///
/// # Errors
/// A lower-case sentence that says what is wrong with it.
pub async fn server(issuer: &str, policy: &EgressPolicy) -> Result<(Server, OauthClient), String> {
    let refuse = |problem: String| format!("the issuer {} cannot be used: {problem}", shown(issuer));
    let url = Url::parse(issuer).map_err(|error| refuse(error.to_string()))?;
    private_wire(policy, &url).map_err(refuse)?;
    let client = oauth_client(policy.clone()).map_err(|error| error.to_string())?;
    let path = url.path().trim_end_matches('/');
    let mut problem = String::new();
    for place in [format!("{OAUTH}{path}"), format!("{OPENID}{path}"), format!("{path}{OPENID}")] {
        let mut at = url.clone();
        at.set_path(&place);
        match fetch::<Server>(&client, &at).await {
            Ok(found) if found.issuer != issuer => {
                problem = format!("its metadata says that it is {}", shown(&found.issuer));
            }
            Ok(found) => return checked(found, policy).map(|found| (found, client)).map_err(refuse),
            Err(found) if problem.is_empty() => problem = found,
            Err(_) => {}
        }
    }
    Err(refuse(problem))
}

/// Every address that the metadata names must be one that may be gone to: one of them is opened in a browser.
fn checked(server: Server, policy: &EgressPolicy) -> Result<Server, String> {
    let named = [
        Some(&server.token_endpoint),
        server.authorization_endpoint.as_ref(),
        server.registration_endpoint.as_ref(),
        server.device_authorization_endpoint.as_ref(),
        server.revocation_endpoint.as_ref(),
    ];
    for url in named.into_iter().flatten() {
        private_wire(policy, url)?;
    }
    Ok(server)
}

/// Whether a code or a token may travel there: over TLS, or not beyond this machine.
fn private_wire(policy: &EgressPolicy, url: &Url) -> Result<(), String> {
    policy.check_url(url).map_err(|error| error.to_string())?;
    if url.scheme() == "https" || is_loopback(url) {
        return Ok(());
    }
    Err(format!("{url} can be read on the way: it must be https:"))
}

async fn fetch<T: DeserializeOwned>(client: &OauthClient, url: &Url) -> Result<T, String> {
    let request = http::Request::get(url.as_str()).header(ACCEPT, "application/json").body(Vec::new());
    let request = request.map_err(|error| format!("{url}: {error}"))?;
    let answer = client.send(request).await.map_err(|error| error.to_string())?;
    if answer.status() != StatusCode::OK {
        return Err(format!("{url} answers {}", answer.status()));
    }
    serde_json::from_slice(answer.body()).map_err(|error| format!("{url} cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_endpoint_may_be_read_on_the_way_or_run_by_a_browser() {
        let server = |endpoint: &str| Server {
            issuer: "https://idp.example".to_owned(),
            authorization_endpoint: Url::parse(endpoint).ok(),
            token_endpoint: Url::parse("https://idp.example/token").unwrap(),
            registration_endpoint: None,
            device_authorization_endpoint: None,
            revocation_endpoint: None,
            scopes_supported: Vec::new(),
            code_challenge_methods_supported: None,
            authorization_response_iss_parameter_supported: false,
            client_id_metadata_document_supported: false,
            token_endpoint_auth_methods_supported: None,
            dpop_signing_alg_values_supported: Vec::new(),
        };
        let far = EgressPolicy::issuer(Some("idp.example"), false);
        assert!(checked(server("https://idp.example/authorize"), &far).is_ok());
        for bad in [
            "http://idp.example/authorize",
            "http://127.0.0.1/authorize",
            "https://127.0.0.1/authorize",
            "javascript:alert(1)",
            "file:///etc/passwd",
            "https://user@idp.example/",
        ] {
            assert!(checked(server(bad), &far).is_err(), "{bad}");
        }
        let near = EgressPolicy::issuer(Some("127.0.0.1"), true);
        assert!(checked(server("http://127.0.0.1:7810/authorize"), &near).is_ok());
        assert!(checked(server("javascript:alert(1)"), &near).is_err());
        assert!(checked(server("http://10.0.0.1/authorize"), &near).is_err());
    }
}
