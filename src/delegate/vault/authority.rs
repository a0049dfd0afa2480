//! The authorization server of an upstream: which one it is, what it says of itself, and who we are there.
//!
//! Decides where people are sent to link an account. Invariants: the upstream names itself to the letter as the files
//! do, and its authorization server names itself as the upstream does; whatever they name is reached only where a
//! stranger's addresses may be, the upstream's own host and what an administrator wrote aside; a code that nobody
//! binds to us (PKCE) is not asked for; what we are at one authorization server is never shown to another.

use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use url::Url;

use super::{Entry, is_origin, resource};
use crate::config::{OauthConfig, ServerConfig, TransportConfig};
use crate::egress::{EgressPolicy, OauthClient, is_loopback, oauth_client};
use crate::identity::now_s;
use crate::ids::{Digest, PrincipalKey};
use crate::limit;
use crate::oauth::discover::{self, NoDocument};
use crate::oauth::register::{RegisterError, register};
use crate::oauth::{Challenge, Registered, Server, dpop, shown};
use crate::outcome::Failure;
use crate::shelf::{Action, Change, Expect, Section, Shelf, Tell};
use crate::wire::handle::Sealer;

/// Registrations of ours.
const CLIENTS: Section = Section { name: "account client", rows_max: limit::VAULT_CLIENTS_MAX };
const PURPOSE: &str = "account client";

/// Who we are toward authorization servers.
#[derive(Debug, Clone)]
pub struct Ourselves {
    /// Where they send browsers back to.
    pub redirect: String,
    /// Our own document, which is a client id where that is understood.
    pub document: String,
    /// What people call us.
    pub name: String,
}

/// The authorization server of an upstream.
#[derive(Debug, Clone)]
pub struct Authority {
    /// What it says of itself.
    pub server: Server,
    /// A client that may go there.
    pub asker: OauthClient,
    /// Who we are there.
    pub client: Registered,
    /// Whether an administrator wrote that.
    pub client_is_written: bool,
    /// What tokens are for.
    pub resource: String,
    /// What is asked for.
    pub scopes: Vec<String>,
    /// Tokens can be bound to a key: the authorization server makes such, and the upstream takes them.
    pub proves: bool,
}

/// The authorization servers of all upstreams.
#[derive(Debug)]
pub struct Authorities {
    shelf: Arc<dyn Shelf>,
    ourselves: Ourselves,
    known: moka::future::Cache<Digest, Arc<Authority>>,
}

impl Ourselves {
    /// As this public URL has it.
    #[must_use]
    pub fn at(public_url: &Url) -> Self {
        let base = public_url.as_str().trim_end_matches('/');
        Self {
            redirect: format!("{base}/link/callback"),
            document: format!("{base}/.well-known/oauth-client/link"),
            name: format!("Bailiwick at {}", public_url.host_str().unwrap_or("this gateway")),
        }
    }

    /// Our own document, or what a registration says.
    #[must_use]
    pub fn described(&self) -> serde_json::Value {
        json!({
            "client_name": self.name,
            "application_type": "web",
            "redirect_uris": [self.redirect],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
        })
    }
}

impl Authorities {
    pub(super) fn new(shelf: Arc<dyn Shelf>, ourselves: Ourselves) -> Self {
        let known = moka::future::Cache::builder()
            .max_capacity(limit::VAULT_AUTHORITIES_MAX)
            .time_to_live(limit::VAULT_AUTHORITY_AGE_MAX)
            .build();
        Self { shelf, ourselves, known }
    }

    /// Who we are.
    #[must_use]
    pub const fn ourselves(&self) -> &Ourselves {
        &self.ourselves
    }

    /// A client that may go to that authorization server of an upstream.
    ///
    /// # Errors
    /// When it is no URL, or TLS cannot be set up.
    pub(super) fn asker(
        &self,
        server: &ServerConfig,
        account: &OauthConfig,
        issuer: &str,
    ) -> Result<OauthClient, String> {
        let url = Url::parse(issuer).map_err(|error| error.to_string())?;
        oauth_client(policy(server, account, issuer, &url)).map_err(|error| error.to_string())
    }

    /// The same where no upstream is known any more that named it: only where strangers may be.
    pub(super) fn asker_of_nobody(issuer: &str) -> Result<OauthClient, String> {
        Url::parse(issuer).map_err(|error| error.to_string())?;
        oauth_client(EgressPolicy::named_by_another(None, false)).map_err(|error| error.to_string())
    }

    /// The authorization server of an upstream, asked for what it says of itself a moment ago at most. `sealer` is for
    /// what it calls us.
    ///
    /// # Errors
    /// A lower-case sentence: why nobody can link an account there.
    pub async fn of(
        &self,
        server: &ServerConfig,
        account: &OauthConfig,
        sealer: &Sealer,
    ) -> Result<Arc<Authority>, String> {
        let key = Digest::of(
            "bailiwick/authority/v1",
            &[server.id.as_str().as_bytes(), format!("{:?} {account:?}", server.transport).as_bytes()],
        );
        let asked = self.known.try_get_with(key, async { self.ask(server, account, sealer).await.map(Arc::new) });
        asked.await.map_err(|problem| String::clone(&problem))
    }

    async fn ask(&self, server: &ServerConfig, account: &OauthConfig, sealer: &Sealer) -> Result<Authority, String> {
        let resource =
            resource(server, account).ok_or("nothing says what it calls itself: write `resource` and `issuer`")?;
        let (protected, challenge) = described(server, account, &resource).await?;
        // A token is asked for under the name that it publishes, to the letter.
        let named_itself = protected.as_ref().map(|protected| protected.resource.clone());
        let named = protected.as_ref().map(|protected| protected.authorization_servers.as_slice()).unwrap_or_default();
        let issuer = match (&account.issuer, named.first()) {
            (Some(written), Some(_)) if !named.contains(written) => {
                return Err(format!("the server does not accept tokens of {written}, which the files name"));
            }
            (Some(written), _) => written.clone(),
            (None, Some(first)) => first.clone(),
            (None, None) => return Err("the server names no authorization server: write `issuer`".into()),
        };
        let url = Url::parse(&issuer).map_err(|_| format!("the issuer {} is no URL", shown(&issuer)))?;
        let (found, asker) = discover::server(&issuer, &policy(server, account, &issuer, &url)).await?;
        let pkce = found.code_challenge_methods_supported.as_ref().map(|ways| ways.iter().any(|way| way == "S256"));
        // A server that does not say that it checks the verifier may ignore it; for a client that an administrator
        // registered, that administrator has looked.
        if pkce == Some(false) || (pkce.is_none() && account.client_id.is_none()) {
            return Err(format!("the issuer {} does not say that it supports PKCE with S256", shown(&issuer)));
        }
        let signs = |all: &[String]| all.iter().any(|known| known == dpop::ALGORITHM);
        let takes_bound = challenge.dpop
            || protected.as_ref().is_some_and(|protected| {
                protected.dpop_bound_access_tokens_required || signs(&protected.dpop_signing_alg_values_supported)
            });
        let proves = takes_bound && signs(&found.dpop_signing_alg_values_supported);
        let mut scopes: Vec<String> = match (&account.scope, challenge.scope, protected) {
            (Some(scope), ..) => scope.split_whitespace().map(str::to_owned).collect(),
            (None, Some(scope), _) => scope.split_whitespace().map(str::to_owned).collect(),
            (None, None, Some(protected)) => protected.scopes_supported,
            (None, None, None) => Vec::new(),
        };
        let offline = "offline_access".to_owned();
        if found.scopes_supported.contains(&offline) && !scopes.contains(&offline) {
            scopes.push(offline);
        }
        if scopes.iter().map(String::len).sum::<usize>() > limit::VAULT_SCOPE_BYTES_MAX {
            return Err("the server asks for more scopes than fit: write those that are needed as `scope`".to_owned());
        }
        let client = self.client(account, &found, &asker, sealer).await?;
        let client_is_written = account.client_id.is_some();
        let resource = named_itself.unwrap_or(resource);
        Ok(Authority { server: found, asker, client, client_is_written, resource, scopes, proves })
    }

    /// Who we are there: as an administrator wrote it, by our own document, or registered.
    async fn client(
        &self,
        account: &OauthConfig,
        server: &Server,
        asker: &OauthClient,
        sealer: &Sealer,
    ) -> Result<Registered, String> {
        if let Some(id) = &account.client_id {
            let secret = match &account.client_secret {
                Some(reference) => Some(reference.read().await.map_err(|error| error.to_string())?),
                None => None,
            };
            return Ok(Registered::written(id, secret, server));
        }
        // The document is fetched by them: over TLS, or not beyond this machine.
        let both_here = || [&self.ourselves.document, &server.issuer].into_iter().all(|text| here(text));
        if server.client_id_metadata_document_supported
            && (self.ourselves.document.starts_with("https://") || both_here())
        {
            return Ok(Registered::public(self.ourselves.document.clone()));
        }
        let Some(endpoint) = &server.registration_endpoint else {
            return Err(format!(
                "the issuer {} registers no clients by itself: have one registered there with the redirect URI {}, and \
                 write its client_id and issuer",
                shown(&server.issuer),
                self.ourselves.redirect
            ));
        };
        self.registered(server, endpoint, asker, sealer).await
    }

    /// Has all of them asked again: one does not know its own tokens any more.
    pub(super) fn doubt(&self) {
        self.known.invalidate_all();
    }

    /// Forgets a registration that its authorization server has forgotten, so that another one is made.
    pub(super) async fn forget(&self, issuer: &str, client: &Registered, sealer: &Sealer) -> Result<(), Failure> {
        let (key, principal) = self.registration(issuer);
        self.known.invalidate_all();
        let Some(row) = self.shelf.row(CLIENTS, &key).await? else { return Ok(()) };
        let kept = sealer.open_within(PURPOSE, principal, &row.body, limit::VAULT_ENTRY_BYTES_MAX);
        let kept: Option<Registered> = kept.and_then(|content| serde_json::from_slice(&content).ok());
        // Somebody may have registered anew meanwhile.
        if kept.is_some_and(|kept| kept.id == client.id) {
            let change = Change::new(CLIENTS, key, Expect::Version(row.version), Action::Remove);
            self.shelf.change(vec![change], Tell::Nobody).await?;
        }
        Ok(())
    }

    /// Whether that is a client that was registered there, and neither written by anybody nor our own document, which
    /// an authorization server may fail to read for a moment.
    pub(super) fn is_registered(&self, entry: &Entry) -> bool {
        !entry.client_is_written && entry.client.id != self.ourselves.document
    }

    /// Where a registration is kept.
    fn registration(&self, issuer: &str) -> (String, PrincipalKey) {
        let parts = [issuer.as_bytes(), self.ourselves.redirect.as_bytes()];
        let place = Digest::of("bailiwick/account-client/v1", &parts);
        (place.to_string(), PrincipalKey(place))
    }

    /// The registration that was made before, or a new one.
    async fn registered(
        &self,
        server: &Server,
        endpoint: &Url,
        asker: &OauthClient,
        sealer: &Sealer,
    ) -> Result<Registered, String> {
        let (key, principal) = self.registration(&server.issuer);
        let read = async || {
            let row = self.shelf.row(CLIENTS, &key).await.map_err(|failure| failure.to_string())?;
            let open = |body: String| sealer.open_within(PURPOSE, principal, &body, limit::VAULT_ENTRY_BYTES_MAX);
            let known = row.and_then(|row| serde_json::from_slice(&open(row.body)?).ok());
            Ok::<Option<Registered>, String>(known)
        };
        if let Some(known) = read().await? {
            return Ok(known);
        }
        let issuer = shown(&server.issuer);
        let (made, secret_ends_at) = register(asker, endpoint, &self.ourselves.described()).await.map_err(|problem| match problem {
            RegisterError::Refused(status) => format!(
                "the issuer {issuer} does not register us ({status}): have a client registered there, and write its \
                 client_id and issuer"
            ),
            RegisterError::Unreadable => format!("the issuer {issuer} answers a registration with something else"),
            RegisterError::Unknown(problem) => problem,
        })?;
        let content = serde_json::to_vec(&made).map_err(|error| error.to_string())?;
        let body = sealer.seal(PURPOSE, principal, &content).map_err(|error| error.to_string())?;
        let age_max = limit::VAULT_CLIENT_AGE_MAX.as_micros();
        let aged_us = now_s().saturating_mul(1_000_000).saturating_add(i64::try_from(age_max).unwrap_or(i64::MAX));
        let ends_us = secret_ends_at.map_or(i64::MAX, |at| at.saturating_mul(1_000_000));
        // Who has linked an account keeps the registration that it was linked with.
        let action = Action::Put { owner: String::new(), body, expires_at_us: Some(aged_us.min(ends_us)) };
        // One that a key which is gone had sealed is replaced; of two that were made at once, either is good.
        let change = Change::new(CLIENTS, key.clone(), Expect::Anything, action);
        let changed = self.shelf.change(vec![change], Tell::Nobody).await.map_err(|failure| failure.to_string())?;
        if !changed.is_done() {
            return Err("our registration cannot be kept".to_owned());
        }
        Ok(made)
    }
}

/// What an upstream says of itself, and what its 401 says. Nothing, where it says nothing and an administrator wrote
/// which authorization server it has.
async fn described(
    server: &ServerConfig,
    account: &OauthConfig,
    resource: &str,
) -> Result<(Option<discover::Protected>, Challenge), String> {
    let TransportConfig::Http { url, allow_private } = &server.transport else {
        return Ok((None, Challenge::default()));
    };
    let asker = oauth_client(EgressPolicy::server(*allow_private)).map_err(|error| error.to_string())?;
    let challenge = challenge(&asker, url).await;
    // What stands at the root speaks of the origin (RFC 9728, section 3.3).
    let is_own = |place: &Url, named: &str| {
        let of_origin = || is_root(url, named) || (place.path() == discover::RESOURCE && is_origin(url, named));
        named == resource || (account.resource.is_none() && of_origin())
    };
    match discover::protected(&asker, url, &challenge, is_own).await {
        Ok(protected) => Ok((Some(protected), challenge)),
        Err(NoDocument::OfAnother(named)) => Err(format!(
            "the server calls itself {named} and not {resource}: a token for another name is good somewhere else; write \
             its name as `resource` if it is meant"
        )),
        Err(NoDocument::None(_)) if account.issuer.is_some() => Ok((None, challenge)),
        Err(NoDocument::None(problem)) => Err(format!("the server does not say where to link an account: {problem}")),
    }
}

/// A URL without a path is written without its last slash, which its parser adds.
fn is_root(url: &Url, named: &str) -> bool {
    url.path() == "/" && url.query().is_none() && url.as_str().strip_suffix('/') == Some(named)
}

/// What it says to somebody without a token.
async fn challenge(asker: &OauthClient, url: &Url) -> Challenge {
    let request = http::Request::post(url.as_str())
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json, text/event-stream")
        .body(json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" }).to_string().into_bytes());
    let Ok(request) = request else { return Challenge::default() };
    match asker.send(request).await {
        Ok(answer) if answer.status() == http::StatusCode::UNAUTHORIZED => Challenge::read(answer.headers()),
        _ => Challenge::default(),
    }
}

/// Where an authorization server may be that an upstream names.
fn policy(server: &ServerConfig, account: &OauthConfig, issuer: &str, url: &Url) -> EgressPolicy {
    let (own, on_this_machine) = match &server.transport {
        TransportConfig::Http { url, allow_private: true } => (url.host_str(), is_loopback(url)),
        _ => (None, false),
    };
    let written = account.issuer.as_deref() == Some(issuer);
    let policy = EgressPolicy::named_by_another(own, on_this_machine || (written && is_loopback(url)));
    if written { policy.with_private_host(url.host_str()) } else { policy }
}

fn here(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| is_loopback(&url))
}

/// How long a token lives that was given with this life.
pub(super) fn ends(now: i64, life: Option<Duration>) -> Option<i64> {
    life.map(|life| now.saturating_add(i64::try_from(life.as_secs()).unwrap_or(i64::MAX)))
}

/// What a token says its account is called: for people, and believed by nobody.
#[must_use]
pub fn account_of(id_token: Option<&str>, access: &SecretString) -> Option<String> {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let claims = |token: &str| {
        let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
        serde_json::from_slice::<serde_json::Value>(&payload).ok()
    };
    let claims = id_token.and_then(claims).or_else(|| claims(access.expose_secret()))?;
    let named = ["email", "preferred_username", "name", "sub"].into_iter().find_map(|name| claims.get(name)?.as_str());
    named.map(shown)
}
