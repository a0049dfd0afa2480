//! How a token is got: authorization code with PKCE and a browser, a device code without one, or a refresh token.
//!
//! Decides what is asked of an authorization server. Invariants: every code is bound to a fresh verifier, `state` and
//! the gateway's own name (RFC 8707); nothing that a server writes beyond an error's code is repeated unbounded, and
//! no token is repeated at all.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use openidconnect::core::{
    CoreClient, CoreDeviceAuthorizationResponse, CoreJsonWebKeySet, CoreResponseType, CoreTokenResponse,
};
use openidconnect::{
    AuthUrl, AuthenticationFlow, AuthorizationCode, ClientId, CsrfToken, DeviceAuthorizationUrl, ErrorResponse,
    IssuerUrl, Nonce, OAuth2TokenResponse as _, PkceCodeChallenge, RedirectUrl, RefreshToken, RequestTokenError, Scope,
    TokenUrl,
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use url::Url;

use super::discover::{Challenge, Found, discover, shown};
use super::kept::{Kept, Registered};
use super::redirect::{Expected, Redirect};
use super::{LoginOptions, browser};
use crate::cli::output::complain;
use crate::egress::{EgressError, EgressPolicy, is_loopback, oauth_client};
use crate::identity;
use crate::limit;
use crate::oauth::dpop::{ProofKey, Prover, Proving};
use crate::oauth::register::{RegisterError, register};

/// Why a token could not be renewed.
#[derive(Debug)]
pub(super) enum RenewError {
    /// The issuer does not renew it: somebody has to log in.
    Over(String),
    /// Nobody knows: the issuer did not answer.
    Unknown(String),
}

/// Logs in at the gateway's issuer. Bounded in time; somebody sits in front of it.
///
/// # Errors
/// A lower-case sentence that says what to do.
pub(super) async fn log_in(url: &Url, options: &LoginOptions, challenge: &Challenge) -> Result<Kept, String> {
    let found = discover(url, options, challenge).await?;
    let wanted = challenge.wanted(options.acr.as_ref());
    let attempt = async {
        if options.device {
            by_device(url, options, &found, &wanted).await
        } else {
            by_browser(url, options, &found, &wanted).await
        }
    };
    match tokio::time::timeout(limit::LOGIN_TIMEOUT, attempt).await {
        Ok(kept) => kept,
        Err(_) => Err(format!("nobody logged in within {} minutes; try again", limit::LOGIN_TIMEOUT.as_secs() / 60)),
    }
}

async fn by_browser(
    url: &Url,
    options: &LoginOptions,
    found: &Found,
    wanted: &[(&'static str, &str)],
) -> Result<Kept, String> {
    let server = &found.server;
    let Some(endpoint) = server.authorization_endpoint.clone() else {
        return Err(format!("the issuer {} has no page to log in with; use --device", shown(&server.issuer)));
    };
    check_pkce(options, found)?;
    let redirect = Redirect::open(options.redirect_port).await?;
    let registered = registered(options, found, Some(&redirect.uri())).await?;
    let failed = |error: openidconnect::url::ParseError| error.to_string();
    let client = CoreClient::new(
        ClientId::new(registered.id.clone()),
        IssuerUrl::new(server.issuer.clone()).map_err(failed)?,
        CoreJsonWebKeySet::default(),
    )
    .set_auth_uri(AuthUrl::from_url(endpoint))
    .set_token_uri(TokenUrl::from_url(server.token_endpoint.clone()))
    .set_redirect_uri(RedirectUrl::new(redirect.uri()).map_err(failed)?)
    .disable_openid_scope();
    let client = match registered.proof() {
        Some((secret, how)) => client.set_client_secret(secret).set_auth_type(how),
        None => client,
    };
    let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
    let flow = AuthenticationFlow::<CoreResponseType>::AuthorizationCode;
    let asked = client
        .authorize_url(flow, CsrfToken::new_random, Nonce::new_random)
        .set_pkce_challenge(challenge)
        .add_scopes(found.scopes.iter().cloned().map(Scope::new))
        .add_extra_param("resource", found.resource.clone());
    let asked = wanted.iter().fold(asked, |asked, (name, value)| asked.add_extra_param(*name, (*value).to_owned()));
    let (page, state, _) = asked.url();
    complain(format_args!("Log in to {url} in the browser:\n\n  {page}\n\n"));
    if !options.no_browser {
        browser::open(&page);
    }
    let expected = Expected {
        state: state.secret().clone(),
        issuer: server.issuer.clone(),
        issuer_is_named: server.authorization_response_iss_parameter_supported,
    };
    let code = redirect.code(expected).await?;
    let (asker, key) = found.asker()?;
    let answer = client
        .exchange_code(AuthorizationCode::new(code))
        .set_pkce_verifier(verifier)
        .add_extra_param("resource", found.resource.clone())
        .request_async(&asker)
        .await
        .map_err(|error| describe(&error))?;
    kept((url, found), registered, key, &answer)
}

async fn by_device(
    url: &Url,
    options: &LoginOptions,
    found: &Found,
    wanted: &[(&'static str, &str)],
) -> Result<Kept, String> {
    let server = &found.server;
    let Some(endpoint) = server.device_authorization_endpoint.clone() else {
        return Err(format!(
            "the issuer {} offers no login without a browser; leave --device out",
            shown(&server.issuer)
        ));
    };
    let registered = registered(options, found, None).await?;
    let failed = |error: openidconnect::url::ParseError| error.to_string();
    let client = CoreClient::new(
        ClientId::new(registered.id.clone()),
        IssuerUrl::new(server.issuer.clone()).map_err(failed)?,
        CoreJsonWebKeySet::default(),
    )
    .set_token_uri(TokenUrl::from_url(server.token_endpoint.clone()))
    .set_device_authorization_url(DeviceAuthorizationUrl::from_url(endpoint))
    .disable_openid_scope();
    let client = match registered.proof() {
        Some((secret, how)) => client.set_client_secret(secret).set_auth_type(how),
        None => client,
    };
    let (asker, key) = found.asker()?;
    let asked = client
        .exchange_device_code()
        .add_scopes(found.scopes.iter().cloned().map(Scope::new))
        .add_extra_param("resource", found.resource.clone());
    let asked = wanted.iter().fold(asked, |asked, (name, value)| asked.add_extra_param(*name, (*value).to_owned()));
    let device: CoreDeviceAuthorizationResponse =
        asked.request_async(&asker).await.map_err(|error| describe(&error))?;
    let place = shown(device.verification_uri().as_str());
    let code = shown(device.user_code().secret());
    complain(format_args!("Log in to {url}: open {place} on any device and enter the code {code}\n"));
    let answer = client
        .exchange_device_access_token(&device)
        .add_extra_param("resource", found.resource.clone())
        .request_async(&asker, tokio::time::sleep, Some(limit::LOGIN_TIMEOUT))
        .await
        .map_err(|error| describe(&error))?;
    kept((url, found), registered, key, &answer)
}

/// Renews a token with its refresh token.
pub(super) async fn renew(before: &Kept) -> Result<Kept, RenewError> {
    let unknown = |problem: String| RenewError::Unknown(format!("the token cannot be renewed: {problem}"));
    let Some(refresh) = &before.refresh_token else {
        return Err(RenewError::Over("the issuer gave nothing to renew the token with".to_owned()));
    };
    let local = Url::parse(&before.gateway).is_ok_and(|url| is_loopback(&url));
    let issuer = Url::parse(&before.issuer).map_err(|error| unknown(error.to_string()))?;
    let client = oauth_client(EgressPolicy::issuer(issuer.host_str(), local));
    let client = client.map_err(|error| unknown(error.to_string()))?;
    // What renews it is bound to the same key.
    let asker = Proving { client, prover: before.key.clone().map(Prover::new) };
    let client = CoreClient::new(
        ClientId::new(before.client.id.clone()),
        IssuerUrl::new(before.issuer.clone()).map_err(|error| unknown(error.to_string()))?,
        CoreJsonWebKeySet::default(),
    )
    .set_token_uri(TokenUrl::from_url(before.token_endpoint.clone()));
    let client = match before.client.proof() {
        Some((secret, how)) => client.set_client_secret(secret).set_auth_type(how),
        None => client,
    };
    let refresh = RefreshToken::new(refresh.expose_secret().to_owned());
    let asked = client.exchange_refresh_token(&refresh).add_extra_param("resource", before.resource.clone());
    let answer: CoreTokenResponse = asked.request_async(&asker).await.map_err(|error| match &error {
        RequestTokenError::ServerResponse(_) => RenewError::Over(describe(&error)),
        _ => unknown(describe(&error)),
    })?;
    let mut after = before.clone();
    after.take(&answer).map_err(RenewError::Over)?;
    Ok(after)
}

/// Gives a token back (RFC 7009); whether the issuer took it.
pub(super) async fn give_back(kept: &Kept) -> bool {
    let (Some(endpoint), Ok(issuer)) = (&kept.revocation_endpoint, Url::parse(&kept.issuer)) else { return false };
    let local = Url::parse(&kept.gateway).is_ok_and(|url| is_loopback(&url));
    let Ok(client) = oauth_client(EgressPolicy::issuer(issuer.host_str(), local)) else { return false };
    let token = kept.refresh_token.as_ref().unwrap_or(&kept.access_token);
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("token", token.expose_secret()).append_pair("client_id", &kept.client.id);
    if let Some(secret) = &kept.client.secret {
        form.append_pair("client_secret", secret.expose_secret());
    }
    let request = http::Request::post(endpoint.as_str())
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(form.finish().into_bytes());
    let Ok(request) = request else { return false };
    client.send(request).await.is_ok_and(|answer| answer.status().is_success())
}

/// A server that does not say that it checks the verifier may ignore it; for a client that an administrator
/// registered, that administrator has looked.
fn check_pkce(options: &LoginOptions, found: &Found) -> Result<(), String> {
    let issuer = shown(&found.server.issuer);
    match &found.server.code_challenge_methods_supported {
        Some(methods) if methods.iter().any(|method| method == "S256") => Ok(()),
        Some(_) => Err(format!("the issuer {issuer} does not support PKCE with S256, and a code could be stolen")),
        None if options.client_id.is_some() => Ok(()),
        None => Err(format!(
            "the issuer {issuer} does not say that it supports PKCE; if it does, use --client-id with a client that \
             is registered there"
        )),
    }
}

/// Who we are there: as the user says, or newly registered (RFC 7591).
async fn registered(options: &LoginOptions, found: &Found, redirect: Option<&str>) -> Result<Registered, String> {
    if let Some(id) = &options.client_id {
        return Ok(Registered { id: id.clone(), secret: None, secret_in_body: false });
    }
    let issuer = shown(&found.server.issuer);
    let Some(endpoint) = &found.server.registration_endpoint else {
        return Err(format!(
            "the issuer {issuer} registers no clients by itself: have a public client registered there, with the \
             redirect URI http://127.0.0.1/callback, and name it with --client-id"
        ));
    };
    let mut asked = json!({
        "client_name": "Bailiwick bridge",
        "application_type": "native",
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    });
    match (redirect, asked.as_object_mut()) {
        (Some(redirect), Some(asked)) => drop(asked.insert("redirect_uris".to_owned(), json!([redirect]))),
        (None, Some(asked)) => {
            let grants = json!(["urn:ietf:params:oauth:grant-type:device_code", "refresh_token"]);
            asked.extend([("grant_types".to_owned(), grants), ("response_types".to_owned(), json!([]))]);
        }
        (_, None) => {}
    }
    let made = register(&found.client, endpoint, &asked).await.map(|(made, _)| made);
    made.map_err(|problem| match problem {
        RegisterError::Refused(status) => format!(
            "the issuer {issuer} does not register us ({status}); have a public client registered there and name it \
             with --client-id"
        ),
        RegisterError::Unknown(problem) => problem,
        RegisterError::Unreadable => format!("the issuer {issuer} answers a registration with something else"),
    })
}

fn kept(
    (url, found): (&Url, &Found),
    client: Registered,
    key: Option<ProofKey>,
    answer: &CoreTokenResponse,
) -> Result<Kept, String> {
    let mut kept = Kept {
        gateway: url.to_string(),
        resource: found.resource.clone(),
        issuer: found.server.issuer.clone(),
        token_endpoint: found.server.token_endpoint.clone(),
        revocation_endpoint: found.server.revocation_endpoint.clone(),
        client,
        access_token: SecretString::default(),
        refresh_token: None,
        expires_at: None,
        scope: None,
        // An issuer that can bind tokens need not bind this one.
        key: key.filter(|_| is_bound(answer)),
    };
    kept.take(answer)?;
    Ok(kept)
}

/// Whether the token is bound to the key that it was asked for with.
fn is_bound(answer: &CoreTokenResponse) -> bool {
    answer.token_type().as_ref().eq_ignore_ascii_case("dpop")
}

impl Kept {
    /// Takes over what a token endpoint answers; what it leaves out stays as it was (RFC 6749 section 6).
    fn take(&mut self, answer: &CoreTokenResponse) -> Result<(), String> {
        let token = answer.access_token().secret();
        let plain = !token.is_empty()
            && token.len() <= limit::TOKEN_BYTES_MAX
            && token.bytes().all(|byte| byte.is_ascii_graphic());
        if !plain {
            return Err("the issuer answers a token that cannot stand in a header".to_owned());
        }
        if self.key.is_some() && !is_bound(answer) {
            return Err("the issuer answers a token that is not bound to the key of this login".to_owned());
        }
        if self.key.is_none() && !answer.token_type().as_ref().eq_ignore_ascii_case("bearer") {
            return Err("the issuer answers a token that is no bearer token".to_owned());
        }
        self.access_token = SecretString::from(token.as_str());
        if let Some(refresh) = answer.refresh_token() {
            self.refresh_token = Some(SecretString::from(refresh.secret().as_str()));
        }
        let life = answer.expires_in().map(|life: Duration| i64::try_from(life.as_secs()).unwrap_or(i64::MAX));
        self.expires_at = life.map(|life| identity::now_s().saturating_add(life));
        if let Some(scopes) = answer.scopes() {
            self.scope = Some(scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(" "));
        }
        Ok(())
    }
}

/// The error without the answer that it came in: a token could stand there.
fn describe<T: ErrorResponse + std::fmt::Display>(error: &RequestTokenError<EgressError, T>) -> String {
    match error {
        RequestTokenError::ServerResponse(refused) => format!("the issuer answers {}", shown(&refused.to_string())),
        RequestTokenError::Request(error) => error.to_string(),
        RequestTokenError::Parse(..) => "the issuer answers something that is no token response".to_owned(),
        RequestTokenError::Other(problem) => shown(problem),
    }
}
