//! How the gateway is a client of authorization servers: where one is found, what it says of itself, who we are there,
//! and how a token is got, renewed and given back.
//!
//! Decides what is asked and which answers are believed, for the bridge's login, the console's, and accounts that
//! people link. Refuses to know what a token is for. Invariants: everything goes through the guarded client; nothing
//! that a server writes is repeated beyond an error's code; no token is repeated at all.

use futures_util::future::BoxFuture;
use openidconnect::{AsyncHttpClient, ErrorResponse, HttpRequest, HttpResponse, RequestTokenError};

use crate::egress::{EgressError, OauthClient};
use crate::limit;

pub mod browser;
pub mod challenge;
pub mod discover;
pub mod dpop;
pub mod person;
pub mod register;
pub mod tokens;

pub use challenge::Challenge;
pub use discover::{Protected, Server};
pub use register::Registered;

/// Lends our guarded client to `openidconnect`.
#[derive(Debug, Clone)]
pub struct Asker(pub OauthClient);

impl<'c> AsyncHttpClient<'c> for Asker {
    type Error = EgressError;
    type Future = BoxFuture<'c, Result<HttpResponse, EgressError>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.0.send(request))
    }
}

/// What went wrong, without anything that the issuer wrote but its code.
#[must_use]
pub fn describe<T: ErrorResponse + std::fmt::Display>(error: &RequestTokenError<EgressError, T>) -> String {
    match error {
        RequestTokenError::ServerResponse(response) => {
            let code: String = shown(&response.to_string()).chars().take(limit::HOST_SHOWN_CHARACTERS_MAX).collect();
            format!("the issuer refuses: {code}")
        }
        RequestTokenError::Request(error) => error.to_string(),
        RequestTokenError::Parse(..) => "the issuer's answer cannot be read".to_owned(),
        RequestTokenError::Other(_) => "the issuer's answer is no good".to_owned(),
    }
}

/// Text of somebody else's: cut, and without anything that drives a terminal.
#[must_use]
pub fn shown(text: &str) -> String {
    let harmless = |character: char| if character.is_control() { '\u{fffd}' } else { character };
    text.chars().map(harmless).take(limit::ERROR_SHOWN_CHARACTERS_MAX).collect()
}
