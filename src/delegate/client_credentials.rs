//! RFC 6749, section 4.4: a token of the gateway's own.
//!
//! Decides what is asked. Invariant: it stands for the gateway and for nobody who calls, so what it may do at the
//! upstream everyone may do whom the policy lets call.

use super::CredentialKind;
use super::answer::Expected;
use super::endpoint::{Endpoints, Form};
use super::exchange::warn_if_wider;
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
    let form = Form::new("client_credentials", asks);
    let answered = endpoints.token(&server, asks, form, Expected::Bearer).await;
    let token = answered.map_err(|problem| problem.stop(wanted.id()))?;
    warn_if_wider(wanted, asks, &token);
    // It is nobody's but ours, whoever calls.
    let ours = Wanted { caller: None, ..*wanted };
    Issued::new(CredentialKind::ClientCredentials, token, asks, &ours, server, asked_at)
}
