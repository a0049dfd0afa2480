//! RFC 6749, section 4.4: a token of the gateway's own; or RFC 7523, section 2.1, where the platform that it runs on vouches
//! for it.
//!
//! Decides what is asked. Invariant: it stands for the gateway and for nobody who calls, so what it may do at the
//! upstream everyone may do whom the policy lets call.

use secrecy::{ExposeSecret as _, SecretString};

use super::CredentialKind;
use super::answer::Expected;
use super::endpoint::{Endpoints, Form};
use super::exchange::warn_if_wider;
use super::id_jag::BEARER_GRANT;
use super::issued::Issued;
use super::unavailable;
use super::wanted::Wanted;
use crate::config::TokenRequest;
use crate::identity::now_s;
use crate::outcome::Stop;

/// Asks for a token of our own.
///
/// # Errors
/// As [`super::exchange::issue`].
pub(super) async fn issue(endpoints: &Endpoints, asks: &TokenRequest, wanted: &Wanted<'_>) -> Result<Issued, Stop> {
    let server = endpoints.server(asks, None).await.map_err(|problem| unavailable(wanted.id(), &problem))?;
    let asked_at = now_s();
    let form = match &asks.assertion {
        None => Form::new("client_credentials", asks),
        Some(kept) => {
            let assertion = endpoints.secret(kept).await.map_err(|problem| unavailable(wanted.id(), &problem))?;
            let assertion = SecretString::from(assertion.expose_secret());
            Form::new(BEARER_GRANT, asks).with_secret("assertion", assertion)
        }
    };
    let answered = endpoints.token(&server, asks, form, Expected::Bearer).await;
    let token = answered.map_err(|problem| problem.stop(wanted.id()))?;
    warn_if_wider(wanted, asks, &token);
    // It is nobody's but ours, whoever calls.
    let ours = Wanted { caller: None, ..*wanted };
    Issued::new(CredentialKind::ClientCredentials, token, asks, &ours, server, asked_at)
}
