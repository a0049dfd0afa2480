//! The development issuer: an authorization server on loopback whose users sign in with one click.
//!
//! Decides who anybody says they are, which is why only `demo` starts it. Speaks what assistants need:
//! discovery, dynamic registration, authorization code with PKCE, refresh, client credentials, token
//! exchange, revocation. Invariants: it listens on loopback only, has a fresh key per start, answers only
//! requests that name its own host, and keeps nothing without a bound.

use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::config::{Algorithm, ClaimNames, IssuerConfig, ScopeMode};
use crate::egress::{EgressPolicy, oauth_client};
use crate::ids::{AgentId, IssuerAlias};
use crate::limit;

mod authorize;
mod door;
mod grant;
mod metadata;
mod mint;
mod parameters;
mod register;
mod state;
#[cfg(test)]
mod tests;

use mint::Mint;
use state::State;

/// The alias under which the demo's gateway knows this issuer.
pub const ALIAS: &str = "demo";

/// The client id of tokens that `bailiwick token` prints.
pub const CLI_CLIENT: &str = "bailiwick-cli";

/// The `acr` of somebody who clicked on their name.
const CLICKED: &str = "click";

/// Somebody who can sign in with one click.
#[derive(Debug, Clone)]
pub struct DemoUser {
    /// The `sub`.
    pub name: String,
    /// What the page says about them.
    pub title: String,
    /// Their groups.
    pub groups: Vec<String>,
}

/// A confidential client: a demo agent, or the gateway itself for token exchange.
#[derive(Debug, Clone)]
pub struct DemoClient {
    /// Its client id.
    pub id: String,
    /// Its secret.
    pub secret: SecretString,
    /// Whether it may exchange tokens of others.
    pub may_exchange: bool,
}

/// A public client that people sign in to with a browser, and that did not register itself: the gateway's console.
#[derive(Debug, Clone)]
pub struct DemoPages {
    /// Its client id.
    pub id: String,
    /// What the page calls it.
    pub name: String,
    /// Where browsers go back to; the port is free where that is this machine.
    pub redirect_uri: String,
}

/// What `demo` decides about the issuer.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// Where it listens; must be loopback. Port 0 takes any.
    pub listen: SocketAddr,
    /// Who can sign in.
    pub users: Vec<DemoUser>,
    /// Confidential clients.
    pub clients: Vec<DemoClient>,
    /// Public clients that are known from the start.
    pub pages: Vec<DemoPages>,
    /// The resource of a request that names none: `<public_url>/mcp`.
    pub resource: String,
    /// Scopes that are offered.
    pub scopes: Vec<String>,
    /// Which agent an unregistered assistant becomes.
    pub interactive_default: Option<AgentId>,
    /// Roles that everyone has.
    pub default_roles: Vec<String>,
    /// Where `bailiwick token` finds this issuer: a file that only the owner can read.
    pub door_file: Option<PathBuf>,
}

/// The running issuer. Ends with the token that it was started with.
#[derive(Debug)]
pub struct DemoIssuer {
    state: Arc<State>,
}

/// What `bailiwick token` asks for.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MintRequest {
    /// Whose token.
    pub user: String,
    /// For which resource; the gateway when absent, one of its servers' endpoints when it is `/SERVER`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub resource: Option<String>,
    /// As which client; [`CLI_CLIENT`] when absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub client_id: Option<String>,
    /// For how many seconds; an hour when absent, and at most.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lifetime_s: Option<u64>,
}

/// What stands in the door file.
#[derive(Serialize, Deserialize)]
struct Door {
    url: String,
    secret: String,
}

impl DemoIssuer {
    /// Listens, and serves in a task of `tasks` until `stop`.
    ///
    /// # Errors
    /// When the address is not loopback or taken, or the door file cannot be written.
    pub async fn start(
        options: DemoOptions,
        tasks: &tokio_util::task::TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, String> {
        if !options.listen.ip().is_loopback() {
            return Err(format!("the demo issuer listens on loopback only, not on {}", options.listen));
        }
        let taken = |error: std::io::Error| format!("the demo issuer cannot listen on {}: {error}", options.listen);
        let listener = tokio::net::TcpListener::bind(options.listen).await.map_err(taken)?;
        let address = listener.local_addr().map_err(taken)?;
        let door_file = options.door_file.clone();
        let state = Arc::new(State::new(options, address, Mint::new()?)?);
        if let Some(path) = &door_file {
            let door = Door { url: state.url.clone(), secret: state.door_secret.expose_secret().to_owned() };
            write_door(path, &door).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        }
        let router = router(Arc::clone(&state));
        tasks.spawn(async move {
            let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
            if let Err(error) = served.await {
                tracing::error!(%error, "the demo issuer ended");
            }
            if let Some(path) = door_file {
                let _gone = tokio::fs::remove_file(path).await;
            }
        });
        Ok(Self { state })
    }

    /// Its `iss`, which is also where it is.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.state.url
    }

    /// How the gateway knows it: injected in memory, never read from a file.
    ///
    /// # Errors
    /// When the alias cannot be spelled, which would be a defect.
    pub fn issuer_config(&self) -> Result<IssuerConfig, String> {
        Ok(IssuerConfig {
            alias: IssuerAlias::new(ALIAS).map_err(|error| error.to_string())?,
            issuer: self.state.url.clone(),
            audiences: Vec::new(),
            admin_audiences: Vec::new(),
            algorithms: vec![Algorithm::Es256],
            token_types: vec!["at+jwt".to_owned()],
            token_life_max: limit::DEMO_TOKEN_LIFE_MAX,
            leeway: Duration::from_secs(5),
            claims: ClaimNames {
                client: vec!["client_id".to_owned()],
                groups: Some("groups".to_owned()),
                groups_age_max: None,
                scope: vec!["scope".to_owned()],
                person: Some("sub".to_owned()),
            },
            optional_claims: Vec::new(),
            own_tokens: vec![crate::config::OwnSign::Subject],
            default_roles: self.state.options.default_roles.clone(),
            scopes: ScopeMode::Ignored,
            interactive_default: self.state.options.interactive_default.clone(),
            jwks_stale_max: Duration::from_secs(3600),
            sender_constraint: crate::config::SenderConstraint::None,
            kind: crate::config::spiffe::IssuerKind::Oidc,
            introspection: None,
            registration: None,
            link: None,
        })
    }

    /// A token for one of the users, as if they had signed in at that client.
    ///
    /// # Errors
    /// When there is no such user, or the resource is not a URI.
    pub fn mint(&self, request: &MintRequest) -> Result<SecretString, String> {
        mint::for_user(&self.state, request)
    }

    /// A token for one of the clients with a secret, as if it had asked with its credentials.
    ///
    /// # Errors
    /// When there is no such client.
    pub fn mint_for_client(&self, id: &str) -> Result<SecretString, String> {
        let client = self.state.confidential(id).ok_or_else(|| format!("the demo has no client `{id}`"))?;
        grant::for_client(&self.state, &client.id, None, "").map_err(|problem| problem.description)
    }
}

/// Asks a running demo for a token, by the door file in its state directory.
///
/// # Errors
/// When no demo runs there, or it refuses.
pub async fn mint_token(door_file: &Path, request: &MintRequest) -> Result<SecretString, String> {
    let missing =
        |error: std::io::Error| format!("no demo runs here ({}: {error}); start `bailiwick demo`", door_file.display());
    let text = tokio::fs::read_to_string(door_file).await.map_err(missing)?;
    let door: Door = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", door_file.display()))?;
    let client = oauth_client(EgressPolicy::server(true)).map_err(|error| error.to_string())?;
    let body = serde_json::to_vec(request).map_err(|error| error.to_string())?;
    let request = http::Request::post(format!("{}/demo/token", door.url))
        .header(http::header::AUTHORIZATION, format!("Bearer {}", door.secret))
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body)
        .map_err(|error| error.to_string())?;
    let answer = client.send(request).await.map_err(|error| format!("the demo does not answer: {error}"))?;
    let text = String::from_utf8_lossy(answer.body()).into_owned();
    if answer.status() == http::StatusCode::OK { Ok(SecretString::from(text)) } else { Err(text) }
}

fn write_door(path: &Path, door: &Door) -> std::io::Result<()> {
    use std::io::Write;
    // Written anew, never into a file that was there: its mode or a link could give the secret away.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&serde_json::to_vec(door)?)
}

fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/.well-known/openid-configuration", get(metadata::metadata))
        .route("/.well-known/oauth-authorization-server", get(metadata::metadata))
        .route("/jwks", get(metadata::jwks))
        .route("/register", post(register::register))
        .route("/authorize", get(authorize::page).post(authorize::signed_in))
        .route("/token", post(grant::token))
        .route("/revoke", post(grant::revoke))
        .route("/demo/token", post(mint::endpoint))
        .layer(axum::extract::DefaultBodyLimit::max(limit::DEMO_BODY_BYTES_MAX))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&state), door::guard))
        .with_state(state)
}
