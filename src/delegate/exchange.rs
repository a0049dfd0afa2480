//! RFC 8693: the caller's token is exchanged for one that is good at one upstream.
//!
//! Decides what is asked and which answers are believed. Invariants: one question at a time for one key;
//! an answer that is our own question (the inbound token handed back) is refused; nothing that an
//! authorization server writes reaches a caller beyond its error code.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use moka::Expiry;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

use super::key::Inputs;
use super::{CredentialFacts, CredentialKind, unavailable};
use crate::config::ExchangeConfig;
use crate::egress::{self, EgressPolicy, OauthClient, oauth_client};
use crate::identity::revoked::RevocationTarget;
use crate::identity::{Caller, Identity, TokenFacts, now_s};
use crate::ids::{Digest, ServerId};
use crate::limit;
use crate::outcome::{Reason, Refusal, Stop};

const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// Tokens that were exchanged, and the clients that ask for them.
#[derive(Debug)]
pub(super) struct Exchanges {
    tokens: moka::future::Cache<Digest, Arc<Exchanged>>,
    clients: moka::sync::Cache<Url, (EgressPolicy, OauthClient)>,
}

/// One exchanged token.
#[derive(Debug)]
pub(super) struct Exchanged {
    secret: SecretString,
    facts: Arc<CredentialFacts>,
    /// Not to be used from this second since 1970 on.
    used_until: i64,
    inbound: TokenFacts,
}

/// What is asked.
pub(super) struct Question<'a> {
    pub caller: &'a Caller,
    pub server: &'a ServerId,
    pub revision: Digest,
    pub exchange: &'a ExchangeConfig,
    /// Our client secret.
    pub secret: Option<Arc<SecretString>>,
}

/// The answer of a token endpoint (RFC 8693 section 2.2.1).
#[derive(Deserialize)]
struct Answer {
    access_token: String,
    issued_token_type: Option<String>,
    token_type: Option<String>,
    expires_in: Option<serde_json::Number>,
}

/// An error of a token endpoint (RFC 6749 section 5.2).
#[derive(Deserialize)]
struct AnsweredError {
    error: String,
    error_description: Option<String>,
}

/// What a JWT says of itself; nothing of it is believed, it is for the record.
#[derive(Deserialize, Default)]
struct SaidOfItself {
    jti: Option<String>,
    aud: Option<serde_json::Value>,
    exp: Option<i64>,
}

impl Exchanges {
    pub fn new() -> Self {
        let tokens = moka::future::Cache::builder()
            .max_capacity(limit::EXCHANGED_BYTES_MAX)
            .weigher(|_, token: &Arc<Exchanged>| token.weight())
            .expire_after(UntilUse)
            .build();
        Self { tokens, clients: moka::sync::Cache::new(limit::TOKEN_ENDPOINTS_MAX) }
    }

    /// A token that answers the question: one that was exchanged before, or a new one.
    pub async fn token(&self, identity: &Identity, question: Question<'_>) -> Result<Arc<Exchanged>, Stop> {
        let facts = question.caller.token();
        let persona = question.caller.persona();
        let key = Inputs::new(persona, facts.digest, question.server, question.revision, question.exchange).key();
        if let Some(token) = self.tokens.get(&key).await
            && now_s() < token.used_until
        {
            return Ok(token);
        }
        let asked = self.tokens.try_get_with(key, self.ask(identity, &question)).await;
        asked.map_err(|stop| Stop::clone(&stop))
    }

    pub async fn drop_for(&self, target: &RevocationTarget) -> usize {
        let of_configuration = matches!(
            target,
            RevocationTarget::Agent(_)
                | RevocationTarget::Owner(_)
                | RevocationTarget::Server(_)
                | RevocationTarget::Mandate(_)
        );
        let names = |token: &TokenFacts| of_configuration || target.names(token);
        let named: Vec<Arc<Digest>> =
            self.tokens.iter().filter(|(_, token)| names(&token.inbound)).map(|(key, _)| key).collect();
        for key in &named {
            self.tokens.invalidate(key.as_ref()).await;
        }
        named.len()
    }

    async fn ask(&self, identity: &Identity, question: &Question<'_>) -> Result<Arc<Exchanged>, Stop> {
        let failed = |problem: &str| unavailable(question.server, problem);
        let subject = question.caller.subject_token().ok_or_else(|| {
            Stop::from(
                Refusal::new(Reason::ExchangeRefused)
                    .hint("this server needs a signed-in caller; send an access token"),
            )
        })?;
        let (endpoint, client) = self.endpoint(identity, question)?;
        let asked_at = now_s();
        let request = request(&endpoint, question, subject).map_err(|problem| failed(&problem))?;
        let answer = client.send(request).await.map_err(|error| failed(&error.to_string()))?;
        if answer.status() != http::StatusCode::OK {
            return Err(refused(question, answer.status(), answer.body(), subject));
        }
        let token = Exchanged::new(answer.body(), question, subject, asked_at).map_err(|problem| failed(&problem))?;
        Ok(Arc::new(token))
    }

    /// The token endpoint, as configured or as the caller's issuer names it, and a client that may go there.
    fn endpoint(&self, identity: &Identity, question: &Question<'_>) -> Result<(Url, OauthClient), Stop> {
        let failed = |problem: &str| unavailable(question.server, problem);
        let (url, policy) = match &question.exchange.token_endpoint {
            // An administrator wrote it; the configuration lets plain HTTP stand there on loopback only.
            Some(url) => (url.clone(), EgressPolicy::issuer(url.host_str(), egress::is_loopback(url))),
            None => identity
                .token_endpoint(&question.caller.token().issuer)
                .ok_or_else(|| failed("the caller's issuer names no token endpoint; set token_endpoint"))?,
        };
        if let Some((of, client)) = self.clients.get(&url)
            && of == policy
        {
            return Ok((url, client));
        }
        let client = oauth_client(policy.clone()).map_err(|error| failed(&error.to_string()))?;
        self.clients.insert(url.clone(), (policy, client.clone()));
        Ok((url, client))
    }
}

impl Exchanged {
    pub const fn secret(&self) -> &SecretString {
        &self.secret
    }

    pub const fn facts(&self) -> &Arc<CredentialFacts> {
        &self.facts
    }

    fn new(body: &[u8], question: &Question<'_>, subject: &SecretString, asked_at: i64) -> Result<Self, String> {
        let answer: Answer = serde_json::from_slice(body)
            .map_err(|_| "the token endpoint's answer is not a token response".to_owned())?;
        let token = answer.access_token.as_str();
        if token.is_empty()
            || token.len() > limit::TOKEN_BYTES_MAX
            || !token.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err("the token endpoint answered a token that cannot stand in a header".to_owned());
        }
        if token == subject.expose_secret() {
            return Err("the token endpoint handed the caller's own token back, which never goes upstream".to_owned());
        }
        if !matches!(answer.issued_token_type.as_deref(), Some(ACCESS_TOKEN | JWT)) {
            return Err("the token endpoint did not issue an access token (issued_token_type)".to_owned());
        }
        let kind = answer.token_type.as_deref().unwrap_or("");
        if !kind.eq_ignore_ascii_case("bearer") && !kind.eq_ignore_ascii_case("n_a") {
            return Err("the token endpoint issued a token that is not a bearer token (token_type)".to_owned());
        }
        let said = said_of_itself(token);
        let life = match &answer.expires_in {
            None => None,
            Some(number) => Some(
                number
                    .as_i64()
                    .filter(|life| *life > 0)
                    .ok_or("the token endpoint's expires_in is not a positive number")?,
            ),
        };
        let expires_at = life.map(|life| asked_at.saturating_add(life)).or(said.exp);
        // Without a word about its life a token is used for a minute.
        let life = expires_at.map_or(seconds(limit::EXCHANGED_UNKNOWN_LIFE), |at| at.saturating_sub(asked_at));
        let margin = seconds(limit::EXCHANGED_MARGIN).min(life / 2);
        let used_until = asked_at
            .saturating_add((life - margin).min(seconds(question.exchange.use_max)))
            .min(question.caller.token().expires_at);
        if used_until <= asked_at {
            return Err("the exchanged token, or the caller's, expires too soon to be used".to_owned());
        }
        let audience = said.aud.map(|aud| aud.as_str().map_or_else(|| aud.to_string(), str::to_owned));
        let shown = |text: String| text.chars().take(limit::ERROR_SHOWN_CHARACTERS_MAX).collect::<String>();
        let facts = CredentialFacts {
            kind: CredentialKind::Exchange,
            id: said.jti.map(shown),
            audience: audience
                .or_else(|| question.exchange.audience.clone().or_else(|| question.exchange.resource.clone()))
                .map(shown),
            expires_at,
            used_until: Some(used_until),
        };
        Ok(Self {
            facts: Arc::new(facts),
            used_until,
            inbound: question.caller.token().clone(),
            secret: SecretString::from(answer.access_token),
        })
    }

    fn weight(&self) -> u32 {
        u32::try_from(self.secret.expose_secret().len().saturating_add(limit::EXCHANGED_ENTRY_BYTES_MIN))
            .unwrap_or(u32::MAX)
    }
}

fn request(endpoint: &Url, question: &Question<'_>, subject: &SecretString) -> Result<http::Request<Vec<u8>>, String> {
    let exchange = question.exchange;
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", GRANT)
        .append_pair("subject_token", subject.expose_secret())
        .append_pair("subject_token_type", ACCESS_TOKEN)
        .append_pair("requested_token_type", ACCESS_TOKEN);
    let optional = [("audience", &exchange.audience), ("resource", &exchange.resource), ("scope", &exchange.scope)];
    for (name, value) in optional {
        if let Some(value) = value {
            form.append_pair(name, value);
        }
    }
    let mut request = http::Request::post(endpoint.as_str())
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(ACCEPT, "application/json");
    match &question.secret {
        Some(secret) => {
            // RFC 6749 section 2.3.1: both are form-encoded first.
            let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            let pair = format!("{}:{}", encoded(&exchange.client_id), encoded(secret.expose_secret()));
            let mut value = http::HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair)))
                .map_err(|_| "our client id or secret cannot stand in a header".to_owned())?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        None => {
            form.append_pair("client_id", &exchange.client_id);
        }
    }
    request.body(form.finish().into_bytes()).map_err(|error| error.to_string())
}

/// What an error of the token endpoint means: a decision about this caller, or trouble of ours.
fn refused(question: &Question<'_>, status: http::StatusCode, body: &[u8], subject: &SecretString) -> Stop {
    let Ok(answered) = serde_json::from_slice::<AnsweredError>(body) else {
        return unavailable(question.server, &format!("the token endpoint answered {status}"));
    };
    let plain = |text: &str| {
        let text = text.replace(subject.expose_secret(), "(token)");
        text.chars().filter(|c| matches!(c, ' '..='~')).take(limit::ERROR_SHOWN_CHARACTERS_MAX).collect::<String>()
    };
    let (code, description) = (plain(&answered.error), answered.error_description.as_deref().map(plain));
    let description = description.unwrap_or_default();
    match code.as_str() {
        "invalid_grant"
        | "invalid_target"
        | "invalid_scope"
        | "invalid_request"
        | "access_denied"
        | "consent_required"
        | "interaction_required"
        | "login_required"
            if status.is_client_error() =>
        {
            tracing::warn!(server = %question.server, code, description, "the authorization server refused an exchange");
            Refusal::new(Reason::ExchangeRefused)
                .hint(format!(
                    "the authorization server refused a token for this upstream ({code}); ask an administrator"
                ))
                .into()
        }
        _ => unavailable(question.server, &format!("the token endpoint answered {status}, {code}: {description}")),
    }
}

fn said_of_itself(token: &str) -> SaidOfItself {
    let payload = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    payload.and_then(|payload| serde_json::from_slice(&payload).ok()).unwrap_or_default()
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// Until its use ends.
struct UntilUse;

impl Expiry<Digest, Arc<Exchanged>> for UntilUse {
    fn expire_after_create(&self, _: &Digest, token: &Arc<Exchanged>, _: Instant) -> Option<Duration> {
        Some(Duration::from_secs(u64::try_from(token.used_until.saturating_sub(now_s())).unwrap_or(0)))
    }

    fn expire_after_update(
        &self,
        key: &Digest,
        token: &Arc<Exchanged>,
        at: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(key, token, at)
    }
}
