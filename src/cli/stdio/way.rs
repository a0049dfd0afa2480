//! How a request gets to the gateway, and with which token.
//!
//! Decides nothing about what is allowed. Invariant: a token travels over TLS or not beyond this machine, and to the
//! gateway that it was got for only.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Method as Verb, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use secrecy::SecretString;
use url::Url;

use crate::cli::login::{self, Carried, Challenge, Login};
use crate::egress::{EgressPolicy, UpstreamClient, upstream_client};
use crate::front::Front;
use crate::limit;
use crate::wire::mcp::header;

/// What comes back, wherever it was answered.
pub(in crate::cli) type Body = UnsyncBoxBody<Bytes, String>;

/// The way to one gateway.
pub(in crate::cli) enum Way {
    /// Over a connection.
    There {
        /// Connects.
        client: Box<UpstreamClient>,
        /// What requests carry.
        token: Token,
    },
    /// In this process: the front is asked as a connection would ask it, and knows its only user.
    Here(Arc<Front>),
}

/// Where the token of a request comes from.
pub(in crate::cli) enum Token {
    /// From the command line's user, or there is none.
    Given(Option<Carried>),
    /// From a login of our own.
    Login(Arc<Login>),
}

impl Way {
    /// To the gateway at `url`, with this token or without one.
    ///
    /// # Errors
    /// When the URL is not `https:` and not on this machine, or TLS cannot be set up.
    pub(in crate::cli) fn with_token(url: &Url, token: Option<&SecretString>) -> Result<Self, String> {
        Self::new(url, Token::Given(token.map(Carried::bearer).transpose()?))
    }

    /// To the gateway at `url`, with what a login there gets.
    ///
    /// # Errors
    /// As [`Self::with_token`].
    pub(in crate::cli) fn with_login(url: &Url, login: Login) -> Result<Self, String> {
        Self::new(url, Token::Login(Arc::new(login)))
    }

    fn new(url: &Url, token: Token) -> Result<Self, String> {
        login::check(url)?;
        // The address is the one that the user typed: wherever it is, it was meant.
        let client = upstream_client(EgressPolicy::server(true), limit::BRIDGE_CONNECT_TIMEOUT);
        Ok(Self::There { client: Box::new(client.map_err(|error| error.to_string())?), token })
    }

    /// Sends a request; once more with another token where the gateway refuses the one that was at hand.
    ///
    /// # Errors
    /// Why there is no answer.
    pub(in crate::cli) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Body>, String> {
        let (client, login) = match self {
            Self::There { client, token: Token::Login(login) } => (client, login),
            Self::There { client, token: Token::Given(token) } => return once(client, request, token.as_ref()).await,
            Self::Here(front) => {
                let response = front.answer(request, IpAddr::V4(Ipv4Addr::LOCALHOST)).boxed().await;
                return Ok(response.map(|body| body.map_err(|error| error.to_string()).boxed_unsync()));
            }
        };
        let carried = login.carried().await?;
        let again = request.clone();
        let response = once(client, request, carried.as_ref()).await?;
        // Nobody is asked to log in for the sake of a goodbye.
        let is_goodbye = again.method() == Verb::DELETE && again.headers().contains_key(header::SESSION_ID);
        if response.status() != StatusCode::UNAUTHORIZED || is_goodbye {
            return Ok(response);
        }
        let challenge = Challenge::read(response.headers());
        drop(response);
        let fresh = login.after_refusal(carried.as_ref(), challenge).await?;
        once(client, again, Some(&fresh)).await
    }

    /// What to do about a token that is missing or no good.
    pub(super) fn refused(&self, url: &str) -> String {
        let what = match self {
            Self::There { token: Token::Given(None), .. } => "needs an access token",
            Self::There { token: Token::Given(Some(_)), .. } => "refused the access token",
            Self::Here(_) => {
                return "the local user may not call: `bailiwick logs` says why; the agent may be suspended, or the \
                        user revoked"
                    .to_owned();
            }
            Self::There { token: Token::Login(_), .. } => {
                return format!(
                    "the gateway refuses the login that it was given; run `bailiwick logout --url {url}` and log in \
                     again, or ask its administrator why"
                );
            }
        };
        format!(
            "the gateway {what}: put a valid one into the environment variable BAILIWICK_TOKEN, or into a file of \
             mode 0600 that --token-file names, and start again"
        )
    }
}

async fn once(
    client: &UpstreamClient,
    mut request: Request<Full<Bytes>>,
    token: Option<&Carried>,
) -> Result<Response<Body>, String> {
    let Some(token) = token else { return plain(client, request).await };
    let mut again = request.clone();
    token.put(&mut request)?;
    let response = plain(client, request).await?;
    // Whoever wants another nonce has not looked at anything else yet.
    if token.wants_anew(response.headers()) && response.status() == StatusCode::UNAUTHORIZED {
        token.put(&mut again)?;
        let response = plain(client, again).await?;
        let _next_time = token.wants_anew(response.headers());
        return Ok(response);
    }
    Ok(response)
}

async fn plain(client: &UpstreamClient, request: Request<Full<Bytes>>) -> Result<Response<Body>, String> {
    let place = request.uri().clone();
    let response = client.request(request).await.map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        format!("the gateway at {place} cannot be reached{cause}; check the URL and that it runs")
    })?;
    Ok(response.map(|body| body.map_err(|error| error.to_string()).boxed_unsync()))
}
