//! The issuer that people sign in at, as the console and the pages for accounts speak to it: code with PKCE, renewal,
//! and nothing else.
//!
//! Decides what is believed of an answer: the ID token is verified by `openidconnect`, under the algorithms of the
//! files, for our client and the nonce of this browser. Refuses to know sessions. Invariants: everything goes through
//! the guarded client; nothing that the issuer writes is repeated beyond an error's code; no token is repeated at all.

use std::sync::Arc;
use std::time::Instant;

use openidconnect::core::{
    CoreAuthDisplay, CoreClaimName, CoreClaimType, CoreClient, CoreClientAuthMethod, CoreGrantType, CoreJsonWebKey,
    CoreJweContentEncryptionAlgorithm, CoreJweKeyManagementAlgorithm, CoreJwsSigningAlgorithm, CoreResponseMode,
    CoreResponseType, CoreSubjectIdentifierType, CoreTokenResponse,
};
use openidconnect::{
    AccessTokenHash, AdditionalProviderMetadata, AuthType, AuthenticationFlow, AuthorizationCode, ClientId,
    ClientSecret, CsrfToken, EndpointMaybeSet, EndpointNotSet, EndpointSet, IssuerUrl, Nonce, OAuth2TokenResponse as _,
    PkceCodeChallenge, PkceCodeVerifier, ProviderMetadata, RedirectUrl, RefreshToken, RequestTokenError, Scope,
    TokenResponse as _,
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use url::Url;

use super::{Asker, describe};
use crate::config::{Algorithm, IssuerConfig, SecretReference};
use crate::egress::{EgressPolicy, is_loopback, oauth_client};
use crate::limit;

/// What a login or a renewal gave.
#[derive(Debug)]
pub struct Granted {
    /// The access token.
    pub access: SecretString,
    /// What it is renewed with.
    pub refresh: Option<SecretString>,
}

/// Why a token could not be renewed.
#[derive(Debug)]
pub enum RenewError {
    /// The issuer does not renew it: somebody has to log in.
    Over,
    /// Nobody knows: the issuer did not answer.
    Unknown(String),
}

/// A login that was begun: where the browser goes, and what it must come back with.
#[derive(Debug)]
pub struct Begun {
    /// The issuer's page.
    pub page: Url,
    /// `state`.
    pub state: String,
    /// `nonce`.
    pub nonce: String,
    /// The PKCE verifier.
    pub verifier: String,
}

/// What a browser came back with, and what it had been given.
#[derive(Debug)]
pub struct Returned<'a> {
    /// `code`.
    pub code: &'a str,
    /// `iss` of RFC 9207.
    pub issuer: Option<&'a str>,
    /// The nonce of this browser.
    pub nonce: &'a str,
    /// The verifier of this browser.
    pub verifier: &'a str,
}

/// A login that was finished.
#[derive(Debug)]
pub struct LoggedIn {
    /// The tokens.
    pub granted: Granted,
    /// `sub` of the ID token.
    pub subject: String,
}

/// What RFC 9207 adds to the metadata.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Named {
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

impl AdditionalProviderMetadata for Named {}

type Metadata = ProviderMetadata<
    Named,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

type Client =
    CoreClient<EndpointSet, EndpointNotSet, EndpointNotSet, EndpointNotSet, EndpointMaybeSet, EndpointMaybeSet>;

/// What the issuer said of itself.
#[derive(Debug)]
struct Known {
    asker: Asker,
    metadata: Metadata,
}

/// The last attempt to ask it.
#[derive(Debug)]
struct Attempt {
    issuer: String,
    at: Instant,
    outcome: Result<Arc<Known>, String>,
}

/// The room's memory of the issuer.
#[derive(Debug)]
pub struct Provider {
    last: tokio::sync::Mutex<Option<Attempt>>,
    places: Semaphore,
}

impl Default for Provider {
    fn default() -> Self {
        Self { last: tokio::sync::Mutex::new(None), places: Semaphore::new(limit::CONSOLE_LOGINS_MAX) }
    }
}

/// Where somebody signs in, as whom we ask for it, and what for.
#[derive(Debug, Clone)]
pub struct SignIn {
    /// The issuer, as the files have it.
    pub issuer: Arc<IssuerConfig>,
    /// Our client there.
    pub client_id: String,
    /// Its secret, where it has one: read when it is needed, and never for somebody who only begins.
    pub client_secret: Option<SecretReference>,
    /// Where the issuer sends the browser back to.
    pub redirect: String,
    /// Scopes besides `openid`.
    pub scopes: Vec<String>,
    /// What the access token is for; without one nobody looks at it.
    pub resource: Option<String>,
    /// Kinds of login that a fresh one has to be of.
    pub acr: Vec<String>,
    /// Whether an issuer on this machine may be asked.
    pub allow_loopback: bool,
}

impl SignIn {
    async fn secret(&self) -> Result<Option<ClientSecret>, String> {
        let Some(reference) = &self.client_secret else { return Ok(None) };
        let secret = reference.read().await.map_err(|error| {
            tracing::error!(problem = %error, "nobody can sign in");
            "the client secret for signing in cannot be read; the gateway's log says why".to_owned()
        })?;
        Ok(Some(ClientSecret::new(secret.expose_secret().to_owned())))
    }

    fn client(&self, known: &Known, secret: Option<ClientSecret>) -> Result<Client, String> {
        let ways = known.metadata.token_endpoint_auth_methods_supported();
        let in_the_body = ways.is_some_and(|ways| {
            ways.contains(&CoreClientAuthMethod::ClientSecretPost)
                && !ways.contains(&CoreClientAuthMethod::ClientSecretBasic)
        });
        let how = if in_the_body { AuthType::RequestBody } else { AuthType::BasicAuth };
        let id = ClientId::new(self.client_id.clone());
        let client = CoreClient::from_provider_metadata(known.metadata.clone(), id, secret).set_auth_type(how);
        Ok(client.set_redirect_uri(RedirectUrl::new(self.redirect.clone()).map_err(|error| error.to_string())?))
    }
}

impl Provider {
    /// Begins a login. A fresh one is of this moment, and as strong as giving something back needs it.
    ///
    /// # Errors
    /// A lower-case sentence for whoever wants to sign in.
    pub async fn begin(&self, written: &SignIn, fresh: bool) -> Result<Begun, String> {
        let _place = self.places.try_acquire().map_err(|_| "too many people sign in just now: try again".to_owned())?;
        let known = self.known(written, limit::CONSOLE_METADATA_AGE_MAX).await?;
        let client = written.client(&known, None)?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let flow = AuthenticationFlow::<CoreResponseType>::AuthorizationCode;
        let mut asked = client
            .authorize_url(flow, || CsrfToken::new_random_len(32), || Nonce::new_random_len(32))
            .set_pkce_challenge(challenge)
            .add_scopes(written.scopes.iter().cloned().map(Scope::new));
        if let Some(resource) = &written.resource {
            asked = asked.add_extra_param("resource", resource.clone());
        }
        if fresh {
            // Not `auth_age_max`: the login has to be recent when the button is pressed, and not only now.
            asked = asked.add_extra_param("max_age", "0");
            if !written.acr.is_empty() {
                asked = asked.add_extra_param("acr_values", written.acr.join(" "));
            }
        }
        let (page, state, nonce) = asked.url();
        Ok(Begun { page, state: state.into_secret(), nonce: nonce.secret().clone(), verifier: verifier.into_secret() })
    }

    /// Finishes a login.
    ///
    /// # Errors
    /// A lower-case sentence for whoever wants to sign in.
    pub async fn finish(&self, written: &SignIn, returned: Returned<'_>) -> Result<LoggedIn, String> {
        let _place = self.places.try_acquire().map_err(|_| "too many people sign in just now: try again".to_owned())?;
        let known = self.known(written, limit::CONSOLE_METADATA_AGE_MAX).await?;
        match returned.issuer {
            Some(named) if named == written.issuer.issuer => {}
            Some(_) => return Err("the answer is another issuer's".to_owned()),
            None if known.metadata.additional_metadata().authorization_response_iss_parameter_supported => {
                return Err("the answer does not say which issuer it is from, although this one always does".to_owned());
            }
            None => {}
        }
        let secret = written.secret().await?;
        let client = written.client(&known, secret.clone())?;
        let mut asked = client
            .exchange_code(AuthorizationCode::new(returned.code.to_owned()))
            .map_err(|error| error.to_string())?
            .set_pkce_verifier(PkceCodeVerifier::new(returned.verifier.to_owned()));
        if let Some(resource) = &written.resource {
            asked = asked.add_extra_param("resource", resource.clone());
        }
        let answer: CoreTokenResponse = asked.request_async(&known.asker).await.map_err(|error| describe(&error))?;
        let nonce = Nonce::new(returned.nonce.to_owned());
        let subject = match verified(written, &client, &answer, &nonce) {
            Ok(subject) => subject,
            // The issuer may have changed its keys since it was asked; then it is asked once more.
            Err(_) => {
                let known = self.known(written, limit::CONSOLE_METADATA_RETRY).await?;
                verified(written, &written.client(&known, secret)?, &answer, &nonce)?
            }
        };
        Ok(LoggedIn { granted: granted(&answer), subject })
    }

    /// Renews a token.
    ///
    /// # Errors
    /// Whether it is over, or nobody knows.
    pub async fn renew(&self, written: &SignIn, refresh: &SecretString) -> Result<Granted, RenewError> {
        let known = self.known(written, limit::CONSOLE_METADATA_AGE_MAX).await.map_err(RenewError::Unknown)?;
        let secret = written.secret().await.map_err(RenewError::Unknown)?;
        let client = written.client(&known, secret).map_err(RenewError::Unknown)?;
        let refresh = RefreshToken::new(refresh.expose_secret().to_owned());
        let asked = client.exchange_refresh_token(&refresh).map_err(|error| RenewError::Unknown(error.to_string()))?;
        let asked = match &written.resource {
            Some(resource) => asked.add_extra_param("resource", resource.clone()),
            None => asked,
        };
        let answer: CoreTokenResponse = asked.request_async(&known.asker).await.map_err(|error| match &error {
            RequestTokenError::ServerResponse(_) => RenewError::Over,
            _ => RenewError::Unknown(describe(&error)),
        })?;
        Ok(granted(&answer))
    }

    /// What the issuer says of itself; asked again when that is older, one at a time.
    async fn known(&self, written: &SignIn, age_max: std::time::Duration) -> Result<Arc<Known>, String> {
        let mut last = self.last.lock().await;
        if let Some(attempt) = last.as_ref().filter(|attempt| attempt.issuer == written.issuer.issuer) {
            let age_max = if attempt.outcome.is_ok() { age_max } else { limit::CONSOLE_METADATA_RETRY };
            if attempt.at.elapsed() < age_max {
                return attempt.outcome.clone();
            }
        }
        let outcome = ask(written).await.map(Arc::new);
        *last = Some(Attempt { issuer: written.issuer.issuer.clone(), at: Instant::now(), outcome: outcome.clone() });
        outcome
    }
}

async fn ask(written: &SignIn) -> Result<Known, String> {
    let issuer = written.issuer.issuer.clone();
    let url = Url::parse(&issuer).map_err(|error| error.to_string())?;
    let on_loopback = url.scheme() == "http" || is_loopback(&url);
    let policy = EgressPolicy::issuer(url.host_str(), written.allow_loopback && on_loopback);
    let client = tokio::task::spawn_blocking(move || oauth_client(policy)).await.map_err(|error| error.to_string())?;
    let asker = Asker(client.map_err(|error| error.to_string())?);
    let named = IssuerUrl::new(issuer.clone()).map_err(|error| error.to_string())?;
    let metadata = Metadata::discover_async(named, &asker).await.map_err(|error| {
        tracing::warn!(issuer, problem = %error, "nobody can sign in");
        "the issuer does not answer: try again, or look at the gateway's log".to_owned()
    })?;
    if metadata.issuer().as_str() != issuer {
        return Err("the issuer calls itself something else than the files say".to_owned());
    }
    Ok(Known { asker, metadata })
}

/// The subject of the ID token, once everything of it was verified.
fn verified(written: &SignIn, client: &Client, answer: &CoreTokenResponse, nonce: &Nonce) -> Result<String, String> {
    let token = answer.id_token().ok_or("the issuer gave no ID token: does the client have the scope openid?")?;
    let algorithms = written.issuer.algorithms.iter().copied().map(signing);
    let verifier = client.id_token_verifier().set_allowed_algs(algorithms);
    let failed = |error: &dyn std::fmt::Display| {
        tracing::warn!(problem = %error, "an ID token was refused");
        "the issuer's ID token cannot be believed; the gateway's log says why".to_owned()
    };
    let claims = token.claims(&verifier, nonce).map_err(|error| failed(&error))?;
    if let Some(expected) = claims.access_token_hash() {
        let algorithm = token.signing_alg().map_err(|error| failed(&error))?;
        let key = token.signing_key(&verifier).map_err(|error| failed(&error))?;
        let found =
            AccessTokenHash::from_token(answer.access_token(), algorithm, key).map_err(|error| failed(&error))?;
        if found != *expected {
            return Err(failed(&"at_hash is another access token's"));
        }
    }
    Ok(claims.subject().to_string())
}

const fn signing(algorithm: Algorithm) -> CoreJwsSigningAlgorithm {
    match algorithm {
        Algorithm::Rs256 => CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
        Algorithm::Ps256 => CoreJwsSigningAlgorithm::RsaSsaPssSha256,
        Algorithm::Es256 => CoreJwsSigningAlgorithm::EcdsaP256Sha256,
        Algorithm::Es384 => CoreJwsSigningAlgorithm::EcdsaP384Sha384,
        Algorithm::EdDsa => CoreJwsSigningAlgorithm::EdDsa,
    }
}

fn granted(answer: &CoreTokenResponse) -> Granted {
    Granted {
        access: answer.access_token().secret().clone().into(),
        refresh: answer.refresh_token().map(|token| token.secret().clone().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_so_many_people_sign_in_at_once() {
        let provider = Provider::default();
        let most = u32::try_from(limit::CONSOLE_LOGINS_MAX).unwrap();
        let held = provider.places.acquire_many(most - 1).await.unwrap();
        let alias = crate::ids::IssuerAlias::new("corp").unwrap();
        let issuer = crate::config::issuer_with_defaults(&alias, "http://127.0.0.1:1/").unwrap();
        let written = SignIn {
            issuer: Arc::new(issuer),
            client_id: "x".to_owned(),
            client_secret: None,
            redirect: "http://127.0.0.1:2/back".to_owned(),
            scopes: Vec::new(),
            resource: None,
            acr: Vec::new(),
            allow_loopback: true,
        };
        let begin = async || provider.begin(&written, false).await.err().unwrap();
        assert!(begin().await.contains("does not answer"), "the last place is one");
        let last = provider.places.acquire().await.unwrap();
        assert!(begin().await.contains("too many people"));
        drop((held, last));
    }
}
