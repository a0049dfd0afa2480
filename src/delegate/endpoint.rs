//! Asks the endpoints of authorization servers: one client for every strategy.
//!
//! Decides where an authorization server is, how we prove who we are there, and which errors are decisions. Refuses to
//! know what is asked for. Invariants: our proof for one authorization server is never shown to another; metadata
//! counts for the issuer that it was asked of and no other; an address that an issuer's metadata names is checked
//! like any that a stranger names.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{Request, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::answer::{AnsweredError, Expected, Token};
use super::metadata::{Metadata, MetadataCache};
use super::secrets::Secrets;
use super::{assertion, unavailable};
use crate::config::{ClientAuthentication, TokenRequest};
use crate::egress::{self, EgressPolicy, OauthClient, oauth_client};
use crate::identity::Identity;
use crate::ids::{IssuerAlias, ServerId};
use crate::limit;
use crate::outcome::{Reason, Refusal, Stop};

/// Asks the endpoints of authorization servers.
#[derive(Debug)]
pub(super) struct Endpoints {
    identity: Arc<Identity>,
    secrets: Arc<Secrets>,
    clients: moka::sync::Cache<Url, (EgressPolicy, OauthClient)>,
    metadata: MetadataCache,
}

/// An authorization server that tokens are asked of.
#[derive(Debug, Clone)]
pub(super) struct AuthorizationServer {
    /// Its exact issuer, where it is known.
    pub issuer: Option<String>,
    pub token_endpoint: Url,
    policy: EgressPolicy,
}

/// A form under way: its fields, and which of their values are secret.
#[derive(Debug, Default)]
pub(super) struct Form {
    fields: Vec<(String, String)>,
    secret_fields: Vec<(&'static str, SecretString)>,
}

/// Why there is no token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// The authorization server decided against it.
    Refused(AnsweredError),
    /// It could not be asked, or does not answer as it should.
    Unavailable(String),
}

impl AuthorizationServer {
    /// One that a token was asked of earlier; it is reached like one that an administrator wrote.
    pub fn known_as(issuer: Option<String>, token_endpoint: Url) -> Self {
        let policy = EgressPolicy::issuer(token_endpoint.host_str(), egress::is_loopback(&token_endpoint));
        Self { issuer, token_endpoint, policy }
    }

    /// What it is called: its issuer, or else where it is.
    pub fn name(&self) -> String {
        self.issuer.clone().unwrap_or_else(|| self.token_endpoint.to_string())
    }
}

impl Form {
    /// A request for a token by that grant, with what is configured for it.
    pub fn new(grant: &str, asks: &TokenRequest) -> Self {
        let mut form = Self::default().with("grant_type", grant);
        for (name, value) in [("audience", &asks.audience), ("resource", &asks.resource), ("scope", &asks.scope)] {
            if let Some(value) = value {
                form = form.with(name, value);
            }
        }
        for (name, value) in &asks.extra {
            form = form.with(name, value);
        }
        form
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A field that no message repeats.
    pub fn with_secret(mut self, name: &'static str, value: SecretString) -> Self {
        self.secret_fields.push((name, value));
        self
    }

    fn encode(&self) -> Vec<u8> {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in &self.fields {
            form.append_pair(name, value);
        }
        for (name, value) in &self.secret_fields {
            form.append_pair(name, value.expose_secret());
        }
        form.finish().into_bytes()
    }

    /// What of it is secret.
    pub fn secrets(&self) -> Vec<SecretString> {
        self.secret_fields.iter().map(|(_, value)| value.clone()).collect()
    }
}

impl Endpoints {
    pub fn new(identity: Arc<Identity>, secrets: Arc<Secrets>) -> Self {
        let clients = moka::sync::Cache::new(limit::TOKEN_ENDPOINTS_MAX);
        Self { identity, secrets, clients, metadata: MetadataCache::new() }
    }

    /// The secret, read before.
    pub async fn secret(&self, reference: &crate::config::SecretReference) -> Result<Arc<SecretString>, String> {
        self.secrets.get(reference).await
    }

    /// The authorization server that is configured; where none is, the caller's issuer.
    pub async fn server(
        &self,
        asks: &TokenRequest,
        callers: Option<&IssuerAlias>,
    ) -> Result<AuthorizationServer, String> {
        if let Some(url) = &asks.token_endpoint {
            // An administrator wrote it; the configuration lets plain HTTP stand there on loopback only.
            let policy = EgressPolicy::issuer(url.host_str(), egress::is_loopback(url));
            return Ok(AuthorizationServer { issuer: asks.issuer.clone(), token_endpoint: url.clone(), policy });
        }
        if let Some(issuer) = &asks.issuer {
            let (metadata, policy) = self.metadata(issuer).await?;
            let token_endpoint = metadata.token_endpoint.clone();
            return Ok(AuthorizationServer { issuer: Some(issuer.clone()), token_endpoint, policy });
        }
        let alias = callers.ok_or("nobody says which authorization server to ask; set issuer or token_endpoint")?;
        let (token_endpoint, policy) = self
            .identity
            .token_endpoint(alias)
            .ok_or("the caller's issuer names no token endpoint; set token_endpoint")?;
        Ok(AuthorizationServer { issuer: self.identity.issuer_url(alias), token_endpoint, policy })
    }

    /// Where that authorization server takes tokens back, and a policy to reach it by; nothing, where it does not.
    pub async fn revocation_endpoint(
        &self,
        asks: &TokenRequest,
        server: &AuthorizationServer,
    ) -> Result<Option<AuthorizationServer>, String> {
        if let Some(url) = &asks.revocation_endpoint {
            let policy = EgressPolicy::issuer(url.host_str(), egress::is_loopback(url));
            return Ok(Some(AuthorizationServer { policy, token_endpoint: url.clone(), ..server.clone() }));
        }
        let Some(issuer) = &server.issuer else { return Ok(None) };
        let (metadata, policy) = self.metadata(issuer).await?;
        let endpoint = metadata.revocation_endpoint.clone();
        Ok(endpoint.map(|url| AuthorizationServer { policy, token_endpoint: url, ..server.clone() }))
    }

    /// What that issuer says of itself (RFC 8414).
    pub async fn metadata(&self, issuer: &str) -> Result<(Arc<Metadata>, EgressPolicy), String> {
        let url = Url::parse(issuer).map_err(|_| format!("the issuer `{issuer}` is not a URL"))?;
        let policy = EgressPolicy::issuer(url.host_str(), egress::is_loopback(&url));
        let client = self.client(&url, &policy)?;
        Ok((self.metadata.get(issuer, &url, &client).await?, policy))
    }

    /// Asks for a token.
    pub async fn token(
        &self,
        server: &AuthorizationServer,
        asks: &TokenRequest,
        form: Form,
        expected: Expected,
    ) -> Result<Token, Problem> {
        let (form, answer) = self.ask(server, asks, form).await.map_err(Problem::Unavailable)?;
        if answer.status() != StatusCode::OK {
            return Err(refused(&answer, &form.secrets()));
        }
        let token = Token::read(answer.body(), expected, &form.secrets()).map_err(Problem::Unavailable)?;
        // Whoever gets it there could come back with it: a token for an upstream is for that upstream.
        if expected != Expected::Assertion && self.identity.reaches(token.said.iss.as_deref(), token.said.audiences()) {
            let problem = "the token that was issued is good at this gateway itself (aud): have the authorization server \
                           issue it for the upstream alone";
            return Err(Problem::Unavailable(problem.to_owned()));
        }
        Ok(token)
    }

    /// Sends a form with the proof of who we are, and answers it with what came back.
    pub async fn ask(
        &self,
        server: &AuthorizationServer,
        asks: &TokenRequest,
        form: Form,
    ) -> Result<(Form, Response<Vec<u8>>), String> {
        let client = self.client(&server.token_endpoint, &server.policy)?;
        let mut form = form;
        let mut request = Request::post(server.token_endpoint.as_str())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json");
        match &asks.client {
            ClientAuthentication::None => form = form.with("client_id", &asks.client_id),
            ClientAuthentication::Basic(secret) => {
                let secret = self.secrets.get(secret).await?;
                request = request.header(AUTHORIZATION, basic(&asks.client_id, &secret)?);
            }
            ClientAuthentication::Post(secret) => {
                let secret = self.secrets.get(secret).await?;
                form = form
                    .with("client_id", &asks.client_id)
                    .with_secret("client_secret", SecretString::from(secret.expose_secret()));
            }
            ClientAuthentication::PrivateKey(key) => {
                let issuer = server.issuer.as_deref().ok_or("an assertion names its issuer: set issuer")?;
                let pem = self.secrets.get(&key.key).await?;
                let assertion = assertion::sign(key, &pem, &asks.client_id, &asks.client_id, issuer)?;
                form = form
                    .with("client_id", &asks.client_id)
                    .with("client_assertion_type", assertion::TYPE)
                    .with_secret("client_assertion", assertion);
            }
        }
        let request = request.body(form.encode()).map_err(|error| error.to_string())?;
        let answer = client.send(request).await.map_err(|error| error.to_string())?;
        Ok((form, answer))
    }

    fn client(&self, url: &Url, policy: &EgressPolicy) -> Result<OauthClient, String> {
        if let Some((of, client)) = self.clients.get(url)
            && of == *policy
        {
            return Ok(client);
        }
        let client = oauth_client(policy.clone()).map_err(|error| error.to_string())?;
        self.clients.insert(url.clone(), (policy.clone(), client.clone()));
        Ok(client)
    }
}

impl Problem {
    /// What a call that needed the token is answered.
    pub fn stop(self, server: &ServerId) -> Stop {
        match self {
            Self::Unavailable(problem) => unavailable(server, &problem),
            Self::Refused(error) => {
                let (code, description) = (&error.code, &error.description);
                tracing::warn!(server = %server, code, description, "the authorization server refused a token");
                Refusal::new(Reason::ExchangeRefused)
                    .hint(format!(
                        "the authorization server refused a token for this upstream ({code}); ask an administrator"
                    ))
                    .into()
            }
        }
    }
}

/// What an error means: a decision about who asks and what for, or trouble.
fn refused(answer: &Response<Vec<u8>>, sent: &[SecretString]) -> Problem {
    let status = answer.status();
    match AnsweredError::read(answer.body(), sent) {
        None => Problem::Unavailable(format!("the token endpoint answered {status}")),
        Some(error) if status.is_client_error() && error.is_a_decision() => Problem::Refused(error),
        Some(error) => {
            Problem::Unavailable(format!("the token endpoint answered {status}, {}: {}", error.code, error.description))
        }
    }
}

fn basic(client: &str, secret: &SecretString) -> Result<http::HeaderValue, String> {
    // RFC 6749 section 2.3.1: both are form-encoded first.
    let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = format!("{}:{}", encoded(client), encoded(secret.expose_secret()));
    let mut value = http::HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair)))
        .map_err(|_| "our client id or secret cannot stand in a header".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}
