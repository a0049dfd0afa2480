//! Tokens of somebody's account at an upstream: authorization code with PKCE, renewal, and giving back.
//!
//! Decides what is asked of a token endpoint and what of its answer is believed. Invariants: every code is bound to a
//! fresh verifier, a `state` and the resource (RFC 8707); a token that cannot stand in a header, or is no bearer token,
//! is none.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use oauth2::basic::{
    BasicErrorResponse, BasicErrorResponseType, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse,
    BasicTokenType,
};
use oauth2::{
    AuthUrl, AuthorizationCode, ClientId, CsrfToken, EndpointNotSet, EndpointSet, ExtraTokenFields, PkceCodeChallenge,
    PkceCodeVerifier, RedirectUrl, RefreshToken, RequestTokenError, Scope, StandardRevocableToken,
    StandardTokenResponse, TokenResponse as _, TokenUrl,
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use url::Url;

use super::dpop::{Prover, Proving};
use super::{Registered, Server, describe};
use crate::egress::{EgressError, OauthClient};
use crate::limit;

/// Where tokens are got, as whom, and for what.
#[derive(Debug, Clone, Copy)]
pub struct Party<'a> {
    /// The authorization server.
    pub issuer: &'a str,
    /// Its token endpoint.
    pub token_endpoint: &'a Url,
    /// Who we are there.
    pub client: &'a Registered,
    /// What the token is for.
    pub resource: &'a str,
    /// The key that it is to be bound to, where it is.
    pub prover: Option<&'a Arc<Prover>>,
}

/// What a token endpoint gave.
#[derive(Debug)]
pub struct Tokens {
    /// The access token.
    pub access: SecretString,
    /// What it is renewed with.
    pub refresh: Option<SecretString>,
    /// For how long it is good, where that was said.
    pub life: Option<Duration>,
    /// What was granted, where that was said.
    pub scope: Option<String>,
    /// What it says of whose account it is; not verified.
    pub id_token: Option<String>,
    /// It is bound to our key.
    pub bound: bool,
}

/// Why there are no tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenError {
    /// What was presented is worth nothing (any more).
    Over(String),
    /// The server does not know us (any more), whatever was presented.
    Stranger(String),
    /// Nobody knows: no answer, or one about us and not about what was presented.
    Unknown(String),
}

/// What a server did with a token that was given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GivenBack {
    /// It is worth nothing any more.
    Taken,
    /// The server takes none of its kind back.
    Unsupported,
    /// Nobody knows.
    Unknown,
}

/// What it says of one that it does not take.
#[derive(Deserialize)]
struct RevocationError {
    error: String,
}

/// A grant that was begun: where the browser goes, and what it must come back with.
#[derive(Debug)]
pub struct Begun {
    /// The authorization server's page.
    pub page: Url,
    /// `state`.
    pub state: String,
    /// The PKCE verifier.
    pub verifier: String,
}

/// What an answer has besides tokens. An ID token is not verified, and need not be one that could be.
#[derive(Debug, Serialize, Deserialize)]
struct Extra {
    id_token: Option<String>,
}

impl ExtraTokenFields for Extra {}

type Answer = StandardTokenResponse<Extra, BasicTokenType>;

type Client = oauth2::Client<
    BasicErrorResponse,
    Answer,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
>;

impl Party<'_> {
    fn at_token_endpoint(&self) -> Client {
        let client = oauth2::Client::new(ClientId::new(self.client.id.clone()))
            .set_token_uri(TokenUrl::from_url(self.token_endpoint.clone()));
        match self.client.proof() {
            Some((secret, how)) => client.set_client_secret(secret).set_auth_type(how),
            None => client,
        }
    }

    /// Begins a grant.
    ///
    /// # Errors
    /// A lower-case sentence.
    pub fn begin(&self, server: &Server, redirect: &str, scopes: &[String]) -> Result<Begun, String> {
        let page = server.authorization_endpoint.clone().ok_or("the issuer has no page to log in with")?;
        let redirect = RedirectUrl::new(redirect.to_owned()).map_err(|error| error.to_string())?;
        let client = self.at_token_endpoint().set_auth_uri(AuthUrl::from_url(page)).set_redirect_uri(redirect);
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let asked = client
            .authorize_url(|| CsrfToken::new_random_len(32))
            .set_pkce_challenge(challenge)
            .add_scopes(scopes.iter().cloned().map(Scope::new))
            .add_extra_param("resource", self.resource.to_owned());
        let (page, state) = asked.url();
        Ok(Begun { page, state: state.into_secret(), verifier: verifier.into_secret() })
    }

    /// Tokens for a code.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn exchange(
        &self,
        asker: &OauthClient,
        redirect: &str,
        code: &str,
        verifier: &str,
    ) -> Result<Tokens, TokenError> {
        let unknown = TokenError::Unknown;
        let redirect = RedirectUrl::new(redirect.to_owned()).map_err(|error| unknown(error.to_string()))?;
        let client = self.at_token_endpoint().set_redirect_uri(redirect);
        let asked = client
            .exchange_code(AuthorizationCode::new(code.to_owned()))
            .set_pkce_verifier(PkceCodeVerifier::new(verifier.to_owned()))
            .add_extra_param("resource", self.resource.to_owned());
        let answer = asked.request_async(&self.proving(asker)).await.map_err(|error| failed(&error))?;
        read(&answer, self.prover.is_some())
    }

    fn proving(&self, asker: &OauthClient) -> Proving {
        Proving { client: asker.clone(), prover: self.prover.map(Arc::clone) }
    }

    /// Renews tokens.
    ///
    /// # Errors
    /// [`TokenError`].
    pub async fn renew(&self, asker: &OauthClient, refresh: &SecretString) -> Result<Tokens, TokenError> {
        let client = self.at_token_endpoint();
        let refresh = RefreshToken::new(refresh.expose_secret().to_owned());
        let asked = client.exchange_refresh_token(&refresh).add_extra_param("resource", self.resource.to_owned());
        let answer = asked.request_async(&self.proving(asker)).await.map_err(|error| failed(&error))?;
        read(&answer, self.prover.is_some())
    }

    /// Gives a token back (RFC 7009); we prove who we are as at the token endpoint.
    pub async fn give_back(
        &self,
        asker: &OauthClient,
        endpoint: &Url,
        token: &SecretString,
        hint: &'static str,
    ) -> GivenBack {
        let mut pairs = vec![("token", token.expose_secret()), ("token_type_hint", hint)];
        let mut request = http::Request::post(endpoint.as_str())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json");
        match &self.client.secret {
            Some(secret) if !self.client.secret_in_body => {
                let Some(basic) = basic(&self.client.id, secret) else { return GivenBack::Unknown };
                request = request.header(AUTHORIZATION, basic);
            }
            secret => {
                pairs.push(("client_id", self.client.id.as_str()));
                pairs.extend(secret.as_ref().map(|secret| ("client_secret", secret.expose_secret())));
            }
        }
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        let Ok(request) = request.body(form.into_bytes()) else { return GivenBack::Unknown };
        let Ok(answer) = asker.send(request).await else { return GivenBack::Unknown };
        let unsupported = || {
            let error = serde_json::from_slice::<RevocationError>(answer.body());
            error.is_ok_and(|error| error.error == "unsupported_token_type")
        };
        match answer.status() {
            status if status.is_success() => GivenBack::Taken,
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => {
                GivenBack::Unsupported
            }
            status if status.is_client_error() && unsupported() => GivenBack::Unsupported,
            _ => GivenBack::Unknown,
        }
    }
}

/// RFC 6749 section 2.3.1: both are form-encoded first.
fn basic(client: &str, secret: &SecretString) -> Option<HeaderValue> {
    let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = format!("{}:{}", encoded(client), encoded(secret.expose_secret()));
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn failed(error: &RequestTokenError<EgressError, BasicErrorResponse>) -> TokenError {
    match error {
        RequestTokenError::ServerResponse(answer) if *answer.error() == BasicErrorResponseType::InvalidGrant => {
            TokenError::Over(describe(error))
        }
        RequestTokenError::ServerResponse(answer)
            if matches!(
                answer.error(),
                BasicErrorResponseType::InvalidClient | BasicErrorResponseType::UnauthorizedClient
            ) =>
        {
            TokenError::Stranger(describe(error))
        }
        _ => TokenError::Unknown(describe(error)),
    }
}

fn read(answer: &Answer, proves: bool) -> Result<Tokens, TokenError> {
    let no_good = |what: &str| TokenError::Unknown(format!("the issuer answers {what}"));
    let token = answer.access_token().secret();
    let plain =
        !token.is_empty() && token.len() <= limit::TOKEN_BYTES_MAX && token.bytes().all(|byte| byte.is_ascii_graphic());
    if !plain {
        return Err(no_good("a token that cannot stand in a header"));
    }
    let kind = answer.token_type().as_ref();
    let bound = proves && kind.eq_ignore_ascii_case("dpop");
    if !bound && !kind.eq_ignore_ascii_case("bearer") {
        return Err(no_good("a token that is no bearer token"));
    }
    let refresh = answer.refresh_token().map(|refresh| refresh.secret().as_str());
    if refresh.is_some_and(|refresh| refresh.len() > limit::TOKEN_BYTES_MAX) {
        return Err(no_good("a refresh token that is too long"));
    }
    let scopes = answer.scopes().map(|scopes| scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(" "));
    Ok(Tokens {
        access: SecretString::from(token.as_str()),
        refresh: refresh.map(SecretString::from),
        life: answer.expires_in(),
        scope: scopes,
        id_token: answer.extra_fields().id_token.clone(),
        bound,
    })
}
