//! Where a gateway's tokens come from: RFC 9728 metadata of the gateway, then RFC 8414 or OpenID Connect Discovery.
//!
//! Decides which authorization server is asked. Refuses to know how. Invariant: the gateway names itself exactly
//! as it was called, the server names itself exactly as the gateway did, and nothing is fetched or opened over a
//! wire that can be read unless all of it is on this machine.

use http::StatusCode;
use http::header::{ACCEPT, HeaderMap, WWW_AUTHENTICATE};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::LoginOptions;
use crate::egress::{EgressPolicy, OauthClient, is_loopback, oauth_client};
use crate::limit;

const RESOURCE: &str = "/.well-known/oauth-protected-resource";
const OAUTH: &str = "/.well-known/oauth-authorization-server";
const OPENID: &str = "/.well-known/openid-configuration";

/// What the gateway's 401 says about getting a token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Challenge {
    metadata: Option<Url>,
    scope: Option<String>,
    /// Which kind of login is wanted (RFC 9470), separated by blanks.
    acr_values: Option<String>,
    /// How many seconds ago it may have been.
    max_age_s: Option<String>,
    step_up: bool,
}

/// Everything that a login needs to know.
pub(super) struct Found {
    /// What the token is for: the gateway's own name.
    pub resource: String,
    /// Scopes to ask for.
    pub scopes: Vec<String>,
    /// Who issues tokens.
    pub server: Server,
    /// A client that may go there.
    pub client: OauthClient,
}

/// An authorization server, as its metadata describes it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Server {
    pub issuer: String,
    pub authorization_endpoint: Option<Url>,
    pub token_endpoint: Url,
    pub registration_endpoint: Option<Url>,
    pub device_authorization_endpoint: Option<Url>,
    pub revocation_endpoint: Option<Url>,
    #[serde(default)]
    pub scopes_supported: Vec<String>,
    pub code_challenge_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    pub authorization_response_iss_parameter_supported: bool,
}

/// The RFC 9728 document.
#[derive(Deserialize)]
struct Protected {
    resource: String,
    #[serde(default)]
    authorization_servers: Vec<String>,
    #[serde(default)]
    scopes_supported: Vec<String>,
}

impl Challenge {
    /// Reads `WWW-Authenticate: Bearer ...`; what cannot be read is as if it were not there.
    pub(crate) fn read(headers: &HeaderMap) -> Self {
        let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let bearer = values.filter(|value| value.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("bearer ")));
        let Some(value) = bearer.into_iter().next() else { return Self::default() };
        let max_age = parameter(value, "max_age").filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        Self {
            metadata: parameter(value, "resource_metadata").and_then(|url| Url::parse(url).ok()),
            scope: parameter(value, "scope").map(str::to_owned),
            acr_values: parameter(value, "acr_values").map(str::to_owned),
            max_age_s: max_age.map(str::to_owned),
            step_up: parameter(value, "error") == Some("insufficient_user_authentication"),
        }
    }

    /// Wants a login of now, whatever session the browser still has.
    pub(super) fn fresh() -> Self {
        Self { max_age_s: Some("0".to_owned()), ..Self::default() }
    }

    /// Whether the token is good, and only the login behind it is not.
    pub(super) const fn is_step_up(&self) -> bool {
        self.step_up
    }

    /// What of the login is asked of the issuer (OpenID Connect Core, section 3.1.2.1).
    pub(super) fn wanted<'a>(&'a self, options: &'a LoginOptions) -> Vec<(&'static str, &'a str)> {
        let acr = options.acr.as_ref().or(self.acr_values.as_ref()).map(|acr| ("acr_values", acr.as_str()));
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

/// Finds out where tokens for the gateway at `url` come from.
///
/// # Errors
/// A lower-case sentence that says what is missing and what to do.
pub(super) async fn discover(url: &Url, options: &LoginOptions, challenge: &Challenge) -> Result<Found, String> {
    // Whoever typed the gateway's address meant it, wherever it is.
    let asker = oauth_client(EgressPolicy::server(true)).map_err(|error| error.to_string())?;
    let protected = protected(&asker, url, challenge).await?;
    let local = is_loopback(url);
    let mut problem = format!("the gateway at {url} names no authorization server; use --token-env or --token-file");
    let mut matched = false;
    for issuer in protected.authorization_servers.iter().take(limit::LOGIN_ISSUERS_MAX) {
        if options.issuer.as_deref().is_some_and(|wanted| wanted.trim_end_matches('/') != issuer.trim_end_matches('/'))
        {
            continue;
        }
        matched = true;
        match server(issuer, local).await {
            Ok((server, client)) => {
                let scopes = scopes(options, challenge, &protected, &server);
                return Ok(Found { resource: protected.resource, scopes, server, client });
            }
            Err(found) => problem = found,
        }
    }
    if let (Some(wanted), false) = (&options.issuer, matched) {
        let known = protected.authorization_servers.join(", ");
        return Err(format!("the gateway does not accept tokens of {wanted}; it names: {known}"));
    }
    Err(problem)
}

async fn protected(asker: &OauthClient, url: &Url, challenge: &Challenge) -> Result<Protected, String> {
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
            Ok(found) if same(&found.resource, url) => return Ok(found),
            // A token for another name would be refused, or would be good somewhere else.
            Ok(found) => {
                return Err(format!(
                    "the gateway at {url} calls itself {}; use that name with --url",
                    shown(&found.resource)
                ));
            }
            Err(found) => problem = found,
        }
    }
    Err(format!("the gateway at {url} does not say where to log in: {problem}"))
}

fn same(resource: &str, url: &Url) -> bool {
    let Ok(resource) = Url::parse(resource) else { return false };
    resource.as_str().trim_end_matches('/') == url.as_str().trim_end_matches('/')
}

/// The metadata of an issuer: OAuth's place first, then OpenID Connect's two.
async fn server(issuer: &str, local: bool) -> Result<(Server, OauthClient), String> {
    let refuse = |problem: String| format!("the issuer {} cannot be used: {problem}", shown(issuer));
    let url = Url::parse(issuer).map_err(|error| refuse(error.to_string()))?;
    let policy = EgressPolicy::issuer(url.host_str(), local);
    private_wire(&policy, &url).map_err(refuse)?;
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
            Ok(found) => return checked(found, &policy).map(|found| (found, client)).map_err(refuse),
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

/// What was asked for on the command line, else what the 401 asks for, else what the gateway knows; and always what
/// gets a refresh token.
fn scopes(options: &LoginOptions, challenge: &Challenge, protected: &Protected, server: &Server) -> Vec<String> {
    let mut scopes: Vec<String> = match (&options.scope, &challenge.scope) {
        (Some(scope), _) | (None, Some(scope)) => scope.split_whitespace().map(str::to_owned).collect(),
        (None, None) => protected.scopes_supported.clone(),
    };
    let offline = "offline_access".to_owned();
    if server.scopes_supported.contains(&offline) && !scopes.contains(&offline) {
        scopes.push(offline);
    }
    scopes
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

/// Text of somebody else's, for a terminal.
pub(super) fn shown(text: &str) -> String {
    crate::cli::call::safe(text).chars().take(limit::ERROR_SHOWN_CHARACTERS_MAX).collect()
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
        for nothing in ["Basic realm=\"x\"", "Bearer", "Bearer resource_metadata=\"nonsense\"", "Bearer xscope=\"a\""] {
            assert_eq!(read(nothing), (None, None), "{nothing}");
        }
    }

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

    #[test]
    fn a_gateway_is_called_by_its_own_name_only() {
        let url = Url::parse("https://gw.example/mcp").unwrap();
        assert!(same("https://gw.example/mcp", &url) && same("https://gw.example/mcp/", &url));
        for other in ["https://gw.example/mcp/git", "https://gw.example", "https://evil.example/mcp", "", "mcp"] {
            assert!(!same(other, &url), "{other}");
        }
    }
}
